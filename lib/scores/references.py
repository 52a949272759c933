"""References that need no training loop: what simple statistics and frozen features already achieve.

Everything is fitted on the training images, which are normal. Of the records only the view and the size of the file are
read, never a label.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import repeat
from typing import NamedTuple

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
CALLED = {"view": "ap-view"}  # among the scores; the others have the reference's own name

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
    """Return these of the `REFERENCES`, fitted on the training images, for the images of each side.

    If there is no frozen network, `backbone` is the error that says why, and the references that need it are left out.
    """
    references, inputs = References(), Inputs(names, train, images, records, backbone, seed)
    for name in [name for name in REFERENCES if name in names]:
        try:
            outcome = REFERENCES[name](inputs)
        except LeftOut as reason:
            references.left_out[name] = str(reason)
            continue
        if callable(outcome):
            references.fitted[name] = outcome
        else:
            references.scores[CALLED.get(name, name)] = outcome
    return references


class LeftOut(Exception):
    """A reference cannot be had; the message is the reason."""


class Features(NamedTuple):
    """What the references in frozen features share, each image having passed through the backbone once."""

    train: np.ndarray
    """The training images' features of three stages, pooled over space, (n, channels) float64."""
    sides: BySide
    """The same of each side that has records."""
    patchcore: BySide
    """The scores of `PatchCore`, if the run names it."""


@dataclass(frozen=True)
class Inputs:
    """What a reference may look at, none of it a label."""

    names: Sequence[str]
    """Of all the references that the run names."""
    train: ImageStack
    """The normal images to fit on, uint8."""
    images: Mapping[str, ImageStack]
    """The images to score, by side; "lesions" are those of "reference" with lesions painted in, and have no records."""
    records: Mapping[str, pd.DataFrame]
    backbone: Backbone | FeaturesError
    seed: int

    @cached_property
    def features(self) -> Features:
        """The frozen network's features; raises LeftOut if there is no network."""
        if isinstance(self.backbone, FeaturesError):
            raise LeftOut(f"no backbone: {self.backbone}")
        return _features(self, self.backbone)


def mean_grey(inputs: Inputs) -> BySide:
    """The image's mean grey, in [0, 1]: brighter counts as more anomalous, because opacities are white."""
    return {
        side: np.concatenate([batch.mean(axis=(1, 2)) for batch in _batches(stack)]) / 255
        for side, stack in inputs.images.items()
    }


def mean_image(inputs: Inputs) -> Version:
    """The mean training image is the reconstruction, whatever the image."""
    mean = sum(batch.sum(axis=0, dtype=np.float64) for batch in _batches(inputs.train)) / len(inputs.train) / 255
    redrawn = mean.astype(np.float32)[None]
    return lambda stack: (repeat(redrawn, len(stack)), {})


def recorded(name: str, read: Callable[[pd.DataFrame], np.ndarray], inputs: Inputs) -> BySide:
    """What `read` finds in the records of a side, NaN where it is unknown; such a side has no scores."""
    by_side = {side: read(table) for side, table in inputs.records.items()}
    if missing := int(np.isnan(by_side["test"]).sum()):
        raise LeftOut(f"{missing} of {len(by_side['test'])} test records have no {name}")
    return {side: np.full(len(of), np.nan) if np.isnan(of).any() else of for side, of in by_side.items()}


def nearest_neighbours(inputs: Inputs) -> BySide:
    """The mean cosine distance to the 5 nearest training images, in pooled features."""
    train, sides, _ = inputs.features
    nearest = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(train)), metric="cosine").fit(train)
    return {side: nearest.kneighbors(pooled)[0].mean(axis=1) for side, pooled in sides.items()}


def mahalanobis(inputs: Inputs) -> BySide:
    """The distance from the Gaussian of pooled features, with Ledoit-Wolf shrinkage (Rippel et al., ICPR 2021)."""
    train, sides, _ = inputs.features
    gaussian = LedoitWolf().fit(train)
    return {side: np.sqrt(gaussian.mahalanobis(pooled)) for side, pooled in sides.items()}


def _ap_view(table: pd.DataFrame) -> np.ndarray:
    return (table["view"].str.upper() == "AP").where(table["view"] != "").to_numpy(float)


def _smallness(table: pd.DataFrame) -> np.ndarray:
    """Minus the file's bytes: an opacity hides markings, and a smooth image compresses better."""
    return -table[SIZES[0]].to_numpy(float)


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


def _features(inputs: Inputs, backbone: Backbone) -> Features:
    """Pass each image through the backbone once, for all references that look at features."""
    random = np.random.default_rng([inputs.seed, 31])
    vectors, patches, per_image = [], [], -(-PATCHES // len(inputs.train))
    for maps in extract(backbone, inputs.train, "features of train"):
        vectors.append(_pooled(maps))
        if "patchcore" in inputs.names:
            places = _patches(maps).flatten(2).mT.cpu().numpy()
            patches += [image[random.permutation(len(image))[:per_image]] for image in places]
    train = np.concatenate(vectors)
    patchcore = PatchCore(random.permutation(np.concatenate(patches)), inputs.seed) if patches else None

    sides, scores = {}, {}
    for side in inputs.records:
        vectors, farthest = [], []
        for maps in extract(backbone, inputs.images[side], f"features of {side}"):
            vectors.append(_pooled(maps))
            if patchcore:
                farthest.append(patchcore(_patches(maps)))
        sides[side] = np.concatenate(vectors)
        if patchcore:
            scores[side] = np.concatenate(farthest)
    return Features(train, sides, scores)


REFERENCES: dict[str, Callable[[Inputs], BySide | Version]] = {
    "mean-grey": mean_grey,
    "mean-image": mean_image,
    "pca": lambda inputs: principal_components(inputs.train, inputs.seed),
    "view": partial(recorded, "view", _ap_view),  # 1 for an AP image, 0 for any other
    "file-size": partial(recorded, "file-size", _smallness),
    "knn": nearest_neighbours,
    "mahalanobis": mahalanobis,
    "patchcore": lambda inputs: inputs.features.patchcore,
}
"""What a run can name, and what it computes: a score by side, higher where an image is more anomalous, or a
reconstruction, which is scored as a method's is. `Params` finds the names here."""
