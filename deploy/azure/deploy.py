"""`phi3flow azure deploy`: a registered model behind its endpoint, at 0 % of the traffic, and verified."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from deploy.azure.rollout import mark_verified
from deploy.azure.shared.assets import (
    PACKAGES,
    Asset,
    model_asset,
    staged,
    training_environment,
    version_of,
)
from deploy.azure.shared.job import Job, command_job, output_path, run_job
from deploy.azure.shared.names import OURS
from deploy.azure.shared.plan import Action, Step, carry_out, made
from deploy.azure.shared.problems import explaining
from deploy.azure.shared.quota import quotas_for, require_quota
from deploy.azure.shared.serving import (
    VERIFIED,
    OnlineDeployment,
    OnlineEndpoint,
    ask_at,
    find_endpoint,
    settings_in,
    show_log,
    showing_log,
)
from deploy.azure.shared.session import Cloud
from deploy.azure.train import CARD, record, recorded
from phi3flow.core.console import say
from phi3flow.core.errors import BadInput, Phi3flowError
from phi3flow.core.files import write_json
from phi3flow.core.jsonl import read_jsonl, write_jsonl
from phi3flow.core.lineage import read_manifest, sha256_of
from phi3flow.core.sides import BASE, TUNED, Side
from phi3flow.phi3_contract import Endpoint

if TYPE_CHECKING:
    from deploy.verify.fidelity import Reference, Verification

PROBES = "probes.jsonl"
QUESTION = "Who founded Microsoft?"
FIND_MODEL = "MODEL=$(dirname $(find ${{inputs.model}} -name config.json | sort | head -n 1))"
LEAVE_MODEL = "cp -r exported/. ${{outputs.model}}"


@dataclass(frozen=True)
class Serving:
    """What to deploy. With a `reference` the CPU engine serves int4, judged by exact match: texts differ."""

    base: bool
    engine: str
    size: str
    auth: str
    days: int | None
    reference: "Reference | None"
    workers: int
    variables: Mapping[str, str] = field(default_factory=dict)
    file: Path | None = None

    @property
    def side(self) -> Side:
        """Models and endpoints are called like the side's connection."""
        return BASE if self.base else TUNED

    def require(self) -> None:
        """Raises BadInput for values that could only fail, or be ignored, after hours in Azure."""
        if self.days is not None and self.days < 1:
            raise BadInput("--days: must be at least 1", "--days 3")
        if self.file is not None:
            settings_in(self.file)
        if self.reference is None:
            return
        if self.engine != "openvino":
            raise BadInput("only the CPU engine serves int4 weights", "add --engine openvino")
        if not self.reference.data.is_file():
            raise BadInput(f"{self.reference.data}: no such file", "give the test.jsonl of phi3flow prepare")


class Deployed(NamedTuple):
    """Where a registered model is served now."""

    endpoint: str
    deployment: str
    model: str
    url: str


def deploy(
    cloud: Cloud, asked: Serving, out: Path, *, plan: bool, code: Mapping[str, Path] = PACKAGES
) -> tuple[list[Action], Deployed | None]:
    """Register, deploy beside what is live, verify, and record; the live deployment is never touched.

    Raises BadInput for unusable values and where `out` holds no training job, Phi3flowError when Azure or the
    check fails.
    """
    asked.require()
    trained = recorded(out, "train")
    with staged(code) as folder:
        model = _base(cloud, trained) if asked.base else _tuned(cloud, out, trained)
        needs: list[Step] = []
        job: Job | None = None
        if asked.engine == "openvino":
            needs, job, model = _export(cloud, asked, model, str(trained["compute"]), folder)
        endpoint = OnlineEndpoint(cloud, cloud.names.endpoint(asked.side.connection), asked.auth, asked.days)
        deployment = _deployment(cloud, asked, endpoint.name, model, folder)
        _require_cores(cloud, deployment)
        actions = run_job(needs, job, plan=plan) if job else []
        actions += carry_out([model, endpoint, deployment], plan=plan)
    if plan:
        return actions, None
    with explaining(f"deployment {deployment.name}", made(actions)):
        url = _verified(cloud, asked, out, endpoint.name, deployment.name)
    found = Deployed(endpoint.name, deployment.name, model.name, url)
    record(out, "deploy-base" if asked.base else "deploy", found._asdict())
    return actions, found


def _deployment(cloud: Cloud, asked: Serving, endpoint: str, model: Asset, code: Path) -> OnlineDeployment:
    """Named after everything that decides its answers."""
    variables = str(dict(asked.variables))
    settings = [asked.file.read_text(encoding="utf-8")] if asked.file else []
    identity = version_of(model.name, asked.engine, asked.size, sha256_of(code), variables, *settings)
    name = f"{asked.engine}-{identity[:8]}"
    tags = {**model.tags, OURS: "deploy", "engine": asked.engine, "model": model.name}
    return OnlineDeployment(
        cloud, endpoint, name, asked.engine, model.name, asked.size, code, tags, asked.variables, asked.file
    )


