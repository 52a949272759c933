"""How an image becomes a square of grey levels, the same for every image of a run."""

from typing import NamedTuple

import numpy as np
import torch
from torchvision.transforms.v2 import functional as transforms

from lib.params import Params


class Preparation(NamedTuple):
    """How an image becomes a square of `size` pixels, the same for every image.

    The grey levels are stretched between two percentiles: in public data sets some images were stretched by their
    sources and others were not, and the difference alone would tell them apart. `square` pads with black, or squashes.
    """

    size: int
    stretch: tuple[float, float] = (1, 99)
    square: str = "pad"

    @classmethod
    def from_params(cls, params: Params) -> "Preparation":
        """Return the preparation of a run's settings."""
        low, high = params.stretch
        return cls(params.image_size, (low, high), params.square)

    def image(self, image: np.ndarray, padding: np.ndarray | None = None) -> np.ndarray:
        """Return the image, (height, width) on any scale, as (size, size) uint8; `padding` as in `stretched`."""
        return self.squared(self.stretched(image, padding))

    def stretched(self, image: np.ndarray, padding: np.ndarray | None = None) -> np.ndarray:
        """Return the image with its grey levels stretched, (height, width) float32 in [0, 1].

        Where `padding`, (height, width) bool, is True, nothing was recorded: the percentiles are those of the rest.
        """
        recorded = image if padding is None else image[~padding]
        if image.dtype not in (np.uint8, np.uint16):
            return _stretch(image, *np.percentile(recorded, self.stretch))
        counts = np.bincount(recorded.ravel())  # by counting and by a lookup table: the same numbers, far faster
        table = _stretch(np.arange(len(counts)), *_percentiles(counts, self.stretch))
        return np.take(table, image, mode="clip")

    def squared(self, stretched: np.ndarray) -> np.ndarray:
        """Return a stretched image as (size, size) uint8."""
        return np.round(self._to_square(stretched) * 255).astype(np.uint8)

    def extent(self, height: int, width: int) -> tuple[float, float, float, float]:
        """Return where in the square an image of so many pixels lies: left, top, right, bottom, in its pixels."""
        if self.square != "pad":
            return 0, 0, self.size, self.size
        longest = max(height, width)
        left, top = (longest - width) // 2, (longest - height) // 2
        scale = self.size / longest
        return left * scale, top * scale, (left + width) * scale, (top + height) * scale

    def rule(self) -> str:
        """Return how an image becomes what a method sees, as a sentence."""
        low, high = self.stretch
        square = (
            "black is added on both sides of the shorter side until it is as long as the other"
            if self.square == "pad"
            else "width and height are scaled apart"
        )
        return (
            f"of an image's grey levels, dense tissue bright, percentile {low:g} becomes 0 and percentile {high:g} "
            f"becomes 1, and what lies beyond is clipped; {square}; bilinear resizing with antialiasing to {self.size} "
            f"x {self.size} pixels; rounding to multiples of 1/255"
        )

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """Return the lesion, (height, width) bool, as (size, size) bool, aligned with `image`."""
        return self._to_square(mask.astype(np.float32)) > 0.5

    def _to_square(self, image: np.ndarray) -> np.ndarray:
        missing = [max(image.shape) - length for length in image.shape]
        if self.square == "pad" and any(missing):
            image = np.pad(image, [(pixels // 2, pixels - pixels // 2) for pixels in missing])
        return transforms.resize(torch.from_numpy(image)[None], [self.size, self.size], antialias=True)[0].numpy()


def displayed(stretched: np.ndarray, longest: int) -> np.ndarray:
    """Return a stretched image, (height, width) in [0, 1], for the eye: uint8, its longer side at most `longest`."""
    scale = min(1, longest / max(stretched.shape))
    size = [max(1, round(length * scale)) for length in stretched.shape]
    shown = transforms.resize(torch.from_numpy(stretched)[None], size, antialias=True)[0].numpy()
    return np.round(shown.clip(0, 1) * 255).astype(np.uint8)


def _stretch(levels: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip((levels - low) / (high - low or 1), 0, 1).astype(np.float32)


def _percentiles(counts: np.ndarray, percents: tuple[float, float]) -> np.ndarray:
    """Return `numpy.percentile` of the values 0, 1, 2, ..., each of which occurs `counts` times."""
    place = np.array(percents) / 100 * (counts.sum() - 1)
    below, above = np.searchsorted(np.cumsum(counts), np.floor([place, place + 1]), "right").clip(max=len(counts) - 1)
    return below + (above - below) * (place - np.floor(place))
