"""What the tests of maps and scores share: a stand-in for a distance in features, and random images."""

import numpy as np
import torch

from lib.scores.maps import Distance, anomaly_maps, describe

SIZE = 16

APART = Distance(lambda images: images, lambda images, others: 2 * (images - others).abs().sqrt())
"""Stands in for a distance in features."""


def maps_between(
    images: torch.Tensor, reconstructions: torch.Tensor, distances: dict[str, Distance]
) -> dict[str, torch.Tensor]:
    return anomaly_maps(describe(images, distances), describe(reconstructions, distances), distances)


def maps_of(images: np.ndarray, reconstructions: np.ndarray) -> dict[str, np.ndarray]:
    """The maps of uint8 images, (n, height, width), and of their reconstructions, float32 in [0, 1]."""
    unit = torch.from_numpy(images)[:, None].float() / 255
    maps = maps_between(unit, torch.from_numpy(reconstructions)[:, None], {"apart": APART})
    return {name: batch[:, 0].numpy() for name, batch in maps.items()}


def closely(found: dict, expected: dict, rtol: float = 1e-5) -> None:
    assert list(found) == list(expected)
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], rtol=rtol, atol=1e-7, err_msg=name)


def drawn(count: int, seed: int, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(30, 226, (count, size, size)).astype(np.uint8)
