"""The small autoencoder: the published layers, the loss, and a latent vector that all information passes."""

import numpy as np
import pytest
import torch

from lib.methods.autoencoder import ConvAutoencoder
from lib.params import ParameterError


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(("size", "latent"), [(64, 16), (64, 4), (128, 16)])
def test_the_number_of_weights_is_that_of_the_published_network(size, latent):
    flat = 64 * (size // 16) ** 2
    convolutions = 16 * (1 * 16 + 16 * 32 + 32 * 64 + 64 * 64) * 2  # 4x4, no bias, there and back
    norms = 2 * (16 + 32 + 64 + 64) + 2 * (64 + 32 + 16) + 2 * 2 * 1024
    linear = (flat * 1024 + 1024) + (1024 * latent + latent) + (latent * 1024 + 1024) + (1024 * flat + flat)
    with torch.device("meta"):
        method = ConvAutoencoder(size, latent)
    assert sum(weight.numel() for weight in method.parameters()) == convolutions + norms + linear


def test_by_default_an_image_passes_through_sixteen_numbers():
    method, images = ConvAutoencoder(32).eval(), torch.rand(2, 1, 32, 32, requires_grad=True)
    sizes = []
    for layer in method.network:
        layer.register_forward_hook(lambda module, inputs, output: sizes.append(output[0].numel()))
    reconstruction = method.reconstruct(images)
    assert min(sizes) == 16
    assert sizes == [
        16 * 256,
        32 * 64,
        64 * 16,
        64 * 4,
        256,
        1024,
        16,
        1024,
        256,
        256,
        64 * 16,
        32 * 64,
        16 * 256,
        1024,
    ]
    assert (
        torch.linalg.matrix_rank(
            torch.stack(
                [
                    torch.autograd.grad(p, images, retain_graph=True)[0][0].flatten()
                    for p in reconstruction[0, 0].flatten()[:40]
                ]
            )
        )
        <= 16
    )


@pytest.mark.parametrize("size", [16, 32, 48])
def test_every_multiple_of_16_is_a_valid_image_size(size):
    method, images = ConvAutoencoder(size, 3), torch.rand(2, 1, size, size)
    ((part, losses),) = method.moves(images)
    assert [name for name, _ in method.named_children()] == [part] == ["network"]
    losses["total"].backward(inputs=list(getattr(method, part).parameters()))
    assert all(weight.grad.isfinite().all() for weight in method.parameters())
    assert method.eval().reconstruct(images).shape == images.shape


@pytest.mark.parametrize(("size", "wanted"), [(40, "write 32 or 48"), (8, "write 16,")])
def test_another_size_is_refused_and_the_nearest_sizes_are_named(size, wanted):
    with pytest.raises(ParameterError, match=f"image_size={size} is not a multiple of 16.*{wanted}"):
        ConvAutoencoder(size)


def test_the_loss_is_the_mean_squared_error():
    method, images = ConvAutoencoder(16), torch.rand(4, 1, 16, 16)
    reconstruction = (
        method.reconstruct(images).detach().double().numpy()
    )  # in training mode: of this batch's statistics
    ((_, losses),) = method.moves(images)
    assert losses.keys() == {"total"}
    assert losses["total"].item() == pytest.approx(np.mean((reconstruction - images.double().numpy()) ** 2), rel=1e-6)


def test_a_reconstruction_is_deterministic_in_the_unit_interval_and_depends_on_its_image_alone():
    method, images = ConvAutoencoder(16), torch.rand(5, 1, 16, 16)
    for _ in range(40):  # until the running statistics are those of its signals: untrained, these are tiny
        list(method.moves(images))
    method.eval()
    random = torch.get_rng_state()
    reconstruction = method.reconstruct(images)
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(reconstruction, method.reconstruct(images))
    assert reconstruction.min() >= 0 and reconstruction.max() <= 1
    torch.testing.assert_close(method.reconstruct(images[:1]), reconstruction[:1], rtol=0, atol=1e-6)
    assert (reconstruction[0] - reconstruction[1]).abs().max() > 1e-3


def test_it_learns_to_reconstruct_two_images():
    method = ConvAutoencoder(16, 4)
    images = torch.stack([torch.linspace(0, 1, 256).reshape(1, 16, 16), torch.linspace(1, 0, 256).reshape(1, 16, 16)])
    optimizer = torch.optim.Adam(method.parameters(), 1e-2)
    for _ in range(60):
        ((_, losses),) = method.moves(images)
        optimizer.zero_grad()
        losses["total"].backward()
        optimizer.step()
    assert losses["total"] < 0.01 < images.var()
