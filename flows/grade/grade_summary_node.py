"""The grade flow's aggregation: the metrics `pf run show-metrics` prints.

They cover the lines Prompt flow could grade. It drops failed lines without a word, so the number of lines is
a metric too, and `evaluation.asking.batch` compares it with the input. A judge's mean grade stands beside
the number of lines on which the judge failed.
"""

from answer_metrics import mean_scores
from promptflow.core import log_metric, tool


@tool
def summarise(scores: list, judged: list) -> dict:
    metrics = {**mean_scores(scores), "lines": float(len(scores))}
    grades = [line["grade"] for line in judged if line["grade"] is not None]
    failed = [line["error"] for line in judged if line["error"]]
    if grades or failed:
        metrics["judge_failed"] = float(len(failed))
    if grades:
        metrics["judge_grade"] = sum(grades) / len(grades)
    for name, value in metrics.items():
        log_metric(name, value)
    return metrics
