"""What a model folder and a run folder must hold, and the comparison of a run's two models."""

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from phi3flow.core.errors import BadInput
from phi3flow.core.files import read_json
from phi3flow.core.lineage import Artifact, read_manifest, sha256_of
from phi3flow.core.sides import BASE, SIDES, TUNED
from training.models.adapter import require_no_adapter

if TYPE_CHECKING:
    from evaluation.asking.measuring import ServedFlow
    from evaluation.compare import Options
    from evaluation.report.comparison import Report
    from evaluation.report.render import Training

SMALL, PHI = 512, 3072  # hidden_size, from which a model is a small pretrained one, and a Phi
PHI_3_VOCABULARY = 32_064


def require_model_folder(folder: Path) -> None:
    """Raise BadInput unless a configuration and a tokenizer lie in `folder`."""
    require_no_adapter(folder)
    if not (folder / "config.json").is_file():
        raise BadInput(
            f"{folder}: not a model folder (no config.json)",
            hint="phi3flow demo makes one in runs/demo/tuned",
        )
    if not (folder / "tokenizer.json").is_file():
        raise BadInput(
            f"{folder}: no tokenizer.json", hint="copy the tokenizer files of the model it was made from"
        )


def require_model(run: Path, name: str, hint: str = "") -> None:
    """Raise BadInput where `base` or `tuned` is not there; `hint` instead of the command that makes it."""
    require_no_adapter(run / name)
    if not (run / name / "config.json").is_file():
        raise BadInput(f"{run / name} is not a model folder", hint=hint or _command_that_makes(run, name))


def test_file(run: Path) -> Path:
    return run / "data" / "test.jsonl"


def require_run(run: Path) -> None:
    """Raise BadInput for a folder that lacks what a comparison needs, with the command that makes it.

    The same for files that do not belong together.
    """
    from evaluation.asking.test_set import require_as_prepared

    if not test_file(run).is_file():
        raise BadInput(
            f"{test_file(run)}: no such file", hint=f"phi3flow prepare CHATS.jsonl --out {run}/data"
        )
    for side in SIDES:
        require_model(run, side.name)
    require_lineage(run)
    require_as_prepared(test_file(run))
    require_same_data(run)


def require_lineage(run: Path) -> None:
    """Raise BadInput where tuned/ says that it was trained from another model than base/."""
    inputs = (read_manifest(run / "tuned") or {}).get("inputs", [])
    start = next((artifact for artifact in inputs if artifact["kind"] == "model"), None)
    if start and start["sha256"] != sha256_of(run / "base"):
        raise BadInput(
            f"{run / 'tuned'} was trained from {start['path']} as it was then, which is not {run / 'base'}",
            hint=f"put that model into {run / 'base'}, or train again from the one that is there",
        )


def require_same_data(run: Path) -> None:
    """Raise BadInput where tuned/ was trained on other files than those that data/ holds.

    What is held out in data/ now may then have been trained on.
    """
    trained = [
        artifact
        for artifact in (read_manifest(run / TUNED.name) or {}).get("inputs", [])
        if artifact["kind"] == "data"
    ]
    held = {found["sha256"] for found in (read_manifest(run / "data") or {}).get("outputs", [])}
    other = next((artifact["path"] for artifact in trained if held and artifact["sha256"] not in held), None)
    if other:
        raise BadInput(
            f"{run / TUNED.name} was trained on {other} as it was then, which is not in {run / 'data'} now",
            hint="put that data back, or train again on the data that is there",
        )


TOY = (
    "These are the demo's toy models, trained from random weights on generated chats: the report shows how "
    "the loop works, not what fine-tuning does to a real model."
)


def _toy_note(run: Path) -> list[str]:
    recipe = (read_manifest(run / BASE.name) or {}).get("recipe") or {}
    return [TOY] if recipe.get("scratch") else []


def compare_run(
    run: Path,
    options: "Options",
    *,
    runner: str,
    served: Mapping[str, Path],
    flow: "ServedFlow | None" = None,
    out: Path | None = None,
) -> "Report":
    """Compare the run's two models; the report goes into `out`, or into the run's folder.

    `served` are the model folders behind the connections, by side; `flow` stands before both.
    """
    from evaluation.compare import compare

    return compare(
        test_file(run),
        BASE.connection,
        TUNED.connection,
        out or run,
        options,
        models={name: Artifact.of("model", folder) for name, folder in served.items()},
        converted=[
            Artifact.of("model", run / name) for name, folder in served.items() if folder != run / name
        ],
        training=training_of(run / TUNED.name),
        runner=runner,
        flow=flow,
        notes=_toy_note(run),
    )


def training_of(tuned: Path) -> "Training | None":
    """What the report tells of it; None for a model without our manifest of a training."""
    from evaluation.report.render import Training

    manifest, curve = read_manifest(tuned) or {}, tuned / "loss.png"
    recipe, result = manifest.get("recipe"), manifest.get("result")
    if recipe is None or result is None or not curve.is_file():
        return None
    rule = recipe["long_chats"] or "window"  # the default wherever long chats are not refused
    return Training(curve, result["long_chats"] or {}, recipe["max_length"], rule)


def train_command(data: Path, base: Path, tuned: Path, recipe: str | None = None) -> str:
    """To paste: fine-tune `base`, by the recipe that suits it if none is given."""
    folder, model, out = (shlex.quote(str(path)) for path in (data, base, tuned))
    return f"phi3flow train --data {folder} --recipe {recipe or recipe_for(base)} --model {model} --out {out}"


def preference_recipe(model: Path) -> str:
    """The shipped recipe that teaches preferences to this model."""
    return "dpo-tiny" if recipe_for(model) == "tiny-cpu" else "dpo-lora"


def preference_command(rows: Path, run: Path, method: str) -> str:
    """To paste: train the run's tuned model on preferences, into a run folder beside it."""
    tuned, out = run / TUNED.name, run.with_name(f"{run.name}-2") / TUNED.name
    files = ["--data", rows, "--recipe", preference_recipe(tuned), "--model", tuned, "--out", out]
    return shlex.join(map(str, ["phi3flow", "train", "--method", method, *files]))


def base_command(base: Path) -> str:
    """To paste: the small pretrained base."""
    return f"phi3flow base --pretrained --out {shlex.quote(str(base))}"


def recipe_for(base: Path) -> str:
    """The shipped recipe for a base model, by its sizes; for a folder without one, that of `base_command`."""
    sizes = _sizes(base / "config.json")
    width = sizes.get("hidden_size", SMALL)
    if width < SMALL:
        return "tiny-cpu"
    if width < PHI:
        return "small-cpu"
    if sizes.get("vocab_size", 0) > PHI_3_VOCABULARY:
        return "phi4-mini-lora"
    stretched = sizes.get("max_position_embeddings", 0) > sizes.get(
        "original_max_position_embeddings", math.inf
    )
    return "phi3.5-mini-lora" if stretched else "phi3-mini-4k-lora"


def _sizes(config: Path) -> dict[str, int]:
    """Its whole numbers; none of a file that is missing or broken, which the loading of the model names."""
    try:
        found = read_json(config)
    except (OSError, ValueError, RecursionError):
        return {}
    numbers = found.items() if isinstance(found, dict) else ()
    return {name: value for name, value in numbers if isinstance(value, int)}


def _command_that_makes(run: Path, name: str) -> str:
    if name == "base":
        folder = shlex.quote(str(run / "base"))
        return f"{base_command(run / 'base')}, or hf download ID --local-dir {folder}"
    return train_command(run / "data", run / "base", run / "tuned")
