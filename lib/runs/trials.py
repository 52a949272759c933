"""Trials: what settings do to the health of methods over their training, as one table. No test image is looked at.

Each row is one measurement (`lib.scores.health`) of one run and method. Rows of runs that are gone stay, so that a
table grows from session to session.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lib.evidence.marks import COMPONENTS, points
from lib.files import write_csv
from lib.params import Params
from lib.runs.archive import StudyError
from lib.runs.run import Run

KEY = ["trial", "method"]
TEXTS = ["trial", "method", "data", "settings"]
GUARD = r"^'(?=\s*[=+@-])"  # of a text that a spreadsheet would take for a formula: see `write_csv`
ELSEWHERE = {
    *("methods", "references", "source", "data_dir", "run_dir", "seed", "epochs", "labels"),
    *("measure_every", "choose_from"),
}
"""Settings with a column of their own, and those that do not change what is trained."""


def settings_text(params: Params) -> str:
    """Return the settings that differ from their defaults and shape the training, as "name=value; ..."."""
    defaults, relevant = Params(preset="standard"), params.training_settings().keys() - ELSEWHERE
    values = {name: getattr(params, name) for name in Params.model_fields if name in relevant}
    return "; ".join(f"{name}={value}" for name, value in values.items() if value != getattr(defaults, name))


def measured(run: Run) -> pd.DataFrame:
    """Return one row for each measurement of a run's methods."""
    params, yardstick = run.params, run.yardstick()
    rows = [
        {
            "trial": run.folder.name,
            "method": method,
            "data": Path(params.data_dir).name or params.source,
            "seed": params.seed,
            "settings": settings_text(params),
            "images_seen": point.images_seen,
            "cpu_minutes": round(point.cpu_seconds / 60, 1),
            **point.health.model_dump(exclude={"lacks"}),
            "lacks": len(point.health.lacks),
            "components_residual": yardstick.components[COMPONENTS].residual if yardstick.components else None,
        }
        for method in params.methods
        for point in points(run.history(method), yardstick)
    ]
    return pd.DataFrame(rows)


def add_trials(file: Path, runs: Sequence[Run]) -> pd.DataFrame:
    """Return the table of `file`, if it exists, with the rows of these runs, which replace their earlier ones.

    StudyError if the file is another table, or if a run has measured nothing. The runs have different names.
    """
    tables = {run.folder: measured(run) for run in runs}
    if empty := [folder for folder, rows in tables.items() if rows.empty]:
        raise StudyError(f"{empty[0]} has measured no method: train it first (imgae-train)")
    new = pd.concat(tables.values(), ignore_index=True)
    if not file.is_file():
        return new
    old = _read(file, list(new))
    replaced = old[KEY].apply(tuple, axis=1).isin(new[KEY].apply(tuple, axis=1))
    return pd.concat([old[~replaced], new], ignore_index=True)


def write_trials(file: Path, runs: Sequence[Run]) -> None:
    """Add the rows of these runs to the table of `file`, with numbers of six digits."""

    def short(cell: object) -> object:
        return f"{cell:.6g}" if isinstance(cell, float) and not math.isnan(cell) else cell

    write_csv(file, add_trials(file, runs).map(short), index=False)


def _read(file: Path, columns: list[str]) -> pd.DataFrame:
    """Return the table of a file, its texts as they are; StudyError unless its columns are among these."""
    numbers = [name for name in columns if name not in TEXTS]
    try:
        texts = dict.fromkeys(TEXTS, str)
        table = pd.read_csv(file, dtype=texts, keep_default_na=False, na_values=dict.fromkeys(numbers, ""))
    except ValueError as error:
        raise StudyError(f"{file} cannot be read as a table of trials ({error}): name another file") from None
    if wrong := sorted(set(columns) ^ set(table)):
        raise StudyError(f"{file} is no table of trials, by its column {wrong[0]!r}: name another file")
    return table.assign(**{name: table[name].str.replace(GUARD, "", regex=True) for name in TEXTS})
