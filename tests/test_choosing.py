"""Promises of `lib.choosing`: what lesions are painted where, and what is chosen by them."""

import time

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from lib.choosing import DENSE, KINDS, Regret, choose, regret, separation, with_lesions


@pytest.fixture
def chests() -> np.ndarray:
    """Smooth films with texture and all grey levels, (60, 48, 40) uint8."""
    random = np.random.default_rng(0)
    grey = gaussian_filter(random.random((60, 48, 40)), (0, 6, 6)) * 4 + 0.3 * random.random((60, 48, 40))
    return np.round(255 * (grey - grey.min()) / np.ptp(grey)).astype(np.uint8)


def test_every_film_gets_a_lesion_and_is_unchanged_outside_its_mask(chests):
    before = chests.copy()
    painted, masks = with_lesions(chests, seed=0)
    assert painted.dtype == np.uint8 and masks.dtype == bool and painted.shape == masks.shape == chests.shape
    np.testing.assert_array_equal(painted[~masks], chests[~masks])
    assert (painted != chests).any(axis=(1, 2)).all()
    np.testing.assert_array_equal(chests, before)


def test_lesions_keep_off_the_border_and_cover_a_plausible_share(chests):
    masks = np.concatenate([with_lesions(chests, seed)[1] for seed in range(5)])
    assert not masks[:, [0, 1, -2, -1]].any() and not masks[:, :, [0, -1]].any()
    share = masks.mean(axis=(1, 2))
    assert share.min() > 0.01 and share.max() < 0.2 and 0.03 < np.median(share) < 0.08


def test_the_seed_decides_the_lesions(chests):
    first, again, other = (with_lesions(chests, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[1] != other[1]).any(axis=(1, 2)).all()


def test_an_opacity_only_adds_density_and_never_more_than_soft_tissue(chests):
    assert KINDS[0] == "opacity"
    film, painted = chests[::3].astype(int), with_lesions(chests)[0][::3].astype(int)
    assert (painted >= film).all() and (painted <= np.maximum(film, DENSE)).all()


def test_a_foreign_patch_lies_between_the_two_films(chests):
    assert KINDS[1] == "foreign"
    film, painted, other = chests[1::3], with_lesions(chests)[0][1::3], chests[2::3]
    assert (np.minimum(film, other) <= painted).all() and (painted <= np.maximum(film, other)).all()


def test_a_blurred_region_loses_texture(chests):
    assert KINDS[2] == "blurred"
    painted, masks = (made[2::3] for made in with_lesions(chests))
    before, after = (
        np.abs(np.diff(films.astype(float), axis=1))[masks[:, 1:]].mean() for films in (chests[2::3], painted)
    )
    assert after < 0.8 * before


def test_extreme_films_do_not_wrap_around():
    films = np.stack([np.zeros((32, 32)), np.full((32, 32), 255)] * 30).astype(np.uint8)
    painted, _ = with_lesions(films)
    opacity = painted[::3].astype(int) - films[::3]
    assert opacity[::2].max() > 20 and not opacity[1::2].any()  # white films have nothing left to add to
    np.testing.assert_array_equal(painted[2::3], films[2::3])  # nor plain ones a texture to lose


def test_a_hundred_films_take_a_moment():
    films = np.random.default_rng(0).integers(0, 256, (100, 128, 128), dtype=np.uint8)
    start = time.process_time()
    with_lesions(films)
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    "films", [np.zeros((1, 32, 32), np.uint8), np.zeros((3, 32, 32)), np.zeros((32, 32), np.uint8)]
)
def test_other_films_are_refused(films):
    with pytest.raises(ValueError, match="expected at least two"):
        with_lesions(films)


def test_separation_is_the_share_of_pairs_won():
    random = np.random.default_rng(0)
    normal, lesion = random.integers(0, 9, 30), random.integers(2, 12, 30)
    pairs = np.mean([(b > a) + 0.5 * (b == a) for a in normal for b in lesion])
    assert separation(normal, lesion) == pytest.approx(pairs)
    assert separation(normal, normal) == pytest.approx(0.5)
    for a, b in ((normal, lesion[:-1]), ([], []), (normal, np.full(30, np.nan))):
        with pytest.raises(ValueError):
            separation(a, b)


def test_separation_tells_a_score_that_sees_lesions_from_one_that_does_not(chests):
    painted, masks = with_lesions(chests)
    sees = masks.sum(axis=(1, 2)) + chests.mean(axis=(1, 2))
    assert separation(chests.mean(axis=(1, 2)), sees) > 0.9
    corner = [films[:, 0, 0] for films in (chests, painted)]
    assert separation(*corner) == pytest.approx(0.5)


def test_the_largest_is_chosen_and_of_equals_the_first():
    assert choose({"a": 0.5, "b": 0.9, "c": 0.9}) == "b"
    assert choose({("l1", "p99"): -3.0, ("l1", "mean"): -2.0}) == ("l1", "mean")
    for bad in ({}, {"a": 0.5, "b": float("nan")}):
        with pytest.raises(ValueError, match="none of them NaN"):
            choose(bad)


def test_regret_is_what_the_best_would_have_given_more():
    auroc = {"a": 0.6, "b": 0.75, "c": 0.7}
    assert regret({"a": 0.1, "b": 0.2, "c": 0.3}, auroc) == Regret("c", "b", pytest.approx(0.05))
    assert regret(auroc, auroc).gap == 0
    with pytest.raises(ValueError, match="same keys"):
        regret({"a": 1.0}, auroc)
