"""Held-out rows for weights whose arithmetic differs: as many exact answers as the model itself gives."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from deploy.scoring.load import load
from deploy.scoring.loopback import on_loopback
from deploy.verify.fidelity import Reference, exact_match
from evaluation.asking.test_set import require_as_prepared
from phi3flow.chats.rows import iterate_chats
from phi3flow.core.console import say
from phi3flow.core.lineage import read_manifest

ROWS = 200  # of a test file that the model's manifest leads to
ALLOWED_LOSS = 0.05  # of exact answers, as a share of the rows
WORKERS = 4


def held_out_rows(model: Path) -> Path | None:
    """The test file of the data that a model was trained on; None where its manifest leads to none."""
    inputs = (read_manifest(model) or {}).get("inputs", [])
    folders = [Path(found["path"]).parent for found in inputs if found["kind"] == "data"]
    for folder in (*folders, model.parent / "data"):
        if inputs and (folder / "test.jsonl").is_file():
            require_as_prepared(folder / "test.jsonl")
            return folder / "test.jsonl"
    return None


@contextmanager
def reference_from(model: Path, data: Path) -> Iterator[Reference]:
    """The first rows of `data`, and the share that the model answers exactly, less ALLOWED_LOSS."""
    with tempfile.TemporaryDirectory(prefix="phi3flow-") as folder:
        rows = Path(folder) / data.name
        with rows.open("w", encoding="utf-8") as file:
            for chat in islice(iterate_chats(data), ROWS):
                messages = [*chat.prompt, {"role": "assistant", "content": chat.reference}]
                file.write(json.dumps({"messages": [dict(message) for message in messages]}) + "\n")
        say("asking the model itself")
        with on_loopback(load(model, lambda: None), model.name) as endpoint:
            share = exact_match(endpoint, rows, WORKERS).share
        yield Reference(rows, max(0.0, share - ALLOWED_LOSS))
