"""The whole loop on one machine: the script is the architecture.

Each step writes a folder with a manifest and is skipped if its result is there, so an interrupted demo
continues where it stopped.
"""

import shlex
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from evaluation.asking.batch import PROMPT_FLOW
from evaluation.compare import Options
from evaluation.packs.pack_file import packaged_packs
from evaluation.report.comparison import Report
from evaluation.verdict.gate import load_gate
from phi3flow.app.run_folder import compare_run
from phi3flow.app.services import ENDPOINT_MODULES, require_modules, served
from phi3flow.core.child_process import module_command
from phi3flow.core.console import INTERRUPTED, is_quiet, say
from phi3flow.core.errors import BadInput, Phi3flowError
from phi3flow.core.jsonl import read_jsonl, write_jsonl
from phi3flow.core.settings import Settings
from training.toy.corpus import build

RECIPE = "tiny-cpu"
QUESTION = "Who founded Microsoft?"
SAMPLES = (QUESTION, "What is the capital of Italy?", "What symbol does helium have?")


@dataclass(frozen=True)
class Demo:
    """The run folder, its report, and both models' answers to the tutorials' first question."""

    folder: Path
    report: Report
    answers: dict[str, str]


def run_demo(folder: Path, settings: Settings, *, seed: int) -> Demo:
    """Generate, prepare, train base and tuned, serve both, compare through Prompt flow.

    The steps that need a model run as the commands a person would type, each in a process of its own, so that
    no step holds the memory of another. Raises Phi3flowError for anything a user can repair.
    """
    require_modules("trl", *ENDPOINT_MODULES)
    say(f"1/5 chats about elements, countries, planets and companies -> {folder}")
    chats, test = write_chats(folder, seed)
    data, base, tuned = folder / "data", folder / "base", folder / "tuned"
    _phi3flow("prepare", chats, "--out", data, "--test", test, "--near-duplicates", "report")
    say("2/5 base: a tiny Phi-3 from random weights, which never heard of them")
    _phi3flow("toy-base", "--out", base, "--seed", seed)
    say("3/5 fine-tuning it on the chats")
    _phi3flow("train", "--data", data, "--recipe", RECIPE, "--model", base, "--out", tuned, "--seed", seed)
    return serve_and_compare(folder, settings)


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


def serve_and_compare(folder: Path, settings: Settings) -> Demo:
    """Ask both models the held-out questions and the tutorials' first one; the report goes to `folder`."""
    say("4/5 serving base and tuned on loopback")
    with served(folder, settings) as endpoints:
        say("5/5 asking both the held-out questions through the compare flow")
        options = Options(load_gate(), settings.batch_workers, packs=packaged_packs())
        report = compare_run(folder, options, runner=PROMPT_FLOW)
        asked = [{"role": "user", "content": QUESTION}]
        answers = {name: endpoint.complete(asked) for name, endpoint in endpoints.items()}
    return Demo(folder, report, answers)
