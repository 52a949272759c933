"""Anomaly maps and pools against their definitions."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from random_maps import APART, SIZE, closely, drawn, maps_between, maps_of
from skimage.exposure import equalize_adapthist

from lib.scores.maps import MAPS, POOLS, feature_distance, residual_map


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return drawn(5, 3)


@pytest.fixture(scope="module")
def reconstructions(images) -> np.ndarray:
    """Reconstructions that are wrong everywhere, by different amounts."""
    return (images / 255 * np.random.default_rng(4).uniform(0.6, 0.9, images.shape)).astype(np.float32)


def test_the_residual_is_the_absolute_difference_and_the_squared_map_its_square(images, reconstructions):
    difference = images / 255 - reconstructions
    maps = maps_of(images, reconstructions)
    np.testing.assert_allclose(maps["residual"], np.abs(difference), atol=1e-6)
    np.testing.assert_allclose(maps["squared"], difference**2, atol=1e-6)


def test_dissimilarity_is_one_minus_ssim_in_a_window_of_seven(images, reconstructions):
    x, r = images[4] / 255, reconstructions[4].astype(float)
    window, other = x[5:12, 3:10].ravel(), r[5:12, 3:10].ravel()
    (xx, xr), (_, rr) = np.cov(window, other)
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * window.mean() * other.mean() + c1) * (2 * xr + c2)
    similarity /= (window.mean() ** 2 + other.mean() ** 2 + c1) * (xx + rr + c2)
    assert maps_of(images, reconstructions)["ssim"][4, 8, 6] == pytest.approx(1 - similarity, rel=1e-4)


def test_the_clahe_map_is_the_residual_after_both_were_equalised(images, reconstructions):
    pairs = zip(images / 255, reconstructions, strict=True)
    expected = [np.abs(equalize_adapthist(x) - equalize_adapthist(r)) for x, r in pairs]
    np.testing.assert_allclose(maps_of(images, reconstructions)["clahe"], expected, atol=1e-4)


def smoothed(image: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian of four sigma, mirrored at the border: its weights written down and summed."""
    radius = int(4 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    padded = np.pad(image, radius, mode="symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * radius + 1, 2 * radius + 1))
    return np.einsum("ijkl,k,l", windows, weights, weights) / weights.sum() ** 2


def test_the_product_is_the_clahe_map_times_the_smoothed_distances_before_and_after_clahe():
    size = 64  # where sigma is a pixel
    image, reconstruction = drawn(1, 5, size)[0] / 255, drawn(1, 6, size)[0] / 255
    x, r = equalize_adapthist(image), equalize_adapthist(reconstruction)
    before, after = (2 * np.sqrt(np.abs(a - b)) for a, b in ((image, reconstruction), (x, r)))
    expected = np.abs(x - r) * smoothed(before, size / 64) * smoothed(after, size / 64)
    images = [torch.from_numpy(array).float()[None, None] for array in (image, reconstruction)]
    found = maps_between(*images, {"apart": APART})
    np.testing.assert_allclose(found["clahe x apart"][0, 0], expected, rtol=0.01, atol=1e-4)
    np.testing.assert_allclose(found["apart"][0, 0], before, rtol=1e-3, atol=1e-4)


def test_the_product_with_lpips_has_the_name_of_ras_own_score():
    images = torch.rand(2, 1, SIZE, SIZE)
    both = maps_between(images, images.flip(0), {"lpips": APART, "apart": APART})
    assert list(both) == [*MAPS, "lpips", "ra-map", "apart", "clahe x apart"]
    assert torch.equal(both["ra-map"], both["clahe x apart"])


def test_a_distance_in_features_does_not_depend_on_the_other_images_of_the_batch():
    def features(images):
        return [torch.cat([images, images**2], dim=1), F.avg_pool2d(torch.cat([images, 1 - images], dim=1), 4)]

    a, b = torch.rand(2, 19, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    apart = feature_distance(features, torch.device("cpu"))

    def distance(images, others):
        return apart.between(apart.features(images), apart.features(others))

    together = distance(a, b)
    assert together.shape == a.shape and together.min() > 0
    torch.testing.assert_close(together, torch.cat([distance(a[i : i + 1], b[i : i + 1]) for i in range(19)]))


def test_darker_and_brighter_than_expected_count_the_same():
    images, reconstructions = torch.tensor([[[[0.25]]], [[[0.75]]]]), torch.full((2, 1, 1, 1), 0.5)
    assert residual_map(images, reconstructions).flatten().tolist() == [0.25, 0.25]


def test_a_painted_square_raises_every_map_inside_it():
    size = 32
    clean = np.broadcast_to(np.linspace(60, 140, size), (3, size, size)).round().astype(np.uint8)
    clean[:, 0, :2] = 0, 255  # the greys' range is the same with the square, or CLAHE would stretch all others anew
    painted, square = clean.copy(), np.zeros(clean.shape, dtype=bool)
    square[:, 8:16, 20:28] = True
    painted[square] = 240
    for name, maps in maps_of(painted, (clean / 255).astype(np.float32)).items():
        assert maps[square].min() > 0, name
        assert maps[square].mean() > 2 * maps[~square].mean(), name


def test_the_pools_are_the_mean_the_99th_percentile_and_the_mean_of_the_highest_five_percent():
    maps = np.random.default_rng(0).gamma(2, size=(5, 20, 30)).astype(np.float32)
    pixels = np.sort(maps.reshape(5, -1))
    expected = {
        "mean": pixels.mean(axis=1),
        "p99": np.percentile(pixels, 99, axis=1),
        "top 5 %": pixels[:, -30:].mean(axis=1),
    }
    closely({name: POOLS[name](torch.from_numpy(maps)[:, None]).numpy() for name in expected}, expected)
