"""Health: measures of what a method does with normal images, each against an independent oracle."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from sklearn.decomposition import PCA

from lib.methods.method import Method
from lib.methods.ra import ReversedAutoencoder
from lib.scores.features import FeaturesError
from lib.scores.health import HealthCheck, frechet_distance, measured_after

NO_BACKBONE = FeaturesError("none here")


@pytest.fixture(scope="module")
def stacks() -> tuple[np.ndarray, np.ndarray]:
    """Blobs whose brightness, place and grain differ, so that components, spectra and residuals all vary."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:16, :16]
    blobs = [
        120 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 20) + rng.normal(60, 12, (16, 16))
        for cx, cy in rng.uniform(4, 12, (90, 2))
    ]
    images = np.clip(blobs, 0, 255).astype(np.uint8)
    return images[:60], images[60:]


class Fixed(Method):
    """Reconstructs by a fixed function."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function, self.part = function, torch.nn.Linear(1, 1)

    def moves(self, images, epoch=0):
        yield from ()

    def reconstruct(self, images):
        return self.function(images)


def blurred(images):
    return torch.nn.functional.avg_pool2d(images, 5, stride=1, padding=2, count_include_pad=False)


def test_the_frechet_distance_is_that_of_two_gaussians():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(40, 6)) @ rng.normal(size=(6, 6)), rng.normal(1, 2, size=(50, 6))
    root = sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    gap = ((a.mean(0) - b.mean(0)) ** 2).sum()
    assert frechet_distance(a, b) == pytest.approx(gap + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root), rel=1e-9)


def test_the_frechet_distance_of_shifted_features_is_the_squared_shift_also_for_fewer_images_than_channels():
    features = np.random.default_rng(0).normal(size=(5, 20))
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(features + 2.0, features) == pytest.approx(20 * 4)


def test_a_perfect_copy_has_no_residual_keeps_all_detail_and_copies_a_square(stacks):
    found = HealthCheck(*stacks, NO_BACKBONE, 0)(Fixed(lambda images: images))
    assert found == pytest.approx({"residual": 0, "detail": 1, "copied": 1}, abs=1e-6)


def test_residual_and_detail_of_a_blur_are_those_of_numpy(stacks):
    validation = stacks[1] / 255
    redrawn = blurred(torch.tensor(validation)[:, None])[:, 0].numpy()
    found = HealthCheck(*stacks, NO_BACKBONE, 0)(Fixed(blurred))
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(16), np.fft.rfftfreq(16), indexing="ij"))
    power = [(np.abs(np.fft.rfft2(x)) ** 2).mean(axis=0)[frequency > 1 / 8].sum() for x in (redrawn, validation)]
    assert found["residual"] == pytest.approx(np.abs(redrawn - validation).mean(), rel=1e-5)
    assert found["detail"] == pytest.approx(power[0] / power[1], rel=1e-4)
    assert found["detail"] < 0.3


def test_the_yardstick_is_the_error_of_principal_components(stacks):
    train, validation = (stack.reshape(len(stack), -1) / 255 for stack in stacks)
    pca = PCA(16, svd_solver="full").fit(train)
    redrawn = pca.inverse_transform(pca.transform(validation)).clip(0, 1)
    check = HealthCheck(*stacks, NO_BACKBONE, 0)
    assert set(check.pca) == {16}  # 60 images have no 64 components
    assert check.pca[16].residual == pytest.approx(np.abs(redrawn - validation).mean(), rel=0.01)


def test_an_ra_has_the_kl_of_real_redrawn_and_sampled_images(stacks):
    torch.manual_seed(3)
    method = ReversedAutoencoder(16, [4, 6], 5)
    with torch.no_grad():
        method.encoder.to_posterior.weight.mul_(20)  # far from the prior, so that images differ
    before = torch.get_rng_state()
    check = HealthCheck(*stacks, NO_BACKBONE, 0)
    found = check(method)
    assert torch.equal(torch.get_rng_state(), before)
    assert found == check(method)
    images = torch.tensor(stacks[1])[:, None] / 255
    with torch.no_grad():
        of = {"real": images, "reconstruction": method.reconstruct(images)}
        expected = {f"kl_{kind}": method.encoder(x).kl().mean().item() for kind, x in of.items()}
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    assert found["kl_sample"] > 0


def test_with_a_backbone_the_distances_are_those_of_its_last_features(stacks):
    class Brightness(torch.nn.Module):
        mean = torch.zeros(1)

        def forward(self, images):
            return [images, torch.cat([images, images**2], dim=1)]

    check = HealthCheck(*stacks, Brightness(), 0)
    real = stacks[1] / 255
    features = np.stack([real.mean((1, 2)), (real**2).mean((1, 2))], axis=1)
    darker = np.stack([(0.5 * real).mean((1, 2)), (0.25 * real**2).mean((1, 2))], axis=1)
    assert check(Fixed(lambda images: 0.5 * images))["frechet"] == pytest.approx(
        frechet_distance(darker, features), rel=1e-3
    )
    train = stacks[0][np.linspace(0, 59, 30).astype(int)] / 255
    floor = np.stack([train.mean((1, 2)), (train**2).mean((1, 2))], axis=1)
    assert check.floor == pytest.approx(frechet_distance(floor, features), rel=1e-3)


@pytest.mark.parametrize(
    ("every", "epochs"), [(0, [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 41]), (1, [*range(1, 42)]), (15, [15, 30, 41])]
)
def test_health_is_measured_at_half_octaves_or_at_equal_steps_and_at_the_end(every, epochs):
    assert [n for n in range(1, 42) if measured_after(n, 41, every)] == epochs
