"""The Reversed Autoencoder against the published formulas, written out again in float64.

The oracles take only the weights from the method: networks and losses are written anew in plain torch. They draw what
`moves` draws, in its order: the prior's noise, then the posterior of the images, then in each move the posteriors of
the reconstruction and of the sample.
"""

import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import get_args

import pytest
import torch
import yaml
from torch import Tensor
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from lib.methods.ra import AsPublished, Posterior, ReversedAutoencoder, Weights, embedding_distance, squared_error
from lib.params import ParameterError, Params

BATCH, SIZE, LATENT = 3, 16, 5
WEIGHTS = {
    "authors": Weights(),
    "large": Weights(rec=0.7, kl=1.3, neg=2.0, generated_rec=0.9, embedding=0.4),
    "reconstruction alone": Weights(rec=1.0, kl=0.0, neg=0.0, generated_rec=0.0, embedding=0.0),
    "divergence alone": Weights(rec=0.0, kl=1.0, neg=0.0, generated_rec=0.0, embedding=0.0),
    "rejection alone": Weights(rec=0.0, kl=0.0, neg=3.0, generated_rec=0.0, embedding=0.0),
    "embedding alone": Weights(rec=0.0, kl=0.0, neg=0.0, generated_rec=0.0, embedding=1.0),
    "generated error": Weights(rec=0.5, kl=0.0, neg=0.0, generated_rec=50.0, embedding=0.0),
}


VARIANTS = {
    "ours": {},
    "group normalisation": {"normalisation": "group"},
    "frozen normalisation": {"as_published": AsPublished(frozen_normalisation=True)},
    "attached target": {"as_published": AsPublished(attached_target=True)},
    "sampled latent": {"as_published": AsPublished(sampled_latent=True)},
    "repeated passes": {"as_published": AsPublished(repeated_passes=True)},
    "all as published": {"as_published": AsPublished(True, True, True, repeated_passes=True)},
    "attached target, group normalisation": {
        "normalisation": "group",
        "as_published": AsPublished(attached_target=True),
    },
}
CASES = [("ours", name) for name in WEIGHTS] + [(name, "large") for name in VARIANTS if name != "ours"]
CASES += [("repeated passes", "authors"), ("all as published", "authors")]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def _float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def build(weights: Weights = WEIGHTS["authors"], variant: str = "ours") -> ReversedAutoencoder:
    """A method whose normalisations scale and shift at random: fresh ones do neither and could hide a mistake."""
    method = ReversedAutoencoder(SIZE, [4, 8], LATENT, weights, **VARIANTS[variant])
    for name, weight in method.named_parameters():
        if weight.dim() == 1 and name.split(".")[-2] in "14":
            torch.nn.init.normal_(weight, mean=float(name.endswith("weight")), std=0.3)
    return method


