"""`python -m deploy.azure.job_outputs MODEL OUT CARD`: the last line of a training job, on every rank.

OUT becomes an MLflow model, which the workspace can register and anyone can load. CARD gets the small files
beside the weights: what `verify` and a person need, without a download of gigabytes. Only rank 0 has a model.
The run is logged last, and a logger that fails costs nothing: the weights are paid for and written by then.
"""

import shutil
import sys
from pathlib import Path

from phi3flow.core.settings import Settings
from training.ranks import is_main_process
from training.tracking.mlflow_run import save_mlflow_model, track_if_possible

CARD_BYTES = 32 * 1024 * 1024


def main() -> None:
    model, out, card = map(Path, sys.argv[1:])
    if not is_main_process():
        return
    write_card(model, card)
    save_mlflow_model(model, out, azure=True)
    track_if_possible(model, Settings.load().runs)


def write_card(model: Path, card: Path) -> None:
    """Copy whatever is small enough to be no weights."""
    card.mkdir(parents=True, exist_ok=True)
    for path in sorted(model.iterdir()):
        if path.is_file() and path.suffix != ".safetensors" and path.stat().st_size < CARD_BYTES:
            shutil.copyfile(path, card / path.name)


if __name__ == "__main__":
    main()
