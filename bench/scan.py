"""Real data through the whole pipeline: SCAN's simple split, trained from scratch, asked through the flow.

    make bench-scan SCAN=DIR      DIR holds SCAN's train.jsonl and test.jsonl as chats

Ends with one JSON object: exact match on all 4 182 test chats, against the 0.99 of sequence models in the
literature (Lake & Baroni 2018).
"""

import json
import shutil
import sys
import time
from pathlib import Path

from evaluation.asking.batch import run_evaluate
from phi3flow.app.services import served
from phi3flow.core.errors import BadInput
from phi3flow.core.lineage import sha256_of
from phi3flow.core.settings import Settings
from phi3flow.core.sides import TUNED
from training.data.prepare import prepare
from training.finetune import finetune
from training.recipes.recipe import load_recipe

SHA256 = {
    "train.jsonl": "4861eb303f917e2b572e1e89292c58fa79e69e08b46e798b2f4e3ded9b5c8ca1",
    "test.jsonl": "05e5f728829ecd51f6ce8bc0ee595ea3b6c1461d706f1c5993754afd9404fdb3",
}
LITERATURE = 0.99


def check(scan: Path) -> None:
    for name, expected in SHA256.items():
        path = scan / name
        if not path.is_file() or sha256_of(path) != expected:
            raise BadInput(f"{path} is not SCAN's {name}", hint="make bench-scan SCAN=DIR")


def main(scan: Path) -> dict:
    check(scan)
    settings = Settings.load()
    folder = settings.runs / "scan"
    shutil.rmtree(folder, ignore_errors=True)
    seconds = {}

    def timed(name, function, *args, **kwargs):
        started = time.monotonic()
        result = function(*args, **kwargs)
        seconds[name] = round(time.monotonic() - started, 1)
        return result

    timed("prepare", prepare, [str(scan / "train.jsonl")], folder / "data", test=scan / "test.jsonl",
          near_duplicates="report")  # fmt: skip
    model = timed("train", finetune, folder / "data", load_recipe("scan"), folder / "model")
    with served({TUNED.name: model.folder}, folder, settings):
        result = timed("evaluate", run_evaluate, folder / "data" / "test.jsonl", TUNED.connection, folder,
                       workers=settings.batch_workers)  # fmt: skip
    exact_match = sum(row.scores["exact_match"] for row in result.rows if row.scores) / result.expected
    return {
        "bench": "scan",
        "ours": round(exact_match, 4),
        "baseline": LITERATURE,
        "ratio": round(exact_match / LITERATURE, 4),
        "n": result.expected,
        "failed": result.failed,
        "seconds": seconds | {"total": round(sum(seconds.values()), 1)},
    }


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: make bench-scan SCAN=DIR")
    print(json.dumps(main(Path(sys.argv[1]))))