class Networks:
    """Encoder and decoder by hand: the paper's layers with the method's weights and kind of normalisation."""

    def __init__(self, method: ReversedAutoencoder, variant: str = "ours", *, evaluation: bool = False) -> None:
        self.weights = dict(method.named_parameters())
        self.how = "running" if evaluation else variant
        self.running = dict(method.named_buffers())

    def normalise(self, x: Tensor, name: str) -> Tensor:
        if "group" in VARIANTS.get(self.how, {}).get("normalisation", "batch"):
            groups = {4: 1, 8: 2}[x.shape[1]]
            grouped = x.reshape(len(x), groups, -1)
            mean, variance = grouped.mean(2, keepdim=True), grouped.var(2, unbiased=False, keepdim=True)
            x = ((grouped - mean) / (variance + 1e-5).sqrt()).reshape(x.shape)
        elif self.how in ("frozen normalisation", "all as published"):
            variance = 0.9 if name.startswith("encoder") else 1.0  # the authors'; their mean is 0
            x = x / math.sqrt(variance + 1e-5)
        elif self.how == "running":
            mean, variance = (self.running[f"{name}.running_{kind}"].view(1, -1, 1, 1) for kind in ("mean", "var"))
            x = (x - mean) / (variance + 1e-5).sqrt()
        else:
            mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
            x = (x - mean) / (variance + 1e-5).sqrt()
        scale, shift = (self.weights[f"{name}.{kind}"].view(1, -1, 1, 1) for kind in ("weight", "bias"))
        return x * scale + shift

    def block(self, x: Tensor, name: str) -> Tensor:
        inner = self.normalise(F.conv2d(x, self.weights[f"{name}.residual.0.weight"], padding=1), f"{name}.residual.1")
        inner = torch.where(inner > 0, inner, 0.2 * inner)
        inner = self.normalise(
            F.conv2d(inner, self.weights[f"{name}.residual.3.weight"], padding=1), f"{name}.residual.4"
        )
        if f"{name}.shortcut.weight" in self.weights:
            x = torch.einsum("nchw,dc->ndhw", x, self.weights[f"{name}.shortcut.weight"][:, :, 0, 0])
        total = inner + x
        return torch.where(total > 0, total, 0.2 * total)

    def encoder(self, images: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        def halve(x: Tensor) -> Tensor:
            return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4

        stem = self.normalise(F.conv2d(images, self.weights["encoder.down.0.0.weight"], padding=2), "encoder.down.0.1")
        first = halve(torch.where(stem > 0, stem, 0.2 * stem))
        second = halve(self.block(first, "encoder.down.1"))
        flat = self.block(second, "encoder.bottom").reshape(len(images), -1)
        both = flat @ self.weights["encoder.to_posterior.weight"].T + self.weights["encoder.to_posterior.bias"]
        return both[:, :LATENT], both[:, LATENT:], [first, second]

    def decoder(self, latents: Tensor) -> Tensor:
        flat = latents @ self.weights["decoder.from_latent.0.weight"].T + self.weights["decoder.from_latent.0.bias"]
        x = flat.clamp(min=0).reshape(len(latents), 8, 4, 4)
        x = self.block(x, "decoder.up.2").repeat_interleave(2, 2).repeat_interleave(2, 3)
        x = self.block(x, "decoder.up.1").repeat_interleave(2, 2).repeat_interleave(2, 3)
        x = self.block(x, "decoder.up.0")
        head = "decoder.head.convolution"
        return 1 / (
            1 + torch.exp(-F.conv2d(x, self.weights[f"{head}.weight"], self.weights[f"{head}.bias"], padding=2))
        )


def draw(mean: Tensor, logvar: Tensor) -> Tensor:
    return mean + torch.exp(logvar / 2) * torch.randn(mean.shape)


def divergence(mean: Tensor, logvar: Tensor) -> Tensor:
    return kl_divergence(Normal(mean, torch.exp(logvar / 2)), Normal(0.0, 1.0)).sum(1)


def error(target: Tensor, image: Tensor) -> Tensor:
    return torch.stack([((t - i) ** 2).sum() for t, i in zip(target, image, strict=True)])


def similarity_loss(real: list[Tensor], reconstructed: list[Tensor]) -> Tensor:
    """Section "reversed embedding loss": at each of the resolutions MSE / 2 + (1 - cosine)."""
    total = torch.zeros(())
    for a, b in zip(real, reconstructed, strict=True):
        a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
        cosine = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
        total = total + ((a - b) ** 2).sum() / a.numel() / 2 + (1 - cosine).sum() / len(a)
    return total


def encoder_oracle(method, images, variant="ours", *, attached=None, one_sided="") -> SimpleNamespace:
    """L_E of the authors' training step; `attached` are the targets of a re-reconstruction that carry gradient."""
    w, scale, net = method.weights, 1 / (images.shape[2] * images.shape[3]), Networks(method, variant)
    if attached is None:
        published = variant.startswith("attached target") or variant == "all as published"
        attached = ("reconstruction", "sample") if published else ()  # the authors' code: both
    noise = torch.randn(len(images), LATENT)
    mean, logvar, features = net.encoder(images)
    latents = draw(mean, logvar)
    reconstruction, sample = net.decoder(latents), net.decoder(noise)

    rejection, divergences, seen_features = 0.0, [], []
    for name, generated in (("reconstruction", reconstruction), ("sample", sample)):
        m, v, f = net.encoder(generated.detach())
        target = generated if name in attached else generated.detach()
        bound = w.rec * error(target, net.decoder(draw(m, v))) + w.neg * divergence(m, v)
        rejection = rejection + torch.exp(-2 * scale * bound).mean() / 4
        divergences.append(divergence(m, v).mean())
        seen_features.append(f)

    real_side = [f.detach() for f in features] if one_sided == "reconstructed" else features
    made_side = [f.detach() for f in seen_features[0]] if one_sided == "real" else seen_features[0]
    embedding = similarity_loss(real_side, made_side)
    evidence = scale * (w.rec * error(images, reconstruction).mean() + w.kl * divergence(mean, logvar).mean())
    return SimpleNamespace(
        total=evidence + rejection + w.embedding * embedding,
        soft_introspective=evidence + rejection,
        kl_real=divergence(mean, logvar).mean(),
        kl_reconstruction=divergences[0],
        kl_sample=divergences[1],
        rejection=rejection,
        embedding=embedding,
        latents=latents.detach(),
        noise=noise,
    )


def decoder_oracle(method, images, latents: Tensor, noise: Tensor, variant="ours") -> SimpleNamespace:
    """L_D of the authors' training step."""
    w, scale, net = method.weights, 1 / (images.shape[2] * images.shape[3]), Networks(method, variant)
    reconstruction, sample = net.decoder(latents), net.decoder(noise)
    kl_sum, again = 0.0, 0.0
    seen = w.generated_rec > 1e-7 or variant in ("repeated passes", "all as published")  # by float32
    posteriors = [net.encoder(reconstruction), net.encoder(sample)]
    for generated, (m, v, _) in zip((reconstruction, sample), posteriors, strict=True):
        kl_sum = kl_sum + divergence(m, v).mean()
        again = again + error(generated.detach(), net.decoder(draw(m, v).detach())).mean()
    rec = error(images, reconstruction).mean()
    return SimpleNamespace(
        total=scale * (w.rec * rec + 0.5 * w.kl * kl_sum + seen * w.generated_rec * 0.5 * w.rec * again),
        reconstruction=scale * rec,
        kl_generated=0.5 * kl_sum,
    )


def gradient(loss: Tensor, part: torch.nn.Module) -> Tensor:
    # Where a term has weight 0, a part's last layers may be missing from the oracle's graph, but not from the method's.
    found = torch.autograd.grad(loss, list(part.parameters()), retain_graph=True, materialize_grads=True)
    return torch.cat([g.flatten() for g in found])


def assert_equal_gradients(loss: Tensor, expected: Tensor, part: torch.nn.Module, relative: float = 1e-9) -> None:
    """Compare weight by weight, so that an error in a small one is not lost beside the others."""
    names, weights = zip(*part.named_parameters(), strict=True)
    pair = [torch.autograd.grad(x, weights, retain_graph=True, materialize_grads=True) for x in (loss, expected)]
    for name, found, wanted in zip(names, *pair, strict=True):
        assert (found - wanted).norm() <= relative * wanted.norm() + 1e-15, name


# --- the losses -------------------------------------------------------------------------------------------------------


def test_the_kl_equals_that_of_torch_distributions():
    mean, logvar = torch.randn(7, 4, dtype=torch.float64), 2 * torch.randn(7, 4, dtype=torch.float64)
    torch.testing.assert_close(Posterior(mean, logvar, []).kl(), divergence(mean, logvar), rtol=1e-12, atol=1e-12)
    assert Posterior(torch.zeros(2, 4), torch.zeros(2, 4), []).kl().tolist() == [0.0, 0.0]


def test_a_posterior_samples_with_its_mean_and_variance():
    mean, logvar = torch.tensor([[1.0, -2.0]]).expand(20_000, 2), torch.tensor([[0.0, -4.0]]).expand(20_000, 2)
    drawn = Posterior(mean, logvar, []).sample()
    torch.testing.assert_close(drawn.mean(0), mean[0], atol=0.03, rtol=0)
    torch.testing.assert_close(drawn.std(0), torch.tensor([1.0, math.exp(-2)]), atol=0, rtol=0.03)


def test_the_squared_error_is_summed_over_pixels_not_averaged():
    images, reconstruction = torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)
    reconstruction[1] = 0.5
    assert squared_error(images, reconstruction).tolist() == [0.0, 4.0]


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize("variant", VARIANTS)
def test_both_networks_equal_the_papers_layers_written_by_hand(variant):
    method, images, latents = build(variant=variant), torch.rand(BATCH, 1, SIZE, SIZE), torch.randn(BATCH, LATENT)
    by_hand = Networks(method, variant)
    mean, logvar, features = by_hand.encoder(images)
    found = method.encoder(images)
    torch.testing.assert_close(
        [found.mean, found.logvar, *found.features], [mean, logvar, *features], rtol=0, atol=1e-12
    )
    torch.testing.assert_close(method.decoder(latents), by_hand.decoder(latents), rtol=0, atol=1e-12)


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize(("variant", "name"), CASES)
def test_the_encoders_loss_and_its_gradient_are_the_papers(variant, name):
    method, images = build(WEIGHTS[name], variant), torch.rand(BATCH, 1, SIZE, SIZE)
    torch.manual_seed(1)
    part, losses = next(method.moves(images))
    torch.manual_seed(1)
    expected = encoder_oracle(method, images, variant)
    assert part == "encoder"
    assert losses.keys() == {"total", "kl_real", "kl_reconstruction", "kl_sample", "rejection", "embedding"}
    for loss, value in losses.items():
        assert value.item() == pytest.approx(getattr(expected, loss).item(), rel=1e-9), loss
    assert_equal_gradients(losses["total"], expected.total, method.encoder)


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize(("variant", "name"), CASES)
def test_the_decoders_loss_and_its_gradient_are_the_papers(variant, name):
    method, images = build(WEIGHTS[name], variant), torch.rand(BATCH, 1, SIZE, SIZE)
    torch.manual_seed(1)
    _, (part, losses) = method.moves(images)
    torch.manual_seed(1)
    first = encoder_oracle(method, images, variant)  # for its draws: the decoder's move uses the same latents and noise
    expected = decoder_oracle(method, images, first.latents, first.noise, variant)
    assert part == "decoder"
    assert losses.keys() == {"total", "reconstruction", "kl_generated"}
    for loss, value in losses.items():
        assert value.item() == pytest.approx(getattr(expected, loss).item(), rel=1e-9), loss
    assert_equal_gradients(losses["total"], expected.total, method.decoder)


