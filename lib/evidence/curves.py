"""The data of charts: curves with bands, scores by group, false alarms against the promised rate."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy import ndarray as Array

from lib.evidence.evaluation import FALSE_ALARM_RATE, NO_LABEL, abnormal_groups
from lib.evidence.metrics import at_false_alarm_rate, at_sensitivity, calls, ranking
from lib.evidence.results import Evaluation
from lib.evidence.uncertainty import TAILS, patient_weights
from lib.scores.conformal import achieved_rate, p_values

CALIBRATION, NORMAL, ABNORMAL = "normal, validation", "normal, test", "abnormal, test"  # groups of images


class Band(NamedTuple):
    """A curve and its pointwise 95 % interval: four arrays of one length."""

    at: Array
    value: Array
    low: Array
    high: Array
    mark: tuple[float, float] | None = None  # where the threshold lies on the curve, if there is one


class CurveBands(NamedTuple):
    """Sensitivity over the false alarm rate, and precision over sensitivity."""

    roc: Band
    precision_recall: Band


class Group(NamedTuple):
    """A group of images: their number, their known scores in rising order, and the median."""

    images: int
    scores: Array
    median: float | None  # None without a score


class ScoreGroups(NamedTuple):
    """One method's scores: of validation images, of normal and of abnormal test images, and of each finding."""

    sides: dict[str, Group]
    findings: dict[str, Group]


class FalseAlarms(NamedTuple):
    """False alarms among normal test images, at each rate that this number of calibration images can promise."""

    promised: Array  # (k,), rising, to 0.5
    low: Array  # (k,): with `high`, the central 95 % of what chance allows
    high: Array
    rates: dict[str, Array]  # (k,) by method
    usual: int | None  # index of the highest promise up to 5 %; None if the calibration images are too few for one
    calibration: int  # images
    normal: int  # test images


def groups_of(table: pd.DataFrame, method: str, labels: str) -> dict[str, pd.DataFrame]:
    """Return the rows of validation images, of normal and of abnormal test images; ValueError without a column."""
    if missing := {"side", labels, method} - set(table.columns):
        raise ValueError(f"no column {sorted(missing)} in the table; it has {list(table.columns)}")
    test = table["side"] == "test"
    return {
        CALIBRATION: table[table["side"] == "validation"],
        NORMAL: table[test & (table[labels] == "normal")],
        ABNORMAL: table[test & (table[labels] == "abnormal")],
    }


def score_bands(
    scores: Array, is_abnormal: Array, patients: Array, resamples: int = 2000, seed: int = 0, points: int = 101
) -> CurveBands:
    """Return the curves of one score, (n,), at `points` abscissae from 0 to 1.

    The bands are percentiles of a bootstrap over patients (vertical averaging: Fawcett, Pattern Recognit. Lett. 2006).
    They hold at one abscissa, fixed beforehand; the whole curve lies within them less often.
    """
    rank, at = ranking(scores, is_abnormal), np.linspace(0, 1, points)

    def curves(weights: Array) -> tuple[list[Array], list[Array]]:
        called = calls(rank, weights)
        return [at_false_alarm_rate(x, called) for x in at], [at_sensitivity(x, called)[0] for x in at]

    values = np.array(curves(np.ones((len(is_abnormal), 1))))[..., 0]
    drawn = [np.array(curves(weights)) for weights in patient_weights(is_abnormal, patients, resamples, seed)]
    edges = np.nanquantile(np.concatenate(drawn, axis=-1), TAILS, axis=-1)
    return CurveBands(*(Band(at, values[i], *edges[:, i]) for i in range(2)))


def curve_bands(table: pd.DataFrame, evaluation: Evaluation, seed: int = 0) -> dict[str, CurveBands]:
    """Return each method's curves from the table and its evaluation (`evaluate_scores`), with the same resamples."""
    found = {}
    for method, evaluated in evaluation.methods.items():
        groups = groups_of(table, method, evaluation.labels)
        both = pd.concat([groups[NORMAL], groups[ABNORMAL]])
        is_abnormal = (both[evaluation.labels] == "abnormal").to_numpy()
        bands = score_bands(
            both[method].to_numpy(), is_abnormal, both["patient"].to_numpy(), evaluation.resamples, seed
        )
        if threshold := evaluated.threshold:
            sensitivity, alarms = threshold.sensitivity.value, 1 - threshold.specificity.value
            true, false = evaluation.prevalence * sensitivity, (1 - evaluation.prevalence) * alarms
            precision = true / (true + false) if true + false else 1.0
            roc, precision_recall = bands
            bands = CurveBands(
                roc._replace(mark=(alarms, sensitivity)), precision_recall._replace(mark=(sensitivity, precision))
            )
        found[method] = bands
    return found


def score_groups(table: pd.DataFrame, evaluation: Evaluation) -> dict[str, ScoreGroups]:
    """Return each method's scores by group, from the table and its evaluation (`evaluate_scores`)."""
    labels, test = evaluation.labels, table[table["side"] == "test"]
    label = test[labels].replace("", NO_LABEL).fillna(NO_LABEL)
    findings = {name: test[rows] for name, rows in abnormal_groups(label, test["finding"]).items()}

    def grouped(groups: dict[str, pd.DataFrame], method: str) -> dict[str, Group]:
        scores = {name: np.sort(rows[method].dropna().to_numpy(float)) for name, rows in groups.items()}
        medians = {name: float(np.median(known)) if len(known) else None for name, known in scores.items()}
        return {name: Group(len(rows), scores[name], medians[name]) for name, rows in groups.items()}

    return {
        method: ScoreGroups(grouped(groups_of(table, method, labels), method), grouped(findings, method))
        for method in evaluation.methods
    }


def false_alarm_rates(table: pd.DataFrame, methods: Sequence[str], labels: str) -> FalseAlarms:
    """Return the share of normal test images with a conformal p-value up to alpha, for each alpha that can be promised.

    `low` and `high` are the central 95 % of the rates that this number of calibration (validation) images gives on this
    number of exchangeable test images (`achieved_rate`). Raises ValueError for a method without validation scores.
    """
    groups = {method: groups_of(table, method, labels) for method in methods}
    calibration, normal = (len(groups[methods[0]][name]) for name in (CALIBRATION, NORMAL))
    levels = np.arange(1, math.floor(0.5 * (calibration + 1)) + 1) / (calibration + 1)
    low, high = np.array([achieved_rate(calibration, level, normal)[1:] for level in levels]).T
    rates = {}
    for method, rows in groups.items():
        p = p_values(*(rows[name][method].to_numpy(float) for name in (CALIBRATION, NORMAL)))
        rates[method] = (p[:, None] <= levels + 1e-9).mean(axis=0)
    usual = int((levels <= FALSE_ALARM_RATE + 1e-9).sum()) - 1
    return FalseAlarms(levels, low, high, rates, usual if usual >= 0 else None, calibration, normal)
