"""Which command stands for a deployment's image, and how its server is asked.

An image cannot be run here. A deployment that names its command in the environment variable
AZURE_EMULATOR_COMMAND gets that one, with {port} and {model} filled in; every other is served by
`phi3flow serve`, which is what our scoring script and our images run too.
"""

import json
import secrets
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

COMMAND_VARIABLE = "AZURE_EMULATOR_COMMAND"


@dataclass(frozen=True)
class Serving:
    """`ready_path` answers 200 once the model is loaded; `key` is what the server itself asks for."""

    command: Sequence[str]
    environment: Mapping[str, str]
    ready_path: str
    key: str = ""
    one_path: bool = False

    def path_for(self, path: str, body: bytes) -> str:
        """Our scoring script is asked everything at /score and tells contracts apart by their bodies."""
        return "/v1/chat/completions" if self.one_path and path == "/score" and _is_chat(body) else path


def choose(properties: Mapping[str, object], variables: Mapping[str, str], model: Path, port: int) -> Serving:
    if command := variables.get(COMMAND_VARIABLE):
        words = [word.format(port=port, model=model) for word in shlex.split(command)]
        return Serving(words, {}, variables.get("AZURE_EMULATOR_READY_PATH", "/"))
    key = secrets.token_urlsafe()
    folder = next(iter(sorted(path.parent for path in model.rglob("config.json"))), model)
    return Serving(
        [sys.executable, "-m", "phi3flow", "serve", str(folder), "--port", str(port)],
        {"PHI3FLOW_ENDPOINT_KEY": key},
        "/health/ready",
        key,
        one_path=bool(properties.get("codeConfiguration")),
    )


def _is_chat(body: bytes) -> bool:
    try:
        return "messages" in json.loads(body)
    except (ValueError, TypeError):
        return False
