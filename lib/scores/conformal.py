"""Conformal p-values: scores of normal images -> p-values with a guaranteed false alarm rate, one score or several.

An image's conformal p-value is its rank among images that are known to be normal (Vovk, Gammerman & Shafer, Algorithmic
Learning in a Random World, 2005; for outliers Bates, Candès, Lei, Romano & Sesia, Annals of Statistics 2023).
"""

from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.95  # of the interval of an achieved rate
HIGHEST = 0.99  # limit of p in Cauchy's sum: at p = 1 its term is -1e16, which would outweigh all other scores
COMBINATIONS = {
    "fisher": lambda p: -2 * np.log(p).sum(axis=1),
    "cauchy": lambda p: np.tan(np.pi * (0.5 - p.clip(max=HIGHEST))).mean(axis=1),
    "minimum": lambda p: -p.min(axis=1),
}
"""Name -> statistic of p-values, (k, m) -> (k,); higher is more anomalous.

"fisher": Fisher, Statistical Methods for Research Workers, 1932. "cauchy": Liu & Xie, JASA 2020, with equal weights and
p of at most 0.99. "minimum": minus the least p-value (Tippett, 1931).
"""


class Rate(NamedTuple):
    """The share of normal images called abnormal at a level: the mean over calibration sets, and a 95 % interval."""

    mean: float
    low: float
    high: float


def p_values(reference: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the conformal p-value of each score: (1 + number of reference scores >= it) / (n + 1).

    `reference` is (n,) and `scores` (k,), or (n, m) and (k, m) for m separate scores; higher means more anomalous.
    The result has the shape of `scores` and lies in [1 / (n + 1), 1]; a tie counts against calling the image abnormal.
    For a score that is exchangeable with the reference scores, P(p <= alpha) <= alpha.

    Raises:
        ValueError: The shapes do not match, the reference is empty, or a score is NaN.

    """
    reference, scores = np.asarray(reference), np.asarray(scores)
    if reference.ndim not in (1, 2) or reference.ndim != scores.ndim or reference.shape[1:] != scores.shape[1:]:
        raise ValueError(
            f"reference {reference.shape}, scores {scores.shape}: expected (n,) and (k,), or (n, m) and (k, m)"
        )
    if not len(reference):
        raise ValueError("the reference is empty: give scores of images that are known to be normal")
    for name, array in (("reference scores", reference), ("scores", scores)):
        if missing := int(np.isnan(array).sum()):
            raise ValueError(f"{missing} of {array.size} {name} are NaN: check where they come from")
    n, columns = len(reference), int(np.prod(scores.shape[1:]))
    pairs = zip(reference.reshape(n, columns).T, scores.reshape(len(scores), columns).T, strict=True)
    below = np.stack([np.searchsorted(np.sort(known), new) for known, new in pairs], axis=1)
    return ((1 + n - below) / (n + 1)).reshape(scores.shape)


def ranks_within(reference: np.ndarray, shift: float) -> int:
    """Return by how many ranks among the reference scores, (n,), a score can move at most if it changes by `shift`.

    A p-value then changes by at most that over n + 1.
    """
    known = np.sort(reference)
    return int((np.searchsorted(known, known + shift, "right") - np.arange(len(known))).max(initial=0))


def combine(p: np.ndarray, how: str = "fisher") -> np.ndarray:
    """Return one number per image, (k,), from its p-values, (k, m) in (0, 1]; higher is more anomalous.

    `how` names one of `COMBINATIONS`. The p-values of one image depend on each other, so no textbook distribution gives
    the level of a combination. Its own p-value does: `p_values` of the combination among calibration images, whose
    p-values come from the same reference. For an image exchangeable with the calibration images, given the reference
    and everything fitted or chosen before, P(p <= alpha) <= alpha for every alpha, whatever the scores and their
    dependence. The probability is over the image and the calibration images together; for one calibration set the
    rate is random (`achieved_rate`). Nothing is guaranteed for another hospital's images, and the guarantee is
    approximate where patients have several images.

    Raises:
        ValueError: `how` is unknown, or `p` has another shape or values outside (0, 1].

    """
    p = np.asarray(p)
    if how not in COMBINATIONS:
        raise ValueError(f"how={how!r} is not a combination; expected one of {', '.join(COMBINATIONS)}")
    if p.ndim != 2 or not p.shape[1] or not ((p > 0) & (p <= 1)).all():
        raise ValueError(f"p-values of shape {p.shape}: expected (images, scores), at least one score, all in (0, 1]")
    return COMBINATIONS[how](p)


def achieved_rate(b: int, alpha: float, images: int | None = None) -> Rate:
    """Return the false alarm rate to expect if p <= `alpha` is called abnormal, with p calibrated on `b` normal images.

    Given the calibration images, the rate among all normal images is a draw from Beta(k, b + 1 - k), where k of the
    possible p-values 1 / (b + 1), 2 / (b + 1), ... are at most alpha (Vovk, Conditional validity of inductive conformal
    predictors, 2012). Among `images` normal test images it is beta-binomial. The interval is the central 95 % of that
    distribution. It is exact for independent images without ties; ties lower the rate, and several images per patient
    widen the interval.

    Raises:
        ValueError: `alpha` is below 1 / (b + 1), which b images cannot resolve, or not below 1; or `images` is 0.

    """
    if not 1 / (b + 1) <= alpha < 1:
        raise ValueError(
            f"alpha={alpha} with {b} calibration images, whose least p-value is 1 / {b + 1} = {1 / (b + 1):.3g}: "
            "expected an alpha from that to below 1; raise it, or calibrate on more images"
        )
    if images is not None and images < 1:
        raise ValueError(f"{images} normal test images: expected at least 1, or None for the rate among all images")
    k = int((np.arange(1, b + 1) / (b + 1) <= alpha).sum())  # not floor(alpha * (b + 1)): 0.29 * 100 is below 29
    rate = stats.beta(k, b + 1 - k) if images is None else stats.betabinom(images, k, b + 1 - k)
    low, high = rate.ppf([(1 - LEVEL) / 2, (1 + LEVEL) / 2]) / (images or 1)
    return Rate(k / (b + 1), float(low), float(high))


def promise(calibration: int, rate: float) -> str:
    """Return what a threshold and a p-value from so many calibration images promise, as sentences."""
    what = (
        f"A p-value is the image's rank among {calibration} normal calibration images. For a normal image exchangeable "
        f"with them, the probability that it is at most a is at most a, for every a"
    )
    if rate * (calibration + 1) < 1:
        return f"{what}. So few cannot promise a false alarm rate of {rate:.0%}: the threshold is their highest score."
    achieved = achieved_rate(calibration, rate)
    return (
        f"{what}. The threshold is exceeded by at most {rate:.0%} of such images on average; for calibration sets of "
        f"this size the rate lies between {achieved.low:.1%} and {achieved.high:.1%} in 95 % of cases."
    )
