"""Synthetic lesions: what is painted, where, and how large."""

import time

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from lib.scores.lesions import DENSE, KINDS, with_lesions


@pytest.fixture
def chests() -> np.ndarray:
    """Smooth images with texture and all grey levels, (60, 48, 40) uint8."""
    random = np.random.default_rng(0)
    grey = gaussian_filter(random.random((60, 48, 40)), (0, 6, 6)) * 4 + 0.3 * random.random((60, 48, 40))
    return np.round(255 * (grey - grey.min()) / np.ptp(grey)).astype(np.uint8)


def test_every_image_gets_a_lesion_and_is_unchanged_outside_its_mask(chests):
    before = chests.copy()
    painted, masks = with_lesions(chests, seed=0)
    assert painted.dtype == np.uint8 and masks.dtype == bool and painted.shape == masks.shape == chests.shape
    np.testing.assert_array_equal(painted[~masks], chests[~masks])
    assert (painted != chests).any(axis=(1, 2)).all()
    np.testing.assert_array_equal(chests, before)


def test_lesions_avoid_the_border_and_cover_a_plausible_share(chests):
    masks = np.concatenate([with_lesions(chests, seed)[1] for seed in range(5)])
    assert not masks[:, [0, 1, -2, -1]].any() and not masks[:, :, [0, -1]].any()
    share = masks.mean(axis=(1, 2))
    assert share.min() > 0.01 and share.max() < 0.2 and 0.03 < np.median(share) < 0.08


def test_the_lesions_are_a_function_of_the_seed(chests):
    first, again, other = (with_lesions(chests, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[1] != other[1]).any(axis=(1, 2)).all()


def test_an_opacity_only_adds_density_and_never_more_than_soft_tissue(chests):
    assert KINDS[0] == "opacity"
    image, painted = chests[::3].astype(int), with_lesions(chests)[0][::3].astype(int)
    assert (painted >= image).all() and (painted <= np.maximum(image, DENSE)).all()


def test_a_foreign_patch_lies_between_the_two_images(chests):
    assert KINDS[1] == "foreign"
    image, painted, other = chests[1::3], with_lesions(chests)[0][1::3], chests[2::3]
    assert (np.minimum(image, other) <= painted).all() and (painted <= np.maximum(image, other)).all()


def test_a_blurred_region_loses_texture(chests):
    assert KINDS[2] == "blurred"
    painted, masks = (arrays[2::3] for arrays in with_lesions(chests))
    before, after = (
        np.abs(np.diff(images.astype(float), axis=1))[masks[:, 1:]].mean() for images in (chests[2::3], painted)
    )
    assert after < 0.8 * before


def test_extreme_images_do_not_wrap_around():
    images = np.stack([np.zeros((32, 32)), np.full((32, 32), 255)] * 30).astype(np.uint8)
    painted, _ = with_lesions(images)
    opacity = painted[::3].astype(int) - images[::3]
    assert opacity[::2].max() > 20 and not opacity[1::2].any()  # white images have nothing left to add to
    np.testing.assert_array_equal(painted[2::3], images[2::3])  # nor plain ones a texture to lose


def test_a_hundred_images_take_a_moment():
    images = np.random.default_rng(0).integers(0, 256, (100, 128, 128), dtype=np.uint8)
    start = time.process_time()
    with_lesions(images)
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    "images", [np.zeros((1, 32, 32), np.uint8), np.zeros((3, 32, 32)), np.zeros((32, 32), np.uint8)]
)
def test_images_of_another_shape_or_type_are_refused(images):
    with pytest.raises(ValueError, match="expected at least two"):
        with_lesions(images)
