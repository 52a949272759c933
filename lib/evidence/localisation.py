"""Anomaly maps and lesion masks -> how well the maps localise, compared with a prior that looks at no image.

Lesions lie in lungs, so a map that is the same for every image localises well: on RSNA the mean of the training
boxes has a pooled pixel AUROC of 0.86. The evidence for a method is its *margin* over such a prior. Pixels are pooled
over the images. A normal image has no lesion pixel: each of its pixels can be a false alarm in AUROC, average
precision, AUPRO and Dice. The pointing game and the prior leave normal images out.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.ndimage import label

from lib.evidence.metrics import numbered
from lib.evidence.results import Estimate, Localisation, Located
from lib.evidence.uncertainty import FEWEST_PATIENTS, TAILS, affordable

FALSE_POSITIVE_LIMIT = 0.3  # of AUPRO (Bergmann et al., CVPR 2020)
LEVELS = 512  # distinct values of lesion pixels in a resample: all of them, if there are no more
PRIOR = "location prior"
MARGINS = ("average_precision", "auroc")  # the metrics with a margin over the prior


def lungs_template(size: int) -> np.ndarray:
    """Return where the lungs of a centred frontal image are, (size, size) bool: two upright ellipses.

    In shares of a side: centres (0.31, 0.46) and (0.69, 0.46), x before y, half axes 0.15 and 0.32; drawn by eye on the
    mean of 600 normal adult images, with the mean of the adult test boxes in view; 83 % of their area lies inside.
    """
    place = (np.arange(size) + 0.5) / size
    return ((np.abs(place - 0.5) - 0.19) / 0.15) ** 2 + ((place[:, None] - 0.46) / 0.32) ** 2 <= 1


def marked_and_normal(
    ids: Sequence[str], labels: Sequence[str], lesions: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Return the rows that localisation is measured on, (k,) ints, their masks, (k, h, w), and the number of others.

    `lesions` are masks, (h, w) bool, by id. An image counts if its label is "normal" and it has no mask, or if it has
    another label and at least one marked pixel; a box that is outside the image or too small marks none. All other
    images are counted by the reason why they are left out. Raises ValueError for unequal numbers of ids and labels.
    """
    if len(ids) != len(labels):
        raise ValueError(f"{len(ids)} images and {len(labels)} labels: expected a label for each, in the same order")
    normal, marked = np.asarray(labels) == "normal", np.array([i in lesions for i in ids], dtype=bool)
    seen = np.array([i in lesions and lesions[i].any() for i in ids], dtype=bool)
    left_out = {
        "called normal, and a lesion marked": normal & marked,
        "not normal, and nothing marked": ~normal & ~marked,
        "marked where the image has no pixel": ~normal & marked & ~seen,
    }
    rows = np.flatnonzero(np.where(normal, ~marked, seen))
    none = np.zeros_like(next(iter(lesions.values()), np.empty((0, 0))), dtype=bool)
    masks = np.array([lesions.get(ids[int(row)], none) for row in rows], dtype=bool).reshape(len(rows), *none.shape)
    return rows, masks, {why: int(where.sum()) for why, where in left_out.items() if where.any()}


def location_prior(masks: np.ndarray, patients: Sequence[str]) -> np.ndarray:
    """Return for each image the mean of the *other* patients' lesions, (n, h, w) float32, from masks of that shape.

    Images without a lesion are not in the mean. Raises ValueError if fewer than two patients have a lesion.
    """
    masks, patient = np.asarray(masks) > 0, _numbered(patients, masks)
    count = np.bincount(patient, weights=masks.any(axis=(1, 2)))  # images with a lesion, by patient
    if (count > 0).sum() < 2:
        raise ValueError(
            f"{(count > 0).sum()} patients with a lesion: the prior of one comes from the others; expected two or more"
        )
    total, prior = masks.sum(axis=0), np.empty(masks.shape, dtype=np.float32)
    for rows in np.split(np.argsort(patient, kind="stable"), np.cumsum(np.bincount(patient))[:-1]):
        prior[rows] = (total - masks[rows].sum(axis=0)) / (count.sum() - count[patient[rows[0]]])
    return prior


