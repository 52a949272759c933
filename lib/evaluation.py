"""Scores and labels -> numbers with intervals.

AUROC counts pairs: the share of (abnormal, normal) pairs in which the abnormal image scores higher, ties counting half
(Hanley & McNeil, Radiology 1982). The intervals come from a bootstrap over patients, not images: two films of one chest
are not two observations (Field & Welsh, J. R. Stat. Soc. B 2007). A resample is a weight per image (how often its
patient was drawn), so the scores are sorted once and every resample costs a few cumulative sums.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd

LEVEL = 0.95  # of every interval
FALSE_ALARM_RATE = 0.05  # share of normal validation images that the threshold may call abnormal
FEWEST_IMAGES = 10  # a group of abnormal images smaller than this gets no AUROC: its interval would say nothing
NO_LABEL = "no label"  # what an empty label is counted under
BATCH_ELEMENTS = 1_000_000  # weights held at a time; bounds the memory, whatever the number of images and resamples


class Estimate(NamedTuple):
    """A number and its interval (95 % unless said otherwise)."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """The first score's metrics minus the second's, on the same images and the same resamples."""

    auroc: Estimate
    average_precision: Estimate
    p_value: float


class Ranking(NamedTuple):
    """One score, sorted once: what every weighting of the images needs."""

    abnormal: np.ndarray  # positions of the abnormal images, lowest score first
    normal: np.ndarray  # positions of the normal images, lowest score first
    below: np.ndarray  # per abnormal image: normal images that score lower
    up_to: np.ndarray  # per abnormal image: normal images that score lower or the same
    first_tied: np.ndarray  # per abnormal image: abnormal images that score lower


def ranking(scores: np.ndarray, is_abnormal: np.ndarray) -> Ranking:
    """Sort `scores`, shape (n,), by the labels `is_abnormal`, boolean of shape (n,).

    Raises ValueError for shapes that differ, labels that are not boolean, scores that are not finite, an empty class.
    """
    scores, is_abnormal = np.asarray(scores), np.asarray(is_abnormal)
    if scores.ndim != 1 or scores.shape != is_abnormal.shape:
        raise ValueError(f"scores {scores.shape} and labels {is_abnormal.shape}: expected two equally long lists")
    if is_abnormal.dtype != bool:
        raise ValueError(f"is_abnormal is {is_abnormal.dtype}, expected bool (write labels == 'abnormal')")
    if not np.isfinite(scores).all():
        raise ValueError(
            f"{(~np.isfinite(scores)).sum()} of {len(scores)} scores are not finite: see how they were made"
        )
    abnormal, normal = np.flatnonzero(is_abnormal), np.flatnonzero(~is_abnormal)
    if not len(abnormal) or not len(normal):
        raise ValueError(f"{len(normal)} normal and {len(abnormal)} abnormal images, expected at least one of each")
    abnormal = abnormal[np.argsort(scores[abnormal], kind="stable")]
    normal = normal[np.argsort(scores[normal], kind="stable")]
    high, low = scores[abnormal], scores[normal]
    return Ranking(
        abnormal, normal, np.searchsorted(low, high), np.searchsorted(low, high, "right"), np.searchsorted(high, high)
    )


def weight_up_to(weights: np.ndarray) -> np.ndarray:
    """Row k is the weight of the first k images: (n, r) -> (n + 1, r)."""
    sums = np.zeros((len(weights) + 1, weights.shape[1]))
    np.cumsum(weights, axis=0, out=sums[1:])
    return sums


def weighted_auroc(rank: Ranking, weights: np.ndarray) -> np.ndarray:
    """AUROC for each column of `weights` (n, r): r values in [0, 1], NaN where a class has no weight."""
    abnormal, normal = weights[rank.abnormal], weight_up_to(weights[rank.normal])
    pairs = abnormal.sum(axis=0) * normal[-1]
    won = np.einsum("ij,ij->j", abnormal, normal[rank.below]) + np.einsum("ij,ij->j", abnormal, normal[rank.up_to])
    return np.divide(0.5 * won, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def weighted_average_precision(rank: Ranking, weights: np.ndarray) -> np.ndarray:
    """Average precision for each column of `weights` (n, r), without interpolation, tied scores called together."""
    abnormal = weights[rank.abnormal]
    found, alarms = weight_up_to(abnormal), weight_up_to(weights[rank.normal])
    found, alarms = found[-1] - found[rank.first_tied], alarms[-1] - alarms[rank.below]
    called, total = found + alarms, abnormal.sum(axis=0)
    # Nothing called means that this image has no weight either, so its precision does not matter.
    precision = np.divide(found, called, out=np.zeros_like(called), where=called > 0)
    summed = np.einsum("ij,ij->j", abnormal, precision)
    return np.divide(summed, total, out=np.full(len(total), np.nan), where=total > 0)


METRICS: dict[str, Callable[[Ranking, np.ndarray], np.ndarray]] = {
    "auroc": weighted_auroc,
    "average_precision": weighted_average_precision,
}


def auroc(scores: np.ndarray, is_abnormal: np.ndarray) -> float:
    """Chance that an abnormal image scores higher than a normal one, ties counting half; (n,) and (n,)."""
    return float(weighted_auroc(ranking(scores, is_abnormal), np.ones((len(scores), 1)))[0])


def average_precision(scores: np.ndarray, is_abnormal: np.ndarray) -> float:
    """Mean precision over the abnormal images, (n,) and (n,); a score without information gets the prevalence."""
    return float(weighted_average_precision(ranking(scores, is_abnormal), np.ones((len(scores), 1)))[0])


def threshold_at(validation_scores: np.ndarray, false_alarm_rate: float = FALSE_ALARM_RATE) -> float:
    """Return the score that a new normal image exceeds with at most this chance; needs no labels.

    The lowest validation score whose conformal p-value allows it (`lib.conformal`): of n exchangeable normal images
    at most rate (n + 1) - 1 may exceed it. With fewer than 1 / rate - 1 images it is the highest, and promises less.
    """
    scores = np.sort(np.asarray(validation_scores))
    if not scores.size or not np.isfinite(scores).all():
        raise ValueError(
            f"{scores.size} validation scores, {np.isfinite(scores).sum()} finite: expected some, all finite"
        )
    above = int(false_alarm_rate * (len(scores) + 1) + 1e-9) - 1  # 0.29 * 100 is below 29
    return float(scores[-1 - max(above, 0)])


def sensitivity_specificity(scores: np.ndarray, is_abnormal: np.ndarray, threshold: float) -> tuple[float, float]:
    """Shares of the abnormal images above `threshold` and of the normal images not above it."""
    rank, called = ranking(scores, is_abnormal), np.asarray(scores) > threshold
    return float(called[rank.abnormal].mean()), float(1 - called[rank.normal].mean())


def patient_weights(is_abnormal: np.ndarray, patients: np.ndarray, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Draw patients with replacement; yield how often each image then occurs, as (n, r) arrays of bounded size.

    Patients with any abnormal image and patients with none are drawn separately, each as many as there are.
    """
    patient = np.unique(np.asarray(patients, dtype=str), return_inverse=True)[1]
    has_abnormal = np.bincount(patient, weights=is_abnormal) > 0
    strata = [np.flatnonzero(has_abnormal), np.flatnonzero(~has_abnormal)]
    random, batch = np.random.default_rng(seed), max(1, BATCH_ELEMENTS // len(patient))
    for start in range(0, resamples, batch):
        columns = min(batch, resamples - start)
        counts = np.zeros((len(has_abnormal), columns))
        for members in filter(len, strata):
            drawn = random.integers(len(members), size=(len(members), columns))
            cells = (drawn * columns + np.arange(columns)).ravel()  # (patient, resample) as one number
            counts[members] = np.bincount(cells, minlength=counts[members].size).reshape(-1, columns)
        yield counts[patient]


class Bootstrap(NamedTuple):
    """Each metric's value, (m,), and its replicates, (m, resamples), for m scores of the same images."""

    values: dict[str, np.ndarray]
    replicates: dict[str, np.ndarray]

    def estimate(self, metric: str, score: int, minus: int | None = None) -> Estimate:
        """Value and percentile interval of one score, or of its difference from another; NaN left out."""
        value, drawn = self.values[metric][score], self.replicates[metric][score]
        if minus is not None:
            value, drawn = value - self.values[metric][minus], drawn - self.replicates[metric][minus]
        low, high = np.nanquantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Estimate(float(value), float(low), float(high))

    def difference(self, first: int, second: int) -> Difference:
        """Score `first` minus score `second`; `paired_difference` says what the p-value is."""
        drawn = self.replicates["auroc"][first] - self.replicates["auroc"][second]
        drawn = drawn[~np.isnan(drawn)]
        rarer = min((drawn <= 0).sum(), (drawn >= 0).sum())
        p_value = float(min(1, 2 * (rarer + 1) / (len(drawn) + 1)))
        return Difference(*(self.estimate(metric, first, second) for metric in METRICS), p_value)


def bootstrap(
    scores: np.ndarray,
    is_abnormal: np.ndarray,
    patients: np.ndarray,
    resamples: int = 2000,
    seed: int = 0,
    metrics: Sequence[str] = tuple(METRICS),
) -> Bootstrap:
    """Evaluate m scores of n images, (m, n), on the same resamples of the patients, so that they can be subtracted.

    A resample that leaves a class empty (possible only if every normal image's patient has an abnormal one too) is NaN.
    """
    if len(patients) != len(is_abnormal) or resamples < 1:
        raise ValueError(
            f"{len(patients)} patients for {len(is_abnormal)} images, {resamples} resamples: "
            "expected one patient an image and at least 1 resample"
        )
    ranks, once = [ranking(row, is_abnormal) for row in scores], np.ones((len(is_abnormal), 1))
    values = {name: np.array([METRICS[name](rank, once)[0] for rank in ranks]) for name in metrics}
    batches = [
        [[METRICS[name](rank, weights) for rank in ranks] for name in metrics]
        for weights in patient_weights(is_abnormal, patients, resamples, seed)
    ]
    return Bootstrap(values, dict(zip(metrics, np.concatenate(batches, axis=-1), strict=True)))


def paired_difference(
    a: np.ndarray, b: np.ndarray, is_abnormal: np.ndarray, patients: np.ndarray, resamples: int = 2000, seed: int = 0
) -> Difference:
    """AUROC and average precision of `a` minus those of `b`, two scores of the same n images, by paired resamples.

    The two-sided p-value is the AUROC's: twice the share of resamples with a difference <= 0, or >= 0, whichever is
    rarer; one resample is added to both counts, so that it is never 0; at most 1.
    """
    return bootstrap(np.stack([a, b]), is_abnormal, patients, resamples, seed).difference(0, 1)


def check_table(table: pd.DataFrame, methods: Sequence[str], labels: str) -> None:
    """Raise a ValueError that says what `evaluate_scores` lacks in `table`."""
    wanted = list(dict.fromkeys(["id", "side", "patient", "label", labels, "finding", *methods]))
    if missing := [name for name in wanted if name not in table.columns]:
        raise ValueError(f"no column {missing} in the table; it has {list(table.columns)}: add it, or ask for another")
    if not methods:
        raise ValueError("methods is empty, expected the names of at least one column of scores")
    if unknown := sorted(set(table["side"].astype(str)) - {"reference", "validation", "test"}):
        raise ValueError(f"side is {unknown} in some rows, expected 'reference', 'validation' or 'test'")
    nameless = table["id"][table["patient"].isna() | (table["patient"].astype(str) == "")]
    if len(nameless):
        raise ValueError(
            f"no patient for {len(nameless)} images, first {nameless.iloc[0]!r}: name each, if need be apart"
        )
    validation = table["label"][table["side"] == "validation"]
    ill = (validation == "abnormal").sum()
    if validation.empty or ill:
        found = f"{len(validation)} validation images, {ill} of them abnormal"
        raise ValueError(f"{found}: the threshold needs some, all of them normal; split again")
    for method in methods:
        unscored = (table["side"] != "test") & table[method].where(table["side"] != "test").isna().all()
        bad = table["id"][~np.isfinite(table[method].to_numpy(float)) & ~unscored]
        if len(bad):
            found = f"{len(bad)} scores of {method!r} are not finite, first {bad.iloc[0]!r}"
            raise ValueError(f"{found}; expected a number for every image: score again, or leave the method out")


def abnormal_groups(label: pd.Series, finding: pd.Series) -> dict[str, pd.Series]:
    """Which rows make up each further kind of `label` that is large enough, and each finding of the abnormal images."""
    kinds = label.value_counts().drop(["normal", "abnormal", NO_LABEL], errors="ignore")
    names = finding.astype(object).where(finding.notna(), "").str.split("|").where(label == "abnormal", "")
    groups = {str(kind): label == kind for kind, count in kinds.items() if count >= FEWEST_IMAGES}
    for name in sorted({name for row in names for name in row} - {""}):
        groups[name] = names.map(lambda row, name=name: name in row)
    return groups


def evaluate_scores(
    table: pd.DataFrame,
    methods: Sequence[str],
    *,
    labels: str = "label",
    pairs: Sequence[tuple[str, str]] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> dict:
    """Everything that is reported about the `methods`, columns of `table` in which higher means more abnormal.

    One row of `table` is an image: `id`, `side` (reference, validation or test), `patient`, `label`, `finding` (several
    joined by "|"). The column `labels` says which test images are "normal" and "abnormal"; the others are counted in
    "left_out", and those with a name of their own are compared with the normals among the findings. The validation
    images are all normal and give each threshold; a method that scores the test side alone, NaN elsewhere, has none.
    The reference images are not used. Differences are those of the `pairs`, of all by default. The result holds plain
    numbers, strings and None; ValueError says what is missing.
    """
    methods = list(methods)
    check_table(table, methods, labels)
    validation, test = (table[table["side"] == side] for side in ("validation", "test"))
    label = test[labels].astype(object).where(test[labels].notna(), "").replace("", NO_LABEL)
    counts = {str(name): int(count) for name, count in label.value_counts().items()}
    normal, abnormal = label == "normal", label == "abnormal"
    if not normal.any() or not abnormal.any():
        raise ValueError(f"test images by {labels!r}: {counts}; expected some 'normal' and some 'abnormal'")

    def resampled(rows: pd.Series, metrics: Sequence[str]) -> Bootstrap:
        scores, patients = test.loc[rows, methods].to_numpy(float).T, test.loc[rows, "patient"].to_numpy()
        return bootstrap(scores, ~normal[rows].to_numpy(), patients, resamples, seed, metrics)

    used = normal | abnormal
    drawn = resampled(used, list(METRICS))
    groups = abnormal_groups(label, test["finding"])
    sizes = {name: int(rows.sum()) for name, rows in groups.items()}
    drawn_groups = {
        name: resampled(rows | normal, ["auroc"]) for name, rows in groups.items() if sizes[name] >= FEWEST_IMAGES
    }

    def of_method(i: int, method: str) -> dict:
        threshold = None
        if validation[method].notna().all():
            value = threshold_at(validation[method])
            sensitivity, specificity = sensitivity_specificity(test.loc[used, method], abnormal[used], value)
            threshold = {"value": value, "false_alarm_rate": FALSE_ALARM_RATE}
            threshold |= {"sensitivity": sensitivity, "specificity": specificity}
        findings = {name: {"n": n, "auroc": None} for name, n in sizes.items()}
        for name, group in drawn_groups.items():
            findings[name]["auroc"] = group.estimate("auroc", i)._asdict()
        return {
            **{metric: drawn.estimate(metric, i)._asdict() for metric in METRICS},
            "threshold": threshold,
            "findings": findings,
        }

    def of_pair(first: str, second: str) -> dict:
        auroc, precision, p_value = drawn.difference(methods.index(first), methods.index(second))
        metrics = {"auroc": auroc._asdict(), "average_precision": precision._asdict(), "p_value": p_value}
        return {"first": first, "second": second, **metrics}

    return {
        "labels": labels,
        "n_normal": counts["normal"],
        "n_abnormal": counts["abnormal"],
        "prevalence": float(abnormal[used].mean()),
        "left_out": {name: n for name, n in counts.items() if name not in ("normal", "abnormal")},
        "patients": test.loc[used, "patient"].nunique(),
        "level": LEVEL,
        "resamples": resamples,
        "methods": {method: of_method(i, method) for i, method in enumerate(methods)},
        "differences": [of_pair(*pair) for pair in (combinations(methods, 2) if pairs is None else pairs)],
    }


def shown(estimate: dict | None) -> str:
    """An estimate as "0.713 [0.61, 0.80]"; a dash where there is none."""
    return f"{estimate['value']:.3f} [{estimate['low']:.2f}, {estimate['high']:.2f}]" if estimate else "–"


def difference_text(difference: dict) -> str:
    """One of `results["differences"]` in words, with what its interval says."""
    area = difference["auroc"]
    verdict = "no difference shown" if area["low"] <= 0 <= area["high"] else "the interval excludes zero"
    names = f"{difference['first']} − {difference['second']}"
    return f"AUROC {names} = {area['value']:+.3f} [{area['low']:+.2f}, {area['high']:+.2f}]: {verdict}"


def results_table(results: dict) -> pd.DataFrame:
    """One row a method of what `evaluate_scores` returned, as text to read."""
    interval = f"[{results['level']:.0%} interval]".replace("%", " %")
    rows = {
        method: {
            f"AUROC {interval}": shown(one["auroc"]),
            f"AP {interval}": shown(one["average_precision"]),
            **{
                key: f"{one['threshold'][key]:.2f}" if one["threshold"] else "–"
                for key in ("sensitivity", "specificity")
            },
            "normal / abnormal": f"{results['n_normal']} / {results['n_abnormal']}",
        }
        for method, one in results["methods"].items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def findings_table(results: dict) -> pd.DataFrame:
    """One row a finding: its images, and each method's AUROC against the same normals; a dash for too few images."""
    methods = {name: one["findings"] for name, one in results["methods"].items()}
    images = {finding: one["n"] for finding, one in next(iter(methods.values())).items()}
    aurocs = {name: {finding: shown(one["auroc"]) for finding, one in row.items()} for name, row in methods.items()}
    return pd.DataFrame({"images": images, **aurocs}).rename_axis("finding")


def pixel_average_precision(maps: np.ndarray, masks: np.ndarray) -> float:
    """Average precision over all pixels of `maps`, (n, H, W), pooled; `masks` of that shape are true inside lesions.

    Report the prevalence `masks.mean()` beside it: a map without information scores that.
    """
    maps, masks = np.asarray(maps), np.asarray(masks) > 0
    if maps.ndim != 3 or maps.shape != masks.shape:
        raise ValueError(f"maps {maps.shape} and masks {masks.shape}: expected the same (images, height, width)")
    if not masks.any():
        raise ValueError(f"no lesion pixel in {len(masks)} masks: give the images that have a mask")
    return average_precision(maps.ravel(), masks.ravel())


def pixel_results(maps: np.ndarray, ids: Sequence[str], masks: Mapping[str, np.ndarray]) -> dict[str, float] | None:
    """Return the pixel-level average precision over the images that have a lesion marked, with its prevalence and n."""
    marked = [i for i, image_id in enumerate(ids) if image_id in masks]
    if not marked or not (lesions := np.stack([masks[ids[i]] for i in marked])).any():
        return None
    return {
        "average_precision": pixel_average_precision(maps[marked], lesions),
        "prevalence": float(lesions.mean()),
        "images": len(marked),
    }
