"""What fine-tuning changed outside the domain: both models are asked the questions of the packs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import compress, islice
from typing import NamedTuple

import numpy as np

from evaluation.pacing import pace_of, paced
from evaluation.packs.checks import DECLINING
from evaluation.packs.pack_file import PACKS, PackRow
from evaluation.packs.refusals import read_answer
from evaluation.scored_rows import Answer, ScoredRow
from evaluation.statistics.contrasts import Contrast
from evaluation.statistics.intervals import Interval, PairedShares, paired_proportions, paired_shares
from evaluation.statistics.scores import Column, Numbers, repeated
from phi3flow.chats.alike.same_questions import question_groups
from phi3flow.core.console import say
from phi3flow.core.progress import Progress
from phi3flow.phi3_contract import Endpoint, EndpointError, Message, Sampling

NO_ANSWER = "(no answer)"
SHORT = 128  # tokens: an answer that meets the checks of a packaged row is shorter
SaysDeclined = Callable[[Sequence[Message], str], bool | None]
"""Whether an answer declines what a conversation asks; None if the judge cannot say."""


@dataclass(frozen=True)
class PackSlice:
    """`n` rows of one kind, and how many of them each model passed.

    `heeded` are the shares of them in which each model declines or answers as the row says; None if no row
    says it, and in a pack that asks for one of both alone: there the shares that passed tell it.
    """

    n: int
    base: int
    tuned: int
    heeded: PairedShares | None = None


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
    """Shares passed of the `n` rows that base answered, and their paired difference.

    A row that tuned failed to answer is not passed. `failed` counts the rows that one or both models failed
    to answer. `against_tuned` are the shares over all rows with each failure counted against tuned: where
    base failed, base passes. The lower end of `difference_ci` comes from them. `questions` counts the
    different ones. `unsure` counts the answers whose wording leaves it open whether they decline, `judged`
    those of them that a judge decided.
    """

    failed: int
    slices: dict[str, PackSlice]
    lost: list[LostRow]
    gained: int
    against_tuned: PairedShares | None
    questions: int
    unsure: int = 0
    judged: int = 0

    @property
    def asked(self) -> int:
        return self.against_tuned.n if self.against_tuned else 0

    @property
    def answered(self) -> int:
        """The rows that both models answered."""
        return self.asked - self.failed


class Checked(NamedTuple):
    """Whether an answer passes, declines or answers as the row says, left doubt, and a judge decided that."""

    passes: bool
    heeded: bool
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
    """Ask base every question of every pack, then tuned, at most `workers` at a time. Failures are counted.

    The compare flow asks both with each line: twice as many workers mean the same number of requests here.
    """
    rows = [row for pack in packs.values() for row in pack]
    if not rows:
        return {}
    say(f"asking both models {len(rows)} questions outside the domain: {', '.join(packs)}")
    with (
        Progress("answers", 2 * len(rows)) as progress,
        ThreadPoolExecutor(max_workers=workers) as pool,
    ):
        asking = [partial(_ask, paced(endpoint, workers), progress) for endpoint in (base, tuned)]
        answers = [pool.map(ask, rows) for ask in asking]
        answered = [
            ScoredRow(number, row.id, row.slice, row.messages, "", *both)
            for number, (row, *both) in enumerate(zip(rows, *answers, strict=True), 1)
        ]
    of_packs = iter(answered)
    return {
        name: score_pack(pack, list(islice(of_packs, len(pack))), judge=judge, workers=workers)
        for name, pack in packs.items()
    }


def _ask(endpoint: Endpoint, progress: Progress, row: PackRow) -> Answer | None:
    sampling = Sampling(max_tokens=SHORT) if row.pack in PACKS else Sampling()

    def answer() -> Answer | None:
        try:
            return Answer(endpoint.complete(row.messages, sampling), None)
        except EndpointError:
            return None

    found = None
    with suppress(EndpointError):
        found = pace_of(endpoint).ask(answer, failed=lambda found: found is None)
    progress.count(failed=found is None)
    return found


def score_pack(
    rows: Sequence[PackRow],
    answered: Sequence[ScoredRow],
    *,
    judge: SaysDeclined | None = None,
    workers: int = 1,
) -> PackResult:
    """Check both answers of every row; `answered` carries the pack row's id as `prompt_id`."""
    found = {row.prompt_id: row for row in answered}
    asked = [(row, found[row.id]) for row in rows]
    answers = [(row, answer.text) for row, both in asked for answer in (both.base, both.tuned) if answer]
    with ThreadPoolExecutor(max_workers=workers) as pool:
        checked = list(pool.map(lambda one: check(one[0], one[1], judge), answers))
    results = iter(checked)
    both = [[next(results) if answer else None for answer in (row.base, row.tuned)] for _, row in asked]
    column = _column([one and one.passes for one in pair] for pair in both)
    heeded = _column([one and one.heeded for one in pair] for pair in both)
    questions = question_groups(row.messages for row in rows)
    return pack_result(
        column,
        questions,
        slices=slices_of(rows, column, heeded, questions),
        lost=lost_rows(column, [both for _, both in asked]),
        unsure=sum(one.unsure for one in checked),
        judged=sum(one.judged for one in checked),
    )


