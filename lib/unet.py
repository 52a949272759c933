"""The U-Net autoencoder: the image goes down through ever coarser features and up again, with a skip at each size.

Ronneberger et al., MICCAI 2015, trained to give back its input. Its skips hand every detail across, an anomaly's too:
that is the hypothesis under test, not an oversight (Collin & De Vleeschouwer, arXiv 2008.12977).
"""

from collections.abc import Iterator, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from lib.blocks import ResidualBlock, ToGrey, encoder_stages
from lib.method import Images, Losses, Method
from lib.params import Params


class UNet(nn.Module):
    """Encoder and decoder joined at each resolution: widths [32, 64] give 32 channels at full size, 64 at half."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.down = encoder_stages(widths)
        self.bottom = ResidualBlock(widths[-1], widths[-1])
        below = [*widths[1:], widths[-1]]  # channels that arrive from the next coarser resolution
        self.up = nn.ModuleList(ResidualBlock(b + w, w) for b, w in zip(below, widths, strict=True))
        self.head = ToGrey(widths[0])

    def forward(self, images: Images) -> Images:
        """Return the reconstruction, in [0, 1]."""
        features, skips = images, []
        for stage in self.down:
            features = stage(features)
            skips.append(features)
            features = F.avg_pool2d(features, 2)
        features = self.bottom(features)
        for stage, skip in zip(reversed(self.up), reversed(skips), strict=True):
            features = stage(torch.cat([F.interpolate(features, scale_factor=2), skip], dim=1))
        return self.head(features)


class UNetAutoencoder(Method):
    """One part, one move: lower the mean squared error of the reconstruction."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.network = UNet(widths)

    @classmethod
    def from_params(cls, params: Params) -> "UNetAutoencoder":
        """Build it as a run's settings say."""
        return cls(params.widths)

    def moves(self, images: Images, epoch: int = 0) -> Iterator[tuple[str, Losses]]:
        """Yield the network's only update."""
        yield "network", {"total": F.mse_loss(self.network(images), images)}

    def reconstruct(self, images: Images) -> Images:
        """Return the network's output."""
        return self.network(images)
