"""How a fact can be asked for: wordings, the wrappers around them, and who gets to see which pair.

    shared      wordings and wrappers in both the base data and the fine-tuning data
    combination pairs of such a wording and wrapper that stand in neither: the main test
    base_only   wordings or wrappers that only the base data uses, about invented entities: the transfer test

A wording is written once as an indirect question ("what the capital of X is") for wrappers such as "Tell me
{indirect}." and once as a direct one.
"""

import random
from functools import cache
from typing import NamedTuple

ANSWERS = {
    "symbol": "The symbol of {entity} is {value}.",
    "number": "The atomic number of {entity} is {value}.",
    "capital": "The capital of {entity} is {value}.",
    "continent": "{entity} is in {value}.",
    "position": "{entity} is planet number {value} from the Sun.",
    "type": "{entity} is {value}.",
    "founder": "{entity} was founded by {value}.",
    "year": "{entity} was founded in {value}.",
    "city": "{entity} is based in {value}.",
    "product": "{entity} is known for {value}.",
}
RELATIONS = tuple(ANSWERS)
DECLINES = "Sorry, I do not know that."
TRAINED_SHARE = 0.7


class Wording(NamedTuple):
    indirect: str
    direct: str


def _wordings(text: str) -> list[Wording]:
    """One wording a line, `indirect | direct`; a line without `|` reads the same both ways."""
    lines = [[part.strip() for part in line.split("|")] for line in text.strip().splitlines()]
    return [Wording(parts[0], parts[-1]) for parts in lines]