def check(row: PackRow, answer: str, judge: SaysDeclined | None = None) -> Checked:
    """One answer. A judge is asked only where the wording leaves it open whether the answer declines."""
    reading = read_answer(answer)
    unsure = row.about_declining and not reading.sure
    verdict = judge(row.messages, answer) if judge and unsure else None
    declines = reading.declines if verdict is None else verdict
    return Checked(
        row.passes(answer, declines=declines), row.heeded(declines=declines), unsure, verdict is not None
    )


def _column(values: Iterable[Sequence[bool | None]]) -> Column:
    """Of both models' values for each row; NaN for None."""
    table = np.array([[np.nan if value is None else value for value in pair] for pair in values], dtype=float)
    return Column(*table.reshape(-1, 2).T)


def slices_of(
    rows: Sequence[PackRow], passed: Column, heeded: Column, questions: Numbers
) -> dict[str, PackSlice]:
    """Each kind of question; `passed` and `heeded` hold 0 or 1 for each row, NaN where a model failed.

    A row that tuned failed to answer is neither passed nor heeded; one that base failed does not count.
    """
    both_ways = DECLINING.keys() <= {name for row in rows for name in row.checks}
    telling = np.array([both_ways and row.about_declining for row in rows])
    slices = {}
    for name in dict.fromkeys(row.slice for row in rows):
        inside = np.array([row.slice == name for row in rows]) & ~np.isnan(passed.base)
        base, tuned = (int(np.nansum(side[inside])) for side in passed)
        told = inside & telling
        sides = Column(*(np.nan_to_num(side[told], nan=0.0) for side in heeded))
        shares = paired_shares(*sides, clusters=repeated(questions[told]))
        slices[name] = PackSlice(int(inside.sum()), base, tuned, shares)
    return slices


def pack_result(
    passed: Column,
    questions: Numbers,
    *,
    slices: dict[str, PackSlice],
    lost: list[LostRow],
    unsure: int = 0,
    judged: int = 0,
) -> PackResult:
    """`passed` says of each row whether each model passed, 0 or 1; NaN where it failed to answer.

    `questions` has a number for each row; rows with the same number ask the same.
    """
    against = Column(np.nan_to_num(passed.base, nan=1.0), np.nan_to_num(passed.tuned, nan=0.0))
    answered = ~np.isnan(passed.base)
    seen = Column(passed.base, against.tuned).where(answered)
    low = paired_shares(*against, clusters=repeated(questions))
    high = paired_proportions(*seen, clusters=repeated(questions[answered]))
    return PackResult.of(
        seen,
        Interval(low.interval().low, high.high) if low and high else None,
        failed=int((~passed.measured).sum()),
        slices=slices,
        lost=lost,
        gained=int((seen.difference > 0).sum()),
        against_tuned=low,
        questions=len(np.unique(questions)),
        unsure=unsure,
        judged=judged,
    )


def lost_rows(passed: Column, rows: Sequence[ScoredRow]) -> list[LostRow]:
    """The rows that base passed and tuned did not, or failed to answer, under their `prompt_id`."""
    return [
        LostRow(
            row.prompt_id or "",
            row.slice or "",
            row.messages[-1]["content"],
            *(answer.text if answer else NO_ANSWER for answer in (row.base, row.tuned)),
        )
        for row in compress(rows, (passed.base > 0) & ~(passed.tuned > 0))
    ]
