"""One frozen object with every setting; the only place that reads the environment.

Precedence, weakest first: the defaults below < `phi3flow.toml` < `.env` < `PHI3FLOW_*` variables < flags.
The command line takes its defaults from here, so a flag is only a later word on the same setting. Both files
are looked for in the current folder and then upwards; a relative path in them starts at their folder.
"""

import logging
import os
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from phi3flow.core.errors import BadInput, first_line
from phi3flow.core.text_files import read_text
from phi3flow.core.validation import read_toml, validated

CONFIG_FILE = "phi3flow.toml"
DOTENV = ".env"
ROOT = 0
PREFIX = "PHI3FLOW_"
log = logging.getLogger(__name__)


def _secret() -> Any:
    """Read from the environment alone, and shown nowhere."""
    return Field(default="", repr=False, exclude=True)


class Settings(BaseModel):
    """Defaults of every command. A field's description is its line in `phi3flow.toml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    runs: Path = Field(Path("runs"), description="where runs are written")
    promptflow_home: Path = Field(
        Path(".phi3flow/promptflow"), description="Prompt flow's own home for this project"
    )
    endpoint_port: int = Field(5001, description="scoring endpoint of the tuned model")
    base_port: int = Field(5002, description="scoring endpoint of the base model")
    flow_port: int = Field(8080, description="pf flow serve, tuned model")
    base_flow_port: int = Field(8081, description="pf flow serve, base model")
    flow_host: Literal["promptflow", "agents"] = Field(
        "promptflow", description="what serves the flows: promptflow, or agents (Microsoft Agent Framework)"
    )
    agents_environment: Path = Field(
        Path(".venv-agents"), description="Python environment of Agent Framework, which `make agents` builds"
    )
    ui_port: int = Field(8501, description="the Streamlit chat")
    batch_workers: int = Field(16, description="most requests in flight during a batch run")
    track: bool = Field(True, description="log finished training runs to MLflow")
    azure_subscription: str = Field("", description="id of the Azure subscription")
    azure_resource_group: str = Field("phi3flow", description="resource group in Azure")
    azure_workspace: str = Field("phi3flow", description="Azure Machine Learning workspace")
    azure_region: str = Field("eastus2", description="where new Azure resources go")
    azure_identity: str = Field(
        "", description="existing managed identity of endpoints and cluster: name or id"
    )
    azure_compute: str = Field("", description="existing cluster to train on")
    azure_endpoint: str = Field("", description="existing endpoint for the tuned model")
    azure_environment: str = Field("", description="existing environment of training jobs: NAME:VERSION")
    azure_patience: float = Field(
        3600.0, description="seconds to wait for one long-running operation of Azure"
    )
    foundry_project: str = Field(
        "", description="Foundry project that grades content safety in compare: URL, or SUB/GROUP/PROJECT"
    )
    endpoint_key: str = _secret()
    flow_key: str = _secret()
    encryption_key: str = _secret()

    @classmethod
    def public(cls) -> list[str]:
        """The settings that a file may hold, in order: all but the secrets."""
        return [name for name, field in cls.model_fields.items() if field.repr]

    @classmethod
    def load(cls, folder: Path | None = None) -> "Settings":
        """Read `phi3flow.toml` and `.env`, then the environment. Raises BadInput with every problem."""
        folder = folder or Path.cwd()
        values = _from_toml(config_file(folder))
        environment = {**_from_dotenv(_upwards(folder, DOTENV)), **os.environ}
        # Prompt flow's documentation calls the key of its connection store by this name.
        if "PF_ENCRYPTION_KEY" in environment:
            values["encryption_key"] = environment["PF_ENCRYPTION_KEY"]
        values |= {
            name: environment[PREFIX + name.upper()]
            for name in cls.model_fields
            if PREFIX + name.upper() in environment
        }
        return validated(cls, values, "environment", hint=f"set {PREFIX}NAME to another value")


def config_file(folder: Path | None = None) -> Path | None:
    """The `phi3flow.toml` in effect for `folder`: its own, or the nearest above."""
    return _upwards(folder or Path.cwd(), CONFIG_FILE)


def azure_model_mount() -> Path:
    """Where Azure's server has mounted the registered model. Raises BadInput outside of it."""
    mount = os.environ.get("AZUREML_MODEL_DIR")
    if not mount:
        raise BadInput("AZUREML_MODEL_DIR is not set", hint="Azure sets it; elsewhere: phi3flow serve MODEL")
    return Path(mount)


def _upwards(folder: Path, name: str) -> Path | None:
    """The file of this name in `folder` or the nearest folder above it.

    Raises BadInput where another user put it there: in a shared folder that is not a file to obey.
    """
    found = next((place / name for place in (folder, *folder.parents) if (place / name).is_file()), None)
    if found and found.stat().st_uid not in {os.getuid(), ROOT, folder.stat().st_uid}:
        raise BadInput(f"{found}: belongs to another user", hint=f"if you trust it: cp {found} {folder}/")
    return found


def _from_toml(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    log.debug("settings from %s", path)
    values = read_toml(path, hint="phi3flow init writes a valid one")
    secrets = [name for name in values if name in Settings.model_fields and name not in Settings.public()]
    problems = [f"{path}: {name}: a secret; it belongs in the environment" for name in secrets]
    values = {name: value for name, value in values.items() if name not in secrets}
    try:
        checked = validated(Settings, values, str(path))
    except BadInput as error:
        problems.append(str(error))
    if problems:
        raise BadInput("\n".join(problems), hint=f"edit {path}; phi3flow init writes every setting there is")
    given = {name: getattr(checked, name) for name in values}
    return {name: path.parent / value if isinstance(value, Path) else value for name, value in given.items()}


def _from_dotenv(path: Path | None) -> Mapping[str, str]:
    if path is None:
        return {}
    from dotenv import dotenv_values

    try:
        lines = StringIO(read_text(path))
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read: {first_line(error)}", hint="save it as UTF-8") from None
    return {name: value for name, value in dotenv_values(stream=lines).items() if value is not None}
