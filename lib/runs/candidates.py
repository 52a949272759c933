"""Every score that a run could have chosen, as files: one column each, and how well it separates painted lesions."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lib.evidence.metrics import auroc
from lib.files import replacing
from lib.runs.run import RunError, read_table
from lib.scores.selection import Selection

COLUMNS = ["method", "epoch", "score", "separation", "own"]
KINDS = {"method": "O", "epoch": "i", "score": "O", "separation": "fi", "own": "b", "auroc": "fi"}  # of their dtypes
AGAIN = "score the run again"


def write_candidates(
    selected: Mapping[str, Selection], table: pd.DataFrame, sides: Sequence[str], folder: Path
) -> None:
    """Write candidates.parquet, a column per candidate (method, epoch, score), and candidates.csv, a row per candidate.

    The rows of candidates.parquet are the images of `table`, which lists one of the `sides` after the other.
    """
    columns, rows = {key: table[key].to_numpy() for key in ("id", "side")}, []
    for name, selection in selected.items():
        for (epochs, score), by_side in selection.candidates.items():
            columns[f"{name}|{epochs}|{score}"] = np.concatenate([by_side[side] for side in sides])
            separates = selection.criterion[epochs, score]
            own = (epochs, score) in selection.own
            rows.append({"method": name, "epoch": epochs, "score": score, "separation": separates, "own": own})
    with replacing(folder / "candidates.parquet") as out:
        pd.DataFrame(columns).to_parquet(out, index=False)
    with replacing(folder / "candidates.csv") as out:
        pd.DataFrame(rows, columns=COLUMNS).to_csv(out, index=False)


def read_candidates(folder: Path, labels: pd.Series) -> pd.DataFrame:
    """Return a row per candidate of a run's folder: its separation, and its AUROC by `labels`, by test image id.

    `own` marks the candidates that could be chosen. The AUROC is an oracle for looking back; nothing is chosen by it. A
    run that was kept for a study holds it. RunError if a file is missing, damaged, or of other images or candidates.
    """
    rows = _rows(folder / "candidates.csv")
    if "auroc" in rows:
        return rows
    labels = labels[labels.isin(["normal", "abnormal"])]
    keys, is_abnormal = rows["method"] + "|" + rows["epoch"].astype(str) + "|" + rows["score"], labels == "abnormal"
    scores = read_table(folder / "candidates.parquet", AGAIN)
    try:
        scores = scores.set_index("id").loc[labels.index, list(keys)]
    except KeyError as error:
        raise RunError(f"{folder}: candidates.parquet and candidates.csv disagree ({error}); {AGAIN}") from None
    return rows.assign(auroc=[auroc(scores[key].to_numpy(), is_abnormal.to_numpy()) for key in keys])


def _rows(file: Path) -> pd.DataFrame:
    """Return the rows of candidates.csv; RunError unless it is a table of candidates."""
    try:
        rows = pd.read_csv(file)
    except (FileNotFoundError, ValueError) as error:  # missing, not UTF-8, empty
        raise RunError(f"{file} cannot be read ({error}); {AGAIN}") from None
    if missing := [name for name in COLUMNS if name not in rows]:
        raise RunError(f"{file} is no table of candidates, without the column {missing[0]!r}; {AGAIN}")
    if wrong := [name for name in rows if len(rows) and rows[name].dtype.kind not in KINDS.get(name, "")]:
        raise RunError(f"{file} is no table of candidates, with {rows[wrong[0]].iloc[0]!r} as {wrong[0]!r}; {AGAIN}")
    return rows
