"""Whether a new image is like the normal images that a model was calibrated on; no label is read.

A false alarm rate is promised for images that are exchangeable with the calibration images. Nothing proves that a new
image is, but some images plainly are not: smaller, of another shape, view or age, with other grey levels, or far away
in frozen features. Those are named.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.neighbors import NearestNeighbors

from lib.data.source import ImageStack
from lib.scores.features import Backbone
from lib.scores.references import NEIGHBOURS, pooled_features

RECORDED = ["width", "height", "age", "view"]  # columns of records that may be missing
LEVELS = 32  # bins of a histogram of grey levels
SIDE = "shorter side"  # in pixels; more than the normal images have are no difference, for all are made small
RANGES = {
    SIDE: lambda records: records[["width", "height"]].min(axis=1),
    "width / height": lambda records: records["width"] / records["height"],
    "age": lambda records: pd.to_numeric(records["age"], errors="coerce"),
}
"""What the normal images have a range of: records -> numbers, NaN where unknown."""


class Likeness(NamedTuple):
    """What the normal validation images are like; `unlike` compares new images with them."""

    images: int
    """How many the `ranges` are of, reference and calibration images."""
    calibration: int
    """How many the `farthest` are of."""
    ranges: dict[str, tuple[float, float]]
    """The lowest and the highest number by a name of `RANGES`, without those that are not known of any image."""
    views: list[str]
    """That occur, without "" for unknown."""
    farthest: dict[str, float]
    """The largest distance of a calibration image from the reference images, in "grey levels" and in "features"."""
    histogram: np.ndarray
    """Of the reference images, (32,): the mean share of pixels by grey level."""
    features: np.ndarray
    """Of the reference images, (n, channels) float32; (0, 0) without a frozen network."""
    network: str
    """The name of the frozen network; "" without one."""

    def rule(self, backbone: Backbone | None) -> str:
        """Return by what rule an image is unlike these, and how often one from the same source is, as sentences."""
        compared = self._compared(backbone)
        bounds = [1 if name == SIDE else 2 for name in self.ranges]
        rate = sum(bounds) / (self.images + 1) + len(compared) / (self.calibration + 1)
        conditions = [f"its {name} is {_outside(name, *span)}" for name, span in self.ranges.items()]
        conditions += ["its view is that of none of them"] if self.views else []
        missing = [name for name, known in {"age": "age" in self.ranges, "view": self.views}.items() if not known]
        unknown = f"Not known of them, and not compared: {', '.join(missing)}. " if missing else ""
        conditions += [f"its {name} are farther from theirs than those of any calibration image" for name in compared]
        return (
            f"An image is called unlike the {self.images} normal images that the model was fitted and calibrated on if "
            f"{', or if '.join(conditions)}. {unknown}Of normal images from the same source this happens to at most "
            f"{rate:.0%}. For an image that is unlike them no false alarm rate is promised."
        )

    def without_features(self) -> "Likeness":
        """Return the same without what needs the frozen network."""
        farthest = {name: value for name, value in self.farthest.items() if name != "features"}
        return self._replace(farthest=farthest, features=np.empty((0, 0), np.float32), network="")

    def _compared(self, backbone: Backbone | None) -> list[str]:
        return [name for name in self.farthest if backbone or name != "features"]

    def unlike(self, images: ImageStack, records: pd.DataFrame, backbone: Backbone | None) -> list[str]:
        """Return in what each image, (n, size, size) uint8, is unlike, such as "age; features"; "" if in nothing.

        `records` has the columns width, height, age and view; what is unknown (NaN, "") is not compared. Without a
        `backbone`, features are not.
        """
        found: list[list[str]] = [[] for _ in range(len(images))]
        for name, (low, high) in self.ranges.items():
            values = RANGES[name](records).to_numpy(float)
            _note(found, name, (values < low) | ((values > high) & (name != SIDE)))
        _note(found, "view", ~records["view"].isin([*self.views, ""]).to_numpy() & bool(self.views))
        distances = _distances(images, self.histogram, self.features, backbone)
        for name in self._compared(backbone):
            _note(found, name, distances[name] > self.farthest[name])
        return ["; ".join(names) for names in found]


def likeness(
    images: Mapping[str, ImageStack], records: Mapping[str, pd.DataFrame], backbone: Backbone | None
) -> Likeness:
    """Return what the sides "reference" and "validation" (the calibration half) are like."""
    both = pd.concat([records[side] for side in ("reference", "validation")]).reindex(columns=RECORDED)
    known = {name: read(both).dropna() for name, read in RANGES.items()}
    histogram = _histograms(images["reference"]).mean(axis=0)
    features = pooled_features(backbone, images["reference"]) if backbone else np.empty((0, 0), np.float32)
    distances = _distances(images["validation"], histogram, features, backbone)
    return Likeness(
        images=len(both),
        calibration=len(records["validation"]),
        ranges={name: (float(values.min()), float(values.max())) for name, values in known.items() if len(values)},
        views=sorted(set(both["view"].dropna()) - {""}),
        farthest={name: float(values.max()) for name, values in distances.items()},
        histogram=histogram,
        features=features,
        network=backbone.name if backbone else "",
    )


def _outside(name: str, low: float, high: float) -> str:
    if name == SIDE:
        return f"less than {low:g} pixels"
    return f"not {low:.3g}" if low == high else f"not in {low:.3g} to {high:.3g}"


def _note(found: list[list[str]], name: str, flags: np.ndarray) -> None:
    for place in np.flatnonzero(flags):
        found[place].append(name)


def _distances(
    images: ImageStack, histogram: np.ndarray, features: np.ndarray, backbone: Backbone | None
) -> dict[str, np.ndarray]:
    """Return each image's distance from the reference images, (n,) by name.

    In grey levels it is the share of pixels that would have to change theirs (total variation); in features the mean
    cosine distance to the nearest images.
    """
    distances = {"grey levels": np.abs(_histograms(images) - histogram).sum(axis=1) / 2}
    if backbone and len(features):
        nearest = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(features)), metric="cosine").fit(features)
        distances["features"] = nearest.kneighbors(pooled_features(backbone, images))[0].mean(axis=1)
    return distances


def _histograms(images: ImageStack) -> np.ndarray:
    """Return the share of pixels by grey level, (n, 32)."""
    bins = 256 // LEVELS
    counts = [np.bincount(image.ravel() // bins, minlength=LEVELS) for image in (images[i] for i in range(len(images)))]
    return np.array(counts) / np.prod(images.shape[1:])
