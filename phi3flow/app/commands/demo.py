"""`phi3flow demo`: the whole loop on one machine. The script is the architecture.

Each step writes a folder with a manifest and is skipped if its result is there, so an interrupted demo
continues where it stopped.
"""

import shlex
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from phi3flow.app.run_folder import compare_run
from phi3flow.app.services import ENDPOINT_MODULES, require_modules, served
from phi3flow.core.child_process import module_command
from phi3flow.core.console import INTERRUPTED, Outcome, is_quiet, say
from phi3flow.core.errors import BadInput, Phi3flowError
from phi3flow.core.jsonl import read_jsonl, write_jsonl
from phi3flow.core.settings import Settings
from phi3flow.core.sides import SIDES

if TYPE_CHECKING:
    from evaluation.report.comparison import Report

RECIPE = "tiny-cpu"
QUESTION = "Who founded Microsoft?"
SAMPLES = (QUESTION, "What is the capital of Italy?", "What symbol does helium have?")


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

    settings = Settings.load()
    folder = out or settings.runs / ("demo" if seed == 0 else f"demo-seed{seed}")
    require_modules("trl", *ENDPOINT_MODULES)
    train_both(folder, seed)
    report, answers = serve_and_compare(folder, settings)
    data = report.as_dict() | {"path": str(folder / "report.json"), "answers": answers}
    answered = "".join(f"  {side.name + ':':6} {answers[side.connection]}\n" for side in SIDES)
    text = (
        f"{summary_table(report)}\n\n{QUESTION}\n{answered}\n"
        f"report: {folder / 'report.html'}\nnext: phi3flow up {folder}"
    )
    return Outcome(data, text, exit_code(report.verdict, report.failed))


def train_both(folder: Path, seed: int) -> None:
    """Generate and prepare the chats, and train base and tuned.

    The steps that need a model run as the commands a person would type, each in a process of its own, so that
    no step holds the memory of another. Raises Phi3flowError for anything a user can repair.
    """
    say(f"1/5 chats about elements, countries, planets and companies -> {folder}")
    chats, test = write_chats(folder, seed)
    data, base, tuned = folder / "data", folder / "base", folder / "tuned"
    _phi3flow("prepare", chats, "--out", data, "--test", test, "--near-duplicates", "report")
    say("2/5 base: a tiny Phi-3 from random weights, which never heard of them")
    _phi3flow("toy-base", "--out", base, "--seed", seed)
    say("3/5 fine-tuning it on the chats")
    _phi3flow("train", "--data", data, "--recipe", RECIPE, "--model", base, "--out", tuned, "--seed", seed)


def _phi3flow(*arguments: object) -> None:
    """Run one verb; its progress and its error, if any, are already on stderr. Raises Phi3flowError."""
    words = [*(["-q"] if is_quiet() else []), *map(str, arguments)]
    # Ctrl-C reaches the child too: let it finish its checkpoint, and learn of it from its exit code.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        code = subprocess.run(
            module_command("phi3flow", *words), stdout=subprocess.DEVNULL, check=False
        ).returncode
    finally:
        signal.signal(signal.SIGINT, before)
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    if code:
        raise Phi3flowError(
            f"the demo stopped: phi3flow {shlex.join(words)}", hint="the reason is printed above"
        )


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
    for path, rows in files.items():
        if path.exists() and read_jsonl(path) != rows:
            raise BadInput(f"{path} holds other chats", hint=f"remove {folder} or choose another --out")
        if not path.exists():
            write_jsonl(path, rows)
    chats, test, _ = files
    return chats, test


def serve_and_compare(folder: Path, settings: Settings) -> "tuple[Report, dict[str, str]]":
    """Ask both models the held-out questions and the tutorials' first one; the report goes to `folder`.

    Returns the report, and the answers to that question by the connections' names.
    """
    from evaluation.asking.batch import PROMPT_FLOW
    from evaluation.compare import Options
    from evaluation.packs.pack_file import packaged_packs
    from evaluation.verdict.gate import load_gate

    options = Options(load_gate(), settings.batch_workers, packs=packaged_packs())
    say("4/5 serving base and tuned on loopback")
    with served(folder, settings) as endpoints:
        say("5/5 asking both the held-out questions through the compare flow")
        report = compare_run(folder, options, runner=PROMPT_FLOW)
        asked = [{"role": "user", "content": QUESTION}]
        return report, {name: endpoint.complete(asked) for name, endpoint in endpoints.items()}
