"""What fine-tuning changed outside the domain: both models are asked the questions of the packs."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import compress, islice
from typing import NamedTuple

import numpy as np

from evaluation.pacing import pace_of, paced
from evaluation.packs.pack_file import PackRow
from evaluation.packs.refusals import read_answer
from evaluation.scored_rows import Answer, AnsweredPair, ScoredRow, answered_pairs
from evaluation.statistics.contrasts import Contrast
from evaluation.statistics.intervals import paired_proportions
from evaluation.statistics.scores import Bools, Column
from phi3flow.core.console import say
from phi3flow.phi3_contract import Endpoint, EndpointError, Message, Sampling

SaysDeclined = Callable[[Sequence[Message], str], bool | None]
"""Whether an answer declines what a conversation asks; None if the judge cannot say."""


@dataclass(frozen=True)
class PackSlice:
    """`n` rows of one kind, and how many of them each model passed."""

    n: int
    base: int
    tuned: int


@dataclass(frozen=True)
class LostRow:
    """A question that base passed and tuned did not, with both answers."""

    id: str
    slice: str
    question: str
    base: str
    tuned: str


@dataclass(frozen=True)
class PackResult(Contrast):
    """Shares passed of the `n` rows that both models answered, and their paired difference.

    `unsure` counts the answers whose wording leaves it open whether they decline, `judged` those of them that
    a judge decided.
    """

    failed: int
    slices: dict[str, PackSlice]
    lost: list[LostRow]
    gained: int
    unsure: int = 0
    judged: int = 0


class Checked(NamedTuple):
    """Whether an answer passes, and whether its wording left doubt and a judge decided."""

    passes: bool
    unsure: bool
    judged: bool


def run_packs(
    packs: Mapping[str, Sequence[PackRow]],
    base: Endpoint,
    tuned: Endpoint,
    *,
    workers: int,
    judge: SaysDeclined | None = None,
) -> dict[str, PackResult]:
    """Ask both endpoints every question of every pack, at most `workers` at a time. Failures are counted."""
    rows = [row for pack in packs.values() for row in pack]
    if not rows:
        return {}
    say(f"asking both models {len(rows)} questions outside the domain: {', '.join(packs)}")
    with ThreadPoolExecutor(max_workers=workers) as pool:
        answers = [pool.map(partial(_ask, paced(endpoint, workers)), rows) for endpoint in (base, tuned)]
        answered = [
            ScoredRow(number, row.id, row.slice, row.messages, "", *both)
            for number, (row, *both) in enumerate(zip(rows, *answers, strict=True), 1)
        ]
    of_packs = iter(answered)
    return {
        name: score_pack(pack, list(islice(of_packs, len(pack))), judge=judge, workers=workers)
        for name, pack in packs.items()
    }


def _ask(endpoint: Endpoint, row: PackRow) -> Answer | None:
    def answer() -> Answer | None:
        try:
            return Answer(endpoint.complete(row.messages, Sampling()), None)
        except EndpointError:
            return None

    with suppress(EndpointError):
        return pace_of(endpoint).ask(answer, failed=lambda found: found is None)
    return None


def score_pack(
    rows: Sequence[PackRow],
    answered: Sequence[ScoredRow],
    *,
    judge: SaysDeclined | None = None,
    workers: int = 1,
) -> PackResult:
    """Check both answers of every row; `answered` carries the pack row's id as `prompt_id`."""
    pairs = {pair.row.prompt_id: pair for pair in answered_pairs(answered)}
    asked = [row for row in rows if row.id in pairs]
    named = [(row.id, row.slice, pairs[row.id]) for row in asked]
    answers = [(row, answer.text) for row in asked for answer in pairs[row.id][1:]]
    with ThreadPoolExecutor(max_workers=workers) as pool:
        checked = list(pool.map(lambda one: check(one[0], one[1], judge), answers))
    base, tuned = np.array([one.passes for one in checked], dtype=bool).reshape(-1, 2).T
    return pack_result(
        base,
        tuned,
        named,
        failed=len(rows) - len(asked),
        slices=_slices(asked, base, tuned),
        unsure=sum(one.unsure for one in checked),
        judged=sum(one.judged for one in checked),
    )


def check(row: PackRow, answer: str, judge: SaysDeclined | None = None) -> Checked:
    """One answer. A judge is asked only where the wording leaves it open whether the answer declines."""
    reading = read_answer(answer)
    unsure = row.about_declining and not reading.sure
    verdict = judge(row.messages, answer) if judge and unsure else None
    declines = reading.declines if verdict is None else verdict
    return Checked(row.passes(answer, declines=declines), unsure, verdict is not None)


def _slices(asked: Sequence[PackRow], base: Bools, tuned: Bools) -> dict[str, PackSlice]:
    slices = {}
    for name in dict.fromkeys(row.slice for row in asked):
        inside = np.array([row.slice == name for row in asked])
        slices[name] = PackSlice(int(inside.sum()), int(base[inside].sum()), int(tuned[inside].sum()))
    return slices


def pack_result(
    base: Bools,
    tuned: Bools,
    rows: Sequence[tuple[str, str, AnsweredPair]],
    *,
    failed: int,
    slices: dict[str, PackSlice],
    unsure: int = 0,
    judged: int = 0,
) -> PackResult:
    """`base` and `tuned` say which of `rows` each model passed; a row has an id, a slice and its answers."""
    column = Column(base.astype(float), tuned.astype(float))
    lost = [
        LostRow(name, slice, pair.row.messages[-1]["content"], pair.base.text, pair.tuned.text)
        for name, slice, pair in compress(rows, base & ~tuned)
    ]
    counts = {"failed": failed, "gained": int((tuned & ~base).sum()), "unsure": unsure, "judged": judged}
    return PackResult.of(column, paired_proportions(*column), slices=slices, lost=lost, **counts)
