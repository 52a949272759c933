"""Reference rows that need no training loop: what a simple or a frozen way to learn the normal chest already reaches.

Everything is fitted on the training films, which are normal; of the records the view alone is read, and never a label.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from sklearn.random_projection import GaussianRandomProjection
from torch import Tensor
from tqdm import tqdm

from lib.cache import Films
from lib.features import Backbone, FeaturesError, extract

COMPONENTS, PCA_PIXELS = 16, 2**25  # PCA sees 2,048 films of 128 px, fewer of larger ones: 130 MB
NEIGHBOURS = 5  # of 1, 5, 10 and 20 the best on pediatric training films, and of little weight there: 0.944 to 0.950
POOLED, PATCHED = slice(1, 4), slice(2, 4)  # stages: 1/4 to 1/16 of the side; 1/8 and 1/16 for patches
PATCHES, CORESET, PROJECTED = 40_000, 2_000, 64  # patches drawn, kept, and their length while those are chosen
REWEIGHTING = 9  # neighbours in the bank that PatchCore's image score looks at
FEATURE_ROWS = ("knn", "mahalanobis", "patchcore")

FilmSet = np.ndarray | Films
"""uint8 images, (n, height, width)."""

BySide = dict[str, np.ndarray]
"""One array a side, in the order of its records."""

Fitted = Callable[[FilmSet], tuple[np.ndarray, dict[str, np.ndarray]]]
"""Films -> their reconstructions, and nothing of its own beside."""


@dataclass(frozen=True)
class References:
    """What each row gives: a score a film, or reconstructions that every score applies to; or why it was left out."""

    scores: dict[str, BySide] = field(default_factory=dict)
    """(n,) float64 by side, of every row but "mean-image" and "pca"; higher is more anomalous."""
    fitted: dict[str, Fitted] = field(default_factory=dict)
    """Of "mean-image" and "pca": uint8 films -> reconstructions, float32 in [0, 1], and no scores of their own."""
    left_out: dict[str, str] = field(default_factory=dict)
    """The reason, by row."""


def reference_rows(
    names: Sequence[str],
    train: FilmSet,
    films: Mapping[str, FilmSet],
    records: Mapping[str, pd.DataFrame],
    backbone: Backbone | FeaturesError,
    seed: int,
) -> References:
    """Return these rows, fitted on the training films, for the films of each side; what cannot be had has its reason.

    mean-grey    the film's mean grey, in [0, 1]: brighter counts as more anomalous, for opacities are white
    mean-image   reconstruction: the mean training film, whatever is shown
    pca          reconstruction: from 16 principal components of at most 2**25 pixels of training films, drawn by `seed`
    knn          mean cosine distance to the 5 nearest training films; features of three stages, pooled over space
    mahalanobis  distance from the training films' Gaussian, same features, Ledoit-Wolf shrinkage (Rippel et al., 2021)
    patchcore    see `PatchCore`
    view         "ap-view": 1 for an AP film, 0 for any other; NaN for a whole side where not every film's view is known

    `backbone` may be the error with which it could not be had.
    """
    made = References()
    if "mean-grey" in names:
        made.scores["mean-grey"] = {
            side: np.concatenate([batch.mean(axis=(1, 2)) for batch in _batches(some)]) / 255
            for side, some in films.items()
        }
    if "mean-image" in names:
        mean = sum(batch.sum(axis=0, dtype=np.float64) for batch in _batches(train)) / len(train) / 255
        made.fitted["mean-image"] = lambda some: (np.tile(mean.astype(np.float32), (len(some), 1, 1)), {})
    if "pca" in names:
        made.fitted["pca"] = _pca(train, seed)
    if "view" in names:
        if missing := int((records["test"]["view"] == "").sum()):
            made.left_out["view"] = f"{missing} of {len(records['test'])} test records have no view"
        else:
            made.scores["ap-view"] = {side: _is_ap(some["view"]) for side, some in records.items()}
    if wanted := [name for name in FEATURE_ROWS if name in names]:
        if isinstance(backbone, FeaturesError):
            made.left_out.update(dict.fromkeys(wanted, f"no backbone: {backbone}"))
        else:
            made.scores.update(_feature_rows(wanted, train, {side: films[side] for side in records}, backbone, seed))
    return made


def _is_ap(view: pd.Series) -> np.ndarray:
    return (view.str.upper() == "AP").to_numpy(float) if (view != "").all() else np.full(len(view), np.nan)


def _batches(films: FilmSet, size: int = 256) -> Iterator[np.ndarray]:
    return (films[start : start + size] for start in range(0, len(films), size))


def _pca(train: FilmSet, seed: int) -> Fitted:
    """Return what projects films on the components of the training films and back."""
    height, width = train.shape[1:]
    count = min(len(train), max(PCA_PIXELS // (height * width), COMPONENTS))
    drawn = np.sort(np.random.default_rng([seed, 30]).permutation(len(train))[:count])
    pca = PCA(min(COMPONENTS, count), svd_solver="randomized", random_state=seed)
    pca.fit(train[drawn].reshape(count, -1).astype(np.float32) / 255)

    def reconstruct(batch: np.ndarray) -> np.ndarray:
        flat = batch.reshape(len(batch), -1).astype(np.float32) / 255
        return pca.inverse_transform(pca.transform(flat)).clip(0, 1).astype(np.float32).reshape(batch.shape)

    return lambda films: (np.concatenate([reconstruct(batch) for batch in _batches(films)]), {})


class PatchCore:
    """How far each patch lies from the nearest of a few normal patches (Roth et al., CVPR 2022).

    Departures: the patches that the coreset is chosen from are a draw; it has a fixed size, not 1 or 10 percent; the
    channels are taken as they are, not brought to 1,024.
    """

    def __init__(self, patches: np.ndarray, seed: int) -> None:
        """Choose the coreset of normal patches, (n, channels) float32: greedily, each the farthest from those before.

        Distances while choosing are those of a random projection (sections 3.2 and 4.2).
        """
        lengths = min(PROJECTED, patches.shape[1])
        points = torch.from_numpy(GaussianRandomProjection(lengths, random_state=seed).fit_transform(patches))
        squares, chosen = points.square().sum(dim=1), [0]  # the order is random, so the first is as good as any
        nearest = torch.full_like(squares, torch.inf)
        for _ in tqdm(range(1, min(CORESET, len(patches))), desc="patchcore: coreset", unit="patch", mininterval=1):
            last = chosen[-1]
            nearest = torch.minimum(nearest, squares + squares[last] - 2 * points @ points[last])
            chosen.append(int(nearest.argmax()))
        self.bank = torch.from_numpy(patches[chosen])

    def __call__(self, patches: Tensor) -> np.ndarray:
        """Return the score, (batch,), of patches (batch, channels, height, width).

        It is the farthest patch's distance, smaller if its match is rare among the bank too (eq. 6 and 7).
        """
        self.bank = self.bank.to(patches.device)
        scores = []
        for film in patches:  # one at a time: the distances of a film of 1,024 px are 130 MB
            distances, matches = torch.cdist(film.flatten(1).mT, self.bank).min(dim=1)
            worst = distances.argmax()
            around = torch.cdist(self.bank[matches[worst], None], self.bank)[0]
            around = around.topk(min(REWEIGHTING, len(self.bank)), largest=False).indices  # the match itself is first
            rarity = torch.cdist(film.flatten(1).mT[worst, None], self.bank[around])[0].softmax(dim=0)[0]
            scores.append(((1 - rarity) * distances[worst]).item())
        return np.array(scores)


def _patches(maps: list[Tensor]) -> Tensor:
    """Return two middle stages' features, means of 3 × 3, at the finer one's places: (batch, channels, h, w)."""
    pooled = [F.avg_pool2d(stage, 3, stride=1, padding=1) for stage in maps[PATCHED]]
    return torch.cat([F.interpolate(stage, size=pooled[0].shape[-2:], mode="bilinear") for stage in pooled], dim=1)


def _pooled(maps: list[Tensor]) -> np.ndarray:
    return torch.cat([stage.mean(dim=(2, 3)) for stage in maps[POOLED]], dim=1).double().cpu().numpy()


def _feature_rows(
    wanted: list[str], train: FilmSet, sides: dict[str, FilmSet], backbone: Backbone, seed: int
) -> dict[str, BySide]:
    """Return the scores of the rows that look at frozen features; each film passes through the backbone once."""
    random = np.random.default_rng([seed, 31])
    vectors, patches, per_film = [], [], -(-PATCHES // len(train))
    for maps in extract(backbone, train, "features of train"):
        vectors.append(_pooled(maps))
        if "patchcore" in wanted:
            places = _patches(maps).flatten(2).mT.cpu().numpy()
            patches += [film[random.permutation(len(film))[:per_film]] for film in places]
    normal = np.concatenate(vectors)
    patchcore = PatchCore(random.permutation(np.concatenate(patches)), seed) if patches else None
    nearest = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(normal)), metric="cosine").fit(normal)
    gaussian = LedoitWolf().fit(normal) if "mahalanobis" in wanted else None

    scores: dict[str, BySide] = {row: {} for row in wanted}
    for side, films in sides.items():
        vectors, farthest = [], []
        for maps in extract(backbone, films, f"features of {side}"):
            vectors.append(_pooled(maps))
            if patchcore:
                farthest.append(patchcore(_patches(maps)))
        pooled = np.concatenate(vectors)
        if "knn" in wanted:
            scores["knn"][side] = nearest.kneighbors(pooled)[0].mean(axis=1)
        if gaussian:
            scores["mahalanobis"][side] = np.sqrt(gaussian.mahalanobis(pooled))
        if patchcore:
            scores["patchcore"][side] = np.concatenate(farthest)
    return scores
