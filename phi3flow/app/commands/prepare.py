"""`phi3flow prepare`: chats in, sealed train, val and test out."""

import argparse
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from phi3flow.core.console import Outcome, table
from phi3flow.core.settings import Settings

if TYPE_CHECKING:
    from training.data.prepare import PreparedData

SENTENCE = "Check chats, drop duplicates and seal them into train, val and test."
EXAMPLE = "phi3flow prepare chats.jsonl --out runs/mine/data"


def add_arguments(parser: argparse.ArgumentParser, settings: Settings) -> None:
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="a JSONL file, or a hub id such as 'HuggingFaceH4/ultrachat_200k[train_sft[:1%%]]'",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write")
    parser.add_argument("--test", type=Path, metavar="FILE", help="a test set to keep as it is")
    parser.add_argument(
        "--near-duplicates",
        choices=("drop", "report"),
        default="drop",
        help="rows that nearly repeat a test row; report suits templated data (default drop)",
    )
    parser.add_argument(
        "--max-bad", type=int, default=0, metavar="N", help="skip up to N bad rows (default 0)"
    )


def run(args: argparse.Namespace, settings: Settings) -> Outcome:
    from training.data.prepare import prepare

    data = prepare(
        args.sources,
        args.out,
        test=args.test,
        near_duplicates=args.near_duplicates,
        max_bad=args.max_bad,
    )
    paths = {name: str(getattr(data, name)) for name in ("train", "val", "test", "manifest")}
    return Outcome(
        {"counts": asdict(data.counts), "paths": paths, "unchanged": data.unchanged},
        _text(data, args.near_duplicates),
    )


def _text(data: "PreparedData", near_duplicates: str) -> str:
    counts = data.counts
    near = "dropped" if near_duplicates == "drop" else "kept"
    rows = [
        ("read", counts.read),
        ("bad, skipped", counts.bad),
        ("exact duplicates, dropped", counts.exact_duplicates),
        ("prompts of the test set, dropped", counts.prompt_leaks),
        (f"near duplicates of the test set, {near}", counts.near_duplicates),
        ("train", counts.train),
        ("val", counts.val),
        ("test", counts.test),
    ]
    return "\n".join(
        [
            f"{data.folder}: {'unchanged' if data.unchanged else 'written'}",
            table(("", "rows"), [(name, f"{count:,}") for name, count in rows]),
            *_next(data.folder),
        ]
    )


def _next(data: Path) -> list[str]:
    """Lines to paste; the base model of the run is made once."""
    base = data.parent / "base"
    folder, model, tuned = (shlex.quote(str(path)) for path in (data, base, data.parent / "tuned"))
    train = f"phi3flow train --data {folder} --recipe tiny-cpu --model {model} --out {tuned}"
    if (base / "config.json").is_file():
        return [f"next: {train}"]
    return [f"next: phi3flow base --out {model}", f"then: {train}"]
