"""The copying test: the share is 1 for a copier, 0 for a method that ignores the patch, and 1/2 for half a copy."""

import numpy as np
import pytest
import torch
from torch import nn

from lib.methods.method import Method
from lib.methods.ra import ReversedAutoencoder
from lib.methods.unet import UNetAutoencoder
from lib.scores.copying import carried, copied_share, cut_skips
from lib.scores.scoring import reconstruct

KINDS = ["square", "shuffle"]


class Linear(Method):
    """Reconstructs `share` of its input, plus a constant image of its own."""

    def __init__(self, share: float, own: float = 0.0) -> None:
        super().__init__()
        self.network = nn.Linear(1, 1)
        self.share, self.own = share, own

    def moves(self, images, epoch=0):
        yield from ()

    def reconstruct(self, images):
        return self.share * images + self.own


class Blur(Linear):
    """Reconstructs the mean of each 8x8 cell."""

    def reconstruct(self, images):
        return nn.functional.interpolate(nn.functional.avg_pool2d(images, 8), scale_factor=8)


@pytest.fixture
def random_images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 200, (5, 48, 48)).astype(np.uint8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("share", "own"), [(1.0, 0.0), (0.0, 0.3), (0.5, 0.2)])
def test_the_share_is_that_of_the_change_and_not_of_the_image(random_images, kind, share, own):
    assert copied_share(Linear(share, own), random_images, kind).share == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_share_is_the_projection_on_the_change(random_images, kind):
    method = Blur(1.0)
    share, pasted, reconstructed = copied_share(method, random_images, kind)
    change, returned = [], []
    for image, changed, reconstruction in zip(random_images, pasted, reconstructed, strict=True):
        change.append((changed.astype(float) - image) / 255)
        before = (image / 255).reshape(6, 8, 6, 8).mean((1, 3)).repeat(8, 0).repeat(8, 1)
        returned.append(reconstruction - before)
    change, returned = np.ravel(change), np.ravel(returned)
    assert share == pytest.approx(change @ returned / (change @ change), rel=1e-5)


def test_a_blur_copies_a_square_but_not_a_shuffle(random_images):
    assert copied_share(Blur(1.0), random_images, "square").share > 0.5
    assert copied_share(Blur(1.0), random_images, "shuffle").share < 0.1


def test_a_square_is_white_a_shuffle_permutes_the_patch_and_nothing_else_changes(random_images):
    before = random_images.copy()
    place = (slice(None), slice(16, 24), slice(8, 16))
    for kind in KINDS:
        _, pasted, _ = copied_share(Linear(1.0), random_images, kind)
        assert pasted.dtype == np.uint8
        assert np.array_equal(random_images, before)  # the images themselves stay as they are
        if kind == "square":
            assert (pasted[place] == 255).all()
        else:
            assert (pasted[place] != before[place]).mean() > 0.9
            assert np.array_equal(
                np.sort(pasted[place].reshape(5, -1), axis=1), np.sort(before[place].reshape(5, -1), axis=1)
            )
        pasted[place] = before[place]
        assert np.array_equal(pasted, before)


def test_the_shuffle_is_reproducible(random_images):
    torch.manual_seed(0)
    first = copied_share(Linear(1.0), random_images, "shuffle").pasted
    np.random.seed(3)
    torch.manual_seed(1)
    assert np.array_equal(first, copied_share(Linear(1.0), random_images, "shuffle").pasted)


@pytest.mark.parametrize(("kind", "grey"), [("square", 255), ("shuffle", 40)])
def test_images_that_the_change_leaves_equal_are_refused(kind, grey):
    with pytest.raises(ValueError, match=f"a {kind} changes none of the 2 images"):
        copied_share(Linear(1.0), np.full((2, 24, 24), grey, np.uint8), kind)


def test_a_bottleneck_carries_no_more_than_its_latent_numbers_and_full_skips_no_less_than_the_pixels():
    ra = ReversedAutoencoder(16, [4, 8], 3)
    assert min(carried(ra, 16)) == 3
    assert min(carried(UNetAutoencoder([4, 8]), 16)) == 16 * 16
    assert min(carried(UNetAutoencoder([4, 8], skips="none"), 16)) == 8 * 4 * 4  # the features at a quarter of the side
    assert carried(ra, 16) == carried(ra, 16)  # nothing is left behind in the network


def test_the_skips_that_are_cut_pass_zeros_and_the_others_what_they_did():
    torch.manual_seed(0)
    network = UNetAutoencoder([2, 4]).eval()
    image = np.random.default_rng(0).integers(0, 200, (16, 16)).astype(np.uint8)
    test = cut_skips(network, image)
    pasted = image.copy()
    pasted[4:8, 4:8] = 255
    np.testing.assert_allclose(test.image, pasted / 255)
    np.testing.assert_allclose(test.reconstructed["all skips"], reconstruct(network, pasted[None])[0], atol=1e-6)
    assert len({picture.tobytes() for picture in test.reconstructed.values()}) == 4
    network.network.skip = Silent()
    np.testing.assert_allclose(test.reconstructed["none"], reconstruct(network, pasted[None])[0], atol=1e-6)
    for name, picture in test.reconstructed.items():
        assert test.off[name] == pytest.approx(np.abs(picture - pasted / 255)[4:8, 4:8].mean())


class Silent(nn.Module):
    """A skip that passes zeros."""

    def forward(self, features):
        return 0 * features
