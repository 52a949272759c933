"""Promises of `lib.evidence.uncertainty`: against repetition by hand and simulation."""

import re
from dataclasses import astuple
from io import StringIO
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from samples import binormal, ends, images
from scipy.integrate import quad
from scipy.special import expit, logit
from scipy.stats import binomtest, norm
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from lib.evidence.curves import score_bands
from lib.evidence.delong import delong
from lib.evidence.evaluation import evaluate_scores, share
from lib.evidence.localisation import localise
from lib.evidence.metrics import METRICS, POINTS, auroc, ranking
from lib.evidence.results import DeLongTest, Estimate
from lib.evidence.seeds import seed_mean
from lib.evidence.uncertainty import (
    ENOUGH,
    affordable,
    bootstrap,
    interval,
    logit_interval,
    over_seeds,
    patient_weights,
)

# The bootstrap


def test_a_constant_score_gets_the_values_of_no_information():
    _, is_abnormal, patients = images()
    found = bootstrap(np.ones((1, 60)), is_abnormal, patients, 50)
    values = {name: value[0] for name, value in found.values.items()}
    none = {"auroc": 0.5, "average_precision": is_abnormal.mean(), "fpr_at_95_tpr": 1, "tpr_at_5_fpr": 0}
    assert values == pytest.approx(none)
    assert found.estimate("auroc", 0) == Estimate(0.5, 0.5, 0.5)
    assert found.estimate("fpr_at_95_tpr", 0).high == 1 and found.estimate("tpr_at_5_fpr", 0).low == 0


def test_a_resample_repeats_whole_patients_and_keeps_the_number_of_each_kind():
    _, is_abnormal, patients = images()
    names = np.unique(patients)
    abnormal_patients = {name for name in names if is_abnormal[patients == name].any()}
    for weight in np.concatenate(list(patient_weights(is_abnormal, patients, 50, seed=3)), axis=1).T:
        times = {name: set(weight[patients == name]) for name in names}
        assert all(len(counts) == 1 for counts in times.values())
        assert sum(times[name].pop() for name in abnormal_patients) == len(abnormal_patients)
        assert sum(times[name].pop() for name in set(names) - abnormal_patients) == len(names) - len(abnormal_patients)


def test_the_replicates_are_those_of_patients_repeated_by_hand():
    scores, is_abnormal, patients = images()
    kinds = {name: is_abnormal[patients == name].any() for name in np.unique(patients)}
    strata = [[name for name, kind in kinds.items() if kind is np.bool_(wanted)] for wanted in (True, False)]
    random, by_hand = np.random.default_rng(4), []
    for _ in range(2000):
        drawn = [name for members in strata for name in random.choice(members, len(members))]
        rows = np.concatenate([np.flatnonzero(patients == name) for name in drawn])
        high, low = scores[rows][is_abnormal[rows]], scores[rows][~is_abnormal[rows]]
        by_hand.append((np.sign(high[:, None] - low) / 2 + 0.5).mean())
    replicates = bootstrap(scores[None], is_abnormal, patients, 20_000, metrics=["auroc"]).replicates["auroc"][0]
    quantiles = [0.025, 0.25, 0.5, 0.75, 0.975]
    # 2,000 draws place a tail quantile to about 0.1 standard deviations; three of those are allowed.
    assert np.quantile(replicates, quantiles) == pytest.approx(
        np.quantile(by_hand, quantiles), abs=0.3 * np.std(by_hand)
    )


def test_four_copies_of_each_image_do_not_narrow_the_interval_unless_they_pass_for_patients():
    scores, is_abnormal, _ = images()
    copies = np.tile(np.arange(60), 4)

    def widths(rows, patients):
        one = bootstrap(scores[None, rows], is_abnormal[rows], patients, 1000, metrics=["auroc"]).estimate("auroc", 0)
        exact = delong(scores[None, rows], is_abnormal[rows], patients).estimate(0)
        return np.array([one.high - one.low, exact.high - exact.low])

    assert widths(copies, copies) == pytest.approx(widths(np.arange(60), np.arange(60)), rel=0.02)
    assert (widths(copies, np.arange(240)) < 0.6 * widths(copies, copies)).all()


