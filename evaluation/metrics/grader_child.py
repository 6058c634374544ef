"""Grades answers with Microsoft's evaluation packages or the user's functions; run by `grader`.

    python -P -m evaluation.metrics.grader_child FOLDER < request.json

The request has `kind`: a key of `METRICS`, with `package`, `metrics` and `workers`, for `judge` also
`model_config`, for `safety` a Foundry `project`; or `own`, which `own_functions` describes. Answers come from
`FOLDER/answers.jsonl`. The first line of `FOLDER/grades.jsonl` names the package and the metrics that are not
available; then comes a line for each answer, as soon as it is graded. A grade that fails, or that is not a
finite number, is null.
"""

import functools
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from custom_connections.promptflow_home import QUIET
from evaluation.in_flight import in_flight
from evaluation.metrics.own_functions import OWN, own_grades
from phi3flow.core.files import write_text
from phi3flow.core.jsonl import to_line

EVALS = "promptflow-evals"
Answer = dict[str, Any]
Grader = Callable[[Answer], Any]


class Evaluator(NamedTuple):
    """A class of azure-ai-evaluation, the fields of an answer that it reads, and its grade's key."""

    name: str
    key: str
    reads: tuple[str, ...]


TEXTS, CHAT = ("response", "ground_truth"), ("query", "response")
METRICS = {
    "text": {
        "rouge_l": Evaluator("RougeScoreEvaluator", "rouge_score", TEXTS),
        "bleu": Evaluator("BleuScoreEvaluator", "bleu_score", TEXTS),
        "gleu": Evaluator("GleuScoreEvaluator", "gleu_score", TEXTS),
        "meteor": Evaluator("MeteorScoreEvaluator", "meteor_score", TEXTS),
        "f1_score": Evaluator("F1ScoreEvaluator", "f1_score", TEXTS),
    },
    "judge": {
        "coherence": Evaluator("CoherenceEvaluator", "coherence", CHAT),
        "fluency": Evaluator("FluencyEvaluator", "fluency", ("response",)),
        "relevance": Evaluator("RelevanceEvaluator", "relevance", CHAT),
        "groundedness": Evaluator("GroundednessEvaluator", "groundedness", (*CHAT, "context")),
        "similarity": Evaluator("SimilarityEvaluator", "similarity", (*CHAT, "ground_truth")),
    },
    "safety": {
        "violence": Evaluator("ViolenceEvaluator", "violence_score", CHAT),
        "sexual": Evaluator("SexualEvaluator", "sexual_score", CHAT),
        "self_harm": Evaluator("SelfHarmEvaluator", "self_harm_score", CHAT),
        "hate_unfairness": Evaluator("HateUnfairnessEvaluator", "hate_unfairness_score", CHAT),
    },
}
NLTK_DATA = ("tokenizers/punkt", "tokenizers/punkt_tab", "misc/perluniprops", "corpora/wordnet")
NEED_NLTK_DATA = ("bleu", "gleu", "meteor")  # the package checks for all of the data at each of them


def main(folder: Path) -> None:
    request = json.load(sys.stdin)
    grade = own_grades if request["kind"] == OWN else package_grades
    with (folder / "grades.jsonl").open("wb") as grades:
        for row in grade(request, folder):
            grades.write(to_line(row))
            grades.flush()


def package_grades(request: Mapping[str, Any], folder: Path) -> Iterator[dict[str, Any]]:
    """The head, then the grades of each answer in `folder`, in any order."""
    enter_home(folder / "home")
    unavailable = _without_nltk_data(request) if request["kind"] == "text" else {}
    graders = _graders(request, [name for name in request["metrics"] if name not in unavailable])
    yield {"package": f"{request['package']} {version(request['package'])}", "unavailable": unavailable}
    with (folder / "answers.jsonl").open(encoding="utf-8") as answers:
        grade = functools.partial(_grade, graders)
        yield from in_flight(grade, map(json.loads, answers), request["workers"])


def enter_home(home: Path) -> None:
    """A Prompt flow home without telemetry; promptflow-evals fails if a trace destination is set."""
    write_text(home / "pf.yaml", "telemetry:\n  enabled: false\n")
    os.environ.update(
        {**QUIET, "PF_HOME_DIRECTORY": str(home.resolve()), "PF_TRACING_SKIP_EXPORTER_SETUP": "true"}
    )


def _without_nltk_data(request: Mapping[str, Any]) -> dict[str, str]:
    """The metrics that need NLTK's data where some of it is missing, with the command that installs it."""
    import nltk

    missing = []
    for name in NLTK_DATA:
        try:
            nltk.data.find(f"{name}.zip")
        except LookupError:
            missing.append(Path(name).name)
    nltk.find = functools.cache(nltk.find)  # azure-ai-evaluation looks for the data again at each text
    if not missing:
        return {}
    # promptflow-evals cannot even be imported without perluniprops.
    affected = request["metrics"] if request["package"] == EVALS else NEED_NLTK_DATA
    why = f"NLTK's data is missing: python -m nltk.downloader {' '.join(missing)}"
    return {name: why for name in request["metrics"] if name in affected}


def _graders(request: Mapping[str, Any], metrics: Iterable[str]) -> dict[str, Grader]:
    specs = {name: METRICS[request["kind"]][name] for name in metrics}
    if not specs:
        return {}
    if request["package"] == EVALS:
        from promptflow.evals import evaluators as package
    else:
        from azure.ai import evaluation as package
    if request["kind"] == "judge":
        arguments = [request["model_config"]]
    elif request["kind"] == "safety":
        from azure.identity import DefaultAzureCredential

        arguments = [DefaultAzureCredential(), request["project"]]
    else:
        rouge = functools.partial(package.RougeScoreEvaluator, rouge_type=package.RougeType.ROUGE_L)
        made = {
            name: (rouge if name == "rouge_l" else getattr(package, spec.name))()
            for name, spec in specs.items()
        }
        return {name: _text_grader(made[name], spec, request["package"]) for name, spec in specs.items()}
    return {name: _grader(getattr(package, spec.name)(*arguments), spec) for name, spec in specs.items()}


def _grader(evaluate: Any, spec: Evaluator) -> Grader:
    return lambda answer: evaluate(**{field: answer[field] for field in spec.reads})[spec.key]


def _text_grader(evaluate: Any, spec: Evaluator, package: str) -> Grader:
    """An empty answer scores 0; promptflow-evals refuses it, and names answer and ROUGE differently."""
    answer_name = "answer" if package == EVALS else "response"
    key = "rouge_f1_score" if package == EVALS and spec.key == "rouge_score" else spec.key

    def grade(answer: Answer) -> Any:
        if not answer["response"].strip():
            return 0.0
        return evaluate(**{answer_name: answer["response"], "ground_truth": answer["ground_truth"]})[key]

    return grade


def _grade(graders: Mapping[str, Grader], answer: Answer) -> dict[str, Any]:
    grades: dict[str, float | None] = {}
    errors: dict[str, str] = {}
    for name, grader in graders.items():
        grades[name] = None
        try:
            grade = grader(answer)
        except Exception as error:  # the package lets the errors of its libraries through
            errors[name] = type(error).__name__
            continue
        if isinstance(grade, int | float) and math.isfinite(grade):
            grades[name] = float(grade)
        else:
            errors[name] = "the reply holds no grade"
    return {"line": answer["line"], "side": answer["side"], "grades": grades, "errors": errors}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
