"""A trained method, and what was fitted on normal images -> the scores and maps of new images, a batch at a time.

These are the scores that a run's own images have (`lib.scores.selection`), without its training images.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch

from lib.methods.method import Method, to_unit
from lib.scores.conformal import combine, p_values
from lib.scores.maps import MAPS, POOLS, Distance, anomaly_maps, describe, distance_of, residual_map
from lib.scores.scoring import CPU, PRIMARY, Standard, own_scores, pooled, reconstruct
from lib.scores.selection import Selection

STANDARDISED = " standardised"


class Fit(NamedTuple):
    """What a method's scores need besides its weights; everything comes from normal images of the validation side."""

    epoch: int
    """The chosen one."""
    score: str
    combined: list[str]
    members: np.ndarray
    """The combined scores of the reference images, (n, scores)."""
    standards: dict[str, Standard]
    """By map, those that `score` and `combined` need."""
    calibration: dict[str, np.ndarray]
    """The scores of the calibration images by form, "primary", "chosen" and "combined", (k,)."""
    distances: list[str]
    """The names of the distances that `score` and `combined` need (`lib.scores.selection.feature_distances`)."""
    ceiling: float
    """The 99th percentile, over pixels, of the mean residual plus three deviations: where a residual is conspicuous."""

    @classmethod
    def of(cls, selection: Selection) -> "Fit":
        """Return what model selection has fitted."""
        epoch, score, combined = (selection.choice[key] for key in ("epoch", "score", "combined"))
        maps = {name.partition(", ")[0] for name in [*combined, score] if ", " in name}  # others are the method's own
        needed = {name.partition(", ")[0] for name in [*combined, score] if name.endswith(STANDARDISED)}
        mean, deviation = selection.standards[max(selection.standards)]["residual"]
        return cls(
            epoch=epoch,
            score=score,
            combined=combined,
            members=selection.members["reference"],
            standards={kind: selection.standards[epoch][kind] for kind in sorted(needed)},
            calibration={form: by_side["validation"] for form, by_side in selection.columns.items()},
            distances=sorted({distance_of(kind) for kind in maps} - {*MAPS}),
            ceiling=float(torch.quantile(mean + 3 * deviation, 0.99)),
        )

    def primary_alone(self, epoch: int) -> "Fit":
        """Return what the primary score needs, after the last `epoch`."""
        return self._replace(
            epoch=epoch,
            score=PRIMARY,
            combined=[],
            members=np.empty((0, 0)),
            standards={},
            calibration={"primary": self.calibration["primary"]},
            distances=[],
        )


class Scored(NamedTuple):
    """The scores of a batch by form, (n,) float64, and what was redrawn, (n, size, size) float32 in [0, 1]."""

    scores: dict[str, np.ndarray]
    reconstructions: np.ndarray
    residuals: np.ndarray


class Scorer:
    """A method after its last epoch and after the chosen one, by number of epochs, and what was fitted.

    `distances` are those that its chosen and combined scores need; None, and it has the primary score alone.
    """

    def __init__(self, versions: Mapping[int, Method], fit: Fit, distances: Mapping[str, Distance] | None) -> None:
        self.fit, self._versions, self._distances = fit, versions, distances

    @property
    def complete(self) -> bool:
        """Whether it has the chosen and the combined score too."""
        return self._distances is not None

    @torch.no_grad()
    def __call__(self, images: np.ndarray) -> Scored:
        """Return what uint8 images, (n, size, size), score."""
        redrawn = {epochs: reconstruct(method, images) for epochs, method in self._versions.items()}
        last, unit = redrawn[max(redrawn)], to_unit(images, CPU)
        maps = residual_map(unit, torch.from_numpy(last)[:, None])
        scores = {"primary": POOLS[PRIMARY.partition(", ")[2]](maps).double().numpy()}
        if self._distances is not None:
            fit, redrawn_then = self.fit, torch.from_numpy(redrawn[self.fit.epoch])[:, None]
            before, after = (describe(each, self._distances) for each in (unit, redrawn_then))
            every = pooled(anomaly_maps(before, after, self._distances), fit.standards)
            every |= own_scores(self._versions[fit.epoch], images)
            members = np.stack([every[name] for name in fit.combined], axis=1)
            scores |= {"chosen": every[fit.score], "combined": combine(p_values(fit.members, members))}
        return Scored(scores, last, maps[:, 0].numpy())
