"""Normal films' scores -> p-values whose false alarms are promised, also of several scores combined.

A film's conformal p-value is its rank among films that are known to be normal (Vovk, Gammerman & Shafer, Algorithmic
Learning in a Random World, 2005; for outliers Bates, Candès, Lei, Romano & Sesia, Annals of Statistics 2023).
"""

from typing import NamedTuple

import numpy as np
from scipy import stats

HIGHEST = 0.99  # p in Cauchy's sum: at 1, the lowest score of all, its term is -1e16 and outvotes every other score
COMBINATIONS = {
    "fisher": lambda p: -2 * np.log(p).sum(axis=1),
    "cauchy": lambda p: np.tan(np.pi * (0.5 - p.clip(max=HIGHEST))).mean(axis=1),
    "minimum": lambda p: -p.min(axis=1),
}
"""Name -> statistic of p-values, (k, m) -> (k,), higher is more anomalous.

"fisher": Fisher, Statistical Methods for Research Workers, 1932. "cauchy": Liu & Xie, JASA 2020, with equal weights and
p kept below 0.99. "minimum": minus the least p-value (Tippett, 1931).
"""


class Rate(NamedTuple):
    """The share of normal films that a level calls abnormal: its mean over calibrations, and an interval."""

    mean: float
    low: float
    high: float


def p_values(reference: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the conformal p-value of each score: (1 + number of reference scores >= it) / (n + 1).

    `reference` is (n,) and `scores` (k,), or (n, m) and (k, m) for m scores, each apart; higher means more anomalous.
    The result has the shape of `scores` and lies in [1 / (n + 1), 1]; a tie counts against calling the film abnormal.
    A score exchangeable with the reference ones has P(p <= alpha) <= alpha. Raises ValueError for shapes that do not
    fit, an empty reference and NaN.
    """
    reference, scores = np.asarray(reference), np.asarray(scores)
    if reference.ndim not in (1, 2) or reference.ndim != scores.ndim or reference.shape[1:] != scores.shape[1:]:
        raise ValueError(
            f"reference {reference.shape}, scores {scores.shape}: expected (n,) and (k,), or (n, m) and (k, m)"
        )
    if not len(reference):
        raise ValueError("the reference is empty: give scores of films that are known to be normal")
    for name, array in (("reference scores", reference), ("scores", scores)):
        if missing := int(np.isnan(array).sum()):
            raise ValueError(f"{missing} of {array.size} {name} are NaN: see how they were made")
    n, columns = len(reference), int(np.prod(scores.shape[1:]))
    pairs = zip(reference.reshape(n, columns).T, scores.reshape(len(scores), columns).T, strict=True)
    below = np.stack([np.searchsorted(np.sort(known), new) for known, new in pairs], axis=1)
    return ((1 + n - below) / (n + 1)).reshape(scores.shape)


def combine(p: np.ndarray, how: str = "fisher") -> np.ndarray:
    """Return one number a film, (k,), from its p-values, (k, m) in (0, 1]; higher is more anomalous.

    `how` names one of `COMBINATIONS`. The p-values of one film depend on each other, so that no textbook distribution
    gives the level. The combination's own p-value does, `p_values` of it among calibration films that have passed
    through the same reference. The promise: for a film exchangeable with these, given the reference and all that was
    fitted or chosen before, P(p <= alpha) <= alpha for every alpha, whatever the scores and their dependence. The
    probability is over film and calibration films together; given one calibration half the rate is random
    (`achieved_rate`). It says nothing of another hospital's films, and holds nearly where patients have several films.
    Raises ValueError for another name, another shape or p outside (0, 1].
    """
    p = np.asarray(p)
    if how not in COMBINATIONS:
        raise ValueError(f"how={how!r} is no combination; wanted one of {', '.join(COMBINATIONS)}")
    if p.ndim != 2 or not p.shape[1] or not ((p > 0) & (p <= 1)).all():
        raise ValueError(f"p-values of shape {p.shape}: expected (films, scores), at least one score, all in (0, 1]")
    return COMBINATIONS[how](p)


def achieved_rate(b: int, alpha: float, films: int | None = None, level: float = 0.95) -> Rate:
    """Return the false alarm rate to expect of calling p <= `alpha` abnormal, p calibrated on `b` normal films.

    Given the calibration films, the rate among all normal films is a draw from Beta(k, b + 1 - k), where k of the
    possible p-values 1 / (b + 1), 2 / (b + 1), ... are at most alpha (Vovk, Conditional validity of inductive conformal
    predictors, 2012); among `films` normal test films it is beta-binomial. The interval holds the central `level` of
    that. Exact for independent films without ties; ties lower the rate, several films a patient widen the interval.
    Raises ValueError for an alpha that b films cannot resolve, below 1 / (b + 1), or that is not below 1, and for 0
    test films.
    """
    if not 1 / (b + 1) <= alpha < 1:
        found = f"alpha={alpha} with {b} calibration films, whose least p-value is 1 / {b + 1} = {1 / (b + 1):.3g}"
        raise ValueError(f"{found}: wanted an alpha from there to below 1; raise it, or calibrate on more films")
    if films is not None and films < 1:
        raise ValueError(f"{films} normal test films: expected at least 1, or None for the rate among all films")
    k = int((np.arange(1, b + 1) / (b + 1) <= alpha).sum())  # not floor(alpha * (b + 1)): 0.29 * 100 is below 29
    rate = stats.beta(k, b + 1 - k) if films is None else stats.betabinom(films, k, b + 1 - k)
    low, high = rate.ppf([(1 - level) / 2, (1 + level) / 2]) / (films or 1)
    return Rate(k / (b + 1), float(low), float(high))
