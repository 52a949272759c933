"""DeLong's variance of AUROCs and of their differences, by patient, without resamples."""

from typing import NamedTuple

import numpy as np
from numpy import ndarray as Array
from scipy.stats import norm, rankdata

from lib.evidence.metrics import rankings
from lib.evidence.results import DeLongTest, Estimate
from lib.evidence.uncertainty import NORMAL_QUANTILE, logit_interval


class DeLong(NamedTuple):
    """AUROCs of m scores, and how they vary."""

    values: Array  # (m,)
    covariance: Array  # (m, m)
    patients: int  # of the rarer class

    def estimate(self, score: int) -> Estimate:
        """Return the AUROC of one score, with the `logit_interval` of DeLong's standard deviation."""
        return logit_interval(self.values[score], np.sqrt(max(self.covariance[score, score], 0)), self.patients)

    def difference(self, first: int, second: int) -> DeLongTest:
        """Return the AUROC of `first` minus that of `second`, its normal interval, and the z-test's two-sided p-value.

        Without variance (both scores are constant, or separate perfectly) p is 1 for equal AUROCs and else 0.
        """
        value, c = float(self.values[first] - self.values[second]), self.covariance
        sd = float(np.sqrt(max(c[first, first] + c[second, second] - 2 * c[first, second], 0)))
        p_value = float(2 * norm.sf(abs(value) / sd) if sd > 0 else abs(value) < 1e-12)
        low, high = value - NORMAL_QUANTILE * sd, value + NORMAL_QUANTILE * sd
        return DeLongTest(value=value, low=low, high=high, p_value=p_value)


def delong(scores: Array, is_abnormal: Array, patients: Array) -> DeLong:
    """Return the AUROCs of m scores of n images, (m, n), with DeLong's covariance (Biometrics 1988), by patient.

    The placements come from midranks (Sun & Xu, IEEE Signal Process. Lett. 2014); each patient's are summed
    (Obuchowski, Biometrics 1997), which for one image per patient is DeLong's own formula.

    Raises:
        ValueError: A class has fewer than two patients, so that its variance is unknown, or `rankings` raises it.

    """
    scores = np.asarray(scores, dtype=float)
    abnormal, normal, *_ = rankings(scores, is_abnormal, patients)[0]  # every row is checked
    patient = np.unique(np.asarray(patients, dtype=str), return_inverse=True)[1]
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
    return DeLong(values, covariance, min(n_abnormal, n_normal))