@pytest.mark.usefixtures("_float64")
def test_the_decoders_move_sees_the_updated_encoder_and_the_latents_of_the_old_one():
    method, images = build(WEIGHTS["large"]), torch.rand(BATCH, 1, SIZE, SIZE)
    torch.manual_seed(1)
    first = encoder_oracle(method, images)
    torch.manual_seed(1)
    moves = method.moves(images)
    next(moves)
    with torch.no_grad():
        for weight in method.encoder.parameters():
            weight.mul_(1.5)
    random = torch.get_rng_state()
    _, losses = next(moves)
    torch.set_rng_state(random)
    expected = decoder_oracle(method, images, first.latents, first.noise)
    assert losses["total"].item() == pytest.approx(expected.total.item(), rel=1e-9)


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_warm_up_epoch_is_a_plain_vae_and_the_game_begins_after_the_last_one(variant):
    method, images = build(WEIGHTS["large"]._replace(warmup=2), variant), torch.rand(BATCH, 1, SIZE, SIZE)
    w, scale, net = method.weights, 1 / SIZE**2, Networks(method, variant)
    torch.manual_seed(1)
    first, second = method.moves(images, epoch=1)
    torch.manual_seed(1)
    torch.randn(BATCH, LATENT)  # the prior's noise, which a plain VAE does not use
    mean, logvar, _ = net.encoder(images)
    latents = draw(mean, logvar)
    rec = w.rec * scale * error(images, net.decoder(latents)).mean()
    expected = {"encoder": rec + w.kl * scale * divergence(mean, logvar).mean(), "decoder": rec}
    for part, losses in (first, second):
        assert losses["total"].item() == pytest.approx(expected[part].item(), rel=1e-9)
        assert_equal_gradients(losses["total"], expected[part], getattr(method, part))
    torch.manual_seed(1)
    _, losses = next(method.moves(images, epoch=2))
    torch.manual_seed(1)
    assert losses["total"].item() == pytest.approx(encoder_oracle(method, images, variant).total.item(), rel=1e-9)


