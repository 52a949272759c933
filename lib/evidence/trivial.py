"""Trivial cues that need no network: tags of the records, image features, their strata; removal of border and lungs."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.ndimage import distance_transform_edt, gaussian_filter
from tqdm import tqdm

from lib.data.source import ImageStack
from lib.evidence.masks import batches

BORDER, FINE = 0.1, 1.0  # share of each side; standard deviation, in pixels, of the Gaussian that removes fine detail
MOST_VALUES = 8  # of a tag that is a word: the most frequent ones are told apart
NO_TAGS = ["id", "label", "strict_label", "finding", "split", "patient", "digest", "twin", "group", "arrival"]
"""Columns that are names or labels; all others are tags."""


def tags(records: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return what the records say apart from names and labels, as numbers by name: (n,) float64, NaN where unknown.

    A column of numbers (age, width) is kept as it is. A column of words becomes a tag for each value, 1 for that value
    and 0 for the others. If a tag is known for some images only, whether it is known is a tag too. `width` and `height`
    give `aspect`.
    """
    found = {}
    for name, column in records.drop(columns=NO_TAGS, errors="ignore").items():
        text = column.astype(object).where(column.notna(), "").astype(str).str.strip().replace("nan", "").to_numpy()
        known, numbers = text != "", pd.to_numeric(pd.Series(text), errors="coerce").to_numpy(float)
        if 2 * np.isfinite(numbers).sum() >= known.sum():  # else they are words, even if some of them look like numbers
            known = np.isfinite(numbers)
            found[name] = np.where(known, numbers, np.nan)
        else:
            values = list(pd.Series(text[known]).value_counts().index[:MOST_VALUES])
            for value in sorted(values)[: 1 if len(values) == 2 else None]:  # the second of two mirrors the first
                found[f"{name} is {value}"] = np.where(known, text == value, np.nan)
        if 0 < known.sum() < len(known):
            found[f"{name} is known"] = known.astype(float)
    return found | ({"aspect": found["width"] / found["height"]} if {"width", "height"} <= set(found) else {})


def border(shape: tuple[int, ...]) -> np.ndarray:
    """Return where an image's outer 10 % are, (height, width) bool."""
    down, right = (np.minimum(np.arange(n), np.arange(n)[::-1]) < max(1, round(BORDER * n)) for n in shape)
    return down[:, None] | right


def mean_image(images: ImageStack) -> np.ndarray:
    """Return the mean of uint8 images, (h, w) float64."""
    return sum(images[rows].sum(axis=0, dtype=np.float64) for rows in batches(images)) / len(images)


def image_features(images: ImageStack, mean: np.ndarray) -> dict[str, np.ndarray]:
    """Return trivial features of uint8 images, (n, h, w), by name: (n,) float64; `mean`, (h, w), is the mean image."""
    edge = border(mean.shape)
    kinds: dict[str, Callable[[np.ndarray], np.floating]] = {
        "mean grey": np.mean,
        "contrast": np.std,
        "high-frequency energy": lambda image: np.square(image - gaussian_filter(image, FINE)).mean(),
        "border brightness": lambda image: image[edge].mean(),
        "distance to the mean training image": lambda image: np.abs(image - mean).mean(),
    }
    progress = tqdm(batches(images), desc="image features", unit="batch", mininterval=1, leave=False, delay=5)
    each = (image.astype(float) for rows in progress for image in images[rows])
    values = np.array([[feature(image) for feature in kinds.values()] for image in each])
    return dict(zip(kinds, values.T, strict=True))


def replaced(images: np.ndarray, where: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return the images, (n, h, w) uint8, with everything of their own removed inside `where`, (h, w) bool.

    It is replaced by the mean training image, (h, w), shifted to the image's brightness at the nearest pixel that
    stays, so that no new edge appears. The fill is scored too, so it must not look odd: RA's mean score of adult
    normals, 0.067, becomes 0.068 without the border (filled with the plain mean image: 0.081, with black: 0.118) and
    0.072 without the lungs (0.075, 0.151).

    Raises:
        ValueError: `where` is not bool, has another shape than an image, or is true everywhere.

    """
    if where.dtype != bool or where.shape != images.shape[1:] or where.all():
        found = f"the template is {where.shape} {where.dtype}, {where.mean():.0%} true"
        raise ValueError(f"{found}; expected {images.shape[1:]} bool, some of it false")
    near = distance_transform_edt(where, return_distances=False, return_indices=True)[:, where]
    filled = images.copy()
    filled[:, where] = np.round(images[:, *near] + (mean[where] - mean[*near]).astype(np.float32)).clip(0, 255)
    return filled


def strata_of(values: np.ndarray) -> np.ndarray:
    """Return the stratum of each of (n,) values: "no" or "yes" for 0 or 1, else its quarter's range; "" for NaN."""
    known = np.isfinite(values)
    if set(values[known]) == {0, 1}:
        return np.where(known, np.where(values == 1, "yes", "no"), "").astype(object)
    edges = np.unique(np.quantile(values[known], [0.25, 0.5, 0.75])) if known.any() else np.empty(0)
    quarter = np.where(known, np.searchsorted(edges, values, side="right"), -1)
    words = {i: f"{min(values[quarter == i]):.4g} to {max(values[quarter == i]):.4g}" for i in set(quarter) - {-1}}
    return np.array([words.get(i, "") for i in quarter], dtype=object)
