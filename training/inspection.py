"""`train --inspect`: chats token by token, with the tokens that count toward the loss, and all lengths."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi3flow.chats.rows import load_split
from phi3flow.core.console import table
from training.data.encode import IGNORED, encode_chats, packed
from training.loop.material import Material
from training.loop.preference_material import from_preferences
from training.loop.start import Run, starting_tokenizer
from training.recipes.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def inspect(data: Path, recipe: Recipe, *, model: str | None, rows: int) -> str:
    """The first `rows` chats token by token, then the lengths of all. Loads no weights; raises BadInput."""
    run = Run(data, recipe, Path(), "inspect", model or recipe.model, 0)
    chats = load_split(data / "train.jsonl")
    tokenizer = starting_tokenizer(run, chats)
    encoded, lengths = encode_chats(tokenizer, chats, recipe.max_length, recipe.long_chats_rule)
    shown = [_row(tokenizer, encoded[i]) for i in range(min(rows, len(encoded)))]
    told = lengths.sentence(recipe.long_chats_rule, recipe.max_length)
    return "\n\n".join([*shown, _lengths(encoded, recipe), *([told] if told else [])])


def inspect_preferences(
    data: Path, recipe: Recipe, out: Path, *, model: str | None, rows: int
) -> tuple[str, dict[str, Any]]:
    """The same for a file of preferences, an answer for each text; and what a training would take.

    `out` is the model folder to be, whose run's test questions are refused.
    """
    run = Run(data, recipe, out, out.name, model or recipe.model, 0)
    material = from_preferences(run)
    shown = [_answer(material, i) for i in range(min(rows, len(material.estimated)))]
    steps = recipe.optimiser_steps(len(material.train))
    plan: dict[str, Any] = {"method": recipe.method, **(material.counts or {}), "steps": steps}
    lines = [[name.replace("_", " "), str(value)] for name, value in plan.items()]
    return "\n\n".join([*shown, _lengths(material.estimated, recipe), table(["a training", ""], lines)]), plan


def _answer(material: Material, number: int) -> str:
    """An answer token by token, under the place of its row."""
    each = len(material.estimated) // len(material.train)
    return _tokens(material.tokenizer, material.estimated[number], material.origins[number // each])


def check_lengths(data: Path, recipe: Recipe, model: str | None) -> list[str]:
    """What the recipe does to chats that are too long, a line for each split. Raises BadInput for bad chats.

    Raises Phi3flowError where the tokenizer cannot be had.
    """
    run = Run(data, recipe, Path(), "check", model or recipe.model, 0)
    splits = {name: load_split(data / f"{name}.jsonl") for name in ("train", "val")}
    tokenizer = starting_tokenizer(run, splits["train"])
    rule, told = recipe.long_chats_rule, []
    for name, chats in splits.items():
        lengths = encode_chats(tokenizer, chats, recipe.max_length, rule).lengths
        told += [
            f"{name}: {sentence}" for sentence in [lengths.sentence(rule, recipe.max_length)] if sentence
        ]
    return told


def _row(tokenizer: "PreTrainedTokenizerBase", row: dict[str, Any]) -> str:
    return _tokens(tokenizer, row, f"train.jsonl:{row['line']}")


def _tokens(tokenizer: "PreTrainedTokenizerBase", row: dict[str, Any], origin: str) -> str:
    counted = sum(label != IGNORED for label in row["labels"])
    head = f"{origin}: {len(row['labels'])} tokens, {counted} count toward the loss"
    tokens = tokenizer.convert_ids_to_tokens(row["input_ids"])
    lines = [
        [str(position), str(token_id), "yes" if label != IGNORED else "", repr(token)]
        for position, (token_id, label, token) in enumerate(
            zip(row["input_ids"], row["labels"], tokens, strict=True)
        )
    ]
    return f"{head}\n{table(['position', 'id', 'loss', 'token'], lines)}"


def _lengths(encoded: Any, recipe: Recipe) -> str:
    lengths = sorted(len(ids) for ids in encoded["input_ids"])
    counted = sum(label != IGNORED for labels in encoded["labels"] for label in labels)
    total = sum(lengths)
    lines = [
        ["examples", str(len(lengths))],
        ["tokens", str(total)],
        ["assistant tokens (count toward the loss)", f"{counted} ({counted / total:.0%})"],
        ["shortest, median, longest", f"{lengths[0]}, {lengths[len(lengths) // 2]}, {lengths[-1]}"],
        ["max_length", str(recipe.max_length)],
    ]
    if recipe.packing:
        count = len(packed(encoded, recipe.max_length))
        filled = total / (count * recipe.max_length)
        lines.append(["packed rows", f"{count}, {filled:.0%} full, no chat sees another"])
    return table(["training data", ""], lines)
