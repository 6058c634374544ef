"""A model's recorded prompts, and what an endpoint answers to them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from phi3flow.core.errors import BadInput
from phi3flow.core.jsonl import read_jsonl
from phi3flow.phi3_contract import (
    Endpoint,
    EndpointError,
    Message,
    Rejected,
    Reply,
    Sampling,
    Unauthorized,
    Unreachable,
    Unsupported,
)

FILE = "probes.jsonl"
UNTOLD_LIMIT = 32  # of recordings that do not say at how many tokens they were cut


@dataclass(frozen=True)
class Probe:
    """A prompt with its greedy answers; the base's are None for a model that was trained from scratch.

    A finish reason is "stop" or "length", None in a recording that is older than the field.
    """

    id: str
    messages: Sequence[Message]
    prompt_token_ids: Sequence[int]
    tuned_text: str
    base_text: str | None
    max_tokens: int = UNTOLD_LIMIT
    tuned_finish_reason: str | None = None
    base_finish_reason: str | None = None


class Given(NamedTuple):
    """What the endpoint answered greedily to a probe, with as many tokens as the recording had."""

    probe: Probe
    reply: Reply

    @property
    def text(self) -> str:
        """Some servers strip the space around an answer, so nothing here compares it."""
        return self.reply.text.strip()


class Answers(NamedTuple):
    """At least one is given; `unsupported` are those that the contract has no words for."""

    given: list[Given]
    failed: dict[str, EndpointError]
    unsupported: list[str]


def load_probes(model: Path) -> list[Probe]:
    """Raises BadInput."""
    path = model / FILE
    if not path.is_file():
        raise BadInput(
            f"{model}: no {FILE}", hint="phi3flow train writes it into the model folder; verify that one"
        )
    try:
        probes = [Probe(**row) for row in read_jsonl(path)]
    except (TypeError, ValueError) as error:
        raise BadInput(f"{path}: {error}", hint="take the file that phi3flow train wrote") from None
    if not probes:
        raise BadInput(f"{path}: no probe in it", hint="take the file that phi3flow train wrote")
    return probes


def ask_probes(endpoint: Endpoint, probes: Sequence[Probe]) -> Answers:
    """One after the other, so that no batch of answers touches their arithmetic.

    Raises EndpointError where nobody answers, the key is refused, or no probe at all is answered.
    """
    answers = Answers([], {}, [])
    for probe in probes:
        try:
            answers.given.append(Given(probe, _ask(endpoint, probe)))
        except (Unauthorized, Unreachable):
            raise
        except Unsupported:
            answers.unsupported.append(probe.id)
        except EndpointError as error:
            answers.failed[probe.id] = error
    if not answers.given:
        raise next(iter(answers.failed.values()), Unsupported("the contract carries none of the probes"))
    return answers


def _ask(endpoint: Endpoint, probe: Probe) -> Reply:
    sampling = Sampling(max_tokens=probe.max_tokens)
    try:
        return endpoint.ask(probe.messages, sampling, token_ids=True)
    except Unsupported:
        raise
    except Rejected:  # a foreign endpoint may refuse the field that asks for token ids
        return endpoint.ask(probe.messages, sampling)
