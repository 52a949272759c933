"""Promises of `lib.evidence.claims`: each rule says what its numbers allow, and nothing that they do not."""

import re
from typing import Any

import pytest
from example_results import changed, difference, evaluated, exactly, results

from lib.evidence.claims import claims, promise
from lib.evidence.results import Claim, Difference, Estimate, Results, Verdict
from lib.scores.conformal import achieved_rate


def claimed(run: Results) -> tuple[dict[str, str], dict[str, str]]:
    """What may and what may not be said, by rule; several of a rule are joined."""

    def by_rule(found: list[Claim]) -> dict[str, str]:
        return {claim.rule: " ".join(other.says for other in found if other.rule == claim.rule) for claim in found}

    every = claims(run.model_copy(update={"promise": promise(run)}))
    return by_rule(every.may), by_rule(every.may_not)


def test_a_run_that_earned_it_may_claim_all_but_what_no_run_may():
    may, may_not = claimed(results())
    assert set(may_not) == {"seeds", "device"}
    assert set(may) == {
        "rank",
        "difference",
        "confound",
        "frozen features",
        "false alarms",
        "localisation",
        "labels",
        "budget",
    }
    assert "ra ranks these images better than unet: AUROC unet − ra = -0.200 [-0.25, -0.15]" in may["difference"]
    assert may["frozen features"] == "1 of 2 scores of trained methods rank better than knn: ra, chosen"
    assert may["budget"] == "the methods are compared at an equal budget: each saw 48,800 images"
    assert may["confound"].endswith("no tag and no trivial feature ranks as well as ra, not even “age”: AUROC 0.55")


@pytest.mark.parametrize(
    ("path", "value", "rule", "words"),
    [
        (
            "evaluation.methods.ra.auroc",
            Estimate(0.53, 0.49, 0.57),
            "rank",
            "0.530 [0.49, 0.57], an interval that contains 0.5",
        ),
        (
            "evaluation.differences.0.auroc",
            Estimate(0.0, -0.1, 0.1),
            "difference",
            "unet and ra, or that there is none",
        ),
        ("all_scores.differences.0.auroc", Estimate(0.1, 0.05, 0.2), "score", "+0.100 [+0.05, +0.20] (chosen)"),
        ("all_scores.differences.0.auroc", Estimate(-0.1, -0.2, 0.1), "score", "-0.100 [-0.20, +0.10] (chosen)"),
        (
            "audit.verdicts.ra",
            Verdict(explained=True, by="age", sentence="“age” alone ranks as well as ra: AUROC 0.79. Strongest."),
            "confound",
            "ra detects disease: “age” alone ranks as well as ra: AUROC 0.79",
        ),
        (
            "audit.verdicts.ra",
            Verdict(explained=None, by=None, sentence="There are too few patients."),
            "confound",
            "ra detects disease: there are too few patients",
        ),
        (
            "all_scores.differences.1.auroc",
            Estimate(0.1, 0.0, 0.2),
            "frozen features",
            "none of 2 scores of trained methods ranks better than knn",
        ),
        (
            "all_scores.methods.ra.threshold.specificity",
            exactly(0.8),
            "false alarms",
            "80 of 400 normal test images abnormal (20 %)",
        ),
        ("evaluation.abnormal_patients", 9, "rank", "ra ranks abnormal images above normal ones"),
        ("evaluation.abnormal_patients", 9, "difference", "unet and ra, or that there is none"),
        ("evaluation.abnormal_patients", 9, "precision", "9 abnormal: fewer than 10 patients"),
        ("evaluation.abnormal_patients", 9, "frozen features", "none of 2 scores of trained methods ranks better"),
        ("evaluation.normal_patients", 9, "false alarms", "rate of 5 %: 9 normal: fewer than 10 patients"),
        ("calibration_images", 18, "false alarms", "5 % is kept: too few calibration images (18)"),
        ("localisation", None, "localisation", "no lesion is marked"),
        (
            "localisation.regions.lungs.ra.margins",
            {"average_precision": Estimate(0.1, -0.1, 0.2)},
            "localisation",
            "ra locates lesions better than",
        ),
        (
            "other_labels.0.methods",
            {"ra": evaluated(Estimate(0.6, 0.5, 0.7))},
            "labels",
            "[0.50, 0.70] by strict_label",
        ),
        ("evaluation.methods.ra.auroc", Estimate(0.8, 0.7, 0.9), "precision", "the widest interval spans 0.20"),
        ("evaluation.strata.0.why", "7 normal: fewer than 10", "groups", "view AP (7 normal: fewer than 10)"),
        ("methods.ra.budget.seconds", 310.0, "budget", "ra trained 3.1 times as long as unet"),
        ("synthetic", True, "synthetic", "synthetic"),
        ("test_images.ages", None, "ages", "not known"),
        (
            "test_images.ages",
            (1.0, 5.0),
            "ages",
            "this holds for adults: the test patients whose age is known are children",
        ),
        ("test_images.ages", (18.0, 90.0), "ages", "are adults, 18 to 90 years old"),
        ("patient_separation", "unverified for train", "patients", "unverified for train"),
        ("test_images.sources", ["nih"], "elsewhere", "all test images come from nih"),
        ("test_images.sources", [], "elsewhere", "a source without a name"),
    ],
)
def test_a_rule_forbids_what_its_numbers_do_not_carry(path: str, value: Any, rule: str, words: str):
    assert rule not in claimed(results())[1]
    assert words in claimed(changed(results(), path, value))[1][rule]


