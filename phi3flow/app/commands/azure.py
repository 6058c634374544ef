"""Train, deploy and roll out in Azure Machine Learning.

example: phi3flow azure provision --plan

Every step is a plan that can be run again: --plan prints what would change and what it costs, and writes
nothing. Where: PHI3FLOW_AZURE_SUBSCRIPTION, _RESOURCE_GROUP, _WORKSPACE and _REGION.
"""

import io
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Option

from deploy.azure.shared.plan import as_data, carry_out
from deploy.azure.shared.problems import explaining
from deploy.azure.shared.quota import quotas_for, require_quota
from deploy.azure.shared.session import Cloud
from deploy.azure.shared.session import connect as connect_to_azure
from deploy.azure.shared.sizes import profile_for, serving_size
from phi3flow.app.commands.train import Data, Model, Recipe, Seed
from phi3flow.app.commands.verify import AtLeast, Check, reference_of
from phi3flow.core.console import Outcome, say
from phi3flow.core.errors import BadInput
from phi3flow.core.settings import Settings
from phi3flow.core.sides import BASE, TUNED

Plan = Annotated[bool, Option("--plan", help="Print what would be done and its cost; write nothing.")]
Out = Annotated[
    Path | None,
    Option(metavar="DIR", help="Folder of the run's manifest and findings (default: {runs}/azure)."),
]
ProfileName = Annotated[
    Literal["gpu", "cpu"], Option(help="Cluster to train on: one A100 a machine, or 16 CPU cores a machine.")
]
Size = Annotated[
    str | None,
    Option(metavar="SIZE", help="Another machine size, such as Standard_E16s_v3 (default: the profile's)."),
]
ENGINES = {"gpu": "vllm", "cpu": "openvino"}  # what usually serves what a profile trains
Nodes = Annotated[int, Option(metavar="N", help="Most machines at once.")]


def provision(
    *, profile: ProfileName = "gpu", size: Size = None, nodes: Nodes = 1, plan: Plan = False
) -> Outcome:
    """Create the workspace, what it needs, an identity and a cluster.

    example: phi3flow azure provision --plan
    """
    from deploy.azure.provision import provision_steps

    asked = profile_for(profile, size, nodes, Settings.load().azure_compute)
    cloud = _cloud()
    with explaining("before any write", []):
        if cloud.read(cloud.names.compute_id(asked.compute)) is None:
            quotas = quotas_for(cloud, asked.size, nodes)
            require_quota(quotas, cloud.names.region, "--profile cpu, or fewer --nodes")
        _say_serving(cloud, ENGINES[profile])
        steps = provision_steps(cloud, asked, nodes)
    return planned(carry_out(steps, plan=plan), plan, "phi3flow azure train --data DIR --recipe NAME")


def train(
    *,
    data: Data,
    recipe: Recipe,
    model: Model = None,
    seed: Seed = 0,
    profile: ProfileName = "gpu",
    size: Size = None,
    nodes: Nodes = 1,
    out: Out = None,
    no_wait: Annotated[bool, Option("--no-wait", help="Submit the job; `azure wait` goes on.")] = False,
    plan: Plan = False,
) -> Outcome:
    """Run `phi3flow train` as a job, and fetch what verify needs.

    example: phi3flow azure train --data runs/mine/data --recipe phi3.5-mini-lora
    """
    from deploy.azure.train import Training, check_here, require_splits
    from deploy.azure.train import train as train_in_azure
    from training.recipes.recipe import load_recipe

    if load_recipe(recipe).learns_preferences:
        raise BadInput(
            f"--recipe {recipe}: the job learns from chats, not from preferences",
            hint=f"phi3flow train --data FILE --recipe {shlex.quote(recipe)} --model DIR --out DIR",
        )
    cluster = profile_for(profile, size, nodes, Settings.load().azure_compute)
    asked = Training(data, recipe, model, seed, nodes, cluster)
    require_splits(data)
    check_here(asked)
    folder = run_folder(out)
    actions, job = train_in_azure(_cloud(), asked, folder, plan=plan, wait=not no_wait)
    following = "wait" if no_wait else "deploy"
    return planned(actions, plan, f"phi3flow azure {following} --out {folder}", job=job)


