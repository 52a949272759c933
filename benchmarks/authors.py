"""A training step of RA as the authors' code makes it: float32, contiguous, line by line, with all of their passes.

It is the reference of `benchmarks.step`; `tests/methods/test_authors_step.py` compares its updates with ours. The
networks are ours, because theirs have the same layers; features are kept contiguous.
"""

import torch
from torch import Tensor, nn
from torch.optim import Adam

from lib.methods.blocks import GroupNorm
from lib.methods.method import Images, Method
from lib.methods.ra import Posterior, ReversedAutoencoder, embedding_distance, squared_error


def contiguous(method: Method) -> Method:
    """Return the method with torch's own group normalisation, which leaves features contiguous."""
    for module in list(method.modules()):
        for name, child in module.named_children():
            if isinstance(child, GroupNorm):
                plain = nn.GroupNorm(child.num_groups, child.num_channels).to(child.weight)
                plain.load_state_dict(child.state_dict())
                setattr(module, name, plain)
    return method


def authors_step(
    network: ReversedAutoencoder, encoder_optimizer: Adam, decoder_optimizer: Adam, images: Images
) -> None:
    """Update the encoder, then the decoder; 16 units of work in the encoder and 19 in the decoder.

    A unit is one pass forward, or one pass backward towards inputs or towards weights.
    """
    encoder, decoder, w, scale = network.encoder, network.decoder, network.weights, network.scale
    noise = torch.randn(len(images), network.latent_dim, device=images.device, dtype=images.dtype)

    encoder.requires_grad_(True)
    decoder.requires_grad_(False)
    real = encoder(images)
    latents = real.sample()
    reconstruction = decoder(latents)
    sample = decoder(noise)
    real_features = real.features
    reconstruction_features = encoder(reconstruction.detach()).features
    embedding = embedding_distance(real_features, reconstruction_features).mean()
    of_reconstruction = encoder(reconstruction.detach())
    of_sample = encoder(sample.detach())
    reconstruction_again = decoder(of_reconstruction.sample())
    sample_again = decoder(of_sample.sample())
    bound = scale * (w.rec * squared_error(images, reconstruction).mean() + w.kl * real.kl().mean())
    rejection = 0.25 * (
        _rejected(w.rec * squared_error(reconstruction, reconstruction_again), w.neg, of_reconstruction, scale)
        + _rejected(w.rec * squared_error(sample, sample_again), w.neg, of_sample, scale)
    )
    encoder_optimizer.zero_grad()
    (bound + rejection + w.embedding * embedding).backward()
    encoder_optimizer.step()

    encoder.requires_grad_(False)
    decoder.requires_grad_(True)
    sample = decoder(noise)
    reconstruction = decoder(latents.detach())
    of_reconstruction = encoder(reconstruction)
    of_sample = encoder(sample)
    reconstruction_again = decoder(of_reconstruction.sample().detach())
    sample_again = decoder(of_sample.sample().detach())
    error = w.rec * squared_error(images, reconstruction).mean()
    kl = w.kl * (of_reconstruction.kl().mean() + of_sample.kl().mean())
    again = squared_error(reconstruction.detach(), reconstruction_again).mean()
    again = again + squared_error(sample.detach(), sample_again).mean()
    decoder_optimizer.zero_grad()
    (scale * (error + 0.5 * (kl + w.generated_rec * w.rec * again))).backward()
    decoder_optimizer.step()


def _rejected(error: Tensor, neg: float, posterior: Posterior, scale: float) -> Tensor:
    return torch.exp(-2 * scale * (error + neg * posterior.kl())).mean()