def test_without_any_margin_no_map_is_said_to_locate_lesions():
    run = changed(results(), "localisation.regions.lungs.ra.margins", None)
    run = changed(run, "localisation.regions.whole image.ra.margins", None)
    assert "too few patients with a lesion" in claimed(run)[1]["localisation"]


def test_seconds_that_round_to_none_are_not_compared():
    run = changed(results(), "methods.ra.budget.seconds", 0.3)
    assert "budget" not in claimed(changed(run, "methods.unet.budget.seconds", 0.0))[1]


def test_a_score_that_ranks_the_wrong_way_round_is_said_to_do_so():
    may, _ = claimed(changed(results(), "evaluation.methods.ra.auroc", Estimate(0.4, 0.35, 0.45)))
    assert "ra ranks abnormal images below normal ones: AUROC 0.400 [0.35, 0.45]" in may["rank"]


def test_one_method_alone_is_compared_with_none():
    run = changed(results(), "other_labels", [])
    run = changed(run, "methods", {"ra": run.methods["ra"]})
    for part in ("evaluation", "all_scores"):
        run = changed(run, f"{part}.differences", [])
        run = changed(run, f"{part}.methods", {"ra": run.evaluation.methods["ra"]})
    may, may_not = claimed(run)
    assert not (may | may_not).keys() & {"difference", "score", "budget", "frozen features"}


def test_the_promise_is_the_conformal_one_and_19_images_are_the_fewest_that_can_give_it():
    run, rate = results(), achieved_rate(199, 0.05, 400)
    found = promise(run)
    assert (found.promised, found.low, found.high) == (0.05, rate.low, rate.high)
    assert found.rates == pytest.approx({"unet": 0.05, "ra": 0.05, "ra, chosen": 0.05})
    assert promise(changed(run, "calibration_images", 19)) and promise(changed(run, "calibration_images", 18)) is None


def test_every_claim_goes_on_after_this_run_may_say_that():
    """No capital but a name's, no full stop: the report adds it."""
    found = claims(results())
    for claim in (*found.may, *found.may_not):
        assert re.match(r"[a-z0-9]", claim.says) and not claim.says.endswith(".")


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("evaluation", "evaluation"),
        ("all_scores", "evaluation of all scores"),
        ("audit", "audit"),
        ("test_images", "test images"),
    ],
)
def test_a_run_that_is_not_finished_claims_nothing_and_says_what_it_lacks(part: str, name: str):
    with pytest.raises(ValueError, match=f"the results have no {name} yet: .*imgae-evaluate"):
        claims(changed(results(), part, None))


@pytest.mark.parametrize(
    "pair", [difference("unet", "ra", -0.2, -0.25, -0.15), difference("ra", "unet", 0.2, 0.15, 0.25)]
)
def test_a_difference_counts_for_the_better_method_whichever_comes_first(pair: Difference):
    may, _ = claimed(changed(results(), "evaluation.differences", [pair]))
    assert may["difference"].startswith("ra ranks these images better than unet")


def test_without_a_comparison_with_frozen_features_the_claim_names_what_they_reach():
    alone = changed(results(), "all_scores.differences", [])
    _, may_not = claimed(
        changed(alone, "all_scores.methods", {"knn": evaluated(Estimate(0.9, 0.85, 0.95)).model_dump()})
    )
    assert may_not["frozen features"] == (
        "training on chest X-rays helps: knn, in frozen features, has AUROC 0.900 [0.85, 0.95] on the same images"
    )
