"""A stated part of a test file: lines at equal distances, in a file of their own."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluation.scored_rows import chats_in
from phi3flow.core.errors import BadInput
from phi3flow.core.jsonl import write_jsonl
from phi3flow.core.lineage import sha256_of


@dataclass(frozen=True)
class Subset:
    """The file to ask, and what the report's lineage says about it: nothing for the whole file."""

    path: Path
    lineage: dict[str, Any] = field(default_factory=dict)


def subset_of(data: Path, out: Path, rows: int | None) -> Subset:
    """`rows` chats of `data`, written to `out/rows.jsonl`; the file itself for None or as many as it has.

    Raises BadInput for fewer than one, and what `chats_in` raises.
    """
    if rows is None:
        return Subset(data)
    if rows < 1:
        raise BadInput("--rows: must be 1 or more", hint="leave it out to ask all lines")
    chats = chats_in(data, tools=True)
    if rows >= len(chats):
        return Subset(data)
    path = out / "rows.jsonl"
    out.mkdir(parents=True, exist_ok=True)
    write_jsonl(path, (chats[i * len(chats) // rows].row() for i in range(rows)))
    return Subset(
        path, {"lines asked": f"{rows} of {len(chats)}, at equal distances", "rows": sha256_of(path)}
    )
