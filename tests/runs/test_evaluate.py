"""Promises of `lib.runs.evaluate`: results under every reading of the labels, and nothing stale among them."""

import json

import pytest

from lib.evidence.results import Claims
from lib.runs.comparison import comparable
from lib.runs.evaluate import evaluate
from lib.runs.run import RunError
from tests.runs.small import divided, finished


def test_a_run_that_trains_nothing_and_finds_nothing_says_so(tmp_path):
    run = finished(tmp_path, "r", [])
    with pytest.raises(RunError, match=r"nothing to evaluate: .* \(methods is empty\)"):
        evaluate(run, comparable(run))


def test_both_label_columns_are_evaluated(tmp_path):
    strict = ["normal" if i % 5 else "abnormal" if i % 4 == 3 else "" for i in range(80)]
    run = finished(tmp_path, "a", ["unet"], divided(strict_label=strict), labels="strict")
    results = evaluate(run, comparable(run))
    assert results == run.results()
    assert json.loads((run.folder / "results.json").read_text()) == results.model_dump(mode="json")
    assert results.evaluation.labels == "strict_label"
    assert [other.labels for other in results.other_labels] == ["label"]
    plain = finished(tmp_path / "b", "b", ["unet"])
    assert evaluate(plain, comparable(plain)).other_labels == []


def test_an_unusable_second_label_column_does_not_lose_the_first_ones_result(tmp_path):
    strict = ["" if i % 4 == 3 else "normal" for i in range(80)]
    run = finished(tmp_path, "a", ["unet"], divided(strict_label=strict))
    assert evaluate(run, comparable(run)).evaluation.labels == "label"


def test_claims_that_rest_on_other_results_do_not_stay(tmp_path):
    run = finished(tmp_path, "a", ["ra"], compare_with=["b"])
    claims = Claims(may=[], may_not=[])
    run.write_results(evaluate(run, comparable(run)).model_copy(update={"claims": claims}))
    assert evaluate(run, comparable(run)).claims == claims  # the same results: the same claims
    finished(tmp_path, "b", ["unet"])
    assert evaluate(run, comparable(run)).claims is None
    assert run.results().claims is None
