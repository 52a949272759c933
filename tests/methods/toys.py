"""Small methods for the tests of training, and a comparison of saved states to the last bit."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lib.methods.method import Method
from lib.methods.ra import ReversedAutoencoder
from lib.methods.unet import UNetAutoencoder

CPU = torch.device("cpu")
METHODS = {"unet": lambda: UNetAutoencoder([4, 6]), "ra": lambda: ReversedAutoencoder(16, [4, 6], 5)}
PARTS = {"unet": ["network"], "ra": ["encoder", "decoder"]}
each_method = pytest.mark.parametrize("name", METHODS)


def build(name: str, seed: int = 0) -> Method:
    torch.manual_seed(seed)
    return METHODS[name]()


def read(checkpoint: Path) -> dict:
    return torch.load(checkpoint, weights_only=True)


def differences(found, expected, where: str = "") -> list[str]:
    """Name the leaves of two nested states that are not the same to the last bit."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        return [d for key in expected for d in differences(found[key], expected[key], f"{where}/{key}")]
    if isinstance(expected, list | tuple):
        assert len(found) == len(expected), where
        return [
            d for i, pair in enumerate(zip(found, expected, strict=True)) for d in differences(*pair, f"{where}/{i}")
        ]
    same = torch.equal(found, expected) if isinstance(expected, torch.Tensor) else found == expected
    return [] if same or where.endswith("seconds") else [where]


class Toy(Method):
    """Multiplies its images by one weight; the building block of the tests below."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.constant_(self.network.weight, 0.5)

    def moves(self, images, epoch=0):
        yield "network", {"total": (self.network(images) - images).square().mean()}

    def reconstruct(self, images):
        return self.network(images)


class Watched(Toy):
    """Remembers the images of each batch by their grey: image i is grey i."""

    def __init__(self) -> None:
        super().__init__()
        self.order = []

    def moves(self, images, epoch=0):
        self.order += (images[:, 0, 0, 0] * 255).round().int().tolist()
        yield from super().moves(images, epoch)


def greys(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.uint8)[:, None, None].repeat(4, 1).repeat(4, 2)


class Chain(Method):
    """Two parts, the second on the first, so that a move that sees stale weights has another loss."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(256, 256), nn.Linear(256, 1)

    def chained(self, images):
        return (self.second(self.first(images.flatten(1))) - 3).square().float().mean()

    def moves(self, images, epoch=0):
        yield "first", {"total": (self.first(images.flatten(1)) - 3).square().float().mean()}
        yield "second", {"total": self.chained(images)}

    def reconstruct(self, images):
        return images


class Convolutions(Toy):
    """`count` 3x3 convolutions of three channels in a row, the first from grey, without padding."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.network = nn.Sequential(*(nn.Conv2d(3 if i else 1, 3, 3, bias=False) for i in range(count)))

    def moves(self, images, epoch=0):
        yield "network", {"total": self.network(images).mean()}
