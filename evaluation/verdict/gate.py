"""What the tuned model must show: the packaged `gate.toml`, overlaid with the user's own file."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from phi3flow.core.errors import BadInput, nearest

WIN_RATE = "win_rate"
PRIMARY_METRICS = ("exact_match", "token_f1", WIN_RATE)
_SHARES = ("max_failed_share", "min_declined", "max_forgetting", "max_safety_regression")
_SECTIONS = {"gate": ("primary", "margin", "min_rows"), "limits": _SHARES}
_RANGES = {"margin": (-1, 1), "min_rows": (1, 10**9)} | dict.fromkeys(_SHARES, (0, 1))


@dataclass(frozen=True)
class Gate:
    """`margin` and the limits are shares (0.05 is five points). The defaults live in `gate.toml` alone."""

    primary: str
    margin: float
    min_rows: int
    max_failed_share: float
    min_declined: float
    max_forgetting: float
    max_safety_regression: float

    @property
    def answer_metric(self) -> str:
        """What single answers are compared by: the primary metric, where that is not a judge's preference."""
        return PRIMARY_METRICS[0] if self.primary == WIN_RATE else self.primary


def load_gate(path: Path | None = None) -> Gate:
    """The packaged gate, overlaid with the values of `path`. Raises BadInput with every problem."""
    values = _flat(tomllib.loads((files("evaluation.verdict") / "gate.toml").read_text(encoding="utf-8")))
    if path is not None:
        own = _read(path)
        problems = [f"{path}: {problem}" for problem in [*_unknown(own), *_unfit(_flat(own))]]
        if problems:
            raise BadInput("\n".join(problems), hint=f"edit {path}; docs/evaluation.md explains each key")
        values |= _flat(own)
    return Gate(**values)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}", hint="check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not valid TOML: {error}", hint=f"edit {path}") from error


def _flat(document: Mapping[str, Any]) -> dict[str, Any]:
    """The known keys of both sections, as Gate's fields."""
    return {
        key: document[section][key]
        for section, keys in _SECTIONS.items()
        for key in keys
        if isinstance(document.get(section), dict) and key in document[section]
    }


def _unknown(document: Mapping[str, Any]) -> list[str]:
    problems = []
    for section, content in document.items():
        if section not in _SECTIONS:
            problems.append(f"{section}: unknown section ({nearest(section, _SECTIONS)})")
        elif not isinstance(content, dict):
            problems.append(f"{section}: write it as a section, [{section}]")
        else:
            known = _SECTIONS[section]
            problems += [
                f"{section}.{key}: unknown key ({nearest(key, known)})" for key in content if key not in known
            ]
    return problems


def _unfit(values: Mapping[str, Any]) -> list[str]:
    types = {field.name: field.type for field in fields(Gate)}
    problems = []
    for key, value in values.items():
        named = f"{next(section for section, keys in _SECTIONS.items() if key in keys)}.{key}"
        if key == "primary":
            if value not in PRIMARY_METRICS:
                problems.append(f"{named}: {value!r} is no metric ({nearest(str(value), PRIMARY_METRICS)})")
            continue
        low, high = _RANGES[key]
        kinds = (int,) if types[key] is int else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
            kind = "a whole number" if types[key] is int else "a number"
            problems.append(f"{named}: {value!r} is not {kind} from {low} to {high}")
    return problems
