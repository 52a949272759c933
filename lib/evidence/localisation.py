"""Anomaly maps and lesion masks -> how well the maps localise, compared with a prior that looks at no image.

Lesions lie in lungs, so a map that is the same for every image localises well: on RSNA the mean of the training
boxes has a pooled pixel AUROC of 0.86. The evidence for a method is its *margin* over such a prior. Pixels are pooled
over the images. A normal image has no lesion pixel: each of its pixels can be a false alarm in AUROC, average
precision, AUPRO and Dice. The pointing game and the prior leave normal images out.

Maps and masks are read batch by batch; what is held is the value of each lesion pixel, and a byte for each patient and
resample.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from tqdm import tqdm

from lib.evidence.masks import BATCH, Lesions, LocationPrior, Stack, batches, lungs_template, marked, numbered_for
from lib.evidence.results import Estimate, Localisation, Located
from lib.evidence.uncertainty import BATCH_ELEMENTS, FEWEST_PATIENTS, TAILS, affordable

FALSE_POSITIVE_LIMIT = 0.3  # of AUPRO (Bergmann et al., CVPR 2020)
LEVELS = 512  # distinct values of lesion pixels in a resample: all of them, if there are no more
PRIOR = "location prior"
MARGINS = ("average_precision", "auroc")  # the metrics with a margin over the prior
RESAMPLED = 2048  # resamples computed at once


def _check(maps: Stack, masks: Stack) -> None:
    if len(maps.shape) != 3 or maps.shape != masks.shape:
        raise ValueError(f"maps {maps.shape} and masks {masks.shape}: expected the same (images, height, width)")
    bad = [
        rows.start + int(i) for rows in batches(maps) for i in np.flatnonzero(~np.isfinite(maps[rows]).all(axis=(1, 2)))
    ]
    if bad:
        found = f"{len(bad)} of {maps.shape[0]} maps hold a NaN or infinity, first map {bad[0]}"
        raise ValueError(f"{found}: compute them again")


def pixel_metrics(maps: Stack, lesions: Lesions) -> Located:
    """Return how well `maps`, higher inside lesions, find the lesions, of which there are some; without margins.

    AUPRO is the share of a region that a threshold finds, averaged over the regions and the false positive rates up to
    0.3 (Bergmann et al., CVPR 2020). The pointing game is the share of images with a lesion whose highest pixel lies in
    it; tied pixels share the point (Zhang et al., IJCV 2018; no tolerance). Best Dice is at the threshold that is best
    by the masks: an oracle. A constant map has AUROC 0.5, AUPRO 0.15, and the prevalence as average precision.

    All follow from each lesion pixel's rank among the normal pixels, without a curve. As the threshold falls past the
    pixel's value, the false positive rate rises from `begins` to `ends`, and the overlap linearly by the pixel's share.
    """
    of_lesions, points = [], []
    for _, pixels, lesion in lesions.batches(maps):
        of_lesions.append(pixels[lesion])
        marked = lesion.any(axis=1)
        peak = pixels[marked] == pixels[marked].max(axis=1, keepdims=True)
        points.append((peak & lesion[marked]).sum(axis=1) / peak.sum(axis=1))
    values = np.concatenate(of_lesions)
    order = np.argsort(values)
    values, region = values[order], lesions.region[order]
    below, up_to = (np.zeros(len(values) + 1, dtype=np.int64) for _ in range(2))  # normal pixels, by the next value
    for _, pixels, lesion in lesions.batches(maps):
        normal = np.sort(pixels[~lesion])  # sorted queries are many times faster
        below += np.bincount(np.searchsorted(values, normal, "right"), minlength=len(below))
        up_to += np.bincount(np.searchsorted(values, normal), minlength=len(up_to))
    normals = int(below.sum())
    alarms = normals - np.cumsum(below)[:-1]  # normal pixels not below it
    found = len(values) - np.searchsorted(values, values)
    begins, ends = 1 - np.cumsum(up_to)[:-1] / normals, alarms / normals
    low, high = np.minimum(begins, FALSE_POSITIVE_LIMIT), np.minimum(ends, FALSE_POSITIVE_LIMIT)
    area = FALSE_POSITIVE_LIMIT - high + (high - low) ** 2 / (2 * np.maximum(ends - begins, 1e-12))
    size = np.bincount(region)
    return Located(
        auroc=float(1 - (begins + ends).mean() / 2),
        average_precision=float((found / (found + alarms)).mean()),
        aupro=float((area / size[region]).sum() / len(size) / FALSE_POSITIVE_LIMIT),
        pointing=float(np.concatenate(points).mean()),
        best_dice=float((2 * found / (found + alarms + len(values))).max()),
        prevalence=float(len(values) / lesions.pixels),
        margins=None,
    )


def replicates(maps: Stack, lesions: Lesions, patient: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Return the metrics of `MARGINS`, (r,) each, weighting the patients by each column of `weights`, (patients, r).

    `patient`, (n,), numbers the patient of each image.
    """
    values = np.sort(np.concatenate([pixels[lesion] for _, pixels, lesion in lesions.batches(maps)]))
    steps = np.unique(values[np.linspace(0, len(values) - 1, LEVELS).astype(int)])
    steps = np.sort(np.concatenate([steps, np.nextafter(steps, np.inf, dtype=steps.dtype)]))  # a value; all above it
    cells, drawn = len(steps) + 1, []
    for start in range(0, weights.shape[1], RESAMPLED):
        columns = slice(start, start + RESAMPLED)
        sums = np.zeros((2, weights[:, columns].shape[1], cells))  # of the weights: normal and lesion pixels
        for rows, pixels, lesion in lesions.batches(maps):
            cell = np.searchsorted(steps, pixels, "right") + lesion * cells
            counts = np.array([np.bincount(image, minlength=2 * cells) for image in cell]).reshape(-1, 2, cells)
            sums += weights[patient[rows], columns].T.astype(float) @ counts.transpose(1, 0, 2).astype(float)
        drawn.append(np.concatenate([_weighted(*sums[:, i : i + BATCH]) for i in range(0, sums.shape[1], BATCH)], 1))
    return dict(zip(MARGINS, np.concatenate(drawn, axis=1), strict=True))


