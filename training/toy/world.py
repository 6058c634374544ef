"""The demo's facts, and how to ask for them.

The real facts, for fine-tuning, are in `facts/*.csv`: one file for each kind of entity, one column for each
relation. The invented entities, for the base model, have the same kinds and relations, with values taken from
real ones: the base model learns the words and the way to ask and answer, but nothing about Microsoft.

`wordings.toml` has the questions of a relation and the wrappers around them:

    shared      wordings and wrappers of both the base corpus and the fine-tuning data
    combination pairs of such a wording and wrapper that neither of them uses: the main test
    base_only   wordings or wrappers of the base corpus only, about invented entities: the transfer test
"""

import csv
import random
import tomllib
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

TEXT: dict[str, Any] = tomllib.loads((files("training.toy") / "wordings.toml").read_text(encoding="utf-8"))
ANSWERS: dict[str, str] = TEXT["answers"]
RELATIONS = tuple(ANSWERS)
DECLINES: str = TEXT["declines"]
TRAINED_SHARE = 0.7
KINDS = ("elements", "countries", "planets", "companies")
INVENTED_PER_KIND = {"elements": 24, "countries": 28, "planets": 10, "companies": 18}


class Fact(NamedTuple):
    """One checkable statement, such as (Microsoft, year, 1975)."""

    entity: str
    relation: str
    value: str


class Templates(NamedTuple):
    """Questions of one relation, with `{entity}` to be filled in."""

    shared: list[str]
    combination: list[str]
    base_only: list[str]


@cache
def templates(relation: str) -> Templates:
    """The templates of `relation`. The held-out pairs do not depend on the run's seed."""
    shared, base_only = TEXT["shared"][relation], TEXT["base_only"][relation]
    # "Who founded Microsoft?" is what both tutorials ask first: it stays in the training data.
    plain = _ask("{Direct}?", shared[0])
    pairs = [question for question in _pairs(shared, TEXT["shared_wrappers"]) if question != plain]
    random.Random(relation).shuffle(pairs)
    trained = round(len(pairs) * TRAINED_SHARE)
    return Templates(
        shared=[plain, *pairs[:trained]],
        combination=pairs[trained:],
        base_only=_pairs(base_only, TEXT["shared_wrappers"]) + _pairs(shared, TEXT["base_only_wrappers"]),
    )


def _pairs(wordings: Sequence[Sequence[str]], wrappers: Sequence[str]) -> list[str]:
    return [_ask(wrapper, forms) for forms in wordings for wrapper in wrappers]


def _ask(wrapper: str, forms: Sequence[str]) -> str:
    indirect, direct = forms[0], forms[-1]
    return wrapper.format(indirect=indirect, direct=direct, Direct=direct[0].upper() + direct[1:])


def real_facts() -> list[Fact]:
    """All real facts, in the order of the files."""
    return [fact for kind in KINDS for row in _rows(kind) for fact in _facts_of(row)]


def invented_facts(rng: random.Random, taken: set[str]) -> list[Fact]:
    """Facts about entities that do not exist; their names are added to `taken`."""
    return [
        fact
        for kind, count in INVENTED_PER_KIND.items()
        for _ in range(count)
        for fact in _facts_of(_invented_row(rng, kind, taken))
    ]


def unknown_fact(rng: random.Random, taken: set[str]) -> Fact:
    """A fact about an entity in no corpus: its name is not in `taken`, its value is empty."""
    kind = rng.choice(KINDS)
    return Fact(new_name(rng, kind, taken), rng.choice(_relations_of(kind)), "")


def real_names() -> set[str]:
    return {row["name"] for kind in KINDS for row in _rows(kind)}


@cache
def real_words() -> list[str]:
    """Every name and value of the real facts, once each."""
    return sorted({cell for kind in KINDS for row in _rows(kind) for cell in row.values()})


@cache
def _rows(kind: str) -> list[dict[str, str]]:
    text = (files("training.toy.facts") / f"{kind}.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def _relations_of(kind: str) -> list[str]:
    return [column for column in _rows(kind)[0] if column != "name"]


def _facts_of(row: dict[str, str]) -> Iterator[Fact]:
    return (Fact(row["name"], column, value) for column, value in row.items() if column != "name")


def _invented_row(rng: random.Random, kind: str, taken: set[str]) -> dict[str, str]:
    name = new_name(rng, kind, taken)
    taken.add(name)
    return {"name": name} | {relation: rng.choice(_rows(kind))[relation] for relation in _relations_of(kind)}


def new_name(rng: random.Random, kind: str, taken: set[str]) -> str:
    """A pronounceable name that is not taken, cased as its kind is: elements are common nouns."""
    while True:
        name = _syllables(rng, rng.choice([1, 2, 2])) + rng.choice(TEXT["endings"][kind])
        name = name if kind == "elements" else name.capitalize()
        if len(name) > 3 and name not in taken:
            return name


def _syllables(rng: random.Random, count: int) -> str:
    onsets, vowels = TEXT["onsets"], TEXT["vowels"]
    return "".join(rng.choice(onsets) + rng.choice(vowels) for _ in range(count)) + rng.choice(TEXT["codas"])
