"""The contract of a method that learns what a normal chest looks like, without a word on how it does so."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lib.data.source import ImageStack
from lib.refusals import Refusal

Images = Float[Tensor, "batch 1 height width"]
"""Grey images in [0, 1]; 0 is black (air), 1 is white (dense)."""

PerImage = Float[Tensor, " batch"]
"""One number per image."""

Losses = dict[str, Tensor]
"""Scalars by name; "total" is minimised, the others are for the reader."""


class TrainingError(Refusal):
    """Training cannot start, for a reason that the message gives."""


class Method(nn.Module, ABC):
    """A method that learns what is normal; its child modules are the parts that train, each with its own optimizer."""

    @abstractmethod
    def moves(self, images: Images, epoch: int = 0) -> Iterator[tuple[str, Losses]]:
        """Yield (name of a child module, its losses) for each parameter update, in order; epochs count from 0.

        The training loop lowers "total" by a step in that child's parameters alone, then resumes this generator. So a
        later move sees the weights that an earlier one has updated. It may share what an earlier one has computed with
        weights that have not changed since, so the loop's backward passes retain the graph.
        """

    @abstractmethod
    def reconstruct(self, images: Images) -> Images:
        """Return each image as the method expects it to look, in [0, 1]; deterministic."""

    def own_scores(self, images: Images) -> dict[str, PerImage]:
        """Return scores by name that need more than the reconstruction; higher is more anomalous. Default: none."""
        return {}

    def samples(self, count: int) -> Images | None:
        """Return `count` images that the method imagines from noise alone. Default: None, it imagines none."""
        return None


def to_unit(images: ImageStack, device: torch.device) -> Images:
    """Return uint8 images, (n, height, width), as float32 in [0, 1] on the device."""
    return torch.from_numpy(np.array(images)).to(device)[:, None].float() / 255  # copied: torch needs a writable array


def to_device(module: nn.Module, device: torch.device) -> None:
    """Move a network to the device with channels last, the layout that convolutions are fastest in."""
    module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch does not declare it
