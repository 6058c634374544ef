"""What dpo and kto learn from: a file of preferences, read, divided and encoded."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from phi3flow.chats.system_prompt import recorded_system_prompt, shared_system_prompt
from phi3flow.core.errors import BadInput
from phi3flow.core.jsonl import BadRows
from training.data.encode_answers import EncodedAnswers, encode_answers
from training.data.preferences import MORE, Compared, Row, as_chat, read_compared_rows, require_no_bad
from training.loop.material import VALIDATION_ROWS, Material, short
from training.loop.start import Run, starting_tokenizer
from training.ranks import print0

if TYPE_CHECKING:
    from phi3flow.chats.chat import Chat


def from_preferences(run: Run) -> Material:
    """The rows of the file `run.data`. Raises BadInput with every bad row, before anything is written."""
    rows = read_compared_rows(run.data, run.recipe.method, run.test_files)
    tokenizer = starting_tokenizer(run, [])
    bad, drop = BadRows(), run.recipe.long_chats_rule == "drop"
    held_out = rows.held_out[:VALIDATION_ROWS]
    train, validation = (
        encode_answers(tokenizer, side, run.recipe.max_length, bad, drop=drop)
        for side in (rows.train, held_out)
    )
    require_no_bad(bad, run.data)
    counts = _counts(run, rows, train, validation)
    _tell(run, counts)
    return Material(
        tokenizer,
        train.rows,
        validation.rows,
        None,
        estimated=train.answers,
        probed=short(run, tokenizer, _different(held_out)),
        system_prompt=_system_prompt(run, rows),
        lengths={},
        origins=train.origins,
        counts=counts,
    )


def _counts(run: Run, rows: Compared, train: EncodedAnswers, validation: EncodedAnswers) -> dict[str, int]:
    """Raises BadInput where nothing is left."""
    if not (train.origins and validation.origins):
        what = f"{train.dropped + validation.dropped} rows are longer than max_length {run.recipe.max_length}"
        raise BadInput(f"{run.data}: {what}, and nothing is left", hint="raise max_length in the recipe")
    if run.recipe.method == "kto" and len(set(train.rows["label"])) == 1:
        kind = "up" if train.rows["label"][0] else "down"
        what = f"only thumbs {kind} are left to learn from, and kto takes both"
        raise BadInput(f"{run.data}: {what}; the others are held out or too long", hint=MORE)
    return {
        "train": len(train.origins),
        "held_out": len(validation.origins),
        "no_preference": rows.ties,
        "too_long": train.dropped + validation.dropped,
    }


def _tell(run: Run, counts: dict[str, int]) -> None:
    told = f"{counts['train']} rows to learn from, {counts['held_out']} held out, which ask other questions"
    left = {"without a preference": counts["no_preference"], "too long": counts["too_long"]}
    left_out = ", ".join(f"{count} {what}" for what, count in left.items() if count)
    print0(f"  {run.name}: {told}" + (f"; left out: {left_out}" if left_out else ""))


def _different(rows: Sequence[Row]) -> "list[Chat]":
    """A chat for each prompt, with the better answer."""
    chats = (as_chat(row, next(iter(row.answers))) for row in rows)
    return list({str(chat.prompt): chat for chat in chats}.values())


def _system_prompt(run: Run, rows: Compared) -> str:
    """The start's own, which its users have chatted with; without one, that of most rows."""
    known = recorded_system_prompt(Path(run.start)) if run.start else ""
    return known or shared_system_prompt(row.prompt for row in rows.train)
