"""Reconstruction -> anomaly maps -> image scores, the same for every method and without a label.

A map says for each pixel how far a film is from its reconstruction, in one of several senses; a pool makes one number
of a map. Each pair is a score, once as it is and once *standardised*: the map's mean over the reference normals is
subtracted, pixel by pixel, and it is divided by their standard deviation, so that an edge that no method draws well
counts for less than a change where all normal films agree.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from skimage.exposure import equalize_adapthist
from skimage.metrics import structural_similarity
from torch import Tensor
from tqdm import tqdm

from lib.cache import Films
from lib.dataset import to_unit
from lib.features import perceptual_map
from lib.method import Images, Method, PerImage

PRIMARY = "residual, mean"
"""The score of the primary comparison, fixed before any result: the mean absolute residual."""

Key = TypeVar("Key", bound=Hashable)  # tells apart what has been made of the same films


class Distance(NamedTuple):
    """How far two images lie apart at each pixel, in features instead of greys."""

    features: Callable[[Images], Any]  # what of an image is compared
    between: Callable[[Any, Any], Images]  # the features of two -> their distance at each pixel, on the processor
    owner: str = ""  # the method whose training it needs; without one, anybody has it


class Described(NamedTuple):
    """What the maps compare of images: a film is described once, for all that has been made of it."""

    images: Images
    equalised: Images
    features: dict[str, tuple[Any, Any]]  # by distance, of the images and of the equalised ones


def residual_map(images: Images, reconstructions: Images) -> Images:
    """Return the absolute difference of each pixel, in [0, 1]: where the method would not have put what it saw."""
    return (images - reconstructions).abs()


def dissimilarity_map(images: Images, reconstructions: Images) -> Images:
    """Return one minus the local structural similarity, in [0, 2]; 7x7 windows (Wang et al., IEEE TIP 2004)."""
    pairs = zip(images[:, 0].numpy(), reconstructions[:, 0].numpy(), strict=True)
    return _stack(1 - structural_similarity(x, r, data_range=1, full=True)[1] for x, r in pairs)


def equalised(images: Images) -> Images:
    """Return the images after contrast-limited adaptive histogram equalisation (CLAHE, Zuiderveld 1994), in [0, 1]."""
    return _stack(equalize_adapthist(x.clip(0, 1)) for x in images[:, 0].numpy())


def feature_distance(features: Callable[[Images], list[Tensor]], device: torch.device, owner: str = "") -> Distance:
    """Return the distance in these feature maps, computed on the device, a few images at a time."""

    def described(images: Images) -> list[tuple[torch.Size, list[Tensor]]]:
        few = images.split(16)  # more do not fit a processor's cache: half as fast
        return [(some.shape[-2:], features(some.to(device))) for some in few]

    def between(ones: list, others: list) -> Images:
        return torch.cat([perceptual_map(a, b, size).cpu() for (size, a), (_, b) in zip(ones, others, strict=True)])

    return Distance(described, between, owner)


def describe(images: Images, distances: Mapping[str, Distance]) -> Described:
    """Return what `anomaly_maps` compares of images in [0, 1], on the processor."""
    after = equalised(images)
    return Described(
        images, after, {name: (one.features(images), one.features(after)) for name, one in distances.items()}
    )


def anomaly_maps(films: Described, made: Described, distances: Mapping[str, Distance]) -> dict[str, Images]:
    """Return every map of films and their reconstructions by name, all on the processor.

    "residual", "squared", "ssim" and "clahe" (the residual after CLAHE) need nothing else. Each of the `distances` adds
    a map of its name, and one after Bercea et al. (RA, `DownstreamEvaluator`): the CLAHE residual times the smoothed
    distances before and after CLAHE. It is "ra-map" with LPIPS, as theirs is, else "clahe x " and the distance's name.
    """
    maps = {
        "residual": residual_map(films.images, made.images),
        "squared": (films.images - made.images).square(),
        "ssim": dissimilarity_map(films.images, made.images),
        "clahe": residual_map(films.equalised, made.equalised),
    }
    for name, distance in distances.items():
        before, after = map(distance.between, films.features[name], made.features[name])
        maps[name] = before
        maps["ra-map" if name == "lpips" else f"clahe x {name}"] = maps["clahe"] * _smooth(before) * _smooth(after)
    return maps


def _smooth(maps: Images) -> Images:
    sigma = maps.shape[-1] / 64  # two pixels at the authors' 128
    return _stack(gaussian_filter(one, sigma) for one in maps[:, 0].numpy())


def _stack(maps: Iterator[np.ndarray]) -> Images:
    return torch.from_numpy(np.stack([np.asarray(m, dtype=np.float32) for m in maps]))[:, None]


def image_score(maps: Images) -> PerImage:
    """Return the mean of each map; higher is more anomalous."""
    return maps.mean(dim=(1, 2, 3))


def top_share(maps: Images, share: float = 0.05) -> PerImage:
    """Return the mean of the highest 5 % of each map's pixels."""
    pixels = maps.flatten(1)
    return pixels.topk(max(1, round(share * pixels.shape[1])), dim=1).values.mean(dim=1)


