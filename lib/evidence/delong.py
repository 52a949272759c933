"""DeLong's variance of AUROCs and of their differences, by patient, without resamples."""

from typing import NamedTuple

import numpy as np
from numpy import ndarray as Array
from scipy.stats import norm, rankdata

from lib.evidence.metrics import numbered, rankings
from lib.evidence.results import DeLongTest, Estimate
from lib.evidence.uncertainty import NORMAL_QUANTILE, difference_interval, least_p, logit_interval


class DeLong(NamedTuple):
    """AUROCs of m scores, and how they vary."""

    values: Array  # (m,)
    covariance: Array  # (m, m)
    patients: int  # of the rarer class
    ranks: Array  # (m, images): equal rows rank alike, and equal values in a row are a constant score
    least_p: float

    def estimate(self, score: int) -> Estimate:
        """Return the AUROC of one score, with the `logit_interval` of DeLong's standard deviation."""
        if np.ptp(self.ranks[score]) == 0:
            return Estimate(0.5, 0.5, 0.5)
        return logit_interval(self.values[score], np.sqrt(max(self.covariance[score, score], 0)), self.patients)

    def difference(self, first: int, second: int) -> DeLongTest:
        """Return the AUROC of `first` minus that of `second`, its normal interval, and the z-test's two-sided p-value.

        Scores that rank alike differ by nothing, with p 1. Elsewhere the interval is that of `difference_interval`, and
        p is at least that of an exact test (`least_p`), which it is where no variance is seen.
        """
        if (self.ranks[first] == self.ranks[second]).all():
            return DeLongTest(value=0, low=0, high=0, p_value=1)
        value, c = float(self.values[first] - self.values[second]), self.covariance
        sd = float(np.sqrt(max(c[first, first] + c[second, second] - 2 * c[first, second], 0)))
        z = abs(value) / sd if sd > 1e-9 else 0.0 if abs(value) < 1e-9 else np.inf
        normal = Estimate(value, value - NORMAL_QUANTILE * sd, value + NORMAL_QUANTILE * sd)
        found = difference_interval(normal, self.estimate(first), self.estimate(second), self.patients)
        p_value = max(float(2 * norm.sf(z)), self.least_p)
        return DeLongTest(value=value, low=found.low, high=found.high, p_value=p_value)


def delong(scores: Array, is_abnormal: Array, patients: Array) -> DeLong:
    """Return the AUROCs of m scores of n images, (m, n), with DeLong's covariance (Biometrics 1988), by patient.

    The placements come from midranks (Sun & Xu, IEEE Signal Process. Lett. 2014); each patient's are summed
    (Obuchowski, Biometrics 1997), which for one image per patient is DeLong's own formula.

    Raises:
        ValueError: A class has fewer than two patients, so that its variance is unknown, or `rankings` raises it.

    """
    abnormal, normal, *_ = rankings(scores, is_abnormal, patients)[0]  # every row is checked
    scores = np.asarray(scores, dtype=float)
    patient = numbered(patients)
    n, n_abnormal, n_normal = (len(np.unique(patient[rows])) for rows in (slice(None), abnormal, normal))
    if min(n_abnormal, n_normal) < 2:
        found = f"{n_normal} patients with normal and {n_abnormal} with abnormal images"
        raise ValueError(f"{found}: DeLong's variance needs two of each; use more images, or the bootstrap")
    ranks = rankdata(scores, axis=1)
    beaten = (ranks[:, abnormal] - rankdata(scores[:, abnormal], axis=1)) / len(normal)
    passed = 1 - (ranks[:, normal] - rankdata(scores[:, normal], axis=1)) / len(abnormal)
    values = beaten.mean(axis=1)

    def by_patient(placements: Array, rows: Array) -> Array:
        beyond = (placements - values[:, None]) / len(rows)
        return np.stack([np.bincount(patient[rows], weights=row, minlength=n) for row in beyond])

    high, low = by_patient(beaten, abnormal), by_patient(passed, normal)
    covariance = n_abnormal / (n_abnormal - 1) * high @ high.T + n_normal / (n_normal - 1) * low @ low.T
    covariance += n / (n - 1) * (high @ low.T + low @ high.T)
    return DeLong(values, covariance, min(n_abnormal, n_normal), ranks, least_p(n_abnormal, n_normal))
