"""Scores, labels and metadata -> the numbers that are reported, each with its interval (`lib.evidence.uncertainty`)."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd

from lib.evidence.delong import delong
from lib.evidence.metrics import METRICS, numbered
from lib.evidence.results import Difference, Estimate, Evaluated, Evaluation, Finding, Stratum, Threshold
from lib.evidence.uncertainty import FEWEST_PATIENTS, LEVEL, Bootstrap, affordable, bootstrap, logit_interval

FALSE_ALARM_RATE = 0.05  # share of normal validation images that the threshold may call abnormal
NO_LABEL = "no label"  # what an empty label is counted under
UNKNOWN = "unknown"  # the stratum of images without a value
COLUMNS = ("id", "side", "patient", "label", "finding")  # of the table, beside the scores
STRATA = ("view", "sex", "age", "source")  # columns that divide the test images, if the table has them
AGE_BANDS = {0: "under 18", 18: "18 to 39", 40: "40 to 59", 60: "60 to 79", 80: "80 and over"}  # from this year on


def threshold_at(validation_scores: np.ndarray, false_alarm_rate: float = FALSE_ALARM_RATE) -> float:
    """Return the score that a new normal image exceeds with at most this probability; no test label is needed.

    It is the lowest of n validation scores, (n,), that at most rate (n + 1) - 1 of them exceed, as conformal p-values
    require (`lib.scores.conformal`). With fewer than 1 / rate - 1 images it is the highest, and the chance is larger.

    Raises:
        ValueError: There is no score, one is not finite, or the rate is not between 0 and 1.

    """
    if not 0 < false_alarm_rate < 1:
        raise ValueError(f"a false alarm rate of {false_alarm_rate}: expected a number between 0 and 1")
    scores = np.sort(np.asarray(validation_scores))
    if not scores.size or not np.isfinite(scores).all():
        found = f"{scores.size} validation scores, {np.isfinite(scores).sum()} finite"
        raise ValueError(f"{found}: expected some, all finite; score normal images that were not trained on")
    above = int(false_alarm_rate * (len(scores) + 1) + 1e-9) - 1  # 0.29 * 100 is below 29
    return float(scores[-1 - max(above, 0)])


def share(hits: np.ndarray, patients: np.ndarray) -> Estimate:
    """Return the share of `hits`, (n,) bool, with its `logit_interval`; the variance is that of a ratio, by patient.

    Where a threshold decides what is a hit, it is taken as fixed.
    """
    if not len(hits) or len(hits) != len(patients):
        raise ValueError(f"{len(hits)} hits of {len(patients)} patients: expected one or more, and the patient of each")
    patient, value = numbered(patients), float(np.mean(hits))
    beyond = np.bincount(patient, weights=hits - value)
    sd = np.sqrt(len(beyond) / (len(beyond) - 1) * (beyond**2).sum()) / len(hits) if len(beyond) > 1 else np.inf
    return logit_interval(value, sd, len(beyond))


def check_table(table: pd.DataFrame, methods: Sequence[str], labels: str) -> None:
    """Raise a ValueError that says what `evaluate_scores` lacks in `table`."""
    wanted = list(dict.fromkeys([*COLUMNS, labels, *methods]))
    if missing := [name for name in wanted if name not in table.columns]:
        raise ValueError(f"no column {missing} in the table; it has {list(table.columns)}: add it, or name another")
    if not methods:
        raise ValueError("methods is empty, expected the names of at least one column of scores")
    if twice := sorted({name for of in (methods, table.columns) for name in wanted if list(of).count(name) > 1}):
        raise ValueError(f"{twice} occur twice among the methods or columns: name each once, and drop the other column")
    if taken := sorted({*COLUMNS, labels} & set(methods)):
        raise ValueError(f"the methods {taken} have the names of columns that are no scores: rename them")
    if (again := table["id"].duplicated()).any():
        raise ValueError(f"the id {table['id'][again].iloc[0]!r} is in several rows: expected one row for each image")
    if unknown := sorted(set(table["side"].astype(str)) - {"reference", "validation", "test"}):
        raise ValueError(f"side is {unknown} in some rows, expected 'reference', 'validation' or 'test'")
    nameless = table["id"][table["patient"].isna() | (table["patient"].astype(str) == "")]
    if len(nameless):
        raise ValueError(
            f"no patient for {len(nameless)} images, first {nameless.iloc[0]!r}: give each one, if unknown its own"
        )
    validation = table["label"][table["side"] == "validation"]
    ill = (validation == "abnormal").sum()
    if validation.empty or ill:
        found = f"{len(validation)} validation images, {ill} of them abnormal"
        raise ValueError(f"{found}: the threshold needs some, all of them normal; split again")
    for method in methods:
        if not pd.api.types.is_numeric_dtype(table[method]):
            found = f"the scores of {method!r} are {table[method].dtype}, first {table[method].iloc[0]!r}"
            raise ValueError(f"{found}; expected numbers: convert them (pd.to_numeric)")
        unscored = (table["side"] != "test") & table[method].where(table["side"] != "test").isna().all()
        bad = table["id"][~np.isfinite(table[method].to_numpy(float)) & ~unscored]
        if len(bad):
            found = f"{len(bad)} scores of {method!r} are not finite, first {bad.iloc[0]!r}"
            raise ValueError(f"{found}; expected a number for every image: score again, or leave the method out")


def abnormal_groups(label: pd.Series, finding: pd.Series) -> dict[str, pd.Series]:
    """Return the rows of each further kind of `label` that is large enough, and of each finding of abnormal images."""
    kinds = label.value_counts().drop(["normal", "abnormal", NO_LABEL], errors="ignore")
    names = finding.astype(object).where(finding.notna(), "").str.split("|").where(label == "abnormal", "")
    groups = {str(kind): label == kind for kind, count in kinds.items() if count >= FEWEST_PATIENTS}
    for name in sorted({name for several in names for name in several} - {""}):
        groups[name] = names.map(lambda several, name=name: name in several)
    return groups


def why_no_auroc(normal: int, abnormal: int) -> str | None:
    """Return why so many patients with images of either class are too few for an AUROC, or None if they are not."""
    few = [f"{n} {kind}" for n, kind in ((normal, "normal"), (abnormal, "abnormal")) if n < FEWEST_PATIENTS]
    return f"{' and '.join(few)}: fewer than {FEWEST_PATIENTS} patients" if few else None


def strata(values: pd.Series) -> pd.Series:
    """Return each image's stratum by a column, a categorical: its value, of an age its band; "unknown" comes last."""
    if values.name == "age":
        ages = pd.to_numeric(values, errors="coerce")
        found = pd.cut(ages, [*AGE_BANDS, np.inf], right=False, labels=list(AGE_BANDS.values()))
    else:
        text = values.astype(object).where(values.notna(), "").astype(str)
        found = text.where(~text.isin(["", UNKNOWN])).astype("category")
    return found.cat.add_categories(UNKNOWN).fillna(UNKNOWN)


