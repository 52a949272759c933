"""References that need no training loop: what simple statistics and frozen features already achieve.

Everything is fitted on the training images, which are normal. Of the records only the view and the size of the file are
read, never a label.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat

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

from lib.data.source import SIZES, ImageStack
from lib.scores.features import Backbone, FeaturesError, extract
from lib.scores.scoring import Version

COMPONENTS, PCA_PIXELS = 16, 2**25  # PCA sees 2,048 images of 128 px, fewer of larger ones: 130 MB
NEIGHBOURS = 5  # the best of 1, 5, 10 and 20 on pediatric training images, by little: 0.944 to 0.950
POOLED, PATCHED = slice(1, 4), slice(2, 4)  # stages: 1/4 to 1/16 of the side; 1/8 and 1/16 for patches
PATCHES, CORESET, PROJECTED = 40_000, 2_000, 64  # patches drawn, kept, and their length while those are chosen
REWEIGHTING = 9  # neighbours in the bank that PatchCore's image score looks at
NEED_FEATURES = ("knn", "mahalanobis", "patchcore")

RECORDED: dict[str, tuple[str, Callable[[pd.DataFrame], np.ndarray]]] = {
    "view": ("ap-view", lambda table: (table["view"].str.upper() == "AP").where(table["view"] != "").to_numpy(float)),
    "file-size": ("file-size", lambda table: -table[SIZES[0]].to_numpy(float)),
}
"""What a reference that is read from the records is called among the scores, and how it is read; NaN where unknown."""

BySide = dict[str, np.ndarray]
"""One array per side, in the order of its records."""


@dataclass(frozen=True)
class References:
    """The outcome of each reference, by name: scores, or reconstructions to score, or why it was left out."""

    scores: dict[str, BySide] = field(default_factory=dict)
    """(n,) float64 by side, of all but "mean-image" and "pca"; higher is more anomalous."""
    fitted: dict[str, Version] = field(default_factory=dict)
    """"mean-image" and "pca": uint8 images -> reconstructions, float32 in [0, 1], by batch, and no own scores."""
    left_out: dict[str, str] = field(default_factory=dict)
    """The reason."""


def reference_scores(
    names: Sequence[str],
    train: ImageStack,
    images: Mapping[str, ImageStack],
    records: Mapping[str, pd.DataFrame],
    backbone: Backbone | FeaturesError,
    seed: int,
) -> References:
    """Return these references, fitted on the training images, for the images of each side.

    mean-grey    the image's mean grey, in [0, 1]: brighter counts as more anomalous, because opacities are white
    mean-image   reconstruction: the mean training image, whatever the image
    pca          reconstruction: from 16 principal components of at most 2**25 pixels of training images by `seed`
    knn          mean cosine distance to the 5 nearest training images; features of three stages, pooled over space
    mahalanobis  distance from the training images' Gaussian, same features, Ledoit-Wolf shrinkage (Rippel et al., 2021)
    patchcore    see `PatchCore`
    view         "ap-view": 1 for an AP image, 0 for any other; NaN on a side where a view is unknown
    file-size    minus the bytes of the original file: an opacity hides markings, and a smooth image compresses better;
                 NaN on a side where a size is unknown

    If there is no frozen network, `backbone` is the error that says why, and the references that need it are left out.
    """
    references = References()
    if "mean-grey" in names:
        references.scores["mean-grey"] = {
            side: np.concatenate([batch.mean(axis=(1, 2)) for batch in _batches(stack)]) / 255
            for side, stack in images.items()
        }
    if "mean-image" in names:
        mean = sum(batch.sum(axis=0, dtype=np.float64) for batch in _batches(train)) / len(train) / 255
        redrawn = mean.astype(np.float32)[None]
        references.fitted["mean-image"] = lambda stack: (repeat(redrawn, len(stack)), {})
    if "pca" in names:
        references.fitted["pca"] = principal_components(train, seed)
    for name in [name for name in RECORDED if name in names]:
        score, read = RECORDED[name]
        by_side = {side: read(table) for side, table in records.items()}
        if missing := int(np.isnan(by_side["test"]).sum()):
            references.left_out[name] = f"{missing} of {len(by_side['test'])} test records have no {name}"
        else:
            unknown = {
                side: np.full(len(of_side), np.nan) for side, of_side in by_side.items() if np.isnan(of_side).any()
            }
            references.scores[score] = by_side | unknown
    if wanted := [name for name in NEED_FEATURES if name in names]:
        if isinstance(backbone, FeaturesError):
            references.left_out.update(dict.fromkeys(wanted, f"no backbone: {backbone}"))
        else:
            sides = {side: images[side] for side in records}
            references.scores.update(_feature_scores(wanted, train, sides, backbone, seed))
    return references


def _batches(images: ImageStack, size: int = 256) -> Iterator[np.ndarray]:
    return (images[start : start + size] for start in range(0, len(images), size))


def principal_components(train: ImageStack, seed: int, components: int = COMPONENTS) -> Version:
    """Return the projection of images on the training images' principal components and back."""
    height, width = train.shape[1:]
    count = min(len(train), max(PCA_PIXELS // (height * width), components))
    drawn = np.sort(np.random.default_rng([seed, 30]).permutation(len(train))[:count])
    pca = PCA(min(components, count), svd_solver="randomized", random_state=seed)
    pca.fit(train[drawn].reshape(count, -1).astype(np.float32) / 255)

    def reconstruct(batch: np.ndarray) -> np.ndarray:
        flat = batch.reshape(len(batch), -1).astype(np.float32) / 255
        return pca.inverse_transform(pca.transform(flat)).clip(0, 1).astype(np.float32).reshape(batch.shape)

    return lambda images: (map(reconstruct, _batches(images)), {})


class PatchCore:
    """The distance of each patch to the nearest of a few normal patches (Roth et al., CVPR 2022).

    Departures: the coreset is chosen from a random sample of patches; it has a fixed size, not 1 or 10 percent of them;
    channels are used as they are, not brought to 1,024.
    """

    def __init__(self, patches: np.ndarray, seed: int) -> None:
        """Choose the coreset of normal patches, (n, channels) float32: greedily, each the farthest from those chosen.

        Distances while choosing are those of a random projection (sections 3.2 and 4.2).
        """
        lengths = min(PROJECTED, patches.shape[1])
        points = torch.from_numpy(GaussianRandomProjection(lengths, random_state=seed).fit_transform(patches))
        chosen = [0]  # the order is random, so the first is as good as any
        nearest = torch.full((len(points),), torch.inf)
        for _ in tqdm(
            range(1, min(CORESET, len(patches))), desc="patchcore: coreset", unit="patch", mininterval=1, leave=False
        ):
            # By differences: by products of float32, a far point would keep a distance from itself and be chosen again.
            last = torch.cdist(points, points[chosen[-1:]], compute_mode="donot_use_mm_for_euclid_dist")[:, 0]
            nearest = torch.minimum(nearest, last)
            chosen.append(int(nearest.argmax()))
        self.bank = torch.from_numpy(patches[chosen])

    def __call__(self, patches: Tensor) -> np.ndarray:
        """Return the score, (batch,), of patches (batch, channels, height, width).

        It is the distance of the farthest patch, reduced if its nearest normal patch is itself rare (eq. 6 and 7).
        """
        self.bank = self.bank.to(patches.device)
        scores = []
        for image in patches:  # one at a time: the distances of an image of 1,024 px are 130 MB
            distances, matches = torch.cdist(image.flatten(1).mT, self.bank).min(dim=1)
            worst = distances.argmax()
            around = torch.cdist(self.bank[matches[worst], None], self.bank)[0]
            around = around.topk(min(REWEIGHTING, len(self.bank)), largest=False).indices  # the match itself is first
            rarity = torch.cdist(image.flatten(1).mT[worst, None], self.bank[around])[0].softmax(dim=0)[0]
            scores.append(((1 - rarity) * distances[worst]).item())
        return np.array(scores)


def _patches(maps: list[Tensor]) -> Tensor:
    """Return two middle stages' features, averaged 3 × 3, at the finer resolution: (batch, channels, h, w)."""
    pooled = [F.avg_pool2d(stage, 3, stride=1, padding=1) for stage in maps[PATCHED]]
    return torch.cat([F.interpolate(stage, size=pooled[0].shape[-2:], mode="bilinear") for stage in pooled], dim=1)


def _pooled(maps: list[Tensor]) -> np.ndarray:
    return torch.cat([stage.mean(dim=(2, 3)) for stage in maps[POOLED]], dim=1).double().cpu().numpy()


def pooled_features(backbone: Backbone, images: ImageStack) -> np.ndarray:
    """Return what "knn" compares of uint8 images, (n, channels) float32: features of three stages, pooled."""
    return np.concatenate([_pooled(maps) for maps in extract(backbone, images, "features")]).astype(np.float32)


def _feature_scores(
    wanted: list[str], train: ImageStack, sides: dict[str, ImageStack], backbone: Backbone, seed: int
) -> dict[str, BySide]:
    """Return the scores of the references in frozen features; each image passes through the backbone once."""
    random = np.random.default_rng([seed, 31])
    vectors, patches, per_image = [], [], -(-PATCHES // len(train))
    for maps in extract(backbone, train, "features of train"):
        vectors.append(_pooled(maps))
        if "patchcore" in wanted:
            places = _patches(maps).flatten(2).mT.cpu().numpy()
            patches += [image[random.permutation(len(image))[:per_image]] for image in places]
    normal = np.concatenate(vectors)
    patchcore = PatchCore(random.permutation(np.concatenate(patches)), seed) if patches else None
    nearest = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(normal)), metric="cosine").fit(normal)
    gaussian = LedoitWolf().fit(normal) if "mahalanobis" in wanted else None

    scores: dict[str, BySide] = {name: {} for name in wanted}
    for side, images in sides.items():
        vectors, farthest = [], []
        for maps in extract(backbone, images, f"features of {side}"):
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
