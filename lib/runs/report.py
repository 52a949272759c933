"""Results -> text for people: the answers and claims of a run as Markdown, and a summary in plain text."""

from itertools import combinations
from typing import Literal

from lib.evidence.evaluation import why_no_auroc
from lib.evidence.results import Evaluation, Results, required
from lib.evidence.study import Study
from lib.evidence.uncertainty import affordable
from lib.evidence.wording import difference_text, estimate_text, percent
from lib.figures.studies import seeds_table, verdict
from lib.figures.tables import results_table

SYNTHETIC = "synthetic images: a smoke test, not evidence"


def claimed(results: Results, kind: Literal["may", "may_not"]) -> str:
    """Return what the run "may" or "may_not" say, as a Markdown list with a line for each claim."""
    claims = required(results.claims, "claims")
    return "\n".join(f"- … {claim.says}." for claim in {"may": claims.may, "may_not": claims.may_not}[kind])


def answers(results: Results, study: Study | None = None) -> str:
    """Return which method points more reliably, by how much, and whether something simpler explains it, as Markdown.

    If something simpler does explain it, that comes first. A run of several seeds also gives the answer of all, from
    its study. Raises ValueError for a run that has not been evaluated and audited.
    """
    evaluation = required(results.evaluation, "evaluation")
    verdicts = required(results.audit, "audit").verdicts.values()
    images = f"{evaluation.n_normal} normal and {evaluation.n_abnormal} abnormal test images"
    ranked = [f"{name} reached AUROC {estimate_text(score.auroc)}" for name, score in evaluation.methods.items()]
    differences = [f"{difference_text(difference)}." for difference in evaluation.differences]
    paragraphs = [
        f"**Which?** On {images} (labels: {evaluation.labels}) {'; '.join(ranked)}.",
        f"**By how much?** {' '.join(differences) or 'The run has only one method.'}",
    ]
    if study:
        means = {name: estimate_text(study.evaluation.scores[name].auroc.estimate) for name in study.budgets}
        ordered = [verdict(difference) for difference in study.evaluation.among(list(combinations(means, 2)))]
        reached = "; ".join(f"{name} reached AUROC {text}" for name, text in means.items())
        seeds = f"In the mean of {len(study.seeds)} trainings on the same images {reached}."
        paragraphs.append(f"**With other seeds too?** {' '.join([seeds, *ordered])}")
    if few_resamples := fewer_resamples(evaluation):
        paragraphs.append(few_resamples)
    simpler = f"**Could something simpler explain it?** {' '.join(verdict.sentence for verdict in verdicts)}"
    paragraphs.insert(0 if any(verdict.explained for verdict in verdicts) else len(paragraphs), simpler)
    if few := why_no_auroc(evaluation.normal_patients, evaluation.abnormal_patients):
        paragraphs.insert(0, f"**Too few test patients to conclude anything:** {few}.")
    return "\n\n".join([f"**{SYNTHETIC}.**", *paragraphs] if results.synthetic else paragraphs)


def fewer_resamples(evaluation: Evaluation) -> str:
    """Return a sentence that says so if the images are too many for all resamples that the settings ask for, or ""."""
    images = evaluation.n_normal + evaluation.n_abnormal + sum(evaluation.left_out.values())
    if evaluation.resamples == affordable(evaluation.resamples + 1, images):
        return (
            f"Because the test images are many, {images:,}, intervals are from {evaluation.resamples:,} resamples only."
        )
    return ""


def over_seeds(study: Study) -> str:
    """Return what the seeds say together as plain text: each method's primary score, and the differences."""
    pairs = list(combinations(study.budgets, 2))
    table = seeds_table(study.evaluation, list(study.budgets), pairs)
    return f"Over seeds {', '.join(map(str, study.seeds))}, on the same images\n{table.to_string()}"


def summary(results: Results) -> str:
    """Return the result as plain text: simpler explanations, the table, the differences, the claims.

    Raises ValueError for a run that has not been evaluated.
    """
    evaluation = required(results.evaluation, "evaluation")
    verdicts = results.audit.verdicts.values() if results.audit else ()
    explained = [verdict.sentence for verdict in verdicts if verdict.explained]
    differences = [difference_text(difference) for difference in evaluation.differences]
    few = why_no_auroc(evaluation.normal_patients, evaluation.abnormal_patients)
    parts = [
        [f"too few test patients to conclude anything: {few}"] if few else [],
        explained,
        [results_table(evaluation).to_string()],
        differences,
    ]
    parts.append([text] if (text := fewer_resamples(evaluation)) else [])
    if results.claims:
        parts.append(["This run may say that", claimed(results, "may")])
        parts.append(["This run may not say that", claimed(results, "may_not")])
    if results.test_images and (shares := results.test_images.lesions):
        low, middle, high = map(percent, shares)
        spread = f"median; 5th to 95th percentile: {low} to {high}"
        parts.insert(3, [f"Marked lesions cover {middle} of an abnormal image ({spread})"])
    if results.synthetic:
        parts.append([SYNTHETIC])
    return "\n\n".join("\n".join(part) for part in parts if part)
