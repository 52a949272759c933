"""A phantom image without and with a lesion of known size and contrast -> how well the two are told apart.

A psychometric curve shows the size and contrast from which a lesion is detected; on real images neither is known. The
results hold for drawings (`lib.data.phantom`), not for patients.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from lib.data.phantom import FINDINGS, radiograph

if TYPE_CHECKING:
    from lib.data.preparation import Preparation  # which imports torch

SEVERITIES, CONTRASTS = (0.1, 0.4, 0.7, 1.0), (0.01, 0.025, 0.05, 0.1)
SEVERITY, CONTRAST = 0.7, 0.05  # at which a curve over the other is drawn
PATIENTS = range(10**6, 10**6 + 20)  # numbers that no run has drawn


class Series(NamedTuple):
    """Prepared images of n patients, and copies with a lesion, unchanged outside it."""

    images: np.ndarray  # (n, size, size) uint8, normal
    lesions: np.ndarray  # (severities, contrasts, n, size, size) uint8
    diameters: np.ndarray  # (severities,): of the circle with the lesion's mean area, in shares of the image's width


def lesion_series(
    finding: str,
    severities: Sequence[float],
    contrasts: Sequence[float],
    patients: Sequence[int],
    preparation: "Preparation",
    seed: int = 0,
) -> Series:
    """Return a normal image of each patient, and the same image with the finding at each severity and contrast.

    Severity, in (0, 1], is the phantom's and sets size and shape alone: with s for it, a nodule is 14 + 22 s mm wide,
    an opacity's lobules spread by 8 + 12 s mm, an effusion stands up to 12 + 90 s mm high, a heart is 12 + 38 s %
    wider and a lung shrunk by 8 + 37 s %. Contrast, in (0, 1], is the mean absolute change inside the lesion, in grey
    levels of [0, 1] of the prepared image. The phantom's own is 0.02 to 0.16; beyond 0.1 an opacity is a white ball and
    a heart's edge a bright line, and where the image would become whiter than white the change is cut. The place
    depends on (seed, patient, finding). Raises ValueError for another finding, a value out of range, or no patient.
    """
    if not len(patients) or not all(0 < contrast <= 1 for contrast in contrasts):
        raise ValueError(
            f"{len(patients)} patients, contrasts {list(contrasts)}: expected a patient, and all in (0, 1]"
        )
    drawn = [radiograph(patient, size=preparation.size, seed=seed).image for patient in patients]
    images = np.stack([preparation.image(np.round(255 * image).astype(np.uint8)) for image in drawn])
    lesions = np.empty((len(severities), len(contrasts), *images.shape), dtype=np.uint8)
    areas = np.empty((len(severities), len(images)))
    for i, severity in enumerate(severities):
        for j, (patient, prepared, normal) in enumerate(zip(patients, images, drawn, strict=True)):
            ill = radiograph(patient, finding=finding, severity=severity, size=preparation.size, seed=seed)
            change, areas[i, j] = ill.image - normal, ill.mask.mean()
            change *= 255 / np.abs(change[ill.mask]).mean()
            for k, contrast in enumerate(contrasts):
                lesions[i, k, j] = np.round(np.clip(prepared + contrast * change, 0, 255))
    return Series(images, lesions, 2 * np.sqrt(areas.mean(axis=1) / np.pi))


def detection(normal: np.ndarray, lesion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of images that score higher with the lesion than without it, and the AUROC of all against all.

    `normal` are scores (n,), `lesion` those of the same images with a lesion, (..., n); both results are (...), in
    [0, 1], a tie counting half. The share asks what the lesion adds to an image; the AUROC whether it stands out among
    the differences from image to image, as it must where the image without it is not at hand.
    """
    normal, lesion = np.asarray(normal), np.asarray(lesion)
    if normal.ndim != 1 or not normal.size or lesion.shape[-1:] != normal.shape:
        raise ValueError(f"scores {normal.shape} and {lesion.shape}: expected (n,) and (..., n), of the same images")
    if bad := int((~np.isfinite(normal)).sum() + (~np.isfinite(lesion)).sum()):
        found = f"{bad} of {normal.size + lesion.size} scores are not finite"
        raise ValueError(f"{found}, expected numbers: check how they were computed")
    won = (np.sign(lesion[..., :, None] - normal) + 1) / 2
    return np.diagonal(won, axis1=-2, axis2=-1).mean(axis=-1), won.mean(axis=(-2, -1))


def detected(
    scores: Mapping[str, Callable[[np.ndarray], np.ndarray]], preparation: "Preparation", seed: int = 0
) -> pd.DataFrame:
    """Return how well each method detects each finding in new patients, at every severity and contrast.

    `scores` turn uint8 images, (n, size, size), into scores, (n,), by method. A row has a method, finding, severity,
    size, contrast, a measure ("pairs" and "AUROC", see `detection`) and its value.
    """
    rows = []
    for finding in FINDINGS:
        series = lesion_series(finding, SEVERITIES, CONTRASTS, PATIENTS, preparation, seed)
        images = np.concatenate([series.images, series.lesions.reshape(-1, *series.images.shape[1:])])
        sizes = list(zip(SEVERITIES, series.diameters, strict=True))
        for name, score in scores.items():
            values = score(images)
            normal, lesions = values[: len(PATIENTS)], values[len(PATIENTS) :].reshape(series.lesions.shape[:3])
            for measure, shares in zip(("pairs", "AUROC"), detection(normal, lesions), strict=True):
                rows += [
                    (name, finding, severity, size, contrast, measure, share)
                    for (severity, size), of_size in zip(sizes, shares, strict=True)
                    for contrast, share in zip(CONTRASTS, of_size, strict=True)
                ]
    return pd.DataFrame(rows, columns=["method", "finding", "severity", "size", "contrast", "measure", "value"])
