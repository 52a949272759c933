"""The same phantom film without and with a lesion of stated size and contrast -> how surely the two are told apart.

A psychometric curve says from which size and contrast on a lesion is detected; on real films neither is known. What
holds here has been shown for drawings (`lib.phantom`), not for patients.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lib.cache import Preparation
from lib.phantom import radiograph


class Series(NamedTuple):
    """Films of n patients, prepared as any other, and their copies with a lesion; outside it a copy is unchanged."""

    films: np.ndarray  # (n, size, size) uint8, normal
    lesions: np.ndarray  # (severities, contrasts, n, size, size) uint8
    diameters: np.ndarray  # (severities,): of the circle with the lesion's mean area, in shares of the film's width


def lesion_series(
    finding: str,
    severities: Sequence[float],
    contrasts: Sequence[float],
    patients: Sequence[int],
    preparation: Preparation,
    seed: int = 0,
) -> Series:
    """Return a normal film of each patient, and the same film with the finding at each severity and contrast.

    Severity, in (0, 1], is the phantom's and sets size and shape alone: with s for it, a nodule is 14 + 22 s mm wide,
    an opacity's lobules spread by 8 + 12 s mm, an effusion stands up to 12 + 90 s mm high, a heart is 12 + 38 s %
    wider and a lung shrunk by 8 + 37 s %. Contrast, in (0, 1], is the mean absolute change inside the lesion, in grey
    levels of [0, 1] of the prepared film. The phantom's own is 0.02 to 0.16; beyond 0.1 an opacity is a white ball and
    a heart's edge a bright line, and where the film would become whiter than white the change is cut. The place
    depends on (seed, patient, finding). Raises ValueError for another finding, a value out of range, or no patient.
    """
    if not len(patients) or not all(0 < contrast <= 1 for contrast in contrasts):
        raise ValueError(
            f"{len(patients)} patients, contrasts {list(contrasts)}: expected a patient, and all in (0, 1]"
        )
    drawn = [radiograph(patient, size=preparation.size, seed=seed).image for patient in patients]
    films = np.stack([preparation.film(np.round(255 * image).astype(np.uint8)) for image in drawn])
    lesions = np.empty((len(severities), len(contrasts), *films.shape), dtype=np.uint8)
    areas = np.empty((len(severities), len(films)))
    for i, severity in enumerate(severities):
        for j, (patient, film, normal) in enumerate(zip(patients, films, drawn, strict=True)):
            ill = radiograph(patient, finding=finding, severity=severity, size=preparation.size, seed=seed)
            change, areas[i, j] = ill.image - normal, ill.mask.mean()
            change *= 255 / np.abs(change[ill.mask]).mean()
            for k, contrast in enumerate(contrasts):
                lesions[i, k, j] = np.round(np.clip(film + contrast * change, 0, 255))
    return Series(films, lesions, 2 * np.sqrt(areas.mean(axis=1) / np.pi))


def detection(normal: np.ndarray, lesion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of films that score higher with the lesion than without it, and the AUROC of all against all.

    `normal` are scores (n,), `lesion` those of the same films with a lesion, (..., n); both results are (...), in
    [0, 1], a tie counting half. The share asks what the lesion adds to a film; the AUROC whether it stands out among
    the differences from film to film, as it must where the film without it is not at hand.
    """
    normal, lesion = np.asarray(normal), np.asarray(lesion)
    if normal.ndim != 1 or not normal.size or lesion.shape[-1:] != normal.shape:
        raise ValueError(f"scores {normal.shape} and {lesion.shape}: expected (n,) and (..., n), of the same films")
    if bad := int((~np.isfinite(normal)).sum() + (~np.isfinite(lesion)).sum()):
        found = f"{bad} of {normal.size + lesion.size} scores are not finite"
        raise ValueError(f"{found}, expected numbers: see how they were made")
    won = (np.sign(lesion[..., :, None] - normal) + 1) / 2
    return np.diagonal(won, axis1=-2, axis2=-1).mean(axis=-1), won.mean(axis=(-2, -1))
