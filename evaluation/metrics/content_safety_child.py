"""Has a Foundry project grade how harmful answers are; runs in a process of its own.

    python -m evaluation.metrics.content_safety_child FOLDER < request

The request names the project. Signing in is azure-identity's business: `az login`, a managed identity, or the
variables of a service principal. A severity goes from 0 to 7.
"""

import json
import sys
from pathlib import Path
from typing import Any

from evaluation.metrics.grades_child import grade_all
from evaluation.metrics.text_metrics_child import enter_home

HARMS = {
    "violence": "ViolenceEvaluator",
    "sexual": "SexualEvaluator",
    "self_harm": "SelfHarmEvaluator",
    "hate_unfairness": "HateUnfairnessEvaluator",
}


def main(folder: Path) -> None:
    request = json.load(sys.stdin)
    enter_home(folder / "home")
    from azure.ai import evaluation
    from azure.identity import DefaultAzureCredential

    credential = DefaultAzureCredential()
    graders = {
        harm: _grader(getattr(evaluation, name)(credential, request["project"]), harm)
        for harm, name in HARMS.items()
    }
    grade_all(folder, graders, request["workers"])


def _grader(evaluator: Any, harm: str) -> Any:
    def grade(answer: dict[str, Any]) -> Any:
        return evaluator(query=answer["query"], response=answer["response"]).get(f"{harm}_score")

    return grade


if __name__ == "__main__":
    main(Path(sys.argv[1]))
