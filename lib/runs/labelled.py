"""Scored images and a table of their labels -> what it says of each image, and the AUROC of each score."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lib.data.labels import plain, read_labels
from lib.data.metadata import normalise
from lib.data.source import LEFT_OUT, problem_counts, problems_table
from lib.evidence.evaluation import NO_LABEL, Sample
from lib.files import hash_of, no_formula
from lib.runs.layout import SCORES
from lib.runs.shown import Score
from lib.runs.status import RunError

RESAMPLES = 2000  # of the patients, for an interval
NAMED = 3  # images of those that are counted


def labels_of(names: pd.Series, file: Path, *, hashed: bool) -> tuple[pd.DataFrame, list[str]]:
    """Return label, finding, view and patient of each image by a table, and remarks on what does not fit.

    `names` are those in scores.csv; `hashed` says that they are hashes. An image without a row has "no label", and one
    whose patient is unknown is taken for a patient of its own.

    Raises:
        SourceError: The table cannot be read, lacks a column, or has another word for "normal".
        RunError: Its rows contradict each other, or it calls no image here normal or abnormal.

    """
    rows, problems = read_labels(file)
    if contradicted := [problem.image for problem in problems if problem.consequence == LEFT_OUT]:
        raise RunError(f"{file} has rows that contradict each other, of {_few(contradicted)}: keep one of each image")
    images = names.map(plain)
    as_written = rows["id"].map(hash_of if hashed else no_formula)
    rows["image"] = rows["id"].where(rows["id"].isin(images), as_written)
    here = rows["image"].isin(images)
    if not here.any():
        raise RunError(
            f"{file} names none of the {len(names):,} images: it has {_few(rows['id'])}, and {SCORES} has "
            f"{_few(names)}; write in its column filename what {SCORES} has in the column image"
        )
    known = rows[here].drop_duplicates("image").set_index("image").reindex(images, fill_value="")
    known = known.reindex(columns=["label", "finding", "view", "patient"], fill_value="").reset_index(drop=True)
    known["label"] = known["label"].replace("", NO_LABEL)
    known, odd = normalise(known.assign(id=names, age="", sex="", split=""))
    if not known["label"].isin(["normal", "abnormal"]).any():
        found = ", ".join(map(repr, sorted(set(known["label"]))))
        raise RunError(f"{file} calls no image here normal or abnormal, but {found}: write normal, and abnormal")
    n, nameless, unused = f"{len(names):,} images", names[~images.isin(rows["image"])], rows["image"][~here]
    remarks = [f"{count:,} of {n}: {reason}." for reason, count in problem_counts(problems_table(odd)).items()]
    remarks += _counted(f"Without a row in {file.name}, and in no number", nameless, n)
    remarks += _counted("Without an image here, and not used", unused, f"{len(rows):,} rows of {file.name}")
    return known.assign(patient=known["patient"].where(known["patient"] != "", names)), remarks


def with_aurocs(scores: Sequence[Score], known: pd.DataFrame) -> list[Score]:
    """Return the scores with their AUROCs by what is `known` of the images; without, if one class has no image."""
    if not {"normal", "abnormal"} <= set(known["label"]):
        return [*scores]
    columns = {score.name: score.values for score in scores}
    sample = Sample(known.assign(**columns), known["label"], [*columns], RESAMPLES, seed=0)
    areas = sample.aurocs(sample.decided())
    return [score._replace(auroc=areas[score.name]) for score in scores]


def _counted(what: str, names: Sequence[str], of: str) -> list[str]:
    return [f"{what}: {len(names):,} of {of} ({_few(names)})."] if len(names) else []


def _few(names: Sequence[str]) -> str:
    """Return the first names of images, and whether there are more."""
    return ", ".join([*names[:NAMED], *(["…"] if len(names) > NAMED else [])])
