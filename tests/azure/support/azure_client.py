"""One step of the cloud half on work that takes a second: `python azure_client.py STEP WORK SEED`.

A process of its own, so that a test can have it killed.
"""

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from azure_fakes import fake_packages, served_by

from deploy.azure.deploy import Serving, deploy
from deploy.azure.provision import provision_steps
from deploy.azure.rollout import promotion
from deploy.azure.shared.plan import carry_out
from deploy.azure.shared.session import Cloud, connect
from deploy.azure.shared.sizes import profile_for
from deploy.azure.train import Training, train
from phi3flow.core.settings import Settings

STEPS = ("provision", "train", "deploy", "promote")
CPU = "Standard_E4s_v3"


def take(
    step: str, work: Path, seed: int, *, engine: str = "vllm", server: str = "tuned", **more: Any
) -> str:
    """The job's or deployment's name; `more` is what the step takes. Raises what the step raises."""
    with redirect_stdout(sys.stderr):
        if step == "train":
            return _train(work, seed, **more)
        return _others(step, work, engine, server, **more)


def _train(
    work: Path,
    seed: int,
    *,
    out: Path | None = None,
    compute: str = "",
    plan: bool = False,
    wait: bool = True,
) -> str:
    asked = Training(
        work / "data", "tiny-cpu", str(work / "base"), seed, 1, profile_for("cpu", compute=compute)
    )
    cloud = connect(Settings.load(work))
    code = fake_packages(work / "packages")
    return train(cloud, asked, out or work / "run", plan=plan, wait=wait, code=code)[1]


def _others(step: str, work: Path, engine: str, server: str, file: Path | None = None) -> str:
    cloud = connect(Settings.load(work))
    {"provision": _provision, "promote": _promote}.get(step, lambda cloud: None)(cloud)
    if step in {"deploy", "deploy-base"}:
        base = step == "deploy-base"
        variables = served_by("base" if base else server)
        wanted = Serving(base, engine, CPU, "key", None, None, 1, variables, file)
        code = fake_packages(work / "packages")
        found = deploy(cloud, wanted, work / "run", plan=False, code=code)[1]
        return found.deployment if found else ""
    return ""


def _provision(cloud: Cloud) -> None:
    carry_out(provision_steps(cloud, profile_for("cpu"), 1), plan=False)


def _promote(cloud: Cloud) -> None:
    carry_out([promotion(cloud, cloud.names.endpoint("phi3-tuned"), "100")], plan=False)


if __name__ == "__main__":
    take(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
