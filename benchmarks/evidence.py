"""Seconds of intervals and of localisation, relative to loops over scikit-learn and scikit-image on the same data."""

import tracemalloc
from collections.abc import Iterator

import numpy as np
from skimage.measure import label
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from benchmarks.measuring import Figure, compared, in_turns
from lib.evidence.delong import delong
from lib.evidence.localisation import FALSE_POSITIVE_LIMIT, pixel_metrics
from lib.evidence.masks import Lesions
from lib.evidence.metrics import METRICS
from lib.evidence.uncertainty import bootstrap

LOOPED = 20  # resamples of the loop


def intervals(quick: bool) -> Iterator[Figure]:
    """Yield the resamples a second of images that are a patient each, 40 % of them abnormal."""
    images, resamples = (1000, 500) if quick else (10_000, 10_000)
    random = np.random.default_rng(0)
    is_abnormal, patients = np.arange(images) < 0.4 * images, np.arange(images)
    scores = random.normal(size=images) + is_abnormal
    classes = [np.flatnonzero(of_class) for of_class in (is_abnormal, ~is_abnormal)]

    def loop() -> None:
        for _ in range(LOOPED):
            rows = np.concatenate([random.choice(members, len(members)) for members in classes])
            roc_auc_score(is_abnormal[rows], scores[rows])

    calls = {
        "roc_auc_score": loop,
        "AUROC": lambda: bootstrap(scores[None], is_abnormal, patients, resamples, metrics=["auroc"]),
        "all metrics": lambda: bootstrap(scores[None], is_abnormal, patients, resamples, metrics=list(METRICS)),
        "DeLong": lambda: delong(scores[None], is_abnormal, patients),
    }
    seconds = in_turns(calls, 1 if quick else 3, f"{resamples} resamples of {images} images")
    seconds["roc_auc_score"] = [one * resamples / LOOPED for one in seconds["roc_auc_score"]]
    for name in ("AUROC", "all metrics"):
        yield compared(
            "evidence",
            f"{name}, {images:,} images",
            seconds,
            own=name,
            reference="roc_auc_score",
            amount=resamples,
            unit="resamples/s",
        )
    yield Figure("evidence", f"DeLong, {images:,} images", min(seconds["DeLong"]), "s")
    tracemalloc.start()
    calls["AUROC"]()
    yield Figure("evidence", "AUROC: memory", tracemalloc.get_traced_memory()[1] / 2**20, "MiB")
    tracemalloc.stop()


def aupro(maps: np.ndarray, masks: np.ndarray, thresholds: int = 200) -> float:
    """Return AUPRO by thresholds and connected regions, as its authors describe it."""
    regions = [[numbered == r for r in range(1, numbered.max() + 1)] for numbered in map(label, masks)]
    rates, overlaps = [], []
    for threshold in np.quantile(maps, np.linspace(1, 0, thresholds)):
        above = maps >= threshold
        rates.append(above[~masks].mean())
        found = [image[region].mean() for image, of_image in zip(above, regions, strict=True) for region in of_image]
        overlaps.append(np.mean(found))
    grid = np.linspace(0, FALSE_POSITIVE_LIMIT, 301)
    return float(np.interp(grid, rates, overlaps).mean())


def localisation(quick: bool) -> Iterator[Figure]:
    """Yield the images a second whose maps are compared with the masks of lesions."""
    count = 50 if quick else 300
    random = np.random.default_rng(0)
    masks = np.zeros((count, 64, 64), dtype=bool)
    for mask in masks[: count // 2]:
        top, left = random.integers(0, 48, 2)
        mask[top : top + 12, left : left + 12] = True
    maps = (random.normal(size=masks.shape) + masks).astype(np.float32)
    seconds = in_turns(
        {
            "thresholds and regions": lambda: aupro(maps, masks),
            "all pixel metrics": lambda: pixel_metrics(maps, Lesions(masks, None)),
        },
        1 if quick else 3,
        "localisation",
    )
    yield compared(
        "evidence",
        f"all pixel metrics, {count} maps of 64 px",
        seconds,
        own="all pixel metrics",
        reference="thresholds and regions",
        amount=count,
        unit="images/s",
    )


def figures(quick: bool) -> Iterator[Figure]:
    """Yield the figures of intervals and of localisation, on one core."""
    with threadpool_limits(limits=1):
        yield from intervals(quick)
        yield from localisation(quick)
