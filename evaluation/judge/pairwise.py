"""Which of two answers a judge model prefers, asked in both orders.

Zheng et al. 2023, "Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena", section 3.4: a judge may prefer
whichever answer comes first. So only a choice that stays the same when the answers are swapped counts;
everything else is a tie. Choices are cached by the hash of the whole question.
"""

import hashlib
import json
import secrets
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from evaluation.judge.prompt import CHOICES, VERSION, addresses_judge, judge_messages, read_choice
from evaluation.scored_rows import AnsweredPair
from evaluation.statistics.scores import row_clusters
from evaluation.statistics.win_rate import Preference
from evaluation.verdict.preference_file import VOTES
from phi3flow.core.console import say
from phi3flow.core.files import read_json, write_json
from phi3flow.phi3_contract import Endpoint, EndpointError, Message, Sampling

TRIES = 2  # after a reply without a choice, under a new random word
GIVE_UP_AFTER = 20  # failures in a row
MAX_TOKENS = 64
UNREADABLE = "the judge's reply names no choice"
GAVE_UP = f"not asked: the judge failed {GIVE_UP_AFTER} times in a row"


@dataclass(frozen=True)
class Judgment(Preference):
    """A judge's preference on one line, whose number is its `id`.

    `first_order` and `second_order` are its choices (base, tuned, tie) with base and with tuned first, None
    if it was not asked. `addressed` names the sides whose answer addresses the judge: such a line is not
    sent. `error` is the reason of a failure.
    """

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
            judgments = list(pool.map(self._judge, pairs))
        clusters = row_clusters((pair.row.messages for pair in pairs), [pair.row.cluster for pair in pairs])
        sizes = Counter(clusters.tolist())
        return [
            replace(one, cluster=str(cluster)) if sizes[cluster] > 1 else one
            for one, cluster in zip(judgments, clusters.tolist(), strict=True)
        ]

    def _judge(self, pair: AnsweredPair) -> Judgment:
        row, base, tuned = pair.row, pair.base.text, pair.tuned.text
        judged = partial(Judgment, str(row.line), base_chars=len(base), tuned_chars=len(tuned))
        if base == tuned:
            return judged(preference=VOTES["tie"])
        sides = {"base": base, "tuned": tuned}
        addressed = tuple(
            side for side, text in sides.items() if addresses_judge(text, row.messages, row.reference)
        )
        if addressed:
            return judged(preference=None, addressed=addressed)
        try:
            one, other = self._choose(pair, "base", "tuned"), self._choose(pair, "tuned", "base")
        except (JudgeFailed, EndpointError) as failure:
            return judged(preference=None, error=str(failure))
        vote = one if one == other else "tie"
        return judged(preference=VOTES[vote], first_order=one, second_order=other)

    def _choose(self, pair: AnsweredPair, first: str, second: str) -> str:
        """`base`, `tuned` or `tie`, with the side `first` shown first. Asks only what is not in the cache."""
        answers = {"base": pair.base.text, "tuned": pair.tuned.text}
        asked = (pair.row.messages, pair.row.reference, answers[first], answers[second])
        turns = [dict(turn) for turn in pair.row.messages]
        key = json.dumps([VERSION, self.endpoint.url, self.endpoint.model, turns, *asked[1:]])
        path = self._cache / f"{hashlib.sha256(key.encode()).hexdigest()}.json"
        try:
            choice = read_json(path)["choice"]
        except (FileNotFoundError, ValueError, LookupError, TypeError):
            choice = None  # not there, or damaged
        if choice not in CHOICES:
            choice = self._ask(*asked)
            write_json(path, {"choice": choice})
        return {"first": first, "second": second, "tie": "tie"}[choice]

    def _ask(self, prompt: Sequence[Message], reference: str, first: str, second: str) -> str:
        if self._failures >= GIVE_UP_AFTER:
            raise JudgeFailed(GAVE_UP)
        choice = None
        try:
            for _ in range(TRIES):
                nonce = secrets.token_hex(4)
                messages = judge_messages(prompt, reference, first, second, nonce)
                reply = self.endpoint.complete(messages, Sampling(max_tokens=MAX_TOKENS))
                if choice := read_choice(reply, nonce):
                    return choice
            raise JudgeFailed(UNREADABLE)
        finally:
            with self._lock:
                self._failures = 0 if choice else self._failures + 1
