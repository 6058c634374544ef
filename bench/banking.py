"""BANKING77 through the whole pipeline: which of 77 intents a bank's customer has, from its CSV files.

    make bench-banking BANKING=DIR                                   all rows: for a GPU
    make bench-banking BANKING=DIR ARGS="--train-rows 2000 --test-rows 500"   for two cores

DIR holds the public set's train.csv and test.csv (CC-BY-4.0). The small pretrained base learns to answer with
the intent's name. Ends with one JSON object: exact match of base and tuned on test rows, with 95 % intervals,
beside the .9366 of a fully fine-tuned BERT-base on all rows (Casanueva et al. 2020, table 2).
"""

import argparse
import csv
import json
import random
import shutil
import time
from pathlib import Path

from evaluation.asking.batch import DIRECT
from evaluation.compare import Options
from evaluation.verdict.gate import load_gate
from phi3flow.app.demo_steps import run_verb
from phi3flow.app.run_folder import compare_run
from phi3flow.app.services import local_endpoints
from phi3flow.core.errors import BadInput
from phi3flow.core.lineage import sha256_of
from phi3flow.core.settings import Settings
from phi3flow.core.sides import SIDES
from training.recipes.training_arguments import has_gpu

SHA256 = {
    "train.csv": "b06e26ac675513959a63135f11b94ea7786ed02da65db93a5650d8838cbc664b",
    "test.csv": "d12d6e3bc4c3103966ae786dc435913c0c563dfa328f5a3646d0e62cfeeb474d",
}
COLUMNS = "question=text,answer=category"
LITERATURE = 0.9366
AT_ONCE = 8


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
        return result

    train = subset(banking / "train.csv", folder / "train.csv", train_rows)
    test = subset(banking / "test.csv", folder / "test.csv", test_rows)
    base, tuned, recipe = folder / "base", folder / "tuned", "small-gpu" if has_gpu() else "small-cpu"
    timed("prepare", run_verb, "prepare", train, "--test", test, "--columns", COLUMNS,
          "--near-duplicates", "report", "--out", folder / "data")  # fmt: skip
    timed("base", run_verb, "base", "--pretrained", "--out", base)
    timed("train", run_verb, "train", "--data", folder / "data", "--recipe", recipe, "--model", base,
          "--out", tuned)  # fmt: skip
    served = {"base": base, "tuned": tuned}
    if not has_gpu():
        served = {name: folder / "int8" / name for name in served}
        for name, export in served.items():
            timed(f"export {name}", run_verb, "export", folder / name, "--format", "openvino", "--int8",
                  "--out", export)  # fmt: skip
    options = Options(load_gate(), min(AT_ONCE, settings.batch_workers))
    with local_endpoints({side.connection: served[side.name] for side in SIDES}, folder, settings):
        report = timed("compare", compare_run, folder, options, packs=False, runner=DIRECT, served=served)
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
        "train_rows": train_rows or "all",
        "recipe": recipe,
        "seconds": seconds | {"total": round(sum(seconds.values()), 1)},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        usage='make bench-banking BANKING=DIR ARGS="--train-rows N --test-rows N"'
    )
    parser.add_argument("banking", type=Path)
    parser.add_argument("--train-rows", type=int)
    parser.add_argument("--test-rows", type=int)
    print(json.dumps(main(**vars(parser.parse_args()))))
