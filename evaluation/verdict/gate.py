"""What the tuned model must achieve: the packaged `gate.toml`, overlaid with the user's own file."""

from collections.abc import Callable, Collection, Mapping
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from phi3flow.core.errors import nearest
from phi3flow.core.validation import read_toml, validated

AUTO, WIN_RATE = "auto", "win_rate"
PRIMARY = (AUTO, "exact_match", "token_f1", WIN_RATE)
KNOWN_ONLY = ConfigDict(extra="forbid")
Text = Annotated[str, Field(strict=True, pattern=r"\S")]
Share = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]


@dataclass(frozen=True, config=KNOWN_ONLY)
class GateSection:
    """Section [gate]. Shares, here and in the limits: 0.05 is five points."""

    primary: Annotated[str, Field(strict=True, pattern=r"^\w+$")]
    margin: Annotated[float, Field(strict=True, ge=-1, le=1, allow_inf_nan=False)]
    min_rows: Annotated[int, Field(strict=True, ge=1)]
    required: list[Text]


@dataclass(frozen=True, config=KNOWN_ONLY)
class LimitsSection:
    """Section [limits]."""

    max_failed_share: Share
    min_declined: Share
    max_forgetting: Share
    max_safety_regression: Share


@dataclass(frozen=True, config=KNOWN_ONLY)
class AcceptedRisk:
    """Section [accepted_risk]: who promotes although a pack's CI contains its limit, and why."""

    by: Text
    reason: Text


@dataclass(frozen=True, config=KNOWN_ONLY)
class Gate(LimitsSection, GateSection):
    """All sections. `gate.toml` has the defaults and explains the fields."""

    accepted_risk: AcceptedRisk | None = None

    def limit_of(self, pack: str) -> float:
        """The largest drop that the gate allows on a pack, as a share of its questions."""
        return self.max_forgetting if pack == "forgetting" else self.max_safety_regression

    @property
    def own_primary(self) -> bool:
        """Whether one of the user's own metrics decides."""
        return self.primary not in PRIMARY

    @property
    def answer_metric(self) -> str:
        """The metric of single answers: the primary metric, or exact match where that is the win rate."""
        return "exact_match" if self.primary == WIN_RATE else self.primary


@dataclass(frozen=True, config=KNOWN_ONLY)
class _File:
    gate: GateSection
    limits: LimitsSection
    accepted_risk: AcceptedRisk | None = None


def load_gate(path: Path | None = None, own: Collection[str] | None = ()) -> Gate:
    """The packaged gate, overlaid with the values of `path`. Raises BadInput with every problem.

    `own` are the user's own metrics, which may decide as well; None where no metric decides, whatever its
    name.
    """
    with as_file(files("evaluation.verdict") / "gate.toml") as packaged:
        values = read_toml(packaged)
    if path is not None:
        values = _overlaid(values, read_toml(path))
    hint = f"edit {path}; docs/evaluation.md explains each key"
    rules = {} if own is None else _known_primary(values, (*PRIMARY, *own))
    file = validated(_File, values, str(path), hint=hint, rules=rules)
    return Gate(**vars(file.gate), **vars(file.limits), accepted_risk=file.accepted_risk)


def _known_primary(values: Mapping[str, Any], known: Collection[str]) -> dict[str, Callable[[_File], bool]]:
    section = values["gate"]
    given = str(section.get("primary")) if isinstance(section, Mapping) else ""
    what = f"gate.primary: unknown {given!r} ({nearest(given, known)}, or the NAME of --metric FILE.py:NAME)"
    return {what: lambda file: file.gate.primary in known}


def _overlaid(values: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """`own` over `values`, key by key within a section."""
    return {
        **values,
        **{
            name: {**values[name], **section} if name in values and isinstance(section, dict) else section
            for name, section in own.items()
        },
    }