@pytest.mark.usefixtures("_float64")
def test_without_the_embedding_weight_the_loss_is_that_of_the_soft_introspective_vae():
    method, images = build(Weights(embedding=0.0)), torch.rand(BATCH, 1, SIZE, SIZE)
    torch.manual_seed(1)
    _, losses = next(method.moves(images))
    torch.manual_seed(1)
    expected = encoder_oracle(method, images)
    assert losses["embedding"] > 0
    assert losses["total"].item() == pytest.approx(expected.soft_introspective.item(), rel=1e-13)
    assert_equal_gradients(losses["total"], expected.soft_introspective, method.encoder)


def test_the_default_weights_are_the_authors():
    assert tuple(Weights()) == (0.5, 1.0, 128.0, 1e-8, 0.005, 0, 1.0, 0)


def test_each_setting_sets_its_own_weight():
    params = Params(
        image_size=32,
        widths=[4, 6],
        latent_dim=7,
        ra_beta_rec=0.1,
        ra_beta_kl=0.2,
        ra_beta_neg=0.3,
        ra_gamma_r=0.4,
        ra_lambda_emb=0.5,
        ra_warmup_epochs=6,
        ra_rejection_start=0.7,
        ra_rejection_growth=8,
        ra_as_published=["fixed-weights"],
    )
    method = ReversedAutoencoder.from_params(params)
    assert method.weights == Weights(0.1, 0.2, 0.3, 0.4, 0.5, warmup=6, rejection=0.7, growth=8)
    assert method.encoder(torch.rand(2, 1, 32, 32)).mean.shape == (2, 7)
    standard = Params(preset="standard")
    assert ReversedAutoencoder.from_params(standard).weights == Weights(warmup=standard.ra_warmup_epochs)


@pytest.mark.parametrize("size", [64, 128, 256])
def test_weights_give_equal_pressure_per_nat_at_every_size_unless_as_published(size):
    at = {"image_size": size, "ra_beta_kl": 0.7, "ra_beta_neg": 90.0}
    method = ReversedAutoencoder.from_params(Params(**at))
    assert method.weights.kl * method.scale == pytest.approx(0.7 / 128**2)  # the weight of a nat in the loss
    assert method.weights.neg * method.scale == pytest.approx(90 / 128**2)
    fixed = ReversedAutoencoder.from_params(Params(**at, ra_as_published=["fixed-weights"]))
    assert (fixed.weights.kl, fixed.weights.neg) == (0.7, 90.0)


