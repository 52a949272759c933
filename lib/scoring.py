"""Reconstruction -> anomaly maps -> image scores, the same for every method and without a label.

A map says for each pixel how far a film is from its reconstruction, in one of several senses; a pool makes one number
of a map. Each pair is a score, once as it is and once *standardised*: the map's mean over the reference normals is
subtracted, pixel by pixel, and it is divided by their standard deviation, so that an edge that no method draws well
counts for less than a change where all normal films agree.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

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

Distance = Callable[[Images, Images], Images]
"""How far two images lie apart at each pixel, in features instead of greys."""


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


def feature_distance(features: Callable[[Images], list[Tensor]], device: torch.device) -> Distance:
    """Return the distance in these feature maps, computed on the device, as a function of images on the processor."""

    def distance(images: Images, others: Images) -> Images:
        pairs = zip(
            images.split(16), others.split(16), strict=True
        )  # more do not fit a processor's cache: half as fast
        size = images.shape[-2:]
        return torch.cat([perceptual_map(features(a.to(device)), features(b.to(device)), size).cpu() for a, b in pairs])

    return distance


def anomaly_maps(images: Images, reconstructions: Images, distances: Mapping[str, Distance]) -> dict[str, Images]:
    """Return every map by name, all on the processor.

    "residual", "squared", "ssim" and "clahe" (the residual after CLAHE) need nothing else. Each of the `distances` adds
    a map of its name, and one after Bercea et al. (RA, `DownstreamEvaluator`): the CLAHE residual times the smoothed
    distances before and after CLAHE. It is "ra-map" with LPIPS, as theirs is, else "clahe x " and the distance's name.
    """
    x, r = equalised(images), equalised(reconstructions)
    maps = {
        "residual": residual_map(images, reconstructions),
        "squared": (images - reconstructions).square(),
        "ssim": dissimilarity_map(images, reconstructions),
        "clahe": residual_map(x, r),
    }
    for name, distance in distances.items():
        before, after = distance(images, reconstructions), distance(x, r)
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
        self.count, self.sum, self.squares = 0, 0.0, 0.0

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
    made: Mapping[str, np.ndarray],
    distances: Mapping[str, Distance],
    batch_size: int = 64,
    name: str = "scores",
) -> dict[str, dict[str, np.ndarray]]:
    """Return each side's scores by name, (n,) float64; a name is a map, a pool and, if it is so, "standardised".

    `films` are uint8 and `made` their reconstructions, by side. The side "reference" gives the moments of the
    standardised scores; its own films, and those of a side "lesions", the same ones with something painted in, are
    standardised by all *other* reference films. In memory is one batch. Raises ValueError for fewer than two reference
    films, another number of lesions, and a side without films.
    """
    counts = {side: len(some) for side, some in films.items()}
    reference = counts.get("reference", 0)
    if reference < 2 or not all(counts.values()) or counts.get("lesions", reference) != reference:
        wanted = "some on each, at least 2 of reference, for each is standardised by the others, and as many lesions"
        raise ValueError(f"films by side: {counts}; expected {wanted}: give the validation side more patients")

    def maps(side: str, start: int) -> dict[str, Images]:
        images = to_unit(films[side][start : start + batch_size], torch.device("cpu"))
        return anomaly_maps(images, torch.from_numpy(made[side][start : start + batch_size])[:, None], distances)

    moments: dict[str, Moments] = defaultdict(Moments)
    scores: dict[str, dict[str, list[PerImage]]] = {side: defaultdict(list) for side in films}
    starts = {side: range(0, len(films[side]), batch_size) for side in films}
    total = sum(map(len, starts.values())) + len(starts["reference"])
    with tqdm(total=total, desc=name, unit="batch", mininterval=1) as progress:
        for start in starts["reference"]:
            for kind, batch in maps("reference", start).items():
                moments[kind].add(batch)
            progress.update()
        for side, start in [(side, start) for side, several in starts.items() for start in several]:
            own = maps("reference", start) if side == "lesions" else {}
            for kind, batch in maps(side, start).items():
                without = batch if side == "reference" else own.get(kind)
                for form, values in (("", batch), (" standardised", moments[kind].standardise(batch, without))):
                    for pool, pooled in POOLS.items():
                        scores[side][f"{kind}, {pool}{form}"].append(pooled(values).double())
            progress.update()
    return {side: {key: torch.cat(parts).numpy() for key, parts in by_key.items()} for side, by_key in scores.items()}
