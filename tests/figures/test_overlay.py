"""A map of one image: its values survive sixteen bits, and its colours lie where the image is."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from lib.figures.overlay import overlay, sixteen_bits


def opened(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(content)))


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3.5, 12)])
def test_a_reader_gets_the_values_back_by_the_rule_that_the_file_states(low, high):
    values = np.random.default_rng(0).uniform(low, high, (16, 20)).astype(np.float32)
    file = Image.open(BytesIO(sixteen_bits(values, low, high)))
    lowest, highest = (float(file.text[name]) for name in ("low", "high"))
    np.testing.assert_allclose(lowest + np.asarray(file) / 65535 * (highest - lowest), values, atol=(high - low) / 1e5)


def test_a_value_outside_of_the_range_is_refused():
    with pytest.raises(ValueError, match="expected \\[0, 1\\]: widen the range"):
        sixteen_bits(np.array([[0.5, 1.5]]), 0, 1)


def test_without_a_residual_the_image_is_as_it_was_and_colour_lies_where_the_map_is_high():
    image = np.linspace(0, 255, 60 * 40).reshape(60, 40).astype(np.uint8)
    values = np.zeros((30, 30), np.float32)
    values[:10, :] = 0.5  # the upper third of the square, of which the image takes the columns 5 to 25
    drawn = opened(overlay(image, values, 0.5, (5, 0, 25, 30))).astype(int)
    assert drawn.shape == (60, 40, 3)
    np.testing.assert_allclose(drawn[32:], np.repeat(image[32:, :, None], 3, axis=2), atol=4)  # of JPEG
    assert (np.ptp(drawn[:18], axis=2) > 50).all()


def test_the_map_is_cut_where_the_image_ends():
    values = np.zeros((30, 30), np.float32)
    values[:, :5] = 1  # beside the image
    image = np.full((60, 40), 100, np.uint8)
    drawn = opened(overlay(image, values, 1, (5, 0, 25, 30))).astype(int)
    np.testing.assert_allclose(drawn[:, 16:], 100, atol=3)  # JPEG takes blocks of 16 pixels together
    assert (abs(drawn[:, 2:] - 100) < 40).all()
