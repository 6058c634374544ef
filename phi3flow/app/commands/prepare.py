"""`phi3flow prepare`: chats in; train, val and a held-out test set out."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Argument, Option

from phi3flow.core.console import Outcome, table
from phi3flow.core.errors import BadInput
from phi3flow.core.files import for_owner_alone
from phi3flow.core.folder_lock import one_writer
from phi3flow.core.lineage import MANIFEST
from phi3flow.core.sides import BASE

if TYPE_CHECKING:
    from training.data.prepare import PreparedData


@for_owner_alone()
@one_writer
def prepare(
    sources: Annotated[
        list[str],
        Argument(
            metavar="SOURCE...",
            help="Files (JSON Lines, JSON, CSV, XLSX, Parquet, Arrow; also gzipped), folders, or a hub id "
            "such as 'HuggingFaceH4/ultrachat_200k[train_sft[:1%]]' or 'openai/gsm8k:main[train]'.",
        ),
    ],
    *,
    out: Annotated[Path, Option(metavar="DIR", help="Folder to write.")],
    test: Annotated[
        Path | None,
        Option(metavar="FILE", help="A test set to keep as it is (default: a share of SOURCE is held out)."),
    ] = None,
    near_duplicates: Annotated[
        Literal["drop", "report"],
        Option(help="What to do with rows that nearly repeat a test row; report suits templated data."),
    ] = "drop",
    max_bad: Annotated[int, Option(metavar="N", help="Skip up to N bad rows.")] = 0,
    columns: Annotated[
        str,
        Option(
            metavar="NAME=COLUMN,...",
            help="Columns of another shape, as question=Frage,answer=Antwort (default: known names).",
        ),
    ] = "",
    model: Annotated[
        str | None,
        Option(
            metavar="ID_OR_DIR",
            help="Count the chats' tokens for this model (default: the one in base/ beside DIR).",
        ),
    ] = None,
    strict: Annotated[bool, Option("--strict", help="Call a row bad instead of repairing it.")] = False,
) -> Outcome:
    """Check chats, drop duplicates and split them into train, val and test.

    example: phi3flow prepare chats.jsonl --out runs/mine/data
    """
    from evaluation.verdict.primary import suggest_primary
    from phi3flow.app.foresight import Start, warnings
    from phi3flow.chats.row_shapes import parse_columns
    from phi3flow.chats.rows import load_split
    from training.data.lengths import distribution
    from training.data.prepare import prepare
    from training.data.small_slices import small_slices

    data = prepare(
        sources,
        out,
        test=test,
        near_duplicates=near_duplicates,
        max_bad=max_bad,
        columns=parse_columns(columns),
        strict=strict,
    )
    splits = {name: load_split(path) for name, path in data.files.items()}
    start = Start(data.folder.parent / BASE.name, model)
    try:
        sizes, warned = start.token_counts(splits), []
    except BadInput as error:
        if model:
            raise
        sizes, warned = (
            None,
            [str(error)],
        )  # the base that happens to lie there may not be the one they are for
    lengths = distribution(sizes) if sizes else None
    warned += warnings(splits, start.recipe, sizes)
    warned += small_slices(splits["test"])
    primary = suggest_primary(chat.reference for chat in splits["test"])
    paths = {name: str(path) for name, path in data.files.items()}
    paths["manifest"] = str(data.folder / MANIFEST)
    return Outcome(
        {
            "counts": asdict(data.counts),
            "intake": data.intake,
            "paths": paths,
            "unchanged": data.unchanged,
            "lengths": lengths.told() if lengths else None,
            "warnings": warned,
            "primary": asdict(primary),
        },
        "\n".join(
            [
                *_text(data, near_duplicates),
                *([lengths.sentence()] if lengths else []),
                f"metric that fits: {primary.primary}; {primary.why}",
                *(f"warning: {each}" for each in warned),
                *start.next_commands(data.folder),
            ]
        ),
    )


def _text(data: "PreparedData", near_duplicates: str) -> list[str]:
    counts = data.counts
    near = "dropped" if near_duplicates == "drop" else "kept"
    rows = [
        ("read", counts.read),
        ("bad, skipped", counts.bad),
        ("exact duplicates, dropped", counts.exact_duplicates),
        ("prompts of the test set, dropped", counts.prompt_leaks),
        (f"near duplicates of the test set, {near}", counts.near_duplicates),
        ("copies of a question, moved to the split of the others", counts.moved),
        ("train", counts.train),
        ("val", counts.val),
        ("test", counts.test),
    ]
    return [
        f"{data.folder}: {'unchanged' if data.unchanged else 'written'}",
        table(("", "rows"), [(name, f"{count:,}") for name, count in rows]),
        *_told(data.intake),
    ]


def _told(intake: Mapping[str, Any]) -> Iterator[str]:
    """What reading did beside taking rows as they are."""
    for file, container in intake.get("containers", {}).items():
        if container not in ("JSON Lines", "hub"):
            yield f"read {file} as {container}"
    for kind, rows in intake.get("repairs", {}).items():
        yield f"repaired: {kind}: {rows:,} rows"
    if unused := intake.get("unused_fields", {}):
        yield "fields not used: " + ", ".join(f"{name} ({rows:,} rows)" for name, rows in unused.items())
    for note, rows in intake.get("notes", {}).items():
        yield f"note: {note}: {rows:,} rows"
    if left_out := intake.get("left_out", []):
        yield "not read: " + ", ".join(left_out)
