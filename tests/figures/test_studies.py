"""Promises of `lib.figures.studies`: tables say in text what a study holds, a dash where it holds nothing."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lib.evidence.results import Audit, Check, Estimate, Promise
from lib.evidence.study import MeanDifference, MeanEvaluation, MeanScore, SeedMean, Study
from lib.figures.studies import (
    audit_extract,
    copied_table,
    difference_table,
    evaluations,
    false_alarm_table,
    forms,
    map_table,
    score_table,
    seeds_table,
    selection_table,
    size_table,
    spread,
    verdict,
)
from lib.runs.study import read_study

ROOT = Path(__file__).resolve().parents[2]


def mean(value: float, low: float, high: float, seeds: dict[int, float], drawn=(-0.125, 0.5)) -> SeedMean:
    several = len(seeds) > 1
    return SeedMean(
        estimate=Estimate(value, low, high),
        drawn=drawn if several else None,
        sample_sd=0.0456,
        seed_sd=0.0123 if several else None,
        seeds=seeds,
    )


def evaluation() -> MeanEvaluation:
    areas = {"unet": mean(0.4336, 0.316, 0.559, {0: 0.4, 1: 0.467}), "knn": mean(0.8, 0.7, 0.9, {0: 0.8})}
    gap = mean(-0.367, -0.45, 0.0004, {0: -0.4, 1: -0.334})
    return MeanEvaluation(
        labels="label",
        n_normal=36,
        n_abnormal=64,
        scores={name: MeanScore(auroc=area, average_precision=area) for name, area in areas.items()},
        differences=[MeanDifference(first="unet", second="knn", auroc=gap)],
    )


@pytest.fixture
def small() -> Study:
    """The tracked study of adults with an evaluation of two scores."""
    study = read_study(ROOT / "research/results/adult.json")
    return study.model_copy(update={"evaluations": [evaluation()]})


def test_a_score_stands_under_its_set_labels_and_images_and_a_missing_one_is_a_dash(small):
    table = score_table({"adult": small}, ["knn", "unet", "ra"])
    assert table.to_dict() == {
        "adult, label, 36 / 64": {"knn": "0.800 [0.70, 0.90]", "unet": "0.434 [0.32, 0.56]", "ra": "–"}
    }
    assert list(evaluations({"adult": small})) == list(table)


def test_a_difference_has_signs_and_one_that_no_set_has_is_no_row(small):
    table = difference_table({"adult": small}, [("unet", "knn"), ("ra", "knn")])
    assert table.to_dict() == {"adult, label, 36 / 64": {"unet − knn": "-0.367 [-0.45, +0.00]"}}


def test_a_verdict_goes_by_the_interval_and_not_by_its_rounded_ends(small):
    (difference,) = small.evaluation.differences
    assert verdict(difference) == (
        "*unet* is not told apart from *knn*: -0.367 [-0.45, +0.00], seeds 0, 1; with seeds as draws [-0.12, +0.50]."
    )
    below = difference.model_copy(update={"auroc": mean(-0.3, -0.4, -0.2, {2: -0.3})})
    assert verdict(below) == "*unet* ranks below *knn*: -0.300 [-0.40, -0.20], seeds 2."


def test_seeds_and_patients_stand_apart_and_one_seed_says_nothing_of_others(small):
    table = seeds_table(small.evaluation, ["unet", "knn"], [("unet", "knn")])
    assert list(table.loc["unet"]) == ["0.434 [0.32, 0.56]", "0.40 0.47", "[-0.12, 0.50]", "0.046", "0.012"]
    assert list(table.loc["knn"]) == ["0.800 [0.70, 0.90]", "0.80", "–", "0.046", "–"]
    assert list(table.loc["unet − knn"])[:3] == ["-0.367 [-0.45, +0.00]", "-0.40 -0.33", "[-0.12, +0.50]"]


def test_the_cost_of_choosing_is_the_mean_oracle_less_the_chosen_scores_auroc():
    study = read_study(ROOT / "research/results/adult.json")
    for method, cells in selection_table(study).T.items():
        oracles = [one.oracle for one in study.selection[method].values()]
        chosen = study.evaluation.scores[f"{method}, chosen"].auroc.estimate.value
        assert cells["cost of choosing"] == f"{sum(oracles) / len(oracles) - chosen:.3f}"


def test_two_sizes_are_compared_over_the_seeds_of_the_first():
    small, large = (read_study(ROOT / f"research/results/adult{size}.json") for size in ("", "-128"))
    table = size_table(large, small, ["knn"])
    both = (study.evaluation.scores["knn"].auroc.seeds for study in (large, small))
    assert list(table.loc["knn"]) == [f"{seeds[0]:.3f}" for seeds in both]
    assert list(table) == ["128 px", "64 px"]


def test_maps_of_none_of_the_methods_are_left_out():
    grid = pd.DataFrame({"unet": [0.55, np.nan], "vae": [0.7, 0.8]}, index=["residual", "kl"])
    table = map_table(grid, ["unet"])
    assert table.to_dict() == {"unet": {"residual": "0.55"}, "vae": {"residual": "0.70"}}


def test_shares_and_alarms_run_from_the_lowest_to_the_highest_seed(small):
    copied = {"unet": {0: {"square": 0.912}, 1: {"square": 0.894}}, "ra": {0: {"square": -0.001}}}
    table = copied_table({"adult": small.model_copy(update={"copied": copied})})
    assert table["adult, square"].to_dict() == {"unet": "89 to 91 %", "ra": "0 %"}
    promises = {seed: Promise(promised=0.05, low=0, high=0.11, rates={"unet": 0.1 * seed}) for seed in (0, 2)}
    table = false_alarm_table({"adult": small.model_copy(update={"false_alarms": promises})}, ["unet", "ap-view"])
    assert table.to_dict() == {"adult (chance allows up to 11 %)": {"unet": "0 to 20 %", "ap-view": "–"}}


def test_the_extract_of_an_audit_holds_the_strongest_cues_and_what_is_left_without_them():
    def check(kind: str, what: str, away: float | None, area: float | None = 0.7) -> Check:
        own = None if away is None else Estimate(0.5 + away, 0.4, 0.9)
        methods = {"ra": None if area is None else Estimate(area, 0.6, 0.8)}
        return Check(check=kind, what=what, normal=20, abnormal=30, auroc=own, away=away, methods=methods, remark="")

    checks = [check("tag", "view is AP", 0.3), check("tag", "age", 0.2), check("tag", "sex is F", 0.1)]
    checks += [check("tag", "width", None), check("stratum", "view is AP: no", None)]
    checks += [check("stratum", "view is AP: yes", None, None), check("stratum", "age: 1 to 9", None)]
    checks += [check("image", "contrast", 0.1), check("masked image", "whole", None), check("reading", "label", None)]
    table = audit_extract(Audit(labels="label", checks=checks, verdicts={}))
    assert list(table.index) == [
        "tag: view is AP",
        "tag: age",
        "image: contrast",
        "stratum: view is AP: no",
        "masked image: whole",
    ]
    assert list(table.loc["tag: view is AP"]) == ["20 / 30", "0.800 [0.40, 0.90]", "0.700 [0.60, 0.80]"]


def test_names_of_scores_go_method_by_method():
    assert forms(["unet", "ra"], ["mean residual", "chosen score"]) == ["unet", "unet, chosen", "ra", "ra, chosen"]
    assert (spread([0.2, 0.1]), spread([0.101, 0.102]), spread([])) == ("0.10 to 0.20", "0.10", "–")
