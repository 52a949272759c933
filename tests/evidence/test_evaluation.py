"""Promises of `lib.evidence.evaluation`, against pair counting, scikit-learn and the table's own rows."""

from dataclasses import astuple

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from lib.evidence.delong import delong
from lib.evidence.evaluation import evaluate_scores, share, threshold_at
from lib.evidence.metrics import auroc
from lib.evidence.results import Estimate, Evaluation
from lib.evidence.uncertainty import bootstrap


def table(seed: int = 0) -> pd.DataFrame:
    """20 validation and 110 test images: 40 normal, 40 abnormal, 12 and 4 of other kinds, 14 without a strict label."""
    random = np.random.default_rng(seed)
    strict = ["normal"] * 60 + ["abnormal"] * 40 + ["other_abnormal"] * 12 + ["blurred"] * 4 + [""] * 14
    n = len(strict)
    frame = pd.DataFrame(
        {
            "id": [f"image-{i}" for i in range(n)],
            "side": ["validation"] * 20 + ["test"] * (n - 20),
            "patient": [f"patient-{i // 2}" for i in range(n)],
            "label": ["normal"] * 60 + ["abnormal"] * (n - 60),
            "strict_label": strict,
            "finding": [""] * 60 + ["Mass|Edema"] * 15 + ["Edema"] * 20 + ["Hernia"] * 5 + ["Fibrosis"] * (n - 100),
        }
    )
    for shift, method in enumerate(("mean image", "unet", "ra")):
        frame[method] = random.normal(size=n) + shift * (frame["label"] == "abnormal")
    return frame


@pytest.mark.parametrize("n", [7, 20, 100, 333])
def test_a_new_normal_image_exceeds_the_threshold_with_the_promised_chance(n):
    """Of n + 1 exchangeable scores each is the new one equally often: the places above are its chance."""
    scores = np.random.default_rng(n).normal(size=n)
    places = (scores > threshold_at(scores, 0.05)).sum() + 1
    assert places / (n + 1) <= 0.05 or places == 1  # one place is the least there is
    assert (places + 1) / (n + 1) > 0.05


def test_a_score_at_the_threshold_is_called_normal():
    frame = table().assign(ra=2.0)
    test = frame["side"] == "test"
    frame.loc[test, "ra"] = np.resize([1.0, 2, 3], test.sum())
    normal, abnormal = (frame["ra"][test & (frame["label"] == kind)] for kind in ("normal", "abnormal"))
    threshold = evaluate_scores(frame, ["ra"], resamples=20).methods["ra"].threshold
    assert threshold.value == 2
    assert threshold.sensitivity.value == pytest.approx((abnormal == 3).mean())
    assert threshold.specificity.value == pytest.approx((normal <= 2).mean())


@pytest.mark.parametrize("n", [36, 64, 200])
@pytest.mark.parametrize("true", [0.7, 0.9, 0.95])
def test_the_interval_of_a_share_covers_it_in_about_95_percent_of_samples(n, true):
    """Exactly: every possible count with its binomial chance."""
    intervals = [share(np.arange(n) < hits, np.arange(n)) for hits in range(n + 1)]
    covered = [interval.contains(true) for interval in intervals]
    assert 0.93 <= binom.pmf(np.arange(n + 1), n, true) @ covered <= 0.985


def test_the_interval_of_a_share_counts_patients():
    hits = np.arange(200) < 60
    assert astuple(share(hits, np.arange(200) // 2)) == pytest.approx(astuple(share(hits[::2], np.arange(100))))
    assert share(hits, np.zeros(200)) == Estimate(0.3, 0, 1)


def test_the_threshold_of_a_constant_or_tied_score_is_a_score_that_fewer_exceed():
    assert threshold_at(np.full(40, 0.3)) == 0.3
    tied = np.repeat([1.0, 2, 3], [30, 5, 5])
    assert threshold_at(tied, 0.05) == 3 and threshold_at(tied, 0.2) == 2


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: threshold_at([]), "0 validation scores, 0 finite: expected some, all finite; score normal images"),
        (lambda: threshold_at([1, np.nan]), "2 validation scores, 1 finite"),
        (lambda: threshold_at([1, 2], 1.5), "a false alarm rate of 1.5: expected a number between 0 and 1"),
        (lambda: threshold_at([1, 2], 0), "a false alarm rate of 0: "),
        (lambda: auroc(np.array(["1", "2"]), np.array([False, True])), "scores are <U1, expected real numbers"),
        (lambda: share(np.array([], dtype=bool), []), "0 hits of 0 patients: expected one or more"),
        (lambda: share(np.array([True]), ["a", "b"]), "1 hits of 2 patients: .* the patient of each"),
    ],
)
def test_what_has_no_value_is_refused_by_what_was_found_and_wanted(use, message):
    with pytest.raises(ValueError, match=message):
        use()


