"""The picture of a run: training and validation loss over the steps."""

from pathlib import Path
from typing import Any


def draw_loss_curve(metrics: list[dict[str, Any]], path: Path, title: str) -> None:
    """Write a PNG of `loss` and `eval_loss` (nats per assistant token, log scale) over the rows' steps."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = FigureCanvasAgg(figure).figure.add_subplot()
    for name, label, style in (
        ("loss", "training", {"lw": 1.2}),
        ("eval_loss", "validation", {"lw": 2, "marker": "o"}),
    ):
        points = [(row["step"], row[name]) for row in metrics if name in row]
        axes.plot([x for x, _ in points], [y for _, y in points], label=label, **style)
    axes.set(title=title, xlabel="optimiser step", ylabel="loss (nats per token)", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)
