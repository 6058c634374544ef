"""How to ask for a fact: wordings, the wrappers around them, and which data uses which pairs.

    shared      wordings and wrappers of both the base corpus and the fine-tuning data
    combination pairs of such a wording and wrapper that neither of them uses: the main test
    base_only   wordings or wrappers of the base corpus only, about invented entities: the transfer test

`wordings.toml` has the text. A wording has two forms: an indirect question ("what the capital of X is") for
wrappers such as "Tell me {indirect}.", and a direct one.
"""

import random
import tomllib
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

TEXT: dict[str, Any] = tomllib.loads(
    files("training.toy").joinpath("wordings.toml").read_text(encoding="utf-8")
)
ANSWERS: dict[str, str] = TEXT["answers"]
RELATIONS = tuple(ANSWERS)
DECLINES: str = TEXT["declines"]
TRAINED_SHARE = 0.7


class Wording(NamedTuple):
    indirect: str
    direct: str


class Templates(NamedTuple):
    """Questions of one relation, with `{entity}` to be filled in."""

    shared: list[str]
    combination: list[str]
    base_only: list[str]


@cache
def templates(relation: str) -> Templates:
    """The templates of `relation`. The held-out pairs do not depend on the run's seed."""
    shared, base_only = _wordings(TEXT["shared"][relation]), _wordings(TEXT["base_only"][relation])
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


def _wordings(text: str) -> list[Wording]:
    """One wording per line, `indirect | direct`; without `|` both forms are the same."""
    lines = [[part.strip() for part in line.split("|")] for line in text.splitlines()]
    return [Wording(parts[0], parts[-1]) for parts in lines]


def _pairs(wordings: list[Wording], wrappers: list[str]) -> list[str]:
    return [_ask(wrapper, wording) for wording in wordings for wrapper in wrappers]


def _ask(wrapper: str, wording: Wording) -> str:
    direct = wording.direct
    return wrapper.format(indirect=wording.indirect, direct=direct, Direct=direct[0].upper() + direct[1:])
