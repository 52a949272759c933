r"""The Reversed Autoencoder: the image passes through a latent vector, and encoder and decoder play against each other.

Bercea et al., MIDL 2023 (openreview 8ojx-Ld3yjR) and arXiv 2401.10637, on the soft-introspective VAE of Daniel & Tamar,
CVPR 2021. The encoder gives real images a high evidence lower bound and generated ones a low one, the decoder wants its
images to be given a high one; the reversed embedding loss draws together the encoder's features of an image and of its
reconstruction. With $s$ one over the number of pixels, $L$ the squared error summed over an image's pixels, and
generated images $g$ that are the reconstruction and a sample from the prior:

$$\mathcal L_E = s\,[\beta_{rec} L(x, \hat x) + \beta_{kl} KL(x)]
  + \tfrac14 \sum_g e^{-2s[\beta_{rec} L(g, \hat g) + \beta_{neg} KL(g)]} + \lambda_{emb} L_{emb}$$
$$\mathcal L_D = s\,[\beta_{rec} L(x, \hat x)
  + \tfrac12 \sum_g (\beta_{kl} KL(g) + \gamma_r \beta_{rec} L(g, \hat g))]$$
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lib.blocks import Features, Normalisation, ResidualBlock, ToGrey, at_least_float32, encoder_stages
from lib.method import Images, Losses, Method, PerImage
from lib.params import Params

Latents = Float[Tensor, "batch latent"]
Embeddings = list[Features]
"""The encoder's features after each halving, finest first."""


class Weights(NamedTuple):
    """How much each term counts, and from when; the defaults are the authors' (`RA_Trainer`, its literal 0.005)."""

    rec: float = 0.5  # reconstruction error
    kl: float = 1.0  # KL of real images (encoder), of generated ones (decoder)
    neg: float = 128.0  # KL of generated images in the encoder's exponential term
    generated_rec: float = 1.0e-8  # gamma_r: the generated images' own reconstruction error (decoder)
    embedding: float = 0.005  # lambda_emb: the reversed embedding loss; 0 gives the soft-introspective VAE
    warmup: int = 0  # epochs as a plain VAE before the game begins (`num_vae` of Daniel & Tamar)


class AsPublished(NamedTuple):
    """Which departures from the authors' code are taken back, as `ra_as_published` names them; by default none."""

    frozen_normalisation: bool = False  # evaluation mode while training: a mean of 0 and a variance of 1 for ever
    attached_target: bool = False  # rejecting x̂ also teaches the pass that made it; ours: to the critic it is given
    sampled_latent: bool = False  # reconstruct from a draw: a score is random; ours: the mean


class Posterior(NamedTuple):
    """What the encoder says of a batch: a Gaussian over z for each image, and its embeddings."""

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
        """Return each image's posterior, in float32 or better: its exponentials do not survive half precision."""
        features, embeddings = images, []
        for stage in self.down:
            features = F.avg_pool2d(stage(features), 2)
            embeddings.append(features)
        mean, logvar = at_least_float32(self.to_posterior(self.bottom(features).flatten(1))).chunk(2, dim=1)
        return Posterior(mean, logvar, embeddings)


