"""Promises of `lib.runs.sweep`: many runs, of which none ends another, and none that is finished is repeated.

Runs are stood in for by short commands, but for one that is real.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

from lib.params import Params
from lib.runs import cli, sweep
from lib.runs.run import Run
from lib.runs.sweep import Engine, SweepError, claimed, sweep_over
from tests.runs.small import divided, scored

WORKS = """
import pathlib, sys
folder, fails = pathlib.Path(sys.argv[1]), sys.argv[2]
folder.mkdir(exist_ok=True)
with open(folder / "times", "a") as file: file.write("x")
if fails == "yes": sys.exit("no such luck")
(folder / "results.json").write_text("{}")
"""


@pytest.fixture
def runs(monkeypatch):
    """Return three runs of which the second fails, as a short command stands in for each."""

    def call(task, base, notebook):
        fails = "yes" if task.params.seed == 1 else "no"
        return (
            [[sys.executable, "-c", WORKS, str(task.folder), fails]],
            str(task.file.with_suffix(".log")),
            str(base),
            {},
        )

    monkeypatch.setattr(sweep, "_call", call)
    monkeypatch.setattr(sweep, "compare", lambda runs, file: None)  # what these commands leave is not evaluated
    return {f"seed={seed}": Params(seed=seed, device="cpu") for seed in range(3)}


def times(folder: Path) -> dict[str, int]:
    return {file.parent.name: len(file.read_text()) for file in folder.glob("*/times")}


def test_a_run_that_fails_stops_no_other_and_is_named_with_its_reason_and_its_command(tmp_path, runs, capsys):
    assert sweep_over(runs, tmp_path, tmp_path, Engine(), notebook=True) == 1
    said = capsys.readouterr()
    assert times(tmp_path) == {"seed=0": 1, "seed=1": 1, "seed=2": 1}
    assert "seed=1 failed: no such luck" in said.err
    assert f"imgae-run {tmp_path / 'params' / 'seed=1.yaml'}" in said.err
    assert "2 of 3 runs" in said.out


def test_a_second_call_repeats_no_finished_run_unless_its_settings_have_changed(tmp_path, runs):
    sweep_over(runs, tmp_path, tmp_path, Engine(), notebook=True)
    changed = runs | {"seed=2": runs["seed=2"].model_copy(update={"epochs": 99})}
    sweep_over(changed, tmp_path, tmp_path, Engine(workers=1), notebook=True)
    assert times(tmp_path) == {"seed=0": 1, "seed=1": 2, "seed=2": 2}


def test_runs_that_were_finished_by_another_call_are_kept_in_the_journal(tmp_path, runs):
    sweep_over({"seed=0": runs["seed=0"]}, tmp_path, tmp_path, Engine(), notebook=True)
    sweep_over({"seed=2": runs["seed=2"]}, tmp_path, tmp_path, Engine(), notebook=True)
    sweep_over(runs, tmp_path, tmp_path, Engine(), notebook=True)
    assert times(tmp_path) == {"seed=0": 1, "seed=1": 1, "seed=2": 1}


def test_two_sweeps_do_not_work_in_one_folder(tmp_path, runs):
    with claimed(tmp_path), pytest.raises(SweepError, match="another sweep works in"):
        sweep_over(runs, tmp_path, tmp_path, Engine(), notebook=True)


def test_cores_are_shared_among_the_workers(tmp_path, runs, monkeypatch):
    monkeypatch.setattr(sweep.joblib, "cpu_count", lambda: 8)
    sweep_over(runs, tmp_path, tmp_path, Engine(workers=2), notebook=True)
    files = [yaml.safe_load(file.read_text()) for file in (tmp_path / "params").glob("*.yaml")]
    assert [settings["threads"] for settings in files] == [4, 4, 4]


def test_a_dask_cluster_on_this_machine_executes_the_same_runs(tmp_path, runs):
    pytest.importorskip("distributed")
    assert sweep_over(runs, tmp_path, tmp_path, Engine("dask"), notebook=True) == 1
    assert times(tmp_path) == {"seed=0": 1, "seed=1": 1, "seed=2": 1}


def test_runs_that_make_no_table_are_finished_all_the_same_and_the_reason_is_said(tmp_path, capsys):
    folders = [scored(tmp_path, "a", ["unet"]), scored(tmp_path, "b", ["unet"], split=divided(1), learning_rate=0.1)]
    sweep.compare(folders, tmp_path / "sweep.md")
    assert "no table of all runs: a and b have different test images" in capsys.readouterr().err
    assert not (tmp_path / "sweep.md").exists()


SLEEPS = """
import sys
from pathlib import Path
from lib.params import Params
from lib.runs import sweep
command = [sys.executable, "-c", "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"]
folder = Path(sys.argv[1])
sweep._call = lambda task, base, notebook: ([[*command, str(folder / "pid")]], str(task.file) + ".log", str(base), {})
sweep.sweep_over({"run": Params(device="cpu")}, folder, folder, sweep.Engine(), notebook=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_a_sweep_that_is_killed_leaves_no_run_behind(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", SLEEPS, str(tmp_path)], stderr=subprocess.DEVNULL)
    while not (tmp_path / "pid").is_file() or not (pid := (tmp_path / "pid").read_text()):
        assert process.poll() is None
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists():
            return
        time.sleep(0.1)
    raise AssertionError("the run still works")


def test_a_real_run_of_a_sweep_leaves_what_the_commands_leave(tmp_path, capsys):
    tiny = {"methods": ["unet"], "references": [], "backbone": "none", "phantom_images": 40, "image_size": 32}
    tiny |= {"widths": [4, 8], "epochs": 1, "batch_size": 4, "resamples": 100, "precision": "float32", "device": "cpu"}
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(tiny))
    assert cli.sweep([str(file), "--set", "seed=4", "threads=1", "--no-notebook", "--to", str(tmp_path / "sweep")]) == 0
    capsys.readouterr()
    assert cli.train([str(file), "--set", "seed=4", "threads=1", f"run_dir={tmp_path / 'alone'}"]) == 0
    assert cli.evaluate([str(tmp_path / "alone")]) == 0
    swept, alone = Run.open(tmp_path / "sweep" / "run"), Run.open(tmp_path / "alone")
    pd.testing.assert_frame_equal(swept.scores(), alone.scores())
    assert (
        f"{alone.results().evaluation.methods['unet'].auroc.value:.3f} [" in (tmp_path / "sweep/sweep.md").read_text()
    )
    assert json.loads((swept.folder / "status.json").read_text())["status"] == "ok"


def test_a_setting_that_names_the_folders_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli.sweep([str(tmp_path / "x.yaml"), "--set", "run_dir=here"])
    assert "give --to" in capsys.readouterr().err
