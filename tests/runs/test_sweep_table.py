"""Runs of several settings and seeds in one table."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from lib.runs.archive import StudyError
from lib.runs.cli import study_command
from lib.runs.sweep_table import sweep_table
from tests.runs.small import divided, scored


@pytest.fixture
def folders(tmp_path) -> list[Path]:
    """Two settings with two seeds each, whose scores are random."""
    found = []
    for rate in (0.01, 0.1):
        for seed in (0, 1):
            folder = scored(tmp_path, f"{rate}-{seed}", ["unet", "vae"], learning_rate=rate, seed=seed, threads=seed)
            table = pd.read_parquet(folder / "scores.parquet")
            random = np.random.default_rng([int(100 * rate), seed])
            table["unet"] = random.random(len(table)) + 0.3 * rate * (table["label"] == "abnormal")
            table.to_parquet(folder / "scores.parquet", index=False)
            found.append(folder)
    return found


def auroc(folder: Path, column: str) -> float:
    test = pd.read_parquet(folder / "scores.parquet").query("side == 'test'")
    return roc_auc_score(test["label"] == "abnormal", test[column])


def test_each_setting_has_the_mean_over_its_seeds_and_the_settings_that_differ_are_the_columns(folders):
    table = sweep_table(folders)
    assert table.varied == ["learning_rate"]
    rows = table.rows().query("method == 'unet' and score == 'mean residual'").set_index("learning_rate")
    for rate, of_rate in ((0.01, folders[:2]), (0.1, folders[2:])):
        expected = [auroc(folder, "unet") for folder in of_rate]
        assert rows.loc[rate, ["seed 0", "seed 1"]].tolist() == pytest.approx(expected, abs=1e-4)
        assert rows.loc[rate, "auroc"] == pytest.approx(np.mean(expected))


def test_settings_of_a_method_and_methods_under_equal_settings_are_compared_on_the_same_images(folders):
    found = sweep_table(folders).differences().set_index(["first", "second"])["auroc"]
    first, second = (np.array([auroc(folder, "unet") for folder in pair]) for pair in (folders[:2], folders[2:]))
    vae = np.array([auroc(folder, "vae") for folder in folders[2:]])
    slow, fast = "learning_rate=0.01", "learning_rate=0.1"
    assert found[f"unet ({fast})", f"unet ({slow})"] == pytest.approx((second - first).mean())
    assert found[f"unet ({fast})", f"vae ({fast})"] == pytest.approx((second - vae).mean())
    assert (f"unet ({fast})", f"vae ({slow})") not in found


def test_methods_of_different_runs_are_compared_under_their_first_settings(tmp_path):
    one = scored(tmp_path, "a", ["unet"], learning_rate=0.01)
    other = scored(tmp_path, "b", ["vae"], learning_rate=0.1)
    found = sweep_table([one, other]).differences()
    assert ["unet (learning_rate=0.01)", "vae (learning_rate=0.1)"] in found[["first", "second"]].values.tolist()


def test_the_page_and_the_tables_beside_it_hold_the_same_numbers(folders, tmp_path):
    file = tmp_path / "rates.md"
    assert study_command([str(path) for path in (file, *folders)]) == 0
    rows, page = pd.read_csv(tmp_path / "rates.csv"), file.read_text()
    for row in rows.itertuples():
        assert re.search(rf"`{row.method}` \| {row.score} \| {row.learning_rate} \| {row.auroc:.3f} ", page)
    assert len(pd.read_csv(tmp_path / "rates-differences.csv")) == page.count("\n- *")


def test_runs_on_other_test_images_are_refused_by_name(tmp_path):
    one, other = scored(tmp_path, "a", ["unet"]), scored(tmp_path, "b", ["unet"], split=divided(1), learning_rate=0.1)
    with pytest.raises(StudyError, match="a and b have different test images"):
        sweep_table([one, other])


def test_two_runs_of_the_same_settings_and_seed_are_refused_by_name(tmp_path):
    folders = [scored(tmp_path, name, ["unet"]) for name in ("a", "b")]
    with pytest.raises(StudyError, match="a and b have the method unet, settings and seed in common"):
        sweep_table(folders)
