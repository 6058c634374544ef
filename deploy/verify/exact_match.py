"""Fidelity of an engine with other arithmetic (int4, 16 bits): its share of exact answers on a test file."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from deploy.verify.checks import Check
from evaluation.answer_metrics import declines, score_answer
from phi3flow.chats.chat import Chat
from phi3flow.chats.rows import load_chats
from phi3flow.core.console import say
from phi3flow.core.errors import BadInput
from phi3flow.phi3_contract import Endpoint, EndpointError, Pause


@dataclass(frozen=True)
class Reference:
    """A held-out test file, and the share of its known answers that must be given exactly.

    As in report.json, rows whose right answer is to decline do not count.
    """

    data: Path
    at_least: float


def check_exact_match(endpoint: Endpoint, reference: Reference, workers: int) -> Check:
    """A row without an answer counts as wrong. Raises BadInput where every right answer is to decline."""
    chats = [chat for chat in load_chats(reference.data) if not declines(chat.reference)]
    if not chats:
        raise BadInput(
            f"{reference.data}: every row's right answer is to decline", hint="give prepare's test.jsonl"
        )
    say(f"asking {len(chats)} questions of {reference.data}")
    shared = replace(endpoint, pause=Pause())
    with ThreadPoolExecutor(workers) as pool:
        scores = list(pool.map(lambda chat: _score(shared, chat), chats))
    right = sum(score or 0.0 for score in scores)
    unanswered = sum(score is None for score in scores)
    reason = (
        f"exact match {right / len(chats):.1%} of {len(chats)} rows, at least {reference.at_least:.1%} asked"
    )
    reason += f", {unanswered} not answered" if unanswered else ""
    enough = right >= reference.at_least * len(chats) - 1e-9  # 1e-9: binary fractions
    return Check("text", "pass" if enough else "fail", reason)


def _score(endpoint: Endpoint, chat: Chat) -> float | None:
    try:
        return score_answer(endpoint.complete(chat.prompt), chat.reference)["exact_match"]
    except EndpointError:
        return None
