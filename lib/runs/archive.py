"""What a study reads of a run, checked before it counts; and the files that are kept of a run for it.

A kept run is a folder with the scores of every image, the settings and the results, without images and weights. Its
SHA256SUMS holds the hashes of these files, so that one which somebody has edited is found.
"""

import hashlib
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lib.evidence.evaluation import check_table
from lib.evidence.results import Results, method_of
from lib.evidence.seeds import CRITIC_SCORE, FORMS
from lib.files import replacing, write_json
from lib.params import Params
from lib.runs.candidates import read_candidates
from lib.runs.freshness import stale
from lib.runs.run import Run, RunError

FILES = ("candidates.csv", "curve.parquet", "params.json", "results.json", "scores.parquet")
SUMS = "SHA256SUMS"


class StudyError(RunError):
    """Runs that cannot be kept or combined, or a file that is not a study."""


class RunScores(NamedTuple):
    """The scores and results of one run, as a study needs them."""

    run: Run
    results: Results
    table: pd.DataFrame
    """One row for each image, as in scores.parquet."""
    columns: list[str]
    """The scores among the table's columns."""
    candidates: pd.DataFrame
    """One row for each candidate score, with its AUROC."""

    @property
    def names(self) -> list[str]:
        """The methods and the references that the run has scored."""
        return [*self.run.params.methods, *self.results.references]


def opened(folders: Sequence[Path]) -> list[Run]:
    """Open run folders; StudyError if two have one name, or if a kept run is not as it was kept."""
    runs = [Run.open(folder) for folder in folders]
    for run in runs:
        same = [
            str(folder) for folder, other in zip(folders, runs, strict=True) if other.folder.name == run.folder.name
        ]
        if len(same) > 1:
            found = f"{' and '.join(same)} have one name, {run.folder.name}, by which runs are told apart"
            raise StudyError(f"{found}: give each run once, and rename one of two")
        if (file := run.folder / SUMS).is_file() and file.read_text(encoding="utf-8", errors="replace") != sums(run):
            raise StudyError(f"{run.folder} has changed since it was kept, by the hashes in {SUMS}: keep the run again")
    return runs


def sums(run: Run) -> str:
    """Return a line for each file of a kept run, its SHA-256 and its name, as `sha256sum` writes them."""
    files = [file for name in FILES if (file := run.folder / name).is_file()]
    return "".join(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files)


def read(run: Run) -> RunScores:
    """Return what a study reads of a run; StudyError or RunError if it is not as an evaluation needs it."""
    name, params, results, table = run.folder.name, run.params, run.results(), run.scores()
    if why := stale(run):
        raise StudyError(why)
    again = "score the run again (imgae-evaluate RUN)"
    if unknown := set(params.methods) - (results.methods.keys() & results.choices.keys()):
        raise StudyError(f"{name}: results.json knows nothing of the method {min(unknown)!r} of params.json; {again}")
    beside = results.methods.keys() - set(params.methods)  # whose scores are in the folders of other runs
    columns = [column for column in results.columns if method_of(column) not in beside]
    if missing := [column for column in columns if column not in table]:
        raise StudyError(f"{name}: scores.parquet has no column {missing[0]!r}, which results.json lists; {again}")
    try:
        check_table(table.assign(finding=""), columns, params.label_column)
    except ValueError as error:
        raise StudyError(f"{name}: {error}") from None
    test = table[table["side"] == "test"].set_index("id")
    known = test[test[params.label_column].isin(["normal", "abnormal"])]
    if known[params.label_column].nunique() < 2 or known["patient"].nunique() < 2:
        kinds = ", ".join(f"{n} {kind}" for kind, n in known[params.label_column].value_counts().items()) or "none"
        found = f"{kinds} of {known['patient'].nunique()} patients among the test images by {params.label_column}"
        raise StudyError(f"{name}: {found}; wanted normal and abnormal ones, of two patients or more")
    scored = RunScores(run, results, table, columns, read_candidates(run.folder, known[params.label_column]))
    check_candidates(scored)
    return scored