class Decoder(nn.Module):
    """Latent vector -> image; no skips, so that nothing passes but z."""

    def __init__(
        self, image_size: int, widths: Sequence[int], latent_dim: int, normalisation: Normalisation = "batch"
    ) -> None:
        super().__init__()
        side = image_size // 2 ** len(widths)
        self.from_latent = nn.Sequential(nn.Linear(latent_dim, widths[-1] * side**2), nn.ReLU())
        self.to_grid = nn.Unflatten(1, (widths[-1], side, side))
        above = [widths[0], *widths]  # channels that each resolution hands on to the next finer one
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
    """Two parts, two moves: the encoder learns to tell real from generated, the decoder to be taken for real."""

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
        self.train()

    @classmethod
    def from_params(cls, params: Params) -> "ReversedAutoencoder":
        """Build it as a run's settings say."""
        weights = Weights(
            params.ra_beta_rec,
            params.ra_beta_kl,
            params.ra_beta_neg,
            params.ra_gamma_r,
            params.ra_lambda_emb,
            params.ra_warmup_epochs,
        )
        as_published = AsPublished(**{name.replace("-", "_"): True for name in params.ra_as_published})
        return cls(params.image_size, params.widths, params.latent_dim, weights, params.normalisation, as_published)

    def train(self, mode: bool = True) -> "ReversedAutoencoder":
        """Enter training or evaluation mode, which only normalisation knows apart; frozen, it stays in evaluation."""
        return super().train(mode and not self.as_published.frozen_normalisation)

    def moves(self, images: Images, epoch: int = 0) -> Iterator[tuple[str, Losses]]:
        """Yield the encoder's update, then the decoder's, which sees the encoder that the first has changed."""
        w, encode, decode = self.weights, self.encoder, self.decoder
        noise = torch.randn(len(images), self.latent_dim, device=images.device, dtype=images.dtype)

        real = encode(images)
        real_kl = real.kl().mean()
        latents = real.sample()
        reconstruction = decode(latents)
        error = squared_error(images, reconstruction).mean()
        bound = self.scale * (w.rec * error + w.kl * real_kl)
        if epoch < w.warmup:
            yield "encoder", {"total": bound, "kl_real": real_kl}
            error = squared_error(images, decode(latents.detach())).mean()
            yield "decoder", {"total": self.scale * w.rec * error, "reconstruction": self.scale * error}
            return

        # To the encoder a generated image is given data, as input and as target. The authors leave both targets
        # attached, of which only the reconstruction's leads back to the encoder: the sample comes of noise.
        generated = [reconstruction.detach(), decode(noise).detach()]
        seen = [encode(image) for image in generated]
        targets = [reconstruction, generated[1]] if self.as_published.attached_target else generated
        again = [squared_error(t, decode(s.sample())) for t, s in zip(targets, seen, strict=True)]
        rejected = [w.rec * error_g + w.neg * s.kl() for error_g, s in zip(again, seen, strict=True)]
        rejection = 0.25 * sum((-2 * self.scale * r).exp().mean() for r in rejected)
        embedding = embedding_distance(real.features, seen[0].features).mean()
        yield (
            "encoder",
            {
                "total": bound + rejection + w.embedding * embedding,
                "kl_real": real_kl,
                "kl_reconstruction": seen[0].kl().mean(),
                "kl_sample": seen[1].kl().mean(),
                "rejection": rejection,
                "embedding": embedding,
            },
        )

        generated = [decode(latents.detach()), decode(noise)]
        seen = [encode(image) for image in generated]
        error = squared_error(images, generated[0]).mean()
        kl = sum(s.kl().mean() for s in seen)
        drawn_again = sum(
            squared_error(g.detach(), decode(s.sample().detach())).mean() for g, s in zip(generated, seen, strict=True)
        )
        total = self.scale * (w.rec * error + 0.5 * (w.kl * kl + w.generated_rec * w.rec * drawn_again))
        yield "decoder", {"total": total, "reconstruction": self.scale * error, "kl_generated": 0.5 * kl}

    def reconstruct(self, images: Images) -> Images:
        """Decode the posterior's mean: a score depends on the image alone.

        "sampled-latent" decodes a draw, as the authors do, against the contract: the caller has to seed torch.
        """
        posterior = self.encoder(images)
        return self.decoder(posterior.sample() if self.as_published.sampled_latent else posterior.mean)

    def own_scores(self, images: Images) -> dict[str, PerImage]:
        """Return the KL of each image's posterior, in nats, and its reversed embedding distance."""
        real, reconstructed = self.encoder(images), self.encoder(self.reconstruct(images))
        return {"kl": real.kl(), "embedding": embedding_distance(real.features, reconstructed.features)}

    def samples(self, count: int) -> Images:
        """Decode `count` draws from the prior: what the decoder believes a chest looks like."""
        device = next(self.decoder.parameters()).device
        return self.decoder(torch.randn(count, self.latent_dim, device=device))


def squared_error(images: Images, reconstructions: Images) -> PerImage:
    """Return the squared difference, summed over each image's pixels."""
    return (images - reconstructions).square().sum(dim=(1, 2, 3))


def embedding_distance(real: Embeddings, reconstructed: Embeddings) -> PerImage:
    """Return each image's reversed embedding loss: half the mean squared difference plus one minus the cosine, summed.

    Over the resolutions, that is. Both sides receive the encoder's gradient, as in the authors' code.
    """
    sides = ([at_least_float32(e).flatten(1) for e in embeddings] for embeddings in (real, reconstructed))
    return sum(0.5 * (a - b).square().mean(dim=1) + 1 - F.cosine_similarity(a, b) for a, b in zip(*sides, strict=True))
