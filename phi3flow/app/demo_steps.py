"""What both demos are made of: generated rows, the comparison."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi3flow.app.run_folder import compare_run
from phi3flow.app.services import served
from phi3flow.core.console import say
from phi3flow.core.errors import BadInput
from phi3flow.core.jsonl import read_jsonl, write_jsonl
from phi3flow.core.settings import Settings
from phi3flow.phi3_contract import Endpoint

if TYPE_CHECKING:
    from evaluation.report.comparison import Report
    from evaluation.verdict.gate import Gate


def write_rows(files: Mapping[Path, list[dict[str, Any]]]) -> None:
    """Write generated rows once. Raises BadInput where a file holds others."""
    for path, rows in files.items():
        if path.exists() and read_jsonl(path) != rows:
            raise BadInput(f"{path} holds other chats", hint=f"remove {path.parent} or choose another --out")
        if not path.exists():
            write_jsonl(path, rows)


def serve_and_compare(
    folder: Path,
    models: Mapping[str, Path],
    gate: "Gate",
    settings: Settings,
    *,
    questions: Sequence[str],
    steps: tuple[str, str],
) -> "tuple[Report, dict[str, dict[str, str]]]":
    """Ask both models, by side, the held-out questions and a few more; the report goes to `folder`.

    Returns the report, and the answers to `questions` by the connections' names. `steps` number the two lines
    of progress.
    """
    from evaluation.asking.batch import PROMPT_FLOW
    from evaluation.compare import Options
    from evaluation.packs.pack_file import packaged_packs

    options = Options(gate, settings.batch_workers, packs=packaged_packs())
    say(f"{steps[0]} serving base and tuned on loopback")
    with served(models, folder, settings) as endpoints:
        say(f"{steps[1]} asking both the held-out questions through the compare flow")
        report = compare_run(folder, options, runner=PROMPT_FLOW, served=models)
        return report, asked(endpoints, questions)


def asked(endpoints: Mapping[str, Endpoint], questions: Sequence[str]) -> dict[str, dict[str, str]]:
    """Every endpoint's answer to each question."""
    return {
        question: {
            name: endpoint.complete([{"role": "user", "content": question}])
            for name, endpoint in endpoints.items()
        }
        for question in questions
    }