def _weighted(normal: np.ndarray, ill: np.ndarray) -> np.ndarray:
    """Return the metrics of `MARGINS`, (2, r), from the weight of pixels in each cell, (r, cells)."""
    alarms, found = (np.cumsum(weight[:, ::-1], axis=1)[:, ::-1] for weight in (normal, ill))  # in it or above
    won = (ill * (alarms[:, :1] - alarms + normal / 2)).sum(axis=1)
    precision = (ill * found / np.maximum(found + alarms, 1)).sum(axis=1) / found[:, 0]
    return np.stack([precision, won / (found[:, 0] * alarms[:, 0])])


def _drawn(is_marked: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Return how often each patient is drawn, (patients, 1 + resamples) uint8: once, then in each resample.

    Patients with and without a lesion are drawn separately. None is drawn as often as 256 times: from that many
    patients and more, the chance is less than one in 1e500.
    """
    random, weights = np.random.default_rng(seed), np.ones((len(is_marked), resamples + 1), dtype=np.uint8)
    for kind in filter(len, (np.flatnonzero(is_marked), np.flatnonzero(~is_marked))):
        step = max(1, BATCH_ELEMENTS // len(kind))
        for start in range(0, resamples, step):
            drawn = random.multinomial(len(kind), np.full(len(kind), 1 / len(kind)), min(step, resamples - start))
            weights[kind, start + 1 : start + 1 + len(drawn)] = drawn.T
    return weights


def localise(
    maps: Mapping[str, Stack],
    masks: Stack,
    patients: Sequence[str],
    resamples: int = 2000,
    seed: int = 0,
    left_out: Mapping[str, int] | None = None,
) -> Localisation | None:
    """Return the `pixel_metrics` of each method and of a `LocationPrior`, and the margins; None if nothing is marked.

    `maps` by method and `masks` are (n, size, size), of the images that `marked_and_normal` finds; `left_out` counts
    the others. Everything is measured on the whole image and inside `lungs_template`. A margin over the prior has a
    95 % percentile interval from a bootstrap that draws patients with and without a lesion separately; of very many
    images fewer than `resamples` are drawn (`affordable`). With fewer than 10 patients with a lesion there is no prior,
    and margins are None. A region without lesion pixels, or with nothing else, is None. Raises ValueError for shapes
    that differ and for values that are not finite.
    """
    resamples, with_lesion = affordable(resamples, masks.shape[0]), marked(masks)
    patient = numbered_for(masks, patients)
    if not with_lesion.any():
        return None
    for images in maps.values():
        _check(images, masks)
    is_marked = np.bincount(patient, weights=with_lesion) > 0
    if is_marked.sum() >= FEWEST_PATIENTS:
        maps = {PRIOR: LocationPrior(masks, patients), **maps}
        weights = _drawn(is_marked, resamples, seed)

    def located(inside: np.ndarray | None) -> dict[str, Located] | None:
        lesions = Lesions(masks, inside)
        if len(lesions.region) in (0, lesions.pixels):
            return None
        found, drawn = {}, {}
        for name in tqdm(maps, desc="localisation", unit="method", mininterval=1, leave=False, delay=5):
            found[name] = pixel_metrics(maps[name], lesions)
            if PRIOR in maps:
                drawn[name] = replicates(maps[name], lesions, patient, weights)
        if PRIOR not in maps:
            return found

        def margin(name: str, metric: str) -> Estimate:
            value = getattr(found[name], metric) - getattr(found[PRIOR], metric)
            away = drawn[name][metric] - drawn[PRIOR][metric]
            low, high = value + np.quantile(away[1:] - away[0], TAILS)
            return Estimate(value, float(low), float(high))

        margins = {name: {metric: margin(name, metric) for metric in MARGINS} for name in found if name != PRIOR}
        return {name: one.model_copy(update={"margins": margins.get(name)}) for name, one in found.items()}

    return Localisation(
        marked=int(with_lesion.sum()),
        normal=int((~with_lesion).sum()),
        patients_marked=int(is_marked.sum()),
        regions={"whole image": located(None), "lungs": located(lungs_template(masks.shape[1]))},
        left_out=dict(left_out or {}),
    )