def check_candidates(scored: RunScores) -> None:
    """Raise StudyError unless a run's candidates are finite, and those of its methods at the end of their training."""
    run, found = scored.run, scored.candidates
    if not np.isfinite(found[["separation", "auroc"]]).all(axis=None):
        raise StudyError(f"{run.folder.name}: candidates.csv holds a NaN or infinity; score the run again")
    if differing := sorted((set(scored.names) & scored.results.choices.keys()) ^ set(found["method"])):
        raise StudyError(
            f"{run.folder.name}: candidates.csv and results.json differ in {differing[0]!r}: score the run again"
        )
    last = found.groupby("method")["epoch"].max()
    if early := [method for method in run.params.methods if last[method] != run.params.epochs]:
        raise StudyError(
            f"{run.folder.name} was trained on after it was scored: its scores of {early[0]} end at epoch "
            f"{last[early[0]]}, its settings say {run.params.epochs}; score it (imgae-evaluate RUN), and keep it again"
        )


def read_curve(scored: RunScores) -> pd.DataFrame:
    """Return the curve of a run by image id; StudyError unless it holds every score of each test image and method.

    The KL of a posterior may be there or not.
    """
    run, ids = scored.run, scored.table.loc[scored.table["side"] == "test", "id"]
    curve, params = run.curve(), run.params
    ends = [*product(params.methods, FORMS.values(), sorted({*params.choose_from, params.epochs}))]
    wanted = {"id", *(f"{method}{form} @ {epochs}" for method, form, epochs in ends)}
    wanted |= {name for name in (f"{method}{CRITIC_SCORE} @ {n}" for method, _, n in ends) if name in curve}
    if differing := sorted(wanted ^ set(curve)):
        wrong = f"{'has no' if differing[0] in wanted else 'has a foreign'} column {differing[0]!r}"
    elif sorted(curve["id"]) != sorted(ids):
        wrong = f"has {len(curve)} rows, not one for each of {len(ids)} test images"
    elif not np.isfinite(curve.drop(columns="id")).all(axis=None):
        wrong = "holds a NaN or infinity"
    elif missing := [method for method in params.methods if method not in scored.results.points]:
        wrong = f"has scores of {missing[0]}, but results.json has no points of its training"
    else:
        return curve.set_index("id")
    raise StudyError(f"{run.folder.name}: curve.parquet {wrong}; score the run again")


def portable(run: Run) -> Params:
    """Return a run's settings without absolute paths."""
    return run.params.model_copy(
        update={"data_dir": Path(run.params.data_dir).name, "run_dir": run.folder.name, "keep_in": ""}
    )


def keep(folders: Sequence[Path], target: Path) -> None:
    """Write to `target` a folder for each run, of its name, with what a study needs of it.

    StudyError, before anything is written, if a run cannot be read, or if it or another run would be written over.
    """
    runs = opened(folders)
    for run, source in product(runs, runs):
        place = (target / run.folder.name).resolve()
        if place.is_relative_to(source.folder) or source.folder.is_relative_to(place):
            raise StudyError(f"{place} would be written over the run {source.folder}: choose another folder to keep in")
        if any((place / name).exists() for name in ("status.json", "checkpoints")):
            raise StudyError(f"{place} is the folder of a run of its own, not of a kept one: choose another folder")
    contents = [(run, read(run)) for run in runs]
    for run, scored in contents:
        _write(scored, read_curve(scored) if run.params.choose_from else None, target / run.folder.name)


def _write(scored: RunScores, curve: pd.DataFrame | None, folder: Path) -> None:
    """Write to `folder` the files of a run that a study needs, with only the images and columns that it reads."""
    table = scored.table
    labels = [column for column in ("label", "strict_label") if column in table]
    table = table.loc[table["side"] != "reference", ["id", "side", "patient", *labels, *scored.columns]]
    with replacing(folder / "scores.parquet") as file:
        table.to_parquet(file, index=False)
    with replacing(folder / "candidates.csv") as file:
        scored.candidates.to_csv(file, index=False)
    if curve is None:  # it is a point, which scores.parquet holds
        (folder / "curve.parquet").unlink(missing_ok=True)
    else:
        with replacing(folder / "curve.parquet") as file:
            curve.reset_index().to_parquet(file, index=False)
    write_json(folder / "params.json", portable(scored.run).model_dump())
    less: dict[str, Any] = {"all_scores": None, "other_labels": []}  # a study computes them again
    write_json(folder / "results.json", scored.results.model_copy(update=less).model_dump(mode="json"))
    with replacing(folder / SUMS) as file:
        file.write(sums(Run.open(folder)).encode())
