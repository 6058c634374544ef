"""A cloud with two endpoints that answer in a millisecond, as `azure deploy` would have left it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from azure_emulator.client import tokens
from azure_emulator.emulator import Emulator
from emulated import QUIET, UserCredential, child_environment

from deploy.azure.shared.names import Names
from phi3flow.app.cli import main
from phi3flow.core.settings import Settings

SERVER = Path(__file__).with_name("sums_server.py")
CPU = "Standard_E4s_v3"
CHATS = 50


class Told(NamedTuple):
    """What a command in a process of its own printed, and its exit code."""

    exit_code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def foundry_process(emulator: Emulator, *words: str) -> Told:
    """`phi3flow foundry` as people run it: aiohttp, which downloads, takes its certificates at import."""
    command = [sys.executable, "-m", "phi3flow", "foundry", *words]
    environment = child_environment(emulator)
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return Told(ran.returncode, ran.stdout, ran.stderr)


def provision_with_endpoints(work: Path) -> Names:
    """The workspace, and base and tuned live behind their endpoints. This process is the cloud's client."""
    from azure.ai.ml import MLClient
    from azure.ai.ml.entities import Environment, Model

    assert main(["azure", "provision", "--profile", "cpu"]) == 0
    names = Names.of(Settings.load(work))
    ml = MLClient(UserCredential(), tokens.SUBSCRIPTION, names.group, names.workspace, **QUIET)
    ml.environments.create_or_update(Environment(name="image", version="1", image="python:3.11"))
    (work / "model").mkdir()
    (work / "model" / "config.json").write_text("{}")
    ml.models.create_or_update(Model(name="sums", version="1", path=str(work / "model")))
    for side in ("base", "tuned"):
        serve(ml, names.endpoint(f"phi3-{side}"), f"{sys.executable} {SERVER} {{port}} {side} {work}/faults")
    return names


def serve(ml, endpoint, command):
    from azure.ai.ml.entities import ManagedOnlineDeployment, ManagedOnlineEndpoint, OnlineRequestSettings

    tags = {"phi3flow": "deploy", "engine": "openvino"}
    made = ml.online_endpoints.begin_create_or_update(
        ManagedOnlineEndpoint(name=endpoint, tags=tags)
    ).result()
    deployment = ManagedOnlineDeployment(
        name="sums",
        endpoint_name=endpoint,
        model="azureml:sums:1",
        environment="azureml:image:1",
        instance_type=CPU,
        instance_count=1,
        tags=tags,
        environment_variables={"AZURE_EMULATOR_COMMAND": command},
        request_settings=OnlineRequestSettings(
            max_concurrent_requests_per_instance=64, request_timeout_ms=90_000
        ),
    )
    ml.online_deployments.begin_create_or_update(deployment).result()
    made.traffic = {"sums": 100}
    ml.online_endpoints.begin_create_or_update(made).result()


def write_chats(path: Path) -> Path:
    """Sums as chats, some with a turn before them or a system prompt."""
    rows = []
    for number in range(CHATS):
        left, right = number * 7 % 50, number
        messages = [{"role": "user", "content": f"What is {left} plus {right}?"}]
        if number % 5 == 0:
            messages = [
                {"role": "user", "content": "Hello."},
                {"role": "assistant", "content": "Hello!"},
                *messages,
            ]
        if number % 7 == 0:
            messages.insert(0, {"role": "system", "content": "Be brief."})
        rows.append({"messages": [*messages, {"role": "assistant", "content": f"It is {left + right}."}]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