def test_images_that_the_labels_do_not_decide_are_counted_by_name():
    results = evaluate_scores(table(), ["ra"], labels="strict_label", resamples=50)
    assert results.left_out == {"no label": 14, "other_abnormal": 12, "blurred": 4}
    assert (results.n_normal, results.n_abnormal, results.prevalence) == (40, 40, 0.5)
    assert (results.patients, results.normal_patients, results.abnormal_patients) == (40, 20, 20)
    assert evaluate_scores(table(), ["ra"], resamples=50).left_out == {}


def test_each_finding_is_compared_with_the_same_normals_and_a_small_one_keeps_its_number():
    frame = table()
    findings = evaluate_scores(frame, ["unet", "ra"], labels="strict_label", resamples=50).methods["ra"].findings
    assert {name: finding.n for name, finding in findings.items()} == {
        "other_abnormal": 12,
        "Edema": 35,
        "Hernia": 5,
        "Mass": 15,
    }
    assert findings["Hernia"].auroc is None and findings["Hernia"].why == "3 abnormal: fewer than 10 patients"
    assert findings["Mass"].auroc is None and findings["Mass"].why == "8 abnormal: fewer than 10 patients"
    assert findings["Edema"].why is None
    normal = (frame["side"] == "test") & (frame["strict_label"] == "normal")
    edema = frame["finding"].str.contains("Edema")
    expected = auroc(frame["ra"][normal | edema], edema[normal | edema])
    area = findings["Edema"].auroc
    assert area.value == pytest.approx(expected) and area.low < expected < area.high


def test_a_stratum_that_the_labels_leave_out_whole_is_no_stratum():
    frame = table()
    first = frame.index[(frame["side"] == "test") & (frame["label"] == "abnormal")][0]
    frame["view"] = "PA"
    frame.loc[first, ["view", "label"]] = ["lateral", ""]
    results = evaluate_scores(frame, ["ra"], resamples=50)
    assert [stratum.value for stratum in results.strata if stratum.column == "view"] == ["PA"]
    assert results.left_out == {"no label": 1}


def test_each_stratum_is_evaluated_within_and_one_that_cannot_be_says_why():
    frame = table()
    random = np.random.default_rng(1)
    test = frame["side"] == "test"
    frame["view"] = np.where((frame["strict_label"] == "normal") & (np.arange(130) % 5 > 0), "PA", "AP")
    frame["sex"] = np.where(np.arange(130) % 9 == 0, "", np.where(np.arange(130) % 2 == 0, "F", "M"))
    frame["age"] = random.choice(["7", "18", "39", "40", "79", "80", ""], 130)
    frame["source"] = None
    results = evaluate_scores(frame, ["unet", "ra"], labels="strict_label", resamples=50)
    found = {(stratum.column, stratum.value): stratum for stratum in results.strata}
    assert [value for column, value in found if column == "age"] == [
        "under 18",
        "18 to 39",
        "40 to 59",
        "60 to 79",
        "80 and over",
        "unknown",
    ]
    used = test & frame["strict_label"].isin(["normal", "abnormal"])
    for column in ("view", "sex", "age", "source"):  # every image is in one stratum of each column
        rows = [stratum for (name, _), stratum in found.items() if name == column]
        assert (sum(stratum.n_normal for stratum in rows), sum(stratum.n_abnormal for stratum in rows)) == (40, 40)
    assert found["view", "AP"].n_normal == 8 and found["view", "AP"].auroc is None
    assert found["view", "AP"].why == "8 normal: fewer than 10 patients"
    assert found["view", "PA"].why == "0 abnormal: fewer than 10 patients"
    assert found["source", "unknown"].why == "source not known" and ("source", "") not in found
    women = frame[used & (frame["sex"] == "F")]
    area = found["sex", "F"].auroc["ra"]
    assert area.value == pytest.approx(auroc(women["ra"], women["strict_label"] == "abnormal"))
    assert area.low < area.value < area.high and set(found["sex", "F"].auroc) == {"unet", "ra"}


def test_a_table_without_metadata_has_no_strata_and_a_score_named_as_one_is_none():
    assert evaluate_scores(table(), ["ra"], resamples=20).strata == []
    scored = table().assign(view=np.arange(130.0))
    assert evaluate_scores(scored, ["view"], resamples=20).strata == []


def test_the_metrics_and_delongs_difference_are_those_of_the_test_images():
    frame = table()
    results = evaluate_scores(frame, ["unet", "ra"], resamples=50)
    test = frame[frame["side"] == "test"]
    scores, is_abnormal = test[["unet", "ra"]].to_numpy().T, (test["label"] == "abnormal").to_numpy()
    drawn = bootstrap(scores, is_abnormal, test["patient"], 50)
    for i, method in enumerate(("unet", "ra")):
        for name in ("auroc", "average_precision", "fpr_at_95_tpr", "tpr_at_5_fpr"):
            assert getattr(results.methods[method], name) == drawn.estimate(name, i)
    assert results.differences[0].p_value == drawn.p_value(0, 1)
    assert results.differences[0].delong == delong(scores, is_abnormal, test["patient"]).difference(0, 1)