def test_scores_that_rank_alike_differ_by_exactly_nothing():
    scores, is_abnormal, patients = images()
    both = np.stack([scores, 3 * scores + 1])
    found = bootstrap(both, is_abnormal, patients, 200)
    assert found.estimate("auroc", 0, 1) == found.estimate("average_precision", 0, 1) == Estimate(0, 0, 0)
    assert found.p_value(0, 1) == 1
    assert delong(both, is_abnormal, patients).difference(0, 1) == DeLongTest(value=0, low=0, high=0, p_value=1)


def test_a_paired_difference_subtracts_replicates_of_the_same_resamples():
    scores, is_abnormal, patients = images()
    other = scores + np.random.default_rng(2).normal(size=60)
    found = bootstrap(np.stack([scores, other]), is_abnormal, patients, 500, seed=5)
    alone = [bootstrap(s[None], is_abnormal, patients, 500, seed=5) for s in (scores, other)]
    values, replicates = ([getattr(one, of)["auroc"][0] for one in alone] for of in ("values", "replicates"))
    drawn = replicates[0] - replicates[1]
    difference = found.estimate("auroc", 0, 1)
    assert difference.value == pytest.approx(values[0] - values[1])
    assert ends(difference) == pytest.approx(np.quantile(drawn, [0.025, 0.975]))
    assert found.p_value(0, 1) == pytest.approx(min(1, 2 * (min((drawn <= 0).sum(), (drawn >= 0).sum()) + 1) / 501))


def test_the_seed_decides_the_resamples_and_the_order_of_the_rows_does_not():
    scores, is_abnormal, patients = images()
    order = np.random.default_rng(0).permutation(60)
    same = [bootstrap(scores[None], is_abnormal, patients, 100, seed=7).replicates["auroc"] for _ in range(2)]
    shuffled = bootstrap(scores[None, order], is_abnormal[order], patients[order], 100, seed=7).replicates["auroc"]
    other = bootstrap(scores[None], is_abnormal, patients, 100, seed=8).replicates["auroc"]
    assert np.array_equal(*same) and np.allclose(same[0], shuffled) and not np.array_equal(same[0], other)


def test_no_batch_of_resamples_is_larger_than_agreed(monkeypatch):
    monkeypatch.setattr("lib.evidence.uncertainty.BATCH_ELEMENTS", 600)
    _, is_abnormal, patients = images()
    assert [weights.shape for weights in patient_weights(is_abnormal, patients, 25, 0)] == [(60, 10), (60, 10), (60, 5)]


def test_many_images_get_fewer_resamples_and_the_evaluation_says_how_many(monkeypatch):
    scores, is_abnormal, patients = images(200)
    label = np.where(is_abnormal, "abnormal", "normal")
    table = pd.DataFrame({"id": np.arange(200), "side": "test", "patient": patients, "label": label, "finding": ""})
    normals = pd.DataFrame({"id": [-1], "side": "validation", "patient": "v", "label": "normal", "finding": ""})
    table = pd.concat([table.assign(ra=scores), normals.assign(ra=0.5)])
    assert evaluate_scores(table, ["ra"], resamples=1000).resamples == 1000
    monkeypatch.setattr("lib.evidence.uncertainty.MOST_WEIGHTS", 200 * 300)
    assert evaluate_scores(table, ["ra"], resamples=1000).resamples == 300
    assert bootstrap(scores[None], is_abnormal, patients, 1000).replicates["auroc"].shape == (1, 300)


def test_2000_resamples_are_drawn_of_as_many_images_as_any_published_set_has_and_200_of_a_million():
    assert [affordable(2000, n) for n in (1, 26_684, 100_000, 200_000, 10**6, 10**9)] == [2000] * 3 + [1000, 200, 200]
    assert affordable(100, 10**6) == 100


def test_the_interval_from_the_fewest_resamples_is_that_of_delong():
    scores, is_abnormal = binormal(2000, 1000, 0.8, 1, seed=0)
    of_200 = bootstrap(scores, is_abnormal, np.arange(3000), ENOUGH).estimate("auroc", 0)
    exact = delong(scores, is_abnormal, np.arange(3000)).estimate(0)
    assert of_200.high - of_200.low == pytest.approx(exact.high - exact.low, rel=0.15)


