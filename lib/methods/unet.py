"""The U-Net autoencoder: down through ever coarser features and up again, with a skip connection at each size.

The network of Ronneberger et al., MICCAI 2015, is trained to reconstruct its input. Its skips carry every detail, an
anomaly's too: that is the hypothesis under test, not an oversight (Collin & De Vleeschouwer, arXiv 2008.12977). Two
remedies give the U-Net its best chance: skips that carry less, and a corrupted input that copying does not restore.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from lib.methods.blocks import Features, Normalisation, ResidualBlock, ToGrey, at_least_float32, encoder_stages
from lib.methods.method import Images, Losses, Method
from lib.params import Params

Skips = Literal["full", "none", "noise"]


class NoisyChannel(nn.Module):
    """A skip of limited capacity: a sigmoid and, while training, Laplace noise of this scale on each value.

    As in QBAE (arXiv 2610.09670), a value carries at most 1 / scale nats, their epsilon. Two departures: theirs keeps
    the noise at test time, which our contract forbids, and has such a channel at the bottom too.
    """

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, features: Features) -> Features:
        """Return the features that arrive; in evaluation mode, their mean without noise, in [0, 1]."""
        signal = torch.sigmoid(at_least_float32(features))
        if not self.training:
            return signal
        # The difference of two exponential draws is a Laplace draw; these are drawn on the signal's own device.
        noise = torch.empty_like(signal).exponential_() - torch.empty_like(signal).exponential_()
        return signal + self.scale * noise


class UNet(nn.Module):
    """Encoder and decoder joined at each resolution: widths [32, 64] give 32 channels at full size, 64 at half.

    Skips are "full" (the features unchanged), "noise" (through a `NoisyChannel`) or "none" (only the bottom connects).
    """

    def __init__(
        self, widths: Sequence[int], normalisation: Normalisation = "batch", skips: Skips = "full", noise: float = 1.0
    ) -> None:
        super().__init__()
        self.down = encoder_stages(widths, normalisation)
        self.bottom = ResidualBlock(widths[-1], widths[-1], normalisation)
        self.skip = NoisyChannel(noise) if skips == "noise" else nn.Identity()
        self.crossing = [0 if skips == "none" else width for width in widths]  # channels that each skip carries
        below = [*widths[1:], widths[-1]]  # channels that arrive from the next coarser resolution
        self.up = nn.ModuleList(
            ResidualBlock(b + c, w, normalisation) for b, c, w in zip(below, self.crossing, widths, strict=True)
        )
        self.head = ToGrey(widths[0])

    def forward(self, images: Images) -> Images:
        """Return the reconstruction, in [0, 1]."""
        features, skips = images, []
        for stage, crossing in zip(self.down, self.crossing, strict=True):
            features = stage(features)
            skips.append(self.skip(features[:, :crossing]))
            features = F.avg_pool2d(features, 2)
        features = self.bottom(features)
        for stage, skip in zip(reversed(self.up), reversed(skips), strict=True):
            features = stage(torch.cat([F.interpolate(features, scale_factor=2), skip], dim=1))
        return self.head(features)


def coarse_noise(images: Images) -> Images:
    """Add Gaussian noise of standard deviation 0.2 at an eighth of the resolution, randomly shifted; may leave [0, 1].

    Kascenas et al., MIDL 2022, but on the whole image: theirs spares a scan's empty background.
    """
    count, _, height, width = images.shape
    coarse = 0.2 * torch.randn(count, 1, -(-height // 8), -(-width // 8), device=images.device, dtype=images.dtype)
    noise = F.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)  # as the authors' upsampling
    shift = [int(torch.randint(side, ())) for side in (height, width)]
    return images + noise.roll(shift, dims=(2, 3))


def masked(images: Images) -> Images:
    """Replace each cell of an 8x8 grid by the image's mean grey, with probability 1/2 (Pathak et al., CVPR 2016)."""
    cells = torch.rand(len(images), 1, 8, 8, device=images.device)
    hidden = F.interpolate(cells, images.shape[2:]) < 0.5
    return torch.where(hidden, images.mean(dim=(1, 2, 3), keepdim=True), images)


CORRUPTIONS: dict[str, Callable[[Images], Images]] = {"none": lambda x: x, "noise": coarse_noise, "mask": masked}
"""The corruption of inputs in training, by the value of `unet_corruption`; drawn from torch's global generators."""


class UNetAutoencoder(Method):
    """One part, one move: lower the mean squared error between the reconstruction and the clean image."""

    def __init__(
        self,
        widths: Sequence[int],
        normalisation: Normalisation = "batch",
        skips: Skips = "full",
        skip_noise: float = 1.0,
        corruption: str = "none",
    ) -> None:
        super().__init__()
        self.network = UNet(widths, normalisation, skips, skip_noise)
        self.corrupt = CORRUPTIONS[corruption]

    @classmethod
    def from_params(cls, params: Params) -> "UNetAutoencoder":
        """Build it from a run's settings."""
        skips = params.unet_skips, params.unet_skip_noise
        return cls(params.widths, params.normalisation, *skips, params.unet_corruption)

    def moves(self, images: Images, epoch: int = 0) -> Iterator[tuple[str, Losses]]:
        """Yield the network's only update."""
        yield "network", {"total": F.mse_loss(self.network(self.corrupt(images)), images)}

    def reconstruct(self, images: Images) -> Images:
        """Return the network's output for the uncorrupted image."""
        return self.network(images)
