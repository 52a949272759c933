"""The preparation: a square of grey levels between two percentiles, and where in it the image lies."""

import numpy as np
import pytest

from lib.data.preparation import Preparation, displayed


def stretched(image: np.ndarray) -> np.ndarray:
    """The definition: percentile 1 becomes 0, percentile 99 becomes 1."""
    ordered = np.sort(image.ravel()).astype(float)

    def percentile(q: float) -> float:
        place = q / 100 * (len(ordered) - 1)
        below, above = ordered[int(np.floor(place))], ordered[int(np.ceil(place))]
        return below + (place - np.floor(place)) * (above - below)

    low, high = percentile(1), percentile(99)
    return np.clip((image - low) / (high - low), 0, 1)


def test_a_square_image_of_the_right_size_is_only_stretched():
    image = np.random.default_rng(0).integers(60, 180, (32, 32), dtype=np.uint8)
    prepared = Preparation(32).image(image)
    assert (prepared.dtype, prepared.shape) == (np.uint8, (32, 32))
    np.testing.assert_allclose(prepared, stretched(image) * 255, atol=0.501)
    assert (prepared.min(), prepared.max()) == (0, 255)


@pytest.mark.parametrize("grey", [0, 7, 255])
def test_an_image_of_one_grey_level_becomes_black(grey):
    assert not Preparation(16).image(np.full((20, 30), grey, dtype=np.uint8)).any()


def test_a_linear_change_of_contrast_does_not_matter():
    image = np.random.default_rng(0).integers(0, 100, (32, 32), dtype=np.uint8)
    assert np.abs(Preparation(16).image(image).astype(int) - Preparation(16).image(image * 2 + 30)).max() <= 1


@pytest.mark.parametrize("shape", [(24, 16), (16, 24)])
def test_an_oblong_image_is_centred_between_black_bands(shape):
    image = np.full(shape, 200, dtype=np.uint8)
    image[::2] = 100
    prepared = Preparation(24).image(image)
    inside = np.zeros((24, 24), dtype=bool)
    inside[(24 - shape[0]) // 2 :, (24 - shape[1]) // 2 :][: shape[0], : shape[1]] = True
    assert not prepared[~inside].any()
    np.testing.assert_array_equal(prepared[inside].reshape(shape), np.where(image == 200, 255, 0))


def test_halving_the_size_averages_and_keeps_the_mean():
    image = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    assert abs(Preparation(32).image(image).mean() - Preparation(64).image(image).mean()) < 1
    fine = np.indices((64, 64)).sum(axis=0) % 2 * 255  # a checkerboard must not survive
    assert Preparation(32).image(fine.astype(np.uint8))[4:-4, 4:-4].std() < 8


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (48, 48)])
@pytest.mark.parametrize("square", ["pad", "squash"])
def test_a_white_square_and_its_mask_are_placed_alike(shape, square):
    lesion = np.zeros(shape, dtype=bool)
    lesion[8:20, 10:30] = True
    preparation = Preparation(24, square=square)
    mask = preparation.mask(lesion)
    assert (mask.dtype, mask.shape) == (bool, (24, 24))
    np.testing.assert_array_equal(mask, preparation.image(lesion * np.uint8(255)) > 127)
    whole = max(shape) ** 2 if square == "pad" else lesion.size
    assert mask.mean() == pytest.approx(lesion.sum() / whole, rel=0.15)


def test_other_percentiles_and_squashing_follow_their_definitions():
    image = np.random.default_rng(0).integers(0, 256, (40, 20), dtype=np.uint8)
    low, high = np.percentile(image, [5, 90])
    columns = np.clip((image - low) / (high - low), 0, 1).reshape(20, 2, 20).mean(axis=1)
    prepared = Preparation(20, (5, 90), "squash").image(image)
    assert np.abs(prepared[2:-2] / 255 - columns[2:-2]).mean() < 0.08  # a triangle in place of a box


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_every_depth_is_stretched_between_the_percentiles_of_numpy(kind):
    for seed, percents in enumerate([(1, 99), (0, 100), (2.5, 97.5), (0, 50), (49, 51)]):
        image = np.random.default_rng(seed).integers(0, 250, (33, 33)).astype(kind)
        low, high = np.percentile(image, percents)
        expected = np.round(np.clip((image - low) / (high - low or 1), 0, 1).astype(np.float32) * 255)
        np.testing.assert_array_equal(Preparation(33, percents).image(image), expected)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_padding_is_outside_of_the_percentiles_and_black(kind):
    rng = np.random.default_rng(0)
    image = rng.integers(40, 90, (30, 30)).astype(kind)
    padded, padding = np.pad(image, ((0, 0), (20, 20))), np.pad(np.zeros((30, 30), bool), ((0, 0), (20, 20)))
    padding[:, :20] = padding[:, 50:] = True
    padded[padding] = image.min()  # as decoded
    prepared = Preparation(70, (5, 90), "pad").image(padded, padding)
    np.testing.assert_array_equal(prepared[20:50, 20:50], Preparation(30, (5, 90)).image(image))
    assert not prepared[:, :20].any() and not prepared[:, 50:].any()


@pytest.mark.parametrize("shape", [(40, 60), (61, 40), (48, 48)])
@pytest.mark.parametrize("square", ["pad", "squash"])
def test_the_extent_is_where_a_white_image_is_not_black(shape, square):
    preparation = Preparation(max(shape) if square == "pad" else 24, (0, 100), square)
    image = np.full(shape, 255, np.uint8)
    image[0, 0] = 0  # else it has one grey level
    left, top, right, bottom = preparation.extent(*shape)
    rows, columns = np.nonzero(preparation.image(image))
    assert (top, bottom, left, right) == (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1)


def test_an_image_for_the_eye_keeps_its_shape_and_grows_no_larger():
    stretched = np.linspace(0, 1, 60 * 90, dtype=np.float32).reshape(60, 90)
    assert displayed(stretched, 30).shape == (20, 30)
    np.testing.assert_array_equal(displayed(stretched, 1000), np.round(stretched * 255))


@pytest.mark.parametrize(("square", "says"), [("pad", "black is added"), ("squash", "scaled apart")])
def test_the_rule_in_words_names_what_the_settings_decide(square, says):
    rule = Preparation(48, (2, 97.5), square).rule()
    assert all(text in rule for text in ("percentile 2 ", "percentile 97.5 ", "48 x 48", says))