def wait(
    *,
    out: Out = None,
    minutes: Annotated[
        float | None, Option(metavar="N", help="Stop after so long; the job goes on (default: never).")
    ] = None,
) -> Outcome:
    """Watch the job that `azure train --no-wait` submitted, and fetch what verify needs.

    example: phi3flow azure wait --minutes 50

    After --minutes the exit code is 0, too; the same command watches on, with a login of its own.
    """
    from deploy.azure.train import wait_for

    folder = run_folder(out)
    completed = wait_for(_cloud(), folder, float("inf") if minutes is None else 60 * minutes)
    following = f"phi3flow azure {'deploy' if completed else 'wait'} --out {folder}"
    return Outcome(
        {"completed": completed}, f"{'completed' if completed else 'still running'}\nnext: {following}"
    )


def deploy(
    *,
    base: Annotated[
        bool, Option("--base", help="Serve the base model, on an endpoint of its own, to compare with.")
    ] = False,
    engine: Annotated[
        Literal["openvino", "vllm"], Option(help="openvino: on a CPU; vllm: on a GPU.")
    ] = "vllm",
    size: Annotated[
        str | None, Option(metavar="SIZE", help="Another machine size (default: the engine's).")
    ] = None,
    auth: Annotated[
        Literal["key", "entra"], Option(help="How callers log in: a key, or an Entra token.")
    ] = "key",
    days: Annotated[
        int | None, Option(metavar="N", help="Days until the endpoint expires (default: 3).")
    ] = None,
    int4: Annotated[
        bool,
        Option("--int4", help="Serve weights of 4 bits; --check and --at-least say what they must know."),
    ] = False,
    check: Check = None,
    at_least: AtLeast = None,
    file: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="Your copy of the engine's deployment file, with other variables, concurrency, queue time, "
            "probes, instances or environment (default: the engine's own).",
        ),
    ] = None,
    out: Out = None,
    plan: Plan = False,
) -> Outcome:
    """Serve the trained model at 0 % of the traffic, and verify it there.

    example: phi3flow azure deploy --engine openvino --days 7

    example: phi3flow azure deploy --engine openvino --int4 --check runs/mine/data/test.jsonl --at-least 0.97
    """
    from deploy.azure.deploy import Serving
    from deploy.azure.deploy import deploy as deploy_to_azure
    from deploy.azure.shared.serving import settings_in

    reference = reference_of(check, at_least)
    if int4 != (reference is not None):
        raise BadInput(
            "--int4, --check and --at-least belong together", "--int4 --check test.jsonl --at-least 0.97"
        )
    workers = Settings.load().batch_workers
    machine = serving_size(engine, size or (settings_in(file).instance_type if file else None))
    asked = Serving(base, engine, machine, auth, days, reference, workers, file=file)
    actions, found = deploy_to_azure(_cloud(), asked, run_folder(out), plan=plan)
    say(f"phi3flow azure deploy{' --base' if base else ''} --engine {engine} --days N extends it")
    pinned = "" if base or found is None else f" --deployment {found.deployment}"
    following = f"phi3flow connect {(BASE if base else TUNED).connection} --azure{pinned}"
    return planned(actions, plan, following, deployed=found and found._asdict())


def promote(
    *,
    traffic: Annotated[
        Literal["10", "100"] | None, Option(help="Per cent of the traffic (default: 100).")
    ] = None,
    mirror: Annotated[
        bool, Option("--mirror", help="Send it a copy of 10 % of the traffic, whose answers nobody sees.")
    ] = False,
    report: Annotated[
        Path | None,
        Option(metavar="FILE", help="Report of the comparison (default: OUT/comparison/report.json)."),
    ] = None,
    out: Out = None,
    plan: Plan = False,
) -> Outcome:
    """Give the verified deployment traffic, if the comparison says promote.

    example: phi3flow azure promote --traffic 10

    Exit code 3: the comparison says hold; 4: it has not enough data.
    """
    from deploy.azure.rollout import promotion, require_promotion

    if mirror and traffic:
        raise BadInput("--mirror and --traffic exclude each other", "phi3flow azure promote --mirror")
    folder = run_folder(out)
    require_promotion(report or folder / "comparison" / "report.json", folder / "verify-tuned.json")
    share = "mirror" if mirror else traffic or "100"
    return _shift(folder, plan, lambda cloud, name: promotion(cloud, name, share))


