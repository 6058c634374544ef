"""How often does the packaged gate promote a model that lost safety, or what it could do before?

    make bench-gate

Simulates 2 000 comparisons for each true loss of 0 to 15 points on the safety pack, on the forgetting pack,
and on both. The packs have their real numbers of rows of each kind, and the primary metric is clearly better.
There are two kinds of base model: a strong one, of which tuning changes few answers, and a weak one, of which
it changes more. Ends with one JSON object, and with exit code 1 if a loss at the limit or beyond is promoted
in more than 3.6 % (2.5 % plus 3 standard errors), or a strong model without a loss in less than 80 %.
"""

import json
import sys
from collections import Counter

import numpy as np

from evaluation.packs.pack_file import PackRow, packaged_packs
from evaluation.packs.packs import PackResult, pack_result, slices_of
from evaluation.statistics.scores import Column
from evaluation.verdict.decision import Decision, Verdict, decide
from evaluation.verdict.gate import load_gate

RUNS = 2000
LOSSES = (0.0, 0.02, 0.05, 0.10, 0.15)
# For each pack the share that base passes, and the share of all rows that tuning gains. As many are lost, and
# the true loss on top.
MODELS = {
    "strong base": {"safety": (0.90, 0.02), "forgetting": (0.80, 0.03)},
    "weak base": {"safety": (0.50, 0.05), "forgetting": (0.45, 0.05)},
}
WHERE = {"safety": ("safety",), "forgetting": ("forgetting",), "both": ("safety", "forgetting")}
BETTER = Verdict(Decision.PROMOTE, ["The primary metric is better."])
ERROR = 0.025
TOLERATED = ERROR + 3 * (ERROR * (1 - ERROR) / RUNS) ** 0.5
POWER = 0.80


def simulated(
    rng: np.random.Generator, rows: list[PackRow], passes: float, changes: float, loss: float
) -> PackResult:
    """One pack. Of all rows tuned loses `changes + loss` and gains `changes`."""
    lost, gained = changes + loss, changes
    both, neither = passes - lost, 1 - passes - gained
    kind = rng.choice(4, size=len(rows), p=[both, lost, gained, neither])
    passed = Column((kind < 2).astype(float), np.isin(kind, (0, 2)).astype(float))
    questions = np.arange(len(rows))
    return pack_result(passed, questions, slices=slices_of(rows, passed, passed, questions), lost=[])


def shares(
    model: str, lossy: tuple[str, ...], loss: float, rows: dict[str, list[PackRow]], runs: int
) -> dict[str, float]:
    """The shares of the comparisons that are promoted, held, and left open."""
    rng = np.random.default_rng([*map(ord, f"{model} {lossy} {loss}")])
    gate, words = load_gate(), Counter()
    for _ in range(runs):
        packs = {
            name: simulated(rng, rows[name], *how, loss if name in lossy else 0.0)
            for name, how in MODELS[model].items()
        }
        verdict = decide(BETTER, gate, expected=300, failed=0, declined=None, identical=False, packs=packs)
        words[verdict.verdict] += 1
    return {str(word): words[word] / runs for word in Decision}


def main(runs: int) -> dict[str, object]:
    rows = packaged_packs()
    table, worst, power = {}, 0.0, 1.0
    for model in MODELS:
        for where, lossy in WHERE.items():
            for loss in LOSSES:
                found = shares(model, lossy, loss, rows, runs)
                table[f"{model}, {where}, {100 * loss:.0f} points"] = found
                promoted = found["promote"]
                limit = min(load_gate().limit_of(name) for name in lossy)
                worst = max(worst, promoted if loss >= limit else 0.0)
                power = min(power, promoted if loss == 0 and model == "strong base" else 1.0)
                cells = (
                    model,
                    where,
                    f"{100 * loss:.0f}",
                    *(f"{100 * share:.1f} %" for share in found.values()),
                )
                print("| " + " | ".join(cells) + " |", file=sys.stderr, flush=True)
    return {
        "bench": "gate",
        "ours": worst,
        "baseline": ERROR,
        "ratio": round(worst / ERROR, 3),
        "runs": runs,
        "rows": {name: len(pack) for name, pack in rows.items()},
        "promoted_without_loss": power,
        "shares": table,
        "holds": worst <= TOLERATED and power >= POWER,
    }


if __name__ == "__main__":
    result = main(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS)
    print(json.dumps(result))
    sys.exit(not result["holds"])
