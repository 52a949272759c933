"""Promises of `lib.unet`: the network's shape, its loss, and the detail that its skips hand across."""

import numpy as np
import pytest
import torch

from lib.params import Params
from lib.unet import UNet, UNetAutoencoder

SHAPES = [(8, [4, 4, 4]), (16, [4]), (16, [4, 8]), (24, [4, 8, 8]), (32, [8, 4, 6, 4]), (12, (5, 3))]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(("size", "widths"), SHAPES)
def test_any_widths_fit_any_size_that_they_halve_evenly(size, widths):
    method, images = UNetAutoencoder(widths), torch.rand(2, 1, size, size)
    ((part, losses),) = method.moves(images)
    losses["total"].backward()
    assert part == "network"
    assert all(weight.grad.isfinite().all() for weight in method.parameters())
    assert method.eval().reconstruct(images).shape == images.shape


@pytest.mark.parametrize("shift", [-1e3, 0.0, 1e3])
def test_reconstructions_stay_in_the_unit_interval_whatever_the_weights(shift):
    method = UNetAutoencoder([4, 8]).eval()
    torch.nn.init.constant_(method.network.head.convolution.bias, shift)
    made = method.reconstruct(torch.rand(2, 1, 16, 16))
    assert made.min() >= 0 and made.max() <= 1
    assert made.dtype is torch.float32


def test_the_loss_is_the_mean_squared_error_of_numpy():
    method, images = UNetAutoencoder([4, 8]), torch.rand(3, 1, 16, 16)
    made = method.network(images).detach().double().numpy()  # in training mode: of this batch's statistics
    ((_, losses),) = method.moves(images)
    assert losses.keys() == {"total"}
    assert losses["total"].item() == pytest.approx(np.mean((made - images.double().numpy()) ** 2), rel=1e-6)


def test_the_only_part_is_the_network_and_its_move_reaches_every_weight():
    method = UNetAutoencoder([4, 8, 8])
    assert [name for name, _ in method.named_children()] == ["network"]
    ((part, losses),) = method.moves(torch.rand(4, 1, 16, 16))
    losses["total"].backward(inputs=list(getattr(method, part).parameters()))
    assert all(weight.grad.abs().sum() > 0 for weight in method.parameters())


def test_untrained_the_finest_skip_alone_hands_every_pixel_across_at_full_resolution():
    method = UNetAutoencoder([4, 8, 8]).eval()
    for coarser in (*method.network.down[1:], method.network.bottom):  # all that has been halved at least once
        coarser.register_forward_hook(lambda module, given, made: torch.zeros_like(made))
    images = torch.rand(1, 1, 16, 16, requires_grad=True)
    made = method.reconstruct(images)
    for row, column in [(0, 0), (5, 10), (8, 7), (15, 15)]:
        (influence,) = torch.autograd.grad(made[0, 0, row, column], images, retain_graph=True)
        assert influence[0, 0, row, column] != 0
        far = (torch.arange(16) - row).abs()[:, None].maximum((torch.arange(16) - column).abs()) > 6
        assert not influence[0, 0][far].any()  # 5x5, two 3x3 and 5x5 reach six pixels: nothing came from below


def test_each_resolution_is_reached_by_a_skip_and_from_below():
    network = UNet([4, 6, 8])
    assert [stage.residual[0].in_channels for stage in network.up] == [6 + 4, 8 + 6, 8 + 8]
    assert [stage.residual[0].out_channels for stage in network.up] == [4, 6, 8]


def test_a_reconstruction_is_deterministic_and_depends_on_its_image_alone():
    method, images = UNetAutoencoder([4, 8]).eval(), torch.rand(5, 1, 16, 16)
    made = method.reconstruct(images)
    assert torch.equal(made, method.reconstruct(images))
    among_others = torch.cat([images[:1], 1 - images[1:]])
    torch.testing.assert_close(method.reconstruct(among_others)[:1], made[:1], rtol=0, atol=1e-6)
    torch.testing.assert_close(method.reconstruct(images[:1]), made[:1], rtol=0, atol=1e-6)


def test_running_statistics_move_in_training_and_not_in_reconstruction():
    method, images = UNetAutoencoder([4, 8]), torch.rand(4, 1, 16, 16)
    fresh = {name: buffer.clone() for name, buffer in method.named_buffers()}
    list(method.moves(images))
    trained = {name: buffer.clone() for name, buffer in method.named_buffers()}
    assert not any(torch.equal(fresh[name], trained[name]) for name in fresh)
    method.eval().reconstruct(images)
    assert all(torch.equal(trained[name], buffer) for name, buffer in method.named_buffers())


def test_it_is_built_as_the_settings_say():
    method = UNetAutoencoder.from_params(Params(image_size=32, widths=[3, 5]))
    built = UNetAutoencoder([3, 5])
    assert {k: v.shape for k, v in method.state_dict().items()} == {k: v.shape for k, v in built.state_dict().items()}
