"""The embedded base model: a tiny Phi-3 that can talk but knows nothing about the demo's domain."""

from pathlib import Path

from phi3flow.core.errors import BadInput
from phi3flow.core.jsonl import write_jsonl
from phi3flow.core.lineage import Artifact, write_manifest
from training.finetune import TrainedModel, finetune
from training.recipes.recipe import load_recipe
from training.toy.corpus import Row, build

RECIPE = "tiny-base"
VALIDATION_SHARE = 0.05


def make_base(out: Path, *, seed: int = 0) -> TrainedModel:
    """Generate the base corpus in `OUT-data/` beside `out`, and train on it. Raises what finetune raises."""
    data = out.with_name(f"{out.name}-data")
    _write_corpus(data, build(seed).base, seed)
    return finetune(data, load_recipe(RECIPE), out, seed=seed)


def _write_corpus(folder: Path, rows: list[Row], seed: int) -> None:
    if folder.exists() and not (folder / "train.jsonl").exists():
        raise BadInput(f"{folder} exists and is no base corpus", hint="choose another --out")
    held_out = round(len(rows) * VALIDATION_SHARE)
    write_jsonl(folder / "train.jsonl", rows[held_out:])
    write_jsonl(folder / "val.jsonl", rows[:held_out])
    outputs = [Artifact.of("data", folder / name) for name in ("train.jsonl", "val.jsonl")]
    write_manifest(folder, "data", inputs=[], outputs=outputs, seed=seed, details={"rows": len(rows)})