POOLS: dict[str, Callable[[Images], PerImage]] = {
    "mean": image_score,
    "p99": lambda maps: maps.flatten(1).quantile(0.99, dim=1),
    "top 5 %": top_share,
}


class Moments:
    """The mean and the standard deviation of maps, pixel by pixel, over films that come in batches."""

    FLOOR = 0.1  # of the root mean square over the pixels: where all films agree exactly, any change would be infinite

    def __init__(self) -> None:
        self.count, self.sum, self.squares = 0, torch.zeros(()), torch.zeros(())

    def add(self, maps: Images) -> None:
        """Take a batch in."""
        maps = maps.double()
        self.count += len(maps)
        self.sum, self.squares = self.sum + maps.sum(dim=0), self.squares + maps.square().sum(dim=0)

    def standardise(self, maps: Images, without: Images | None = None) -> Images:
        """Return maps minus the mean, over the standard deviation; `without` these films' own maps, if they are in."""
        count, total, squares = self.count, self.sum, self.squares
        if without is not None:
            own = without.double()
            count, total, squares = count - 1, total - own, squares - own.square()
        mean = total / count
        variance = squares / count - mean.square()
        deviation = variance.where(variance > 1e-12 * squares / count, 0).sqrt()  # less is rounding: the films agree
        floor = self.FLOOR * deviation.square().mean(dim=(-2, -1), keepdim=True).sqrt()
        return ((maps - mean) / torch.maximum(deviation, floor).clamp(min=1e-12)).float()


