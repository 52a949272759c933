"""Anomaly maps and lesion masks -> how well the maps localise, beside a prior that looks at no film; no torch.

Lesions lie in lungs, so a map that is the same for every film localises well: on RSNA's films the mean of the training
boxes has a pooled pixel AUROC of 0.86. What a method has seen is its *margin* over such a prior. Pixels are pooled over
the images. A normal image has no lesion pixel: all of its pixels count among the false alarms of AUROC, average
precision, AUPRO and Dice; in the pointing game and in the prior it takes no part.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.ndimage import label

from lib.uncertainty import LEVEL

FALSE_POSITIVE_LIMIT = 0.3  # of AUPRO (Bergmann et al., CVPR 2020)
FEWEST_PATIENTS = 10  # with a lesion; from fewer there is neither a prior nor a margin
LEVELS = 512  # values of lesion pixels that a resample tells apart: all, if there are no more
PRIOR = "location prior"
METRICS = {"auroc": "AUROC", "average_precision": "average precision", "aupro": "AUPRO", "pointing": "pointing game"}
METRICS |= {"best_dice": "best Dice (oracle)", "prevalence": "prevalence"}
MARGINS = ("average_precision", "auroc")


def lungs_template(size: int) -> np.ndarray:
    """Return where the lungs of a centred frontal film are, (size, size) bool: two upright ellipses.

    In shares of a side: centres (0.31, 0.46) and (0.69, 0.46), x before y, half axes 0.15 and 0.32; drawn by eye on the
    mean of 600 normal adult films, with the mean of the adult test boxes in view; 83 % of their area lies inside.
    """
    place = (np.arange(size) + 0.5) / size
    return ((np.abs(place - 0.5) - 0.19) / 0.15) ** 2 + ((place[:, None] - 0.46) / 0.32) ** 2 <= 1


def marked_and_normal(
    ids: Sequence[str], labels: Sequence[str], lesions: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Return the rows that localisation is measured on, (k,) ints, their masks, (k, h, w), and how many others and why.

    `lesions` are masks by id. An image counts if its label is "normal" and nothing is marked in it, or if its label is
    another and a pixel of it is marked: a box outside the image marks none, nor does one that is too small.
    """
    if len(ids) != len(labels):
        raise ValueError(f"{len(ids)} images and {len(labels)} labels: expected a label for each, in the same order")
    normal, marked = np.asarray(labels) == "normal", np.array([i in lesions for i in ids], dtype=bool)
    seen = np.array([i in lesions and lesions[i].any() for i in ids], dtype=bool)
    left_out = {
        "called normal, and a lesion marked": normal & marked,
        "not normal, and nothing marked": ~normal & ~marked,
        "marked where the film has no pixel": ~normal & marked & ~seen,
    }
    rows = np.flatnonzero(np.where(normal, ~marked, seen))
    none = np.zeros_like(next(iter(lesions.values()), np.empty((0, 0))), dtype=bool)
    masks = np.array([lesions.get(ids[int(row)], none) for row in rows], dtype=bool).reshape(len(rows), *none.shape)
    return rows, masks, {why: int(some.sum()) for why, some in left_out.items() if some.any()}


def location_prior(masks: np.ndarray, patients: Sequence[str]) -> np.ndarray:
    """Return for each image the mean of the *other* patients' lesions, (n, h, w) float32, from masks of that shape.

    Images without a lesion are not in the mean. Raises ValueError if fewer than two patients have a lesion.
    """
    masks, patient = np.asarray(masks) > 0, _numbered(patients, masks)
    count = np.bincount(patient, weights=masks.any(axis=(1, 2)))  # images with a lesion, by patient
    if (count > 0).sum() < 2:
        raise ValueError(f"{(count > 0).sum()} patients with a lesion: a prior is made of others', give two or more")
    total, prior = masks.sum(axis=0), np.empty(masks.shape, dtype=np.float32)
    for rows in np.split(np.argsort(patient, kind="stable"), np.cumsum(np.bincount(patient))[:-1]):
        prior[rows] = (total - masks[rows].sum(axis=0)) / (count.sum() - count[patient[rows[0]]])
    return prior


