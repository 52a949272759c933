"""Copying: how much of an image a network can carry, and how much of a pasted change it reconstructs.

Neither measure needs an abnormal image.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from lib.data.source import ImageStack
from lib.methods.method import Method, to_unit
from lib.methods.unet import UNetAutoencoder
from lib.scores.scoring import reconstruct

KINDS = ("square", "shuffle")


class Copied(NamedTuple):
    """The share of the change that was copied, the images with the change, uint8, and their reconstructions."""

    share: float
    pasted: np.ndarray
    reconstructed: np.ndarray


def copied_share(method: Method, images: ImageStack, kind: str = "square") -> Copied:
    r"""Change a patch of each image and return the share that is reconstructed: 1 if copied, 0 if removed.

    The patch is a square, a sixth of the image wide. "square" paints it white, a coarse change; "shuffle" puts its
    pixels in random order, a fine change that keeps its greys. With the change $d$ of the images, (n, height, width)
    uint8, and the change $r$ of their reconstructions, the share is $\langle r, d \rangle / \langle d, d \rangle$.

    Raises:
        ValueError: `kind` is not in `KINDS`, or no image changes, because all patches are white or flat already.

    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r} is unknown; expected one of {', '.join(KINDS)}")
    images = np.array(images)
    side = images.shape[-1] // 6
    place = (slice(None), slice(2 * side, 3 * side), slice(side, 2 * side))
    pasted, patch = images.copy(), images[place]
    if kind == "square":
        pasted[place] = 255
    else:
        pasted[place] = np.random.default_rng(0).permuted(patch.reshape(len(images), -1), axis=1).reshape(patch.shape)
    change = (pasted.astype(np.float64) - images) / 255
    if not change.any():
        raise ValueError(
            f"a {kind} changes none of the {len(images)} images: their patches are flat; give other images"
        )
    before, after = (reconstruct(method, stack, name=kind).astype(np.float64) for stack in (images, pasted))
    return Copied(float(((after - before) * change).sum() / (change**2).sum()), pasted, after.astype(np.float32))


def carried(method: Method, image_size: int) -> list[int]:
    """Return how many numbers carry one image into each layer, including those that bypass it through skips.

    Layers are linear ones and convolutions wider than one pixel. The method is left in evaluation mode.
    """
    counts: list[int] = []
    skips: list[int] = []

    def count(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        counts.append(inputs[0].numel() + sum(skips))

    def store(_: nn.Module, __: tuple[torch.Tensor, ...], skip: torch.Tensor) -> None:
        skips.append(skip.numel())

    def join(_: nn.Module, __: tuple[torch.Tensor, ...]) -> None:
        skips.pop()

    hooks = [
        layer.register_forward_pre_hook(count)
        for layer in method.modules()
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) and layer.weight.shape[2:] != (1, 1)
    ]
    if isinstance(method, UNetAutoencoder):
        hooks.append(method.network.skip.register_forward_hook(store))
        hooks += [stage.register_forward_pre_hook(join) for stage in method.network.up]
    with torch.no_grad():
        method.eval().reconstruct(torch.zeros(1, 1, image_size, image_size))
    for hook in hooks:
        hook.remove()
    return counts


class SkipTest(NamedTuple):
    """An image with a pasted square, (H, W) in [0, 1]; its reconstruction and the error in the square, by cut."""

    image: np.ndarray
    reconstructed: dict[str, np.ndarray]
    off: dict[str, float]
    """Mean absolute difference inside the square."""


def cut_skips(method: UNetAutoencoder, image: np.ndarray) -> SkipTest:
    """Paste a white square into an image, (H, W) uint8, and reconstruct it while some skips of the U-Net pass zeros."""
    side, depth = image.shape[0] // 4, len(method.network.crossing)
    square = (slice(side, 2 * side), slice(side, 2 * side))
    pasted = image.copy()
    pasted[square] = 255
    inputs = to_unit(pasted[None], next(method.parameters()).device)
    cuts = {"all skips": range(0), "the finest cut": range(1), "only the finest": range(1, depth), "none": range(depth)}
    reconstructed, off = {}, {}
    for name, cut in cuts.items():
        order = iter(range(depth))  # 0 is the skip at full resolution
        hook = method.network.skip.register_forward_hook(
            lambda _, __, skip, order=order, cut=cut: skip * 0 if next(order) in cut else skip
        )
        with torch.no_grad():
            reconstructed[name] = method.eval().reconstruct(inputs)[0, 0].cpu().numpy()
        hook.remove()
        off[name] = float(np.abs(reconstructed[name] - pasted / 255)[square].mean())
    return SkipTest(pasted / 255, reconstructed, off)
