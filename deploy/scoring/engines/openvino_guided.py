"""Answers of the openvino engine that follow a grammar, token by token.

GenAI has structured output, too, but takes every vocabulary for raw text. That of Phi-3 is not: a word there
begins with a sign for its blank, so OpenVINO 2026.4 finds no token where the schema wants a blank.
"""

import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from deploy.scoring.engines.openvino_logits import AT_ONCE, Reading
from deploy.scoring.guide import Guide

if TYPE_CHECKING:
    import numpy as np


class Vocabulary(NamedTuple):
    """What `Guides` takes."""

    tokenizer: str
    size: int
    stop_ids: frozenset[int]


class Guided(NamedTuple):
    """How to answer: temperature 0 is greedy; `seed` None draws other numbers each time."""

    grammar: str
    temperature: float
    top_p: float
    seed: int | None


class TooComplex(Exception):
    """The guide has given up."""


def guided_tokens(
    reading: Reading, guide: Guide, prompt: Sequence[int], asked: Guided
) -> Iterator[int | None]:
    """The answer's tokens, after None for each piece of the prompt: other answers go on in between.

    There is no end but the reader's. Raises TooComplex.
    """
    drawn = random.Random(asked.seed)
    for start in range(0, len(prompt), AT_ONCE):
        logits = reading.read(prompt[start : start + AT_ONCE])[-1]
        yield None
    while True:
        token = _chosen(logits, guide.allowed(), asked, drawn)
        if error := guide.accept(token):
            raise TooComplex(error)
        yield token
        logits = reading.read([token])[-1]


def _chosen(logits: "np.ndarray", allowed: "np.ndarray", asked: Guided, drawn: random.Random) -> int:
    """The most likely of the allowed tokens, or one of their nucleus (Holtzman et al. 2020).

    As `sampling`, but for one row and without torch, which Azure's server of an export does not have.
    """
    import numpy as np

    scores = np.where(allowed, logits.astype(np.float64), -np.inf)
    if not asked.temperature:
        return int(scores.argmax())
    likely = np.exp((scores - scores.max()) / asked.temperature)
    order = np.argsort(-likely, kind="stable")
    cumulative = (likely[order] / likely.sum()).cumsum()
    nucleus = int(np.searchsorted(cumulative, asked.top_p)) + 1
    last = min(nucleus, len(order)) - 1
    return int(order[min(np.searchsorted(cumulative, drawn.random() * cumulative[last], side="right"), last)])
