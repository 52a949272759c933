"""An evaluated run -> what a gallery shows of its test images."""

from collections.abc import Iterator

import numpy as np

from lib.evidence.evaluation import FALSE_ALARM_RATE
from lib.evidence.results import Results, required
from lib.figures.compact import shares
from lib.runs.fitted import FITTED, read_fitted
from lib.runs.freshness import stale
from lib.runs.prepare import prepare
from lib.runs.report import SYNTHETIC
from lib.runs.run import Run, RunError
from lib.runs.shown import USE, Panels, Score, Shown, by_label, finite, records_of
from lib.scores.scoring import residuals


def shown_run(run: Run) -> Shown:
    """Return what there is to show of a run.

    Raises:
        RunError: It was not evaluated, or what this needs is missing, damaged or older than its weights.

    """
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
        records=records_of(test.assign(name=test["id"], label=test[run.params.label_column])),
        scores=[
            Score(
                column,
                finite(test[column]),
                of.threshold.value if of.threshold else None,
                of.auroc,
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
    found = by_label(counts, f"the column “{evaluation.labels}”")
    yield f"All test images of the run {run.folder.name}, on which nothing was trained: {found}"
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
