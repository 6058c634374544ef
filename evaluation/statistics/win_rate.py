"""How often the tuned answer was preferred: the raw win rate, and the win rate at equal length.

Judges tend to prefer longer answers. The second win rate removes that: Dubois, Galambosi, Liang and Hashimoto
2024, "Length-Controlled AlpacaEval", arXiv 2404.04475, without their term for the difficulty of their own
instructions. It extrapolates where tuned is always longer, or nearly so: then it is refused, or a third win
rate, for answers that are as often longer as shorter, shows what the rows leave open.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.special import expit, logit

from evaluation.statistics.intervals import Z_POWER, Interval, Z, design_effect, wilson
from evaluation.statistics.scores import Floats, Numbers, repeated

MIN_FITTED = 10  # rows, to fit two coefficients
MIN_EACH_SIDE = 5  # preferences for either side, for the robust variance; rows longer, and rows shorter
_STEPS, _CLOSE = 100, 1e-10


@dataclass(frozen=True)
class Preference:
    """One comparison: 1 prefers tuned, 0 base, 0.5 neither, None where there is no preference.

    The numbers of characters are those of both answers. Rows of one `cluster` ask the same question, or
    depend on each other in another way; None: the row is alone.
    """

    id: str
    preference: float | None
    base_chars: int
    tuned_chars: int
    cluster: str | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class LengthControl:
    """The win rate at equal length, and the coefficient of length.

    With `effect` above 0, longer answers are preferred. `balanced` is the mean of the win rates among the
    rows in which tuned is longer and among those in which it is shorter: whatever a judge adds for the mere
    fact of being longer cancels out. All are None if the rows do not allow the fit; `note` then has the
    reason.
    """

    win_rate: float | None
    win_rate_ci: Interval | None
    effect: float | None
    effect_ci: Interval | None
    note: str | None
    balanced: float | None = None
    balanced_ci: Interval | None = None


@dataclass(frozen=True)
class WinRate:
    """Shares of 0..1 over `n` rows, a tie counted as half a win. `standard_error` needs two rows.

    `clusters` counts the clusters, None if all rows are independent.
    """

    n: int
    win_rate: float | None
    win_rate_ci: Interval | None
    standard_error: float | None
    length: LengthControl
    clusters: int | None = None

    @property
    def independent(self) -> int:
        return self.n if self.clusters is None else self.clusters


def win_rate(rows: Sequence[Preference]) -> WinRate:
    """Both win rates of the rows that have a preference."""
    rows = [row for row in rows if row.preference is not None]
    if not rows:
        return WinRate(0, None, None, None, _not_fitted("there are no rows"))
    preferences = np.array([row.preference for row in rows], dtype=float)
    n, clusters = len(rows), _clusters(rows)
    error = float(preferences.std(ddof=1) / math.sqrt(n)) if n > 1 else None
    if error is not None and clusters is not None:
        error *= math.sqrt(design_effect(preferences, clusters))
    overall = win_rate_interval(preferences, clusters)
    return WinRate(
        n,
        float(preferences.mean()),
        overall,
        error,
        _length_control(rows, preferences, overall, clusters),
        None if clusters is None else int(clusters.max()) + 1,
    )


def _clusters(rows: Sequence[Preference]) -> Numbers | None:
    known: dict[str, int] = {}
    names = [f"row {i}" if row.cluster is None else f"cluster {row.cluster}" for i, row in enumerate(rows)]
    return repeated(np.array([known.setdefault(name, len(known)) for name in names], dtype=np.int64))


def win_rate_interval(preferences: Floats, clusters: Numbers | None = None) -> Interval:
    """Wilson's score interval with the effective number of rows, which ties and shades raise.

    Wilson 1927, JASA 22, 209-212; effective size as in Korn and Graubard 1998, Survey Methodology 24,
    193-201: mean * (1 - mean) / variance of the mean. The variance counts one more win and one more loss
    than were seen, so that rows which all agree claim no certainty (simulated in docs/evaluation.md).
    `clusters` divide it by the design effect.
    """
    n, mean = len(preferences), float(preferences.mean())
    variance = float(np.append(preferences, [0.0, 1.0]).var())
    effective = max(n, n * mean * (1 - mean) / variance)
    effective /= 1.0 if clusters is None else design_effect(preferences, clusters)
    return wilson(mean * effective, effective) or Interval(0.0, 1.0)


def rows_to_clear(rate: WinRate, bound: float, at_least: int) -> int | None:
    """Rows at which all intervals' lower ends clear `bound` with 80 % power, if these rows are typical.

    None when any win rate does not exceed the bound: then no number of such rows would do.
    """
    length = rate.length
    if rate.win_rate is None or rate.standard_error is None:
        return None
    needed = [_scaled(rate.n, rate.win_rate - bound, rate.standard_error)]
    if length.win_rate is not None and length.win_rate_ci is not None and 0 < bound < 1:
        low, high = logit(np.clip(length.win_rate_ci, 1e-9, 1 - 1e-9))
        distance = logit(np.clip(length.win_rate, 1e-9, 1 - 1e-9)) - logit(bound)
        needed.append(_scaled(rate.n, float(distance), float(high - low) / (2 * Z)))
    if length.balanced is not None and length.balanced_ci is not None:
        width = length.balanced_ci.high - length.balanced_ci.low
        needed.append(_scaled(rate.n, length.balanced - bound, width / (2 * Z)))
    return None if None in needed else max(at_least, *(rows for rows in needed if rows is not None))


def _scaled(n: int, distance: float, error: float) -> int | None:
    """Chow, Shao, Wang and Lokhnygina, Sample Size Calculations in Clinical Research, chapter 3."""
    return math.ceil(n * ((Z + Z_POWER) * error / distance) ** 2) if distance > 0 else None


def _length_control(
    rows: Sequence[Preference], preferences: Floats, overall: Interval, clusters: Numbers | None
) -> LengthControl:
    longer_by = np.array([row.tuned_chars - row.base_chars for row in rows], dtype=float)
    if not longer_by.any():
        return LengthControl(float(preferences.mean()), overall, None, None, "all answers are equally long")
    if why := _no_fit(preferences, longer_by):
        return _not_fitted(why)
    # As in AlpacaEval 2: in standard deviations, not centred (0 is equal length), outliers bent by tanh.
    length = np.tanh(longer_by / longer_by.std(ddof=1))
    design = np.column_stack([np.ones(len(rows)), length])
    (intercept, effect), covariance = _fit(design, preferences, clusters)
    errors = np.sqrt(np.diag(covariance))
    around = expit([intercept, intercept - Z * errors[0], intercept + Z * errors[0]])
    balanced, balanced_ci = _balanced(preferences, longer_by, clusters)
    return LengthControl(
        float(around[0]),
        Interval(float(around[1]), float(around[2])),
        float(effect),
        Interval(float(effect - Z * errors[1]), float(effect + Z * errors[1])),
        None,
        balanced,
        balanced_ci,
    )


def _no_fit(preferences: Floats, longer_by: Floats) -> str | None:
    """Why length cannot be told from quality by these rows; None if it can."""
    if len(longer_by) < MIN_FITTED:
        return f"too few rows ({len(longer_by)}) to tell length from quality"
    if np.all(longer_by == longer_by[0]):
        return "one model is longer by the same number everywhere: length cannot be told apart"
    if _separated(preferences, longer_by):
        return "length alone would explain every preference"
    longer, shorter = int((longer_by > 0).sum()), int((longer_by < 0).sum())
    if min(longer, shorter) < MIN_EACH_SIDE:
        return (
            f"tuned is longer in {longer} rows and shorter in {shorter}, so a judge's taste for "
            f"{'longer' if longer > shorter else 'shorter'} answers cannot be told from quality "
            f"(length bias); at least {MIN_EACH_SIDE} of each are needed"
        )
    return None


def _balanced(preferences: Floats, longer_by: Floats, clusters: Numbers | None) -> tuple[float, Interval]:
    """The mean of two independent win rates, and the interval that combines theirs.

    Zou and Donner 2008, Statistics in Medicine 27, 1693-1702: the distances to the ends add up as squares.
    """
    sides = []
    for side in (longer_by > 0, longer_by < 0):
        within = None if clusters is None else repeated(clusters[side])
        sides.append((float(preferences[side].mean()), win_rate_interval(preferences[side], within)))
    mean = sum(rate for rate, _ in sides) / 2
    below = math.hypot(*(rate - interval.low for rate, interval in sides)) / 2
    above = math.hypot(*(interval.high - rate for rate, interval in sides)) / 2
    return mean, Interval(mean - below, mean + above)


def _separated(preferences: Floats, longer_by: Floats) -> bool:
    """Whether some length parts those preferred from those not, so that the regression has no solution.

    Where all preferences agree, that is so unless they hold for longer and for shorter answers alike.
    """
    if np.all(preferences == preferences[0]) and preferences[0] in {0.0, 1.0}:
        return bool(longer_by.min() >= 0 or longer_by.max() <= 0)
    wins, losses = longer_by[preferences > 0], longer_by[preferences < 1]
    return bool(wins.min() >= losses.max() or wins.max() <= losses.min())


def _not_fitted(why: str) -> LengthControl:
    return LengthControl(None, None, None, None, why)


def _fit(design: Floats, preferences: Floats, clusters: Numbers | None) -> tuple[Floats, Floats]:
    """Coefficients (intercept, length) on the logit scale, and their covariance.

    With `clusters`, the covariance has whole clusters as units: Liang and Zeger 1986, Biometrika 73, 13-22.

    Logistic regression of preferences between 0 and 1: Papke and Wooldridge 1996, J. Appl. Econometrics.

    With Firth's correction (1993, Biometrika 80, 27-38), which stays finite where length, or nothing at all,
    separates the preferences: Heinze and Schemper 2002, Statistics in Medicine 21, 2409-2419.
    """
    coefficients = np.zeros(design.shape[1])
    for _ in range(_STEPS):
        expected = expit(design @ coefficients)
        weights = expected * (1 - expected)
        inverse = np.linalg.inv(design.T * weights @ design)
        leverage = weights * np.einsum("ij,jk,ik->i", design, inverse, design)
        step = inverse @ design.T @ (preferences - expected + leverage * (0.5 - expected))
        coefficients = coefficients + step / max(1.0, float(np.abs(step).max()))
        if float(np.abs(step).max()) < _CLOSE:
            break
    seen = min(int((preferences < 0.5).sum()), int((preferences > 0.5).sum()))
    if seen < MIN_EACH_SIDE:
        effect = 1.0 if clusters is None else design_effect(preferences, clusters)
        return coefficients, inverse * effect  # the binomial model's own variance: wider, and never nothing
    residuals = (preferences - expected) / (1 - leverage)  # HC3: MacKinnon and White 1985, J. Econometrics 29
    parts = design * residuals[:, None]
    if clusters is not None:
        count = int(clusters.max()) + 1
        parts = np.column_stack([np.bincount(clusters, weights=part) for part in parts.T])
        parts *= math.sqrt(count / max(1, count - 1))
    return coefficients, inverse @ parts.T @ parts @ inverse
