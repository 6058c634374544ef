"""`phi3flow azure deploy`: a registered model behind its endpoint, at 0 % of the traffic, and verified."""

import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.azure.export import Export
from deploy.azure.fidelity import require_fidelity
from deploy.azure.rollout import mark_verified
from deploy.azure.steps.assets import GPU_IMAGE, IMAGE, ModelAsset, TrainingEnvironment, version_of
from deploy.azure.steps.job import follow
from deploy.azure.steps.names import OURS
from deploy.azure.steps.plan import Action, carry_out, made
from deploy.azure.steps.problems import explaining
from deploy.azure.steps.record import record, recorded
from deploy.azure.steps.serving import OnlineDeployment, OnlineEndpoint, find_endpoint
from deploy.azure.steps.session import Cloud
from deploy.azure.train import BASE, CARD, TUNED
from deploy.azure.wheel import build_wheel
from phi3flow.core.errors import BadInput
from phi3flow.core.lineage import read_manifest, sha256_of

if TYPE_CHECKING:
    from deploy.verify.exact_match import Reference


@dataclass(frozen=True)
class Serving:
    """What is asked for. `reference` judges an int4 model, whose answers are not word for word the same."""

    base: bool
    engine: str
    size: str
    auth: str
    days: int | None
    reference: "Reference | None"
    workers: int
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Deployed:
    """Where the model is served now."""

    endpoint: str
    deployment: str
    url: str


def deploy(
    cloud: Cloud,
    asked: Serving,
    out: Path,
    *,
    plan: bool,
    ask_to_cancel: Callable[[], bool],
    wheel: Callable[[Path], Path] = build_wheel,
) -> tuple[list[Action], Deployed | None]:
    """Register, deploy beside what is live, verify, and record; the live deployment is never touched.

    Raises BadInput where `out` holds no training job, Phi3flowError when Azure or the check fails.
    """
    trained = recorded(out, "train")
    with _staged(wheel) as (code, packed):
        source = _base(cloud, trained) if asked.base else _tuned(cloud, out, trained)
        model = source
        actions: list[Action] = []
        if asked.engine == "openvino":
            int4 = asked.reference is not None
            export = _export(cloud, source, str(trained["compute"]), packed, int4=int4)
            model, actions = _exported(export, plan=plan, ask_to_cancel=ask_to_cancel)
        endpoint = OnlineEndpoint(
            cloud, cloud.names.endpoint(BASE if asked.base else TUNED), asked.auth, asked.days
        )
        identity = version_of(
            model.name, asked.engine, asked.size, sha256_of(code), str(dict(asked.variables))
        )
        name = f"{asked.engine}-{identity[:8]}"
        tags = {**model.tags, OURS: "deploy", "engine": asked.engine, "model": model.name}
        deployment = OnlineDeployment(
            cloud, endpoint.name, name, asked.engine, model.name, asked.size, code, tags, asked.variables
        )
        actions += carry_out([model, endpoint, deployment], plan=plan)
    if plan:
        return actions, None
    with explaining(f"deployment {name}", made(actions)):
        found = _verified(cloud, asked, out, endpoint.name, name)
    details = {"endpoint": endpoint.name, "deployment": name, "model": model.name, "url": found.url}
    record(out, "deploy-base" if asked.base else "deploy", details)
    return actions, found


def _verified(cloud: Cloud, asked: Serving, out: Path, endpoint: str, name: str) -> Deployed:
    """Verify what has not passed before, and mark it: a base goes live, a tuned model waits for `promote`."""
    found = find_endpoint(cloud, endpoint)
    if found is None or found.tags.get("verified") != name:
        require_fidelity(
            cloud,
            endpoint,
            name,
            out / CARD,
            base=asked.base,
            reference=asked.reference,
            workers=asked.workers,
            out=out / f"verify-{'base' if asked.base else 'tuned'}.json",
        )
        found = mark_verified(cloud, endpoint, name, live=asked.base)
    return Deployed(endpoint, name, str(found.scoring_uri))


@contextmanager
def _staged(wheel: Callable[[Path], Path]) -> Iterator[tuple[Path, Path]]:
    """The packages unpacked for a scoring server, and packed for a job."""
    with tempfile.TemporaryDirectory(prefix="phi3flow-") as folder:
        code, packed = Path(folder) / "code", Path(folder) / "packed"
        packed.mkdir()
        with zipfile.ZipFile(wheel(packed)) as archive:
            archive.extractall(code)
        yield code, packed


def _export(cloud: Cloud, source: ModelAsset, compute: str, packed: Path, *, int4: bool) -> Export:
    conda = Path(str(files("deploy.azure.container") / "environment-train.yaml"))
    image = GPU_IMAGE if compute.startswith("gpu") else IMAGE
    environment = TrainingEnvironment(cloud, image, conda, {OURS: "train"})
    return Export(cloud, source, environment, compute, packed, int4)


def _exported(
    export: Export, *, plan: bool, ask_to_cancel: Callable[[], bool]
) -> tuple[ModelAsset, list[Action]]:
    """The model in the CPU engine's format: a job makes it, so nothing can be registered before its end."""
    job = export.job()
    actions = carry_out([export.environment, export.model, job], plan=plan)
    if not plan:
        with explaining(f"job {job.name}", made(actions)):
            follow(export.cloud, job.name, ask_to_cancel)
    return export.exported(job), actions


def _tuned(cloud: Cloud, out: Path, trained: Mapping[str, Any]) -> ModelAsset:
    """The training job's model, with its lineage as tags."""
    result = (read_manifest(out / CARD) or {}).get("result", {})
    metrics = {name: f"{value:.4f}" for name, value in result.items() if isinstance(value, float)}
    tags = {**trained["tags"], **metrics, "job": trained["job"]}
    path = f"azureml://jobs/{trained['job']}/outputs/model/paths/"
    return ModelAsset(cloud, TUNED, str(trained["identity"]), path, "mlflow_model", tags)


def _base(cloud: Cloud, trained: Mapping[str, Any]) -> ModelAsset:
    """The model that training started from, as it was uploaded then."""
    if "base" not in trained:
        raise BadInput(
            "training started from a model of the hub, which is not in the workspace",
            "hf download ID --revision REV --local-dir DIR, then azure train --model DIR",
        )
    name, version = str(trained["base"]).split(":")
    return ModelAsset(cloud, name, version, "", "custom_model", dict(trained["tags"]))