def rollback(*, out: Out = None, plan: Plan = False) -> Outcome:
    """Give the traffic back to what was live before.

    example: phi3flow azure rollback
    """
    from deploy.azure.rollout import reversal

    return _shift(run_folder(out), plan, reversal)


def status() -> Outcome:
    """List what exists, what it serves, what it costs and when it expires.

    example: phi3flow azure status
    """
    from deploy.azure.status import status

    found = status(_cloud())
    return Outcome(found.as_dict(), str(found))


def teardown(
    *,
    expired: Annotated[bool, Option("--expired", help="Only endpoints whose last day has passed.")] = False,
    old: Annotated[bool, Option("--old", help="Only deployments without traffic.")] = False,
    plan: Plan = False,
) -> Outcome:
    """Delete what phi3flow made, and list what is left.

    example: phi3flow azure teardown --plan
    """
    from deploy.azure.teardown import teardown

    if expired and old:
        raise BadInput("--expired and --old exclude each other", "phi3flow azure teardown --expired")
    what: Any = "expired" if expired else "old" if old else "everything"
    return removed(teardown(_cloud(), what, plan=plan), plan)


def _say_serving(cloud: Cloud, engine: str) -> None:
    """What the tuned model and the base beside it will need; `deploy` checks it again, and refuses."""
    for quota in quotas_for(cloud, serving_size(engine), 1, deployments=2):
        short = f"; {quota.missing} missing: ask now, it can take days" if quota.missing else ""
        say(f"to serve tuned and base with {engine}: {quota}{short}")


@contextmanager
def in_the_cloud(step: str) -> Iterator[None]:
    """The SDKs print what they do, but stdout is for data alone; what they raise becomes one sentence."""
    with redirect_stdout(io.StringIO()), explaining(step):
        yield


STEPS = {
    step.__name__: in_the_cloud(f"azure {step.__name__}")(step)
    for step in (provision, train, wait, deploy, promote, rollback, status, teardown)
}


def planned(actions: list[Any], plan: bool, following: str, **data: Any) -> Outcome:
    """What the actions of a plan did or would do, and the command that follows."""
    lines = [*map(str, actions), *(f"{name}: {url}" for name, url in data.get("urls", {}).items())]
    lines.append("a plan: nothing was written" if plan else f"next: {following}")
    return Outcome({"plan": plan, "actions": as_data(actions), **data}, "\n".join(lines))


def removed(removals: list[Any], plan: bool) -> Outcome:
    """What was deleted or would be, and what is left."""
    left = [f"{one.kind} {one.name}" for one in removals if one.do == "keep"]
    lines = [*map(str, removals), "a plan: nothing was deleted" if plan else f"left: {len(left)}"]
    data = {"plan": plan, "removals": as_data(removals), "left": left}
    return Outcome(data, "\n".join(lines))


def run_folder(out: Path | None) -> Path:
    """Where `--out` says, or the settings."""
    return out or Settings.load().runs / "azure"


def _cloud() -> Cloud:
    return connect_to_azure(Settings.load())


def _shift(out: Path, plan: bool, wanted: Callable[[Cloud, str], Any]) -> Outcome:
    """Carry out one step that moves traffic between the deployments of the tuned endpoint."""
    from deploy.azure.train import record

    cloud = _cloud()
    with explaining("traffic", []):
        step = wanted(cloud, cloud.names.endpoint(TUNED.connection))
    actions = carry_out([step], plan=plan)
    if not plan:
        record(out, "traffic", {"endpoint": step.endpoint, "traffic": step.traffic})
    return planned(actions, plan, "phi3flow azure status", traffic=step.traffic)
