"""Runs of one set with different seeds, taken together: the contents of a study, and its statistics.

Every run scores the same test images. The AUROC of a score is the mean over the seeds that have it; a bootstrap over
patients, which takes that mean in each resample, gives its interval. A difference uses the seeds that both scores have.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from pydantic import Field
from pydantic.json_schema import models_json_schema

from lib.evidence.ensembles import Ensemble
from lib.evidence.evaluation import COLUMNS, FALSE_ALARM_RATE, threshold_at
from lib.evidence.learning import LearningCurves
from lib.evidence.record import Record
from lib.evidence.results import Budget, Choice, Localisation, Promise, Results
from lib.evidence.seeds import SeedMean, seed_mean
from lib.evidence.uncertainty import Bootstrap, bootstrap
from lib.params import Params
from lib.scores.conformal import achieved_rate


class MeanScore(Record):
    """The metrics of one score."""

    auroc: SeedMean
    average_precision: SeedMean


class MeanDifference(Record):
    """AUROC of score `first` minus that of score `second`, on the same resamples of the same patients."""

    first: str
    second: str
    auroc: SeedMean

    @property
    def order(self) -> int:
        """1 if `first` ranks above `second`, -1 if below, 0 if the 95 % interval contains zero."""
        return (self.auroc.estimate.low > 0) - (self.auroc.estimate.high < 0)


class MeanEvaluation(Record):
    """Everything that is reported under one column of labels."""

    labels: str
    n_normal: int
    n_abnormal: int
    scores: dict[str, MeanScore]
    """By name: a method's for its primary score, "ra, chosen", "ra, combined", a reference's."""
    differences: list[MeanDifference]

    def among(self, pairs: Sequence[tuple[str, str]]) -> list[MeanDifference]:
        """Return the differences of these pairs of scores, in this order, leaving out those that were not computed."""
        found = {(difference.first, difference.second): difference for difference in self.differences}
        return [found[pair] for pair in pairs if pair in found]


class Selected(Record):
    """What model selection chose for a method and seed without labels, and how good that is by the test labels."""

    choice: Choice
    oracle: float
    """AUROC of the best candidate that the test labels could have picked."""
    agreement: float | None
    """Spearman correlation of the criterion with AUROC over the candidates; None if either is constant."""


class Study(Record):
    """What runs of one set with different seeds have found together."""

    version: Literal[2] = 2
    settings: Params
    """Of the first run."""
    runs: dict[str, dict[str, Any]]
    """The settings in which each run differs from the first, by the run's folder."""
    seeds: list[int]
    splits: dict[int, str]
    """The split's hash, by seed."""
    resamples: int
    patient_separation: str
    budgets: dict[str, Budget]
    """By method, for the seed that took the fewest seconds; other work shared the machine."""
    left_out: dict[str, str]
    """What could not be scored, and why."""
    evaluations: list[MeanEvaluation]
    """One for each column of labels; the first is the one that counts."""
    candidates: dict[str, dict[str, float]]
    """Mean AUROC of every candidate score of a method's last epoch, by method and "map, pooling"."""
    selection: dict[str, dict[int, Selected]]
    """By method and seed."""
    copied: dict[str, dict[int, dict[str, float]]]
    """The share of a pasted change that is reconstructed, by method, seed and kind of change."""
    false_alarms: dict[int, Promise]
    """By seed; seeds with too few validation images to promise anything are missing."""
    localisation: dict[str, Localisation]
    """By run, of runs on images with marked lesions."""
    curves: LearningCurves | None = None
    """Over the training of each method; None if no run has kept the scores of earlier epochs."""
    ensembles: list[Ensemble] = Field(default_factory=list)
    """Each score over its seeds, then the combination, by the labels that count."""

    @property
    def evaluation(self) -> MeanEvaluation:
        """The evaluation by the labels that count."""
        return self.evaluations[0]

    def oracle(self, method: str) -> float:
        """Return the mean over the seeds of the best AUROC that the test labels could have picked for a method."""
        return float(np.mean([selected.oracle for selected in self.selection[method].values()]))


class SeedScores(NamedTuple):
    """The scores of the runs of one seed, in memory."""

    table: pd.DataFrame
    """One row for each image of the validation and the test side: id, side, patient, labels, scores."""
    columns: list[str]
    """The scores among the table's columns."""
    candidates: pd.DataFrame
    """One row for each method, epoch and candidate score: `separation` (the criterion), `auroc`, and `own`.

    `own` says whether the method could choose the score: it looks through no other method's encoder.
    """

    @property
    def test(self) -> pd.DataFrame:
        """The test images, by id."""
        return self.table[self.table["side"] == "test"].set_index("id")


def schema() -> dict[str, Any]:
    """Return the JSON schema of a run's `results.json` and of a study's file; other versions know other methods."""
    _, definitions = models_json_schema([(Results, "validation"), (Study, "validation")])
    for setting in ("methods", "references"):
        del definitions["$defs"]["Params"]["properties"][setting]["items"]["enum"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A run's results.json, or a study of research/results",
        "anyOf": [{"$ref": f"#/$defs/{model.__name__}"} for model in (Results, Study)],
        **definitions,
    }


