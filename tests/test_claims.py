"""Promises of `lib.claims`: each rule says what its numbers allow, and nothing that they do not."""

import copy

import pytest

from lib.claims import claims, promise
from lib.conformal import achieved_rate


def estimate(value: float, low: float, high: float) -> dict:
    """A number and its interval, as results hold it."""
    return {"value": value, "low": low, "high": high}


def method(area: dict, specificity: float = 0.95) -> dict:
    """One method of an evaluation."""
    return {"auroc": area, "threshold": {"specificity": specificity}}


def difference(first: str, second: str, value: float, low: float, high: float) -> dict:
    """One difference of an evaluation."""
    return {"first": first, "second": second, "auroc": estimate(value, low, high)}


def results() -> dict:
    """A run that may claim nearly all there is: narrow intervals, several sources, every age, nothing trivial."""
    methods = {"unet": method(estimate(0.6, 0.56, 0.64)), "ra": method(estimate(0.8, 0.76, 0.84))}
    budget = {"images_seen": 48_800, "seconds": 100.0}
    evaluation = {
        "labels": "label",
        "n_normal": 400,
        "n_abnormal": 500,
        "methods": methods,
        "differences": [difference("unet", "ra", -0.2, -0.25, -0.15)],
        "strata": [{"column": "view", "value": "AP", "why": None}, {"column": "sex", "value": "unknown", "why": "?"}],
    }
    margins = {"average_precision": estimate(0.1, 0.05, 0.15)}
    region = {"location prior": {"margins": None}, **{name: {"margins": margins} for name in methods}}
    verdicts = {
        name: {"explained": False, "sentence": f"Nothing does as well as {name}: AUROC 0.55. It is weak."}
        for name in methods
    }
    return {
        "evaluation": evaluation,
        "rows": {
            "n_normal": 400,
            "methods": methods | {"ra, chosen": method(estimate(0.8, 0.7, 0.9))},
            "differences": [
                difference("unet, chosen", "ra, chosen", -0.1, -0.2, -0.05),
                difference("ra, chosen", "knn", 0.1, 0.05, 0.15),
                difference("unet, chosen", "knn", 0.0, -0.05, 0.05),
            ],
        },
        "methods": {name: {"budget": budget} for name in methods},
        "audit": {"verdicts": verdicts},
        "localisation": {"regions": {"whole film": region, "lungs": region}},
        "other_labels": [{"labels": "strict_label", "methods": methods}],
        "calibration_images": 199,
        "test_images": {"sources": ["nih", "rsna"], "ages": [3.0, 90.0]},
        "synthetic": False,
        "patient_separation": "verified",
    }


def said(given: dict, kind: str) -> dict[str, str]:
    """What may or may not be said, by rule; several of a rule are joined."""
    found: dict[str, str] = {}
    for claim in claims(given | {"promise": promise(given)})[kind]:
        found[claim["rule"]] = f"{found.get(claim['rule'], '')} {claim['says']}".strip()
    return found


def test_a_run_that_earned_it_may_claim_all_but_what_no_run_may():
    assert set(said(results(), "may_not")) == {"seeds", "device"}
    may = said(results(), "may")
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
    assert "ra ranks these films better than unet: AUROC unet − ra = -0.200 [-0.25, -0.15]" in may["difference"]
    assert may["frozen features"] == "better than knn rank, of 2: ra, chosen"
    assert may["budget"] == "each method has seen 48,800 images"
    assert may["confound"].endswith("checked: Nothing does as well as ra: AUROC 0.55")


def changed(path: str, value: object) -> dict:
    """The results with one entry changed; `path` as "evaluation.n_normal"."""
    given = copy.deepcopy(results())
    *parents, last = path.split(".")
    at = given
    for name in parents:
        at = at[int(name)] if isinstance(at, list) else at[name]
    at[int(last) if isinstance(at, list) else last] = value
    return given


