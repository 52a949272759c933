"""Promises of `lib.report`: what a person reads is what was found, and says where it is no evidence."""

import numpy as np
import pandas as pd
import pytest

from lib.evaluation import evaluate_scores
from lib.report import SYNTHETIC, budget_table, promise_table, summary

BUDGET = {"parameters": 1_234_567, "images_seen": 12_800, "steps": 400, "multiply_adds": 73_000_000, "seconds": 61.4}


@pytest.fixture(scope="module")
def results() -> dict:
    """Of two methods, one of which tells the abnormal films apart."""
    random = np.random.default_rng(0)
    side = np.repeat(["validation", "test"], [20, 40])
    label = np.repeat(["normal", "abnormal"], [40, 20])
    names = [f"i{i}" for i in range(60)]
    table = pd.DataFrame({"id": names, "patient": names, "side": side, "label": label, "finding": ""})
    table["unet"] = random.random(60)
    table["ra"] = random.random(60) + (label == "abnormal")
    budgets = {name: {"budget": BUDGET | {"steps": 400 * i}} for i, name in enumerate(("unet", "ra"), start=1)}
    return {"methods": budgets, "synthetic": False, "evaluation": evaluate_scores(table, ["unet", "ra"], resamples=100)}


def test_the_budget_table_has_one_row_a_method_in_figures_to_read(results):
    table = budget_table(results)
    assert table.index.name == "method" and table.index.tolist() == ["unet", "ra"]
    assert table.loc["ra"].to_dict() == {
        "parameters": "1,234,567",
        "images seen": "12,800",
        "optimizer steps": "800",
        "multiply-adds": "7.30e+07",
        "seconds": "61",
    }


def test_the_summary_gives_every_methods_auroc_and_every_difference_in_words(results):
    lines = summary(results).splitlines()
    for name, one in results["evaluation"]["methods"].items():
        assert any(line.startswith(name) and f"{one['auroc']['value']:.3f} [" in line for line in lines)
    aurocs = {name: one["auroc"]["value"] for name, one in results["evaluation"]["methods"].items()}
    assert lines[-1].startswith(f"AUROC unet − ra = {aurocs['unet'] - aurocs['ra']:+.3f} [")
    assert lines[-1].endswith("the interval excludes zero")


def test_the_summary_says_first_what_something_trivial_does_as_well(results):
    verdicts = {
        "unet": {"explained": True, "sentence": "A tag alone does as well as unet."},
        "ra": {"explained": False, "sentence": "Nothing trivial does as well as ra."},
    }
    plain, explained = summary(results), summary(results | {"audit": {"verdicts": verdicts}})
    assert explained == f"A tag alone does as well as unet.\n{plain}"


def test_the_summary_says_what_may_be_claimed_and_what_may_not(results):
    found = {"may": [{"rule": "a", "says": "it works"}], "may_not": [{"rule": "b", "says": "it cures"}]}
    words = summary(results | {"claims": found})
    assert words.endswith("This run may say that\n- … it works.\nand may not say that\n- … it cures.")


def test_a_promise_that_was_kept_and_one_that_was_not_are_told_apart(results):
    made = {"promised": 0.05, "low": 0.0, "high": 0.12, "rows": {"unet": 0.12, "ra": 0.2}}
    table = promise_table(results | {"promise": made})
    assert table["within chance"].to_dict() == {"unet": "yes", "ra": "no"}
    assert table.loc["ra", "false alarms on test normals"] == "20 %"
    assert promise_table(results | {"promise": None}).empty


@pytest.mark.parametrize("synthetic", [True, False])
def test_the_summary_says_of_synthetic_images_that_they_are_no_evidence(results, synthetic):
    words = summary(results | {"synthetic": synthetic})
    assert ("not evidence" in SYNTHETIC) and ((SYNTHETIC in words) == synthetic)
