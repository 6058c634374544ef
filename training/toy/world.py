"""The demo's facts: real ones for fine-tuning, and invented ones for the base model.

The real facts are in `training/toy/facts/*.csv`: one file for each kind of entity, one column for each
relation. The invented entities have the same kinds and relations, with values taken from real ones. So the
base model learns the words and the way to ask and answer, but nothing about Microsoft.
"""

import csv
import random
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from training.toy.wordings import TEXT

KINDS = ("elements", "countries", "planets", "companies")
INVENTED_PER_KIND = {"elements": 24, "countries": 28, "planets": 10, "companies": 18}


class Fact(NamedTuple):
    """One checkable statement, such as (companies, Microsoft, year, 1975)."""

    kind: str
    entity: str
    relation: str
    value: str


def real_facts() -> list[Fact]:
    """All real facts, in the order of the files."""
    return [fact for kind in KINDS for row in _rows(kind) for fact in _facts_of(kind, row)]


def invented_facts(rng: random.Random, taken: set[str]) -> list[Fact]:
    """Facts about entities that do not exist; their names are added to `taken`."""
    return [
        fact
        for kind, count in INVENTED_PER_KIND.items()
        for _ in range(count)
        for fact in _facts_of(kind, _invented_row(rng, kind, taken))
    ]


def unknown_fact(rng: random.Random, taken: set[str]) -> Fact:
    """A fact about an entity in no corpus: its name is not in `taken`, its value is empty."""
    kind = rng.choice(KINDS)
    return Fact(kind, _new_name(rng, kind, taken), rng.choice(relations_of(kind)), "")


def real_names() -> set[str]:
    return {row["name"] for kind in KINDS for row in _rows(kind)}


@cache
def real_words() -> list[str]:
    """Every name and value of the real facts, once each."""
    return sorted({cell for kind in KINDS for row in _rows(kind) for cell in row.values()})


def relations_of(kind: str) -> list[str]:
    return [column for column in _rows(kind)[0] if column != "name"]


@cache
def _rows(kind: str) -> list[dict[str, str]]:
    text = files("training.toy.facts").joinpath(f"{kind}.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def _facts_of(kind: str, row: dict[str, str]) -> Iterator[Fact]:
    return (Fact(kind, row["name"], column, value) for column, value in row.items() if column != "name")


def _invented_row(rng: random.Random, kind: str, taken: set[str]) -> dict[str, str]:
    name = _new_name(rng, kind, taken)
    taken.add(name)
    return {"name": name} | {relation: rng.choice(_rows(kind))[relation] for relation in relations_of(kind)}


def _new_name(rng: random.Random, kind: str, taken: set[str]) -> str:
    """A pronounceable name that is not taken, cased as its kind is: elements are common nouns."""
    while True:
        name = _syllables(rng, rng.choice([1, 2, 2])) + rng.choice(TEXT["endings"][kind])
        name = name if kind == "elements" else name.capitalize()
        if len(name) > 3 and name not in taken:
            return name


def _syllables(rng: random.Random, count: int) -> str:
    onsets, vowels = TEXT["onsets"], TEXT["vowels"]
    return "".join(rng.choice(onsets) + rng.choice(vowels) for _ in range(count)) + rng.choice(TEXT["codas"])
