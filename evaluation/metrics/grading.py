"""Answers graded by Microsoft's evaluators, in a process of its own with the deadline that they lack."""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from phi3flow.core.children import module_command, run_child
from phi3flow.core.console import say
from phi3flow.core.errors import Phi3flowError
from phi3flow.core.jsonl import read_jsonl, write_jsonl

PACKAGE = "azure-ai-evaluation"
START_SECONDS = 120

Grades = dict[tuple[int, str, str], float | None]  # by line, side and metric; None where the grade failed


def run_grader(
    module: str, parent: Path, answers: Iterable[dict[str, Any]], request: dict[str, Any], seconds: float
) -> Grades:
    """What the child `module` graded until the time was over; what is missing then has failed.

    Works in a new folder below `parent`. The request goes to the child on standard input because it may hold
    a key. Raises Phi3flowError when the package itself fails.
    """
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=parent))
    write_jsonl(folder / "answers.jsonl", answers)
    log = folder / "log.txt"
    try:
        code = run_child(
            module_command(module, folder), log, request=request, seconds=START_SECONDS + seconds
        )
    except TimeoutError:
        say(f"{PACKAGE} did not give all grades within {START_SECONDS + seconds:.0f} s")
    else:
        if code:
            raise Phi3flowError(f"{PACKAGE} could not grade the answers", hint=f"its log is {log}")
    path = folder / "grades.jsonl"
    return {
        (row["line"], row["side"], row["metric"]): row["grade"]
        for row in (read_jsonl(path) if path.exists() else [])
    }