def _numbered(patients: Sequence[str], masks: np.ndarray) -> np.ndarray:
    names = np.asarray(patients, dtype=str)
    if len(names) != len(masks) or (names == "").any():
        raise ValueError(f"{len(names)} patients, {(names == '').sum()} of them '', for {len(masks)} masks: name each")
    return np.unique(names, return_inverse=True)[1]


def _checked(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    maps = np.asarray(maps, dtype=np.result_type(maps, np.float32))
    if maps.ndim != 3 or maps.shape != masks.shape:
        raise ValueError(f"maps {maps.shape} and masks {masks.shape}: expected the same (images, height, width)")
    if len(bad := np.flatnonzero(~np.isfinite(maps).all(axis=(1, 2)))):
        raise ValueError(f"{len(bad)} of {len(maps)} maps hold a NaN or infinity, first map {bad[0]}: make them anew")
    return maps


def _regions(masks: np.ndarray) -> np.ndarray:
    """Number the connected regions of each image, (n, h, w) -> (n, h, w) int32, 0 outside; corners connect."""
    return label(masks, np.ones((3, 3, 3)) * [[[0]], [[1]], [[0]]])[0]  # within an image, not from one to the next


def _pixels(images: np.ndarray, inside: np.ndarray | None) -> np.ndarray:
    return images.reshape(len(images), -1) if inside is None else images[:, inside]


def pixel_metrics(maps: np.ndarray, masks: np.ndarray, inside: np.ndarray | None = None) -> dict[str, float]:
    """Return what `METRICS` names, of `maps`, (n, h, w), higher inside lesions, and `masks` of that shape.

    Only the pixels `inside`, (h, w) bool, count; all by default. AUPRO is the share of a lesion's connected region that
    a threshold finds, averaged over the regions and the false positive rates up to 0.3 (Bergmann et al., CVPR 2020).
    The pointing game is the share of images with a lesion whose highest pixel lies in it, tied pixels taking equal
    parts (Zhang et al., IJCV 2018; no tolerance). Best Dice is at the threshold that the masks say is best: an oracle.
    A constant map has AUROC 0.5, AUPRO 0.15, the prevalence as average precision. Raises ValueError for other shapes,
    a value that is not finite, no lesion pixel, or no other.
    """
    masks = np.asarray(masks) > 0
    pixels, regions = _pixels(_checked(maps, masks), inside), _pixels(_regions(masks), inside)
    if not regions.any() or regions.all():
        found = f"{(regions > 0).sum()} of {regions.size} pixels are of lesions"
        raise ValueError(f"{found}: expected some, and not all; take an image with a lesion, and what is beside it")
    return _metrics(pixels, regions)


def _metrics(maps: np.ndarray, regions: np.ndarray) -> dict[str, float]:
    """`pixel_metrics` of pixels, (n, p), and the number of each one's region.

    All follow from each lesion pixel's rank among the normal pixels; no curve is drawn. As the threshold falls past its
    value, the false positive rate goes from `begins` to `ends`, and the overlap rises linearly by the pixel's share.
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
    some = lesion.any(axis=1)
    peak = maps[some] == maps[some].max(axis=1, keepdims=True)
    return {
        "auroc": float(1 - (begins + ends).mean() / 2),
        "average_precision": float((found / (found + alarms)).mean()),
        "aupro": float((area / size[region]).sum() / len(size) / FALSE_POSITIVE_LIMIT),
        "pointing": float(((peak & lesion[some]).sum(axis=1) / peak.sum(axis=1)).mean()),
        "best_dice": float((2 * found / (found + alarms + len(values))).max()),
        "prevalence": float(lesion.mean()),
    }


def _replicates(maps: np.ndarray, lesion: np.ndarray, patient: np.ndarray, weights: np.ndarray) -> dict:
    """Return the `MARGINS`' metrics, (r,) each, of pixels (n, p), its m patients weighted by each row of (r, m)."""
    values = np.sort(maps[lesion])
    steps = np.unique(values[np.linspace(0, len(values) - 1, LEVELS).astype(int)])
    steps = np.sort(np.concatenate([steps, np.nextafter(steps, np.inf, dtype=steps.dtype)]))  # a value; all above it
    counts = np.zeros((2, weights.shape[1], len(steps) + 1))
    for row, inside, of in zip(maps, lesion, patient, strict=True):
        cell = np.searchsorted(steps, row, "right") + inside * counts.shape[2]
        counts[:, of] += np.bincount(cell, minlength=2 * counts.shape[2]).reshape(2, -1)
    normal, ill = weights @ counts
    alarms, found = (np.cumsum(one[:, ::-1], axis=1)[:, ::-1] for one in (normal, ill))  # at each level or above it
    won = (ill * (alarms[:, :1] - alarms + normal / 2)).sum(axis=1)
    return {
        "auroc": won / (found[:, 0] * alarms[:, 0]),
        "average_precision": (ill * found / np.maximum(found + alarms, 1)).sum(axis=1) / found[:, 0],
    }


def localise(
    maps: Mapping[str, np.ndarray], masks: np.ndarray, patients: Sequence[str], resamples: int = 2000, seed: int = 0
) -> dict | None:
    """Return the `pixel_metrics` of each method and of `location_prior`, and the margins; None if nothing is marked.

    `maps` by method and `masks` are (n, size, size), of the images that `marked_and_normal` finds. Each figure is of
    the whole film and inside `lungs_template`. A margin over the prior has the 95 % percentile interval of a bootstrap
    that draws patients, those with a lesion and those without apart. From fewer than 10 patients with a lesion there
    is no prior, and a margin is None; so is a region that has no lesion pixel, or nothing else. JSON-ready.
    """
    masks = np.asarray(masks) > 0
    if not masks.any():
        return None
    maps, patient = {name: _checked(one, masks) for name, one in maps.items()}, _numbered(patients, masks)
    regions, marked, random = _regions(masks), masks.any(axis=(1, 2)), np.random.default_rng(seed)
    is_marked = np.bincount(patient, weights=marked) > 0
    weights = np.ones((resamples + 1, len(is_marked)))  # how often each patient is drawn; in the first row once
    for kind in filter(np.any, (is_marked, ~is_marked)):
        weights[1:, kind] = random.multinomial(kind.sum(), np.full(kind.sum(), 1 / kind.sum()), resamples)
    if is_marked.sum() >= FEWEST_PATIENTS:
        maps = {PRIOR: location_prior(masks, patients), **maps}

    def of_region(inside: np.ndarray | None) -> dict | None:
        if not (part := _pixels(regions, inside)).any() or part.all():
            return None
        entries: dict[str, dict[str, Any]] = {}
        for name, one in maps.items():
            entries[name] = _metrics(_pixels(one, inside), part) | {"margins": None}
        shown = maps if PRIOR in maps else {}
        drawn = {name: _replicates(_pixels(one, inside), part > 0, patient, weights) for name, one in shown.items()}
        for name in shown.keys() - {PRIOR}:
            margins = entries[name]["margins"] = {}
            for metric in MARGINS:
                value, away = entries[name][metric] - entries[PRIOR][metric], drawn[name][metric] - drawn[PRIOR][metric]
                low, high = value + np.quantile(away[1:] - away[0], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
                margins[metric] = {"value": value, "low": float(low), "high": float(high)}
        return entries

    return {
        "marked": int(marked.sum()),
        "normal": int((~marked).sum()),
        "patients_marked": int(is_marked.sum()),
        "regions": {"whole film": of_region(None), "lungs": of_region(lungs_template(masks.shape[1]))},
    }


def localisation_table(results: Mapping, region: str) -> pd.DataFrame:
    """One line the prior and each method of what `localise` returned, in one of its regions, as text to read."""
    lines = {}
    for name, entry in (results["regions"][region] or {}).items():
        over = {m: "{value:+.3f} [{low:+.2f}, {high:+.2f}]".format(**e) for m, e in (entry["margins"] or {}).items()}
        lines[name] = {f"{METRICS[m]} over the prior": over.get(m, "–") for m in MARGINS}
        lines[name] |= {title: f"{entry[metric]:.3f}" for metric, title in METRICS.items()}
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis(region)
