"""`make azure-demo`: the cloud half without a cloud, from nothing to an answer and back to nothing.

Starts the emulator and types the commands of docs/azure.md. The last line is one JSON object.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from azure_emulator.emulator import Emulator, Options

from custom_connections.promptflow_home import new_encryption_key
from phi3flow.app.commands.demo import QUESTION, write_chats

RUN = Path("runs/azure-demo")
ROWS = 100  # of the held-out questions: enough for a verdict, few enough for a demonstration


def main() -> int:
    started = time.monotonic()
    shutil.rmtree(RUN, ignore_errors=True)
    chats, test = write_chats(RUN, 0)
    sample = RUN / "sample.jsonl"
    sample.write_text("".join(test.read_text().splitlines(keepends=True)[:: max(1, _lines(test) // ROWS)]))
    gate = RUN / "gate.toml"
    gate.write_text("[gate]\nrequired = []  # the packs belong to the demo of this machine\n")
    with Emulator(Options(RUN / "cloud")) as emulator:
        environment = _environment(emulator)
        phi3flow = Commands(environment)
        phi3flow(f"prepare {chats} --out {RUN}/data --test {test} --near-duplicates report")
        phi3flow(f"toy-base --out {RUN}/base")
        phi3flow("azure provision --profile cpu --plan")
        phi3flow("azure provision --profile cpu")
        out = f"--out {RUN}/run"
        model = f"--recipe tiny-cpu --model {RUN}/base"
        phi3flow(f"azure train --data {RUN}/data {model} --profile cpu {out}")
        phi3flow(f"azure deploy --engine openvino {out}")
        phi3flow(f"azure deploy --base --engine openvino {out}")
        phi3flow("connect phi3-base --azure")
        phi3flow("connect phi3-tuned --azure --deployment verified")
        phi3flow(
            f"compare --data {sample} --base phi3-base --tuned phi3-tuned --runner direct --packs none "
            f"--gate {gate} --text-metrics none --out {RUN}/run/comparison"
        )
        phi3flow(f"azure promote {out}")
        phi3flow("azure status")
        phi3flow("connect phi3-tuned --azure")
        answer = phi3flow(f"chat {shlex.quote(QUESTION)} --connection phi3-tuned --json")["answer"]
        left = phi3flow("azure teardown --json")["left"]
        unknown = [entry for entry in emulator.cloud.log.entries if entry.unknown]
        resources = [
            key for key in emulator.cloud.store.keys("resources") if "/resourcegroups/" in key.lower()
        ]
    seconds = round(time.monotonic() - started)
    print(f"{QUESTION}\n{answer}\n{len(resources)} resources are left", file=sys.stderr)
    figures = {"answer": answer, "resources": len(resources), "left": left, "unknown": len(unknown)}
    print(json.dumps({"demo": "azure", **figures, "seconds": seconds}))
    return 1 if resources or unknown or not answer else 0


class Commands:
    """Types a command and shows it; stops at the first that fails."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def __call__(self, line: str) -> Any:
        """What `--json` printed, or nothing."""
        print(f"\n$ phi3flow {line}", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "phi3flow", *shlex.split(line)]
        as_json = "--json" in command
        stdout = subprocess.PIPE if as_json else sys.stderr
        ran = subprocess.run(command, env=self._environment, stdout=stdout, text=True, check=False)
        if ran.returncode:
            raise SystemExit(f"the demo stopped: phi3flow {line} exited with {ran.returncode}")
        return json.loads(ran.stdout) if as_json else {}


def _environment(emulator: Emulator) -> dict[str, str]:
    """Azure on 127.0.0.1, and a connection store whose key lives as long as the demo."""
    merged = {**os.environ, **emulator.environment}
    merged["PHI3FLOW_AZURE_SUBSCRIPTION"] = emulator.environment["AZURE_SUBSCRIPTION_ID"]
    merged["PHI3FLOW_PROMPTFLOW_HOME"] = str((RUN / "promptflow").resolve())
    merged["HF_HUB_OFFLINE"] = "1"  # base is made here; transformers would ask its hub all the same
    merged["PF_ENCRYPTION_KEY"] = new_encryption_key()
    return {name: value for name, value in merged.items() if value}


def _lines(path: Path) -> int:
    return len(path.read_text().splitlines())


if __name__ == "__main__":
    sys.exit(main())
