"""`python -m deploy.azure.job_outputs MODEL OUT CARD`: the last line of a training job.

OUT becomes an MLflow model, which the workspace can register and anyone can load. CARD gets the small files
beside the weights: what `verify` and a person need, without a download of gigabytes.
"""

import shutil
import sys
from importlib.metadata import version
from pathlib import Path

CARD_BYTES = 32 * 1024 * 1024
SERVING = ("mlflow", "requests", "torch", "transformers")


def main() -> None:
    model, out, card = map(Path, sys.argv[1:])
    write_card(model, card)
    save_model(model, out)


def save_model(model: Path, out: Path) -> None:
    """The model folder as an MLflow model, with the code that answers for it."""
    import mlflow

    import training.mlflow_chat as chat

    root = Path(chat.__file__).parents[1]
    mlflow.pyfunc.save_model(
        path=str(out),
        python_model=chat.__file__,
        artifacts={chat.MODEL: str(model)},
        code_paths=[str(root / package) for package in ("phi3flow", "training")],
        signature=chat.signature(),
        pip_requirements=[f"{name}=={version(name).split('+')[0]}" for name in SERVING],
    )


def write_card(model: Path, card: Path) -> None:
    """Copy whatever is small enough to be no weights."""
    card.mkdir(parents=True, exist_ok=True)
    for path in sorted(model.iterdir()):
        if path.is_file() and path.suffix != ".safetensors" and path.stat().st_size < CARD_BYTES:
            shutil.copyfile(path, card / path.name)


if __name__ == "__main__":
    main()
