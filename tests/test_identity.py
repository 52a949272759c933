"""Promises of `lib.identity`: a copier scores 1, what ignores the patch 0, and half a copy one half, for both kinds."""

import numpy as np
import pytest
import torch
from torch import nn

from lib.identity import copied_share
from lib.method import Method

KINDS = ["square", "shuffle"]


class Linear(Method):
    """Gives back `share` of its input, plus a picture of its own."""

    def __init__(self, share: float, own: float = 0.0) -> None:
        super().__init__()
        self.network = nn.Linear(1, 1)
        self.share, self.own = share, own

    def moves(self, images, epoch=0):
        yield from ()

    def reconstruct(self, images):
        return self.share * images + self.own


class Blur(Linear):
    """Gives back the mean of each 8x8 neighbourhood."""

    def reconstruct(self, images):
        return nn.functional.interpolate(nn.functional.avg_pool2d(images, 8), scale_factor=8)


@pytest.fixture
def random_films() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 200, (5, 48, 48)).astype(np.uint8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("share", "own"), [(1.0, 0.0), (0.0, 0.3), (0.5, 0.2)])
def test_the_share_is_what_came_back_of_the_change_and_not_of_the_film(random_films, kind, share, own):
    assert copied_share(Linear(share, own), random_films, kind).share == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_projection_of_what_came_back_as_numpy_computes_it(random_films, kind):
    method = Blur(1.0)
    share, pasted, reconstructed = copied_share(method, random_films, kind)
    change, returned = [], []
    for film, changed, made in zip(random_films, pasted, reconstructed, strict=True):
        change.append((changed.astype(float) - film) / 255)
        before = (film / 255).reshape(6, 8, 6, 8).mean((1, 3)).repeat(8, 0).repeat(8, 1)
        returned.append(made - before)
    change, returned = np.ravel(change), np.ravel(returned)
    assert share == pytest.approx(change @ returned / (change @ change), rel=1e-5)


def test_a_blur_gives_back_a_square_and_not_a_shuffle(random_films):
    assert copied_share(Blur(1.0), random_films, "square").share > 0.5
    assert copied_share(Blur(1.0), random_films, "shuffle").share < 0.1


def test_a_square_is_white_and_a_shuffle_has_the_patchs_own_pixels_and_nothing_else_changes(random_films):
    before = random_films.copy()
    there = (slice(None), slice(16, 24), slice(8, 16))
    for kind in KINDS:
        _, pasted, _ = copied_share(Linear(1.0), random_films, kind)
        assert pasted.dtype == np.uint8
        assert np.array_equal(random_films, before)  # the films themselves stay as they are
        if kind == "square":
            assert (pasted[there] == 255).all()
        else:
            assert (pasted[there] != before[there]).mean() > 0.9
            assert np.array_equal(
                np.sort(pasted[there].reshape(5, -1), axis=1), np.sort(before[there].reshape(5, -1), axis=1)
            )
        pasted[there] = before[there]
        assert np.array_equal(pasted, before)


def test_the_same_films_are_shuffled_the_same_way(random_films):
    torch.manual_seed(0)
    first = copied_share(Linear(1.0), random_films, "shuffle").pasted
    np.random.seed(3)
    torch.manual_seed(1)
    assert np.array_equal(first, copied_share(Linear(1.0), random_films, "shuffle").pasted)


@pytest.mark.parametrize(("kind", "grey"), [("square", 255), ("shuffle", 40)])
def test_films_in_which_nothing_changes_are_refused(kind, grey):
    with pytest.raises(ValueError, match=f"a {kind} changes none of the 2 films"):
        copied_share(Linear(1.0), np.full((2, 24, 24), grey, np.uint8), kind)
