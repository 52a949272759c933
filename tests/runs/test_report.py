"""Promises of `lib.runs.report`: what a person reads is what was found, and says where it is no evidence."""

import pytest
from example_results import changed, difference, results

from lib.evidence.results import Claim, Claims, Results, Verdict
from lib.evidence.wording import difference_text, estimate_text
from lib.runs.report import SYNTHETIC, answers, claimed, summary


@pytest.fixture
def run() -> Results:
    """A run that is evaluated and audited, and claims nothing yet."""
    return results()


def test_the_summary_gives_every_methods_auroc_and_every_difference_in_words(run):
    run = changed(run, "evaluation.differences.0", difference("unet", "ra", -0.1, -0.2, 0.1))
    lines = summary(run).splitlines()
    for name, method in run.evaluation.methods.items():
        assert any(line.startswith(name) and estimate_text(method.auroc) in line for line in lines)
    assert lines[-1] == difference_text(run.evaluation.differences[0])


def test_the_summary_says_first_what_something_trivial_does_as_well(run):
    trivial = Verdict(explained=True, by="age", sentence="A tag alone ranks as well as unet.")
    explained = summary(changed(run, "audit.verdicts.unet", trivial))
    assert explained == f"A tag alone ranks as well as unet.\n\n{summary(run)}"


def test_the_answers_begin_with_a_simpler_explanation_if_there_is_one(run):
    plain = answers(run).split("\n\n")
    assert [answer.split("**")[1] for answer in plain] == [
        "Which?",
        "By how much?",
        "Could something simpler explain it?",
    ]
    assert f"ra reached AUROC {estimate_text(run.evaluation.methods['ra'].auroc)}" in plain[0]
    assert difference_text(run.evaluation.differences[0]) in plain[1]
    trivial = Verdict(explained=True, by="age", sentence="A tag alone ranks as well as unet.")
    explained = answers(changed(changed(run, "audit.verdicts.unet", trivial), "synthetic", True)).split("\n\n")
    assert SYNTHETIC in explained[0] and "A tag alone ranks as well as unet." in explained[1]


def test_a_run_on_too_few_test_patients_says_so_first(run):
    few = changed(run, "evaluation.normal_patients", 9)
    assert summary(few).startswith("too few test patients to conclude anything: 9 normal: fewer than 10 patients\n\n")
    assert answers(few).startswith(
        "**Too few test patients to conclude anything:** 9 normal: fewer than 10 patients.\n\n**Which?**"
    )


def test_a_run_that_is_not_audited_has_a_summary_all_the_same(run):
    assert summary(changed(run, "audit", None)) == summary(run)


def test_the_summary_says_how_large_marked_lesions_are(run):
    assert "Marked lesions" not in summary(run)
    text = summary(changed(run, "test_images.lesions", (0.02, 0.12, 0.3)))
    assert "Marked lesions cover 12 % of an abnormal image (median; 5th to 95th percentile: 2 % to 30 %)" in text


def test_the_summary_says_what_may_be_claimed_and_what_may_not(run):
    claims = Claims(may=[Claim(rule="a", says="it works")], may_not=[Claim(rule="b", says="it cures")])
    run = run.model_copy(update={"claims": claims})
    assert (claimed(run, "may"), claimed(run, "may_not")) == ("- … it works.", "- … it cures.")
    assert summary(run).endswith("This run may say that\n- … it works.\n\nThis run may not say that\n- … it cures.")


def test_without_an_evaluation_or_claims_it_says_what_is_missing(run):
    with pytest.raises(ValueError, match="the results have no evaluation yet"):
        summary(changed(run, "evaluation", None))
    with pytest.raises(ValueError, match="the results have no claims yet"):
        claimed(run, "may")


@pytest.mark.parametrize("synthetic", [True, False])
def test_the_summary_says_of_synthetic_images_that_they_are_no_evidence(run, synthetic):
    words = summary(changed(run, "synthetic", synthetic))
    assert ("not evidence" in SYNTHETIC) and ((SYNTHETIC in words) == synthetic)


def test_a_run_on_too_many_images_for_all_resamples_says_from_how_many_its_intervals_are(run):
    sentence = "Because the test images are many, 1,000,000, intervals are from 200 resamples only."
    many = changed(changed(run, "evaluation.n_normal", 10**6 - run.evaluation.n_abnormal), "evaluation.resamples", 200)
    assert sentence in summary(many) and sentence in answers(many)
    assert "resamples" not in summary(run) + answers(run)
