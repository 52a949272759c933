"""A model -> its card, the README of a folder that is handed on: what it is, how good, and what it is not for.

Every sentence follows from the run's settings and results. The head is the YAML that model hubs read.
"""

from collections.abc import Iterator
from typing import NamedTuple

import yaml

from lib.environment import NAME, repository
from lib.evidence.claims import claims
from lib.evidence.evaluation import FALSE_ALARM_RATE
from lib.evidence.marks import RULE
from lib.evidence.results import Results, method_of, required
from lib.evidence.wording import estimate_text
from lib.figures.tables import results_table
from lib.methods.variants import VARIANTS
from lib.runs.model import Model
from lib.runs.onnx_file import onnx_place, said
from lib.runs.report import SYNTHETIC, claimed
from lib.runs.results_page import markdown
from lib.scores.conformal import promise

INTENDED = (
    "For research on anomaly detection in radiographs like those that it was trained on. Not a medical device: it must "
    "not be used for diagnosis, for triage, or for any decision about a person."
)
OTHER_SCORES = (
    "A chosen score is of the epoch and the difference that best tell normal images from copies with painted "
    "opacities, which needs no label; a combined one joins several differences as p-values."
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
    lines = _lines(model, _primary_alone(results) if model.primary_only else results, rounding, onnx)
    return "\n".join([*lines, ""])


def _primary_alone(results: Results) -> Results:
    """Return the results and claims that are left without the chosen and the combined scores."""
    scores = required(results.all_scores, "evaluation of all scores")
    kept = {name: of for name, of in scores.methods.items() if name == method_of(name)}
    pairs = [pair for pair in scores.differences if {pair.first, pair.second} <= kept.keys()]
    alone = results.model_copy(update={"all_scores": scores.model_copy(update={"methods": kept, "differences": pairs})})
    return alone.model_copy(update={"claims": claims(alone)})


def _lines(model: Model, results: Results, rounding: Rounding | None, onnx: bool) -> Iterator[str]:
    params, fitted, address = model.params, model.fitted, repository()
    size, methods = params.image_size, ", ".join(f"`{name}`" for name in fitted.fits)
    head = {
        "library_name": NAME,
        "license": "other",
        "license_name": fitted.about.get("licence", "not stated").partition(":")[0],
        "tags": ["anomaly-detection", "chest-x-ray", "reconstruction", *fitted.fits],
    }
    yield f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=1000)}---\n"
    yield f"# {model.name}\n"
    if results.synthetic:
        yield f"**{SYNTHETIC}.**\n"
    yield (
        f"An anomaly score and map for chest radiographs, by {methods} of [ImgAE-Dx]({address}), trained on normal "
        f"images only ({size} x {size} pixels, {params.epochs:,} epochs, seed {params.seed}).\n"
    )
    yield (
        "It redraws a radiograph as it expects a normal chest to look. The mean absolute difference between the two, "
        "from 0 to 1, is the score: higher is more anomalous. The difference at each pixel is the map. "
        f"This is the primary score{', and the model has no other.' if model.primary_only else f'. {OTHER_SCORES}'}\n"
    )
    yield from (f"- `{name}` is {VARIANTS[name].about}." for name in fitted.fits)
    yield f"\n{INTENDED}\n"
    yield "## How to use it\n"
    yield f"    pip install '{NAME}[dicom] @ git+{address}'\n    imgae-score FOLDER image.png\n"
    thresholds = model.thresholds(FALSE_ALARM_RATE)
    limits = ", ".join(f"{thresholds[name]:.4g} for `{name}`" for name in fitted.fits)
    yield (
        "FOLDER is where these files lie, or their address on the hub, `hf://OWNER/NAME`, which needs the extra "
        f"`stream` too. An image whose score lies above a threshold is called abnormal: {limits}. "
        f"{fitted.likeness.calibration} normal images have set it, the calibration images, so that of normal images "
        f"like them at most {FALSE_ALARM_RATE:.0%} lie above it on average.\n"
    )
    if onnx:
        yield from _onnx(model)
    yield "## The images it was trained on\n"
    yield from (f"- {name}: {text}" for name, text in fitted.about.items())
    yield f"- separation of patients between training and test: {results.patient_separation}\n"
    yield "## How well it ranks\n"
    yield from _ranking(model, results, f"{address}/blob/main/docs")
    yield "## What its numbers promise\n"
    yield f"{promise(fitted.likeness.calibration, FALSE_ALARM_RATE)}\n\n{fitted.likeness.rule(model.backbone)}"
    if rounding:
        yield (
            f"\nThe weights were rounded to 16 bits after calibration. Over {rounding.images} drawn radiographs this "
            f"changes a primary score by at most {rounding.share:.2g} standard deviations of the calibration scores. "
            f"Such a change moves an image by at most {rounding.ranks} of {fitted.likeness.calibration + 1} ranks."
        )


