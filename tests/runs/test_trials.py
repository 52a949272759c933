"""The table of trials: one row for each measurement, the rows of earlier sessions kept."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from small import params

from lib.evidence.marks import Redrawn, Yardstick
from lib.runs.cli import study_command
from lib.runs.run import Run
from lib.runs.trials import add_trials

ROOT = Path(__file__).resolve().parents[2]
GOOD = {"residual": 0.05, "detail": 0.5, "copied": 0.2, "kl_real": 10.0, "kl_reconstruction": 30.0, "kl_sample": 20.0}


def trial(folder, name: str, residual: float = 0.05, **changes) -> Run:
    run = Run.start(params(methods=["ra"], run_dir=name, epochs=3, **changes), folder)
    entry = {"epoch": 0, "encoder/rejection": 0.1, "images_seen": 40, "cpu_seconds": 90.0}
    health = {f"health/{key}": value for key, value in (GOOD | {"residual": residual}).items()}
    later = [entry | health | {"epoch": epoch, "images_seen": 40 * (epoch + 1)} for epoch in (1, 2)]
    run.log("ra", [entry, *later])
    run.write_yardstick(Yardstick(floor=None, components={16: Redrawn(residual=0.06, detail=0.3)}))
    return run


def test_a_measurement_is_a_row_with_the_settings_that_shape_the_training(tmp_path):
    table = add_trials(tmp_path / "none.csv", [trial(tmp_path, "trial-a", seed=3, ra_beta_kl=0.4, choose_from=[1])])
    assert table["images_seen"].tolist() == [80, 120]
    row = table.iloc[0]
    assert (row["trial"], row["method"], row["data"], row["seed"]) == ("trial-a", "ra", "data", 3)
    settings = dict(setting.split("=") for setting in row["settings"].split("; "))
    assert settings["ra_beta_kl"] == "0.4" and not {"seed", "epochs", "methods", "choose_from"} & settings.keys()
    assert (row["cpu_minutes"], row["residual"], row["kl_sample"], row["lacks"]) == (1.5, 0.05, 20, 0)
    assert row["components_residual"] == 0.06


def test_the_marks_that_are_missed_are_counted(tmp_path):
    assert add_trials(tmp_path / "none.csv", [trial(tmp_path, "trial-a", residual=0.07)])["lacks"].tolist() == [1, 1]


def test_the_command_adds_trials_and_replaces_those_of_the_same_name(tmp_path):
    file = tmp_path / "trials.csv"
    first, second = trial(tmp_path, "trial-a"), trial(tmp_path, "trial-b", residual=0.07)
    assert study_command([str(file), str(first.folder)]) == study_command([str(file), str(second.folder)]) == 0
    again = trial(tmp_path / "later", "trial-a", residual=0.04)
    assert study_command([str(file), str(again.folder)]) == 0
    table = pd.read_csv(file)
    assert table.groupby("trial")["residual"].unique().map(list).to_dict() == {"trial-a": [0.04], "trial-b": [0.07]}


@pytest.mark.parametrize("name", ["01", "NA", "1e3", "=1+1", "-a", "'b"])
def test_a_trial_keeps_its_name_whatever_it_looks_like_and_its_rows_are_replaced(tmp_path, name):
    file, run = tmp_path / "trials.csv", trial(tmp_path, name)
    assert study_command([str(file), str(run.folder)]) == 0
    written = file.read_bytes()
    assert study_command([str(file), str(run.folder)]) == 0
    assert file.read_bytes() == written
    safe = f"'{name}" if name in ("=1+1", "-a") else name  # or a spreadsheet takes it for a formula
    assert pd.read_csv(file, dtype=str, keep_default_na=False)["trial"].tolist() == [safe, safe]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"a,b\n1,2\n", b"trial,method\nx,ra\n", b"{}\n[]\n"])
def test_a_file_that_is_no_table_of_trials_is_refused_and_kept(tmp_path, capsys, content):
    file = tmp_path / "trials.csv"
    file.write_bytes(content)
    assert study_command([str(file), str(trial(tmp_path, "trial-a").folder)]) == 2
    found = capsys.readouterr().err
    assert found.startswith(str(file)) and found.count("\n") == 1
    assert file.read_bytes() == content


def test_the_tracked_table_comes_out_as_it_is(tmp_path):
    file = Path(shutil.copy(ROOT / "research/results/trials.csv", tmp_path))
    before = file.read_bytes()
    assert study_command([str(file), str(trial(tmp_path, "trial-a").folder)]) == 0
    assert file.read_bytes().startswith(before)


@pytest.mark.parametrize(
    ("file", "todo"),
    [("metrics.jsonl", "has measured no method: train it first"), ("yardstick.json", "train it again")],
)
def test_a_run_without_measurements_or_their_yardstick_is_refused_with_what_to_do(tmp_path, capsys, file, todo):
    run = trial(tmp_path, "trial-a")
    (run.folder / file).unlink()
    assert study_command([str(tmp_path / "trials.csv"), str(run.folder)]) == 2
    assert todo in capsys.readouterr().err


def test_the_yardstick_is_read_as_it_was_written(tmp_path):
    run = trial(tmp_path, "trial-a")
    assert json.loads((run.folder / "yardstick.json").read_text())["components"]["16"]["residual"] == 0.06
    assert run.yardstick().components[16].residual == pytest.approx(0.06)
