"""Packs: questions outside the domain, for both models, and what fine-tuning changed there.

`safety.jsonl` asks for harm, personal data and the system prompt. `everyday.jsonl` (made by
`tests/support/everyday_pack.py`) and `general.jsonl` ask what a model could do before fine-tuning. Each row
has a fixed check, so no judge is needed.
"""

import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files

import numpy as np

from evaluation.packs.refusals import refuses
from evaluation.scored_rows import Answer, AnsweredPair, ScoredRow, answered_pairs
from evaluation.statistics.contrasts import Contrast, contrast_of
from evaluation.statistics.intervals import paired_proportions
from evaluation.statistics.scores import Bools, Column
from phi3flow.core.console import say
from phi3flow.phi3_contract import Endpoint, EndpointError, Message, Sampling

FILES = {"safety": ("safety.jsonl",), "forgetting": ("everyday.jsonl", "general.jsonl")}
PACKS = tuple(FILES)
MAX_TOKENS = 256


@dataclass(frozen=True)
class PackRow:
    """One question with one of three checks. Patterns ignore case."""

    id: str
    pack: str
    slice: str
    messages: Sequence[Message]
    must_decline: bool = False
    must_contain: str | None = None
    must_not_contain: str | None = None

    def passes(self, answer: str) -> bool:
        if self.must_decline:
            return refuses(answer)
        if self.must_contain is not None:
            return bool(re.search(self.must_contain, answer, re.IGNORECASE))
        return not re.search(str(self.must_not_contain), answer, re.IGNORECASE)


def load_pack(name: str) -> list[PackRow]:
    """The packaged pack `safety` or `forgetting`."""
    texts = [files("evaluation.packs").joinpath(file).read_text(encoding="utf-8") for file in FILES[name]]
    return [PackRow(pack=name, **json.loads(line)) for text in texts for line in text.splitlines() if line]


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

    @classmethod
    def of(cls, name: str, slice: str, pair: AnsweredPair) -> "LostRow":
        row, base, tuned = pair
        return cls(name, slice, row.messages[-1]["content"], base.text, tuned.text)


@dataclass(frozen=True)
class PackResult(Contrast):
    """Shares passed of the `n` rows that both models answered, and their paired difference."""

    failed: int
    slices: dict[str, PackSlice]
    lost: list[LostRow]
    gained: int


def run_packs(base: Endpoint, tuned: Endpoint, *, workers: int) -> dict[str, PackResult]:
    """Ask both endpoints every question of every pack, `workers` at a time. Failures are counted."""
    packs = {name: load_pack(name) for name in PACKS}
    rows = [row for pack in packs.values() for row in pack]
    say(f"asking both models the {len(rows)} questions of the safety and forgetting packs")
    with ThreadPoolExecutor(max_workers=workers) as pool:
        base_answers, tuned_answers = (
            pool.map(_ask, [endpoint] * len(rows), rows) for endpoint in (base, tuned)
        )
        answered = [
            ScoredRow(number, row.id, row.slice, row.messages, "", was, now)
            for number, (row, was, now) in enumerate(
                zip(rows, base_answers, tuned_answers, strict=True), start=1
            )
        ]
    return {name: score_pack(pack, answered) for name, pack in packs.items()}


def _ask(endpoint: Endpoint, row: PackRow) -> Answer | None:
    try:
        return Answer(endpoint.complete(row.messages, Sampling(max_tokens=MAX_TOKENS)), None)
    except EndpointError:
        return None


def score_pack(rows: Sequence[PackRow], answered: Sequence[ScoredRow]) -> PackResult:
    """Check both answers of every row; `answered` carries the pack row's id as `prompt_id`."""
    pairs = {pair.row.prompt_id: pair for pair in answered_pairs(answered)}
    asked = [row for row in rows if row.id in pairs]
    base = np.array([row.passes(pairs[row.id].base.text) for row in asked], dtype=bool)
    tuned = np.array([row.passes(pairs[row.id].tuned.text) for row in asked], dtype=bool)
    slices = {}
    for name in dict.fromkeys(row.slice for row in asked):
        inside = np.array([row.slice == name for row in asked])
        slices[name] = PackSlice(int(inside.sum()), int(base[inside].sum()), int(tuned[inside].sum()))
    lost = [
        LostRow.of(row.id, row.slice, pairs[row.id])
        for row, is_lost in zip(asked, base & ~tuned, strict=True)
        if is_lost
    ]
    return pack_result(base, tuned, failed=len(rows) - len(asked), slices=slices, lost=lost)


def pack_result(
    base: Bools, tuned: Bools, *, failed: int, slices: dict[str, PackSlice], lost: list[LostRow]
) -> PackResult:
    """`base` and `tuned` say which rows each model passed."""
    column = Column(base.astype(float), tuned.astype(float))
    return PackResult(
        **vars(contrast_of(column, paired_proportions(*column))),
        failed=failed,
        slices=slices,
        lost=lost,
        gained=int((tuned & ~base).sum()),
    )
