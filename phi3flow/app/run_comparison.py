"""Base and tuned of one run folder, served on this machine and compared on its sealed test file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evaluation.asking.direct_batch import PROMPT_FLOW
from evaluation.compare import Options, compare
from evaluation.report.comparison import Report
from phi3flow.app.local_endpoints import local_endpoints
from phi3flow.app.run_folder import require_lineage, require_model
from phi3flow.core.errors import BadInput
from phi3flow.core.lineage import Artifact
from phi3flow.core.settings import Settings
from phi3flow.phi3_contract import Endpoint

BASE, TUNED = "phi3-base", "phi3-tuned"
CONNECTIONS = {BASE: "base", TUNED: "tuned"}  # and the folders of a run behind them


def test_file(run: Path) -> Path:
    return run / "data" / "test.jsonl"


def require_run(run: Path) -> None:
    """Raises BadInput for a folder that lacks what a comparison needs, with the command that makes it."""
    if not test_file(run).is_file():
        raise BadInput(
            f"{test_file(run)}: no such file", hint=f"phi3flow prepare CHATS.jsonl --out {run}/data"
        )
    for name in CONNECTIONS.values():
        require_model(run, name)
    require_lineage(run)


@contextmanager
def served(run: Path, settings: Settings) -> Iterator[dict[str, Endpoint]]:
    """Both models behind endpoints, both connections in a throw-away store; raises what serving raises."""
    models = {name: run / folder for name, folder in CONNECTIONS.items()}
    with local_endpoints(models, run, settings) as endpoints:
        yield endpoints


def compare_run(run: Path, options: Options, *, packs: bool = True, runner: str = PROMPT_FLOW) -> Report:
    """Compare what `served` serves; the report goes into the run's folder."""
    return compare(
        test_file(run),
        BASE,
        TUNED,
        run,
        options,
        models={side: Artifact.of("model", run / side) for side in CONNECTIONS.values()},
        loss_curve=run / "tuned" / "loss.png",
        packs=packs,
        runner=runner,
    )
