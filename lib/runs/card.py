"""A model -> its card, the README of a folder that is handed on: what it is, how good, and what it is not for.

Every sentence follows from the run's settings and results. The head is the YAML that model hubs read.
"""

from collections.abc import Iterator
from typing import NamedTuple

import yaml

from lib.evidence.evaluation import FALSE_ALARM_RATE
from lib.evidence.results import Results, required
from lib.figures.tables import results_table
from lib.runs.model import Model
from lib.runs.onnx_file import onnx_place, said
from lib.runs.report import SYNTHETIC, claimed
from lib.runs.results_page import markdown
from lib.scores.conformal import promise

INTENDED = (
    "For research on anomaly detection in radiographs like those that it was trained on. Not a medical device: it must "
    "not be used for diagnosis, for triage, or for any decision about a person."
)


class Rounding(NamedTuple):
    """How far weights of 16 bits move the primary scores of some drawn images."""

    images: int
    share: float
    """The largest change, in standard deviations of the calibration scores."""
    ranks: int
    """By how many ranks a p-value moves at most with such a change."""


def card(model: Model, results: Results, rounding: Rounding | None, *, onnx: bool) -> str:
    """Return the card as Markdown; ValueError for a run that has not been evaluated."""
    return "\n".join(_lines(model, results, rounding, onnx))


def _lines(model: Model, results: Results, rounding: Rounding | None, onnx: bool) -> Iterator[str]:
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
    if model.primary_only:
        yield f"It holds the primary score alone, the {results.score}; the run's other scores were left out.\n"
    if onnx:
        yield from _onnx(model)
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
    if rounding:
        yield (
            f"\nThe weights were rounded to 16 bits after calibration. Over {rounding.images} drawn radiographs this "
            f"changes a primary score by at most {rounding.share:.2g} standard deviations of the calibration scores. "
            f"Such a change moves an image by at most {rounding.ranks} of {fitted.likeness.calibration + 1} ranks."
        )


def _onnx(model: Model) -> Iterator[str]:
    yield "## The ONNX files\n"
    yield "They redraw prepared images without this project. The metadata of each file say the same.\n"
    first, *_ = by_name = {name: said(model, name) for name in model.versions}
    yield from (f"- {topic}: {by_name[first][topic]}" for topic in ("input", "preparation", "output", "score"))
    yield from (f"- `{onnx_place(name)}`: {says['threshold']}" for name, says in by_name.items())
    yield ""
