"""Promises of `lib.evidence.results`: nothing that is not declared is read, and everything survives JSON."""

import pytest
from example_results import evaluated, results
from pydantic import ValidationError

from lib.evidence.results import Estimate, Evaluated, Results, required


def test_results_survive_json():
    assert Results.model_validate_json(results().model_dump_json()) == results()


@pytest.mark.parametrize("part", [evaluated(Estimate(0.6, 0.5, 0.7)).model_dump() | {"aurocs": 1}, {"auroc": 0.6}])
def test_a_field_that_is_misspelt_or_missing_is_refused_when_read(part: dict):
    with pytest.raises(ValidationError):
        Evaluated.model_validate(part)


def test_an_estimate_holds_nothing_else():
    fields = evaluated(Estimate(0.6, 0.5, 0.7)).model_dump()
    fields["auroc"]["level"] = 0.95
    with pytest.raises(ValidationError, match="level"):
        Evaluated.model_validate(fields)


def test_the_ends_of_an_interval_belong_to_it():
    estimate = Estimate(0.6, 0.5, 0.7)
    assert [estimate.contains(value) for value in (0.49, 0.5, 0.6, 0.7, 0.71)] == [False, True, True, True, False]


def test_a_part_that_no_stage_has_filled_is_named():
    assert required(0, "number") == 0
    with pytest.raises(ValueError, match=r"the results have no audit yet: .*imgae-evaluate RUN"):
        required(None, "audit")


def test_results_cannot_be_changed_in_place():
    with pytest.raises(ValidationError, match="frozen"):
        results().synthetic = True
