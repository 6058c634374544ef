"""Base and tuned of one run folder, served on this machine and compared on its held-out test file."""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from custom_connections.promptflow_home import enter_home, new_encryption_key
from evaluation.asking.direct_batch import PROMPT_FLOW
from evaluation.compare import Options, compare
from evaluation.report.comparison import Report
from phi3flow.app.run_folder import require_lineage, require_model
from phi3flow.app.services import openai_url, scoring_endpoint
from phi3flow.core.errors import BadInput
from phi3flow.core.lineage import Artifact
from phi3flow.core.processes import Stack
from phi3flow.core.settings import Settings
from phi3flow.core.sides import BASE, SIDES, TUNED
from phi3flow.phi3_contract import Endpoint

PORT_SETTINGS = {side.connection: side.endpoint_port for side in SIDES}


def test_file(run: Path) -> Path:
    return run / "data" / "test.jsonl"


def require_run(run: Path) -> None:
    """Raise BadInput for a folder that lacks what a comparison needs, with the command that makes it."""
    if not test_file(run).is_file():
        raise BadInput(
            f"{test_file(run)}: no such file", hint=f"phi3flow prepare CHATS.jsonl --out {run}/data"
        )
    for side in SIDES:
        require_model(run, side.name)
    require_lineage(run)


@contextmanager
def served(run: Path, settings: Settings) -> Iterator[dict[str, Endpoint]]:
    """Both models of a run behind endpoints, by their connections' names; raises what serving raises."""
    with local_endpoints({side.connection: run / side.name for side in SIDES}, run, settings) as endpoints:
        yield endpoints


@contextmanager
def local_endpoints(
    models: Mapping[str, Path], folder: Path, settings: Settings
) -> Iterator[dict[str, Endpoint]]:
    """Serve each model folder and store a connection of its name (`phi3-base`, `phi3-tuned`) for it.

    The endpoint key and the store's encryption key live in memory alone; logs and the store go to `folder`.
    Raises BadInput for a taken port and Phi3flowError for a server that does not start.
    """
    from custom_connections.store import store_connection

    key = secrets.token_urlsafe()
    home = folder / "promptflow-home"
    enter_home(settings.model_copy(update={"promptflow_home": home, "encryption_key": new_encryption_key()}))
    ports = {name: getattr(settings, PORT_SETTINGS[name]) for name in models}
    services = [
        scoring_endpoint(model, ports[name], PORT_SETTINGS[name], key, folder / "logs" / f"{name}.log")
        for name, model in models.items()
    ]
    with Stack(*services):
        endpoints = {name: Endpoint(openai_url(port), key, "openai") for name, port in ports.items()}
        for name, endpoint in endpoints.items():
            store_connection(name, endpoint)
        yield endpoints


def compare_run(run: Path, options: Options, *, packs: bool = True, runner: str = PROMPT_FLOW) -> Report:
    """Compare what `served` serves; the report goes into the run's folder."""
    return compare(
        test_file(run),
        BASE.connection,
        TUNED.connection,
        run,
        options,
        models={side.name: Artifact.of("model", run / side.name) for side in SIDES},
        loss_curve=run / TUNED.name / "loss.png",
        packs=packs,
        runner=runner,
    )
