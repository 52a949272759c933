"""A model -> its card, the README of a folder that is handed on: what it is, how good, and what it is not for.

Every sentence follows from the run's settings and results. The head is the YAML that model hubs read.
"""

from collections.abc import Iterator

import yaml

from lib.evidence.evaluation import FALSE_ALARM_RATE
from lib.evidence.results import Results, required
from lib.figures.tables import results_table
from lib.runs.model import Model
from lib.runs.new_images import promise
from lib.runs.report import SYNTHETIC, claimed
from lib.runs.results_page import markdown

INTENDED = (
    "For research on anomaly detection in radiographs like those that it was trained on. Not a medical device: it must "
    "not be used for diagnosis, for triage, or for any decision about a person."
)


def card(model: Model, results: Results) -> str:
    """Return the card as Markdown; ValueError for a run that has not been evaluated."""
    return "\n".join(_lines(model, results))


def _lines(model: Model, results: Results) -> Iterator[str]:
    params, fitted = model.params, model.fitted
    evaluation = required(results.evaluation, "evaluation")
    methods = ", ".join(fitted.fits)
    head = {
        "library_name": "imgae-dx",
        "license": "other",
        "license_name": fitted.about.get("licence", "not stated").partition(":")[0],
        "tags": ["anomaly-detection", "chest-x-ray", "reconstruction", *fitted.fits],
    }
    yield f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=1000)}---\n"
    yield f"# {model.name}\n"
    if results.synthetic:
        yield f"**{SYNTHETIC}.**\n"
    yield (
        f"An anomaly score and map for chest radiographs, by {methods} of ImgAE-Dx, trained on normal images only "
        f"({params.image_size} x {params.image_size} pixels, {params.epochs:,} epochs, seed {params.seed}).\n"
    )
    yield f"    imgae-score FOLDER image.png\n\n{INTENDED}\n"
    yield "## The images it was trained on\n"
    yield from (f"- {name}: {text}" for name, text in fitted.about.items())
    yield f"- separation of patients between training and test: {results.patient_separation}\n"
    yield "## How well it ranks\n"
    yield (
        f"{evaluation.n_normal} normal and {evaluation.n_abnormal} abnormal test images (labels: {evaluation.labels}), "
        f"by the {results.score}, at a threshold from normal validation images:\n"
    )
    yield markdown(results_table(evaluation))
    yield from (f"- {name}: {verdict.sentence}" for name, verdict in required(results.audit, "audit").verdicts.items())
    yield f"\nThe results may say that\n\n{claimed(results, 'may')}\n\nand may not say that\n"
    yield f"{claimed(results, 'may_not')}\n"
    yield "## What its numbers promise\n"
    yield f"{promise(fitted.likeness.calibration, FALSE_ALARM_RATE)}\n\n{fitted.likeness.rule(model.backbone)}"
