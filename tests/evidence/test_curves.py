"""Promises of `lib.evidence.curves`: against scikit-learn, curves drawn anew in each resample, and the table's rows."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_curve

from lib.evidence.curves import curve_bands, false_alarm_rates, score_bands, score_groups
from lib.evidence.evaluation import evaluate_scores
from lib.evidence.uncertainty import patient_weights
from lib.scores.conformal import achieved_rate, p_values


def table() -> pd.DataFrame:
    """30 validation normals, 30 test normals, 30 abnormal images of which 5 have a hernia."""
    random, n = np.random.default_rng(0), 90
    frame = pd.DataFrame({"id": [f"image-{i}" for i in range(n)], "patient": [f"patient-{i}" for i in range(n)]})
    frame["side"] = ["validation"] * 30 + ["test"] * 60
    frame["label"] = ["normal"] * 60 + ["abnormal"] * 30
    frame["finding"] = [""] * 60 + ["Edema"] * 25 + ["Hernia"] * 5
    frame["ra"] = random.normal(size=n) + (frame["label"] == "abnormal")
    return frame.assign(constant=0.5)


TABLE = table()
TEST = TABLE[TABLE["side"] == "test"]
EVALUATION = evaluate_scores(TABLE, ["ra", "constant"], resamples=50)


def test_the_curves_are_scikit_learns_and_lie_in_their_bands():
    roc, precision_recall = curve_bands(TABLE, EVALUATION)["ra"]
    is_abnormal = TEST["label"] == "abnormal"
    alarms, found, _ = roc_curve(is_abnormal, TEST["ra"], drop_intermediate=False)
    for at, value in zip(roc.at, roc.value, strict=True):
        assert value == pytest.approx(found[alarms <= at + 1e-9].max())
    precision, recall, _ = precision_recall_curve(is_abnormal, TEST["ra"])
    for at, value in list(zip(precision_recall.at, precision_recall.value, strict=True))[1:]:
        assert value == pytest.approx(precision[recall >= at - 1e-9][-1])
    expected = average_precision_score(is_abnormal, TEST["ra"])
    assert np.mean(precision_recall.value) == pytest.approx(expected, abs=0.01)


def test_the_bands_of_both_curves_are_those_of_curves_drawn_anew_in_each_resample():
    random = np.random.default_rng(3)
    patients = np.repeat([f"p{i}" for i in range(30)], 2)
    is_abnormal = np.repeat(random.random(30) < 0.5, 2)
    scores = np.round(random.normal(size=60) + is_abnormal, 1)  # some are tied
    roc, precision_recall = score_bands(scores, is_abnormal, patients, resamples=200, seed=4, points=11)
    sensitivities, precisions = [], []
    for weights in np.concatenate(list(patient_weights(is_abnormal, patients, 200, 4)), axis=1).T:
        alarms, found, _ = roc_curve(is_abnormal, scores, sample_weight=weights, drop_intermediate=False)
        sensitivities.append([found[alarms <= at + 1e-9].max() for at in roc.at])
        precision, recall, _ = precision_recall_curve(is_abnormal, scores, sample_weight=weights)
        any_found = recall > 0  # below the first abnormal image there is no threshold to speak of
        precisions.append([precision[any_found][recall[any_found] >= at - 1e-9][-1] for at in roc.at])
    for band, drawn in ((roc, sensitivities), (precision_recall, precisions)):
        low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
        assert band.low == pytest.approx(low) and band.high == pytest.approx(high)
        assert (band.low <= band.value).all() and (band.value <= band.high).all()


def test_the_mark_stands_on_both_curves_where_the_threshold_is():
    roc, precision_recall = curve_bands(TABLE, EVALUATION)["ra"]
    threshold = EVALUATION.methods["ra"].threshold
    called = TEST[TEST["ra"] > threshold.value]
    sensitivity = (called["label"] == "abnormal").sum() / 30
    assert roc.mark == pytest.approx(((called["label"] == "normal").sum() / 30, sensitivity))
    assert precision_recall.mark == pytest.approx((sensitivity, (called["label"] == "abnormal").mean()))


def test_a_threshold_that_calls_nothing_is_as_precise_as_can_be():
    assert curve_bands(TABLE, EVALUATION)["constant"].precision_recall.mark == (0, 1)


def test_a_score_of_the_test_side_alone_has_curves_and_groups_without_a_threshold():
    alone = TABLE.assign(ra=TABLE["ra"].where(TABLE["side"] == "test"))
    evaluation = evaluate_scores(alone, ["ra"], resamples=20)
    assert [band.mark for band in curve_bands(alone, evaluation)["ra"]] == [None, None]
    validation = score_groups(alone, evaluation)["ra"].sides["normal, validation"]
    assert (validation.images, len(validation.scores), validation.median) == (30, 0, None)


def test_groups_hold_the_scores_of_the_sides_and_of_each_finding():
    sides, findings = score_groups(TABLE, EVALUATION)["ra"]
    assert list(sides) == ["normal, validation", "normal, test", "abnormal, test"]
    rows = {"Edema": slice(60, 85), "Hernia": slice(85, 90)}
    rows |= dict(zip(sides, (slice(0, 30), slice(30, 60), slice(60, 90)), strict=True))
    for name, group in (sides | findings).items():
        scores = TABLE["ra"][rows[name]]
        assert group.images == len(scores) and group.median == pytest.approx(scores.median())
        assert group.scores.tolist() == sorted(scores)


def test_images_without_a_label_are_in_no_group():
    unlabelled = TABLE.assign(label=TABLE["label"].where(TABLE["finding"] != "Edema", ""))
    sides, findings = score_groups(unlabelled, evaluate_scores(unlabelled, ["ra"], resamples=20))["ra"]
    assert sides["abnormal, test"].images == 5 and list(findings) == ["Hernia"]


def test_false_alarms_are_the_share_of_normal_images_with_a_small_p_value_beside_what_chance_allows():
    found = false_alarm_rates(TABLE, ["ra"], "label")
    p = p_values(TABLE["ra"][:30].to_numpy(), TABLE["ra"][30:60].to_numpy())
    assert (found.calibration, found.normal) == (30, 30)
    for at, low, high, rate in zip(found.promised, found.low, found.high, found.rates["ra"], strict=True):
        assert rate == (p <= at + 1e-9).mean()
        assert (low, high) == achieved_rate(30, at, 30)[1:]
    assert found.promised == pytest.approx(np.arange(1, 16) / 31)
    assert found.promised[found.usual] == pytest.approx(1 / 31)


def test_too_few_calibration_images_promise_no_usual_rate():
    assert false_alarm_rates(TABLE.drop(index=range(20)), ["ra"], "label").usual is None


def test_a_score_that_the_table_lacks_is_refused_by_name():
    for use in (lambda: false_alarm_rates(TABLE, ["pca"], "label"), lambda: curve_bands(TABLE[["side"]], EVALUATION)):
        with pytest.raises(ValueError, match=r"no column \["):
            use()