def test_resampling_shows_how_far_it_is(monkeypatch):
    shown, at_once = StringIO(), {"delay": 0, "mininterval": 0}
    monkeypatch.setattr("lib.evidence.uncertainty.tqdm", lambda **how: tqdm(**how | at_once | {"file": shown}))
    monkeypatch.setattr("lib.evidence.uncertainty.BATCH_ELEMENTS", 6000)
    scores, is_abnormal, patients = images()
    bootstrap(scores[None], is_abnormal, patients, 300)
    shown = re.findall(r"resample 60 images 300 times.*?(\d+)/300", shown.getvalue())
    assert list(dict.fromkeys(shown)) == ["0", "100", "200", "300"]


@pytest.mark.parametrize("nobody", [None, np.nan, ""])
@pytest.mark.parametrize(
    "use",
    [
        lambda patients: bootstrap(np.arange(6.0)[None], np.arange(6) > 2, patients, 20),
        lambda patients: delong(np.arange(6.0)[None], np.arange(6) > 2, patients),
        lambda patients: share(np.arange(6) > 2, patients),
        lambda patients: score_bands(np.arange(6.0), np.arange(6) > 2, patients, 20),
        lambda patients: localise({}, np.arange(6)[:, None, None] > 2, patients, 20),
    ],
    ids=["bootstrap", "delong", "share", "bands", "localise"],
)
def test_images_without_a_patient_are_not_one_patient_but_refused(use, nobody):
    for patients in ([nobody] * 6, np.array(["a", "b", "c", "d", "e", nobody], dtype=object)):
        with pytest.raises(
            ValueError, match=r"no patient for [16] of 6 images, first row [05]|of them '', for 6 masks"
        ):
            use(patients)


@pytest.mark.parametrize(
    "use",
    [
        lambda: bootstrap(np.arange(6.0)[None], np.arange(6) > 2, np.arange(6), 0),
        lambda: score_bands(np.arange(6.0), np.arange(6) > 2, np.arange(6), 0),
        lambda: localise({}, np.arange(6)[:, None, None] > 2, list("abcdef"), 0),
    ],
)
def test_no_resample_is_refused_in_a_sentence(use):
    with pytest.raises(ValueError, match="0 resamples: expected at least 1, better 2,000"):
        use()


# Intervals


UP = np.arange(40.0)


