"""The candidates of model selection on disk: they are read back as written, with the AUROC by the labels."""

import numpy as np
import pandas as pd
import pytest

from lib.runs.candidates import read_candidates, write_candidates
from lib.scores.selection import Selection

SIDES = ["reference", "validation", "test"]
SIZES = {"reference": 8, "validation": 5, "test": 9}


@pytest.fixture
def selected() -> Selection:
    """Two scores of two epochs, with few values, so that there are ties."""
    random = np.random.default_rng(0)
    keys = [(epochs, score) for epochs in (2, 5) for score in ("residual, mean", "ssim, p99")]
    candidates = {key: {side: random.integers(0, 6, n).astype(float) for side, n in SIZES.items()} for key in keys}
    return Selection({}, candidates, dict(zip(keys, random.random(4), strict=True)), keys[1:], {}, {})


def won(normal: np.ndarray, abnormal: np.ndarray) -> float:
    """The AUROC, by counting pairs."""
    pairs = abnormal[:, None] - normal
    return float(np.mean((pairs > 0) + 0.5 * (pairs == 0)))


@pytest.fixture
def table() -> pd.DataFrame:
    side = np.repeat(SIDES, [SIZES[side] for side in SIDES])
    return pd.DataFrame({"id": [f"i{i}" for i in range(len(side))], "side": side, "label": "normal"})


def test_candidates_are_read_as_written_with_the_auroc_by_the_labels(selected, table, tmp_path):
    write_candidates({"blur": selected, "again": selected}, table, SIDES, tmp_path)
    labels = table.set_index("id")["label"][-9:].copy()
    labels.iloc[5:] = "abnormal"
    labels.iloc[[0, 7]] = "", "other_abnormal"  # neither of the two: not counted
    found = read_candidates(tmp_path, labels.sample(frac=1, random_state=0))
    assert found["method"].value_counts().to_dict() == dict.fromkeys(("blur", "again"), len(selected.candidates))
    for row in found.itertuples():
        scores = selected.candidates[row.epoch, row.score]["test"]
        assert row.separation == pytest.approx(selected.criterion[row.epoch, row.score])
        assert row.auroc == pytest.approx(won(scores[1:5], scores[[5, 6, 8]])), row


def test_the_file_holds_every_image_of_the_table_in_its_order(selected, table, tmp_path):
    table.index = table.index + 100  # the rows of a larger table
    write_candidates({"blur": selected}, table, SIDES, tmp_path)
    found = pd.read_parquet(tmp_path / "candidates.parquet")
    assert found[["id", "side"]].equals(table[["id", "side"]].reset_index(drop=True))
    assert found.shape[1] == 2 + len(selected.candidates)
    for (epochs, score), by_side in selected.candidates.items():
        for side in SIDES:
            np.testing.assert_array_equal(found.loc[found["side"] == side, f"blur|{epochs}|{score}"], by_side[side])


def test_a_table_of_other_images_than_were_scored_is_refused(selected, table, tmp_path):
    with pytest.raises(ValueError, match="same length"):
        write_candidates({"blur": selected}, table[:-1], SIDES, tmp_path)
    assert not any(tmp_path.iterdir())


def test_without_a_method_there_is_no_candidate(table, tmp_path):
    write_candidates({}, table, SIDES, tmp_path)
    found = read_candidates(tmp_path, table.set_index("id")["label"][-9:])
    assert found.empty and list(found) == ["method", "epoch", "score", "separation", "own", "auroc"]
