"""A model's recorded prompts, and what an endpoint answers to them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from phi3flow.core.errors import BadInput, translating
from phi3flow.core.jsonl import read_jsonl
from phi3flow.core.validation import validated
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


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Probe:
    """A prompt with its greedy answers, each cut at `max_tokens`. A finish reason is "stop" or "length".

    The base model's answer and finish reason are None for a model that was trained from scratch. `dtype` is
    the arithmetic of the recorded model.
    """

    id: str
    messages: Sequence[Message]
    prompt_token_ids: Sequence[int]
    tuned_text: str
    base_text: str | None
    max_tokens: int
    tuned_finish_reason: str
    base_finish_reason: str | None
    dtype: str = "float32"


class ProbeAnswer(NamedTuple):
    """The endpoint's greedy answer to a probe, with the recording's limit of tokens."""

    probe: Probe
    reply: Reply

    @property
    def text(self) -> str:
        """The answer without the space around it, which some servers strip."""
        return self.reply.text.strip()


class Answers(NamedTuple):
    """At least one probe is answered; `unsupported` are the ids of those that the contract cannot express."""

    answered: list[ProbeAnswer]
    failed: dict[str, EndpointError]
    unsupported: list[str]


def load_probes(model: Path) -> list[Probe]:
    """Raises BadInput."""
    path, hint = model / FILE, "take the file that phi3flow train wrote"
    if not path.is_file():
        raise BadInput(
            f"{model}: no {FILE}", hint="phi3flow train writes it into the model folder; verify that one"
        )
    with translating({ValueError: lambda error: BadInput(f"{path}: {error}", hint=hint)}):
        rows = read_jsonl(path)
    if not rows:
        raise BadInput(f"{path}: it is empty", hint=hint)
    return [validated(Probe, row, f"{path}:{line}", hint=hint) for line, row in enumerate(rows, 1)]


def ask_probes(endpoint: Endpoint, probes: Sequence[Probe]) -> Answers:
    """Ask one after the other, so that batching cannot change the arithmetic.

    Raises EndpointError if nothing answers, the key is refused, or no probe is answered.
    """
    answers = Answers([], {}, [])
    for probe in probes:
        try:
            answers.answered.append(ProbeAnswer(probe, _ask(endpoint, probe)))
        except (Unauthorized, Unreachable):
            raise
        except Unsupported:
            answers.unsupported.append(probe.id)
        except EndpointError as error:
            answers.failed[probe.id] = error
    if not answers.answered:
        raise next(iter(answers.failed.values()), Unsupported("the contract carries none of the probes"))
    return answers


def _ask(endpoint: Endpoint, probe: Probe) -> Reply:
    sampling = Sampling(max_tokens=probe.max_tokens)
    try:
        return endpoint.ask(probe.messages, sampling, token_ids=True)
    except Unsupported:
        raise
    except Rejected:  # another server may refuse the field that asks for token ids
        return endpoint.ask(probe.messages, sampling)
