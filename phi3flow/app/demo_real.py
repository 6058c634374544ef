"""The loop with a real small model on a company's domain: `phi3flow demo --real`.

Both models speak English here, so the comparison says what fine-tuning did for the company's questions, and
what it cost elsewhere.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from phi3flow.app.demo_steps import serve_and_compare, write_rows
from phi3flow.app.run_verb import run_verb
from phi3flow.app.served_form import served_forms
from phi3flow.app.services import ENDPOINT_MODULES, require_modules
from phi3flow.core.console import say
from phi3flow.core.files import write_text
from phi3flow.core.settings import Settings

if TYPE_CHECKING:
    from evaluation.report.comparison import Report

RECIPE = "small-cpu"
QUESTIONS = (
    "What does the Kestrel tent cost?",
    "How do I send something back?",
    "What is the capital of France?",
)
GATE = """# Answers are sentences, which many wordings make right: the words shared with the reference count.
[gate]
primary = "token_f1"
margin = 0.05
"""


def run_real_demo(folder: Path, settings: Settings, seed: int) -> "tuple[Report, dict[str, dict[str, str]]]":
    """Generate, prepare, fetch the base, fine-tune, export both, serve both, compare through Prompt flow.

    Returns the report, and the answers to a few questions by the connections' names. Raises Phi3flowError for
    anything a user can repair.
    """
    from evaluation.verdict.gate import load_gate

    require_modules("trl", "gguf", "optimum", "nncf", *ENDPOINT_MODULES)
    say(f"1/6 chats of a help desk -> {folder}")
    _write_desk(folder, seed)
    data, base, tuned = folder / "data", folder / "base", folder / "tuned"
    chats, test = folder / "chats.jsonl", folder / "test.jsonl"
    run_verb("prepare", chats, "--out", data, "--test", test, "--near-duplicates", "report")
    say("2/6 base: a real small chat model, which never heard of this company")
    if not base.exists():
        run_verb("base", "--pretrained", "--out", base)
    say("3/6 fine-tuning it on the chats")
    run_verb("train", "--data", data, "--recipe", RECIPE, "--model", base, "--out", tuned, "--seed", seed)
    say("4/6 converting both to 8 bits, for serving")
    gate = load_gate(folder / "gate.toml")
    forms = served_forms(folder)
    return serve_and_compare(folder, forms, gate, settings, questions=QUESTIONS, steps=("5/6", "6/6"))


def _write_desk(folder: Path, seed: int) -> None:
    from training.desk.desk import build

    desk = build(seed)
    samples = [{"question": question} for question in QUESTIONS]
    write_rows(
        {
            folder / "chats.jsonl": desk.chats,
            folder / "test.jsonl": desk.test,
            folder / "samples.jsonl": samples,
        }
    )
    write_text(folder / "gate.toml", GATE)
