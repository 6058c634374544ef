"""The compare flow's aggregation: means per side over the lines that both sides answered."""

from answer_metrics import mean_scores
from promptflow.core import log_metric, tool


@tool
def summarise_sides(scores: list) -> dict:
    answered = [line for line in scores if line["base"] and line["tuned"]]
    metrics = {"lines": float(len(scores)), "answered": float(len(answered))}
    for side in ("base", "tuned"):
        means = mean_scores([line[side] for line in answered])
        metrics |= {f"{side}_{name}": value for name, value in means.items()}
    for name, value in metrics.items():
        log_metric(name, value)
    return metrics
