"""The cloud's answers as the report that a comparison on this machine writes."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.foundry.cloud_comparison import CloudAnswers
from evaluation.asking.answer_file import Record
from evaluation.compare import compare_recorded
from phi3flow.core.jsonl import write_jsonl

if TYPE_CHECKING:
    from evaluation.compare import Options
    from evaluation.report.comparison import Report


def write_answers(answers: CloudAnswers, out: Path) -> tuple[Path, Path]:
    """`base-answers.jsonl` and `tuned-answers.jsonl`, as `evaluation.asking.answer_file` describes them."""
    base, tuned = (out / f"{side}-answers.jsonl" for side in ("base", "tuned"))
    write_jsonl(base, _rows(answers.sides["base"]))
    write_jsonl(tuned, _rows(answers.sides["tuned"]))
    return base, tuned


def _rows(records: Sequence[Record]) -> Iterator[dict[str, Any]]:
    for line, record in enumerate(records, 1):
        yield {
            "line": line,
            **{name: value for name, value in record._asdict().items() if value is not None},
        } | {"answer": record.answer}


def report(answers: CloudAnswers, target: str, out: Path, options: "Options") -> "Report":
    """`report.json` and `report.html` in `out`. Raises what `compare_recorded` raises."""
    base, tuned = write_answers(answers, out)
    origin = {"target": target, "cloud runs": list(answers.runs)}
    return compare_recorded(answers.data, base, tuned, out, options, origin=origin)