@torch.no_grad()
def reconstruct(
    method: Method, images: np.ndarray | Films, batch_size: int = 64, name: str = "reconstruct"
) -> np.ndarray:
    """Return the reconstructions of uint8 images, (n, height, width) float32 in [0, 1], in evaluation mode.

    A method that draws, against the contract, draws from seed 0.
    """
    method.eval()
    device = next(method.parameters()).device
    made = np.empty(images.shape, dtype=np.float32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for start in tqdm(range(0, len(images), batch_size), desc=name, unit="batch", mininterval=1):
            batch = to_unit(images[start : start + batch_size], device)
            made[start : start + batch_size] = method.reconstruct(batch)[:, 0].cpu().numpy()
    return made


@torch.no_grad()
def own_scores(method: Method, images: np.ndarray | Films, batch_size: int = 64) -> dict[str, np.ndarray]:
    """Return what the method itself says of uint8 images beside their reconstructions, (n,) float64 by name."""
    method.eval()
    device = next(method.parameters()).device
    scores: dict[str, list[PerImage]] = defaultdict(list)
    for start in range(0, len(images), batch_size):
        for key, values in method.own_scores(to_unit(images[start : start + batch_size], device)).items():
            scores[key].append(values.double().cpu())
    return {key: torch.cat(parts).numpy() for key, parts in scores.items()}


def residuals(images: np.ndarray | Films, reconstructions: np.ndarray) -> np.ndarray:
    """Return the residual maps of uint8 images, (n, height, width) float32."""
    made = torch.from_numpy(np.array(reconstructions))[:, None]  # copied: torch wants it writable, and it may be a file
    return residual_map(to_unit(images, torch.device("cpu")), made)[:, 0].numpy()


@torch.no_grad()
def score_films(
    films: Mapping[str, np.ndarray | Films],
    made: Mapping[Key, Mapping[str, np.ndarray]],
    distances: Mapping[str, Distance],
    batch_size: int = 64,
) -> dict[Key, dict[str, dict[str, np.ndarray]]]:
    """Return each side's scores by name, (n,) float64, of all that has been made of the same films.

    A name is a map, a pool and, if it is so, "standardised". `films` are uint8, by side, and `made` holds several
    methods' reconstructions of them. The side "reference" gives the moments of the standardised scores; its own films,
    and those of a side "lesions", the same ones with something painted in, are standardised by all *other* reference
    films. In memory is one batch. Raises ValueError for fewer than two reference films, another number of lesions, and
    a side without films.
    """
    counts = {side: len(some) for side, some in films.items()}
    reference = counts.get("reference", 0)
    if reference < 2 or not all(counts.values()) or counts.get("lesions", reference) != reference:
        wanted = "some on each, at least 2 of reference, for each is standardised by the others, and as many lesions"
        raise ValueError(f"films by side: {counts}; expected {wanted}: give the validation side more patients")

    def maps(side: str, start: int) -> Iterator[tuple[Key, dict[str, Images]]]:
        batch = slice(start, start + batch_size)
        described = describe(to_unit(films[side][batch], torch.device("cpu")), distances)
        for key, of_side in made.items():
            images = torch.from_numpy(np.array(of_side[side][batch]))[:, None]  # copied: it may be a file
            yield key, anomaly_maps(described, describe(images, distances), distances)

    moments: dict[Key, dict[str, Moments]] = {key: defaultdict(Moments) for key in made}
    scores: dict[Key, dict[str, dict[str, list[Tensor]]]]
    scores = {key: {side: defaultdict(list) for side in films} for key in made}

    def pool(key: Key, side: str, by_kind: Mapping[str, Images], without: Mapping[str, Images]) -> None:
        for kind, batch in by_kind.items():
            standardised = moments[key][kind].standardise(batch, without.get(kind))
            for form, values in (("", batch), (" standardised", standardised)):
                for name, pooled in POOLS.items():
                    scores[key][side][f"{kind}, {name}{form}"].append(pooled(values).double())

    starts = {side: range(0, len(some), batch_size) for side, some in films.items()}
    together = [side for side in ("reference", "lesions") if side in films]
    total = sum(map(len, starts.values())) + len(starts["reference"])
    with tqdm(total=total, desc="scores", unit="batch", mininterval=1) as progress:
        for start in starts["reference"]:
            for key, by_kind in maps("reference", start):
                for kind, batch in by_kind.items():
                    moments[key][kind].add(batch)
            progress.update()
        for start in starts["reference"]:
            for of_sides in zip(*(maps(side, start) for side in together), strict=True):
                for side, (key, by_kind) in zip(together, of_sides, strict=True):
                    pool(key, side, by_kind, without=of_sides[0][1])
            progress.update(len(together))
        for side, start in [(other, start) for other in films if other not in together for start in starts[other]]:
            for key, by_kind in maps(side, start):
                pool(key, side, by_kind, without={})
            progress.update()
    return {
        key: {side: {name: torch.cat(parts).numpy() for name, parts in by_name.items()} for side, by_name in of.items()}
        for key, of in scores.items()
    }