def _ranking(model: Model, results: Results, docs: str) -> Iterator[str]:
    """Yield what is found at the threshold, what the labels are worth, then all metrics and what they allow to say."""
    own, evaluation = model.fitted.fits, required(results.evaluation, "evaluation")
    every = required(results.all_scores, "evaluation of all scores")
    normal, abnormal = evaluation.n_normal, evaluation.n_abnormal
    methods = {name: evaluation.methods[name] for name in own}  # without those of runs that it was compared with
    yield f"On {normal} normal and {abnormal} abnormal test images, by the labels `{evaluation.labels}`:\n"
    for name, method in methods.items():
        if threshold := method.threshold:
            sensitivity, specificity = threshold.sensitivity, threshold.specificity
            found, false = round(sensitivity.value * abnormal), round((1 - specificity.value) * normal)
            yield (
                f"- At its threshold `{name}` finds {found} of {abnormal} abnormal images (sensitivity "
                f"{estimate_text(sensitivity)}) and calls {false} of {normal} normal ones abnormal (specificity "
                f"{estimate_text(specificity)})."
            )
    for other in results.other_labels:
        for name, method in methods.items():
            yield (
                f"- Labels hold errors: `{name}` has AUROC {estimate_text(method.auroc)} by `{evaluation.labels}`, and "
                f"{estimate_text(other.methods[name].auroc)} by `{other.labels}`, another reading, on {other.n_normal} "
                f"normal and {other.n_abnormal} abnormal images. Above, *labels* says what they are."
            )
    if not results.other_labels and not results.synthetic:
        yield "- Labels hold errors, and no second reading tells how much of these numbers is due to them."
    yield (
        f"- All numbers are of one training, with seed {model.params.seed}, and not the mean over seeds that ImgAE-Dx "
        "publishes: another training gives others.\n"
    )
    shown = {name: of for name, of in every.methods.items() if method_of(name) in own or name in results.references}
    yield markdown(results_table(every.model_copy(update={"methods": shown})))
    yield (
        "AUROC is the probability that an abnormal image scores above a normal one: 0.5 is chance. TPR and sensitivity "
        "are the share of abnormal images above a threshold, FPR that of normal ones.\n"
    )
    if results.references:
        yield f"The lower rows are [references]({docs}/IMG_AE_DX_ARCHITECTURE.md#55-references) without a training.\n"
    yield from (f"- {name}: {verdict.sentence}" for name, verdict in required(results.audit, "audit").verdicts.items())
    yield f"\nThe results may say that\n\n{claimed(results, 'may')}\n\nand may not say that\n"
    yield f"{claimed(results, 'may_not')}\n"
    yield f"Marks that were set beforehand say what a method is meant to do with normal images: {RULE}.\n"


def _onnx(model: Model) -> Iterator[str]:
    yield "## The ONNX files\n"
    yield "They redraw prepared images without this project. The metadata of each file say the same.\n"
    first, *_ = by_name = {name: said(model, name) for name in model.versions}
    yield from (f"- {topic}: {by_name[first][topic]}" for topic in ("input", "preparation", "output", "score"))
    yield from (f"- `{onnx_place(name)}`: {says['threshold']}" for name, says in by_name.items())
    yield ""
