"""Promises of `lib.figures.tables`: every number of the results stands where it belongs, a dash where there is none."""

import pandas as pd
import pytest
from example_results import BUDGET, METHODS, changed, results

from lib.evidence.claims import promise
from lib.evidence.results import Estimate, Results
from lib.figures.tables import (
    audit_table,
    budget_table,
    differences_table,
    findings_table,
    localisation_table,
    promise_table,
    results_table,
    strata_table,
    tables,
)


@pytest.fixture
def run() -> Results:
    """A run that is evaluated and audited."""
    return results().model_copy(update={"promise": promise(results())})


def test_the_results_have_a_row_for_each_method(run):
    table = results_table(run.evaluation)
    assert table.index.name == "method" and table.index.tolist() == ["unet", "ra"]
    assert table.loc["ra"].to_dict() == {
        "AUROC [95 % interval]": "0.800 [0.76, 0.84]",
        "average precision [95 % interval]": "0.800 [0.76, 0.84]",
        "FPR at 95 % TPR": "0.70",
        "TPR at 5 % FPR": "0.30",
        "sensitivity": "0.40",
        "specificity": "0.95",
        "normal / abnormal": "400 / 500",
    }


def test_a_score_without_a_threshold_has_dashes(run):
    table = results_table(changed(run, "evaluation.methods.ra.threshold", None).evaluation)
    assert table.loc["ra", ["sensitivity", "specificity"]].tolist() == ["–", "–"]


def test_findings_and_strata_give_their_images_and_a_dash_or_the_auroc_of_each_method(run):
    findings, strata = findings_table(run.evaluation), strata_table(run.evaluation)
    assert findings.loc["hernia"].to_dict() == {"images": 5, "unet": "–", "ra": "–"}
    assert findings_table(run.evaluation, {"hernia": 0.034}).loc["hernia", "area"] == "3 %"
    assert findings_table(run.evaluation, {"mass": 0.034}).loc["hernia", "area"] == "–"
    assert strata.loc[("view", "AP")].to_list() == [90, 300, "0.600 [0.56, 0.64]", "0.800 [0.76, 0.84]", ""]
    assert strata.loc[("sex", "unknown")].to_list() == [9, 9, "–", "–", "sex not known"]
    assert strata_table(changed(run, "evaluation.strata", []).evaluation).empty


def test_differences_are_numbers_a_column_for_each_field(run):
    table = differences_table(run.evaluation, run.all_scores)
    assert table["second"].tolist() == ["ra", "ra, chosen", "knn", "knn"]
    assert table["auroc.low"].tolist() == [-0.25, -0.2, 0.05, -0.05] and (table["delong.p_value"] == 0.01).all()


def test_the_budget_has_a_row_for_each_method_in_figures_to_read(run):
    spent = BUDGET.model_copy(update={"steps": 12_800, "seconds": 61.4})
    table = budget_table(changed(run, "methods.ra.budget", spent).budgets)
    assert table.index.name == "method" and table.index.tolist() == list(METHODS)
    assert table.loc["ra"].to_dict() == {
        "parameters": "1,234,567",
        "images seen": "48,800",
        "optimizer steps": "12,800",
        "multiply-adds": "7.30e+07",
        "seconds": "61",
    }


def test_a_promise_that_was_kept_and_one_that_was_not_are_told_apart(run):
    promised = run.promise.model_copy(update={"high": 0.12, "rates": {"unet": 0.12, "ra": 0.2}})
    table = promise_table(run.model_copy(update={"promise": promised}))
    assert table["within chance"].to_dict() == {"unet": "yes", "ra": "no"}
    assert table.loc["ra", "false alarms on test normals"] == "20 %"
    nothing = promise_table(run.model_copy(update={"promise": None}))
    assert nothing.empty and list(nothing.columns) == list(table.columns)


def test_localisation_has_a_row_for_the_prior_and_each_method_of_a_region(run):
    table = localisation_table(run.localisation, "lungs")
    assert table.index.tolist() == ["location prior", *METHODS] and table.index.name == "lungs"
    assert table.loc["ra", "AUROC over the prior"] == "+0.100 [+0.05, +0.15]"
    assert table.loc["location prior", "average precision over the prior"] == "–"
    assert table.loc["ra", "best Dice (oracle)"] == "0.300"
    assert localisation_table(changed(run, "localisation.regions.lungs", None).localisation, "lungs").empty


def test_the_audit_has_a_row_for_each_check(run):
    shared = run.audit.checks[0].model_copy(
        update={"check": "on two sides", "what": "a patient", "normal": 0, "abnormal": 0, "auroc": None, "away": None}
    )
    shared = shared.model_copy(update={"methods": {"unet": None, "ra": None}, "remark": "0 test images"})
    table = audit_table(run.audit.model_copy(update={"checks": [*run.audit.checks, shared]}))
    assert table.index.tolist() == [("tag", "age"), ("on two sides", "a patient")]
    assert table.loc[("tag", "age")].to_dict() == {
        "normal / abnormal": "400 / 500",
        "AUROC": "0.550 [0.50, 0.60]",
        "away from 0.5": "0.050",
        "unet": "0.600 [0.56, 0.64]",
        "ra": "0.800 [0.76, 0.84]",
        "remark": "",
    }
    assert table.loc[("on two sides", "a patient")].to_list() == ["–"] * 5 + ["0 test images"]


def test_every_table_of_a_run_has_a_name_that_a_file_can_have(run, tmp_path):
    found = tables(run)
    assert {"results", "results-by-strict_label", "all-scores", "localisation-whole-image", "audit"} <= found.keys()
    for name, table in found.items():
        table.to_csv(tmp_path / f"{name}.csv")
        assert len(pd.read_csv(tmp_path / f"{name}.csv")) == len(table)


def test_a_run_without_marked_lesions_has_no_table_of_localisation_and_one_that_is_not_evaluated_no_tables(run):
    assert not [name for name in tables(changed(run, "localisation", None)) if name.startswith("localisation")]
    with pytest.raises(ValueError, match="the results have no evaluation yet"):
        tables(changed(run, "evaluation", None))


def test_an_auroc_is_written_as_everywhere_else(run):
    area = Estimate(0.71264, 0.605, 0.8)
    table = results_table(changed(run, "evaluation.methods.ra.auroc", area).evaluation)
    assert table.loc["ra"].iloc[0] == f"{area.value:.3f} [{area.low:.2f}, {area.high:.2f}]"