def test_the_rejection_grows_by_the_same_factor_in_each_epoch_of_the_game():
    weights = Weights(warmup=10, rejection=0.01, growth=4)
    grown = [weights.rejection_at(epoch) for epoch in range(10, 17)]
    assert grown == pytest.approx([0.01, 0.01**0.75, 0.1, 0.01**0.25, 1, 1, 1])
    assert Weights(warmup=10).rejection_at(10) == 1


@pytest.mark.usefixtures("_float64")
def test_a_growing_rejection_scales_that_term_alone():
    images = torch.rand(BATCH, 1, SIZE, SIZE)
    totals, rejections = [], []
    for growth in (0, 2):
        torch.manual_seed(0)
        method = build(Weights(neg=2.0, rejection=0.25, growth=growth))
        torch.manual_seed(1)
        _, losses = next(method.moves(images, epoch=1))
        totals.append(losses["total"].item())
        rejections.append(losses["rejection"].item())
    assert rejections[0] == pytest.approx(rejections[1], rel=1e-12)
    assert totals[0] - totals[1] == pytest.approx(0.5 * rejections[0], rel=1e-9)  # a root of 0.25 in the middle


@pytest.mark.usefixtures("_float64")
def test_a_direction_is_coded_in_a_linear_vae_only_above_the_coded_variance():
    """A closed form: the best code of one Gaussian direction costs beta_kl KL + beta_rec L, minimised on a grid."""
    weights = Weights(rec=0.5, kl=0.8)
    slope, noise = torch.linspace(0, 1, 201)[:, None], torch.linspace(0.01, 1, 100)[None]  # mean = slope x, deviation
    for variance, is_coded in ((0.9 * weights.coded_variance(), False), (1.2 * weights.coded_variance(), True)):
        moment = slope**2 * variance  # of the posterior's mean
        gain = (slope * variance) / (moment + noise**2)  # the best linear decoder
        error = variance - 2 * gain * slope * variance + gain**2 * (moment + noise**2)
        kl = 0.5 * (moment + noise**2 - 2 * noise.log() - 1)
        best = (weights.rec * error + weights.kl * kl).argmin()
        assert bool(slope.flatten()[best // noise.numel()] > 0.05) == is_coded


@pytest.mark.usefixtures("_float64")
def test_pull_and_push_are_equal_at_the_plateau():
    weights, scale = Weights(kl=0.25, neg=128.0), 1 / 64**2
    kl = torch.tensor(weights.plateau(scale), requires_grad=True)
    assert kl.item() == pytest.approx(88.7, abs=0.1)  # nats; the field's figure for the setting published first
    (push,) = torch.autograd.grad(0.25 * torch.exp(-2 * scale * weights.neg * kl), kl)
    assert -push.item() == pytest.approx(scale * weights.kl)


def test_bottleneck_and_plateau_are_known_for_every_weight_that_the_settings_allow():
    scale = 1 / 64**2
    assert Weights(rec=0.0).coded_variance() == math.inf and Weights(kl=0.0).coded_variance() == 0
    assert Weights(neg=0.0).plateau(scale) == Weights(kl=1.0, neg=2.0).plateau(scale) == 0
    assert Weights(kl=0.0, neg=0.0).plateau(scale) == 0 and Weights(kl=0.0).plateau(scale) == math.inf


def test_the_generated_images_own_error_is_left_out_only_where_float32_cannot_see_it():
    """Its gradient, at the authors' weight, is lost when it is added to that of the real images' error."""
    method, images = build(variant="repeated passes"), torch.rand(BATCH, 1, SIZE, SIZE)
    torch.manual_seed(1)
    first = encoder_oracle(method, images)
    found = {}
    for weight in (0.0, Weights().generated_rec):
        torch.manual_seed(2)
        of_weight = SimpleNamespace(weights=Weights(generated_rec=weight), named_parameters=method.named_parameters)
        of_weight.named_buffers = method.named_buffers
        found[weight] = gradient(
            decoder_oracle(of_weight, images, first.latents, first.noise, "repeated passes").total, method.decoder
        )
    without, with_it = found.values()
    assert (with_it - without).norm() <= torch.finfo(torch.float32).eps * without.norm()


@pytest.mark.parametrize(
    ("weight", "variant", "passes"),
    [
        (0.0, "ours", 4),  # reconstruction, sample, and each of them reconstructed
        (1e-8, "ours", 4),
        (1e-3, "ours", 6),
        (0.0, "repeated passes", 6),
        (1e-8, "repeated passes", 8),
    ],
)
def test_the_decoder_draws_an_image_again_only_as_published(weight, variant, passes):
    method, calls = build(Weights(generated_rec=weight), variant), []
    method.decoder.register_forward_hook(lambda *_: calls.append(1))
    list(method.moves(torch.rand(BATCH, 1, SIZE, SIZE)))
    assert len(calls) == passes


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize("epoch", [0, 1])
def test_sharing_what_the_decoder_drew_changes_no_update(epoch):
    """Adam steps between the moves, as in training; with group normalisation there are no running averages."""
    images, after = torch.rand(BATCH, 1, SIZE, SIZE), []
    for repeated in (False, True):
        torch.manual_seed(0)
        weights = WEIGHTS["large"]._replace(warmup=1)
        method = ReversedAutoencoder(SIZE, [4, 8], LATENT, weights, "group", AsPublished(repeated_passes=repeated))
        optimizers = {part: torch.optim.Adam(module.parameters()) for part, module in method.named_children()}
        torch.manual_seed(1)
        for part, losses in method.moves(images, epoch):
            losses["total"].backward(inputs=list(getattr(method, part).parameters()), retain_graph=True)
            optimizers[part].step()
        after.append(torch.cat([weight.detach().flatten() for weight in method.parameters()]))
    torch.testing.assert_close(after[0], after[1], rtol=0, atol=1e-13)


# --- where gradients go -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize("variant", ["ours", "attached target"])
def test_the_re_reconstruction_target_is_detached_unless_as_published(variant):
    method, images = build(Weights(neg=0.5, embedding=0.0), variant), torch.rand(BATCH, 1, SIZE, SIZE)
    torch.manual_seed(1)
    _, losses = next(method.moves(images))
    expected = {}
    for attached in ((), ("reconstruction",), ("sample",), ("reconstruction", "sample")):
        torch.manual_seed(1)
        expected[attached] = encoder_oracle(method, images, attached=attached).total
        assert expected[attached].item() == pytest.approx(losses["total"].item(), rel=1e-12)  # gradients alone differ
    ours, theirs = (gradient(expected[attached], method.encoder) for attached in ((), ("reconstruction", "sample")))
    assert (ours - theirs).norm() > 1e-3 * theirs.norm()
    assert_equal_gradients(
        losses["total"], expected["reconstruction",] if variant != "ours" else expected[()], method.encoder
    )
    # The sample's target comes from noise alone: attached or not, it leads to no weight of the encoder.
    assert_equal_gradients(expected["sample",], expected[()], method.encoder)
    assert_equal_gradients(expected["reconstruction", "sample"], expected["reconstruction",], method.encoder)


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize("variant", ["ours", "attached target"])
def test_only_an_attached_target_sends_gradients_through_the_reconstruction(variant):
    method, images = build(WEIGHTS["large"], variant), torch.rand(BATCH, 1, SIZE, SIZE, requires_grad=True)
    method.eval()  # in training mode, batch statistics would tie everything that is encoded to these images
    _, losses = next(method.moves(images))
    # Only the attached target connects the images to the rejection.
    (through,) = torch.autograd.grad(losses["rejection"], images, allow_unused=True)
    assert (through is not None and through.abs().sum() > 0) == (variant == "attached target")


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize("side", ["real", "reconstructed"])
def test_both_sides_of_the_embedding_distance_train_the_encoder(side):
    method, images = build(WEIGHTS["embedding alone"]), torch.rand(BATCH, 1, SIZE, SIZE)
    torch.manual_seed(1)
    _, losses = next(method.moves(images))
    torch.manual_seed(1)
    one_sided = gradient(encoder_oracle(method, images, one_sided=side).total, method.encoder)
    both = gradient(losses["total"], method.encoder)
    assert (both - one_sided).norm() > 0.01 * both.norm()


def test_the_embedding_distance_is_0_for_equal_features_and_2_plus_half_the_squared_difference_for_opposite_ones():
    features = [torch.ones(2, 3, 4, 4), torch.full((2, 5, 2, 2), 2.0)]
    assert embedding_distance(features, features).tolist() == pytest.approx([0, 0], abs=1e-6)
    opposite = [-f for f in features]
    assert embedding_distance(features, opposite).tolist() == pytest.approx([2 + 2.0**2 / 2 + 2 + 4.0**2 / 2] * 2)


@pytest.mark.parametrize("turn", [0, 1])
def test_a_move_leaves_no_gradient_in_the_other_part(turn):
    method = build()
    part, losses = list(method.moves(torch.rand(BATCH, 1, SIZE, SIZE)))[turn]
    losses["total"].backward(inputs=list(getattr(method, part).parameters()), retain_graph=True)
    for name, weight in method.named_parameters():
        if name.startswith(part):
            assert weight.grad.abs().sum() > 0, name
        else:
            assert weight.grad is None, name


# --- the network ------------------------------------------------------------------------------------------------------


def parameters_by_hand(size: int, widths: list[int], latent: int) -> int:
    """Count weights layer by layer: only the last convolution has a bias, a normalisation has two per channel."""

    def block(a: int, b: int) -> int:
        return a * b * 9 + 2 * b + b * b * 9 + 2 * b + (a * b if a != b else 0)

    flat = widths[-1] * (size // 2 ** len(widths)) ** 2
    encoder = 25 * widths[0] + 2 * widths[0] + sum(map(block, widths, widths[1:])) + block(widths[-1], widths[-1])
    encoder += flat * 2 * latent + 2 * latent
    back = widths[::-1]
    decoder = (
        latent * flat + flat + block(back[0], back[0]) + sum(map(block, back, back[1:])) + block(back[-1], back[-1])
    )
    return encoder + decoder + 25 * widths[0] + 1


@pytest.mark.parametrize("widths", ["(64, 128, 256, 512, 512)", "[64, 128, 256, 512, 512]"])
def test_the_papers_size_has_its_parameters_wherever_the_widths_come_from(widths):
    widths = yaml.safe_load(widths) if widths.startswith("[") else tuple(int(w) for w in widths[1:-1].split(","))
    assert widths[3] is not widths[4]  # equal, not identical: the authors' code would add two convolutions
    with torch.device("meta"):
        method = ReversedAutoencoder(128, widths, 128)
    assert sum(weight.numel() for weight in method.parameters()) == 29_430_785
    assert parameters_by_hand(128, [64, 128, 256, 512, 512], 128) == 29_430_785
    assert len(method.state_dict()) == 150
    assert (
        29_430_785 + 2 * 512 * 512 == 29_955_073
    )  # the authors' own configuration: one in the encoder, one in the decoder


def test_the_papers_size_has_five_embeddings_from_fine_to_coarse():
    with torch.device("meta"):
        posterior = ReversedAutoencoder(128, [64, 128, 256, 512, 512], 128).encoder(torch.empty(2, 1, 128, 128))
    sizes = [tuple(features.shape[1:]) for features in posterior.features]
    assert sizes == [(64, 64, 64), (128, 32, 32), (256, 16, 16), (512, 8, 8), (512, 4, 4)]
    assert posterior.mean.shape == posterior.logvar.shape == (2, 128)


@pytest.mark.parametrize(
    ("size", "widths"), [(8, [4, 4, 4]), (16, [4]), (16, [4, 8]), (24, [4, 8, 8]), (32, [8, 4, 6, 4]), (12, (5, 3))]
)
def test_every_image_size_that_the_widths_halve_evenly_is_valid(size, widths):
    method, images = ReversedAutoencoder(size, widths, 3), torch.rand(2, 1, size, size)
    assert sum(weight.numel() for weight in method.parameters()) == parameters_by_hand(size, list(widths), 3)
    for part, losses in method.moves(images):
        losses["total"].backward(inputs=list(getattr(method, part).parameters()), retain_graph=True)
    assert all(weight.grad.isfinite().all() for weight in method.parameters())
    assert method.eval().reconstruct(images).shape == images.shape


@pytest.mark.parametrize(("size", "widths"), [(8, [4, 4, 4]), (12, (5, 3)), (16, [16, 24])])
def test_group_normalisation_works_with_any_widths_and_keeps_latents_distinct(size, widths):
    method, images = ReversedAutoencoder(size, widths, 3, normalisation="group"), torch.rand(2, 1, size, size)
    assert not dict(method.named_buffers())
    assert sum(weight.numel() for weight in method.parameters()) == parameters_by_hand(size, list(widths), 3)
    for part, losses in method.moves(images):
        losses["total"].backward(inputs=list(getattr(method, part).parameters()), retain_graph=True)
    assert all(weight.grad.isfinite().all() for weight in method.parameters())
    one, other = method.encoder(images).mean
    assert (one - other).abs().max() > 1e-3


def test_all_information_passes_through_the_latent_vector():
    method, images = build().eval(), torch.rand(2, 1, SIZE, SIZE, requires_grad=True)
    method.encoder.to_posterior.register_forward_hook(lambda module, inputs, output: torch.zeros_like(output) * output)
    reconstruction = method.reconstruct(images)
    assert torch.equal(reconstruction[0], reconstruction[1])
    assert not torch.autograd.grad(reconstruction.sum(), images)[0].any()


def test_a_reconstruction_is_deterministic_in_the_unit_interval_and_depends_on_its_image_alone():
    method, images = build().eval(), torch.rand(5, 1, SIZE, SIZE)
    random = torch.get_rng_state()
    reconstruction = method.reconstruct(images)
    assert torch.equal(torch.get_rng_state(), random)  # the posterior's mean; the authors draw
    assert torch.equal(method.reconstruct(images), reconstruction)
    assert reconstruction.min() >= 0 and reconstruction.max() <= 1
    among_others = torch.cat([images[:1], 1 - images[1:]])
    torch.testing.assert_close(method.reconstruct(among_others)[:1], reconstruction[:1], rtol=0, atol=1e-6)
    torch.testing.assert_close(method.reconstruct(images[:1]), reconstruction[:1], rtol=0, atol=1e-6)
    assert (reconstruction[0] - reconstruction[1]).abs().max() > 1e-6  # and it does depend on its image


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_reconstruction_decodes_the_posterior_mean_or_a_draw_if_as_published(variant):
    method, images = build(variant=variant), torch.rand(BATCH, 1, SIZE, SIZE)
    list(method.moves(images))  # so that running statistics, if any, are not those of a new network
    frozen, group = method.as_published.frozen_normalisation, "group" in variant
    by_hand = Networks(method, variant, evaluation=not (frozen or group))
    mean, logvar, _ = by_hand.encoder(images)
    method.eval()
    torch.manual_seed(7)
    reconstruction, again = method.reconstruct(images), method.reconstruct(images)
    assert torch.equal(reconstruction, again) != method.as_published.sampled_latent
    torch.manual_seed(7)
    latents = draw(mean, logvar) if method.as_published.sampled_latent else mean
    torch.testing.assert_close(reconstruction, by_hand.decoder(latents), rtol=0, atol=1e-12)


def test_samples_are_different_images_in_the_unit_interval():
    samples = build().eval().samples(4)
    assert samples.shape == (4, 1, SIZE, SIZE)
    assert samples.min() >= 0 and samples.max() <= 1
    assert len(torch.unique(samples.flatten(1), dim=0)) == 4


def test_a_sample_is_the_decoders_image_of_a_draw_from_the_prior():
    method = build().eval()
    torch.manual_seed(5)
    samples = method.samples(3)
    torch.manual_seed(5)
    assert torch.equal(samples, method.decoder(torch.randn(3, LATENT)))


def test_frozen_normalisation_stays_in_evaluation_mode_and_keeps_its_statistics():
    method, images = build(variant="frozen normalisation"), torch.rand(4, 1, SIZE, SIZE)
    before = {name: buffer.clone() for name, buffer in method.named_buffers()}
    for _ in range(2):  # when new, and as the training loop switches it
        assert not any(module.training for module in method.modules())
        list(method.moves(images))
        method.eval().reconstruct(images)
        assert all(torch.equal(buffer, before[name]) for name, buffer in method.named_buffers())
        assert method.train() is method
    assert all(module.training for module in build().eval().train().modules())


def test_frozen_statistics_are_those_of_the_authors_encoder_after_one_zero_image_in_training_mode():
    """Their constructor passes a zero image through the encoder, to learn the size of what comes out."""
    widths = [4, 4, 6, 8, 8]  # as many as theirs
    frozen = ReversedAutoencoder(64, widths, LATENT, as_published=AsPublished(frozen_normalisation=True))
    theirs = ReversedAutoencoder(64, widths, LATENT)
    theirs.encoder(torch.zeros(1, 1, 64, 64))
    running = {name: buffer for name, buffer in theirs.named_buffers() if "running" in name}
    for name, buffer in frozen.named_buffers():
        if name in running:
            torch.testing.assert_close(buffer, running[name], rtol=0, atol=1e-7)
    encoder = [layer for layer in frozen.encoder.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    assert len(encoder) == 11
    assert all(layer.running_var.tolist() == pytest.approx([0.9] * layer.num_features) for layer in encoder)


def test_each_name_in_ra_as_published_sets_its_own_switch():
    assert ReversedAutoencoder.from_params(Params()).as_published == AsPublished()
    for name in get_args(get_args(Params.model_fields["ra_as_published"].annotation)[0]):
        method = ReversedAutoencoder.from_params(Params(image_size=32, widths=[4], ra_as_published=[name]))
        assert method.as_published == AsPublished(**{name.replace("-", "_"): True})


def test_frozen_normalisation_is_refused_with_group_normalisation():
    with pytest.raises(ParameterError, match="write normalisation: batch"):
        Params(normalisation="group", ra_as_published=["frozen-normalisation"])


def test_batch_normalisation_sees_real_and_generated_images_in_separate_passes():
    method, sizes = build(), []
    method.encoder.down[0][1].register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    list(method.moves(torch.rand(BATCH, 1, SIZE, SIZE)))
    assert sizes == [BATCH] * 5  # x, reconstruction, sample; then the latter two again
    assert method.encoder.down[0][1].num_batches_tracked == 5
    assert method.decoder.up[0].residual[1].num_batches_tracked == 4  # each image is drawn once
