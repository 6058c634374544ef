"""Which command runs in a deployment's container, and how its server is asked.

A deployment with a scoring script runs that script. An image cannot be run here: one without a script is
served by `phi3flow serve`, which answers as our images do. A deployment that names its command in the
environment variable AZURE_EMULATOR_COMMAND gets that one, with {port} and {model} filled in.
"""

import secrets
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

COMMAND_VARIABLE = "AZURE_EMULATOR_COMMAND"
SCORING_SERVER = Path(__file__).with_name("scoring_server.py")


@dataclass(frozen=True)
class Serving:
    """`ready_path` answers 200 once the model is loaded; `key` is what the server itself asks for."""

    command: Sequence[str]
    environment: Mapping[str, str]
    ready_path: str = "/"
    key: str = ""


def choose(variables: Mapping[str, str], model: Path, port: int, script: Path | None) -> Serving:
    """`script` is the scoring script within the deployment's code, if it has one."""
    if command := variables.get(COMMAND_VARIABLE):
        words = [word.format(port=port, model=model) for word in shlex.split(command)]
        return Serving(words, {}, variables.get("AZURE_EMULATOR_READY_PATH", "/"))
    if script:
        return Serving(["python", "-P", str(SCORING_SERVER), str(script), str(port)], {})
    key = secrets.token_urlsafe()
    folder = next(iter(sorted(path.parent for path in model.rglob("config.json"))), model)
    return Serving(
        [sys.executable, "-m", "phi3flow", "serve", str(folder), "--port", str(port)],
        {"PHI3FLOW_ENDPOINT_KEY": key},
        "/health/ready",
        key,
    )
