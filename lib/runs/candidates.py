"""Every score that a run could have chosen, as files: one column each, and how well it separates painted lesions."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lib.evidence.metrics import auroc
from lib.files import replacing
from lib.scores.selection import Selection


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
        pd.DataFrame(rows, columns=["method", "epoch", "score", "separation", "own"]).to_csv(out, index=False)


def read_candidates(folder: Path, labels: pd.Series) -> pd.DataFrame:
    """Return a row per candidate of a run's folder: its separation, and its AUROC by `labels`, by test image id.

    `own` marks the candidates that could be chosen. The AUROC is an oracle for looking back; nothing is chosen by it.
    """
    labels = labels[labels.isin(["normal", "abnormal"])]
    scores = pd.read_parquet(folder / "candidates.parquet").set_index("id").loc[labels.index]
    rows = pd.read_csv(folder / "candidates.csv")
    keys = rows["method"] + "|" + rows["epoch"].astype(str) + "|" + rows["score"]
    is_abnormal = (labels == "abnormal").to_numpy()
    return rows.assign(auroc=[auroc(scores[key].to_numpy(), is_abnormal) for key in keys])
