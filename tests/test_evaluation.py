"""Promises of `lib.evaluation`, against pair counting, scikit-learn and the table's own rows."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom
from sklearn.metrics import average_precision_score

from lib.evaluation import (
    auroc,
    average_precision,
    evaluate_scores,
    findings_table,
    results_table,
    sensitivity_specificity,
    share,
    strata_table,
    threshold_at,
)
from lib.uncertainty import bootstrap, delong


def images(n: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores with many ties, and labels."""
    random = np.random.default_rng(seed)
    is_abnormal = random.random(n) < 0.4
    return random.integers(0, 8, n) + 2.0 * is_abnormal, is_abnormal


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


def test_auroc_is_the_share_of_pairs_won_and_a_tie_wins_half():
    scores, is_abnormal = images(30)
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[is_abnormal] for b in scores[~is_abnormal]]
    assert auroc(scores, is_abnormal) == pytest.approx(np.mean(pairs), abs=1e-12)
    assert auroc(np.ones(30), is_abnormal) == 0.5


def test_average_precision_is_scikit_learns_and_the_prevalence_for_a_constant():
    for seed in range(5):
        scores, is_abnormal = images(40, seed)
        expected = average_precision_score(is_abnormal, scores)
        assert average_precision(scores, is_abnormal) == pytest.approx(expected, abs=1e-12)
    assert average_precision(np.ones(40), is_abnormal) == pytest.approx(is_abnormal.mean())


@pytest.mark.parametrize("n", [7, 20, 100, 333])
def test_a_new_normal_image_exceeds_the_threshold_with_the_promised_chance(n):
    """Of n + 1 exchangeable scores each is the new one equally often: the places above are its chance."""
    scores = np.random.default_rng(n).normal(size=n)
    places = (scores > threshold_at(scores, 0.05)).sum() + 1
    assert places / (n + 1) <= 0.05 or places == 1  # one place is the least there is
    assert (places + 1) / (n + 1) > 0.05


def test_a_score_at_the_threshold_is_called_normal():
    scores, is_abnormal = np.array([1, 2, 3, 2, 3, 4.0]), np.array([False, False, False, True, True, True])
    found = sensitivity_specificity(scores, is_abnormal, np.arange(6), 2.0)
    assert [one.value for one in found] == pytest.approx([2 / 3, 2 / 3])


@pytest.mark.parametrize("n", [36, 64, 200])
@pytest.mark.parametrize("true", [0.7, 0.9, 0.95])
def test_the_interval_of_a_share_covers_it_in_about_95_percent_of_samples(n, true):
    """Exactly: every possible count with its binomial chance."""
    intervals = [share(np.arange(n) < hits, np.arange(n)) for hits in range(n + 1)]
    covered = [low <= true <= high for _, low, high in intervals]
    assert 0.93 <= binom.pmf(np.arange(n + 1), n, true) @ covered <= 0.985


def test_the_interval_of_a_share_counts_patients():
    hits = np.arange(200) < 60
    assert share(hits, np.arange(200) // 2) == pytest.approx(share(hits[::2], np.arange(100)))
    assert share(hits, np.zeros(200))[1:] == (0, 1)


def test_the_threshold_of_a_constant_or_tied_score_is_a_score_that_fewer_exceed():
    assert threshold_at(np.full(40, 0.3)) == 0.3
    tied = np.repeat([1.0, 2, 3], [30, 5, 5])
    assert threshold_at(tied, 0.05) == 3 and threshold_at(tied, 0.2) == 2


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: threshold_at([]), "0 validation scores, 0 finite: expected some, all finite; score normal images"),
        (lambda: threshold_at([1, np.nan]), "2 validation scores, 1 finite"),
        (lambda: share(np.array([], dtype=bool), []), "0 hits of 0 patients: expected one or more"),
        (lambda: share(np.array([True]), ["a", "b"]), "1 hits of 2 patients: .* the patient of each"),
        (lambda: sensitivity_specificity(*images(), np.arange(60), np.nan), "threshold nan: .*`threshold_at`"),
        (lambda: sensitivity_specificity(*images(), np.arange(9), 2.0), "9 patients of 60 scores"),
        (lambda: auroc(np.arange(3), np.ones(3, dtype=bool)), "0 normal and 3 abnormal images, expected at least one"),
        (lambda: average_precision([1, np.nan], np.array([True, False])), "1 of 2 scores are not finite"),
    ],
)
def test_what_has_no_value_is_refused_by_what_was_found_and_wanted(use, message):
    with pytest.raises(ValueError, match=message):
        use()