def _tuned(cloud: Cloud, out: Path, trained: Mapping[str, Any]) -> Asset:
    """The training job's model, with its lineage as tags."""
    result = (read_manifest(out / CARD) or {}).get("result", {})
    metrics = {name: f"{value:.4f}" for name, value in result.items() if isinstance(value, float)}
    tags = {**trained["tags"], **metrics, "job": trained["job"]}
    name, version = TUNED.connection, str(trained["identity"])
    path = output_path(trained["job"], "model")
    return model_asset(cloud, name, version, path, kind="mlflow_model", tags=tags)


def _base(cloud: Cloud, trained: Mapping[str, Any]) -> Asset:
    """The model that training started from, as it was uploaded then."""
    if "base" not in trained:
        raise BadInput(
            "training started from a model of the hub, which is not in the workspace",
            "hf download ID --revision REV --local-dir DIR, then azure train --model DIR",
        )
    name, version = str(trained["base"]).split(":")
    return model_asset(cloud, name, version, "", kind="custom_model", tags=dict(trained["tags"]))


def _require_cores(cloud: Cloud, deployment: OnlineDeployment) -> None:
    """Raises Phi3flowError before a job is paid for whose model no machine could serve."""
    if deployment.look().do == "create":
        quotas = quotas_for(cloud, deployment.size, deployment.machines, deployments=1)
        fewer = "phi3flow azure teardown --old, or another --size"
        require_quota(quotas, cloud.names.region, fewer)


def _export(
    cloud: Cloud, asked: Serving, model: Asset, compute: str, code: Path
) -> tuple[list[Step], Job, Asset]:
    """`phi3flow export` of a registered model, for the CPU engine: needs, job, and the model it leaves."""
    environment = training_environment(cloud, compute, "train")
    tags = {OURS: "deploy", "from": model.name}
    weights = " --int4" if asked.reference else ""
    export = f"python -P -m phi3flow export $MODEL --format openvino{weights} --out exported"
    job = command_job(
        cloud,
        "phi3flow-export",
        [model.name, environment.version],
        title=f"export of {model.name}",
        line=f"{FIND_MODEL} && {export} && {LEAVE_MODEL}",
        code=code,
        environment=environment,
        compute=compute,
        inputs={"model": model.as_input},
        outputs={"model": "custom_model"},
        tags=tags,
    )
    path = output_path(job.name, "model")
    name, kind = f"{model.asset}-openvino", "custom_model"
    exported = model_asset(cloud, name, job.identity, path, kind=kind, tags={**model.tags, **tags})
    return [environment, model], job, exported


def _verified(cloud: Cloud, asked: Serving, out: Path, endpoint: str, name: str) -> str:
    """Verify what has not passed before, and mark it: a base goes live, a tuned model waits for `promote`.

    Returns the scoring URL.
    """
    found = find_endpoint(cloud, endpoint)
    if found is None or found.tags.get(VERIFIED) != name:
        _require_fidelity(cloud, asked, endpoint, name, out)
        found = mark_verified(cloud, endpoint, name, live=asked.base)
    return str(found.scoring_uri)


def _require_fidelity(cloud: Cloud, asked: Serving, endpoint: str, deployment: str, out: Path) -> None:
    """Ask the deployment through the pinning header; `out` gets the findings.

    Raises Phi3flowError, after showing the container's log, unless it passes. The base is asked for its own
    recorded answers. Checks that cannot be made of it do not hold it back: it never takes users' traffic.
    """
    pinned = ask_at(cloud, endpoint, deployment)
    with showing_log(cloud, endpoint, deployment):
        pinned.complete([{"role": "user", "content": QUESTION}])
        found = _checks(out / CARD, pinned, asked)
    findings = out / f"verify-{asked.side.name}.json"
    write_json(findings, found.as_dict())
    for check in found.checks:
        say(f"  {check}")
    if found.result == "fail" or (found.result != "pass" and not asked.base):
        wrong = [check.name for check in found.checks if check.result != "pass"]
        show_log(cloud, endpoint, deployment)
        raise Phi3flowError(
            f"verify: {', '.join(wrong)} of deployment {deployment} did not pass; it gets no traffic, "
            "and the live deployment is unchanged",
            f"{findings} has the answers; phi3flow azure teardown --old removes the deployment",
        )


def _checks(card: Path, pinned: Endpoint, asked: Serving) -> "Verification":
    from deploy.verify.fidelity import verify

    if not asked.base:
        return verify(card, pinned, asked.reference, asked.workers)
    rows = [row for row in read_jsonl(card / PROBES) if row.get("base_text")]
    with tempfile.TemporaryDirectory(prefix="phi3flow-") as folder:
        copy = Path(folder)
        (copy / "tokenizer.json").write_bytes((card / "tokenizer.json").read_bytes())
        write_jsonl(copy / PROBES, map(_of_base, rows))
        return verify(copy, pinned, None, asked.workers)


def _of_base(row: dict[str, Any]) -> dict[str, Any]:
    """The base's recorded answer in the place of the tuned model's."""
    finish = row.get("base_finish_reason")
    return row | {"tuned_text": row["base_text"], "tuned_finish_reason": finish, "base_text": None}
