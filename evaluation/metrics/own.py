"""The user's own metrics: plain functions of question, answer and reference that return a number or a bool.

    def mentions_price(question: str, answer: str, reference: str) -> bool:
        return "EUR" in answer

They run in one child process without any key in its environment. Values of 0 and 1 count as right or wrong,
other values from 0 to 1 as shares, anything beyond as numbers without bounds; higher is better.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np

from evaluation.answer_metrics import declines
from evaluation.metrics.chosen import SHAPE, ChosenMetric
from evaluation.metrics.grader import Graded, grade_answers
from evaluation.metrics.own_functions import IMPORT_SECONDS, OWN
from evaluation.scored_rows import Evaluation, GradedRow, Lazy, ScoredRow
from evaluation.statistics.scores import Column, Kind, Measured
from evaluation.verdict.gate import Gate
from phi3flow.core.child_process import harmless_environment
from phi3flow.core.console import visible
from phi3flow.core.errors import BadInput
from phi3flow.core.jsonl import read_jsonl, write_jsonl
from phi3flow.core.sides import BASE, SIDES
from phi3flow.phi3_contract import Message

if TYPE_CHECKING:
    from phi3flow.chats.chat import Chat

CALL_SECONDS = 10.0
TRIED = 50  # rows on which a metric is tried before any model is asked
SHOWN = 5
AGAIN = "run the same command again"


class OwnAnswer(NamedTuple):
    """An answer to a line of the test file, from 1; `side` names it in messages and in the child's files."""

    line: int
    side: str
    question: str
    answer: str
    reference: str
    schema: Mapping[str, Any] | None = None


def try_metrics(
    metrics: Sequence[ChosenMetric], chats: "Sequence[Chat]", data: Path, out: Path, gate: Gate | None = None
) -> None:
    """Call them on references and on empty answers of up to `TRIED` rows, before any model is asked.

    Raises BadInput for functions that cannot be called, for lines of `data` on which one fails or that lack a
    schema, and where the metric that decides is no share.
    """
    for one in metrics:
        one.require(chats, data)
    for grade in grade_own(metrics, _trials(chats), data, out) if metrics else ():
        if gate and grade.name == gate.primary and not 0 <= grade.value <= 1:
            raise _no_share(grade.name, f"{data}:{grade.answer.line}: {grade.answer.side}", grade.value)


