"""How often do the 95 % intervals contain the truth, and how often is a model promoted that is no better?

    make bench-coverage

Simulates 2 000 test files of 200 rows for each of three truths and compares them with the packaged gate.
Answers are drawn from six with known exact match and token F1. In the last truth, five rows come from each of
40 documents, and a model knows all of a document or nothing. Ends with one JSON object, and with exit code 1
if coverage is outside 93 to 97 % or more than 3.6 % (2.5 % plus 3 standard errors) of the models that are no
better are promoted.
"""

import json
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np

from evaluation.answer_metrics import score_answer
from evaluation.report.comparison import compare_rows
from evaluation.scored_rows import Answer, ScoredRow
from evaluation.verdict.gate import load_gate

RUNS, ROWS, CLUSTERS = 2000, 200, 40
REFERENCE = "It was founded in Paris in 1907 by two brothers."
ANSWERS = (
    REFERENCE,
    "Two brothers founded it in Paris.",
    "It was founded in Rome in 1907.",
    "In Paris, in 1907, by two brothers and their uncle from Lyon.",
    "Nobody is sure about that any more.",
    "1907.",
)
SCORES = [score_answer(answer, REFERENCE) for answer in ANSWERS]
# How often a model gives which answer, for rows that it knows and for others.
KNOWN, OTHER = (0.85, 0.06, 0.02, 0.05, 0.01, 0.01), (0.05, 0.15, 0.30, 0.10, 0.30, 0.10)
TRUTHS = {  # share of rows that base and tuned know, and whether whole documents are known
    "no difference": (0.5, 0.5, False),
    "seven points": (0.5, 0.59, False),
    "no difference, forty documents": (0.5, 0.5, True),
}
METRICS = ("exact_match", "token_f1")


def simulate(truth, seed):
    """One test file: whether each interval contains the truth, and whether tuned is promoted."""
    base, tuned, clustered = TRUTHS[truth]
    rng = np.random.default_rng([seed, *map(ord, truth)])
    rows = ROWS // CLUSTERS if clustered else 1
    easy = np.repeat(rng.random(ROWS // rows), rows)  # what is easy for one model is easy for the other
    answers = [_answers(rng, share, easy, rows) for share in (base, tuned)]
    gate = replace(load_gate(), required=[])
    rows = [
        ScoredRow(i + 1, None, None, _question(i), REFERENCE, was, now, f"document {i // rows}")
        for i, (was, now) in enumerate(zip(*answers, strict=True))
    ]
    if not clustered:
        rows = [replace(row, cluster=None) for row in rows]
    report = compare_rows(rows, gate)
    covered = []
    for name in METRICS:
        low, high = report.metrics[name].difference_ci
        known, other = (np.dot(shares, [score[name] for score in SCORES]) for shares in (KNOWN, OTHER))
        covered.append(bool(low <= (tuned - base) * (known - other) <= high))
    return [*covered, report.verdict == "promote"]


def _question(i):
    return [{"role": "user", "content": f"Question {i}"}]


def _answers(rng, share, easy, rows):
    """Whether a model knows a row depends half on the model and half on the row."""
    own = np.repeat(rng.random(ROWS // rows), rows)
    known = np.where(np.repeat(rng.random(ROWS // rows) < 0.5, rows), easy, own) < share
    picked = [rng.choice(len(ANSWERS), p=KNOWN if knows else OTHER) for knows in known]
    return [Answer(ANSWERS[i], None) for i in picked]


def main(runs):
    figures = {}
    with ProcessPoolExecutor(2) as pool:
        for truth in TRUTHS:
            results = list(pool.map(partial(simulate, truth), range(runs), chunksize=20))
            shares = np.mean(results, axis=0).round(4).tolist()
            figures[truth] = dict(zip((*METRICS, "promoted"), shares, strict=True))
            print(truth, figures[truth], file=sys.stderr, flush=True)
    coverages = [figure[name] for figure in figures.values() for name in METRICS]
    promoted = [figure["promoted"] for truth, figure in figures.items() if truth.startswith("no difference")]
    farthest = max(coverages, key=lambda share: abs(share - 0.95))
    return {
        "bench": "coverage",
        "ours": farthest,
        "baseline": 0.95,
        "ratio": round(farthest / 0.95, 4),
        "runs": runs,
        "truths": figures,
        "holds": all(0.93 <= share <= 0.97 for share in coverages) and max(promoted) <= 0.036,
    }


if __name__ == "__main__":
    result = main(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS)
    print(json.dumps(result))
    sys.exit(not result["holds"])