def test_images_that_the_labels_do_not_decide_are_counted_by_name():
    results = evaluate_scores(table(), ["ra"], labels="strict_label", resamples=50)
    assert results["left_out"] == {"no label": 14, "other_abnormal": 12, "blurred": 4}
    assert (results["n_normal"], results["n_abnormal"], results["prevalence"]) == (40, 40, 0.5)
    assert results["patients"] == 40
    assert evaluate_scores(table(), ["ra"], resamples=50)["left_out"] == {}


def test_each_finding_is_compared_with_the_same_normals_and_a_small_one_keeps_its_number():
    frame = table()
    findings = evaluate_scores(frame, ["unet", "ra"], labels="strict_label", resamples=50)["methods"]["ra"]["findings"]
    assert {name: one["n"] for name, one in findings.items()} == {
        "other_abnormal": 12,
        "Edema": 35,
        "Hernia": 5,
        "Mass": 15,
    }
    assert findings["Hernia"]["auroc"] is None and findings["Hernia"]["why"] == "5 abnormal: fewer than 10"
    assert findings["Mass"]["why"] is None
    normal = (frame["side"] == "test") & (frame["strict_label"] == "normal")
    mass = frame["finding"].str.contains("Mass")
    expected = auroc(frame["ra"][normal | mass], mass[normal | mass])
    assert findings["Mass"]["auroc"]["value"] == pytest.approx(expected)
    assert findings["Mass"]["auroc"]["low"] < expected < findings["Mass"]["auroc"]["high"]


def test_a_stratum_that_the_labels_leave_out_whole_is_no_stratum():
    frame = table()
    first = frame.index[(frame["side"] == "test") & (frame["label"] == "abnormal")][0]
    frame["view"] = "PA"
    frame.loc[first, ["view", "label"]] = ["lateral", ""]
    results = evaluate_scores(frame, ["ra"], resamples=50)
    assert [(one["column"], one["value"]) for one in results["strata"] if one["column"] == "view"] == [("view", "PA")]
    assert results["left_out"] == {"no label": 1}


def test_each_stratum_is_evaluated_within_and_one_that_cannot_be_says_why():
    frame = table()
    random = np.random.default_rng(1)
    test = frame["side"] == "test"
    frame["view"] = np.where((frame["strict_label"] == "normal") & (np.arange(130) % 5 > 0), "PA", "AP")
    frame["sex"] = np.where(np.arange(130) % 9 == 0, "", np.where(np.arange(130) % 2 == 0, "F", "M"))
    frame["age"] = random.choice(["7", "18", "39", "40", "79", "80", ""], 130)
    frame["source"] = None
    results = evaluate_scores(frame, ["unet", "ra"], labels="strict_label", resamples=50)
    found = {(one["column"], one["value"]): one for one in results["strata"]}
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
        rows = [one for (name, _), one in found.items() if name == column]
        assert (sum(one["n_normal"] for one in rows), sum(one["n_abnormal"] for one in rows)) == (40, 40)
    assert found["view", "AP"]["n_normal"] == 8 and found["view", "AP"]["auroc"] is None
    assert found["view", "AP"]["why"] == "8 normal: fewer than 10"
    assert found["view", "PA"]["why"] == "0 abnormal: fewer than 10"
    assert found["source", "unknown"]["why"] == "source not known" and ("source", "") not in found
    women = frame[used & (frame["sex"] == "F")]
    one = found["sex", "F"]["auroc"]["ra"]
    assert one["value"] == pytest.approx(auroc(women["ra"], women["strict_label"] == "abnormal"))
    assert one["low"] < one["value"] < one["high"] and set(found["sex", "F"]["auroc"]) == {"unet", "ra"}
    shown = strata_table(results)
    assert shown.loc[("view", "AP")].to_list() == [8, 40, "–", "–", "8 normal: fewer than 10"]
    assert json.loads(json.dumps(results, allow_nan=False)) == results


def test_a_table_without_metadata_has_no_strata_and_a_score_named_as_one_is_none():
    results = evaluate_scores(table(), ["ra"], resamples=20)
    assert results["strata"] == [] and strata_table(results).empty
    scored = table().assign(view=np.arange(130.0))
    assert evaluate_scores(scored, ["view"], resamples=20)["strata"] == []


def test_the_metrics_and_delongs_difference_are_those_of_the_test_images():
    frame = table()
    results = evaluate_scores(frame, ["unet", "ra"], resamples=50)
    test = frame[frame["side"] == "test"]
    scores, is_abnormal = test[["unet", "ra"]].to_numpy().T, (test["label"] == "abnormal").to_numpy()
    drawn = bootstrap(scores, is_abnormal, test["patient"], 50)
    for i, method in enumerate(("unet", "ra")):
        for name in ("auroc", "average_precision", "fpr_at_95_tpr", "tpr_at_5_fpr"):
            assert results["methods"][method][name] == drawn.estimate(name, i)._asdict()
    expected, p_value = delong(scores, is_abnormal, test["patient"]).difference(0, 1)
    assert results["differences"][0]["delong"] == expected._asdict() | {"p_value": p_value}