@pytest.mark.parametrize(
    ("path", "value", "rule", "words"),
    [
        ("evaluation.methods.ra.auroc", estimate(0.53, 0.49, 0.57), "rank", "0.530 [0.49, 0.57], which contains 0.5"),
        ("evaluation.differences.0.auroc", estimate(0.0, -0.1, 0.1), "difference", "or that they are alike"),
        ("rows.differences.0.auroc", estimate(0.1, 0.05, 0.2), "score", "chosen 0.100 [0.05, 0.20]"),
        ("rows.differences.0.auroc", estimate(-0.1, -0.2, 0.1), "score", "chosen -0.100 [-0.20, 0.10]"),
        (
            "audit.verdicts.ra",
            {"explained": True, "sentence": "A tag alone does as well as ra: AUROC 0.79. Strongest."},
            "confound",
            "ra sees disease: A tag alone does as well as ra: AUROC 0.79",
        ),
        ("audit.verdicts.ra", {"explained": None, "sentence": "Too few images."}, "confound", "Too few images"),
        (
            "rows.differences.1.auroc",
            estimate(0.1, 0.0, 0.2),
            "frozen features",
            "none of 2 scores ranks better than knn",
        ),
        ("evaluation.methods.ra.threshold.specificity", 0.8, "false alarms", "20 % of the normal test images alarm"),
        ("calibration_images", 18, "false alarms", "18 calibration images cannot promise 5 %"),
        ("localisation", None, "localisation", "none is marked"),
        ("localisation.regions.lungs.ra.margins", None, "localisation", ""),
        (
            "other_labels.0.methods",
            {"ra": method(estimate(0.6, 0.5, 0.7))},
            "labels",
            "0.600 [0.50, 0.70] by strict_label",
        ),
        ("evaluation.methods.ra.auroc", estimate(0.8, 0.7, 0.9), "precision", "an interval is 0.20 wide"),
        (
            "evaluation.strata.0",
            {"column": "view", "value": "AP", "why": "7 normal: fewer than 10"},
            "groups",
            "view AP (7 normal: fewer than 10)",
        ),
        (
            "methods.ra.budget",
            {"images_seen": 48_800, "seconds": 310},
            "budget",
            "ra took 3.1 times the seconds of unet",
        ),
        ("synthetic", True, "synthetic", "synthetic images"),
        ("test_images.ages", None, "ages", "not known"),
        ("test_images.ages", [1.0, 5.0], "ages", "anything holds for adults: children only: 1 to 5 years"),
        ("test_images.ages", [18.0, 90.0], "ages", "anything holds for children: adults only"),
        ("patient_separation", "unverified for train", "patients", "unverified for train"),
        ("test_images.sources", ["nih"], "elsewhere", "all test images come from nih"),
        ("test_images.sources", [], "elsewhere", "not named"),
    ],
)
def test_a_rule_forbids_what_its_numbers_do_not_carry(path, value, rule, words):
    given = changed(path, value)
    if path.endswith("margins"):
        given["localisation"]["regions"]["whole film"]["ra"]["margins"] = {
            "average_precision": estimate(0.1, -0.1, 0.2)
        }
    if path.endswith("specificity"):
        given["rows"]["methods"]["ra"] = given["evaluation"]["methods"]["ra"]
    assert words in said(given, "may_not")[rule]


def test_seconds_that_round_to_none_are_not_compared():
    given = changed("methods.ra.budget", {"images_seen": 48_800, "seconds": 0.3})
    given["methods"]["unet"]["budget"] = {"images_seen": 48_800, "seconds": 0.0}
    assert "budget" not in said(given, "may_not")


def test_a_score_that_ranks_the_wrong_way_round_is_said_to_do_so():
    may = said(changed("evaluation.methods.ra.auroc", estimate(0.4, 0.35, 0.45)), "may")
    assert "ra ranks abnormal films below normal ones: AUROC 0.400 [0.35, 0.45]" in may["rank"]


def test_one_method_alone_is_compared_with_none():
    given = results()
    for part in (given["evaluation"], given["rows"]):
        part["methods"] = {"ra": part["methods"]["ra"]}
        part["differences"] = []
    given["methods"] = {"ra": given["methods"]["ra"]}
    given["other_labels"] = []
    rules = {claim["rule"] for found in claims(given | {"promise": promise(given)}).values() for claim in found}
    assert not rules & {"difference", "score", "budget", "frozen features"}


def test_the_promise_is_the_conformal_one_and_19_images_are_the_fewest_that_can_give_it():
    given = results()
    rate = achieved_rate(199, 0.05, 400)
    assert promise(given) == {
        "promised": 0.05,
        "low": rate.low,
        "high": rate.high,
        "rows": pytest.approx({"unet": 0.05, "ra": 0.05, "ra, chosen": 0.05}),
    }
    assert promise(given | {"calibration_images": 19}) and promise(given | {"calibration_images": 18}) is None
