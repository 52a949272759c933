"""Trials: what settings do to the health of methods over their training, as one table. No test image is looked at.

Each row is one measurement (`lib.scores.health`) of one run and method. Rows of runs that are gone stay, so that a
table grows from session to session.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lib.evidence.marks import COMPONENTS, points
from lib.params import Params
from lib.runs.run import Run

KEY = ["trial", "method"]
ELSEWHERE = {
    *("methods", "references", "source", "data_dir", "run_dir", "seed", "epochs", "labels"),
    *("measure_every", "choose_from"),
}
"""Settings with a column of their own, and those that do not change what is trained."""


def settings_text(params: Params) -> str:
    """Return the settings that differ from their defaults and shape the training, as "name=value; ..."."""
    defaults, relevant = Params(), params.training_settings().keys() - ELSEWHERE
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
    """Return the table of `file`, if it exists, with the rows of these runs, which replace their earlier ones."""
    new = pd.concat([measured(run) for run in runs])
    if not file.is_file():
        return new
    old = pd.read_csv(file)
    replaced = old[KEY].apply(tuple, axis=1).isin(new[KEY].apply(tuple, axis=1))
    return pd.concat([old[~replaced], new], ignore_index=True)
