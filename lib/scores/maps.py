"""An image and its reconstruction -> anomaly maps -> one number per map, the same for every method.

An anomaly map says for each pixel how an image differs from its reconstruction, in one of several senses. A pool turns
a map into a number. Higher is more anomalous throughout.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from skimage.exposure import equalize_adapthist
from skimage.metrics import structural_similarity
from torch import Tensor

from lib.methods.method import Images, PerImage
from lib.scores.features import perceptual_map


class Distance(NamedTuple):
    """The distance of two images at each pixel, in features instead of greys."""

    features: Callable[[Images], Any]  # what is compared of a batch of images
    between: Callable[[Any, Any], Images]  # the features of two batches -> their distance at each pixel, on the CPU
    owner: str = ""  # the method that trained the features; "" if no method did


class Described(NamedTuple):
    """The inputs of the maps, computed once for all reconstructions of the same images."""

    images: Images
    equalised: Images
    features: dict[str, tuple[Any, Any]]  # by distance: of the images, and of the equalised images


def distance_of(kind: str) -> str:
    """Return the name of the distance that a map is made of; one of `MAPS` is returned as it is."""
    return "lpips" if kind == "ra-map" else kind.removeprefix("clahe x ")


def residual_map(images: Images, reconstructions: Images) -> Images:
    """Return the absolute difference at each pixel, in [0, 1]."""
    return (images - reconstructions).abs()


def dissimilarity_map(images: Images, reconstructions: Images) -> Images:
    """Return one minus the local structural similarity, in [0, 2]; 7x7 windows (Wang et al., IEEE TIP 2004)."""
    pairs = zip(images[:, 0].numpy(), reconstructions[:, 0].numpy(), strict=True)
    return _stack(1 - structural_similarity(x, r, data_range=1, full=True)[1] for x, r in pairs)


def equalised(images: Images) -> Images:
    """Return the images after contrast-limited adaptive histogram equalisation (CLAHE, Zuiderveld 1994), in [0, 1]."""
    return _stack(equalize_adapthist(x.clip(0, 1)) for x in images[:, 0].numpy())


def feature_distance(features: Callable[[Images], list[Tensor]], device: torch.device, owner: str = "") -> Distance:
    """Return the distance in these feature maps, computed on the device in small batches."""

    def describe_batches(images: Images) -> list[tuple[torch.Size, list[Tensor]]]:
        batches = images.split(16)  # larger ones do not fit a CPU's cache and take twice as long
        return [(batch.shape[-2:], features(batch.to(device))) for batch in batches]

    def between(first: list, second: list) -> Images:
        return torch.cat([perceptual_map(a, b, size).cpu() for (size, a), (_, b) in zip(first, second, strict=True)])

    return Distance(describe_batches, between, owner)


def describe(images: Images, distances: Mapping[str, Distance]) -> Described:
    """Return the inputs of `anomaly_maps` for images in [0, 1] on the CPU."""
    flat = equalised(images)
    features = {name: (distance.features(images), distance.features(flat)) for name, distance in distances.items()}
    return Described(images, flat, features)


def anomaly_maps(images: Described, reconstructions: Described, distances: Mapping[str, Distance]) -> dict[str, Images]:
    """Return every map of images and their reconstructions by name, on the CPU.

    `MAPS` need nothing else. Each of the `distances` adds two maps: one of its name, and the score map of Bercea et al.
    (RA, `DownstreamEvaluator`), which is the CLAHE residual times the smoothed distances before and after CLAHE. With
    LPIPS, as theirs, it is called "ra-map"; with another distance, "clahe x NAME".
    """
    maps = {name: compute(images, reconstructions) for name, compute in MAPS.items()}
    for name, distance in distances.items():
        before, after = map(distance.between, images.features[name], reconstructions.features[name])
        maps[name] = before
        maps["ra-map" if name == "lpips" else f"clahe x {name}"] = maps["clahe"] * _smooth(before) * _smooth(after)
    return maps


def _smooth(maps: Images) -> Images:
    sigma = maps.shape[-1] / 64  # two pixels at the authors' 128
    return _stack(gaussian_filter(one_map, sigma) for one_map in maps[:, 0].numpy())


def _stack(maps: Iterable[np.ndarray]) -> Images:
    return torch.from_numpy(np.stack([np.asarray(m, dtype=np.float32) for m in maps]))[:, None]


MAPS: dict[str, Callable[[Described, Described], Images]] = {
    "residual": lambda images, redrawn: residual_map(images.images, redrawn.images),
    "squared": lambda images, redrawn: (images.images - redrawn.images).square(),
    "ssim": lambda images, redrawn: dissimilarity_map(images.images, redrawn.images),
    "clahe": lambda images, redrawn: residual_map(images.equalised, redrawn.equalised),
}
"""Name -> the map of images and their reconstructions, of those that need nothing else; names without a comma."""


def _top_mean(maps: Images) -> PerImage:
    pixels = maps.flatten(1)
    return pixels.topk(max(1, round(0.05 * pixels.shape[1])), dim=1).values.mean(dim=1)


POOLS: dict[str, Callable[[Images], PerImage]] = {
    "mean": lambda maps: maps.mean(dim=(1, 2, 3)),
    "p99": lambda maps: maps.flatten(1).quantile(0.99, dim=1),
    "top 5 %": _top_mean,
}
"""Name -> one number per map: the mean, the 99th percentile, the mean of the highest 5 % of the pixels."""
