"""The seven checks of one endpoint, and their overall result.

An engine with other arithmetic (int4, 16 bits) is judged by its share of exact answers on a test file.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from deploy.verify.checks import Check, Result, check_base, check_echo, check_stop, check_template, check_text
from deploy.verify.probes import Answers, ask_probes, load_probes
from deploy.verify.sampling import check_sampling
from deploy.verify.structured import check_structured
from evaluation.answer_metrics import declines, score_answer
from evaluation.in_flight import in_flight
from phi3flow.chats.chat import Chat
from phi3flow.chats.rows import load_chats
from phi3flow.core.console import say
from phi3flow.core.errors import BadInput
from phi3flow.core.lineage import read_manifest
from phi3flow.phi3_contract import Endpoint, EndpointError, Pause

SCHEMA = "phi3flow/verify/1"
EXIT_CODES: dict[Result, int] = {"pass": 0, "fail": 1, "not-checkable": 4}


@dataclass(frozen=True)
class Reference:
    """A held-out test file, and the share of its known answers that must be given exactly.

    As in report.json, rows whose right answer is to decline do not count.
    """

    data: Path
    at_least: float


class ExactMatch(NamedTuple):
    """Of `rows` questions, the share of exact answers, and how many were not answered."""

    rows: int
    share: float
    unanswered: int


@dataclass(frozen=True)
class Verification:
    """The checks of one model at one endpoint."""

    model: Path
    endpoint: Endpoint
    answers: Answers
    checks: list[Check]

    @property
    def result(self) -> Result:
        """A gate before traffic passes only if every check does: "not-checkable" is no pass.

        "not-offered" is no obstacle: nobody who asks for it gets a wrong answer.
        """
        results = {check.result for check in self.checks}
        return "fail" if "fail" in results else "not-checkable" if "not-checkable" in results else "pass"

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.result]

    def as_dict(self) -> dict[str, Any]:
        """The content of verify.json, without the URL's user, password and query, which may be secret."""
        manifest = read_manifest(self.model) or {}
        url = urlsplit(self.endpoint.url)
        return {
            "schema": SCHEMA,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "model": self.model.as_posix(),
            "model_sha256": next((made["sha256"] for made in manifest.get("outputs", [])), None),
            "endpoint": f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}",
            "contract": self.endpoint.contract,
            "deployment": self.endpoint.deployment,
            "result": self.result,
            "checks": [check._asdict() for check in self.checks],
            "answers": {answer.probe.id: answer.text for answer in self.answers.answered},
        }


def verify(model: Path, endpoint: Endpoint, reference: Reference | None, workers: int) -> Verification:
    """Ask the endpoint the prompts that training recorded in the model folder. Reads no weights.

    With a `reference`, exact match on its test file replaces the check for equal greedy answers.
    Raises BadInput, and EndpointError if no prompt is answered.
    """
    probes = load_probes(model)
    say(f"asking {len(probes)} recorded prompts")
    answers = ask_probes(endpoint, probes)
    answered = answers.answered
    text = check_exact_match(endpoint, reference, workers) if reference else check_text(answers)
    say("asking with other sampling parameters, with a schema and with a tool")
    checks = [
        check_template(answered, endpoint.contract),
        text,
        check_stop(answered),
        check_sampling(endpoint, answered),
        check_echo(answered),
        check_base(answered),
        check_structured(endpoint, answered[0].probe.messages[-1]),
    ]
    return Verification(model, endpoint, answers, checks)


def check_exact_match(endpoint: Endpoint, reference: Reference, workers: int) -> Check:
    """A row without an answer counts as wrong. Raises BadInput where every right answer is to decline."""
    found = exact_match(endpoint, reference.data, workers)
    reason = f"exact match {found.share:.1%} of {found.rows} rows, at least {reference.at_least:.1%} asked"
    reason += f", {found.unanswered} not answered" if found.unanswered else ""
    enough = found.share >= reference.at_least - 1e-9  # 1e-9: binary fractions
    return Check("text", "pass" if enough else "fail", reason)


def exact_match(endpoint: Endpoint, data: Path, workers: int) -> ExactMatch:
    """Raises BadInput where every right answer is to decline."""
    chats = [chat for chat in load_chats(data) if not declines(chat.reference)]
    if not chats:
        raise BadInput(f"{data}: every row's right answer is to decline", hint="give prepare's test.jsonl")
    say(f"asking {len(chats)} questions of {data}")
    shared = replace(endpoint, pause=Pause())
    scores = list(in_flight(lambda chat: _score(shared, chat), chats, workers))
    right = sum(score or 0.0 for score in scores)
    return ExactMatch(len(chats), right / len(chats), sum(score is None for score in scores))


def _score(endpoint: Endpoint, chat: Chat) -> float | None:
    try:
        return score_answer(endpoint.complete(chat.prompt), chat.reference)["exact_match"]
    except EndpointError:
        return None
