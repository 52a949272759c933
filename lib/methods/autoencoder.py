"""The small convolutional autoencoder of a published benchmark, with a bottleneck of a few numbers.

MedIAnomaly (Cai et al., arXiv 2404.04518): four halvings, a fully connected layer and a latent vector of 16 numbers.
AE4AD (Cai et al., MICCAI 2024) found 4 better on chest radiographs. Widths and batch normalisation are always the
benchmark's, whatever the settings, so that results can be compared with the published ones.
"""

import itertools
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional as F

from lib.methods.blocks import at_least_float32
from lib.methods.method import Images, Losses, Method
from lib.params import ParameterError

WIDTHS = (16, 32, 64, 64)
HIDDEN = 1024


def _block(layer: nn.Module, channels: int) -> nn.Sequential:
    return nn.Sequential(layer, nn.BatchNorm2d(channels), nn.ReLU())


class ConvAutoencoder(Method):
    """One part, one move: lower the mean squared error of images decoded from `latent_dim` numbers.

    Departure: images and outputs are in [0, 1], with a sigmoid at the end; theirs are in [-1, 1], without one.

    Raises:
        ParameterError: The image size is not a multiple of 16, as four halvings require.

    """

    def __init__(self, image_size: int, latent_dim: int = 16) -> None:
        super().__init__()
        side, rest = divmod(image_size, 2 ** len(WIDTHS))
        if rest or not side:
            sizes = " or ".join(str(16 * n) for n in (side, side + 1) if n)
            raise ParameterError(
                f"image_size={image_size} is not a multiple of 16, but the small autoencoder halves an image four "
                f"times: write {sizes}, or leave this method out"
            )
        flat, back = WIDTHS[-1] * side**2, WIDTHS[::-1]
        self.network = nn.Sequential(
            *[_block(nn.Conv2d(a, b, 4, 2, 1, bias=False), b) for a, b in itertools.pairwise((1, *WIDTHS))],
            nn.Flatten(),
            nn.Sequential(nn.Linear(flat, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.ReLU()),
            nn.Linear(HIDDEN, latent_dim),
            nn.Sequential(nn.Linear(latent_dim, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.ReLU()),
            nn.Linear(HIDDEN, flat),
            nn.Unflatten(1, (WIDTHS[-1], side, side)),
            *[_block(nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False), b) for a, b in itertools.pairwise(back)],
            nn.ConvTranspose2d(WIDTHS[0], 1, 4, 2, 1, bias=False),
        )

    def moves(self, images: Images, epoch: int = 0) -> Iterator[tuple[str, Losses]]:
        """Yield the network's only update."""
        yield "network", {"total": F.mse_loss(self.reconstruct(images), images)}

    def reconstruct(self, images: Images) -> Images:
        """Return the network's output, brought to [0, 1] by a sigmoid."""
        return torch.sigmoid(at_least_float32(self.network(images)))