@pytest.mark.parametrize(
    ("scores", "is_abnormal", "patients"),
    [
        ([UP[:4], -UP[:4]], UP[:4] > 1, UP[:4]),
        ([UP[:4], 0 * UP[:4]], UP[:4] > 1, UP[:4]),
        ([UP, 0 * UP], UP >= 20, UP),
        ([UP, np.where(UP >= 20, UP, -UP)], UP >= 20, UP),
        ([np.tile([0.0, 1, 2], 8), -np.tile([0.0, 1, 2], 8)], np.tile([True, False, True], 8), np.arange(24) // 3),
        ([np.tile([0.0, 1], 12), np.tile([0.0, 1], 12)[::-1]], np.tile([True, False], 12), np.arange(24) // 2),
    ],
    ids=["2 + 2", "2 + 2, constant", "perfect, constant", "perfect, perfect", "alike patients", "inverse"],
)
def test_no_interval_lacks_width_but_that_of_a_constant_score(scores, is_abnormal, patients):
    scores = np.stack(scores)
    found, exact = bootstrap(scores, is_abnormal, patients, 200), delong(scores, is_abnormal, patients)
    estimates = [found.estimate(metric, i) for i in range(2) for metric in METRICS if np.ptp(scores[i]) > 0]
    estimates += [found.estimate("auroc", 0, 1), found.estimate("average_precision", 0, 1)]
    estimates += [exact.estimate(i) for i in range(2) if np.ptp(scores[i]) > 0]
    seeds = seed_mean({s: found._replace(ranks=found.ranks[:1]) for s in (0, 1)}, "auroc")
    for one in [*estimates, exact.difference(0, 1), seeds.estimate]:
        assert one.high - one.low > 0.05 and one.low <= one.value <= one.high


@pytest.mark.parametrize(("n", "m"), [(2, 2), (3, 2), (3, 3), (5, 2), (4, 4)])
@pytest.mark.parametrize("other", [-1, 0], ids=["inverse", "constant"])
def test_no_p_value_is_below_that_of_the_exact_test_and_its_interval_does_not_say_more(n, m, other):
    """The exact test counts, of all ways to call m images abnormal, those with a difference as large as was found."""
    scores, is_abnormal = np.stack([np.arange(n + m), other * np.arange(n + m)]).astype(float), np.arange(n + m) >= n
    ways = [np.isin(np.arange(n + m), chosen) for chosen in combinations(range(n + m), m)]
    differences = [abs(auroc(scores[0], way) - auroc(scores[1], way)) for way in ways]
    exact = np.mean(np.array(differences) >= abs(auroc(scores[0], is_abnormal) - auroc(scores[1], is_abnormal)) - 1e-9)
    drawn, delongs = bootstrap(scores, is_abnormal, np.arange(n + m), 500), delong(scores, is_abnormal, range(n + m))
    assert drawn.p_value(0, 1) >= exact - 1e-12 and delongs.difference(0, 1).p_value == pytest.approx(exact)
    if exact > 0.05:
        assert drawn.estimate("auroc", 0, 1).contains(0)


def test_the_mean_difference_over_seeds_has_width_where_one_score_separates_perfectly_and_the_other_is_constant():
    is_abnormal = np.arange(40) >= 20
    perfect, constant = (
        {seed: bootstrap(row[None], is_abnormal, np.arange(40), 50, seed) for seed in (0, 1)} for row in (UP, 0 * UP)
    )
    mean = seed_mean(perfect, "auroc", constant)
    wilson = binomtest(20, 20).proportion_ci(method="wilson").low
    assert ends(mean.estimate) == pytest.approx((wilson - 0.5, 0.5))
    assert mean.drawn == pytest.approx((wilson - 0.5, 0.5), abs=1e-4)


@pytest.mark.parametrize(("hits", "n"), [(40, 40), (0, 12), (3, 9)])
def test_the_interval_of_all_or_none_and_of_what_does_not_vary_is_wilsons(hits, n):
    expected = binomtest(hits, n).proportion_ci(method="wilson")
    assert ends(logit_interval(hits / n, 0, n)) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(("n", "m", "images"), [(2, 2, 12), (3, 20, 5)])
@pytest.mark.parametrize("true", [0.5, 0.9])
def test_of_few_patients_with_many_images_the_intervals_cover_what_they_promise(n, m, images, true):
    """200 samples; half of the images' variance is their patient's. A coverage of 95 % is known to 1.5 points."""
    random, covered = np.random.default_rng(n), {"bootstrap": [], "DeLong": [], "difference": []}
    patients = np.repeat(np.arange(n + m), images)
    is_abnormal = patients >= n
    for _ in range(200):
        own, image = random.normal(size=(2, n + m)), random.normal(size=(2, len(patients)))
        scores = (own[:, patients] + image) * 0.5**0.5 + norm.ppf(true) * 2**0.5 * is_abnormal
        drawn = bootstrap(scores, is_abnormal, patients, 50, metrics=["auroc"])
        exact = delong(scores, is_abnormal, patients)
        covered["bootstrap"].append(drawn.estimate("auroc", 0).contains(true))
        covered["DeLong"].append(exact.estimate(0).contains(true))
        covered["difference"].append(drawn.estimate("auroc", 0, 1).contains(0))
    for of in covered.values():
        assert np.mean(of) >= 0.95 - 2 * 0.015


def test_the_interval_is_symmetric_on_the_logit_scale_and_small_ones_are_the_usual():
    low, high = ends(logit_interval(0.9, 0.05, 50))
    assert logit(high) - logit(0.9) == pytest.approx(logit(0.9) - logit(low))
    assert 0 < low < 0.9 - 1.96 * 0.05 and high < 0.9 + 1.96 * 0.05 < 1
    assert ends(logit_interval(0.9, 0.001, 50)) == pytest.approx((0.9 - 0.00196, 0.9 + 0.00196), abs=3e-5)


def test_the_resamples_standard_deviation_gets_back_what_drawing_from_the_sample_took():
    drawn = np.random.default_rng(0).normal(0.7, 0.05, 1000)
    assert interval(0.7, drawn, 10, "auroc") == logit_interval(0.7, drawn.std() * (10 / 9) ** 0.5, 10)


def test_perfect_separation_is_as_sure_as_the_rarer_class_is_large():
    scores, is_abnormal = np.arange(30.0), np.arange(30) >= 20
    found = bootstrap(scores[None], is_abnormal, np.arange(30), 50)
    exact = delong(scores[None], is_abnormal, np.arange(30)).estimate(0)
    wilson = binomtest(10, 10).proportion_ci(method="wilson").low
    for estimate in (exact, found.estimate("auroc", 0), found.estimate("tpr_at_5_fpr", 0)):
        assert astuple(estimate) == pytest.approx((1, wilson, 1))
    assert astuple(found.estimate("fpr_at_95_tpr", 0)) == pytest.approx((0, 0, 1 - wilson))


def test_of_a_class_with_one_patient_nothing_is_known():
    """Three patients: two of them normal."""
    scores, is_abnormal, patients = (
        np.array([[0.0, 1, 2, 3], [3, 0, 1, 2]]),
        np.array([False, False, True, True]),
        "abcc",
    )
    found = bootstrap(scores, is_abnormal, list(patients), 50)
    assert found.patients == 1
    assert [ends(found.estimate(name, 0)) for name in METRICS] == [(0, 1)] * 4
    assert ends(found.estimate("auroc", 0, 1)) == (-1, 1)
    with pytest.raises(
        ValueError, match="2 patients with normal and 1 with abnormal images: DeLong's variance needs two"
    ):
        delong(scores, is_abnormal, list(patients))


def test_three_patients_with_images_of_both_kinds_get_an_interval():
    scores, is_abnormal, patients = np.array([0.0, 2, 1, 4, 3, 5, 2]), np.arange(7) % 2 == 1, list("aabbccc")
    found = bootstrap(scores[None], is_abnormal, patients, 50)
    assert found.patients == 3
    for name in METRICS:
        estimate = found.estimate(name, 0)
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


def test_a_resample_without_normal_images_is_left_out_and_if_all_are_nothing_is_known():
    is_abnormal, patients = np.array([True, False, True, False, True, True]), list("aabbcc")
    found = bootstrap(np.arange(6.0)[None], is_abnormal, patients, 200)
    drawn = found.replicates["auroc"][0]
    assert 0 < np.isnan(drawn).sum() < 20  # c three times: one resample in 27
    points = found.replicates["tpr_at_5_fpr"][0][~np.isnan(drawn)]
    estimate = found.estimate("tpr_at_5_fpr", 0)
    few, (low, high) = logit_interval(estimate.value, 0, found.patients), np.quantile(points, [0.025, 0.975])
    assert ends(estimate) == pytest.approx((min(low, few.low), max(high, few.high)))
    nothing = np.full(5, np.nan)
    assert [interval(0.5, nothing, 3, name) for name in ("auroc", "fpr_at_95_tpr")] == [Estimate(0.5, 0, 1)] * 2
    assert interval(0.1, nothing, 3) == Estimate(0.1, -1, 1)


def bca(value: float, replicates: np.ndarray, left_out: np.ndarray, is_abnormal: np.ndarray) -> np.ndarray:
    """Efron's interval (J. Am. Stat. Assoc. 1987); the acceleration from each class's leave-one-out values."""
    below = (replicates < value).mean() + (replicates == value).mean() / 2
    bias = norm.ppf(np.clip(below, 1 / len(replicates), 1 - 1 / len(replicates)))
    classes = [left_out[is_abnormal], left_out[~is_abnormal]]
    pull = np.concatenate([(len(of) - 1) / len(of) * (of.mean() - of) for of in classes])
    acceleration = (pull**3).sum() / (6 * max((pull**2).sum(), 1e-300) ** 1.5)
    z = bias + norm.ppf([0.025, 0.975])
    return np.quantile(replicates, norm.cdf(bias + z / (1 - acceleration * z)))


def aurocs_coverage(n: int, m: int, true: float, repetitions: int, resamples: int) -> dict[str, float]:
    """How often each interval covers the true AUROC. The repetitions share their resamples, not their scores."""
    scores, is_abnormal = binormal(n, m, true, repetitions, seed=n)
    drawn = bootstrap(scores, is_abnormal, np.arange(n + m), resamples, metrics=["auroc"])
    values, replicates = drawn.values["auroc"], drawn.replicates["auroc"]
    left_out = [METRICS["auroc"](ranking(row, is_abnormal), 1 - np.eye(n + m)) for row in scores]
    with np.errstate(divide="ignore", invalid="ignore"):
        half = norm.ppf(0.975) * replicates.std(axis=1) / (values * (1 - values))
        by_logit = expit([logit(values) - half, logit(values) + half]).T  # NaN at 1: covers nothing
    intervals = {
        "percentile": np.quantile(replicates, [0.025, 0.975], axis=1).T,
        "BCa": np.array([bca(*of, is_abnormal) for of in zip(values, replicates, left_out, strict=True)]),
        "logit": by_logit,
        "ours": np.array([ends(drawn.estimate("auroc", i)) for i in range(repetitions)]),
        "DeLong": np.array([ends(delong(row[None], is_abnormal, np.arange(n + m)).estimate(0)) for row in scores]),
    }
    return {name: float(((of[:, 0] <= true) & (true <= of[:, 1])).mean()) for name, of in intervals.items()}


def others_coverage(n: int, m: int, auroc: float, repetitions: int, resamples: int) -> dict[str, float]:
    """How often ours covers the other metrics, and the AUROC's difference from a correlated score's, which is 0."""
    scores, is_abnormal = binormal(n, m, auroc, repetitions, seed=n)
    twin = 0.5 * scores + 0.75**0.5 * binormal(n, m, auroc, repetitions, seed=n + 1)[0]
    shift, share = norm.ppf(auroc) * 2**0.5, m / (n + m)
    twin += (1 - 0.5 - 0.75**0.5) * shift * is_abnormal
    precision = quad(
        lambda x: norm.pdf(x - shift) / (1 + (1 - share) / share * norm.sf(x) / norm.sf(x - shift)), -8, shift + 8
    )[0]
    true = [precision, norm.cdf(norm.ppf(0.95) - shift), norm.cdf(shift - norm.ppf(0.95))]
    drawn = bootstrap(np.concatenate([scores, twin]), is_abnormal, np.arange(n + m), resamples)
    covered = {
        name: np.mean([drawn.estimate(name, i).contains(value) for i in range(repetitions)])
        for name, value in zip(("average_precision", *POINTS), true, strict=True)
    }
    differences = [drawn.estimate("auroc", i, repetitions + i) for i in range(repetitions)]
    return covered | {"difference": np.mean([difference.contains(0) for difference in differences])}


def clustered(n: int, m: int, auroc: float, repetitions: int, seed: int, mixed: bool) -> tuple[np.ndarray, ...]:
    """Two correlated scores, each (repetitions, images), of n normal and m abnormal patients, labels and patients.

    A patient has one to four images. Half of a score's variance is the patient's own, in all of them (intraclass
    correlation 0.5), so that an abnormal and a normal image of two patients differ by a normal number of variance 2
    about the shift: that is the true AUROC, in closed form. If `mixed`, half of the abnormal patients' further images
    are normal; of all pairs half a percent are then within a patient.
    """
    random = np.random.default_rng(seed)
    patients = np.repeat(np.arange(n + m), random.integers(1, 5, n + m))
    is_abnormal, further = patients >= n, np.diff(patients, prepend=-1) == 0
    is_abnormal &= ~(mixed & further & (random.random(len(patients)) < 0.5))
    own, image = random.normal(size=(2, repetitions, n + m)), random.normal(size=(2, repetitions, len(patients)))
    first, other = (own[..., patients] + image) * 0.5**0.5
    shift = norm.ppf(auroc) * 2**0.5 * is_abnormal
    return first + shift, 0.5 * first + 0.75**0.5 * other + shift, is_abnormal, patients


@pytest.mark.parametrize("mixed", [False, True])
def test_the_clustered_scores_have_the_auroc_and_the_correlation_that_the_simulation_takes_for_true(mixed):
    """3,000 patients of each class, 20 times: the mean AUROC is known to 0.001."""
    first, other, is_abnormal, patients = clustered(3000, 3000, 0.8, 20, 0, mixed)
    for scores in (first, other):
        assert np.mean([roc_auc_score(is_abnormal, row) for row in scores]) == pytest.approx(0.8, abs=0.004)
    assert set(np.bincount(patients)) == {1, 2, 3, 4}
    beside = np.flatnonzero((np.diff(patients) == 0) & (np.diff(is_abnormal.astype(int)) == 0))
    within = first - norm.ppf(0.8) * 2**0.5 * is_abnormal
    assert np.corrcoef(within[:, beside].ravel(), within[:, beside + 1].ravel())[0, 1] == pytest.approx(0.5, abs=0.02)


def clustered_coverage(n: int, m: int, true: float, repetitions: int, designs: int, mixed: bool) -> dict[str, float]:
    """How often ours covers the true AUROC, and a difference of 0, by the patients and as if each image were one.

    As many repetitions in each of the designs, which are numbers of images a patient.
    """
    covered = []
    for seed in range(designs):
        *scores, is_abnormal, patients = clustered(n, m, true, repetitions // designs, seed, mixed)
        both, here = np.concatenate(scores), len(scores[0])
        each = {}
        for name, units in {"by patient": patients, "by image": np.arange(len(patients))}.items():
            drawn = bootstrap(both, is_abnormal, units, 1000, metrics=["auroc"])
            areas = [drawn.estimate("auroc", i) for i in range(here)]
            differences = [drawn.estimate("auroc", i, here + i) for i in range(here)]
            exact = [delong(row[None], is_abnormal, units).estimate(0) for row in scores[0]]
            for what, value, found in (("", true, areas), (", DeLong", true, exact), (", difference", 0, differences)):
                each[name + what] = np.mean([estimate.contains(value) for estimate in found])
        covered.append(each)
    return {name: round(float(np.mean([each[name] for each in covered])), 4) for name in covered[0]}


@pytest.mark.long
@pytest.mark.parametrize(
    ("n", "m", "true", "mixed"),
    [
        (36, 64, 0.6, False),
        (36, 64, 0.8, False),
        (36, 64, 0.8, True),
        (36, 64, 0.95, False),
        (200, 200, 0.6, False),
        (200, 200, 0.8, False),
        (200, 200, 0.95, False),
    ],
)
def test_with_several_images_a_patient_it_covers_as_often_and_not_if_patients_are_ignored(n, m, true, mixed):
    """2,000 repetitions (1,000 of 200 patients a class): a coverage of 95 % has a standard error of 0.5 (0.7) points.

    The difference's percentiles are allowed a point less, as they are without clusters.
    """
    repetitions = 2000 if n == 36 else 1000
    covered = clustered_coverage(n, m, true, repetitions, 20, mixed)
    error = (0.95 * 0.05 / repetitions) ** 0.5
    print(f"\n{n}, {m} patients, AUROC {true}{', mixed' * mixed}, ±{error:.4f}:", covered)
    for what, least in (("", 0.93), (", DeLong", 0.93), (", difference", 0.92)):
        assert least <= covered[f"by patient{what}"] <= 0.97
        assert covered[f"by image{what}"] < 0.93


@pytest.mark.parametrize(("n", "m"), [(36, 64), (100, 100)])
def test_the_interval_covers_the_true_auroc_in_95_percent_of_samples(n, m):
    """400 repetitions place a coverage to 1.1 points; three of those are allowed."""
    covered = aurocs_coverage(n, m, 0.9, 400, 400)
    assert abs(covered["ours"] - 0.95) < 0.033 and abs(covered["DeLong"] - 0.95) < 0.033
    assert covered["percentile"] < covered["ours"]


@pytest.mark.long
@pytest.mark.parametrize("true", [0.6, 0.8, 0.95])
@pytest.mark.parametrize(("n", "m", "repetitions"), [(36, 64, 4000), (200, 200, 2000)])
def test_coverage_at_length_is_what_the_module_states(n, m, repetitions, true):
    covered = aurocs_coverage(n, m, true, repetitions, 1000)
    others = others_coverage(n, m, true, repetitions // 2, 1000)
    print(f"\n{n} normal, {m} abnormal, AUROC {true}:", {k: round(float(v), 3) for k, v in (covered | others).items()})
    assert 0.93 <= covered["ours"] <= 0.97 and 0.93 <= covered["DeLong"] <= 0.97
    assert 0.93 <= others["difference"] <= 0.97
    assert all(covered >= (0.92 if n == 200 else 0.9) for covered in others.values())
    if n == 36 and true == 0.95:
        assert covered["percentile"] < 0.93  # why the module does not use it


# Seeds


def seeds_and_resamples(random, k: int, u: float, e: float, d: float, resamples: int = 200):
    """Values, replicates and the mean of these seeds' own gains, around 0.7, of the model in `over_seeds`."""
    gains = 0.7 + random.normal(0, u, k)
    values = gains + random.normal(0, e) + random.normal(0, d, k)
    shared, own = random.normal(0, e, resamples), random.normal(0, d, (k, resamples))
    return values, values[:, None] + shared + own, gains.mean()


def test_the_variance_is_split_as_it_was_made():
    random, k, u, e, d = np.random.default_rng(0), 5, 0.03, 0.02, 0.01
    found = [over_seeds(*seeds_and_resamples(random, k, u, e, d)[:2], 1000) for _ in range(400)]
    assert np.mean([one.sample_sd**2 for one in found]) == pytest.approx(e**2 + d**2 / k, rel=0.05)
    assert np.mean([one.seed_sd**2 for one in found]) == pytest.approx(u**2 / k, rel=0.12)


@pytest.mark.parametrize("metric", ["auroc", None])
@pytest.mark.parametrize(("u", "k"), [(0.03, 3), (0.03, 5), (0.005, 5)])
def test_each_interval_over_seeds_covers_what_it_says(u, k, metric):
    """800 repetitions: the standard error is 0.8 points; conservative is allowed, a point more than liberal."""
    random, covered = np.random.default_rng(k), []
    for _ in range(800):
        values, replicates, of_these = seeds_and_resamples(random, k, u, 0.02, 0.01)
        found = over_seeds(values, replicates, 1000, metric)
        covered.append([found.fixed.contains(of_these), found.drawn.contains(0.7)])
    fixed, drawn = np.mean(covered, axis=0)
    assert 0.92 <= fixed <= 0.975 and 0.92 <= drawn <= 0.985


def test_seeds_that_agree_leave_the_variance_to_the_sample():
    scores, is_abnormal, patients = images()
    drawn = bootstrap(np.stack([scores] * 4), is_abnormal, patients, 300)
    found = over_seeds(drawn.values["auroc"], drawn.replicates["auroc"], drawn.patients, "auroc")
    assert found.seed_sd == 0
    expected = astuple(drawn.estimate("auroc", 0))
    assert astuple(found.fixed) == pytest.approx(expected) and astuple(found.drawn) == pytest.approx(expected)


def test_one_seed_says_nothing_about_seeds():
    found = over_seeds([0.7], np.random.default_rng(0).normal(0.7, 0.02, (1, 100)), 50, "auroc")
    assert found.drawn is None and found.seed_sd is None and found.fixed.low < 0.7 < found.fixed.high
    with pytest.raises(ValueError, match=r"values \(2,\), 2 finite, and replicates \(1, 100\)"):
        over_seeds([0.7, 0.8], np.ones((1, 100)), 50)


def test_seeds_without_information_without_a_value_and_with_one_patient_give_what_is_promised():
    constant = over_seeds([0.5, 0.5], np.full((2, 50), 0.5), 40, "auroc")
    assert constant.fixed == constant.drawn == Estimate(0.5, 0.5, 0.5) and constant.seed_sd == constant.sample_sd == 0
    drawn = np.random.default_rng(0).normal(0.7, 0.02, (2, 50))
    for metric, whole in (("auroc", (0, 1)), (None, (-1, 1))):
        alone = over_seeds([0.7, 0.72], drawn, 1, metric)
        assert ends(alone.fixed) == ends(alone.drawn) == whole
    with pytest.raises(ValueError, match=r"values \(2,\), 1 finite, .*: expected numbers .* leave out a seed"):
        over_seeds([0.7, np.nan], drawn, 50, "auroc")
