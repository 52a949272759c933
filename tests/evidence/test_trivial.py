"""Promises of `lib.evidence.trivial`: each tag, feature and stratum is what its name says."""

import numpy as np
import pandas as pd
import pytest

from lib.evidence.trivial import border, image_features, replaced, strata_of, tags

SIZE = 20
LUNGS = np.zeros((SIZE, SIZE), dtype=bool)
LUNGS[6:14, 4:9] = LUNGS[6:14, 11:16] = True


def noise() -> np.ndarray:
    """Five images, (5, 20, 20) uint8."""
    return np.random.default_rng(1).integers(80, 120, (5, SIZE, SIZE)).astype(np.uint8)


def test_tags_are_numbers_words_and_whether_they_are_known():
    found = tags(
        pd.DataFrame(
            {
                "id": list("abcd"),
                "label": ["normal", "abnormal"] * 2,
                "strict_label": "normal",
                "finding": ["", "Mass"] * 2,
                "patient": ["1", "2"] * 2,
                "age": ["60", "nan", None, "7"],
                "view": ["PA", "AP", "", "PA"],
                "source": ["x", "y", "z", "z"],
                "sex": "",
                "width": [100, 200, "", 300],
                "height": ["50", "100", "100", "100"],
            }
        )
    )
    nan = np.nan
    expected = {
        "age": [60, nan, nan, 7],
        "age is known": [1, 0, 0, 1],
        "view is AP": [0, 1, nan, 0],
        "view is known": [1, 1, 0, 1],
        "source is x": [1, 0, 0, 0],
        "source is y": [0, 1, 0, 0],
        "source is z": [0, 0, 1, 1],
        "sex": [nan] * 4,
        "width": [100, 200, nan, 300],
        "width is known": [1, 1, 0, 1],
        "height": [50, 100, 100, 100],
        "aspect": [2, 2, nan, 3],
    }
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_image_features_are_what_their_names_say():
    images, mean = noise(), np.full((SIZE, SIZE), 90.0)
    found = image_features(images, mean)
    ring = [(y, x) for y in range(SIZE) for x in range(SIZE) if min(y, x, SIZE - 1 - y, SIZE - 1 - x) < 2]
    assert sorted(zip(*np.nonzero(border((SIZE, SIZE))), strict=True)) == sorted(ring)
    assert found["mean grey"] == pytest.approx(images.mean(axis=(1, 2)))
    assert found["contrast"] == pytest.approx(images.std(axis=(1, 2)))
    assert found["border brightness"] == pytest.approx([np.mean([image[at] for at in ring]) for image in images])
    assert found["distance to the mean training image"] == pytest.approx(np.abs(images - mean).mean(axis=(1, 2)))
    ramp = np.tile(np.arange(SIZE) * 10, (SIZE, 1)).astype(np.uint8)
    stripes = np.tile([0, 190], (SIZE, SIZE // 2)).astype(np.uint8)
    smooth, sharp = image_features(np.stack([ramp, stripes]), mean)["high-frequency energy"]
    assert sharp > 100 * smooth


def test_what_is_replaced_depends_on_nothing_that_was_there_and_has_no_edge():
    mean = np.add.outer(np.arange(SIZE), np.arange(SIZE)) * 3.0 + 20
    images, other = (np.clip(mean + shift, 0, 255).astype(np.uint8)[None] for shift in (0, 40))
    for where in (LUNGS, border((SIZE, SIZE))):
        marked = other.copy()
        marked[:, where] = 255
        found = replaced(marked, where, mean)
        np.testing.assert_array_equal(found, other)  # the mean image at this image's own brightness: no seam
        np.testing.assert_array_equal(replaced(images, where, mean), images)
        assert (marked[:, where] == 255).all() and found.dtype == np.uint8


def test_strata_are_the_two_values_or_quarters_and_the_unknown_is_in_none():
    assert list(strata_of(np.array([0, 1, np.nan, 1]))) == ["no", "yes", "", "yes"]
    assert list(strata_of(np.full(3, np.nan))) == [""] * 3
    assert list(strata_of(np.full(3, 5.0))) == ["5 to 5"] * 3
    values = np.random.default_rng(0).permutation(np.arange(40.0))
    found = strata_of(values)
    assert {name: (found == name).sum() for name in found} == dict.fromkeys(
        ("0 to 9", "10 to 19", "20 to 29", "30 to 39"), 10
    )
    assert all(
        low <= value <= high
        for value, (low, high) in zip(values, (map(float, m.split(" to ")) for m in found), strict=True)
    )
