"""ROUGE-L, BLEU, GLEU, METEOR and F1 as Microsoft's evaluation packages compute them.

The packages silently leave out what they cannot compute. Here a metric is either there for every line that
counts, or not available with the reason.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from evaluation.metrics.grader import AZURE, EVALS, is_installed, require_package, run_grader
from evaluation.metrics.grader_child import METRICS
from evaluation.scored_rows import AnsweredPair, ScoredRow, answered_pairs
from evaluation.statistics.scores import Measured
from phi3flow.core.console import say
from phi3flow.core.errors import Phi3flowError

BACKENDS = (AZURE, EVALS)
TEXT_METRICS = tuple(METRICS["text"])


def default_backend() -> str | None:
    """azure-ai-evaluation if it is installed."""
    return AZURE if is_installed(AZURE) else None


def score_texts(rows: Sequence[ScoredRow], backend: str, out: Path) -> Measured:
    """Score both answers of every line that counts; the files stay below `out/text-metrics`.

    Raises BadInput if the package is not installed, Phi3flowError if it fails or leaves out a score.
    """
    require_package(backend)
    say(f"scoring texts with {backend}")
    request = {"package": backend, "kind": "text", "metrics": TEXT_METRICS, "workers": 1}
    grades = run_grader(out / "text-metrics", _counted(rows), _fields, request, lines=len(rows))
    require_complete(rows, grades)
    return grades


def _counted(rows: Iterable[ScoredRow]) -> Iterator[AnsweredPair]:
    """The lines that both models answered and whose reference does not decline."""
    return (pair for pair in answered_pairs(rows) if not pair.row.declining)


def _fields(row: ScoredRow, text: str) -> dict[str, str]:
    return {"response": text, "ground_truth": row.reference}


def require_complete(rows: Iterable[ScoredRow], grades: Measured) -> None:
    """Raises Phi3flowError that names the first line and metric without a score."""
    for pair in _counted(rows):
        for name, column in grades.columns.items():
            if math.isnan(column.base[pair.row.line - 1] + column.tuned[pair.row.line - 1]):
                raise Phi3flowError(
                    f"{grades.package} gave no {name} for line {pair.row.line}",
                    hint="--text-metrics none leaves these metrics out",
                )
