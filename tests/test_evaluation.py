"""Promises of `lib.evaluation`, against pair counting, scikit-learn and brute-force repetition of rows."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from lib.evaluation import (
    METRICS,
    Estimate,
    auroc,
    average_precision,
    bootstrap,
    evaluate_scores,
    findings_table,
    paired_difference,
    patient_weights,
    pixel_average_precision,
    ranking,
    results_table,
    sensitivity_specificity,
    threshold_at,
)


def images(n: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores with many ties, labels, and about three images a patient."""
    random = np.random.default_rng(seed)
    is_abnormal = random.random(n) < 0.4
    return random.integers(0, 8, n) + 2.0 * is_abnormal, is_abnormal, random.integers(0, n // 3, n).astype(str)


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
    scores, is_abnormal, _ = images(30)
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[is_abnormal] for b in scores[~is_abnormal]]
    assert auroc(scores, is_abnormal) == pytest.approx(np.mean(pairs), abs=1e-12)
    assert auroc(np.ones(30), is_abnormal) == 0.5


def test_average_precision_is_scikit_learns_and_the_prevalence_for_a_constant():
    for seed in range(5):
        scores, is_abnormal, _ = images(40, seed)
        expected = average_precision_score(is_abnormal, scores)
        assert average_precision(scores, is_abnormal) == pytest.approx(expected, abs=1e-12)
    assert average_precision(np.ones(40), is_abnormal) == pytest.approx(is_abnormal.mean())


def test_weights_mean_what_scikit_learn_means_by_them_and_what_repeated_rows_mean():
    scores, is_abnormal, _ = images()
    weights = np.random.default_rng(1).integers(0, 4, (len(scores), 6))
    aurocs, precisions = (metric(ranking(scores, is_abnormal), weights) for metric in METRICS.values())
    for weight, area, precision in zip(weights.T, aurocs, precisions, strict=True):
        repeated = np.repeat(np.arange(len(scores)), weight)
        assert area == pytest.approx(roc_auc_score(is_abnormal, scores, sample_weight=weight), abs=1e-12)
        assert area == pytest.approx(auroc(scores[repeated], is_abnormal[repeated]), abs=1e-12)
        expected = average_precision_score(is_abnormal[repeated], scores[repeated])
        assert precision == pytest.approx(expected, abs=1e-12)


def test_a_resample_repeats_whole_patients_and_keeps_the_number_of_each_kind():
    _, is_abnormal, patients = images()
    names = np.unique(patients)
    abnormal_patients = {name for name in names if is_abnormal[patients == name].any()}
    for weight in np.concatenate(list(patient_weights(is_abnormal, patients, 50, seed=3)), axis=1).T:
        times = {name: set(weight[patients == name]) for name in names}
        assert all(len(counts) == 1 for counts in times.values())
        assert sum(times[name].pop() for name in abnormal_patients) == len(abnormal_patients)
        assert sum(times[name].pop() for name in set(names) - abnormal_patients) == len(names) - len(abnormal_patients)


def test_the_interval_is_that_of_patients_repeated_by_hand():
    scores, is_abnormal, patients = images()
    kinds = {name: is_abnormal[patients == name].any() for name in np.unique(patients)}
    strata = [[name for name, kind in kinds.items() if kind is np.bool_(wanted)] for wanted in (True, False)]
    random, by_hand = np.random.default_rng(4), []
    for _ in range(2000):
        drawn = [name for members in strata for name in random.choice(members, len(members))]
        rows = np.concatenate([np.flatnonzero(patients == name) for name in drawn])
        by_hand.append(auroc(scores[rows], is_abnormal[rows]))
    replicates = bootstrap(scores[None], is_abnormal, patients, 20_000).replicates["auroc"][0]
    quantiles = [0.025, 0.25, 0.5, 0.75, 0.975]
    # 2,000 draws place a tail quantile to about 0.1 standard deviations; three of those are allowed.
    assert np.quantile(replicates, quantiles) == pytest.approx(
        np.quantile(by_hand, quantiles), abs=0.3 * np.std(by_hand)
    )


def test_resamples_vary_as_much_as_theory_says_when_every_image_is_a_patient():
    scores, is_abnormal, _ = images(400)
    won = (scores[is_abnormal][:, None] > scores[~is_abnormal]) + 0.5 * (
        scores[is_abnormal][:, None] == scores[~is_abnormal]
    )
    delong = won.mean(axis=1).var() / len(won) + won.mean(axis=0).var() / won.shape[1]
    replicates = bootstrap(scores[None], is_abnormal, np.arange(400), 5000).replicates["auroc"][0]
    assert replicates.std() == pytest.approx(delong**0.5, rel=0.05)


def test_four_copies_of_each_film_do_not_narrow_the_interval_unless_they_pass_for_patients():
    scores, is_abnormal, _ = images()
    copies = np.tile(np.arange(60), 4)

    def width(rows, patients):
        one = bootstrap(scores[None, rows], is_abnormal[rows], patients, 1000).estimate("auroc", 0)
        return one.high - one.low

    assert width(copies, copies) == pytest.approx(width(np.arange(60), np.arange(60)), rel=0.02)
    assert width(copies, np.arange(240)) < 0.6 * width(copies, copies)


