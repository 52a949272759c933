"""The variants: every name is built as its method, and a variant differs only in what its name says."""

import re

import pytest
import torch

from lib.methods.autoencoder import ConvAutoencoder
from lib.methods.method import Method
from lib.methods.ra import ReversedAutoencoder, Weights
from lib.methods.unet import UNetAutoencoder, coarse_noise, masked
from lib.methods.variants import VARIANTS
from lib.params import Params

SMALL = {"preset": "standard", "image_size": 32, "widths": [4, 6], "latent_dim": 5, "epochs": 7, "ra_warmup_epochs": 2}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_the_names_are_those_that_the_settings_know():
    assert Params.model_json_schema()["properties"]["methods"]["items"]["enum"] == list(VARIANTS)


def test_a_stranger_is_told_of_each_method_what_it_is():
    assert all(re.fullmatch(r"(an?|the) .*[^.]", variant.about) for variant in VARIANTS.values())


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_keeps_the_contract_of_one_move_per_part_and_a_reconstruction_per_image(name):
    method, images = VARIANTS[name](Params(**SMALL)), torch.rand(3, 1, 32, 32)
    assert isinstance(method, Method)
    for epoch in (0, 6):
        moved = []
        for part, losses in method.train().moves(images, epoch):
            losses["total"].backward(inputs=list(getattr(method, part).parameters()), retain_graph=True)
            moved.append(part)
        assert moved == [part for part, _ in method.named_children()]
    reconstruction = method.eval().reconstruct(images)
    assert reconstruction.shape == images.shape
    assert reconstruction.min() >= 0 and reconstruction.max() <= 1
    assert torch.equal(reconstruction, method.reconstruct(images))


@pytest.mark.parametrize("settings", [{}, {"unet_skips": "noise", "unet_corruption": "mask"}])
def test_the_name_of_a_u_net_variant_decides_its_skips_and_corruption(settings):
    params = Params(**SMALL, **settings)
    found = {}
    for name in ("unet-no-skips", "unet-noisy-skips", "unet-denoising", "unet-masked"):
        method = VARIANTS[name](params)
        assert type(method) is UNetAutoencoder
        noisy = type(method.network.skip).__name__ == "NoisyChannel"
        found[name] = (any(method.network.crossing), noisy, getattr(method.corrupt, "__name__", ""))
    assert found == {
        "unet-no-skips": (False, False, "<lambda>"),
        "unet-noisy-skips": (True, True, "<lambda>"),
        "unet-denoising": (True, False, coarse_noise.__name__),
        "unet-masked": (True, False, masked.__name__),
    }
    assert (VARIANTS["unet"](params).corrupt is masked) == bool(settings)  # the plain name is what the settings say


def test_every_variant_has_the_widths_normalisation_and_latent_length_of_the_settings():
    params = Params(**SMALL, normalisation="group")
    for name, build in VARIANTS.items():
        method = build(params)
        if isinstance(method, UNetAutoencoder):
            assert [stage.residual[0].out_channels for stage in method.network.up] == [4, 6]
        elif isinstance(method, ReversedAutoencoder):
            assert method.latent_dim == 5
        assert bool(dict(method.named_buffers())) == isinstance(method, ConvAutoencoder), name  # batch statistics


def test_the_si_vae_is_ra_without_the_reversed_embedding_loss():
    params = Params(**SMALL, ra_beta_neg=64.0)
    assert VARIANTS["si-vae"](params).weights == VARIANTS["ra"](params).weights._replace(embedding=0.0)
    weights = Weights(kl=1 / 16, neg=64.0 / 16, warmup=2)  # at 32 px, a sixteenth of the authors' pixels
    assert VARIANTS["ra"](params).weights == weights


def test_the_vae_is_ras_network_and_never_plays_the_game():
    params = Params(**SMALL)
    vae, ra = VARIANTS["vae"](params), VARIANTS["ra"](params)
    assert {k: v.shape for k, v in vae.state_dict().items()} == {k: v.shape for k, v in ra.state_dict().items()}
    images = torch.rand(3, 1, 32, 32)
    for epoch in range(params.epochs):
        assert all("rejection" not in losses for _, losses in vae.moves(images, epoch))
    assert "rejection" in next(ra.moves(images, params.epochs - 1))[1]


@pytest.mark.parametrize(("name", "latent"), [("ae-16", 16), ("ae-4", 4)])
def test_the_small_autoencoders_name_gives_its_latent_length(name, latent):
    method, sizes = VARIANTS[name](Params(**SMALL)).eval(), []
    for layer in method.network:
        layer.register_forward_hook(lambda module, inputs, output: sizes.append(output[0].numel()))
    method.reconstruct(torch.rand(1, 1, 32, 32))
    assert min(sizes) == latent