def check_same_images(tables: Mapping[str, pd.DataFrame]) -> None:
    """Raise ValueError unless these tables, by id, hold the same images once, with the same patients and labels."""
    (name, first), *others = tables.items()
    for other, table in [(name, first), *others]:
        if (twice := table.index.duplicated()).any():
            raise ValueError(f"{other}: the image {table.index[twice][0]!r} is in several rows, expected one")
        if set(table.index) != set(first.index):
            raise ValueError(f"{name} and {other} have different test images: give runs on the same ones")
        for column in [column for column in (*COLUMNS, "strict_label") if column in first and column in table]:
            differs = first[column].fillna("") != table.loc[first.index, column].fillna("")
            if differs.any():
                found = f"{name} and {other} differ in {column!r} of {differs.sum()} images, first {differs.idxmax()!r}"
                raise ValueError(f"{found}: score the runs again, on the same images with the same labels")


def evaluate_seeds(
    seeds: Mapping[int, SeedScores], labels: str, pairs: Sequence[tuple[str, str]], resamples: int = 2000
) -> MeanEvaluation:
    """Evaluate every score of every seed by one column of labels, and the difference of each pair that has scores.

    Images that are neither "normal" nor "abnormal" are left out. Raises ValueError if the seeds' test images, patients
    or labels differ (`check_same_images`), or a score is not finite.
    """
    tests = {seed: scored.test for seed, scored in seeds.items()}
    check_same_images({f"seed {seed}": test for seed, test in tests.items()})
    first = next(iter(tests.values()))
    known = first[first[labels].isin(["normal", "abnormal"])]
    is_abnormal, patients = (known[labels] == "abnormal").to_numpy(), known["patient"].to_numpy()
    drawn: dict[str, dict[int, Bootstrap]] = {}
    for column in dict.fromkeys(column for scored in seeds.values() for column in scored.columns):
        drawn[column] = {
            seed: bootstrap(tests[seed].loc[known.index, [column]].to_numpy(float).T, is_abnormal, patients, resamples)
            for seed, scored in seeds.items()
            if column in scored.columns
        }
    return MeanEvaluation(
        labels=labels,
        n_normal=int((~is_abnormal).sum()),
        n_abnormal=int(is_abnormal.sum()),
        scores={
            name: MeanScore(auroc=seed_mean(of, "auroc"), average_precision=seed_mean(of, "average_precision"))
            for name, of in drawn.items()
        },
        differences=[
            MeanDifference(first=a, second=b, auroc=seed_mean(drawn[a], "auroc", drawn[b]))
            for a, b in pairs
            if {a, b} <= drawn.keys() and drawn[a].keys() & drawn[b].keys()
        ],
    )


def false_alarms(scored: SeedScores, labels: str) -> Promise | None:
    """Return the share of normal test images above the threshold that promises 5 %, by score, and what chance allows.

    None for fewer than 19 validation images, which cannot promise 5 %. Scores that they lack are left out.
    """
    validation, test = scored.table[scored.table["side"] == "validation"], scored.test
    if FALSE_ALARM_RATE * (len(validation) + 1) < 1:
        return None
    normal = test[test[labels] == "normal"]
    chance = achieved_rate(len(validation), FALSE_ALARM_RATE, len(normal))
    rates = {
        column: float((normal[column] > threshold_at(validation[column])).mean())
        for column in scored.columns
        if validation[column].notna().all()
    }
    return Promise(promised=FALSE_ALARM_RATE, low=chance.low, high=chance.high, rates=rates)


def selected(candidates: pd.DataFrame, choices: Mapping[str, Choice]) -> dict[str, Selected]:
    """Return what was chosen, by method, with its oracle and the criterion's agreement with AUROC."""
    found = {}
    for method, own in candidates[candidates["own"]].groupby("method", sort=False):
        ranked = own[["separation", "auroc"]]
        found[method] = Selected(
            choice=choices[method],
            oracle=round(own["auroc"].max(), 4),
            agreement=round(ranked.corr("spearman").iloc[0, 1], 4) if ranked.nunique().min() > 1 else None,
        )
    return found


def mean_candidates(seeds: Sequence[SeedScores]) -> dict[str, dict[str, float]]:
    """Return the AUROC of each candidate score of the last epoch, the mean over the seeds, by method and score."""
    by_seed = [scored.candidates for scored in seeds]
    last = pd.concat([one[one["epoch"] == one.groupby("method")["epoch"].transform("max")] for one in by_seed])
    return {
        method: of.groupby("score", sort=False)["auroc"].mean().round(4).to_dict()
        for method, of in last.groupby("method", sort=False)
    }


def auroc_by_map(study: Study) -> pd.DataFrame:
    """Return the mean AUROC over the poolings: a row per anomaly map, a column per method, NaN where there is none."""
    grid = pd.DataFrame(study.candidates)
    return grid.groupby(grid.index.str.partition(",").get_level_values(0), sort=False).mean()


def variance_shares(grid: pd.DataFrame) -> tuple[float, float]:
    """Return the shares of a table's variance between its columns and between its rows (two-way ANOVA).

    Rows with NaN are left out. The remaining share is interaction (which row suits which column) and chance.
    """
    values = grid.dropna().to_numpy()
    return float(values.mean(axis=0).var() / values.var()), float(values.mean(axis=1).var() / values.var())
