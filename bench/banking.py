"""BANKING77 through the whole pipeline: which of 77 intents a bank's customer has, from its CSV files.

    make bench-banking BANKING=DIR                                   all rows: for a GPU
    make bench-banking BANKING=DIR ARGS="--train-rows 1540 --test-rows 308"   for two cores

DIR holds the public set's train.csv and test.csv (CC-BY-4.0). The small pretrained base learns to answer with
the intent's name; on a GPU by `banking-gpu.toml`, else by the recipe small-cpu. Ends with one JSON object:
exact match of base and tuned on test rows, with 95 % intervals, beside the .9366 of a fully fine-tuned
BERT-base on all rows (Casanueva et al. 2020, table 2).
"""

import argparse
import csv
import json
import random
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from secrets import token_urlsafe

from evaluation.asking.batch import DIRECT, run_compare
from evaluation.asking.measuring import measure
from evaluation.report.comparison import Report, compare_rows
from evaluation.verdict.gate import load_gate
from phi3flow.app.served_form import served_forms
from phi3flow.app.services import endpoint_of, scoring_endpoint
from phi3flow.chats.row_shapes import parse_columns
from phi3flow.chats.rows import load_chats
from phi3flow.core.console import say
from phi3flow.core.errors import BadInput
from phi3flow.core.lineage import sha256_of
from phi3flow.core.service_stack import Stack
from phi3flow.core.settings import Settings
from phi3flow.core.sides import BASE, SIDES, TUNED
from training.data.prepare import prepare
from training.finetune import finetune
from training.pretrained.base import make_pretrained_base
from training.recipes.recipe import load_recipe
from training.recipes.training_arguments import has_gpu

SHA256 = {
    "train.csv": "b06e26ac675513959a63135f11b94ea7786ed02da65db93a5650d8838cbc664b",
    "test.csv": "d12d6e3bc4c3103966ae786dc435913c0c563dfa328f5a3646d0e62cfeeb474d",
}
COLUMNS = "question=text,answer=category"
LITERATURE = 0.9366
AT_ONCE, GPU_AT_ONCE = 8, 64
MOST_TOKENS = 32  # of an answer: the longest intent has 17


def check(banking: Path) -> None:
    for name, expected in SHA256.items():
        path = banking / name
        if not path.is_file() or sha256_of(path) != expected:
            raise BadInput(f"{path} is not BANKING77's {name}", hint="make bench-banking BANKING=DIR")


def subset(source: Path, target: Path, rows: int | None) -> Path:
    """`rows` rows of the file, drawn evenly over the intents; all of them for None."""
    if rows is None:
        shutil.copyfile(source, target)
        return target
    with source.open(encoding="utf-8", newline="") as stream:
        read = list(csv.DictReader(stream))
    random.Random(0).shuffle(read)
    seen: dict[str, int] = {}
    for row in read:
        row["turn"] = seen[row["category"]] = seen.get(row["category"], 0) + 1
    kept = sorted(read, key=lambda row: row["turn"])[:rows]
    with target.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, ["text", "category"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(kept)
    return target


def main(banking: Path, train_rows: int | None, test_rows: int | None) -> dict:
    check(banking)
    settings = Settings.load()
    folder = settings.runs / "banking"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    seconds = {}

    def timed(name, function, *args, **kwargs):
        started = time.monotonic()
        result = function(*args, **kwargs)
        seconds[name] = round(time.monotonic() - started, 1)
        say(f"banking: {name} took {seconds[name]} s")
        return result

    train = subset(banking / "train.csv", folder / "train.csv", train_rows)
    test = subset(banking / "test.csv", folder / "test.csv", test_rows)
    recipe = str(Path(__file__).with_name("banking-gpu.toml")) if has_gpu() else "small-cpu"
    base, tuned = folder / BASE.name, folder / TUNED.name
    data = timed("prepare", prepare, [str(train)], folder / "data", test=test, near_duplicates="report",
                 columns=parse_columns(COLUMNS))  # fmt: skip
    timed("base", make_pretrained_base, base)
    timed("train", finetune, data.folder, load_recipe(recipe), tuned, model=str(base))
    models = timed("export", served_forms, folder)
    report = timed("compare", compare, data.files["test"], models, folder, settings)
    told = report.as_dict()
    return {
        "bench": "banking",
        "ours": told["tuned"]["exact_match"],
        "ours_ci": told["tuned"]["exact_match_ci"],
        "base": told["base"]["exact_match"],
        "base_ci": told["base"]["exact_match_ci"],
        "baseline": LITERATURE,
        "ratio": round(told["tuned"]["exact_match"] / LITERATURE, 4),
        "n": told["n"],
        "failed": told["failed"],
        "train_rows": data.counts.train,
        "val_rows": data.counts.val,
        "recipe": Path(recipe).stem,
        "seconds": seconds | {"total": round(sum(seconds.values()), 1)},
    }


def compare(test: Path, models: Mapping[str, Path], folder: Path, settings: Settings) -> Report:
    """Both models' answers to all test rows, asked without Prompt flow, and their statistics."""
    own = settings.model_copy(update={"endpoint_key": token_urlsafe(32)})
    logs = {side: folder / "logs" / f"{side.name}.log" for side in SIDES}
    with Stack(*(scoring_endpoint(models[side.name], side, own, log) for side, log in logs.items())):
        endpoints = {side.name: endpoint_of(side, own) for side in SIDES}
        asking = measure(load_chats(test), endpoints, most=GPU_AT_ONCE if has_gpu() else AT_ONCE)
        asking = replace(asking, max_tokens=MOST_TOKENS)
        return compare_rows(run_compare(test, asking, folder, runner=DIRECT), load_gate())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        usage='make bench-banking BANKING=DIR ARGS="--train-rows N --test-rows N"'
    )
    parser.add_argument("banking", type=Path)
    parser.add_argument("--train-rows", type=int)
    parser.add_argument("--test-rows", type=int)
    print(json.dumps(main(**vars(parser.parse_args()))))
