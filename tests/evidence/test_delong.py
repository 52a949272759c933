"""Promises of `lib.evidence.delong`: against a published example, a formula written out, the bootstrap, simulation."""

from math import comb

import numpy as np
import pytest
from samples import binormal, images
from scipy.stats import binomtest

from lib.evidence.delong import delong
from lib.evidence.results import DeLongTest, Estimate
from lib.evidence.uncertainty import bootstrap

# Albumin, total protein and K-G score of 43 women with ovarian cancer, and whether surgery helped: the example of
# DeLong, DeLong & Clarke-Pearson (1988) as SAS/STAT's manual prints it ("Comparing Receiver Operating Characteristic
# Curves", PROC LOGISTIC), whose figures the test below expects. The score counts as 10 - K-G.
OVARIAN = """
3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0  1.6 5.6 5 1  3.8 5.7 5 1
3.7 6.7 6 1  3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1  4.3 7.0 4 1  3.6 6.7 4 0  2.3 4.4 6 1  4.2 7.6 4 0
4.0 6.6 6 0  3.5 5.8 6 1  3.8 6.8 7 1  3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1  3.1 6.6 6 1  4.1 8.2 6 1  4.3 7.0 5 1
4.3 6.5 4 1  3.2 5.1 5 1  2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0  3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1  3.5 6.2 5 1
2.9 5.7 9 0  2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1  3.3 5.7 6 1  3.7 6.9 5 1  3.6 6.6 5 1"""


def test_delongs_variances_and_tests_are_those_of_the_published_example():
    data = np.array(OVARIAN.split(), dtype=float).reshape(-1, 4)
    scores = np.stack([data[:, 0], data[:, 1], 10 - data[:, 2]])
    found = delong(scores, data[:, 3] == 1, np.arange(43))
    assert found.values.round(4).tolist() == [0.7366, 0.6478, 0.7258]
    assert np.sqrt(np.diag(found.covariance)).round(4).tolist() == [0.0927, 0.1000, 0.1028]
    difference = found.difference(0, 2).model_dump()
    expected = {"value": 0.0108, "low": -0.1761, "high": 0.1976, "p_value": 0.9102}
    assert {name: round(value, 4) for name, value in difference.items()} == expected
    contrast = np.array([[1, 0, -1], [0, 1, -1]])
    both = contrast @ found.values
    assert round(both @ np.linalg.solve(contrast @ found.covariance @ contrast.T, both), 4) == 2.5340


def test_without_variance_delongs_values_are_the_ones_promised():
    is_abnormal, up = np.arange(20) >= 10, np.arange(20.0)  # up wins all pairs, -up none
    found = delong(np.stack([np.ones(20), np.zeros(20), up, -up]), is_abnormal, np.arange(20))
    assert found.estimate(0) == Estimate(0.5, 0.5, 0.5)
    constant, perfect = found.difference(0, 1), found.difference(2, 3)
    assert constant == DeLongTest(value=0, low=0, high=0, p_value=1)
    assert (perfect.value, perfect.high) == (1, 1) and perfect.p_value == pytest.approx(2 / comb(20, 10))
    assert perfect.low == pytest.approx(2 * binomtest(10, 10).proportion_ci(method="wilson").low - 1)


def test_clustered_delong_is_obuchowskis_formula_written_out():
    scores, is_abnormal, patients = images()
    others = np.stack([scores, scores + np.random.default_rng(1).integers(0, 5, 60)])
    found = delong(others, is_abnormal, patients)
    high, low = others[:, is_abnormal], others[:, ~is_abnormal]
    won = np.sign(high[:, :, None] - low[:, None, :]) / 2 + 0.5
    areas = won.mean(axis=(1, 2))
    assert found.values == pytest.approx(areas)
    x, y = won.mean(axis=2), won.mean(axis=1)
    m, n = x.shape[1], y.shape[1]
    names = np.unique(patients)
    in_m, in_n = ([patients[of] == name for name in names] for of in (is_abnormal, ~is_abnormal))
    s = np.zeros((3, 2, 2))
    for in_x, in_y in zip(in_m, in_n, strict=True):
        a = (x[:, in_x] - areas[:, None]).sum(axis=1)
        b = (y[:, in_y] - areas[:, None]).sum(axis=1)
        s += np.stack([np.outer(a, a), np.outer(b, b), np.outer(a, b)])
    with_m, with_n, all_of_them = sum(map(any, in_m)), sum(map(any, in_n)), len(names)
    s10, s01 = s[0] * with_m / (with_m - 1) / m, s[1] * with_n / (with_n - 1) / n
    s11 = s[2] * all_of_them / (all_of_them - 1)
    assert found.covariance == pytest.approx(s10 / m + s01 / n + (s11 + s11.T) / (m * n))


def test_bootstrap_and_delong_agree_on_the_variance_with_clusters_and_without():
    scores, is_abnormal, _ = images(400)
    for patients in (np.arange(400), np.arange(400) // 2):
        drawn = bootstrap(scores[None], is_abnormal, patients, 3000, metrics=["auroc"]).replicates["auroc"][0]
        exact = delong(scores[None], is_abnormal, patients).covariance[0, 0] ** 0.5
        assert drawn.std() == pytest.approx(exact, rel=0.06)


def test_delongs_p_value_is_uniform_between_equal_scores():
    """By simulation: 5 % of 600 pairs, each a new sample, give p < 0.05; the standard error is 0.9 points."""
    scores, is_abnormal = binormal(50, 50, 0.8, 1200, seed=2)
    p = [delong(scores[[i, i + 600]], is_abnormal, np.arange(100)).difference(0, 1).p_value for i in range(600)]
    assert abs(np.mean(np.array(p) < 0.05) - 0.05) < 0.027 and abs(np.mean(p) - 0.5) < 0.036
