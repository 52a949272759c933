"""Trained methods and images -> reconstructions -> all scores, without a label.

A score is a map and a pool, in two forms: plain and *standardised*. To standardise a map, the mean over the reference
normals is subtracted at each pixel and the difference divided by their standard deviation. So an edge that no method
reconstructs well counts less than a change where all normal images agree.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from lib.data.source import ImageStack
from lib.methods.method import Images, Method, PerImage, to_unit
from lib.scores.maps import POOLS, Distance, anomaly_maps, describe, residual_map

PRIMARY = "residual, mean"
"""The score of the primary comparison, fixed before any result: the mean absolute residual."""

CPU = torch.device("cpu")

Key = TypeVar("Key", bound=Hashable)  # identifies a method's reconstructions among others of the same images

Version = Callable[[ImageStack], tuple[Iterable[np.ndarray], dict[str, np.ndarray]]]
"""A method after some number of epochs: images -> their reconstructions by batch, and the method's own scores."""


class Standard(NamedTuple):
    """What the maps of normal images are at each pixel: (1, height, width) each, or (batch, 1, height, width)."""

    mean: Tensor
    deviation: Tensor  # at least `Moments.FLOOR` of its root mean square

    def __call__(self, maps: Images) -> Images:
        """Return the maps minus the mean, over the deviation."""
        return ((maps - self.mean) / self.deviation).float()


class Moments:
    """The mean and the standard deviation of maps, pixel by pixel, over images that come in batches."""

    FLOOR = 0.1  # least deviation, as a share of its root mean square: else a change where all images agree is infinite

    def __init__(self) -> None:
        self.count, self.sum, self.squares = 0, torch.zeros(()), torch.zeros(())

    def add(self, maps: Images) -> None:
        """Include a batch."""
        maps = maps.double()
        self.count += len(maps)
        self.sum, self.squares = self.sum + maps.sum(dim=0), self.squares + maps.square().sum(dim=0)

    def standard(self, without: Images | None = None) -> Standard:
        """Return the mean and the deviation, float64; for each map `without`, which was added, those of all others."""
        count, total, squares = self.count, self.sum, self.squares
        if without is not None:
            own = without.double()
            count, total, squares = count - 1, total - own, squares - own.square()
        mean = total / count
        variance = squares / count - mean.square()
        deviation = variance.where(variance > 1e-12 * squares / count, 0).sqrt()  # less is rounding: the images agree
        floor = self.FLOOR * deviation.square().mean(dim=(-2, -1), keepdim=True).sqrt()
        return Standard(mean, torch.maximum(deviation, floor).clamp(min=1e-12))


class Scored(NamedTuple):
    """The scores of some reconstructions, and what standardises the maps of further images."""

    scores: dict[str, dict[str, np.ndarray]]
    """By side and name, (n,) float64; a name is "map, pool" or "map, pool standardised"."""
    standards: dict[str, Standard]
    """By map, of the reference images."""


def reconstruct(method: Method, images: ImageStack, batch_size: int = 64, name: str = "reconstruct") -> np.ndarray:
    """Return the reconstructions of uint8 images, (n, height, width) float32 in [0, 1], in evaluation mode.

    A method that breaks the contract by drawing at random draws from a seed of each batch, its first image's row.
    """
    none = np.empty((0, *images.shape[1:]), dtype=np.float32)
    return np.concatenate([none, *reconstructed(method, images, batch_size, name)])


def reconstructed(
    method: Method, images: ImageStack, batch_size: int = 64, name: str = "reconstruct"
) -> Iterator[np.ndarray]:
    """Yield the batches of `reconstruct`; only one is in memory."""
    method.eval()
    device = next(method.parameters()).device
    for start in tqdm(range(0, len(images), batch_size), desc=name, unit="batch", mininterval=1, leave=False, delay=1):
        with torch.no_grad(), torch.random.fork_rng():  # left before the batch is handed on
            torch.manual_seed(start)
            batch = method.reconstruct(to_unit(images[start : start + batch_size], device))
        yield batch[:, 0].float().cpu().numpy()


@torch.no_grad()
def own_scores(method: Method, images: ImageStack, batch_size: int = 64) -> dict[str, np.ndarray]:
    """Return the method's own scores of uint8 images, which need no reconstruction: (n,) float64 by name."""
    method.eval()
    device = next(method.parameters()).device
    scores: dict[str, list[PerImage]] = defaultdict(list)
    for start in range(0, len(images), batch_size):
        for name, values in method.own_scores(to_unit(images[start : start + batch_size], device)).items():
            scores[name].append(values.double().cpu())
    return {name: torch.cat(batches).numpy() for name, batches in scores.items()}


