"""An evaluated run, or images that were scored -> what a gallery shows of each image."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from lib.evidence.evaluation import FALSE_ALARM_RATE
from lib.evidence.results import Results, method_of, required
from lib.evidence.wording import estimate_text
from lib.figures.compact import shares
from lib.runs.fitted import FITTED, read_fitted
from lib.runs.freshness import stale
from lib.runs.new_images import ABOUT, SCORES, map_place, picture_place
from lib.runs.prepare import prepare
from lib.runs.report import SYNTHETIC
from lib.runs.run import Run, RunError
from lib.scores.scoring import residuals

USE = "Research use only, not for diagnosis."


class Score(NamedTuple):
    """A score of every image; above the threshold an image is called abnormal."""

    name: str
    values: list[float | None]
    """None where an image has no such score."""
    threshold: float | None
    auroc: str = ""
    p: Sequence[float] = ()


class Panels(NamedTuple):
    """The pictures of one image, (size, size) uint8 each, and its marked lesion, (size, size) bool."""

    image: np.ndarray
    maps: dict[str, np.ndarray]
    """By method; 255 at the method's ceiling and above."""
    reconstructions: dict[str, np.ndarray]
    lesion: np.ndarray | None = None


@dataclass(frozen=True)
class Shown:
    """What a gallery shows."""

    title: str
    sentences: list[str]
    """Which images, by which labels, and what the numbers mean."""
    records: list[dict[str, str]]
    """Of each image its "name", and "label", "finding", "view" or "unlike" where they are known."""
    scores: list[Score]
    ceilings: dict[str, float]
    """The residual at which a method's map has its brightest colour, in [0, 1]."""
    panels: Callable[[int], Panels]
    """The pictures of the image at a place in `records`."""
    warnings: list[str] = field(default_factory=lambda: [USE])
    labelled: bool = False
    """Whether "label" says of each image that it is normal, abnormal, or neither."""


def open_shown(folder: Path) -> Shown:
    """Return what there is to show of an evaluated run, or of a folder that imgae-score has written.

    Raises:
        RunError: The folder is neither, or what it needs is missing, damaged or older than its weights.

    """
    if (folder / "params.json").is_file():
        return _of_run(Run.open(folder))
    if (folder / SCORES).is_file() and (folder / ABOUT).is_file():
        return _of_scores(folder)
    raise RunError(f"{folder} has nothing to show: give the folder of an evaluated run, or one of imgae-score's")


def _of_run(run: Run) -> Shown:
    results, scores = run.results(), run.scores()
    if reason := stale(run):
        raise RunError(reason)
    evaluation = results.all_scores
    if evaluation is None:
        raise RunError(f"{run.folder} has been scored, but not evaluated: imgae-evaluate {run.folder}")
    test = scores[scores["side"] == "test"].reset_index(drop=True)
    redrawn: dict[str, np.ndarray]
    redrawn = {name: _reconstructions(run, name, len(test)) for name in run.params.methods}
    fits = read_fitted(run.folder / FITTED, run.remedy).fits
    prepared = prepare(run.params, run.folder)
    if prepared.split.hash != results.split or list(prepared.split.test["id"]) != list(test["id"]):
        raise RunError(
            f"{run.folder} was scored on other images than {run.params.source} now gives (split {results.split}, now "
            f"{prepared.split.hash}): restore the images, or train again in another run_dir"
        )
    images, lesions, ceilings = prepared.images.test, prepared.lesions, {n: fits[n].ceiling for n in redrawn}

    def panels(i: int) -> Panels:
        outputs, image = {name: array[i : i + 1] for name, array in redrawn.items()}, images[i : i + 1]
        maps = {name: shares(residuals(image, output)[0], ceilings[name]) for name, output in outputs.items()}
        levels = {name: shares(output[0], 1) for name, output in outputs.items()}
        return Panels(image[0], maps, levels, lesions.get(test["id"][i]))

    columns = [column for column in results.columns if column in test and column in evaluation.methods]
    evaluated = {column: evaluation.methods[column] for column in columns}
    return Shown(
        title=run.folder.name,
        sentences=list(_about_run(run, results, prepared.source.about)),
        records=_records(test.assign(name=test["id"], label=test[run.params.label_column])),
        scores=[
            Score(
                column,
                _plain(test[column]),
                of.threshold.value if of.threshold else None,
                f"AUROC {estimate_text(of.auroc)}",
            )
            for column, of in evaluated.items()
        ],
        ceilings=ceilings,
        panels=panels,
        warnings=[USE, *([f"{SYNTHETIC.capitalize()}."] if results.synthetic else [])],
        labelled=True,
    )


