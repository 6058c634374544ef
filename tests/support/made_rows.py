"""A pack's row with an answer that passes and one that does not, and the texts that rows are made of."""

import tomllib
from pathlib import Path
from typing import Any, NamedTuple

TEXTS = Path(__file__).with_name("pack_texts")

Row = dict[str, Any]


class Made(NamedTuple):
    """A row of a pack without its id, an answer that passes its checks, and one that fails them."""

    row: Row
    right: str
    wrong: str


def texts_of(name: str) -> dict[str, Any]:
    return tomllib.loads((TEXTS / f"{name}.toml").read_text(encoding="utf-8"))


def cells_of(text: str) -> list[list[str]]:
    """The cells of each line, which ` | ` divides."""
    return [line.split(" | ") for line in text.strip().splitlines()]
