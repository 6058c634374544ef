"""`phi3flow demo`: the whole loop on the embedded default."""

from pathlib import Path
from typing import Annotated

from typer import Option

from phi3flow.core.console import Outcome
from phi3flow.core.settings import Settings
from phi3flow.core.sides import SIDES


def demo(
    *,
    seed: Annotated[int, Option(metavar="N", help="Random seed for data, initial weights and training.")] = 0,
    out: Annotated[
        Path | None,
        Option(metavar="DIR", help="Run folder (default: {runs}/demo, with another seed {runs}/demo-seedN)."),
    ] = None,
) -> Outcome:
    """Run the whole loop on this machine: data, base, training, serving, verdict.

    example: phi3flow demo --seed 1
    """
    from evaluation.report.render import summary_table
    from evaluation.verdict.decision import exit_code
    from phi3flow.app.demo import QUESTION, run_demo

    settings = Settings.load()
    folder = out or settings.runs / ("demo" if seed == 0 else f"demo-seed{seed}")
    done = run_demo(folder, settings, seed=seed)
    data = done.report.as_dict() | {"path": str(folder / "report.json"), "answers": done.answers}
    answers = "".join(f"  {side.name + ':':6} {done.answers[side.connection]}\n" for side in SIDES)
    text = (
        f"{summary_table(done.report)}\n\n{QUESTION}\n{answers}\n"
        f"report: {folder / 'report.html'}\nnext: phi3flow up {folder}"
    )
    return Outcome(data, text, exit_code(done.report.verdict, done.report.failed))