class Sample(NamedTuple):
    """The test images by one column of labels, and the methods that score them."""

    test: pd.DataFrame  # one row for each image
    label: pd.Series  # "normal", "abnormal", another kind, or "no label"
    methods: list[str]  # columns of `test`
    resamples: int
    seed: int

    def decided(self) -> pd.Series:
        """Return which images are normal or abnormal."""
        return self.label.isin(["normal", "abnormal"])

    def patients(self, rows: pd.Series) -> int:
        """Return of how many patients these images are."""
        return int(self.test.loc[rows, "patient"].nunique())

    def resampled(self, rows: pd.Series, metrics: Sequence[str]) -> Bootstrap:
        """Return the metrics of every method on these rows; all images that are not normal count as abnormal."""
        test, is_abnormal = self.test[rows], (self.label[rows] != "normal").to_numpy()
        scores = test[self.methods].to_numpy(float).T
        return bootstrap(scores, is_abnormal, test["patient"].to_numpy(), self.resamples, self.seed, metrics)

    def aurocs(self, rows: pd.Series) -> dict[str, Estimate]:
        """Return the AUROC of every method on these rows."""
        drawn = self.resampled(rows, ["auroc"])
        return {method: drawn.estimate("auroc", i) for i, method in enumerate(self.methods)}

    def findings(self) -> dict[str, dict[str, Finding]]:
        """Return each method's findings, every one against all normal images."""
        normal = self.label == "normal"
        findings: dict[str, dict[str, Finding]] = {method: {} for method in self.methods}
        for name, rows in abnormal_groups(self.label, self.test["finding"]).items():
            why = why_no_auroc(self.patients(normal), self.patients(rows))
            areas = None if why else self.aurocs(rows | normal)
            for method in self.methods:
                findings[method][name] = Finding(n=int(rows.sum()), why=why, auroc=areas[method] if areas else None)
        return findings

    def strata(self) -> list[Stratum]:
        """Return every stratum that holds a normal or an abnormal image."""
        found = []
        divided = {name: strata(self.test[name]) for name in STRATA if name in self.test and name not in self.methods}
        for column, value in [(column, value) for column, of in divided.items() for value in of.cat.categories]:
            rows = divided[column] == value
            of_class = [rows & (self.label == kind) for kind in ("normal", "abnormal")]
            normal, abnormal = (int(images.sum()) for images in of_class)
            if not normal + abnormal:
                continue
            why = f"{column} not known" if value == UNKNOWN else why_no_auroc(*map(self.patients, of_class))
            areas = None if why else self.aurocs(rows & self.decided())
            found.append(
                Stratum(column=column, value=value, n_normal=normal, n_abnormal=abnormal, why=why, auroc=areas)
            )
        return found


