r"""The Reversed Autoencoder: a bottleneck, and an encoder and a decoder that are trained against each other.

Bercea et al., MIDL 2023 (openreview 8ojx-Ld3yjR) and arXiv 2401.10637, on the soft-introspective VAE of Daniel & Tamar,
CVPR 2021. The encoder learns to give real images a high evidence lower bound and generated ones a low one; the decoder
learns to generate images that get a high one. The reversed embedding loss pulls the encoder's features of an image and
of its reconstruction together. With $s$ one over the number of pixels, $L$ the squared error summed over an image's
pixels, and $g$ the generated images, which are the reconstruction and a sample from the prior:

$$\mathcal L_E = s\,[\beta_{rec} L(x, \hat x) + \beta_{kl} KL(x)]
  + \tfrac14 \sum_g e^{-2s[\beta_{rec} L(g, \hat g) + \beta_{neg} KL(g)]} + \lambda_{emb} L_{emb}$$
$$\mathcal L_D = s\,[\beta_{rec} L(x, \hat x)
  + \tfrac12 \sum_g (\beta_{kl} KL(g) + \gamma_r \beta_{rec} L(g, \hat g))]$$
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lib.methods.blocks import Features, Normalisation, ResidualBlock, ToGrey, at_least_float32, encoder_stages
from lib.methods.method import Images, Losses, Method, PerImage
from lib.params import Params

Latents = Float[Tensor, "batch latent"]
Embeddings = list[Features]
"""The encoder's features after each halving, finest first."""


AUTHORS_SIZE = 128  # pixels; the side of the images that the authors' weights belong to


class Weights(NamedTuple):
    """The weight of each term at this image size, and when they act; the defaults are the authors' (`RA_Trainer`)."""

    rec: float = 0.5  # reconstruction error
    kl: float = 1.0  # KL of real images (encoder), of generated ones (decoder)
    neg: float = 128.0  # KL of generated images in the encoder's exponential term
    generated_rec: float = 1.0e-8  # gamma_r: the generated images' own reconstruction error (decoder)
    embedding: float = 0.005  # lambda_emb, a literal in their code: the reversed embedding loss; 0 gives the SI-VAE
    warmup: int = 0  # epochs as a plain VAE before the game begins (`num_vae` of Daniel & Tamar)
    rejection: float = 1.0  # of the exponential terms when the game begins
    growth: int = 0  # epochs over which that weight grows to 1, by the same factor in each

    def rejection_at(self, epoch: int) -> float:
        """Return the weight of the exponential terms in an epoch of the game: 1 once it has grown."""
        return self.rejection ** max(0.0, 1 - (epoch - self.warmup) / self.growth) if self.growth else 1.0

    def coded_variance(self) -> float:
        """Return the variance, summed over pixels, above which a direction of the data is worth coding.

        In a linear VAE, coding a direction of variance v lowers the bound if beta_rec v > beta_kl / 2 (Lucas et al.,
        NeurIPS 2019, for their noise variance beta_kl / (2 beta_rec)).
        """
        return self.kl / (2 * self.rec) if self.rec else math.inf

    def plateau(self, scale: float) -> float:
        """Return the KL, in nats, at which the critic's push on generated images equals its pull on real ones.

        The pull is s beta_kl a nat; the push on either kind of generated images is (s beta_neg / 2)
        exp(-2 s beta_neg KL), with their reconstruction error left out. `scale` is s, one over the number of pixels.
        It is 0 if the pull is stronger from the start, and infinite if there is no pull.
        """
        if self.neg <= 2 * self.kl:
            return 0.0
        if not self.kl:
            return math.inf
        return math.log(self.neg / (2 * self.kl)) / (2 * scale * self.neg)


class AsPublished(NamedTuple):
    """Which departures from the authors' code are undone, as `ra_as_published` names them; by default none."""

    frozen_normalisation: bool = False  # evaluation mode in training: mean 0; variance 0.9 (encoder) or 1 (decoder)
    attached_target: bool = False  # rejecting x̂ also trains the pass that drew it; ours: x̂ is a constant there
    sampled_latent: bool = False  # reconstruct from a draw, so that a score is random; ours: from the mean
    fixed_weights: bool = False  # the same numbers at every image size; ours: the same pressure per nat
    repeated_passes: bool = False  # compute again what has not changed, and what float32 cannot see; ours: once, or not


class Posterior(NamedTuple):
    """The encoder's output for a batch: a Gaussian over z for each image, and the embeddings."""

    mean: Latents
    logvar: Latents
    features: Embeddings

    def sample(self) -> Latents:
        """Draw z by the reparameterisation trick."""
        return self.mean + torch.randn_like(self.mean) * (0.5 * self.logvar).exp()

    def kl(self) -> PerImage:
        """Return the divergence from the standard normal prior, summed over z, in nats."""
        return 0.5 * (self.mean.square() + self.logvar.exp() - self.logvar - 1).sum(dim=1)


