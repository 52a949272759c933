"""Promises of `lib.runs.tracking`: the tracker holds what the run folder holds, offline, and only on request."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import wandb
from matplotlib.figure import Figure

from lib.runs.run import Run
from lib.runs.tracking import finish, open_tracker
from tests.runs.small import HISTORY, params


def started(base: Path, **changes):
    run = Run.start(params(run_dir="a", **changes), base)
    return run, open_tracker(run.params, run.folder)


def wandb_history(folder: Path) -> list[dict]:
    """The rows of each wandb file below `folder`, as its own command line prints them."""
    program = Path(sys.executable).with_name("wandb")
    found = []
    for file in sorted(folder.rglob("run-*.wandb")):
        shown = subprocess.run([program, "leet", "inspect", "--json", file], capture_output=True, text=True, check=True)
        lines = [json.loads(line) for line in shown.stdout.splitlines()]
        found += [line["history"]["item"] for line in lines if line["type"] == "history"]
    return [{key: value for key, value in row.items() if not key.startswith("_")} for row in found]


def test_the_tracker_holds_the_history_of_each_method_once(tmp_path):
    run, tracker = started(tmp_path, tracking="wandb", methods=["unet", "ra"])
    tracker.log("unet", HISTORY[:1])
    tracker.log("unet", HISTORY)
    tracker.log("ra", HISTORY)
    finish(run, tracker)
    expected = [{f"{name}/{key}": value for key, value in row.items()} for name in ("unet", "ra") for row in HISTORY]
    sent = wandb_history(run.folder)
    assert len(sent) == len(expected) == 4
    for mine, theirs in zip(expected, sent, strict=True):
        assert theirs == pytest.approx(mine)


def test_a_figure_reaches_the_tracker_once_and_again_if_it_is_drawn_again(tmp_path):
    run, tracker = started(tmp_path, tracking="wandb")
    run.save_figure(Figure(figsize=(2, 1)), "first")
    tracker.figures(run.folder / "figures")
    tracker.figures(run.folder / "figures")
    run.save_figure(Figure(figsize=(2, 1)), "first")
    run.save_figure(Figure(figsize=(2, 1)), "second")
    finish(run, tracker)
    run.save_figure(Figure(figsize=(2, 1)), "later")  # of a chapter below the one that finishes the run
    keys = [key for row in wandb_history(run.folder) for key in row if not key.rpartition(".")[2].startswith("_")]
    for name, times in {"first": 2, "second": 1, "later": 0}.items():
        assert len([row for row in wandb_history(run.folder) if any(name in key for key in row)]) == times, keys


def test_without_tracking_nothing_of_the_tracker_is_written(tmp_path):
    run, tracker = started(tmp_path)
    tracker.log("unet", HISTORY)
    run.save_figure(Figure(figsize=(2, 1)), "empty")
    tracker.figures(run.folder / "figures")
    tracker.summarise({"unet/auroc": 0.5})
    finish(run, tracker)
    files = {str(file.relative_to(run.folder)) for file in run.folder.rglob("*") if file.is_file()}
    assert files == {".lock", "params.json", "status.json", "figures/empty.png", "figures/empty.svg"}


def test_a_tracker_that_is_opened_while_another_is_open_is_its_own(tmp_path):
    """As in a notebook whose parameters cell is changed and run again."""
    try:
        for epoch, (name, tracking) in enumerate([("a", "wandb"), ("b", "wandb"), ("c", "off")]):
            run = Run.start(params(run_dir=name, tracking=tracking), tmp_path)
            tracker = open_tracker(run.params, run.folder)
            tracker.log("unet", [{"epoch": epoch}])
        assert wandb.run is None
        finish(run, tracker)
    finally:
        wandb.finish()
    epochs = {name: [row["unet/epoch"] for row in wandb_history(tmp_path / name)] for name in "abc"}
    assert epochs == {"a": [0], "b": [1], "c": []}


def test_tracking_that_should_be_online_stays_offline_without_a_key_and_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    run, tracker = started(tmp_path, tracking="wandb")
    finish(run, tracker)
    assert "no WANDB_API_KEY, in the environment or Colab's secrets: tracking stays offline" in capsys.readouterr().err
    assert list(run.folder.rglob("offline-run-*"))
