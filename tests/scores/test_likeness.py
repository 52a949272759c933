"""Likeness: an image that differs from the normal ones in a way that is known is called unlike, by that name alone."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from lib.scores.features import Backbone
from lib.scores.likeness import likeness

SIZE = 16


def drawn(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(40, 200, (count, SIZE, SIZE), dtype=np.uint8)


def records(count: int, **changes) -> pd.DataFrame:
    rng = np.random.default_rng(count)
    plain = {"width": 1000.0, "height": rng.uniform(1000, 1200, count), "age": rng.integers(20, 60, count).astype(str)}
    return pd.DataFrame(plain | {"view": "PA"} | changes)


@pytest.fixture(scope="module")
def network() -> Backbone:
    torch.manual_seed(0)
    stages = [nn.Conv2d(3 if i == 0 else 4, 4, 3, stride=2, padding=1) for i in range(5)]
    return Backbone("random", stages, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture(scope="module")
def known(network):
    sides = {"reference": drawn(20, 1), "validation": drawn(20, 2), "test": drawn(3, 3)}
    return likeness(sides, {"reference": records(20), "validation": records(20)}, network)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ""),
        ({"width": 300.0, "height": 330.0}, "shorter side"),
        ({"width": 2000.0, "height": 1100.0}, "width / height"),
        ({"age": "3"}, "age"),
        ({"view": "lateral"}, "view"),
        ({"age": "", "view": "", "height": np.nan, "width": np.nan}, ""),
    ],
)
def test_what_a_record_says_is_compared_with_what_occurs_and_what_it_does_not_say_is_not(known, changes, expected):
    record = pd.DataFrame([{"width": 1000.0, "height": 1100.0, "age": "40", "view": "PA"} | changes])
    assert known.unlike(drawn(20, 1)[:1], record, None) == [expected]


def test_an_image_of_other_grey_levels_and_content_is_unlike_and_a_calibration_image_is_not(known, network):
    record = records(20)
    assert set(known.unlike(drawn(20, 2), record, network)) == {""}
    dark = drawn(1, 5) // 8
    assert known.unlike(dark, record[:1], network) == ["grey levels; features"]
    assert known.unlike(dark, record[:1], None) == ["grey levels"]  # without the network, features are not compared


def test_the_distances_follow_their_definitions(known):
    sides = drawn(20, 1), drawn(20, 2)
    shares = [np.stack([np.histogram(i, 32, (0, 256))[0] for i in side]) / SIZE**2 for side in sides]
    expected = np.abs(shares[1] - shares[0].mean(axis=0)).sum(axis=1).max() / 2
    assert known.farthest["grey levels"] == pytest.approx(expected)
    reference, calibration = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in _vectors(known))
    nearest = np.sort(1 - calibration @ reference.T, axis=1)[:, :5].mean(axis=1)
    assert known.farthest["features"] == pytest.approx(nearest.max(), rel=1e-3)


def _vectors(known) -> tuple[np.ndarray, np.ndarray]:
    torch.manual_seed(0)
    stages = [nn.Conv2d(3 if i == 0 else 4, 4, 3, stride=2, padding=1) for i in range(5)]
    with torch.no_grad():
        images = torch.from_numpy(drawn(20, 2)).float()[:, None] / 255
        images = torch.nn.functional.interpolate(images, size=(128, 128), mode="bilinear").expand(-1, 3, -1, -1)
        maps, features = (images - 0.5) / 0.5, []
        for stage in stages:
            maps = stage(maps)
            features.append(maps.mean(dim=(2, 3)))
    return known.features, torch.cat(features[1:4], dim=1).numpy()


def test_the_rule_names_what_is_compared_and_how_often_a_normal_image_is_unlike(known, network):
    rule = known.rule(network)
    ages = records(20)["age"].astype(int)
    assert "40 normal images" in rule and "its shorter side is less than 1000 pixels" in rule
    assert f"its age is not in {ages.min()} to {ages.max()}" in rule
    assert "its view" in rule and "its features" in rule and "not compared" not in rule
    assert f"at most {5 / 41 + 2 / 21:.0%}" in rule
    assert "its features" not in known.rule(None)
    assert f"at most {5 / 41 + 1 / 21:.0%}" in known.rule(None)
    sizes = {name: span for name, span in known.ranges.items() if name != "age"}
    assert "Not known of them, and not compared: age, view." in known._replace(ranges=sizes, views=[]).rule(network)


def test_without_features_everything_else_is_compared_as_before(known, network):
    plain, record = known.without_features(), records(20)
    assert not plain.features.size and "features" not in plain.rule(network)
    for images in (drawn(20, 2), drawn(20, 5) // 8):
        assert plain.unlike(images, record, network) == known.unlike(images, record, None)
