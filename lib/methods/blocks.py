"""Layers that U-Net and RA share, so that they cannot differ by accident.

The blocks are those of the soft-introspective VAE (Daniel & Tamar, CVPR 2021), which the Reversed Autoencoder keeps:
convolutions without bias, normalisation (theirs: by batch), LeakyReLU with slope 0.2. It acts in place, because its
backward pass needs the result alone: a quarter less memory.
"""

import itertools
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

Features = Float[Tensor, "batch _channels _height _width"]
"""Feature maps; the underscores leave sizes free to differ between an argument and a result."""

Normalisation = Literal["batch", "group"]
"""Features are normalised over the batch (Ioffe & Szegedy, ICML 2015), or in groups within each image."""


def at_least_float32(values: Tensor) -> Tensor:
    """Return half-precision values as float32, because exponentials and sums need it; return others unchanged."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


class GroupNorm(nn.GroupNorm):
    """Group normalisation of features whose channels lie innermost in memory, where convolutions are fastest.

    On a CPU, torch's own takes about ten times as long there in bfloat16 as on contiguous features, so that two copies
    cost less. In float32 it is the faster one.
    """

    def forward(self, features: Features) -> Features:
        """Return normalised features, with channels innermost in memory."""
        if features.dtype is torch.float32:
            return super().forward(features.contiguous(memory_format=torch.channels_last))
        return super().forward(features.contiguous()).contiguous(memory_format=torch.channels_last)


def normalisation_layer(normalisation: Normalisation, channels: int) -> nn.Module:
    """Return the layer for this many channels; "group" (Wu & He, ECCV 2018) does not depend on the rest of the batch.

    The number of groups is the largest divisor of `channels` up to 8 that leaves each group 4 channels or more, else 1.
    """
    if normalisation == "batch":
        return nn.BatchNorm2d(channels)
    # Wu and He take 32 groups for 64 channels or more. A group of one channel would lose that channel's mean, and
    # everything once an image has been halved down to one pixel.
    return GroupNorm(max(n for n in range(1, 9) if channels % n == 0 and n * min(4, channels) <= channels), channels)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions added to their input, or to a 1x1 convolution of it if the number of channels changes."""

    def __init__(self, channels_in: int, channels_out: int, normalisation: Normalisation = "batch") -> None:
        super().__init__()
        # Compared by value. The authors compare by identity, so their layers depend on how the list was built.
        same = channels_in == channels_out
        self.shortcut = nn.Identity() if same else nn.Conv2d(channels_in, channels_out, 1, bias=False)
        self.residual = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
            normalisation_layer(normalisation, channels_out),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
            normalisation_layer(normalisation, channels_out),
        )
        self.activation = nn.LeakyReLU(0.2, inplace=True)

    def forward(self, features: Features) -> Features:
        """Return features of the same height and width."""
        return self.activation(self.residual(features) + self.shortcut(features))


def encoder_stages(widths: Sequence[int], normalisation: Normalisation = "batch") -> nn.ModuleList:
    """Return one stage per resolution, finest first: a 5x5 convolution from grey, then residual blocks.

    The caller halves the features after each stage.
    """
    stem = nn.Sequential(
        nn.Conv2d(1, widths[0], 5, padding=2, bias=False),
        normalisation_layer(normalisation, widths[0]),
        nn.LeakyReLU(0.2, inplace=True),
    )
    return nn.ModuleList([stem, *(ResidualBlock(a, b, normalisation) for a, b in itertools.pairwise(widths))])


class ToGrey(nn.Module):
    """A 5x5 convolution to one channel, then a sigmoid in float32, because bfloat16 has too few values near 1."""

    def __init__(self, channels_in: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels_in, 1, 5, padding=2)

    def forward(self, features: Features) -> Float[Tensor, "batch 1 height width"]:
        """Return images in [0, 1]."""
        return torch.sigmoid(at_least_float32(self.convolution(features)))
