"""The U-Net autoencoder and the shared blocks: shapes, loss, what the skips carry, and what corrupts an input."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional as F

from lib.methods.blocks import normalisation_layer
from lib.methods.unet import CORRUPTIONS, NoisyChannel, UNet, UNetAutoencoder, coarse_noise, masked
from lib.params import Params

SHAPES = [(8, [4, 4, 4]), (16, [4]), (16, [4, 8]), (24, [4, 8, 8]), (32, [8, 4, 6, 4]), (12, (5, 3))]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("corruption", CORRUPTIONS)
@pytest.mark.parametrize("skips", ["full", "none", "noise"])
@pytest.mark.parametrize("normalisation", ["batch", "group"])
@pytest.mark.parametrize(("size", "widths"), SHAPES)
def test_every_image_size_that_the_widths_halve_evenly_is_valid(size, widths, normalisation, skips, corruption):
    method = UNetAutoencoder(widths, normalisation, skips, corruption=corruption)
    images = torch.rand(2, 1, size, size).contiguous(memory_format=torch.channels_last)  # as the training loop does
    ((part, losses),) = method.moves(images)
    losses["total"].backward()
    assert part == "network"
    assert all(weight.grad.isfinite().all() for weight in method.parameters())
    assert method.eval().reconstruct(images).shape == images.shape


@pytest.mark.parametrize("shift", [-1e3, 0.0, 1e3])
def test_reconstructions_stay_in_the_unit_interval_whatever_the_weights(shift):
    method = UNetAutoencoder([4, 8]).eval()
    torch.nn.init.constant_(method.network.head.convolution.bias, shift)
    reconstruction = method.reconstruct(torch.rand(2, 1, 16, 16))
    assert reconstruction.min() >= 0 and reconstruction.max() <= 1
    assert reconstruction.dtype is torch.float32


def test_the_loss_is_the_mean_squared_error():
    method, images = UNetAutoencoder([4, 8]), torch.rand(3, 1, 16, 16)
    reconstruction = method.network(images).detach().double().numpy()  # in training mode: of this batch's statistics
    ((_, losses),) = method.moves(images)
    assert losses.keys() == {"total"}
    assert losses["total"].item() == pytest.approx(np.mean((reconstruction - images.double().numpy()) ** 2), rel=1e-6)


def test_the_only_part_is_the_network_and_its_move_reaches_every_weight():
    method = UNetAutoencoder([4, 8, 8])
    assert [name for name, _ in method.named_children()] == ["network"]
    ((part, losses),) = method.moves(torch.rand(4, 1, 16, 16))
    losses["total"].backward(inputs=list(getattr(method, part).parameters()))
    assert all(weight.grad.abs().sum() > 0 for weight in method.parameters())


def test_the_finest_skip_alone_carries_every_pixel_across_even_untrained():
    method = UNetAutoencoder([4, 8, 8]).eval()
    for coarser in (*method.network.down[1:], method.network.bottom):  # everything that was halved at least once
        coarser.register_forward_hook(lambda module, inputs, output: torch.zeros_like(output))
    images = torch.rand(1, 1, 16, 16, requires_grad=True)
    reconstruction = method.reconstruct(images)
    for row, column in [(0, 0), (5, 10), (8, 7), (15, 15)]:
        (influence,) = torch.autograd.grad(reconstruction[0, 0, row, column], images, retain_graph=True)
        assert influence[0, 0, row, column] != 0
        far = (torch.arange(16) - row).abs()[:, None].maximum((torch.arange(16) - column).abs()) > 6
        assert not influence[0, 0][far].any()  # 5x5, two 3x3 and 5x5 reach six pixels: nothing came from below


def without_the_bottom(method: UNetAutoencoder) -> UNetAutoencoder:
    method.network.bottom.register_forward_hook(lambda module, inputs, output: torch.zeros_like(output))
    return method.eval()


@pytest.mark.parametrize(("skips", "crosses"), [("full", True), ("noise", True), ("none", False)])
def test_without_skips_all_information_passes_the_bottom(skips, crosses):
    method = without_the_bottom(UNetAutoencoder([4, 8, 8], skips=skips))
    one, other = method.reconstruct(torch.rand(2, 1, 16, 16))
    assert ((one - other).abs().max() > 1e-6) == crosses


def test_without_skips_each_stage_takes_only_the_channels_from_below():
    up = UNet([4, 6, 8], skips="none").up
    assert [(stage.residual[0].in_channels, stage.residual[0].out_channels) for stage in up] == [(6, 4), (8, 6), (8, 8)]


@pytest.mark.parametrize("scale", [0.25, 3.0])
def test_while_training_a_noisy_skip_is_a_sigmoid_with_laplace_noise_of_its_scale(scale):
    channel, features = NoisyChannel(scale), torch.linspace(-4, 4, 20_000).reshape(1, 2, 100, 100)
    signal = 1 / (1 + np.exp(-features.double().numpy()))
    noise = (channel(features).double().numpy() - signal).ravel()
    assert stats.kstest(noise, stats.laplace(scale=scale).cdf).pvalue > 0.01
    assert abs(np.corrcoef(noise[:-1], noise[1:])[0, 1]) < 0.02  # each value has its own
    np.testing.assert_allclose(channel.eval()(features).numpy(), signal, atol=1e-6)


def test_a_noisy_skip_carries_at_most_one_over_its_scale_nats():
    scale, bits = 0.5, torch.randint(2, (1, 1, 300, 300))
    arrived = NoisyChannel(scale)(1e3 * (2.0 * bits - 1)).double().numpy().ravel()  # the loudest signals: 0 and 1
    likely = [stats.laplace(loc=level, scale=scale).pdf(arrived) for level in (0, 1)]
    sent = np.where(bits.numpy().ravel() == 1, likely[1], likely[0])
    nats = np.log(sent / (0.5 * (likely[0] + likely[1]))).mean()
    assert 0.2 < nats < np.log(2) < 1 / scale


def test_noise_is_on_every_skip_and_only_while_training():
    method, images = UNetAutoencoder([4, 8, 8], skips="noise", skip_noise=2.0), torch.rand(2, 1, 16, 16)
    calls = []
    method.network.skip.register_forward_hook(lambda module, inputs, output: calls.append((inputs[0], output)))
    random = torch.get_rng_state()
    reconstruction = method.eval().reconstruct(images)
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(reconstruction, method.reconstruct(images))
    calls.clear()
    method.train().reconstruct(images)
    assert [tuple(output.shape[1:]) for _, output in calls] == [(4, 16, 16), (8, 8, 8), (8, 4, 4)]
    assert method.network.skip.scale == 2.0
    assert all(((output - features.sigmoid()).abs().mean() - 2.0).abs() < 0.3 for features, output in calls)


def test_a_noisy_skip_is_float32_at_half_precision():
    features = torch.randn(1, 4, 8, 8, dtype=torch.bfloat16)
    assert NoisyChannel(1.0)(features).dtype is torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ((_, losses),) = UNetAutoencoder([4, 8], "group", "noise").moves(torch.rand(2, 1, 16, 16))
    assert losses["total"].isfinite()


# --- corrupted inputs -------------------------------------------------------------------------------------------------


def test_coarse_noise_is_the_bilinear_upsampling_of_an_eighth_shifted_around():
    images = torch.rand(2, 1, 32, 24)
    torch.manual_seed(3)
    noise = (coarse_noise(images) - images).numpy()
    torch.manual_seed(3)
    grid = 0.2 * torch.randn(2, 1, 4, 3).numpy()
    down, right = int(torch.randint(32, ())), int(torch.randint(24, ()))
    for y, x in [(0, 0), (7, 3), (31, 23), (16, 11)]:
        row, column = ((y - down) % 32) * 3 / 31, ((x - right) % 24) * 2 / 23  # corners lie on corners
        top, left = min(int(row), 2), min(int(column), 1)
        a, b = row - top, column - left
        cell = grid[:, 0, top : top + 2, left : left + 2]
        weights = np.outer([1 - a, a], [1 - b, b])
        np.testing.assert_allclose(noise[:, 0, y, x], (cell * weights).sum((1, 2)), atol=1e-6)


def test_coarse_noise_has_its_mean_at_zero_and_its_std_at_the_grids_points():
    images = torch.zeros(600, 1, 64, 64)
    noise = coarse_noise(images)
    assert abs(noise.mean()) < 0.005  # a public port shifts it, so that training and test inputs differ by 1
    peak = noise.std(0).max()
    assert 0.19 < peak < 0.23
    assert noise.min() < -0.5  # not clipped
    assert not torch.equal(noise[0], noise[1])


def test_coarse_noise_is_shifted_at_random():
    edges = set()
    for _ in range(6):
        noise = coarse_noise(torch.zeros(64, 1, 32, 32))
        seam = (noise - noise.roll(1, 3)).abs().mean((0, 1, 2))  # the upsampled field's two ends meet only there
        edges.add(int(seam.argmax()))
    assert len(edges) > 2


def test_a_mask_replaces_about_half_of_8_by_8_cells_by_the_images_mean_grey():
    images = torch.rand(200, 1, 32, 32) * torch.rand(200, 1, 1, 1)
    after = masked(images).numpy().reshape(200, 8, 4, 8, 4)
    before = images.numpy().reshape(200, 8, 4, 8, 4)
    mean = images.double().numpy().mean((1, 2, 3)).reshape(200, 1, 1, 1, 1)
    kept = (after == before).all((2, 4))
    hidden = (np.abs(after - mean) < 1e-6).all((2, 4))
    assert (kept ^ hidden).all()
    assert 0.45 < hidden.mean() < 0.55
    assert (hidden.mean(0) > 0.3).all() and (hidden.mean(0) < 0.7).all()  # every cell is hidden about half of the time
    assert hidden.mean((1, 2)).std() > 0.01  # and differently in each image


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_the_input_is_corrupted_in_training_alone_and_the_target_is_the_clean_image(corruption):
    method, images = UNetAutoencoder([4, 8], corruption=corruption), torch.rand(3, 1, 16, 16)
    seen = []
    method.network.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    torch.manual_seed(5)
    ((_, losses),) = method.moves(images)
    again = torch.get_rng_state()
    torch.manual_seed(5)
    corrupted = CORRUPTIONS[corruption](images)
    assert torch.equal(torch.get_rng_state(), again)  # all randomness comes from torch's generator
    assert torch.equal(seen[0], corrupted)
    assert torch.equal(corrupted, images) == (corruption == "none")
    reconstruction = method.network(corrupted).detach().double().numpy()
    assert losses["total"].item() == pytest.approx(np.mean((reconstruction - images.double().numpy()) ** 2), rel=1e-6)
    method.eval().reconstruct(images)
    assert torch.equal(seen[-1], images)


# --- normalisation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channels", "groups"),
    [(1, 1), (3, 1), (4, 1), (5, 1), (6, 1), (8, 2), (12, 3), (16, 4), (32, 8), (64, 8), (90, 6)],
)
def test_group_normalisation_has_at_most_8_groups_of_at_least_4_channels(channels, groups):
    layer, features = normalisation_layer("group", channels), torch.randn(2, channels, 3, 3, dtype=torch.float64)
    assert layer.num_groups == groups
    grouped = features.numpy().reshape(2, groups, -1)
    wanted = (grouped - grouped.mean(2, keepdims=True)) / np.sqrt(grouped.var(2, keepdims=True) + 1e-5)
    np.testing.assert_allclose(layer.double()(features).detach().numpy().reshape(wanted.shape), wanted, atol=1e-12)


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_group_normalisation_equals_torch_s_in_any_order_in_memory_and_leaves_channels_innermost(order, dtype):
    layer, features = normalisation_layer("group", 8), torch.randn(2, 8, 6, 5).to(dtype)
    with torch.no_grad():
        layer.weight.uniform_()
        layer.bias.uniform_()
    normalised = layer(features.to(memory_format=order))
    assert normalised.is_contiguous(memory_format=torch.channels_last)
    expected = F.group_norm(features, layer.num_groups, layer.weight, layer.bias)
    torch.testing.assert_close(normalised, expected)  # sums in another order differ in the last bits


def test_every_layer_has_the_named_normalisation_and_only_group_is_independent_of_the_batch():
    kinds = {"batch": nn.BatchNorm2d, "group": nn.GroupNorm}
    images = torch.rand(4, 1, 16, 16)
    for name, kind in kinds.items():
        method = UNetAutoencoder([4, 8], name)
        layers = [module for module in method.modules() if isinstance(module, tuple(kinds.values()))]
        assert len(layers) == 1 + 2 * 4
        assert all(isinstance(layer, kind) for layer in layers)
        alone, among = method.reconstruct(images[:1]), method.reconstruct(images)[:1]  # in training mode
        assert torch.allclose(alone, among, atol=1e-6) == (name == "group")


def test_each_resolution_receives_a_skip_and_the_features_from_below():
    network = UNet([4, 6, 8])
    assert [stage.residual[0].in_channels for stage in network.up] == [6 + 4, 8 + 6, 8 + 8]
    assert [stage.residual[0].out_channels for stage in network.up] == [4, 6, 8]


def test_a_reconstruction_is_deterministic_and_depends_on_its_image_alone():
    method, images = UNetAutoencoder([4, 8]).eval(), torch.rand(5, 1, 16, 16)
    reconstruction = method.reconstruct(images)
    assert torch.equal(reconstruction, method.reconstruct(images))
    among_others = torch.cat([images[:1], 1 - images[1:]])
    torch.testing.assert_close(method.reconstruct(among_others)[:1], reconstruction[:1], rtol=0, atol=1e-6)
    torch.testing.assert_close(method.reconstruct(images[:1]), reconstruction[:1], rtol=0, atol=1e-6)


def test_from_params_follows_the_settings():
    method = UNetAutoencoder.from_params(Params(image_size=32, widths=[3, 5]))
    built = UNetAutoencoder([3, 5])
    assert {k: v.shape for k, v in method.state_dict().items()} == {k: v.shape for k, v in built.state_dict().items()}
    assert method.corrupt is CORRUPTIONS["none"]
    settings = {"normalisation": "group", "unet_skips": "noise", "unet_skip_noise": 0.3, "unet_corruption": "mask"}
    method = UNetAutoencoder.from_params(Params(image_size=32, widths=[3, 5], **settings))
    assert method.network.skip.scale == 0.3
    assert method.corrupt is masked
    assert not dict(method.named_buffers())
    assert UNetAutoencoder.from_params(Params(image_size=32, widths=[4], unet_skips="none")).network.crossing == [0]
