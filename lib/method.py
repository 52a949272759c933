"""The contract: what a way to learn the normal chest has to offer, and nothing about how it does it."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

from jaxtyping import Float
from torch import Tensor, nn

Images = Float[Tensor, "batch 1 height width"]
"""Grey images in [0, 1]; 0 is black (air), 1 is white (dense)."""

PerImage = Float[Tensor, " batch"]
"""One number an image."""

Losses = dict[str, Tensor]
"""Scalars by name; "total" is the one that is minimised, the others are for the reader."""


class Method(nn.Module, ABC):
    """A way to learn what is normal; its child modules are the parts that train, each with its own optimizer."""

    @abstractmethod
    def moves(self, images: Images, epoch: int = 0) -> Iterator[tuple[str, Losses]]:
        """Yield (child module's name, its losses) once per parameter update, in order; epochs count from 0.

        The training loop lowers "total" in that child's parameters alone and then resumes this generator, so a later
        move sees the weights that an earlier one has updated.
        """

    @abstractmethod
    def reconstruct(self, images: Images) -> Images:
        """Return each image as the method believes it should look, in [0, 1]; no randomness."""

    def own_scores(self, images: Images) -> dict[str, PerImage]:
        """Return what the method can say of an image beside its reconstruction, by name; higher is more anomalous."""
        return {}