def _numbered(patients: Sequence[str], masks: np.ndarray) -> np.ndarray:
    nameless = (np.asarray(patients, dtype=object) == "").sum()
    if len(patients) != len(masks) or nameless:
        raise ValueError(f"{len(patients)} patients, {nameless} of them '', for {len(masks)} masks: name each")
    return numbered(patients)


def _checked(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    maps = np.asarray(maps, dtype=np.result_type(maps, np.float32))
    if maps.ndim != 3 or maps.shape != masks.shape:
        raise ValueError(f"maps {maps.shape} and masks {masks.shape}: expected the same (images, height, width)")
    if len(bad := np.flatnonzero(~np.isfinite(maps).all(axis=(1, 2)))):
        raise ValueError(
            f"{len(bad)} of {len(maps)} maps hold a NaN or infinity, first map {bad[0]}: compute them again"
        )
    return maps


def _pixels(images: np.ndarray, inside: np.ndarray | None) -> np.ndarray:
    if inside is not None and (inside.dtype != bool or inside.shape != images.shape[1:]):
        raise ValueError(f"inside is {inside.dtype} {inside.shape}: expected bool {images.shape[1:]}")
    return images.reshape(len(images), -1) if inside is None else images[:, inside]


def pixel_metrics(maps: np.ndarray, regions: np.ndarray) -> Located:
    """Return how well `maps`, (n, p) pixels, higher inside lesions, find the lesions; without margins.

    `regions`, (n, p), number each pixel's connected region, 0 outside; some pixels are inside, not all. AUPRO is the
    share of a region that a threshold finds, averaged over the regions and the false positive rates up to 0.3 (Bergmann
    et al., CVPR 2020). The pointing game is the share of images with a lesion whose highest pixel lies in it; tied
    pixels share the point (Zhang et al., IJCV 2018; no tolerance). Best Dice is at the threshold that is best by the
    masks: an oracle. A constant map has AUROC 0.5, AUPRO 0.15, and the prevalence as average precision.

    All follow from each lesion pixel's rank among the normal pixels, without a curve. As the threshold falls past the
    pixel's value, the false positive rate rises from `begins` to `ends`, and the overlap linearly by the pixel's share.
    """
    lesion = regions > 0
    normal, values = maps[~lesion], maps[lesion]
    normal.sort()  # in place: nearly all pixels are in it
    order = np.argsort(values)  # sorted queries are many times faster
    values, region = values[order], np.unique(regions[lesion][order], return_inverse=True)[1]
    alarms = len(normal) - np.searchsorted(normal, values)  # normal pixels not below it
    found = len(values) - np.searchsorted(values, values)
    begins, ends = 1 - np.searchsorted(normal, values, "right") / len(normal), alarms / len(normal)
    low, high = np.minimum(begins, FALSE_POSITIVE_LIMIT), np.minimum(ends, FALSE_POSITIVE_LIMIT)
    area = FALSE_POSITIVE_LIMIT - high + (high - low) ** 2 / (2 * np.maximum(ends - begins, 1e-12))
    size = np.bincount(region)
    marked = lesion.any(axis=1)
    peak = maps[marked] == maps[marked].max(axis=1, keepdims=True)
    return Located(
        auroc=float(1 - (begins + ends).mean() / 2),
        average_precision=float((found / (found + alarms)).mean()),
        aupro=float((area / size[region]).sum() / len(size) / FALSE_POSITIVE_LIMIT),
        pointing=float(((peak & lesion[marked]).sum(axis=1) / peak.sum(axis=1)).mean()),
        best_dice=float((2 * found / (found + alarms + len(values))).max()),
        prevalence=float(lesion.mean()),
        margins=None,
    )


def _replicates(
    maps: np.ndarray, lesion: np.ndarray, patient: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the metrics of `MARGINS`, (r,) each, of pixels, (n, p), weighting m patients by each row of (r, m)."""
    values = np.sort(maps[lesion])
    steps = np.unique(values[np.linspace(0, len(values) - 1, LEVELS).astype(int)])
    steps = np.sort(np.concatenate([steps, np.nextafter(steps, np.inf, dtype=steps.dtype)]))  # a value; all above it
    counts = np.zeros((2, weights.shape[1], len(steps) + 1))
    for pixels, inside, who in zip(maps, lesion, patient, strict=True):
        cell = np.searchsorted(steps, pixels, "right") + inside * counts.shape[2]
        counts[:, who] += np.bincount(cell, minlength=2 * counts.shape[2]).reshape(2, -1)
    normal, ill = weights @ counts
    alarms, found = (
        np.cumsum(weight[:, ::-1], axis=1)[:, ::-1] for weight in (normal, ill)
    )  # at each level or above it
    won = (ill * (alarms[:, :1] - alarms + normal / 2)).sum(axis=1)
    return {
        "auroc": won / (found[:, 0] * alarms[:, 0]),
        "average_precision": (ill * found / np.maximum(found + alarms, 1)).sum(axis=1) / found[:, 0],
    }


def localise(
    maps: Mapping[str, np.ndarray],
    masks: np.ndarray,
    patients: Sequence[str],
    resamples: int = 2000,
    seed: int = 0,
    left_out: Mapping[str, int] | None = None,
) -> Localisation | None:
    """Return the `pixel_metrics` of each method and of `location_prior`, and the margins; None if nothing is marked.

    `maps` by method and `masks` are (n, size, size), of the images that `marked_and_normal` finds; `left_out` counts
    the others. Everything is measured on the whole image and inside `lungs_template`. A margin over the prior has a
    95 % percentile interval from a bootstrap that draws patients with and without a lesion separately. With fewer than
    10 patients with a lesion there is no prior, and margins are None. A region without lesion pixels, or with nothing
    else, is None. Raises ValueError for shapes that differ and for values that are not finite.
    """
    masks = np.asarray(masks) > 0
    resamples = affordable(resamples, len(masks))
    if not masks.any():
        return None
    maps, patient = {name: _checked(images, masks) for name, images in maps.items()}, _numbered(patients, masks)
    regions = label(masks, np.ones((3, 3, 3)) * [[[0]], [[1]], [[0]]])[0]  # of one image each; corners connect
    marked, random = masks.any(axis=(1, 2)), np.random.default_rng(seed)
    is_marked = np.bincount(patient, weights=marked) > 0
    weights = np.ones((resamples + 1, len(is_marked)))  # how often each patient is drawn; in the first row once
    for kind in filter(np.any, (is_marked, ~is_marked)):
        weights[1:, kind] = random.multinomial(kind.sum(), np.full(kind.sum(), 1 / kind.sum()), resamples)
    if is_marked.sum() >= FEWEST_PATIENTS:
        maps = {PRIOR: location_prior(masks, patients), **maps}

    def located(inside: np.ndarray | None) -> dict[str, Located] | None:
        if not (part := _pixels(regions, inside)).any() or part.all():
            return None
        pixels = {name: _pixels(images, inside) for name, images in maps.items()}
        found = {name: pixel_metrics(values, part) for name, values in pixels.items()}
        if PRIOR not in maps:
            return found
        drawn = {name: _replicates(values, part > 0, patient, weights) for name, values in pixels.items()}

        def margin(name: str, metric: str) -> Estimate:
            value = getattr(found[name], metric) - getattr(found[PRIOR], metric)
            away = drawn[name][metric] - drawn[PRIOR][metric]
            low, high = value + np.quantile(away[1:] - away[0], TAILS)
            return Estimate(value, float(low), float(high))

        margins = {name: {metric: margin(name, metric) for metric in MARGINS} for name in found if name != PRIOR}
        return {name: one.model_copy(update={"margins": margins.get(name)}) for name, one in found.items()}

    return Localisation(
        marked=int(marked.sum()),
        normal=int((~marked).sum()),
        patients_marked=int(is_marked.sum()),
        regions={"whole image": located(None), "lungs": located(lungs_template(masks.shape[1]))},
        left_out=dict(left_out or {}),
    )