def test_scores_that_rank_alike_differ_by_exactly_nothing():
    scores, is_abnormal, patients = images()
    found = paired_difference(scores, 3 * scores + 1, is_abnormal, patients, 200)
    assert found.auroc == found.average_precision == Estimate(0, 0, 0)
    assert found.p_value == 1


def test_a_paired_difference_subtracts_replicates_of_the_same_resamples():
    scores, is_abnormal, patients = images()
    other = scores + np.random.default_rng(2).normal(size=60)
    found = paired_difference(scores, other, is_abnormal, patients, 500, seed=5)
    alone = [bootstrap(s[None], is_abnormal, patients, 500, seed=5).replicates["auroc"][0] for s in (scores, other)]
    drawn = alone[0] - alone[1]
    assert found.auroc.value == pytest.approx(auroc(scores, is_abnormal) - auroc(other, is_abnormal))
    assert found.auroc[1:] == pytest.approx(np.quantile(drawn, [0.025, 0.975]))
    assert found.p_value == pytest.approx(min(1, 2 * (min((drawn <= 0).sum(), (drawn >= 0).sum()) + 1) / 501))


def test_the_seed_decides_the_resamples_and_the_order_of_the_rows_does_not():
    scores, is_abnormal, patients = images()
    order = np.random.default_rng(0).permutation(60)
    same = [bootstrap(scores[None], is_abnormal, patients, 100, seed=7).replicates["auroc"] for _ in range(2)]
    shuffled = bootstrap(scores[None, order], is_abnormal[order], patients[order], 100, seed=7).replicates["auroc"]
    other = bootstrap(scores[None], is_abnormal, patients, 100, seed=8).replicates["auroc"]
    assert np.array_equal(*same) and np.allclose(same[0], shuffled) and not np.array_equal(same[0], other)


def test_no_batch_of_resamples_is_larger_than_agreed(monkeypatch):
    monkeypatch.setattr("lib.evaluation.BATCH_ELEMENTS", 600)
    _, is_abnormal, patients = images()
    assert [weights.shape for weights in patient_weights(is_abnormal, patients, 25, 0)] == [(60, 10), (60, 10), (60, 5)]


@pytest.mark.parametrize("n", [7, 20, 100, 333])
def test_a_new_normal_image_exceeds_the_threshold_with_the_promised_chance(n):
    """Of n + 1 exchangeable scores each is the new one equally often: the places above are its chance."""
    scores = np.random.default_rng(n).normal(size=n)
    places = (scores > threshold_at(scores, 0.05)).sum() + 1
    assert places / (n + 1) <= 0.05 or places == 1  # one place is the least there is
    assert (places + 1) / (n + 1) > 0.05


def test_a_score_at_the_threshold_is_called_normal():
    scores, is_abnormal = np.array([1, 2, 3, 2, 3, 4.0]), np.array([False, False, False, True, True, True])
    assert sensitivity_specificity(scores, is_abnormal, 2.0) == pytest.approx((2 / 3, 2 / 3))


def test_pixels_are_pooled_over_images():
    random = np.random.default_rng(0)
    masks = random.random((3, 8, 8)) < 0.2
    maps = random.random((3, 8, 8)) + masks
    assert pixel_average_precision(maps, masks) == pytest.approx(average_precision_score(masks.ravel(), maps.ravel()))
    with pytest.raises(ValueError, match="no lesion pixel in 3 masks"):
        pixel_average_precision(maps, np.zeros_like(masks))
    with pytest.raises(ValueError, match=r"maps \(3, 8, 8\) and masks \(3, 4, 4\)"):
        pixel_average_precision(maps, masks[:, :4, :4])


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
    assert findings["Hernia"]["auroc"] is None
    normal = (frame["side"] == "test") & (frame["strict_label"] == "normal")
    mass = frame["finding"].str.contains("Mass")
    expected = auroc(frame["ra"][normal | mass], mass[normal | mass])
    assert findings["Mass"]["auroc"]["value"] == pytest.approx(expected)
    assert findings["Mass"]["auroc"]["low"] < expected < findings["Mass"]["auroc"]["high"]


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


@pytest.mark.parametrize(
    ("scores", "is_abnormal", "message"),
    [
        ([1.0, 2.0], [True], r"scores \(2,\) and labels \(1,\)"),
        ([1.0, 2.0], [1, 0], "is_abnormal is int64, expected bool"),
        ([1.0, np.nan], [True, False], "1 of 2 scores are not finite"),
        ([1.0, 2.0], [True, True], "0 normal and 2 abnormal images"),
    ],
)
def test_scores_that_cannot_be_ranked_are_refused_by_what_is_wrong(scores, is_abnormal, message):
    with pytest.raises(ValueError, match=message):
        auroc(np.array(scores), np.array(is_abnormal))


def test_the_tables_show_every_method_and_every_finding():
    results = evaluate_scores(table(), ["unet", "ra"], labels="strict_label", resamples=50)
    shown = results_table(results)
    assert list(shown.index) == ["unet", "ra"]
    assert list(shown.columns) == [
        "AUROC [95 % interval]",
        "AP [95 % interval]",
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
