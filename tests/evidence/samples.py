"""Scores, labels and patients that several tests of the room draw, and an interval's ends."""

import numpy as np
from scipy.stats import norm

from lib.evidence.results import Estimate


def ends(estimate: Estimate) -> tuple[float, float]:
    """The interval alone."""
    return estimate.low, estimate.high


def images(n: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores with many ties, labels, and about three images a patient."""
    random = np.random.default_rng(seed)
    is_abnormal = random.random(n) < 0.4
    return random.integers(0, 8, n) + 2.0 * is_abnormal, is_abnormal, random.integers(0, n // 3, n).astype(str)


def binormal(n: int, m: int, auroc: float, repetitions: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`repetitions` independent scores of n normal and m abnormal images, and the labels."""
    is_abnormal = np.arange(n + m) >= n
    shift = norm.ppf(auroc) * 2**0.5
    return np.random.default_rng(seed).normal(size=(repetitions, n + m)) + shift * is_abnormal, is_abnormal
