"""`phi3flow verify`: the gate between a deployment and its traffic."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from phi3flow.app.commands.connect import Contract, Deployment, checked_arguments, completed, contract_of
from phi3flow.core.console import Outcome
from phi3flow.core.errors import BadInput
from phi3flow.core.files import write_json
from phi3flow.core.settings import Settings
from phi3flow.phi3_contract import Endpoint, Unauthorized

if TYPE_CHECKING:
    from deploy.verify.fidelity import Reference, Verification

FILE = "verify.json"
Check = Annotated[
    Path | None,
    Option(
        metavar="FILE",
        help="A test.jsonl for quantised weights: count its exact answers (default: the recorded answers).",
    ),
]
AtLeast = Annotated[
    float | None,
    Option(metavar="X", help="Share of exact answers to --check that passes, from 0 to 1 (default: none)."),
]


def verify(
    model: Annotated[Path, Argument(metavar="MODEL", help="The folder that train wrote.")],
    *,
    endpoint: Annotated[
        str | None,
        Option(
            metavar="URL",
            help="Full scoring URL (default: serve MODEL here, an export through its own runtime).",
        ),
    ] = None,
    contract: Contract = None,
    deployment: Deployment = None,
    check: Check = None,
    at_least: AtLeast = None,
    out: Annotated[
        Path | None, Option(metavar="DIR", help=f"Folder of {FILE} (default: the folder that holds MODEL).")
    ] = None,
) -> Outcome:
    """Check that an endpoint serves the model that was trained, as it was trained.

    example: phi3flow verify runs/demo/tuned --endpoint http://127.0.0.1:5001/v1/chat/completions

    The key comes from PHI3FLOW_ENDPOINT_KEY. Exit code 0: all checks pass; 4: some cannot be made.
    """
    reference = reference_of(check, at_least)
    if endpoint is None:
        found = _verified_here(model, reference)
    else:
        found = _verified_at(model, endpoint, contract, deployment, reference)
    path = (out or model.resolve().parent) / FILE
    write_json(path, found.as_dict())
    text = "\n".join([*map(str, found.checks), f"{found.result}: {path}"])
    return Outcome(found.as_dict() | {"path": str(path)}, text, found.exit_code)


def _verified_here(model: Path, reference: "Reference | None") -> "Verification":
    from deploy.export.formats import served_here
    from deploy.verify.fidelity import verify
    from deploy.verify.probes import load_probes

    load_probes(model)  # before anything is loaded
    with served_here(model) as endpoint:
        return verify(model, endpoint, reference, workers=1)


def _verified_at(
    model: Path, url: str, contract: str | None, deployment: str | None, reference: "Reference | None"
) -> "Verification":
    from deploy.verify.fidelity import verify

    settings = Settings.load()
    with checked_arguments():
        url = completed(url)
        asked = Endpoint(url, settings.endpoint_key, contract or contract_of(url), deployment=deployment)
    try:
        return verify(model, asked, reference, settings.batch_workers)
    except Unauthorized as error:
        what = str(error) if asked.key else "the endpoint asks for a key, and no key is set"
        raise Unauthorized(what, "export PHI3FLOW_ENDPOINT_KEY=... with the endpoint's key") from None


def reference_of(check: Path | None, at_least: float | None) -> "Reference | None":
    """What quantised weights are judged by. Raises BadInput unless both options are given, or neither."""
    from deploy.verify.fidelity import Reference

    if check is None and at_least is None:
        return None
    if check is None or at_least is None:
        raise BadInput("--check and --at-least belong together", hint="--check test.jsonl --at-least 0.95")
    if not 0 <= at_least <= 1:
        raise BadInput(
            "--at-least: must be a share from 0 to 1",
            hint="a point below tuned.exact_match in report.json, such as 0.95",
        )
    return Reference(check, at_least)
