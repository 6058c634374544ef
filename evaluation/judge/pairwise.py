"""Which of two answers a judge model prefers, asked in both orders.

Zheng et al. 2023, "Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena", section 3.4: a judge may prefer
whichever answer comes first. So only a choice that stays the same when the answers are swapped counts;
everything else is a tie. Choices are cached by the hash of the whole question.
"""

import hashlib
import json
import secrets
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from evaluation.judge.prompt import CHOICES, VERSION, addresses_judge, judge_messages, read_choice
from evaluation.scored_rows import AnsweredPair
from phi3flow.core.console import say
from phi3flow.core.errors import Phi3flowError
from phi3flow.core.files import write_json
from phi3flow.phi3_contract import Endpoint, EndpointError, Sampling

TRIES = 2  # after a reply without a choice, under a new random word
GIVE_UP_AFTER = 20  # failures in a row
MAX_TOKENS = 64
UNREADABLE = "the judge's reply names no choice"
GAVE_UP = f"not asked: the judge failed {GIVE_UP_AFTER} times in a row"


@dataclass(frozen=True)
class Judgment:
    """A judge's preference on one line: 1 for tuned, 0 for base, 0.5 for a tie, None if there is none.

    `first_order` and `second_order` are its choices (base, tuned, tie) with base and with tuned first, None
    if it was not asked. `addressed` names the sides whose answer addresses the judge: such a line is not
    sent. `error` is the reason of a failure.
    """

    line: int
    base_chars: int
    tuned_chars: int
    preference: float | None
    first_order: str | None = None
    second_order: str | None = None
    addressed: tuple[str, ...] = ()
    error: str | None = None

    @property
    def failure(self) -> str | None:
        """Why there is no preference; None if there is one."""
        if self.preference is not None:
            return None
        return self.error or f"the answer of {' and '.join(self.addressed)} addresses the judge"


class JudgeFailed(Exception):
    """The judge gave no usable reply."""


class Judge:
    """A judge behind an endpoint. `name` is its connection, `cache` a folder of its choices."""

    def __init__(self, name: str, endpoint: Endpoint, cache: Path) -> None:
        self.name, self.endpoint = name, endpoint
        self._cache = cache
        self._failures = 0
        self._lock = threading.Lock()

    def compare(self, pairs: Sequence[AnsweredPair], *, workers: int) -> list[Judgment]:
        """Judge every pair, in order. A failure is recorded in its judgment."""
        say(f"asking {self.name} about {len(pairs)} pairs of answers, in both orders")
        with ThreadPoolExecutor(max_workers=workers) as pool:
            return list(pool.map(self._judge, pairs))

    def _judge(self, pair: AnsweredPair) -> Judgment:
        row, base, tuned = pair.row, pair.base.text, pair.tuned.text
        sides = {"base": base, "tuned": tuned}
        addressed = tuple(
            side for side, text in sides.items() if addresses_judge(text, row.messages, row.reference)
        )
        about = (row.line, len(base), len(tuned))
        if base == tuned:
            return Judgment(*about, preference=0.5)
        if addressed:
            return Judgment(*about, preference=None, addressed=addressed)
        try:
            chosen = self._choose(pair, "base", "tuned"), self._choose(pair, "tuned", "base")
        except (JudgeFailed, EndpointError) as failure:
            return Judgment(*about, preference=None, error=str(failure))
        return Judgment(*about, _preference(*chosen), *chosen)

    def _choose(self, pair: AnsweredPair, first: str, second: str) -> str:
        """`base`, `tuned` or `tie`, with the side `first` shown first."""
        answers = {"base": pair.base.text, "tuned": pair.tuned.text}
        choice = self._cached(pair, answers[first], answers[second])
        return {"first": first, "second": second, "tie": "tie"}[choice]

    def _cached(self, pair: AnsweredPair, first: str, second: str) -> str:
        turns = [dict(turn) for turn in pair.row.messages]
        asked = [VERSION, self.endpoint.url, self.endpoint.model, turns, pair.row.reference, first, second]
        path = self._cache / f"{hashlib.sha256(json.dumps(asked).encode()).hexdigest()}.json"
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))["choice"]
            if kept in CHOICES:
                return str(kept)
        except (FileNotFoundError, ValueError, LookupError, TypeError):
            pass  # not there, or damaged
        choice = self._ask(pair, first, second)
        write_json(path, {"choice": choice})
        return choice

    def _ask(self, pair: AnsweredPair, first: str, second: str) -> str:
        if self._failures >= GIVE_UP_AFTER:
            raise JudgeFailed(GAVE_UP)
        try:
            choice = self._reply(pair, first, second)
        except EndpointError:
            self._count(failed=True)
            raise
        self._count(failed=choice is None)
        if choice is None:
            raise JudgeFailed(UNREADABLE)
        return choice

    def _reply(self, pair: AnsweredPair, first: str, second: str) -> str | None:
        for _ in range(TRIES):
            nonce = secrets.token_hex(4)
            messages = judge_messages(pair.row.messages, pair.row.reference, first, second, nonce)
            reply = self.endpoint.complete(messages, Sampling(max_tokens=MAX_TOKENS))
            if choice := read_choice(reply, nonce):
                return choice
        return None

    def _count(self, *, failed: bool) -> None:
        with self._lock:
            self._failures = self._failures + 1 if failed else 0


def load_judge(name: str, cache: Path) -> Judge:
    """The judge behind a connection. Call `enter_home` first.

    Raises Phi3flowError if the connection is missing or its endpoint does not answer.
    """
    from custom_connections.store import load_endpoint

    endpoint = load_endpoint(name)
    try:
        endpoint.complete([{"role": "user", "content": "Say yes."}], Sampling(max_tokens=1))
    except EndpointError as error:
        raise Phi3flowError(f"judge '{name}': {error}", hint=error.hint) from None
    return Judge(name, endpoint, cache)


def _preference(first_order: str, second_order: str) -> float:
    """The choice of both orders if they agree, else a tie."""
    return {"base": 0.0, "tuned": 1.0, "tie": 0.5}[first_order] if first_order == second_order else 0.5
