"""What every format can do: convert a model folder, and answer through the runtime that people will use."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from phi3flow.core.errors import Phi3flowError
from phi3flow.phi3_contract import Endpoint

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase


class Source(NamedTuple):
    """The model to export; `probes` are the rows of probes.jsonl that the export must answer as it does."""

    folder: Path
    config: "PreTrainedConfig"
    tokenizer: "PreTrainedTokenizerBase"
    probes: list[dict[str, Any]]


@dataclass(frozen=True)
class Stored:
    """How the weights are stored.

    `agreement` is the share of the model's tokens that the quantised model chooses too, where it was counted.
    """

    mode: str
    group_size: int | None = None
    agreement: float | None = None


class Judged(Enum):
    """What must be as the model's own for the check `text` to pass."""

    BY_ANSWERS = "every greedy answer"
    BY_ROWS = "the share of exact answers to held-out rows"
    BY_ROWS_OR_ANSWERS = "that share where there are such rows, else every greedy answer"
    BY_TOKENS = "nearly every token, which the conversion counts; with --check that share instead"


class Exporter(Protocol):
    """`weights`: what it stores weights as, the default first, and how those are judged."""

    name: str
    weights: Mapping[str, Judged]

    def require(self, model: Path) -> None:
        """Raise Phi3flowError for a missing package, BadInput for a model that it cannot convert."""

    def convert(self, source: Source, work: Path, weights: str) -> Stored:
        """Write everything into `work` but the probes and the manifest."""

    def owns(self, folder: Path) -> bool:
        """Whether `folder` is in this format."""

    def serving(self, folder: Path) -> AbstractContextManager[Endpoint]:
        """The folder behind HTTP on this machine, through its own runtime."""

    def next_step(self, folder: Path) -> str:
        """The command that serves it."""


def require_packages(names: Sequence[str], extra: str, hint: str = "") -> None:
    """Raise Phi3flowError that names the first of these packages that is not installed."""
    missing = next((name for name in names if find_spec(name) is None), None)
    if missing:
        raise Phi3flowError(f"{missing} is not installed", hint=hint or f"pip install 'phi3flow[{extra}]'")
