"""ROUGE-L, BLEU, GLEU, METEOR and F1 as Microsoft's evaluation packages compute them, with nothing missing.

The packages leave out what they cannot compute without a word. Here every metric comes for every answer, or
the run ends and names the one that does not.
"""

import json
import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evaluation.answer_metrics import declines
from evaluation.metrics.text_metrics_child import EVALS, EVALUATORS
from evaluation.rows import Judged
from evaluation.statistics.scores import Column
from phi3flow.core.children import last_line, module_command, run_child
from phi3flow.core.console import say
from phi3flow.core.errors import Phi3flowError
from phi3flow.core.files import read_json
from phi3flow.core.jsonl import write_jsonl

AZURE = "azure-ai-evaluation"
BACKENDS = (AZURE, EVALS)


class TextMetrics(NamedTuple):
    """Columns over all lines, NaN where a line does not count; `made_by` is for the lineage."""

    columns: dict[str, Column]
    made_by: dict[str, Any]


def default_backend() -> str | None:
    """azure-ai-evaluation where it is installed."""
    return AZURE if _installed(AZURE) else None


def score_texts(rows: Sequence[Judged], backend: str, out: Path) -> TextMetrics:
    """Score both answers of every line that counts. Works in a new folder below `out/text-metrics`.

    Raises Phi3flowError when the package is missing or fails, and when it leaves a metric out.
    """
    if not _installed(backend):
        raise Phi3flowError(
            f"{backend} is not installed", hint=f"pip install {backend}, or --text-metrics none"
        )
    parent = out / "text-metrics"
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{backend}-", dir=parent))
    write_jsonl(folder / "pairs.jsonl", (pair for row in rows for pair in _pairs(row)))
    say(f"scoring texts with {backend}")
    _run(backend, folder)
    columns = read_scores(rows, folder / "scores.jsonl", backend)
    return TextMetrics(columns, read_json(folder / "backend.json"))


def _installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def _pairs(row: Judged) -> Iterator[dict[str, str]]:
    """Base's answer, then tuned's, of a line that counts."""
    if row.base is not None and row.tuned is not None and not declines(row.reference):
        for answer in (row.base, row.tuned):
            yield {"answer": answer.text, "reference": row.reference}


def _run(backend: str, folder: Path) -> None:
    log, scores = folder / "log.txt", folder / "scores.jsonl"
    command = module_command("evaluation.metrics.text_metrics_child", backend, folder)
    if run_child(command, log, report=lambda: say(f"{backend}: {_count_lines(scores)} texts scored")):
        raise Phi3flowError(
            f"{backend} failed: {last_line(log)}", hint=f"its log is {log}; --text-metrics none goes without"
        )


def _count_lines(path: Path) -> int:
    if not path.exists():
        return 0
    with path.open("rb") as stream:
        return sum(1 for _ in stream)


def read_scores(rows: Iterable[Judged], path: Path, backend: str) -> dict[str, Column]:
    """The child's scores by metric. Raises Phi3flowError that names a missing metric and its line."""
    sides: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in EVALUATORS}
    with path.open(encoding="utf-8") as scores:
        for row in rows:
            found = [json.loads(scores.readline() or "{}") for _ in _pairs(row)]
            for name, columns in sides.items():
                for side, column in enumerate(columns):
                    column.append(_checked(found[side].get(name), name, row, backend) if found else math.nan)
    return {name: Column(*(np.array(side) for side in columns)) for name, columns in sides.items()}


def _checked(value: Any, metric: str, row: Judged, backend: str) -> float:
    if not isinstance(value, float) or not math.isfinite(value):
        raise Phi3flowError(
            f"{backend} gave no {metric} for line {row.line}", hint="--text-metrics none goes without"
        )
    return value
