"""Answers graded in a child process with a deadline: by Microsoft's evaluation packages or the user's code.

The packages import Prompt flow, which fixes its home on import, and they retry for minutes without a
deadline. The user's code may do anything.
"""

import json
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evaluation.scored_rows import AnsweredPair, ScoredRow
from evaluation.statistics.scores import Column, Measured
from phi3flow.core.child_process import last_line, module_command, run_child
from phi3flow.core.console import say
from phi3flow.core.errors import BadInput, Phi3flowError
from phi3flow.core.jsonl import write_jsonl
from phi3flow.core.progress import Progress
from phi3flow.core.sides import BASE, SIDES
from phi3flow.phi3_contract import Endpoint

AZURE, EVALS = "azure-ai-evaluation", "promptflow-evals"
START_SECONDS = 120
CHAT_PATH = "/chat/completions"

# What the graders read of an answer's text, by their names for it; None: the answer is not graded.
Fields = Callable[[ScoredRow, str], Mapping[str, str] | None]


def require_package(package: str) -> None:
    """Raises BadInput unless the package is installed."""
    if not is_installed(package):
        raise BadInput(f"{package} is not installed", hint=f"pip install {package}")


def is_installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def openai_base_url(judge: Endpoint) -> str:
    """The URL for OpenAI's clients, which add the path. Raises BadInput for a judge of another contract."""
    if judge.contract != "openai" or not judge.url.endswith(CHAT_PATH):
        raise BadInput(
            "the judge must have contract openai",
            hint=f"phi3flow connect NAME --contract openai --endpoint https://HOST/v1{CHAT_PATH}",
        )
    return judge.url.removesuffix(CHAT_PATH)


def run_grader(
    folder: Path,
    pairs: Iterable[AnsweredPair],
    fields: Fields,
    request: Mapping[str, Any],
    *,
    lines: int,
    seconds: float = math.inf,
) -> Measured:
    """Grade both answers of `pairs` from a test file of `lines` lines, within `seconds`.

    `request` is described in `grader_child`; it goes to the child on standard input, because it may hold a
    key. The files stay in a new folder below `folder`. Raises Phi3flowError if the package fails as a whole.
    """
    package = request["package"]
    done = grade_answers(folder, _answers(pairs, fields), request, seconds=seconds)
    if done.code is None:
        say(f"{package} did not return all grades within {START_SECONDS + seconds:.0f} s")
    elif done.code:
        raise Phi3flowError(f"{package} failed: {last_line(done.log)}", hint=f"its log is {done.log}")
    return read_grades(done.grades, request["metrics"], lines)


class Graded(NamedTuple):
    """The files of a grader child that ended, and its exit code; None where the deadline ended it."""

    answers: Path
    grades: Path
    log: Path
    code: int | None


def grade_answers(
    folder: Path,
    answers: Iterable[Mapping[str, Any]],
    request: Mapping[str, Any],
    *,
    seconds: float = math.inf,
    grades: int = 1,
    environment: Mapping[str, str] | None = None,
) -> Graded:
    """Have `answers` graded in a new folder below `folder`, within `seconds` from the child's start.

    The child writes `grades` lines for each answer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=folder))
    asked, graded, log = (work / name for name in ("answers.jsonl", "grades.jsonl", "log.txt"))
    write_jsonl(asked, answers)
    command = module_command("evaluation.metrics.grader_child", work)
    code = None
    with Progress("answers graded", grades * _count_lines(asked)) as progress, suppress(TimeoutError):
        code = run_child(
            command,
            log,
            request=request,
            seconds=START_SECONDS + seconds,
            report=lambda: progress.reach(max(0, _count_lines(graded) - 1)),
            environment=environment,
        )
    return Graded(asked, graded, log, code)


def _answers(pairs: Iterable[AnsweredPair], fields: Fields) -> Iterator[dict[str, Any]]:
    for pair in pairs:
        for side, answer in zip(SIDES, (pair.base, pair.tuned), strict=True):
            if (read := fields(pair.row, answer.text)) is not None:
                yield {"line": pair.row.line, "side": side.name, **read}


def read_grades(path: Path, metrics: Sequence[str], lines: int) -> Measured:
    """Read what `grader_child` wrote, complete or not."""
    columns = {name: Column(*np.full((2, lines), np.nan)) for name in metrics}
    unavailable: dict[str, str] = {}
    package = ""
    if path.exists():
        with path.open(encoding="utf-8") as stream:
            complete = (json.loads(line) for line in stream if line.endswith("\n"))
            head: dict[str, Any] = next(complete, {"package": "", "unavailable": {}})
            unavailable, package = head["unavailable"], head["package"]
            for row in complete:
                for name, grade in row["grades"].items():
                    column = columns[name].base if row["side"] == BASE.name else columns[name].tuned
                    column[row["line"] - 1] = math.nan if grade is None else grade
    return Measured(
        {name: columns[name] for name in metrics if name not in unavailable}, unavailable, package
    )


def _count_lines(path: Path) -> int:
    if not path.exists():
        return 0
    with path.open("rb") as stream:
        return sum(1 for _ in stream)