def evaluate_scores(
    table: pd.DataFrame,
    methods: Sequence[str],
    *,
    labels: str = "label",
    pairs: Sequence[tuple[str, str]] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> Evaluation:
    """Return everything that is reported about the `methods`, columns of `table`; higher scores mean more abnormal.

    One row of `table` is an image: `id`, `side` (reference, validation or test), `patient`, `label`, `finding` (several
    joined by "|"). The column `labels` says which test images are "normal" and "abnormal"; the others are counted in
    `left_out`; those with a label of their own are also compared with the normal images, as a finding. The validation
    images, all normal, give each threshold; a method with NaN outside the test side has none. The reference images are
    not used. Differences are those of the `pairs`, by default of all pairs. There is a stratum for each value of the
    columns `view`, `sex`, `age` and `source` that the table has, unless a method has that name. A finding or stratum
    with fewer than 10 patients of either class has no AUROC, but a reason. Of very many test images fewer resamples are
    drawn than `resamples` (`affordable`); the evaluation says how many.

    Raises:
        ValueError: The table lacks a column, patients, scores, or images of a class (`check_table`).

    """
    methods = list(methods)
    check_table(table, methods, labels)
    validation, test = (table[table["side"] == side] for side in ("validation", "test"))
    label = test[labels].astype(object).where(test[labels].notna(), "").replace("", NO_LABEL)
    counts = {str(name): int(count) for name, count in label.value_counts().items()}
    if not {"normal", "abnormal"} <= counts.keys():
        found = f"test images by {labels!r}: {counts}"
        raise ValueError(f"{found}; expected some 'normal' and some 'abnormal': choose another column")
    resamples = affordable(resamples, len(test))
    sample = Sample(test, label, methods, resamples, seed)
    decided = sample.decided()
    used, is_abnormal = test[decided], (label[decided] == "abnormal").to_numpy()
    patients = used["patient"].to_numpy()
    drawn, findings = sample.resampled(decided, list(METRICS)), sample.findings()
    abnormal_patients, normal_patients = (len(set(patients[rows])) for rows in (is_abnormal, ~is_abnormal))
    enough = min(abnormal_patients, normal_patients) > 1
    exact = delong(used[methods].to_numpy(float).T, is_abnormal, patients) if enough else None

    def evaluated(i: int, method: str) -> Evaluated:
        threshold = None
        if validation[method].notna().all():
            value = threshold_at(validation[method])
            above = used[method].to_numpy() > value
            threshold = Threshold(
                value=value,
                false_alarm_rate=FALSE_ALARM_RATE,
                sensitivity=share(above[is_abnormal], patients[is_abnormal]),
                specificity=share(~above[~is_abnormal], patients[~is_abnormal]),
            )
        metrics = {name: drawn.estimate(name, i) for name in METRICS}
        return Evaluated(**metrics, threshold=threshold, findings=findings[method])

    def difference(first: str, second: str) -> Difference:
        a, b = methods.index(first), methods.index(second)
        return Difference(
            first=first,
            second=second,
            auroc=drawn.estimate("auroc", a, b),
            average_precision=drawn.estimate("average_precision", a, b),
            p_value=drawn.p_value(a, b),
            delong=exact and exact.difference(a, b),
        )

    return Evaluation(
        labels=labels,
        n_normal=counts["normal"],
        n_abnormal=counts["abnormal"],
        prevalence=float(is_abnormal.mean()),
        left_out={name: n for name, n in counts.items() if name not in ("normal", "abnormal")},
        patients=len(set(patients)),
        normal_patients=normal_patients,
        abnormal_patients=abnormal_patients,
        level=LEVEL,
        resamples=resamples,
        methods={method: evaluated(i, method) for i, method in enumerate(methods)},
        differences=[difference(*pair) for pair in (combinations(methods, 2) if pairs is None else pairs)],
        strata=sample.strata(),
    )
