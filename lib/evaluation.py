"""Scores, labels and metadata -> the numbers that are reported, each with its interval (`lib.uncertainty`)."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any, Protocol

import numpy as np
import pandas as pd

from lib.uncertainty import (
    LEVEL,
    METRICS,
    Bootstrap,
    Estimate,
    bootstrap,
    delong,
    logit_interval,
    ranking,
    weighted_auroc,
    weighted_average_precision,
)

FALSE_ALARM_RATE = 0.05  # share of normal validation images that the threshold may call abnormal
FEWEST_IMAGES = 10  # of either class: a group with fewer gets no AUROC, its interval would say nothing
NO_LABEL = "no label"  # what an empty label is counted under
UNKNOWN = "unknown"  # the stratum of the images whose metadata are silent
STRATA = ("view", "sex", "age", "source")  # columns by which the test images are told apart, where a table has them
AGE_BANDS = {0: "under 18", 18: "18 to 39", 40: "40 to 59", 60: "60 to 79", 80: "80 and over"}  # from this year on


class FilmStack(Protocol):
    """Films (n, height, width) to be read by index: an array, or `lib.cache.Films`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of films, height, width."""

    def __getitem__(self, key: Any, /) -> np.ndarray: ...


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
        found = f"{scores.size} validation scores, {np.isfinite(scores).sum()} finite"
        raise ValueError(f"{found}: expected some, all finite; score normal images that were not trained on")
    above = int(false_alarm_rate * (len(scores) + 1) + 1e-9) - 1  # 0.29 * 100 is below 29
    return float(scores[-1 - max(above, 0)])


def share(hits: np.ndarray, patients: np.ndarray) -> Estimate:
    """Share of `hits`, boolean (n,), and its interval: `logit_interval` at the spread of a ratio of patients' sums."""
    if not len(hits) or len(hits) != len(patients):
        raise ValueError(f"{len(hits)} hits of {len(patients)} patients: expected one or more, and the patient of each")
    patient, value = np.unique(np.asarray(patients, dtype=str), return_inverse=True)[1], float(np.mean(hits))
    beyond = np.bincount(patient, weights=hits - value)
    sd = np.sqrt(len(beyond) / (len(beyond) - 1) * (beyond**2).sum()) / len(hits) if len(beyond) > 1 else np.inf
    return logit_interval(value, sd, len(beyond))


def sensitivity_specificity(
    scores: np.ndarray, is_abnormal: np.ndarray, patients: np.ndarray, threshold: float
) -> tuple[Estimate, Estimate]:
    """Shares of the abnormal images above `threshold` and of the normal images not above it; three lists, (n,) each.

    The intervals are those of `share`: the threshold counts as given.
    """
    if len(patients) != len(scores) or np.isnan(threshold):
        found = f"{len(patients)} patients of {len(scores)} scores, threshold {threshold}"
        raise ValueError(f"{found}: expected the patient of each, and a number, as of `threshold_at`")
    rank, above, patients = ranking(scores, is_abnormal), np.asarray(scores) > threshold, np.asarray(patients)
    return share(above[rank.abnormal], patients[rank.abnormal]), share(~above[rank.normal], patients[rank.normal])


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


def why_no_figure(n_normal: int, n_abnormal: int) -> str | None:
    """What is missing for an AUROC of a group, if anything."""
    few = [f"{n} {kind}" for n, kind in ((n_normal, "normal"), (n_abnormal, "abnormal")) if n < FEWEST_IMAGES]
    return f"{' and '.join(few)}: fewer than {FEWEST_IMAGES}" if few else None