def _about_run(run: Run, results: Results, about: dict[str, str]) -> Iterator[str]:
    evaluation = required(results.all_scores, "all_scores")
    counts = {"normal": evaluation.n_normal, "abnormal": evaluation.n_abnormal, **evaluation.left_out}
    found = ", ".join(f"{n:,} {name}" for name, n in counts.items())
    left_out = "; only normal and abnormal ones count in the numbers" if evaluation.left_out else ""
    yield (
        f"All test images of the run {run.folder.name}, on which nothing was trained: {found}, by the labels in the "
        f"column “{evaluation.labels}”{left_out}."
    )
    if about.get("labels"):
        yield f"How the labels came about: {about['labels'].rstrip('.')}."
    yield (
        f"An image is called abnormal if its score is above the threshold. The first threshold is that of "
        f"{results.calibration_images} normal validation images at a promised false alarm rate of "
        f"{FALSE_ALARM_RATE:.0%}; one that is moved until the numbers please is chosen with the labels."
    )
    yield f"A method's primary score is its {results.score}, after {run.params.epochs} epochs."


def _reconstructions(run: Run, name: str, count: int) -> np.ndarray:
    file = run.folder / f"reconstructions/{name}.{run.params.epochs}.test.npy"
    remedy = f"imgae-evaluate {run.folder} makes it again"
    if not file.is_file():
        raise RunError(f"{run.folder} has no {file.relative_to(run.folder)}: {remedy}")
    shape = (count, run.params.image_size, run.params.image_size)
    try:
        array = np.load(file, mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise RunError(f"{file} is damaged ({error}): {remedy}") from None
    if array.shape != shape:
        raise RunError(f"{file} has the shape {array.shape}, expected {shape}: {remedy}")
    return array


def _of_scores(folder: Path) -> Shown:
    remedy = "score the images again into a new folder, with imgae-score MODEL PATH --to FOLDER"
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        table = pd.read_csv(folder / SCORES, keep_default_na=False)
        thresholds, ceilings = about["thresholds"], about["ceilings"]
        scores = [
            Score(column, _plain(table[column]), value, p=table[f"{column}, p"].tolist())
            for column, value in thresholds.items()
        ]
        records = _records(table.assign(name=table["image"]))
        sentences = [
            f"The {len(table):,} images in {folder.resolve().name}, scored by the model {about['model']}. They have no "
            "labels: how many of those called abnormal are abnormal is not known.",
            *(about["promise"], about["unlike"]),
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{folder} is damaged, or another version has written it ({error!r}): {remedy}") from None
    methods = list(dict.fromkeys(map(method_of, thresholds)))

    def panels(i: int) -> Panels:
        name = records[i]["name"]
        if not (folder / picture_place(name)).is_file():
            name = name.removeprefix("'")  # which scores.csv has before what a spreadsheet would take for a formula
        places = {method: map_place(method, name) for method in methods}
        try:
            maps = {method: _opened(folder / place) / 65535 for method, place in places.items()}
            image = _opened(folder / picture_place(name))
        except FileNotFoundError as error:
            raise RunError(f"{error.filename} is not there: {remedy}, and without --no-maps") from None
        return Panels(image, {method: shares(of, ceilings[method]) for method, of in maps.items()}, {})

    return Shown(about["model"], sentences, records, scores, ceilings, panels)


def _opened(file: Path) -> np.ndarray:
    with Image.open(file) as picture:
        return np.asarray(picture)


def _records(table: pd.DataFrame) -> list[dict[str, str]]:
    """Return what is known of each image, without what is unknown of all: nothing that tells who the patient is."""
    columns = [column for column in ("label", "finding", "view", "unlike") if column in table]
    known = table[["name", *columns]].fillna("").astype(str)
    return known[["name", *(column for column in columns if known[column].any())]].to_dict("records")


def _plain(values: pd.Series) -> list[float | None]:
    return [float(value) if math.isfinite(value) else None for value in values]