def _trials(chats: "Sequence[Chat]") -> Iterator[OwnAnswer]:
    step = -(-len(chats) // TRIED) or 1
    for i in range(0, len(chats), step):
        if not _declining(chats[i]):
            question, reference = question_of(chats[i].prompt), chats[i].reference
            schema = chats[i].schema
            yield OwnAnswer(i + 1, "the reference as answer", question, reference, reference, schema)
            yield OwnAnswer(i + 1, "an empty answer", question, "", reference, schema)


def _declining(chat: "Chat") -> bool:
    return declines(chat.reference) if chat.unanswerable is None else chat.unanswerable


def question_of(messages: Sequence[Message]) -> str:
    """The text of the last user turn."""
    return next((str(turn["content"]) for turn in reversed(messages) if turn["role"] == "user"), "")


def score_answers(
    metrics: Sequence[ChosenMetric], rows: Sequence[ScoredRow], data: Path, out: Path, again: str = AGAIN
) -> Measured:
    """Every answer to a line of `data` whose reference answers something.

    Raises BadInput for lines on which a metric fails, or that lack a schema; `again` is what to do once it is
    corrected.
    """
    for one in metrics:
        one.require(rows, data)
    columns = {one.name: Column(*np.full((2, len(rows)), np.nan)) for one in metrics}
    for name, answer, value in grade_own(metrics, _answers(rows), data, out, again) if metrics else ():
        column = columns[name].base if answer.side == _label(BASE.name) else columns[name].tuned
        column[answer.line - 1] = value
    return _measured(columns)


def _measured(columns: dict[str, Column]) -> Measured:
    return Measured(columns, {}, kinds={name: kind_of(column) for name, column in columns.items()})


def require_share(measured: Measured, gate: Gate, data: Path) -> None:
    """Raise BadInput where the metric that decides has values beyond 0..1: the margin is a share."""
    if measured.kinds.get(gate.primary) is Kind.NUMBER:
        for side, values in zip(SIDES, measured.columns[gate.primary], strict=True):
            for i in np.flatnonzero((values < 0) | (values > 1))[:1]:
                raise _no_share(gate.primary, f"{data}:{i + 1}: {_label(side.name)}", values[i])


def _no_share(name: str, where: str, value: float) -> BadInput:
    return BadInput(
        f"{where}: {name} is {value:g}, but the metric that decides must be a share",
        hint=f"let {name} return a number from 0 to 1, or set another primary metric in the gate file",
    )


def write_values(path: Path, measured: Measured) -> Path:
    """A line for each line of the test file: `{"line": 1, "base": {NAME: 0.5}, "tuned": {NAME: null}}`."""
    by_side = [
        {name: column[side] for name, column in measured.columns.items()} for side in range(len(SIDES))
    ]
    lines = len(next(iter(measured.columns.values())).base)
    write_jsonl(
        path,
        (
            {"line": i + 1}
            | {
                side.name: {name: None if math.isnan(of[i]) else float(of[i]) for name, of in values.items()}
                for side, values in zip(SIDES, by_side, strict=True)
            }
            for i in range(lines)
        ),
    )
    return path


def read_values(path: Path) -> Measured:
    """What `write_values` wrote."""
    rows = read_jsonl(path)
    names = rows[0][BASE.name] if rows else {}
    columns = {
        name: Column(*(np.array([row[side.name][name] for row in rows], dtype=float) for side in SIDES))
        for name in names
    }
    return _measured(columns)


def _answers(rows: Iterable[ScoredRow]) -> Iterator[OwnAnswer]:
    for row in rows:
        for side, answer in zip(SIDES, (row.base, row.tuned), strict=True):
            if answer is not None and not row.declining:
                question = question_of(row.messages)
                label = _label(side.name)
                yield OwnAnswer(row.line, label, question, answer.text, row.reference, row.schema)


def _label(side: str) -> str:
    return f"the answer of {side}"


def kind_of(column: Column) -> Kind:
    values = np.concatenate(column)
    values = values[~np.isnan(values)]
    if np.isin(values, (0, 1)).all():
        return Kind.BINARY
    return Kind.SHARE if ((values >= 0) & (values <= 1)).all() else Kind.NUMBER


def with_own(
    evaluation: Evaluation, metrics: Sequence[ChosenMetric], chats: "Sequence[Chat]", data: Path, out: Path
) -> Evaluation:
    """The same rows with the own metrics among their scores, and their means.

    Lines whose reference declines have none. Raises what `score_answers` raises.
    """
    if not metrics:
        return evaluation
    answered = (
        OwnAnswer(row.line, "the answer", question_of(row.messages), row.answer, row.reference, chat.schema)
        for row, chat in zip(evaluation.rows, chats, strict=True)
        if row.answer is not None and not _declining(chat)
    )
    found: dict[str, dict[int, float]] = {one.name: {} for one in metrics}
    for name, answer, value in grade_own(metrics, answered, data, out):
        found[name][answer.line] = value

    def row(i: int) -> GradedRow:
        old = evaluation.rows[i]
        more = {name: values[old.line] for name, values in found.items() if old.line in values}
        return replace(old, scores={**(old.scores or {}), **more}) if more else old

    means = {name: sum(values.values()) / len(values) for name, values in found.items() if values}
    return replace(evaluation, rows=Lazy(evaluation.expected, row), metrics={**evaluation.metrics, **means})


class OwnGrade(NamedTuple):
    name: str
    answer: OwnAnswer
    value: float


def grade_own(
    metrics: Sequence[ChosenMetric], answers: Iterable[OwnAnswer], data: Path, out: Path, again: str = AGAIN
) -> Iterator[OwnGrade]:
    """The value of every metric for every answer, once all of them are there.

    Raises BadInput for functions that cannot be called, and for lines of `data` on which one fails; `again`
    is what to do once it is corrected.
    """
    functions = [one.function() | {"seconds": CALL_SECONDS} for one in metrics]
    given = next((one.schema for one in metrics if one.schema), None)
    asked = (answer._asdict() | {"schema": answer.schema or given} for answer in answers)
    done = grade_answers(
        out / "own-metrics",
        asked,
        {"package": OWN, "kind": OWN, "functions": functions},
        grades=len(metrics),
        environment=harmless_environment(),
    )
    _require_callable(metrics, done)
    _require_all(metrics, done, data, again)
    return _grades(metrics, done)


def _require_callable(metrics: Sequence[ChosenMetric], done: Graded) -> None:
    head = next(_rows(done.grades), None)
    if head is None:
        files = ", ".join(dict.fromkeys(str(one.file) for one in metrics))
        what = f"{files}: did not come to the end of the import within {IMPORT_SECONDS:.0f} s"
        raise BadInput(what, hint=f"its last steps are in {done.log}")
    broken = head["unavailable"]
    told = [f"{one.file}: {broken[one.name]}" for one in metrics if one.name in broken]
    if told:
        raise BadInput("\n".join(dict.fromkeys(told)), hint=f"correct it; {SHAPE}")


def _require_all(metrics: Sequence[ChosenMetric], done: Graded, data: Path, again: str) -> None:
    """Each metric was asked about each answer in this order: the first missing grade is where it ended."""
    grades = islice(_rows(done.grades), 1, None)
    failed: list[str] = []
    count = 0
    for one in metrics:
        for answer in _rows(done.answers):
            grade = next(grades, None)
            what = _ended(done) if grade is None else grade["errors"].get(one.name)
            if what:
                count += 1
                failed += [f"{data}:{answer['line']}: {answer['side']}: {one} {what}"][: SHOWN - len(failed)]
            if grade is None:
                _refuse(failed, count, again)
    if failed:
        _refuse(failed, count, again)


def _refuse(failed: Sequence[str], count: int, again: str) -> NoReturn:
    more = [f"and {count - len(failed)} more"] if count > len(failed) else []
    hint = "a metric must return a number or a bool for every answer, also for an empty one; correct it"
    raise BadInput(visible("\n".join([*failed, *more])), hint=f"{hint}, then {again}")


def _ended(done: Graded) -> str:
    if "Timeout (" in done.log.read_text(encoding="utf-8", errors="replace"):
        return f"gave no value within {CALL_SECONDS:.0f} s; where it was then is in {done.log}"
    return f"ended the process (exit code {done.code}); its log is {done.log}"


def _grades(metrics: Sequence[ChosenMetric], done: Graded) -> Iterator[OwnGrade]:
    grades = islice(_rows(done.grades), 1, None)
    for one in metrics:
        for answer, grade in zip(_rows(done.answers), grades, strict=False):
            yield OwnGrade(one.name, OwnAnswer(**answer), grade["grades"][one.name])


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The complete lines of a file; none where there is no file."""
    if path.exists():
        with path.open(encoding="utf-8") as stream:
            yield from (json.loads(line) for line in stream if line.endswith("\n"))
