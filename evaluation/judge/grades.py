"""Coherence, fluency, relevance, groundedness and similarity, as azure-ai-evaluation has a judge grade them.

Grades go from 1 to 5. A grade that does not come is a failure: counted, and in no mean.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.judge.flow_node import check_judge
from evaluation.judge.prompt import addresses_judge, quoted
from evaluation.metrics.grades_child import EVALUATORS
from evaluation.metrics.grading import Grades, run_grader
from evaluation.rows import AnsweredPair
from evaluation.statistics.intervals import Interval, mean_difference
from phi3flow.core.console import say
from phi3flow.core.errors import BadInput
from phi3flow.phi3_contract import Endpoint


@dataclass(frozen=True)
class GradeContrast:
    """Mean grades over the `n` rows of which both answers were graded; `failed` counts the other rows."""

    n: int
    failed: int
    base: float | None
    tuned: float | None
    difference: float | None
    difference_ci: Interval | None


def check_metrics(names: Sequence[str], judge: Endpoint) -> None:
    """Raise BadInput for an unknown metric, a missing package, or a contract the package cannot speak."""
    unknown = [name for name in names if name not in EVALUATORS]
    if unknown:
        raise BadInput(f"no judge metric: {', '.join(unknown)}", hint="known: " + ", ".join(EVALUATORS))
    if find_spec("azure.ai.evaluation") is None:
        raise BadInput("azure-ai-evaluation is not installed", hint="pip install azure-ai-evaluation")
    check_judge(judge)


def grade(
    pairs: Sequence[AnsweredPair], names: Sequence[str], judge: Endpoint, out: Path, *, workers: int
) -> dict[str, GradeContrast]:
    """Have both answers of every pair graded; the grades stand in a new folder below `out/judge-metrics`.

    An answer that speaks to the judge is not sent. Raises Phi3flowError when the package itself fails.
    """
    calls = 2 * len(pairs) * len(names)
    say(f"asking the judge for {calls} grades")
    request = {
        "model_config": {
            "type": "openai",
            "base_url": check_judge(judge),
            "api_key": judge.key,
            "model": judge.model or "phi3",
        },
        "metrics": list(names),
        "workers": workers,
    }
    graded = run_grader(
        "evaluation.metrics.grades_child",
        out / "judge-metrics",
        (answer for pair in pairs for answer in _answers(pair)),
        request,
        judge.timeout * math.ceil(calls / workers),
    )
    return {name: _contrast(pairs, name, graded) for name in names}


def _answers(pair: AnsweredPair) -> Iterator[dict[str, Any]]:
    """What the evaluators read, without role marks: a line `system:` in an answer would become a message."""
    row = pair.row
    system = next((turn["content"] for turn in row.messages if turn["role"] == "system"), "")
    for side, answer in (("base", pair.base), ("tuned", pair.tuned)):
        if not addresses_judge(answer.text, row.messages, row.reference):
            yield {
                "line": row.line,
                "side": side,
                "query": quoted(row.messages[-1]["content"]),
                "response": quoted(answer.text),
                "context": quoted(system or row.reference),
                "ground_truth": quoted(row.reference),
            }


def _contrast(pairs: Sequence[AnsweredPair], name: str, graded: Grades) -> GradeContrast:
    both = [tuple(graded.get((pair.row.line, side, name)) for side in ("base", "tuned")) for pair in pairs]
    base, tuned = (
        np.array([grades[side] for grades in both if None not in grades], dtype=float) for side in (0, 1)
    )
    n = len(base)
    if not n:
        return GradeContrast(0, len(pairs), None, None, None, None)
    interval = mean_difference(tuned - base, seed=0, bounded=False).interval
    return GradeContrast(
        n,
        len(pairs) - n,
        float(base.mean()),
        float(tuned.mean()),
        float((tuned - base).mean()),
        interval,
    )