class Encoder(nn.Module):
    """Image -> posterior; its features after each halving are the paper's embeddings."""

    def __init__(
        self, image_size: int, widths: Sequence[int], latent_dim: int, normalisation: Normalisation = "batch"
    ) -> None:
        super().__init__()
        self.down = encoder_stages(widths, normalisation)
        self.bottom = ResidualBlock(widths[-1], widths[-1], normalisation)
        self.to_posterior = nn.Linear(widths[-1] * (image_size // 2 ** len(widths)) ** 2, 2 * latent_dim)

    def forward(self, images: Images) -> Posterior:
        """Return each image's posterior, in float32 or better, because half precision overflows in its exponentials."""
        features, embeddings = images, []
        for stage in self.down:
            features = F.avg_pool2d(stage(features), 2)
            embeddings.append(features)
        mean, logvar = at_least_float32(self.to_posterior(self.bottom(features).flatten(1))).chunk(2, dim=1)
        return Posterior(mean, logvar, embeddings)


class Decoder(nn.Module):
    """Latent vector -> image; without skips, so that all information passes through z."""

    def __init__(
        self, image_size: int, widths: Sequence[int], latent_dim: int, normalisation: Normalisation = "batch"
    ) -> None:
        super().__init__()
        side = image_size // 2 ** len(widths)
        self.from_latent = nn.Sequential(nn.Linear(latent_dim, widths[-1] * side**2), nn.ReLU())
        self.to_grid = nn.Unflatten(1, (widths[-1], side, side))
        above = [widths[0], *widths]  # channels that each resolution passes to the next finer one
        self.up = nn.ModuleList(
            ResidualBlock(a, b, normalisation) for a, b in zip([*widths, widths[-1]], above, strict=True)
        )
        self.head = ToGrey(widths[0])

    def forward(self, latents: Latents) -> Images:
        """Return images in [0, 1]."""
        features = self.to_grid(self.from_latent(latents))
        coarsest, *finer = reversed(self.up)
        features = coarsest(features)
        for stage in finer:
            features = stage(F.interpolate(features, scale_factor=2))
        return self.head(features)


class ReversedAutoencoder(Method):
    """Two parts, two moves: the encoder learns to tell real images from generated ones, the decoder to deceive it."""

    def __init__(
        self,
        image_size: int,
        widths: Sequence[int],
        latent_dim: int = 128,
        weights: Weights | None = None,
        normalisation: Normalisation = "batch",
        as_published: AsPublished | None = None,
    ) -> None:
        super().__init__()
        self.encoder = Encoder(image_size, widths, latent_dim, normalisation)
        self.decoder = Decoder(image_size, widths, latent_dim, normalisation)
        self.latent_dim, self.weights = latent_dim, weights or Weights()
        self.as_published = as_published or AsPublished()
        self.scale = 1 / image_size**2
        if self.as_published.frozen_normalisation:
            # To learn its size, the authors' encoder sees one zero image in training mode, whose variance is 0 in
            # every layer; with momentum 0.1 the running variances are 0.9 from then on.
            for layer in self.encoder.modules():
                if isinstance(layer, nn.BatchNorm2d) and layer.running_var is not None:
                    layer.running_var.fill_(0.9)
        self.train()

    @classmethod
    def from_params(cls, params: Params) -> "ReversedAutoencoder":
        """Build it from a run's settings, whose weights of KLs are those at 128 px.

        The error is a sum over pixels and is divided by their number; a KL is divided by the same number, but does not
        grow with it. Equal pressure per nat at another size takes weights that do, unless "fixed-weights" is set.
        """
        as_published = AsPublished(**{name.replace("-", "_"): True for name in params.ra_as_published})
        per_nat = 1.0 if as_published.fixed_weights else (params.image_size / AUTHORS_SIZE) ** 2
        weights = Weights(
            params.ra_beta_rec,
            params.ra_beta_kl * per_nat,
            params.ra_beta_neg * per_nat,
            params.ra_gamma_r,
            params.ra_lambda_emb,
            params.ra_warmup_epochs,
            params.ra_rejection_start,
            params.ra_rejection_growth,
        )
        return cls(params.image_size, params.widths, params.latent_dim, weights, params.normalisation, as_published)

    def train(self, mode: bool = True) -> "ReversedAutoencoder":
        """Set training or evaluation mode, which only affects normalisation; if that is frozen, stay in evaluation."""
        return super().train(mode and not self.as_published.frozen_normalisation)

    def moves(self, images: Images, epoch: int = 0) -> Iterator[tuple[str, Losses]]:
        """Yield the encoder's update, then the decoder's, which sees the updated encoder.

        The decoder has not changed in between, so both updates share the images that it drew for the first.
        """
        w, again = self.weights, self.as_published.repeated_passes
        noise = torch.randn(len(images), self.latent_dim, device=images.device, dtype=images.dtype)
        real = self.encoder(images)
        latents = real.sample()
        reconstruction = self.decoder(latents)
        error = squared_error(images, reconstruction).mean()
        if epoch < w.warmup:
            kl = real.kl().mean()
            yield "encoder", {"total": self.scale * (w.rec * error + w.kl * kl), "kl_real": kl}
            if again:
                error = squared_error(images, self.decoder(latents.detach())).mean()
            yield "decoder", {"total": self.scale * w.rec * error, "reconstruction": self.scale * error}
            return

        generated = [reconstruction, self.decoder(noise)]
        yield "encoder", self._encoder_losses(real, error, generated, w.rejection_at(epoch))
        if again:
            generated = [self.decoder(latents.detach()), self.decoder(noise)]
        yield "decoder", self._decoder_losses(images, generated)

    def _encoder_losses(self, real: Posterior, error: Tensor, generated: Sequence[Images], growth: float) -> Losses:
        """Return L_E, with its exponential terms times `growth`, and what it is made of."""
        w, kl = self.weights, real.kl().mean()
        # For the encoder, a generated image is a constant, as input and as target. The authors leave both targets
        # attached; only the reconstruction leads back to the encoder, because the sample comes from noise.
        constants = [image.detach() for image in generated]
        targets = generated if self.as_published.attached_target else constants
        posteriors = [self.encoder(image) for image in constants]
        errors = [squared_error(t, self.decoder(p.sample())) for t, p in zip(targets, posteriors, strict=True)]
        negative_elbos = [w.rec * e + w.neg * p.kl() for e, p in zip(errors, posteriors, strict=True)]
        rejection = 0.25 * sum((-2 * self.scale * n).exp().mean() for n in negative_elbos)
        embedding = embedding_distance(real.features, posteriors[0].features).mean()
        bound = self.scale * (w.rec * error + w.kl * kl)
        return {
            "total": bound + growth * rejection + w.embedding * embedding,
            "kl_real": kl,
            "kl_reconstruction": posteriors[0].kl().mean(),
            "kl_sample": posteriors[1].kl().mean(),
            "rejection": rejection,
            "embedding": embedding,
        }

    def _decoder_losses(self, images: Images, generated: Sequence[Images]) -> Losses:
        """Return L_D and what it is made of."""
        w = self.weights
        posteriors = [self.encoder(image) for image in generated]
        error = squared_error(images, generated[0]).mean()
        kl = sum(p.kl().mean() for p in posteriors)
        total = w.rec * error + 0.5 * w.kl * kl
        # Beside the error of the reconstruction, a smaller share of the generated images' own is lost in rounding.
        if w.generated_rec >= torch.finfo(torch.float32).eps or (w.generated_rec and self.as_published.repeated_passes):
            drawn = [self.decoder(p.sample().detach()) for p in posteriors]
            own = sum(squared_error(g.detach(), d).mean() for g, d in zip(generated, drawn, strict=True))
            total = total + 0.5 * w.generated_rec * w.rec * own
        return {"total": self.scale * total, "reconstruction": self.scale * error, "kl_generated": 0.5 * kl}

    def reconstruct(self, images: Images) -> Images:
        """Decode the posterior's mean, so that a score depends on the image alone.

        With "sampled-latent" it decodes a draw, as the authors do. This breaks the contract: seed torch before.
        """
        posterior = self.encoder(images)
        return self.decoder(posterior.sample() if self.as_published.sampled_latent else posterior.mean)

    def own_scores(self, images: Images) -> dict[str, PerImage]:
        """Return the KL of each image's posterior, in nats, and its reversed embedding distance."""
        real, reconstructed = self.encoder(images), self.encoder(self.reconstruct(images))
        return {"kl": real.kl(), "embedding": embedding_distance(real.features, reconstructed.features)}

    def samples(self, count: int) -> Images:
        """Decode `count` draws from the prior: the chests that the decoder imagines."""
        device = next(self.decoder.parameters()).device
        return self.decoder(torch.randn(count, self.latent_dim, device=device))


def squared_error(images: Images, reconstructions: Images) -> PerImage:
    """Return the squared difference, summed over each image's pixels."""
    return (images - reconstructions).square().sum(dim=(1, 2, 3))


def embedding_distance(real: Embeddings, reconstructed: Embeddings) -> PerImage:
    """Return each image's reversed embedding loss, summed over the resolutions.

    At each it is half the mean squared difference plus one minus the cosine similarity. Gradients flow into both
    arguments, as in the authors' code.
    """
    sides = ([at_least_float32(e).flatten(1) for e in embeddings] for embeddings in (real, reconstructed))
    return sum(0.5 * (a - b).square().mean(dim=1) + 1 - F.cosine_similarity(a, b) for a, b in zip(*sides, strict=True))