def strata(test: pd.DataFrame, columns: Sequence[str]) -> dict[tuple[str, str], pd.Series]:
    """Which rows make up each (column, value): ages in bands, "unknown" last where a value is missing."""
    groups: dict[tuple[str, str], pd.Series] = {}
    for column in columns:
        values = test[column].astype(object).where(test[column].notna(), "").astype(str)
        order = sorted(set(values) - {""})
        if column == "age":
            bands = pd.cut(pd.to_numeric(values, errors="coerce"), [*AGE_BANDS, np.inf], right=False, labels=False)
            values, order = bands.map(dict(enumerate(AGE_BANDS.values()))).fillna(""), list(AGE_BANDS.values())
        groups |= {(column, value): values == value for value in order}
        groups[column, UNKNOWN] = ~values.isin(order)
    return {name: rows for name, rows in groups.items() if rows.any()}


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
    The reference images are not used. Differences are those of the `pairs`, of all by default. "strata" has one entry
    for each value of the columns `view`, `sex`, `age` and `source` that the table has and no method is named after.
    A finding or stratum with fewer than 10 images of either class has None for "auroc", and "why". The result holds
    plain numbers, strings and None; ValueError says what is missing.
    """
    methods = list(methods)
    check_table(table, methods, labels)
    validation, test = (table[table["side"] == side] for side in ("validation", "test"))
    label = test[labels].astype(object).where(test[labels].notna(), "").replace("", NO_LABEL)
    counts = {str(name): int(count) for name, count in label.value_counts().items()}
    normal, abnormal = label == "normal", label == "abnormal"
    if not normal.any() or not abnormal.any():
        found = f"test images by {labels!r}: {counts}"
        raise ValueError(f"{found}; expected some 'normal' and some 'abnormal': ask another column")

    def resampled(rows: pd.Series, metrics: Sequence[str]) -> Bootstrap:
        scores, patients = test.loc[rows, methods].to_numpy(float).T, test.loc[rows, "patient"].to_numpy()
        return bootstrap(scores, ~normal[rows].to_numpy(), patients, resamples, seed, metrics)

    def aurocs(rows: pd.Series, why: str | None) -> dict[str, dict] | None:
        group = None if why else resampled(rows, ["auroc"])
        return group and {method: group.estimate("auroc", i)._asdict() for i, method in enumerate(methods)}

    used, by_stratum = normal | abnormal, []
    findings: dict[str, dict[str, Any]] = {}
    drawn = resampled(used, list(METRICS))
    for name, rows in abnormal_groups(label, test["finding"]).items():
        why = why_no_figure(counts["normal"], n := int(rows.sum()))
        findings[name] = {"n": n, "why": why, "auroc": aurocs(rows | normal, why)}
    for (column, value), rows in strata(test, [c for c in STRATA if c in test and c not in methods]).items():
        sizes = [int((rows & of_class).sum()) for of_class in (normal, abnormal)]
        if not any(sizes):  # only images that these labels leave out
            continue
        why = f"{column} not known" if value == UNKNOWN else why_no_figure(*sizes)
        within = {"n_normal": sizes[0], "n_abnormal": sizes[1], "why": why, "auroc": aurocs(rows & used, why)}
        by_stratum.append({"column": column, "value": value, **within})
    patients, is_abnormal = test.loc[used, "patient"].to_numpy(), abnormal[used].to_numpy()
    enough = min(test.loc[of_class, "patient"].nunique() for of_class in (normal, abnormal)) > 1
    exact = delong(test.loc[used, methods].to_numpy(float).T, is_abnormal, patients) if enough else None

    def of_method(i: int, method: str) -> dict:
        threshold: dict[str, Any] | None = None
        if validation[method].notna().all():
            value = threshold_at(validation[method])
            found = sensitivity_specificity(test.loc[used, method], is_abnormal, patients, value)
            shares = dict(zip(("sensitivity", "specificity"), found, strict=True))
            threshold = {"value": value, "false_alarm_rate": FALSE_ALARM_RATE}
            threshold |= {name: one.value for name, one in shares.items()}
            threshold["intervals"] = {name: one._asdict() for name, one in shares.items()}
        return {
            **{metric: drawn.estimate(metric, i)._asdict() for metric in METRICS},
            "threshold": threshold,
            "findings": {
                name: one | {"auroc": one["auroc"] and one["auroc"][method]} for name, one in findings.items()
            },
        }

    def of_pair(first: str, second: str) -> dict:
        places = methods.index(first), methods.index(second)
        area, precision, p_value = drawn.difference(*places)
        found = {"auroc": area._asdict(), "average_precision": precision._asdict(), "p_value": p_value, "delong": None}
        if exact is not None:
            area, p_value = exact.difference(*places)
            found["delong"] = area._asdict() | {"p_value": p_value}
        return {"first": first, "second": second, **found}

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
        "strata": by_stratum,
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
            f"average precision {interval}": shown(one["average_precision"]),
            "FPR at 95 % TPR": f"{one['fpr_at_95_tpr']['value']:.2f}",
            "TPR at 5 % FPR": f"{one['tpr_at_5_fpr']['value']:.2f}",
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


def strata_table(results: dict) -> pd.DataFrame:
    """One row a stratum: its images of either class, each method's AUROC within it, and why there is none."""
    rows = {
        (one["column"], one["value"]): {
            "normal": one["n_normal"],
            "abnormal": one["n_abnormal"],
            **{method: shown(one["auroc"] and one["auroc"][method]) for method in results["methods"]},
            "remark": one["why"] or "",
        }
        for one in results["strata"]
    }
    columns = ["normal", "abnormal", *results["methods"], "remark"]
    index = pd.MultiIndex.from_tuples(rows, names=["column", "value"])
    return pd.DataFrame(list(rows.values()), index=index, columns=columns)