def test_three_patients_are_evaluated_and_nothing_is_claimed():
    frame = table().iloc[[0, 1, 20, 21, 22, 60, 61]]  # two validation images; two normal patients and an abnormal one
    results = evaluate_scores(frame, ["unet", "ra"], resamples=20)
    area = results["methods"]["ra"]["auroc"]
    assert (area["low"], area["high"], results["patients"]) == (0, 1, 3)
    assert results["methods"]["ra"]["threshold"]["intervals"]["sensitivity"] | {"value": 0} == {
        "value": 0,
        "low": 0,
        "high": 1,
    }
    difference = results["differences"][0]
    assert (difference["auroc"]["low"], difference["auroc"]["high"], difference["delong"]) == (-1, 1, None)
    assert json.loads(json.dumps(results, allow_nan=False)) == results


def test_a_constant_score_is_evaluated_as_no_information():
    results = evaluate_scores(table().assign(ra=1.0), ["ra"], labels="strict_label", resamples=20)
    one = results["methods"]["ra"]
    assert one["auroc"] == {"value": 0.5, "low": 0.5, "high": 0.5}
    assert one["average_precision"]["value"] == results["prevalence"] == 0.5
    assert (one["threshold"]["sensitivity"], one["threshold"]["specificity"]) == (0, 1)


def test_every_pair_of_methods_is_compared_once_in_order():
    results = evaluate_scores(table(), ["mean image", "unet", "ra"], resamples=50)
    pairs = [(one["first"], one["second"]) for one in results["differences"]]
    assert pairs == [("mean image", "unet"), ("mean image", "ra"), ("unet", "ra")]
    values = [results["methods"][name]["auroc"]["value"] for name in ("unet", "ra")]
    assert results["differences"][2]["auroc"]["value"] == pytest.approx(values[0] - values[1])


def test_the_threshold_comes_from_validation_normals_alone():
    frame = table()
    before = evaluate_scores(frame, ["ra"], resamples=20)["methods"]["ra"]["threshold"]["value"]
    frame.loc[frame["side"] == "test", "ra"] *= 10
    after = evaluate_scores(frame, ["ra"], resamples=20)["methods"]["ra"]["threshold"]
    assert before == after["value"] == threshold_at(frame["ra"][:20])
    test = frame[frame["side"] == "test"]
    called = test["ra"] > before
    for name in ("sensitivity", "specificity"):
        assert after["intervals"][name]["low"] <= after["intervals"][name]["value"] == after[name]
    assert after["sensitivity"] == pytest.approx(called[test["label"] == "abnormal"].mean())
    assert after["specificity"] == pytest.approx(1 - called[test["label"] == "normal"].mean())


def test_results_survive_json_and_leave_the_table_as_it_was():
    frame = table()
    frame.loc[129, "strict_label"] = None
    before = frame.copy()
    results = evaluate_scores(frame, ["unet", "ra"], labels="strict_label", resamples=20)
    assert json.loads(json.dumps(results, allow_nan=False)) == results
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
    ],
)
def test_a_table_that_cannot_be_evaluated_is_refused_by_what_it_lacks(change, labels, message):
    with pytest.raises(ValueError, match=message):
        evaluate_scores(change(table()), ["unet", "ra"], labels=labels, resamples=10)


def test_the_tables_show_every_method_and_every_finding():
    results = evaluate_scores(table(), ["unet", "ra"], labels="strict_label", resamples=50)
    shown = results_table(results)
    assert list(shown.index) == ["unet", "ra"]
    assert list(shown.columns) == [
        "AUROC [95 % interval]",
        "average precision [95 % interval]",
        "FPR at 95 % TPR",
        "TPR at 5 % FPR",
        "sensitivity",
        "specificity",
        "normal / abnormal",
    ]
    one = results["methods"]["ra"]["auroc"]
    assert shown.loc["ra"].iloc[0] == f"{one['value']:.3f} [{one['low']:.2f}, {one['high']:.2f}]"
    assert shown.loc["ra"].iloc[-1] == "40 / 40"
    findings = findings_table(results)
    assert findings.loc["Hernia"].to_list() == [5, "–", "–"]
    assert set(findings.index) == {"Edema", "Hernia", "Mass", "other_abnormal"}
