"""Grades answers with azure-ai-evaluation's judge evaluators; runs in a process of its own.

    python -m evaluation.metrics.grades_child FOLDER < request

The request goes to it on standard input because it holds the judge's key. Reads `FOLDER/answers.jsonl` and
appends a line to `FOLDER/grades.jsonl` as each grade comes. The evaluators retry for minutes and know no
deadline, so the parent has one; a reply they cannot read becomes NaN without a word, which is null here.
"""

import json
import math
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from evaluation.metrics.text_metrics_child import enter_home
from phi3flow.core.jsonl import read_jsonl, to_line


class Evaluator(NamedTuple):
    """A class of azure-ai-evaluation, and which fields of an answer it takes."""

    name: str
    takes: tuple[str, ...]


EVALUATORS = {
    "coherence": Evaluator("CoherenceEvaluator", ("query", "response")),
    "fluency": Evaluator("FluencyEvaluator", ("response",)),
    "relevance": Evaluator("RelevanceEvaluator", ("query", "response")),
    "groundedness": Evaluator("GroundednessEvaluator", ("query", "response", "context")),
    "similarity": Evaluator("SimilarityEvaluator", ("query", "response", "ground_truth")),
}
Answer = dict[str, Any]
Grader = Callable[[Answer], Any]


def main(folder: Path) -> None:
    request = json.load(sys.stdin)
    enter_home(folder / "home")
    from azure.ai import evaluation

    graders = {
        name: _grader(getattr(evaluation, EVALUATORS[name].name)(request["model_config"]), name)
        for name in request["metrics"]
    }
    grade_all(folder, graders, request["workers"])


def _grader(evaluator: Any, metric: str) -> Grader:
    def grade(answer: Answer) -> Any:
        return evaluator(**{field: answer[field] for field in EVALUATORS[metric].takes})[metric]

    return grade


def grade_all(folder: Path, graders: Mapping[str, Grader], workers: int) -> None:
    """Every answer of `FOLDER/answers.jsonl` by every grader."""
    lock = threading.Lock()
    with (
        (folder / "grades.jsonl").open("ab") as grades,
        ThreadPoolExecutor(workers) as pool,
    ):

        def grade(task: tuple[Answer, str]) -> None:
            answer, metric = task
            about = {"line": answer["line"], "side": answer["side"], "metric": metric}
            graded = to_line(about | _grade(graders[metric], answer))
            with lock:
                grades.write(graded)
                grades.flush()

        tasks = [(answer, metric) for answer in read_jsonl(folder / "answers.jsonl") for metric in graders]
        list(pool.map(grade, tasks))


def _grade(grader: Grader, answer: Answer) -> dict[str, Any]:
    try:
        grade = grader(answer)
    except Exception as error:  # the package lets through what its libraries raise: this grade has failed
        return {"grade": None, "error": type(error).__name__}
    if not isinstance(grade, int | float) or not math.isfinite(grade):
        return {"grade": None, "error": "the reply holds no grade"}
    return {"grade": float(grade), "error": None}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
