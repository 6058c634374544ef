"""Rows for the statistics from answers in files, whoever recorded them."""

from pathlib import Path

from evaluation.asking.answer_file import open_answers
from evaluation.asking.joined import judged_rows, say_failures
from evaluation.asking.lazy import Lazy, chats_in
from evaluation.rows import Judged


def recorded_rows(data: Path, base: Path, tuned: Path) -> Lazy[Judged]:
    """The chats of `data` with both models' recorded answers; docs/evaluation.md shows the files' shape.

    Raises BadInput with every `file:line: field: what`, in any of the three files.
    """
    chats = chats_in(data)
    sides = {name: open_answers(path, chats) for name, path in (("base", base), ("tuned", tuned))}
    for name, records in sides.items():
        say_failures(name, records)
    return judged_rows(chats, sides["base"], sides["tuned"])
