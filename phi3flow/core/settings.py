"""One frozen object with every setting; the only place that reads the environment.

Precedence, weakest first: the defaults below < `phi3flow.toml` < `.env` < `PHI3FLOW_*` variables < flags.
The command line takes its defaults from here, so a flag is only a later word on the same setting.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from phi3flow.core.errors import BadInput, nearest

CONFIG_FILE = "phi3flow.toml"
PREFIX = "PHI3FLOW_"


@dataclass(frozen=True)
class Settings:
    """Defaults of every verb. Each field's `help` is its line in `phi3flow.toml`."""

    runs: Path = field(default=Path("runs"), metadata={"help": "where runs are written"})
    promptflow_home: Path = field(
        default=Path(".phi3flow/promptflow"), metadata={"help": "Prompt flow's own home for this project"}
    )
    endpoint_port: int = field(default=5001, metadata={"help": "scoring endpoint of the tuned model"})
    base_port: int = field(default=5002, metadata={"help": "scoring endpoint of the base model"})
    flow_port: int = field(default=8080, metadata={"help": "pf flow serve, tuned model"})
    base_flow_port: int = field(default=8081, metadata={"help": "pf flow serve, base model"})
    ui_port: int = field(default=8501, metadata={"help": "the Streamlit chat"})
    batch_workers: int = field(default=16, metadata={"help": "requests in flight during a batch run"})
    azure_subscription: str = field(default="", metadata={"help": "id of the Azure subscription"})
    azure_resource_group: str = field(default="phi3flow", metadata={"help": "resource group in Azure"})
    azure_workspace: str = field(default="phi3flow", metadata={"help": "Azure Machine Learning workspace"})
    azure_region: str = field(default="eastus2", metadata={"help": "where new Azure resources go"})
    azure_patience: float = field(
        default=3600.0, metadata={"help": "seconds to wait for one long-running operation of Azure"}
    )
    foundry_project: str = field(
        default="",
        metadata={"help": "Foundry project that grades content safety in compare: URL, or SUB/GROUP/PROJECT"},
    )
    endpoint_key: str = field(default="", repr=False, metadata={"secret": True})
    upstream_key: str = field(default="", repr=False, metadata={"secret": True})
    encryption_key: str = field(default="", repr=False, metadata={"secret": True})

    @classmethod
    def load(cls, folder: Path = Path()) -> "Settings":
        """Read `phi3flow.toml` and `.env` in `folder`, then the environment. Raises BadInput."""
        values = _from_toml(folder / CONFIG_FILE)
        environment = {**_from_dotenv(folder / ".env"), **os.environ}
        # Prompt flow's documentation calls the key of its connection store by this name.
        if "PF_ENCRYPTION_KEY" in environment:
            values["encryption_key"] = environment["PF_ENCRYPTION_KEY"]
        values |= {
            name: environment[PREFIX + name.upper()]
            for name in (f.name for f in fields(cls))
            if PREFIX + name.upper() in environment
        }
        return cls(**{name: _convert(name, value) for name, value in values.items()})


def azure_model_mount() -> Path:
    """Where Azure's server has mounted the registered model. Raises BadInput outside of it."""
    mount = os.environ.get("AZUREML_MODEL_DIR")
    if not mount:
        raise BadInput("AZUREML_MODEL_DIR is not set", hint="Azure sets it; elsewhere: phi3flow serve MODEL")
    return Path(mount)


def _from_toml(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not valid TOML: {error}", hint="phi3flow init writes a valid one") from error
    public = [f.name for f in fields(Settings) if not f.metadata.get("secret")]
    problems = [
        f"{path}: {name}: unknown setting ({nearest(name, public)})" for name in values if name not in public
    ]
    if problems:
        raise BadInput("\n".join(problems), hint="secrets belong in the environment, never in this file")
    return values


def _from_dotenv(path: Path) -> Mapping[str, str]:
    if not path.exists():
        return {}
    from dotenv import dotenv_values

    return {name: value for name, value in dotenv_values(path).items() if value is not None}


def _convert(name: str, value: Any) -> Any:
    wanted = type(getattr(Settings, name))  # a dataclass keeps its defaults on the class
    try:
        return wanted(value)
    except (TypeError, ValueError) as error:
        shown = "the value" if name.endswith("_key") else repr(value)
        raise BadInput(
            f"{name}: {shown} is not {wanted.__name__}", hint=f"set {PREFIX}{name.upper()}"
        ) from error
