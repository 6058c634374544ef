"""Coherence, fluency, relevance, groundedness and similarity: azure-ai-evaluation's evaluators ask the judge.

Grades go from 1 to 5. A missing grade is counted as failed and is in no mean.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.judge.prompt import addresses_judge, quoted
from evaluation.metrics.grader import AZURE, openai_base_url, require_package, run_grader
from evaluation.metrics.grader_child import METRICS
from evaluation.scored_rows import AnsweredPair, ScoredRow
from evaluation.statistics.contrasts import Contrast
from evaluation.statistics.intervals import mean_difference
from evaluation.statistics.scores import Measured
from phi3flow.core.console import say
from phi3flow.core.errors import BadInput, nearest
from phi3flow.phi3_contract import Endpoint

JUDGE_METRICS = METRICS["judge"]


@dataclass(frozen=True)
class GradeContrast(Contrast):
    """Mean grades over the `n` rows with both answers graded; `failed` counts the other rows."""

    failed: int


def check_metrics(names: Sequence[str], judge: Endpoint) -> None:
    """Raises BadInput for an unknown metric, a missing package, or a judge whose contract is not openai."""
    unknown = [name for name in names if name not in JUDGE_METRICS]
    if unknown:
        raise BadInput(f"no judge metric: {', '.join(unknown)}", hint=nearest(unknown[0], JUDGE_METRICS))
    require_package(AZURE)
    openai_base_url(judge)


def grade(
    pairs: Sequence[AnsweredPair], names: Sequence[str], judge: Endpoint, out: Path, *, workers: int
) -> dict[str, GradeContrast]:
    """Have both answers of every pair graded; the grades stay below `out/judge-metrics`.

    An answer that addresses the judge is not sent. Raises Phi3flowError if the package itself fails.
    """
    calls = 2 * len(pairs) * len(names)
    say(f"asking the judge for {calls} grades")
    model = {
        "type": "openai",
        "base_url": openai_base_url(judge),
        "api_key": judge.key,
        "model": judge.model or "phi3",
    }
    grades = run_grader(
        out / "judge-metrics",
        pairs,
        _fields,
        {
            "package": AZURE,
            "kind": "judge",
            "metrics": list(names),
            "workers": workers,
            "model_config": model,
        },
        lines=max((pair.row.line for pair in pairs), default=0),
        seconds=judge.timeout * math.ceil(calls / workers),
    )
    return {name: _contrast(pairs, name, grades) for name in names}


def _fields(row: ScoredRow, text: str) -> dict[str, str] | None:
    """What the evaluators read, without role marks: a line `system:` would become a message."""
    if addresses_judge(text, row.messages, row.reference):
        return None
    system = next((turn["content"] for turn in row.messages if turn["role"] == "system"), "")
    return {
        "query": quoted(row.messages[-1]["content"]),
        "response": quoted(text),
        "context": quoted(system or row.reference),
        "ground_truth": quoted(row.reference),
    }


def _contrast(pairs: Sequence[AnsweredPair], name: str, grades: Measured) -> GradeContrast:
    graded = grades.columns[name].where(grades.columns[name].measured)
    interval = mean_difference(graded.difference, bounded=False).interval
    return GradeContrast.of(graded, interval, failed=len(pairs) - len(graded.base))
