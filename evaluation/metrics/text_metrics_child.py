"""Scores pairs of texts with one of Microsoft's evaluation packages; runs in a process of its own.

    python -m evaluation.metrics.text_metrics_child BACKEND FOLDER

Reads `FOLDER/pairs.jsonl`, writes a line to `FOLDER/scores.jsonl` for each. Both packages import Prompt flow,
which takes its home and its telemetry from the environment; their text evaluators look for NLTK's data.
"""

import functools
import json
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from custom_connections.promptflow_home import QUIET
from evaluation.metrics.nltk_stand_in import NEEDED, write_stand_in
from phi3flow.core.files import write_json, write_text

EVALS = "promptflow-evals"
Score = Callable[[str, str], float | None]


class Evaluator(NamedTuple):
    """A class of both packages, and the name of its value in the one and the other."""

    name: str
    azure: str
    evals: str


EVALUATORS = {
    "rouge_l": Evaluator("RougeScoreEvaluator", "rouge_score", "rouge_f1_score"),
    "bleu": Evaluator("BleuScoreEvaluator", "bleu_score", "bleu_score"),
    "gleu": Evaluator("GleuScoreEvaluator", "gleu_score", "gleu_score"),
    "meteor": Evaluator("MeteorScoreEvaluator", "meteor_score", "meteor_score"),
    "f1_score": Evaluator("F1ScoreEvaluator", "f1_score", "f1_score"),
}


def main(backend: str, folder: Path) -> None:
    enter_home(folder / "home")
    source = _prepare_nltk(folder)
    scorers = {metric: _scorer(backend, evaluator) for metric, evaluator in EVALUATORS.items()}
    write_json(folder / "backend.json", {"package": f"{backend} {version(backend)}", "nltk data": source})
    with (
        (folder / "pairs.jsonl").open(encoding="utf-8") as pairs,
        (folder / "scores.jsonl").open("w", encoding="utf-8") as scores,
    ):
        for line in pairs:
            pair = json.loads(line)
            figures = {name: score(pair["answer"], pair["reference"]) for name, score in scorers.items()}
            scores.write(json.dumps(figures) + "\n")


def enter_home(home: Path) -> None:
    """A quiet home without a word on traces: promptflow-evals fails where their destination is set."""
    write_text(home / "pf.yaml", "telemetry:\n  enabled: false\n")
    os.environ.update(
        {**QUIET, "PF_HOME_DIRECTORY": str(home.resolve()), "PF_TRACING_SKIP_EXPORTER_SETUP": "true"}
    )


def _prepare_nltk(folder: Path) -> str:
    """NLTK's own data where all of it is installed; else the stand-in alone. Says which."""
    import nltk

    try:
        for name in NEEDED:
            nltk.data.find(f"{name}.zip")
        source = "nltk's own"
    except LookupError:
        write_stand_in(folder / "nltk_data")
        nltk.data.path[:] = [str((folder / "nltk_data").resolve())]
        source = "stand-in: no learned abbreviations, no synonyms"
    nltk.find = functools.cache(nltk.find)  # azure-ai-evaluation searches the archives anew for each text
    return source


def _scorer(backend: str, evaluator: Evaluator) -> Score:
    if backend == EVALS:
        from promptflow.evals import evaluators as package

        answer_name, key = "answer", evaluator.evals
    else:
        from azure.ai import evaluation as package

        answer_name, key = "response", evaluator.azure
    options = {"rouge_type": package.RougeType.ROUGE_L} if evaluator.name.startswith("Rouge") else {}
    evaluate = getattr(package, evaluator.name)(**options)

    def score(answer: str, reference: str) -> float | None:
        if not answer.strip():  # promptflow-evals refuses it; azure-ai-evaluation gives 0 as well
            return 0.0
        value = evaluate(**{answer_name: answer, "ground_truth": reference}).get(key)
        return None if value is None else float(value)

    return score


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
