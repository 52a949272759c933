"""Promises of `lib.evidence.metrics`: against scikit-learn on repeated images, and pairs counted by hand."""

import numpy as np
import pytest
from samples import images
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from lib.evidence.delong import delong
from lib.evidence.metrics import METRICS, auroc, ranking
from lib.evidence.uncertainty import bootstrap


def by_scikit_learn(scores: np.ndarray, is_abnormal: np.ndarray) -> dict[str, float]:
    alarms, found, _ = roc_curve(is_abnormal, scores, drop_intermediate=False)
    return {
        "auroc": roc_auc_score(is_abnormal, scores),
        "average_precision": average_precision_score(is_abnormal, scores),
        "fpr_at_95_tpr": alarms[found >= 0.95 - 1e-12].min(),
        "tpr_at_5_fpr": found[alarms <= 0.05 + 1e-12].max(),
    }


@pytest.mark.parametrize("distinct", [3, 8, 1000])
def test_every_metric_of_weighted_images_is_scikit_learns_of_repeated_images(distinct):
    for seed in range(10):
        random = np.random.default_rng(seed)
        n = int(random.integers(20, 60))
        is_abnormal = np.arange(n) < n // 3
        scores, weights = random.integers(0, distinct, n) + 2.0 * is_abnormal, random.integers(0, 3, (n, 4))
        found = {name: metric(ranking(scores, is_abnormal), weights) for name, metric in METRICS.items()}
        for j, weight in enumerate(weights.T):
            rows = np.repeat(np.arange(n), weight)
            expected = by_scikit_learn(scores[rows], is_abnormal[rows])
            assert {name: values[j] for name, values in found.items()} == pytest.approx(expected, abs=1e-12)


def test_images_that_tie_are_called_together():
    scores, is_abnormal = np.array([3.0, 3, 2, 3, 1, 0]), np.array([True, True, True, False, False, False])
    metrics = {name: metric(ranking(scores, is_abnormal), np.ones((6, 1)))[0] for name, metric in METRICS.items()}
    # Two of three abnormal images tie with a normal one: no threshold finds them without its alarm.
    assert metrics["tpr_at_5_fpr"] == 0 and metrics["fpr_at_95_tpr"] == pytest.approx(1 / 3)


def test_a_resample_without_one_class_is_nan_in_every_metric():
    weights = np.array([[1, 0, 1], [0, 0, 1], [1, 1, 0], [0, 1, 0.0]])
    rank = ranking(np.arange(4.0), np.array([True, True, False, False]))
    for metric in METRICS.values():
        assert np.isnan(metric(rank, weights)).tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("scores", "is_abnormal", "message"),
    [
        ([1.0, 2.0], [True], r"scores \(2,\) and labels \(1,\)"),
        ([1.0, 2.0], [1, 0], "is_abnormal is int64, expected bool"),
        ([1.0, np.nan], [True, False], "1 of 2 scores are not finite, expected numbers: check how they were computed"),
        ([1.0, 2.0], [True, True], "0 normal and 2 abnormal images, expected at least one of each"),
    ],
)
def test_scores_that_cannot_be_ranked_are_refused_by_what_is_wrong(scores, is_abnormal, message):
    for use in (lambda s, y: ranking(s, y), lambda s, y: delong(s[None], y, np.arange(len(y)))):
        with pytest.raises(ValueError, match=message):
            use(np.array(scores), np.array(is_abnormal))


@pytest.mark.parametrize(
    ("scores", "patients", "message"),
    [
        (np.ones((1, 60)), np.arange(59), "1 scores of 60 images, 59 patients: expected .* one patient for each image"),
        (np.ones((0, 60)), np.arange(60), "0 scores of 60 images, 60 patients: expected .* one or more scores"),
    ],
)
def test_no_score_and_a_patient_too_few_are_refused_by_what_was_found(scores, patients, message):
    is_abnormal = images()[1]
    for use in (bootstrap, delong):
        with pytest.raises(ValueError, match=message):
            use(scores, is_abnormal, patients)
    with pytest.raises(ValueError, match="0 resamples: expected at least 1"):
        bootstrap(np.ones((1, 60)), is_abnormal, np.arange(60), 0)


def test_auroc_is_the_share_of_pairs_won_and_a_tie_wins_half():
    scores, is_abnormal, _ = images(30)
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[is_abnormal] for b in scores[~is_abnormal]]
    assert auroc(scores, is_abnormal) == pytest.approx(np.mean(pairs), abs=1e-12)
    assert auroc(np.ones(30), is_abnormal) == 0.5
