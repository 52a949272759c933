"""Conformal p-values against their definition, an enumeration of all orders, and simulation."""

import itertools
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from lib.scores.conformal import COMBINATIONS, achieved_rate, combine, p_values, promise, ranks_within

M = 3  # scores per image


def independent(random, shape):
    return random.standard_normal((*shape, M))


def correlated(random, shape):
    return random.standard_normal((*shape, 1)) + 0.1 * random.standard_normal((*shape, M))


def tied(random, shape):
    return random.integers(0, 4, (*shape, M))


def mixed(random, shape):
    """Scores that contradict each other, of different scales and tails, one of them rounded."""
    one = random.standard_normal(shape)
    return np.stack([one, -one + 0.1 * random.standard_normal(shape), np.round(np.exp(3 * one))], axis=-1)


def combined_p_values(reference, calibration, scores, how="fisher"):
    """One p-value per image: each score ranked in the reference half, their combination in the calibration half."""
    known, new = (combine(p_values(reference, images), how) for images in (calibration, scores))
    return p_values(known, new)


def rates(draw, a, b, alpha, how, repeats, images=20):
    """The share of new normal images called abnormal, once a draw of both halves: (repeats,)."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(repeats):
        reference, calibration, new = np.split(draw(random, (a + b + images,)), [a, a + b])
        found.append((combined_p_values(reference, calibration, new, how) <= alpha).mean())
    return np.array(found)


def test_p_values_equal_their_definition_for_one_score_and_for_several():
    random = np.random.default_rng(0)
    reference, scores = random.integers(0, 9, (40, 2)), random.integers(-1, 11, (30, 2))  # many ties, some beyond
    expected = np.array(
        [[(1 + sum(r >= s for r in reference[:, j])) / 41 for j, s in enumerate(row)] for row in scores]
    )
    np.testing.assert_array_equal(p_values(reference, scores), expected)
    np.testing.assert_array_equal(p_values(reference[:, 0], scores[:, 0]), expected[:, 0])
    assert p_values(reference, scores[:0]).shape == (0, 2)


@pytest.mark.parametrize("shift", [0.0, 0.01, 0.3, 5.0])
def test_no_score_that_changes_by_a_shift_moves_by_more_ranks_than_stated(shift):
    rng = np.random.default_rng(0)
    reference = np.round(rng.normal(size=40), 2)  # with ties
    scores = np.concatenate([reference, rng.normal(size=4000)])
    moved = [
        np.abs(p_values(reference, scores + by) - p_values(reference, scores)).max() * 41 for by in (shift, -shift)
    ]
    assert round(max(moved)) <= ranks_within(reference, shift)
    if shift >= 0.3:  # a bound that many scores all but reach
        assert round(max(moved)) >= ranks_within(reference, shift) - 2


def test_a_constant_score_calls_no_image_abnormal_and_three_images_give_no_p_value_below_a_quarter():
    assert p_values(np.ones(40), np.ones(3)).tolist() == [1, 1, 1]
    for how in COMBINATIONS:
        assert combined_p_values(*(np.ones((n, M)) for n in (40, 30, 3)), how).tolist() == [1, 1, 1]
    assert p_values(np.arange(3.0), np.array([99.0])) == 1 / 4


def test_p_values_of_thirty_thousand_images_need_little_memory():
    scores = np.random.default_rng(0).random((30_000, 1))
    tracemalloc.start()
    found = p_values(scores, scores)
    assert tracemalloc.get_traced_memory()[1] < 5e6  # a table of all pairs is 9e8 bytes
    tracemalloc.stop()
    np.testing.assert_allclose(np.sort(found[:, 0]), np.arange(2, 30_002) / 30_001)


def test_over_all_orders_of_five_images_every_p_value_is_equally_frequent():
    images = np.array([0.1, 0.5, 0.7, 2.0, 9.0])
    found = [
        round(5 * p_values(images[list(order[:4])], images[[order[4]]])[0])
        for order in itertools.permutations(range(5))
    ]
    np.testing.assert_array_equal(np.bincount(found), [0, 24, 24, 24, 24, 24])


@pytest.mark.parametrize("how", COMBINATIONS)
def test_over_all_orders_of_five_images_the_combined_p_value_is_exactly_valid(how):
    for images in np.random.default_rng(1).integers(0, 7, (4, 5, 2)):  # two scores per image, some tied
        orders = [images[list(order)] for order in itertools.permutations(range(5))]
        found = [round(3 * combined_p_values(o[:2], o[2:4], o[4:], how)[0]) for o in orders]
        for j in (1, 2, 3):
            assert Fraction(sum(k <= j for k in found), len(found)) <= Fraction(j, 3)


@pytest.mark.parametrize("how", COMBINATIONS)
@pytest.mark.parametrize("draw", [independent, correlated, tied, mixed])
@pytest.mark.parametrize(("a", "b"), [(8, 19), (60, 99), (99, 39)])
def test_the_false_alarm_rate_is_at_most_the_level(draw, a, b, how):
    repeats, images = 150, 20
    for alpha in (0.05, 0.2):
        k = round(alpha * (b + 1))
        error = stats.betabinom(images, k, b + 1 - k).std() / images / np.sqrt(repeats)
        assert rates(draw, a, b, alpha, how, repeats).mean() <= alpha + 4 * error


def test_the_false_alarm_rate_reaches_the_level():
    assert rates(correlated, 99, 99, 0.2, "fisher", 200).mean() == pytest.approx(0.2, abs=0.02)


def test_without_the_second_calibration_correlated_scores_raise_false_alarms():
    random = np.random.default_rng(0)
    reference, calibration, new = np.split(correlated(random, (5_000,)), [2_000, 4_000])
    textbook = stats.chi2(2 * M).sf(combine(p_values(reference, new)))  # right if the scores were independent
    assert (textbook <= 0.05).mean() > 0.08
    assert (combined_p_values(reference, calibration, new) <= 0.05).mean() < 0.065
    apart = np.split(independent(random, (5_000,)), [2_000, 4_000])
    assert (stats.chi2(2 * M).sf(combine(p_values(apart[0], apart[2]))) <= 0.05).mean() < 0.065


@pytest.mark.parametrize("how", COMBINATIONS)
def test_power_grows_with_the_distance_of_abnormal_images(how):
    reference, calibration, new = np.split(correlated(np.random.default_rng(0), (900,)), [300, 600])
    power = [(combined_p_values(reference, calibration, new + shift, how) <= 0.05).mean() for shift in (0, 1, 2, 3)]
    assert power[0] < 0.1 < power[1] < power[2] < power[3] and power[3] > 0.85


def test_combinations_equal_their_definition():
    p = np.array([[0.5, 0.01, 0.2], [1.0, 0.9, 0.001]])
    np.testing.assert_allclose(combine(p, "fisher"), [stats.combine_pvalues(row, "fisher").statistic for row in p])
    np.testing.assert_allclose(combine(p[:1], "cauchy"), stats.cauchy.isf(p[:1]).mean(axis=1))
    np.testing.assert_array_equal(combine(p, "minimum"), [-0.01, -0.001])


def test_a_p_value_of_1_does_not_outvote_the_others_in_cauchys_sum():
    assert combine(np.array([[1.0, 0.001]]), "cauchy") > combine(np.array([[0.5, 0.5]]), "cauchy")


def test_the_achieved_rate_is_that_of_simulated_calibrations():
    random, b, images, alpha = np.random.default_rng(0), 59, 80, 0.1
    known, new = np.sort(random.random((20_000, b))), random.random((20_000, images))
    threshold = known[:, -6]  # p <= 6 / 60 means more than all but 5 of the calibration images
    found, whole = (new > threshold[:, None]).mean(axis=1), 1 - threshold
    for rate, drawn, slack in (
        (achieved_rate(b, alpha), whole, 0),
        (achieved_rate(b, alpha, images), found, 1 / images),
    ):
        assert rate.mean == pytest.approx(drawn.mean(), abs=0.002)
        assert [rate.low, rate.high] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.003 + slack)
        assert 0.945 <= ((rate.low <= drawn) & (drawn <= rate.high)).mean() <= 0.98


def test_the_achieved_rate_survives_rounding_of_alpha():
    assert 0.29 * 100 < 29
    assert achieved_rate(99, 0.29).mean == pytest.approx(0.29)


@pytest.mark.parametrize("alpha", [0.04, 0.0, 1.0, float("nan")])
def test_a_level_that_the_images_cannot_resolve_is_refused(alpha):
    with pytest.raises(ValueError, match=r"19 calibration images.*1 / 20 = 0.05"):
        achieved_rate(19, alpha)
    assert achieved_rate(19, 0.05).mean == 0.05


def test_the_achieved_rate_among_no_images_is_refused():
    with pytest.raises(ValueError, match="0 normal test images: expected at least 1, or None"):
        achieved_rate(19, 0.05, images=0)


@pytest.mark.parametrize(
    ("reference", "scores", "message"),
    [
        (np.ones(3), np.ones((2, 1)), r"reference \(3,\), scores \(2, 1\)"),
        (np.ones((3, 2)), np.ones((2, 3)), r"reference \(3, 2\), scores \(2, 3\)"),
        (np.ones(()), np.ones(()), r"expected \(n,\)"),
        (np.ones(0), np.ones(2), "reference is empty"),
        (np.array([1, np.nan]), np.ones(2), "1 of 2 reference scores are NaN"),
        (np.ones(2), np.array([np.nan, 1, np.nan]), "2 of 3 scores are NaN"),
    ],
)
def test_bad_scores_are_refused(reference, scores, message):
    with pytest.raises(ValueError, match=message):
        p_values(reference, scores)


def test_bad_combinations_are_refused():
    with pytest.raises(ValueError, match="how='mean' is not a combination; expected one of fisher, cauchy, minimum"):
        combine(np.ones((2, 2)), "mean")
    for p in (np.ones(2), np.ones((2, 0)), np.array([[0.0, 1.0]]), np.array([[0.5, np.nan]])):
        with pytest.raises(ValueError, match="expected"):
            combine(p)
    with pytest.raises(ValueError, match="reference is empty"):
        combined_p_values(np.ones((4, 2)), np.ones((0, 2)), np.ones((3, 2)))


def test_few_calibration_images_promise_no_rate_and_many_a_range():
    assert "cannot promise a false alarm rate of 5%" in promise(10, 0.05)
    assert "on average" in promise(200, 0.05)
