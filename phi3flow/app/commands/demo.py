"""`phi3flow demo`: the whole loop on one machine. The script is the architecture.

Each step writes a folder with a manifest and is skipped if its result is there, so an interrupted demo
continues where it stopped.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from phi3flow.app.demo_steps import serve_and_compare, write_rows
from phi3flow.app.run_verb import run_verb
from phi3flow.app.services import ENDPOINT_MODULES, require_modules
from phi3flow.core.console import Outcome, say
from phi3flow.core.files import for_owner_alone
from phi3flow.core.folder_lock import writing
from phi3flow.core.settings import Settings
from phi3flow.core.sides import SIDES

if TYPE_CHECKING:
    from evaluation.report.comparison import Report

RECIPE = "tiny-cpu"
QUESTION = "Who founded Microsoft?"
SAMPLES = (QUESTION, "What is the capital of Italy?", "What symbol does helium have?")


@for_owner_alone()  # its run folder will keep conversations
def demo(
    *,
    real: Annotated[
        bool,
        Option(
            "--real",
            help="Use a pretrained model of 135 million parameters and the chats of a help desk: "
            "17 minutes, 5 GB of disk.",
        ),
    ] = False,
    seed: Annotated[int, Option(metavar="N", help="Random seed for data, initial weights and training.")] = 0,
    out: Annotated[
        Path | None,
        Option(
            metavar="DIR",
            help="Run folder (default: {runs}/demo, with --real {runs}/demo-real, of a seed ...-seedN).",
        ),
    ] = None,
) -> Outcome:
    """Run the whole loop on this machine: data, base, training, serving, verdict.

    example: phi3flow demo --seed 1

    example: phi3flow demo --real
    """
    from evaluation.report.render import summary_table
    from evaluation.verdict.decision import exit_code
    from phi3flow.app.demo_real import run_real_demo

    settings = Settings.load()
    folder = out or settings.runs / f"demo{'-real' * real}{f'-seed{seed}' if seed else ''}"
    run = run_real_demo if real else run_toy_demo
    with writing(folder):
        report, answers = run(folder, settings, seed)
    first = next(iter(answers.values()))
    data = report.as_dict() | {"path": str(folder / "report.json"), "answers": first, "samples": answers}
    text = (
        f"{summary_table(report)}\n\n{_shown(answers)}\n"
        f"report: {folder / 'report.html'}\nnext: phi3flow up {folder}"
    )
    return Outcome(data, text, exit_code(report.verdict, report.failed))


def run_toy_demo(folder: Path, settings: Settings, seed: int) -> "tuple[Report, dict[str, dict[str, str]]]":
    """The loop on the embedded toy. Raises Phi3flowError for anything a user can repair."""
    from evaluation.verdict.gate import load_gate

    require_modules("trl", *ENDPOINT_MODULES)
    train_both(folder, seed)
    models = {side.name: folder / side.name for side in SIDES}
    return serve_and_compare(
        folder, models, load_gate(), settings, questions=[QUESTION], steps=("4/5", "5/5")
    )


def train_both(folder: Path, seed: int) -> None:
    """Generate and prepare the chats, and train base and tuned.

    The steps that need a model run as the commands a person would type. Raises Phi3flowError for anything a
    user can repair.
    """
    say(f"1/5 chats about elements, countries, planets and companies -> {folder}")
    chats, test = write_chats(folder, seed)
    data, base, tuned = folder / "data", folder / "base", folder / "tuned"
    run_verb("prepare", chats, "--out", data, "--test", test, "--near-duplicates", "report")
    say("2/5 base: a tiny Phi-3 from random weights, which never heard of them")
    run_verb("toy-base", "--out", base, "--seed", seed)
    say("3/5 fine-tuning it on the chats")
    run_verb("train", "--data", data, "--recipe", RECIPE, "--model", base, "--out", tuned, "--seed", seed)


def write_chats(folder: Path, seed: int) -> tuple[Path, Path]:
    """The corpus to fine-tune on and the held-out questions. Raises BadInput if `folder` holds others."""
    from training.toy.corpus import build

    corpora = build(seed)
    samples = [{"question": question} for question in SAMPLES]  # for the chat page
    files = {
        folder / "chats.jsonl": corpora.tuning,
        folder / "test.jsonl": corpora.test,
        folder / "samples.jsonl": samples,
    }
    write_rows(files)
    chats, test, _ = files
    return chats, test


def _shown(answers: dict[str, dict[str, str]]) -> str:
    """Each question, and what both sides answered."""
    return "".join(
        f"{question}\n" + "".join(f"  {side.name + ':':6} {told[side.connection]}\n" for side in SIDES)
        for question, told in answers.items()
    )