def test_three_patients_are_evaluated_and_nothing_is_claimed():
    frame = table().iloc[[0, 1, 20, 21, 22, 60, 61]]  # two validation images; two normal patients and an abnormal one
    results = evaluate_scores(frame, ["unet", "ra"], resamples=20)
    method, difference = results.methods["ra"], results.differences[0]
    assert (method.auroc.low, method.auroc.high, results.patients) == (0, 1, 3)
    assert (method.threshold.sensitivity.low, method.threshold.sensitivity.high) == (0, 1)
    assert (difference.auroc.low, difference.auroc.high, difference.delong) == (-1, 1, None)
    assert Evaluation.model_validate_json(results.model_dump_json()) == results


def test_a_constant_score_is_evaluated_as_no_information():
    results = evaluate_scores(table().assign(ra=1.0), ["ra"], labels="strict_label", resamples=20)
    method = results.methods["ra"]
    assert method.auroc == Estimate(0.5, 0.5, 0.5)
    assert method.average_precision.value == results.prevalence == 0.5
    assert (method.threshold.sensitivity.value, method.threshold.specificity.value) == (0, 1)


def test_every_pair_of_methods_is_compared_once_in_order():
    results = evaluate_scores(table(), ["mean image", "unet", "ra"], resamples=50)
    pairs = [(difference.first, difference.second) for difference in results.differences]
    assert pairs == [("mean image", "unet"), ("mean image", "ra"), ("unet", "ra")]
    values = [results.methods[name].auroc.value for name in ("unet", "ra")]
    assert results.differences[2].auroc.value == pytest.approx(values[0] - values[1])


def test_the_threshold_comes_from_validation_normals_alone():
    frame = table()
    before = evaluate_scores(frame, ["ra"], resamples=20).methods["ra"].threshold.value
    frame.loc[frame["side"] == "test", "ra"] *= 10
    after = evaluate_scores(frame, ["ra"], resamples=20).methods["ra"].threshold
    assert before == after.value == threshold_at(frame["ra"][:20])
    test = frame[frame["side"] == "test"]
    called = test["ra"] > before
    for rate in (after.sensitivity, after.specificity):
        assert rate.low <= rate.value
    assert after.sensitivity.value == pytest.approx(called[test["label"] == "abnormal"].mean())
    assert after.specificity.value == pytest.approx(1 - called[test["label"] == "normal"].mean())


def test_results_survive_json_and_leave_the_table_as_it_was():
    frame = table()
    frame.loc[129, "strict_label"] = None
    before = frame.copy()
    results = evaluate_scores(frame, ["unet", "ra"], labels="strict_label", resamples=20)
    assert Evaluation.model_validate_json(results.model_dump_json()) == results
    pd.testing.assert_frame_equal(frame, before)


@pytest.mark.parametrize(
    ("change", "labels", "message"),
    [
        (lambda t: t.drop(columns="patient"), "label", r"no column \['patient'\]"),
        (lambda t: t.drop(columns="ra"), "label", r"no column \['ra'\]"),
        (lambda t: t, "expert_label", r"no column \['expert_label'\]"),
        (lambda t: t.assign(ra=t["ra"].where(t["id"] != "image-7")), "label", "1 scores of 'ra' .* first 'image-7'"),
        (lambda t: t.assign(patient=t["patient"].where(t.index != 9, "")), "label", "no patient .* first 'image-9'"),
        (lambda t: t.assign(side=t["side"].replace("validation", "train")), "label", r"side is \['train'\]"),
        (lambda t: t[t["side"] == "test"], "label", "0 validation images"),
        (lambda t: t.assign(label="abnormal"), "label", "20 validation images, 20 of them abnormal"),
        (lambda t: t[t["strict_label"] != "abnormal"], "strict_label", r"'normal': 40.*some 'abnormal'"),
        (
            lambda t: t.assign(ra=t["ra"].astype(str)),
            "label",
            "scores of 'ra' are (object|str), first '.*expected numbers",
        ),
        (lambda t: t.assign(id=t["id"].replace("image-8", "image-7")), "label", "id 'image-7' is in several rows"),
        (lambda t: t.assign(patient=None), "label", "no patient for 130 images"),
        (lambda t: pd.concat([t, t[["ra"]]], axis=1), "label", r"\['ra'\] occur twice"),
        (
            lambda t: t.rename(columns={"strict_label": "unet", "unet": "x"}),
            "unet",
            r"\['unet'\] have the names of col",
        ),
    ],
)
def test_a_table_that_cannot_be_evaluated_is_refused_by_what_it_lacks(change, labels, message):
    with pytest.raises(ValueError, match=message):
        evaluate_scores(change(table()), ["unet", "ra"], labels=labels, resamples=10)