def residuals(images: ImageStack, reconstructions: np.ndarray) -> np.ndarray:
    """Return the residual maps of uint8 images, (n, height, width) float32."""
    return residual_map(to_unit(images, CPU), _as_images(reconstructions))[:, 0].numpy()


class Residuals:
    """The residual maps of some rows of uint8 images, (n, height, width) float32, computed as they are read."""

    def __init__(self, images: ImageStack, reconstructions: np.ndarray, rows: np.ndarray) -> None:
        self._images, self._reconstructions, self._rows = images, reconstructions, rows
        self.shape = (len(rows), *images.shape[1:])

    def __getitem__(self, key: Any) -> np.ndarray:
        return residuals(self._images[self._rows[key]], self._reconstructions[self._rows[key]])


def _as_images(reconstructions: np.ndarray) -> Images:
    return torch.from_numpy(np.array(reconstructions))[:, None]  # copied: torch needs it writable, a memory map is not


@torch.no_grad()
def score_images(
    images: Mapping[str, ImageStack],
    reconstructions: Mapping[Key, Mapping[str, np.ndarray]],
    distances: Mapping[str, Distance],
    batch_size: int = 64,
) -> dict[Key, Scored]:
    """Return the scores by key.

    `images` are uint8 by side; `reconstructions` of them, by key and side, may be memory maps: one batch is in memory
    at a time. The side "reference" gives the mean and the deviation of the standardised scores. Its own images are
    standardised by all *other* reference images, and so are those of a side "lesions", which are the reference images
    with something painted in.

    Raises:
        ValueError: A side is empty, "reference" has fewer than two images, or "lesions" has another number of them.

    """
    counts = {side: len(stack) for side, stack in images.items()}
    reference = counts.get("reference", 0)
    if reference < 2 or not all(counts.values()) or counts.get("lesions", reference) != reference:
        raise ValueError(
            f"images by side: {counts}; expected some on each side, at least 2 of reference, because each is "
            "standardised by the others, and as many lesions: give the validation side more patients"
        )

    def maps_of(side: str, start: int) -> Iterator[tuple[Key, dict[str, Images]]]:
        batch = slice(start, start + batch_size)
        described = describe(to_unit(images[side][batch], CPU), distances)
        for key, by_side in reconstructions.items():
            yield key, anomaly_maps(described, describe(_as_images(by_side[side][batch]), distances), distances)

    moments: dict[Key, dict[str, Moments]] = {key: defaultdict(Moments) for key in reconstructions}
    scores: dict[Key, dict[str, dict[str, np.ndarray]]]
    scores = {
        key: {side: defaultdict(partial(np.empty, count)) for side, count in counts.items()} for key in reconstructions
    }

    def pool(key: Key, side: str, start: int, maps: Mapping[str, Images], without: Mapping[str, Images]) -> None:
        standards = {kind: moments[key][kind].standard(without.get(kind)) for kind in maps}
        for name, values in pooled(maps, standards).items():
            scores[key][side][name][start : start + len(values)] = values

    starts = {side: range(0, count, batch_size) for side, count in counts.items()}
    paired = [side for side in ("reference", "lesions") if side in images]
    total = sum(map(len, starts.values())) + len(starts["reference"])
    with tqdm(total=total, desc="scores", unit="batch", mininterval=1, leave=False) as progress:
        for start in starts["reference"]:
            for key, maps in maps_of("reference", start):
                for kind, batch in maps.items():
                    moments[key][kind].add(batch)
            progress.update()
        for start in starts["reference"]:
            for of_sides in zip(*(maps_of(side, start) for side in paired), strict=True):
                for side, (key, maps) in zip(paired, of_sides, strict=True):
                    pool(key, side, start, maps, without=of_sides[0][1])
            progress.update(len(paired))
        for side, start in [(other, start) for other in images if other not in paired for start in starts[other]]:
            for key, maps in maps_of(side, start):
                pool(key, side, start, maps, without={})
            progress.update()
    return {
        key: Scored(
            {side: dict(by_name) for side, by_name in by_side.items()},
            {kind: of.standard() for kind, of in moments[key].items()},
        )
        for key, by_side in scores.items()
    }


def pooled(maps: Mapping[str, Images], standards: Mapping[str, Standard]) -> dict[str, np.ndarray]:
    """Return every score of the maps by name, (batch,) float64; a map without a standard has the plain ones alone."""
    scores: dict[str, np.ndarray] = {}
    for kind, batch in maps.items():
        forms = {"": batch} | ({" standardised": standards[kind](batch)} if kind in standards else {})
        for form, values in forms.items():
            scores |= {f"{kind}, {name}{form}": pool(values).double().numpy() for name, pool in POOLS.items()}
    return scores
