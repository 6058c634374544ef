"""The model catalog's registry: every Phi in it is a tiny one with random weights, made when first used."""

import re
import subprocess
import sys
import threading
from pathlib import Path

from azure_emulator.front.wire import azure_error, front_error

MODEL = re.compile(r"azureml://registries/azureml/models/(?P<name>Phi-[\w.-]+)/versions/(?P<version>\d+)")
REGIONS_WITHOUT = {"spaincentral"}  # whose Azure ML has no copy of the registry
MAKER = Path(__file__).with_name("registry_model.py")
_making = threading.Lock()


def is_of_registry(uri: str) -> bool:
    return uri.startswith("azureml://registries/")


def require_in(region: str, uri: str) -> None:
    """Raise 400 for a region without the model, in the words of issue 662 of terraform-provider-azapi."""
    if region in REGIONS_WITHOUT:
        raise front_error(400, "UserError", f"The requested model {uri} is not available in region {region}.")


def catalog_model(folder: Path, uri: str) -> Path:
    """The folder of an MLflow model. Raise 400 for what the catalog does not have."""
    found = MODEL.fullmatch(uri)
    if found is None:
        raise azure_error(400, "UserError", f"The registry has no {uri}.")
    model = folder / f"{found['name']}-{found['version']}"
    with _making:
        if not model.exists():
            folder.mkdir(parents=True, exist_ok=True)
            subprocess.run([sys.executable, str(MAKER), str(model)], check=True)
    return model
