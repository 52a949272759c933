"""Metrics of a score, for many weightings of the images at once; the scores are sorted only once.

AUROC counts pairs: the share of (abnormal, normal) pairs in which the abnormal image scores higher, ties counting half
(Hanley & McNeil, Radiology 1982). The other metrics call an image abnormal if it scores as high as a threshold or
higher. Tied images are called together, and nothing is interpolated.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy import ndarray as Array

SENSITIVITY, FALSE_ALARMS = 0.95, 0.05  # where the other rate is read off the ROC curve


class Ranking(NamedTuple):
    """One score, sorted once: what every weighting of the images needs."""

    abnormal: Array  # positions of the abnormal images, lowest score first
    normal: Array  # positions of the normal images, lowest score first
    below: Array  # per abnormal image: normal images that score lower
    up_to: Array  # per abnormal image: normal images that score lower or the same
    first_tied: Array  # per abnormal image: abnormal images that score lower


def ranking(scores: Array, is_abnormal: Array) -> Ranking:
    """Sort `scores`, shape (n,), by the labels `is_abnormal`, boolean of shape (n,).

    Raises ValueError for shapes that differ, labels that are not boolean, scores that are not finite numbers, an empty
    class.
    """
    scores, is_abnormal = np.asarray(scores), np.asarray(is_abnormal)
    if not (np.issubdtype(scores.dtype, np.number) or scores.dtype == bool) or np.iscomplexobj(scores):
        raise ValueError(f"scores are {scores.dtype}, expected real numbers: convert them (scores.astype(float))")
    if scores.ndim != 1 or scores.shape != is_abnormal.shape:
        raise ValueError(f"scores {scores.shape} and labels {is_abnormal.shape}: expected two equally long lists")
    if is_abnormal.dtype != bool:
        raise ValueError(f"is_abnormal is {is_abnormal.dtype}, expected bool (write labels == 'abnormal')")
    if not np.isfinite(scores).all():
        bad = (~np.isfinite(scores)).sum()
        raise ValueError(
            f"{bad} of {len(scores)} scores are not finite, expected numbers: check how they were computed"
        )
    abnormal, normal = np.flatnonzero(is_abnormal), np.flatnonzero(~is_abnormal)
    if not len(abnormal) or not len(normal):
        found = f"{len(normal)} normal and {len(abnormal)} abnormal images"
        raise ValueError(f"{found}, expected at least one of each: a ranking needs both")
    abnormal, normal = (rows[np.argsort(scores[rows], kind="stable")] for rows in (abnormal, normal))
    high, low = scores[abnormal], scores[normal]
    places = np.searchsorted(low, high), np.searchsorted(low, high, "right"), np.searchsorted(high, high)
    return Ranking(abnormal, normal, *places)


def numbered(patients: Sequence[object] | Array) -> Array:
    """Return a number for each of (n,) patients, from 0 on; ValueError if one is missing (None, NaN or "")."""
    names = np.asarray(patients, dtype=object)
    if len(missing := np.flatnonzero(pd.isna(names) | (names == ""))):
        found = f"no patient for {len(missing)} of {len(names)} images, first row {missing[0]}"
        raise ValueError(f"{found}: give each image its patient, and one of its own where it is unknown")
    return np.unique(names.astype(str), return_inverse=True)[1]


def rankings(scores: Array, is_abnormal: Array, patients: Array) -> list[Ranking]:
    """Return the `ranking` of each of m scores of n images, (m, n); ValueError also without scores or patients."""
    if not len(scores) or len(patients) != len(is_abnormal):
        found = f"{len(scores)} scores of {len(is_abnormal)} images, {len(patients)} patients"
        raise ValueError(f"{found}: expected (scores, images), one or more scores, and one patient for each image")
    return [ranking(row, is_abnormal) for row in scores]


class Calls(NamedTuple):
    """The weight that each threshold calls abnormal, for r weightings; there is a threshold at each abnormal score.

    Thresholds rise, so values fall from row to row. Both totals are 0 if either class has no weight.
    """

    found: Array  # of the abnormal images, (abnormal images, r)
    alarms: Array  # of the normal images, (abnormal images, r)
    abnormal: Array  # of all abnormal images, (r,)
    normal: Array  # of all normal images, (r,)


def weight_up_to(weights: Array) -> Array:
    """Row k is the weight of the first k images: (n, r) -> (n + 1, r)."""
    sums = np.zeros((len(weights) + 1, weights.shape[1]))
    np.cumsum(weights, axis=0, out=sums[1:])
    return sums


def ratio(part: Array, whole: Array) -> Array:
    """`part` / `whole`, NaN where `whole` is 0: a resample without the class."""
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def calls(rank: Ranking, weights: Array) -> Calls:
    """Return what each threshold calls abnormal, under each column of `weights`, (n, r)."""
    found, alarms = weight_up_to(weights[rank.abnormal]), weight_up_to(weights[rank.normal])
    both = (found[-1] > 0) & (alarms[-1] > 0)
    return Calls(
        found[-1] - found[rank.first_tied], alarms[-1] - alarms[rank.below], found[-1] * both, alarms[-1] * both
    )


def at_sensitivity(share: float, called: Calls) -> tuple[Array, Array]:
    """Return the precision and the false alarm rate, (r,) each, of the highest threshold that finds `share`.

    `share`, in [0, 1], is of the abnormal weight. No other threshold that finds it has fewer false alarms.
    """
    _check_share(share)
    enough = np.maximum((called.found >= share * called.abnormal - 1e-9).sum(axis=0), 1)[None] - 1
    found, alarms = (np.take_along_axis(weight, enough, axis=0)[0] for weight in (called.found, called.alarms))
    return ratio(found, found + alarms), ratio(alarms, called.normal)


def at_false_alarm_rate(share: float, called: Calls) -> Array:
    """Return the highest sensitivity, (r,), of thresholds that call at most `share` of the normal weight abnormal."""
    _check_share(share)
    over = (called.alarms > share * called.normal + 1e-9).sum(axis=0)
    found = np.append(called.found, np.zeros_like(called.found[:1]), axis=0)  # a threshold above all finds nothing
    return ratio(np.take_along_axis(found, over[None], axis=0)[0], called.abnormal)


def _check_share(share: float) -> None:
    if not 0 <= share <= 1:
        raise ValueError(f"a share of {share}: expected a number from 0 to 1")


def weighted_auroc(rank: Ranking, weights: Array) -> Array:
    """AUROC for each column of `weights`, (n, r)."""
    abnormal, normal = weights[rank.abnormal], weight_up_to(weights[rank.normal])
    won = np.einsum("ij,ij->j", abnormal, normal[rank.below]) + np.einsum("ij,ij->j", abnormal, normal[rank.up_to])
    return ratio(0.5 * won, abnormal.sum(axis=0) * normal[-1])


def weighted_average_precision(rank: Ranking, weights: Array) -> Array:
    """Average precision for each column of `weights`, (n, r), without interpolation."""
    found, alarms, abnormal, _ = calls(rank, weights)
    # Nothing called means that this image has no weight either, so its precision does not matter.
    precision = np.divide(found, found + alarms, out=np.zeros_like(found), where=found > 0)
    return ratio(np.einsum("ij,ij->j", weights[rank.abnormal], precision), abnormal)


METRICS: dict[str, Callable[[Ranking, Array], Array]] = {
    "auroc": weighted_auroc,
    "average_precision": weighted_average_precision,
    "fpr_at_95_tpr": lambda rank, weights: at_sensitivity(SENSITIVITY, calls(rank, weights))[1],
    "tpr_at_5_fpr": lambda rank, weights: at_false_alarm_rate(FALSE_ALARMS, calls(rank, weights)),
}
"""A ranking, and weights (n, r), -> r values in [0, 1], NaN where a class has no weight."""
POINTS = ("fpr_at_95_tpr", "tpr_at_5_fpr")  # points of the ROC curve


def auroc(scores: Array, is_abnormal: Array) -> float:
    """Chance that an abnormal image scores higher than a normal one, ties counting half; (n,) and (n,)."""
    return float(weighted_auroc(ranking(scores, is_abnormal), np.ones((len(scores), 1)))[0])
