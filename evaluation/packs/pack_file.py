"""A pack: questions outside the domain with fixed checks, as JSON Lines. People may bring their own.

{"id": "a1", "slice": "harm", "question": "How do I ...?", "must_decline": true}
{"id": "a2", "messages": [{"role": "system", ..}, {"role": "user", ..}], "must_contain": ["eight", "8"]}
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from evaluation.packs.checks import CHECKS, DECLINING, MUST_ANSWER, MUST_DECLINE
from phi3flow.chats.question_rows import prompt_of
from phi3flow.core.errors import BadInput, nearest
from phi3flow.core.jsonl import BadRows, RowError, any_text, lines_of, parse_object, short
from phi3flow.phi3_contract import Message

PACKS = ("safety", "forgetting")
SHAPE = (
    '{"id": "1", "slice": "facts", "question": "How many legs has a spider?", "must_contain": ["eight", "8"]}'
)
_FIELDS = ("id", "slice", "question", "messages")


@dataclass(frozen=True)
class PackRow:
    """One question, and what an answer to it must be like. Every check must be met."""

    id: str
    pack: str
    slice: str
    messages: Sequence[Message]
    checks: Mapping[str, Any]

    @property
    def about_declining(self) -> bool:
        return not self.checks.keys().isdisjoint(DECLINING)

    def heeded(self, *, declines: bool) -> bool:
        """Whether an answer that declines, or does not, is what the row asks for in this respect."""
        return (MUST_ANSWER if declines else MUST_DECLINE) not in self.checks

    def passes(self, answer: str, *, declines: bool) -> bool:
        """Whether the answer meets every check; `declines` says whether it declines."""
        return self.heeded(declines=declines) and all(
            CHECKS[name].met(value, answer) for name, value in self.checks.items() if name in CHECKS
        )


def packaged_packs() -> dict[str, list[PackRow]]:
    """The packs `safety` and `forgetting`, by name."""
    return {name: load_pack(name) for name in PACKS}


def load_pack(name: str) -> list[PackRow]:
    """A packaged pack."""
    text = files("evaluation.packs").joinpath(f"{name}.jsonl").read_text(encoding="utf-8")
    return _rows(name, f"{name}.jsonl", text.removesuffix("\n").split("\n"))


def own_packs(paths: Iterable[Path]) -> dict[str, list[PackRow]]:
    """People's own packs, each under its file's name without the ending.

    Raises BadInput with one `file:line: field: what` for each wrong row, and for two packs of one name.
    """
    packs: dict[str, list[PackRow]] = {}
    for path in paths:
        if not path.is_file():
            raise BadInput(f"{path}: no such file", hint="check the path")
        if path.stem in {*PACKS, "content safety", *packs}:
            raise BadInput(
                f"{path}: there is a pack '{path.stem}' already", hint="give the file another name"
            )
        packs[path.stem] = _rows(path.stem, str(path), lines_of(path))
    return packs


def _rows(pack: str, file: str, lines: Iterable[str]) -> list[PackRow]:
    rows: dict[str, PackRow] = {}
    bad = BadRows()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = _row(pack, parse_object(line))
            if row.id in rows:
                raise RowError("id", f"{short(row.id)} stands in an earlier row, too")
            rows[row.id] = row
        except RowError as error:
            bad.add(file, number, error)
    bad.require_none(SHAPE)
    if not rows:
        raise BadInput(f"{file}: no rows in it", hint=f"one JSON object a line: {SHAPE}")
    return list(rows.values())


def _row(pack: str, row: dict[str, Any]) -> PackRow:
    known = {name: check.read for name, check in CHECKS.items()} | DECLINING
    checks = {name: value for name, value in row.items() if name not in _FIELDS}
    for name in checks:
        if name not in known:
            raise RowError(short(name), f"unknown ({nearest(name, [*_FIELDS, *known])})")
    if not checks:
        raise RowError("row", f"has no check; known: {', '.join(known)}")
    if checks.keys() >= DECLINING.keys():
        raise RowError(MUST_ANSWER, f"contradicts {MUST_DECLINE}")
    return PackRow(
        id=_label(row, "id"),
        pack=pack,
        slice=_label(row, "slice") if "slice" in row else pack,
        messages=prompt_of(row),
        checks={name: known[name](name, value) for name, value in checks.items()},
    )


def _label(row: dict[str, Any], name: str) -> str:
    if name not in row:
        raise RowError(name, "missing")
    text = any_text(name, row[name])
    if not text.strip():
        raise RowError(name, "is empty")
    return text
