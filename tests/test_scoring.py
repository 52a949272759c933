"""Promises of `lib.scoring`: the same map and score for every method, of one image alone."""

import numpy as np
import pytest
import torch
from torch import nn

from lib.method import Method
from lib.ra import ReversedAutoencoder
from lib.scoring import image_score, reconstruct, residual_map, residuals, scores
from lib.unet import UNetAutoencoder

METHODS = {"unet": lambda: UNetAutoencoder([4, 8]), "ra": lambda: ReversedAutoencoder(16, [4, 8], 8)}


class Halved(Method):
    """Gives back half of what it sees, and remembers the batches that it saw and in which mode."""

    def __init__(self) -> None:
        super().__init__()
        self.grey, self.saw = nn.Conv2d(1, 1, 1, bias=False), []
        nn.init.constant_(self.grey.weight, 0.5)

    def moves(self, images):
        return iter(())  # it is never trained

    def reconstruct(self, images):
        self.saw.append((len(images), self.training, torch.is_grad_enabled()))
        return self.grey(images)


def test_the_score_of_a_batch_is_the_scores_of_its_images(films):
    made = np.random.default_rng(1).random(films.shape, dtype=np.float32)
    together = scores(residuals(films, made))
    alone = [scores(residuals(films[i : i + 1], made[i : i + 1]))[0] for i in range(len(films))]
    np.testing.assert_allclose(together, alone, rtol=1e-6)


def test_maps_and_scores_equal_their_definition_in_numpy(films):
    made = np.random.default_rng(1).random(films.shape, dtype=np.float32)
    expected = np.abs(films / 255.0 - made)
    maps = residuals(films, made)
    assert maps.dtype == np.float32 and maps.shape == films.shape
    np.testing.assert_allclose(maps, expected, atol=1e-7)
    assert scores(maps).shape == (len(films),)
    np.testing.assert_allclose(scores(maps), expected.mean(axis=(1, 2)), rtol=1e-6)


def test_a_perfect_reconstruction_scores_zero(films):
    perfect = films.astype(np.float32) / 255
    assert not residuals(films, perfect).any()
    assert not scores(residuals(films, perfect)).any()


def test_the_worst_reconstruction_scores_one():
    white, black = np.full((1, 8, 8), 255, np.uint8), np.zeros((1, 8, 8), np.float32)
    assert scores(residuals(white, black)) == [1.0]


def test_a_painted_square_raises_the_map_there_and_nowhere_else(films):
    made = films.astype(np.float32) / 255
    painted = films.copy()
    painted[3, 4:8, 9:12] = 255
    maps = residuals(painted, made)
    square = np.zeros(films.shape, bool)
    square[3, 4:8, 9:12] = True
    assert (maps[square] > 0).all()
    assert not maps[~square].any()
    assert scores(maps).argmax() == 3


def test_darker_and_brighter_than_expected_count_the_same():
    images, made = torch.tensor([[[[0.25]]], [[[0.75]]]]), torch.full((2, 1, 1, 1), 0.5)
    assert image_score(residual_map(images, made)).tolist() == [0.25, 0.25]


@pytest.mark.parametrize("name", METHODS)
def test_reconstructions_do_not_depend_on_the_batch_size(films, name):
    torch.manual_seed(0)
    method = METHODS[name]()
    list(method.moves(torch.rand(4, 1, 16, 16)))  # running statistics that are not those of a new network
    together = reconstruct(method, films, batch_size=64)
    assert together.dtype == np.float32 and together.shape == films.shape
    assert together.min() >= 0 and together.max() <= 1
    for batch_size in (1, 4, 9):
        np.testing.assert_allclose(reconstruct(method, films, batch_size), together, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_reconstruct_puts_the_method_in_evaluation_mode_and_leaves_it_as_it_was_otherwise(films, name):
    torch.manual_seed(0)
    method, random = METHODS[name]().train(), torch.get_rng_state()
    before = {key: value.clone() for key, value in method.state_dict().items()}
    first = reconstruct(method, films)
    assert not any(module.training for module in method.modules())
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)  # no draw: a score is a function of the image
    np.testing.assert_array_equal(reconstruct(method, films), first)


def test_every_image_is_seen_once_in_order_without_gradients(films):
    method = Halved()
    np.testing.assert_allclose(reconstruct(method, films, batch_size=5), films / 510, atol=1e-7)
    assert method.saw == [(5, False, False), (4, False, False)]
