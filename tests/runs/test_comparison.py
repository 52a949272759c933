"""Promises of `lib.runs.comparison`: a run is compared with those it names, and not on other terms."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest

from lib.files import write_json
from lib.runs.comparison import comparable
from lib.runs.evaluate import evaluate
from tests.runs.small import divided, finished


def test_a_run_is_compared_with_one_that_it_names(tmp_path):
    first = finished(tmp_path, "runs/u", ["unet"])
    second = finished(tmp_path, "runs/r", ["ra"], compare_with=["runs/u"])
    before = (second.folder / "results.json").read_bytes()
    comparison = comparable(second)
    table, found = comparison.table, comparison.found
    assert found[["method", "run", "used"]].to_dict("records") == [
        {"method": "ra", "run": "r", "used": True},
        {"method": "unet", "run": "u", "used": True},
    ]
    theirs = pd.read_parquet(first.folder / "scores.parquet").set_index("id")["unet"]
    assert table.set_index("id")["unet"].equals(theirs.loc[table["id"]])
    assert list(comparison.methods) == ["unet", "ra"]  # a difference has one sign, whichever ran last
    assert comparison.methods["unet"].run == "u"
    assert set(comparison.columns) == {"unet", "ra"}
    assert (second.folder / "results.json").read_bytes() == before  # nothing is written before it is evaluated
    evaluation = evaluate(second, comparison).evaluation
    assert evaluation.differences[0].second == "ra"


@pytest.mark.parametrize(
    ("difference", "remark"),
    [
        ("split", "has another split"),
        ("image_size", "has another image_size"),
        ("images_seen", "has another number of images seen"),
        ("unfinished", "cannot be read: .* has no results.json yet"),
        ("absent", "cannot be read: .* is not a run folder"),
    ],
)
def test_a_run_on_other_terms_is_not_compared_and_it_is_said_why(tmp_path, difference, remark):
    changes = {
        "split": {"split": divided(seed=1)},
        "image_size": {"image_size": 32},
        "images_seen": {"seen": 320},
    }.get(difference, {})
    other = finished(tmp_path, "runs/u", ["unet"], **changes)
    if difference == "unfinished":
        (other.folder / "results.json").unlink()
    if difference == "absent":
        shutil.rmtree(other.folder)
    table, found, *_ = comparable(finished(tmp_path, "runs/r", ["ra"], compare_with=["runs/u"]))
    assert found[["method", "run", "used"]].to_numpy().tolist() == [["ra", "r", True], ["", "u", False]]
    assert re.match(remark, found["remark"][1])
    assert "unet" not in table


def test_a_run_that_lies_beside_and_is_not_named_is_not_compared(tmp_path):
    finished(tmp_path, "runs/u", ["unet"])
    comparison = comparable(finished(tmp_path, "runs/r", ["ra"]))
    assert list(comparison.methods) == ["ra"] and comparison.found["run"].tolist() == ["r"]


def test_of_two_runs_with_one_method_the_first_that_is_named_is_used(tmp_path):
    first, _ = finished(tmp_path, "b", ["unet"]), finished(tmp_path, "a", ["unet"])
    table, found, *_ = comparable(finished(tmp_path, "r", ["ra"], compare_with=["b", "a"]))
    assert found[["method", "run", "used"]][found["method"] == "unet"].to_dict("records") == [
        {"method": "unet", "run": "b", "used": True},
        {"method": "unet", "run": "a", "used": False},
    ]
    assert table["unet"].tolist() == pd.read_parquet(first.folder / "scores.parquet")["unet"].tolist()


def test_ones_own_method_is_never_replaced_by_that_of_another_run(tmp_path):
    finished(tmp_path, "other", ["ra"])
    run = finished(tmp_path, "mine", ["ra"], compare_with=["other"])
    table, found, *_ = comparable(run)
    assert table["ra"].tolist() == pd.read_parquet(run.folder / "scores.parquet")["ra"].tolist()
    assert found["used"].tolist() == [True, False]


def test_a_method_that_a_run_has_only_copied_is_not_handed_on(tmp_path):
    original = finished(tmp_path, "u", ["unet"])
    copier = finished(tmp_path, "r", ["ra"], compare_with=["u"])
    evaluate(copier, comparable(copier))
    assert list(copier.results().methods) == ["unet", "ra"]
    shutil.rmtree(original.folder)
    table, found, *_ = comparable(finished(tmp_path, "other", ["ra"], compare_with=["r"]))
    assert "unet" not in table
    assert found["method"].tolist() == ["ra", "ra"]


def test_comparing_again_gives_the_same_again(tmp_path):
    finished(tmp_path, "u", ["unet"])
    run = finished(tmp_path, "r", ["ra"], compare_with=["u"])
    table, found, *_ = comparable(run)
    evaluate(run, comparable(run))
    again, found_again, *_ = comparable(run)
    pd.testing.assert_frame_equal(again, table)
    pd.testing.assert_frame_equal(found_again, found)


def test_comparing_again_finds_a_run_that_has_come_since(tmp_path):
    run = finished(tmp_path, "r", ["ra"], compare_with=["late"])
    evaluate(run, comparable(run))
    finished(tmp_path, "late", ["unet"])
    found = comparable(run).found
    assert found[found["used"]]["run"].tolist() == ["r", "late"]


def test_a_run_without_methods_compares_runs_of_one_budget_only(tmp_path):
    finished(tmp_path, "u", ["unet"], seen=320)
    finished(tmp_path, "r", ["ra"], seen=640)
    run = finished(tmp_path, "compare", [], compare_with=["u", "r"])
    assert len({trained.budget.images_seen for trained in comparable(run).methods.values()}) == 1


def test_a_run_without_methods_compares_two_equal_ones(tmp_path):
    finished(tmp_path, "u", ["unet"])
    finished(tmp_path, "r", ["ra"])
    run = finished(tmp_path, "compare", [], compare_with=["u", "r"])
    assert set(evaluate(run, comparable(run)).evaluation.methods) == {"unet", "ra"}


def test_a_foreign_folder_is_named_and_passed_over(tmp_path):
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "results.json").write_text('{"accuracy": 1}')
    found = comparable(finished(tmp_path, "r", ["ra"], compare_with=["foreign"])).found
    assert found[["run", "used"]].to_numpy().tolist() == [["r", True], ["foreign", False]]
    assert found["remark"][1].startswith("cannot be read: ")


def test_a_run_without_its_scores_is_named_and_passed_over(tmp_path):
    (finished(tmp_path, "u", ["unet"]).folder / "scores.parquet").unlink()
    table, found, *_ = comparable(finished(tmp_path, "r", ["ra"], compare_with=["u"]))
    assert "unet" not in table
    assert found["remark"][1].startswith("cannot be read: ") and "has no scores.parquet" in found["remark"][1]


@pytest.mark.parametrize(
    ("change", "remark"),
    [
        (lambda t: t.assign(label="normal"), "differ in 'label' of 20 images"),
        (lambda t: t.assign(patient=t["patient"] + "?"), "differ in 'patient' of"),
        (lambda t: pd.concat([t, t.tail(1)]), "is in several rows"),
        (lambda t: t.iloc[1:], "have different test images"),
        (lambda t: t.assign(unet=np.nan), "scores of 'unet' are not finite"),
        (lambda t: t.assign(unet="a"), "scores of 'unet' are (object|str), first 'a'"),
        (lambda t: t.drop(columns="id"), "'id'"),
    ],
    ids=["labels", "patients", "an image twice", "an image less", "NaN", "text", "no id"],
)
def test_a_run_whose_scores_are_not_of_these_images_is_named_and_passed_over(tmp_path, change, remark):
    file = finished(tmp_path, "u", ["unet"]).folder / "scores.parquet"
    change(pd.read_parquet(file)).to_parquet(file)
    table, found, *_ = comparable(finished(tmp_path, "r", ["ra"], compare_with=["u"]))
    assert "unet" not in table
    assert found["remark"][1].startswith("cannot be read: ") and re.search(remark, found["remark"][1])


def test_a_run_that_is_not_finished_is_named_and_not_compared(tmp_path):
    other = finished(tmp_path, "u", ["unet"])
    other.mark("failed", "out of memory")
    table, found, *_ = comparable(finished(tmp_path, "r", ["ra"], compare_with=["u"]))
    assert "unet" not in table
    assert found[["run", "used", "remark"]].to_numpy().tolist() == [
        ["r", True, ""],
        ["u", False, "its status is failed"],
    ]


def test_a_run_that_was_trained_on_after_it_was_scored_is_named_and_not_compared(tmp_path):
    other = finished(tmp_path, "u", ["unet"])
    write_json(other.folder / "stages.json", {"score": {"read": {"epochs": "7"}, "wrote": {}}})
    table, found, *_ = comparable(finished(tmp_path, "r", ["ra"], compare_with=["u"]))
    assert "unet" not in table and found["used"].tolist() == [True, False]
    assert re.search(r"trained on.* after it was scored \(changed: epochs\): imgae-evaluate .*u$", found["remark"][1])


def test_a_run_whose_results_an_older_version_has_written_is_named_with_what_to_do(tmp_path):
    (finished(tmp_path, "u", ["unet"]).folder / "results.json").write_text('{"version": 1}')
    remark = comparable(finished(tmp_path, "r", ["ra"], compare_with=["u"])).found["remark"][1]
    assert "was written by an older version: run `imgae-evaluate" in remark


def test_what_a_comparison_rests_on_changes_with_the_scores_of_the_other_run_alone(tmp_path):
    finished(tmp_path, "runs/u", ["unet"])
    run = finished(tmp_path, "runs/r", ["ra"], compare_with=["runs/u", "runs/u2"])
    before = comparable(run).hashes()
    assert comparable(run).hashes() == before
    shutil.rmtree(tmp_path / "runs/u")
    finished(tmp_path, "runs/u2", ["unet"])
    after = comparable(run).hashes()
    assert before["scores of ra in r"] == after["scores of ra in r"]
    assert {key for key in {**before, **after} if before.get(key) != after.get(key)} == {
        "scores of unet in u",
        "scores of unet in u2",
    }
