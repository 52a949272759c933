"""Promises of `lib.evidence.study`: its statistics are what an independent count of the same tables gives."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError
from scipy.stats import betabinom, spearmanr
from sklearn.metrics import average_precision_score, roc_auc_score

from lib.evidence.results import Choice, Estimate
from lib.evidence.study import (
    MeanDifference,
    MeanEvaluation,
    SeedMean,
    SeedScores,
    Study,
    auroc_by_map,
    evaluate_seeds,
    false_alarms,
    mean_candidates,
    seed_mean,
    selected,
    variance_shares,
)
from lib.evidence.uncertainty import bootstrap

ROOT = Path(__file__).resolve().parents[2]
RESAMPLES = 200
CANDIDATES = ["residual, mean", "residual, p99", "ssim, mean", "ra encoder, mean"]


def seed_scores(seed: int, columns: list[str], validation: int = 40) -> SeedScores:
    """Scores of 40 validation and 50 test images, two a patient, 15 of them without a label that counts."""
    random = np.random.default_rng(seed)
    side = ["validation"] * validation + ["test"] * 50
    label = ["normal"] * validation + ["normal", "abnormal"] * 20 + ["normal"] * 10
    strict = ["normal"] * validation + ["normal", "abnormal", "abnormal"] * 11 + ["other_abnormal"] * 2 + [""] * 15
    patient = [f"p{i // 2}" for i in range(len(side))]
    table = pd.DataFrame({"id": [f"i{i}" for i in range(len(side))], "side": side, "patient": patient})
    table = table.assign(label=label, strict_label=strict)
    for column in columns:
        table[column] = random.normal(size=len(side)) + 0.7 * (table["label"] == "abnormal")
    rows = itertools.product(["unet", "ra"], [1, 2], CANDIDATES)
    candidates = pd.DataFrame(rows, columns=["method", "epoch", "score"])
    candidates = candidates.assign(
        separation=random.uniform(size=len(candidates)),
        auroc=random.uniform(size=len(candidates)),
        own=~((candidates["method"] == "unet") & candidates["score"].str.startswith("ra ")),
    )
    order = random.permutation(len(table))  # the runs need not hold the images in one order
    return SeedScores(table.iloc[order].reset_index(drop=True), columns, candidates)


@pytest.fixture(scope="module")
def seeds() -> dict[int, SeedScores]:
    return {3: seed_scores(3, ["unet", "ra"]), 5: seed_scores(5, ["unet", "ra", "vae"])}


@pytest.fixture(scope="module")
def evaluation(seeds) -> MeanEvaluation:
    return evaluate_seeds(seeds, "strict_label", [("ra", "unet"), ("vae", "ra"), ("knn", "ra")], RESAMPLES)


@pytest.fixture(scope="module")
def study() -> Study:
    return Study.model_validate_json((ROOT / "research/results/adult.json").read_bytes())


def known(scored: SeedScores) -> pd.DataFrame:
    return scored.table.query("side == 'test' and strict_label in ['normal', 'abnormal']").sort_values("id")


def test_a_value_is_the_mean_of_the_seeds_that_have_the_score(seeds, evaluation):
    assert (evaluation.n_normal, evaluation.n_abnormal) == (11, 22)
    assert set(evaluation.scores) == {"unet", "ra", "vae"}
    for name, score in evaluation.scores.items():
        tables = {seed: known(scored) for seed, scored in seeds.items() if name in scored.columns}
        for mean, metric in ((score.auroc, roc_auc_score), (score.average_precision, average_precision_score)):
            expected = {
                seed: metric(table["strict_label"] == "abnormal", table[name]) for seed, table in tables.items()
            }
            assert mean.seeds == pytest.approx(expected, abs=1e-4)
            assert mean.estimate.value == pytest.approx(np.mean(list(expected.values())))
            assert mean.estimate.low < mean.estimate.value < mean.estimate.high


def test_a_difference_is_that_of_the_seeds_that_both_scores_have(evaluation):
    assert [(d.first, d.second) for d in evaluation.differences] == [("ra", "unet"), ("vae", "ra")]
    for difference, common in zip(evaluation.differences, ({3, 5}, {5}), strict=True):
        first, second = (evaluation.scores[name].auroc.seeds for name in (difference.first, difference.second))
        assert set(difference.auroc.seeds) == common
        expected = np.mean([first[seed] - second[seed] for seed in common])
        assert difference.auroc.estimate.value == pytest.approx(expected, abs=2e-4)


def test_one_seed_has_the_interval_of_its_own_bootstrap_and_nothing_is_said_of_others(seeds, evaluation):
    table = seeds[5].test
    table = table[table["strict_label"].isin(["normal", "abnormal"])]
    table = table.reindex(seeds[3].test.index.intersection(table.index, sort=False))  # the first seed's order
    drawn = bootstrap(
        table[["vae"]].to_numpy().T, (table["strict_label"] == "abnormal").to_numpy(), table["patient"], RESAMPLES
    )
    mean = evaluation.scores["vae"].auroc
    assert mean.estimate == drawn.estimate("auroc", 0)
    assert mean.drawn is None and mean.seed_sd is None


def test_seeds_that_differ_widen_the_interval_that_takes_them_as_draws():
    is_abnormal = np.arange(60) % 2 == 0
    noise = np.random.default_rng(0).normal(size=60)
    drawn = {
        seed: bootstrap((noise + skill * is_abnormal)[None], is_abnormal, np.arange(60), RESAMPLES)
        for seed, skill in enumerate((0.0, 1.0, 3.0))
    }
    mean = seed_mean(drawn, "auroc")
    assert mean.drawn is not None and mean.seed_sd > 0
    assert mean.drawn[0] < mean.estimate.low and mean.estimate.high < mean.drawn[1]
    assert seed_mean(drawn, "auroc", drawn).estimate == Estimate(0, 0, 0)


@pytest.mark.parametrize(("low", "high", "order"), [(0.1, 0.3, 1), (-0.3, -0.1, -1), (-0.1, 0.2, 0), (0.0, 0.2, 0)])
def test_an_interval_that_contains_zero_orders_nothing(low, high, order):
    mean = SeedMean(estimate=Estimate(0.1, low, high), drawn=None, sample_sd=0.1, seed_sd=None, seeds={0: 0.1})
    assert MeanDifference(first="a", second="b", auroc=mean).order == order


def test_among_gives_the_pairs_that_there_are_in_the_order_asked(evaluation):
    found = evaluation.among([("vae", "ra"), ("ra", "vae"), ("ra", "unet")])
    assert [(one.first, one.second) for one in found] == [("vae", "ra"), ("ra", "unet")]


def test_false_alarms_are_counted_above_the_second_highest_of_40_validation_scores():
    scored = seed_scores(0, ["unet", "knn"])
    scored.table.loc[scored.table["side"] == "validation", "knn"] = np.nan
    promise = false_alarms(scored, "label")
    validation, test = (scored.table.query(f"side == '{side}'") for side in ("validation", "test"))
    threshold = sorted(validation["unet"])[-2]  # 5 % of 41 are 2.05: two of 41 exchangeable images reach it
    normal = test.loc[test["label"] == "normal", "unet"]
    assert promise.promised == 0.05 and promise.rates == {"unet": sum(normal > threshold) / len(normal)}
    chance = betabinom(len(normal), 2, 39)
    assert [promise.low, promise.high] == pytest.approx(chance.ppf([0.025, 0.975]) / len(normal))


def test_too_few_validation_images_promise_nothing():
    assert false_alarms(seed_scores(0, ["unet"], validation=18), "label") is None
    assert false_alarms(seed_scores(0, ["unet"], validation=19), "label") is not None


def test_the_oracle_is_the_best_candidate_that_the_method_could_have_chosen(seeds):
    candidates = seeds[3].candidates
    choices = {name: Choice(epoch=2, score="ssim, mean", combined=[]) for name in ("unet", "ra")}
    found = selected(candidates, choices)
    for name, one in found.items():
        own = [row for row in candidates.itertuples() if row.method == name and row.own]
        assert len(own) == {"unet": 6, "ra": 8}[name]
        assert one.oracle == pytest.approx(max(row.auroc for row in own), abs=1e-4)
        expected = spearmanr([row.separation for row in own], [row.auroc for row in own]).statistic
        assert one.agreement == pytest.approx(expected, abs=1e-4)
        assert one.choice == choices[name]


def test_a_constant_criterion_agrees_with_nothing(seeds):
    flat = seeds[3].candidates.assign(separation=0.5)
    choices = {name: Choice(epoch=2, score="ssim, mean", combined=[]) for name in ("unet", "ra")}
    assert {one.agreement for one in selected(flat, choices).values()} == {None}


def test_candidates_are_averaged_over_the_seeds_at_the_last_epoch(seeds):
    found = mean_candidates(list(seeds.values()))
    assert list(found) == ["unet", "ra"] and list(found["ra"]) == CANDIDATES
    for method, scores in found.items():
        for score, value in scores.items():
            of_seed = [
                row.auroc
                for scored in seeds.values()
                for row in scored.candidates.itertuples()
                if (row.method, row.epoch, row.score) == (method, 2, score)
            ]
            assert value == pytest.approx(np.mean(of_seed), abs=1e-4)


def test_candidates_are_gathered_by_map_over_their_poolings(study):
    candidates = {"unet": {"residual, mean": 0.5, "residual, p99": 0.6}, "vae": {"residual, mean": 0.7, "kl": 0.8}}
    grid = auroc_by_map(study.model_copy(update={"candidates": candidates}))
    assert grid.loc["residual"].to_dict() == pytest.approx({"unet": 0.55, "vae": 0.7})
    assert grid.loc["kl"].to_dict() == pytest.approx({"unet": np.nan, "vae": 0.8}, nan_ok=True)


def test_the_oracle_of_a_method_and_a_score_over_some_seeds_are_means(study):
    both = [one.oracle for one in study.selection["ra"].values()]
    assert study.oracle("ra") == pytest.approx(sum(both) / len(both))
    area = study.evaluation.scores["ra"].auroc
    assert area.over([0, 3]) == pytest.approx((area.seeds[0] + area.seeds[3]) / 2)


def test_the_variance_is_split_as_in_a_two_way_analysis_of_variance():
    grid = pd.DataFrame(np.random.default_rng(0).uniform(size=(5, 3)), columns=["a", "b", "c"])
    mean = sum(grid.to_numpy().ravel()) / 15
    whole = sum((value - mean) ** 2 for value in grid.to_numpy().ravel())
    columns = 5 * sum((grid[name].sum() / 5 - mean) ** 2 for name in grid)
    rows = 3 * sum((row.sum() / 3 - mean) ** 2 for row in grid.to_numpy())
    gap = pd.DataFrame([[9.0, np.nan, 9.0]], columns=grid.columns)
    assert variance_shares(pd.concat([grid, gap])) == pytest.approx((columns / whole, rows / whole))


def test_a_misspelt_field_is_refused(evaluation):
    content = evaluation.model_dump(mode="json")
    assert MeanEvaluation.model_validate(content) == evaluation
    with pytest.raises(ValidationError, match="n_ill"):
        MeanEvaluation.model_validate(content | {"n_ill": 3})
    with pytest.raises(ValidationError, match="frozen"):
        evaluation.n_normal = 3