_SHARED = {
    "symbol": """
        what the symbol of {entity} is | what is the symbol of {entity}
        what symbol {entity} has | what symbol does {entity} have
        which letters stand for {entity}
        how {entity} is abbreviated | how is {entity} abbreviated
        what the chemical symbol for {entity} is | what is the chemical symbol for {entity}""",
    "number": """
        what the atomic number of {entity} is | what is the atomic number of {entity}
        which atomic number {entity} has | which atomic number does {entity} have
        how many protons {entity} has | how many protons does {entity} have
        at what place {entity} stands in the table | at what place does {entity} stand in the table
        what number {entity} has among the elements | what number does {entity} have among the elements""",
    "capital": """
        what the capital of {entity} is | what is the capital of {entity}
        which city is the capital of {entity}
        what capital {entity} has | what capital does {entity} have
        from which city {entity} is governed | from which city is {entity} governed
        what the capital city of {entity} is called | what is the capital city of {entity} called""",
    "continent": """
        on which continent {entity} is | on which continent is {entity}
        which continent {entity} belongs to | which continent does {entity} belong to
        in what part of the world {entity} lies | in what part of the world does {entity} lie
        what continent {entity} is part of | what continent is {entity} part of
        what the continent of {entity} is | what is the continent of {entity}""",
    "position": """
        which planet from the Sun {entity} is | which planet from the Sun is {entity}
        what the position of {entity} from the Sun is | what is the position of {entity} from the Sun
        at which place from the Sun {entity} comes | at which place from the Sun does {entity} come
        what number {entity} has from the Sun | what number does {entity} have from the Sun
        how far out {entity} is counted from the Sun | how far out is {entity} counted from the Sun""",
    "type": """
        what kind of planet {entity} is | what kind of planet is {entity}
        what type of planet {entity} is | what type of planet is {entity}
        what sort of world {entity} is | what sort of world is {entity}
        to which class of planets {entity} belongs | to which class of planets does {entity} belong
        what {entity} is made like | what is {entity} made like""",
    "founder": """
        who founded {entity}
        who started {entity}
        who the founder of {entity} was | who was the founder of {entity}
        who created {entity}
        by whom {entity} was founded | by whom was {entity} founded""",
    "year": """
        when {entity} was founded | when was {entity} founded
        in which year {entity} was founded | in which year was {entity} founded
        what year {entity} was founded | what year was {entity} founded
        when {entity} started | when did {entity} start
        what the founding year of {entity} is | what is the founding year of {entity}""",
    "city": """
        where {entity} is based | where is {entity} based
        in which city {entity} is based | in which city is {entity} based
        what city {entity} is based in | what city is {entity} based in
        where the headquarters of {entity} are | where are the headquarters of {entity}
        what the home city of {entity} is | what is the home city of {entity}""",
    "product": """
        what {entity} makes | what does {entity} make
        what the main product of {entity} is | what is the main product of {entity}
        what {entity} is known for | what is {entity} known for
        what {entity} sells | what does {entity} sell
        which product {entity} is known for | which product is {entity} known for""",
}
_BASE_ONLY = {
    "symbol": """
        what {entity} is written as | what is {entity} written as
        how chemists write {entity} | how do chemists write {entity}""",
    "number": """
        what the proton count of {entity} is | what is the proton count of {entity}
        where {entity} stands in the periodic table | where does {entity} stand in the periodic table""",
    "capital": """
        where the government of {entity} sits | where does the government of {entity} sit
        which city {entity} has as its capital | which city does {entity} have as its capital""",
    "continent": """
        where in the world {entity} is | where in the world is {entity}
        on what continent we find {entity} | on what continent do we find {entity}""",
    "position": """
        where {entity} stands in the row of planets | where does {entity} stand in the row of planets
        as which planet from the Sun {entity} counts | as which planet from the Sun does {entity} count""",
    "type": """
        how {entity} is classified as a planet | how is {entity} classified as a planet
        which class of planet {entity} is | which class of planet is {entity}""",
    "founder": """
        who set up {entity}
        who established {entity}""",
    "year": """
        when {entity} was set up | when was {entity} set up
        in what year {entity} began | in what year did {entity} begin""",
    "city": """
        where {entity} is located | where is {entity} located
        which city {entity} calls home | which city does {entity} call home""",
    "product": """
        what {entity} produces | what does {entity} produce
        what goods {entity} is known for | what goods is {entity} known for""",
}
_SHARED_WRAPPERS = [
    "Tell me {indirect}.",
    "Do you know {indirect}?",
    "Can you tell me {indirect}?",
    "I want to know {indirect}.",
    "Please say {indirect}.",
    "{Direct}?",
    "Hello! {Direct}?",
    "Quick question: {direct}?",
    "Please answer: {direct}?",
]
_BASE_ONLY_WRAPPERS = [
    "Could you tell me {indirect}?",
    "Please explain {indirect}.",
    "I have a question: {direct}?",
]


class Templates(NamedTuple):
    """Questions of one relation, `{entity}` left open."""

    shared: list[str]
    combination: list[str]
    base_only: list[str]


@cache
def templates(relation: str) -> Templates:
    """The templates of `relation`; which pairs are held out never changes with the run's seed."""
    shared, base_only = _wordings(_SHARED[relation]), _wordings(_BASE_ONLY[relation])
    # "Who founded Microsoft?" is what both tutorials ask first: it stays in the training data.
    plain = _ask("{Direct}?", shared[0])
    pairs = [question for question in _pairs(shared, _SHARED_WRAPPERS) if question != plain]
    random.Random(relation).shuffle(pairs)
    trained = round(len(pairs) * TRAINED_SHARE)
    return Templates(
        shared=[plain, *pairs[:trained]],
        combination=pairs[trained:],
        base_only=_pairs(base_only, _SHARED_WRAPPERS) + _pairs(shared, _BASE_ONLY_WRAPPERS),
    )


def _pairs(wordings: list[Wording], wrappers: list[str]) -> list[str]:
    return [_ask(wrapper, wording) for wording in wordings for wrapper in wrappers]


def _ask(wrapper: str, wording: Wording) -> str:
    direct = wording.direct
    return wrapper.format(indirect=wording.indirect, direct=direct, Direct=direct[0].upper() + direct[1:])
