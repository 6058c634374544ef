"""The reference's log-likelihood under both models: what tuning changed even where no answer did.

Of each row the mean over the reference's tokens, in nats: a row counts once, however long its reference.
"""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from evaluation.answer_metrics import declines
from evaluation.metrics.reference_likelihood import Token, score_reference
from evaluation.rows import Judged, answered_pairs
from evaluation.statistics.scores import Column
from phi3flow.core.console import say
from phi3flow.phi3_contract import Endpoint, EndpointError

ROWS = 250  # each costs four requests that read a prompt; they are spread evenly over the file


class Likelihoods(NamedTuple):
    """A column over all lines, NaN where none was measured; or None, and why it cannot be had."""

    column: Column | None
    unavailable: str | None


class _Row(NamedTuple):
    base: float
    tuned: float
    error: str | None


def reference_likelihoods(
    rows: Sequence[Judged], base: Endpoint, tuned: Endpoint, *, workers: int
) -> Likelihoods:
    """Of `ROWS` lines that count at most. A line that fails is counted, told, and left out."""
    usable = [pair.row for pair in answered_pairs(rows[:: math.ceil(len(rows) / ROWS) or 1])]
    asked = [row for row in usable if not declines(row.reference)]
    if not asked:
        return Likelihoods(None, "no line counts")
    first = _score(asked[0], base, tuned)
    if first.error:
        return Likelihoods(None, first.error)
    say(f"asking both models how likely {len(asked)} references are")
    with ThreadPoolExecutor(max_workers=workers) as pool:
        scored = [first, *pool.map(lambda row: _score(row, base, tuned), asked[1:])]
    if failed := [one.error for one in scored if one.error]:
        say(f"log-likelihood: {len(failed)} of {len(asked)} references failed: {failed[0]}")
    columns = np.full((2, len(rows)), np.nan)
    for row, one in zip(asked, scored, strict=True):
        columns[:, row.line - 1] = one.base, one.tuned
    return Likelihoods(Column(*columns), None)


def _score(row: Judged, base: Endpoint, tuned: Endpoint) -> _Row:
    sides: list[list[Token]] = []
    for name, endpoint in (("base", base), ("tuned", tuned)):
        try:
            sides.append(score_reference(endpoint, row.messages, row.reference))
        except EndpointError as error:
            return _Row(math.nan, math.nan, f"{name}: {error}")
    if [token.id for token in sides[0]] != [token.id for token in sides[1]]:
        return _Row(math.nan, math.nan, "the two models split the reference into other tokens")
    was, now = (sum(token.logprob for token in side) / len(side) for side in sides)
    return _Row(was, now, None)
