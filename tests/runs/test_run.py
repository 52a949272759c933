"""Promises of `lib.runs.run`: what a run's folder holds at each moment."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from lib.runs.run import Run, RunError
from tests.runs.small import HISTORY, divided, finished, params


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def status(folder: Path) -> dict:
    return json.loads((folder / "status.json").read_text())


def test_a_started_run_has_left_its_settings_and_is_running(tmp_path):
    run = Run.start(params(run_dir="runs/a"), tmp_path)
    assert run.folder == (tmp_path / "runs" / "a").resolve()
    assert json.loads((run.folder / "params.json").read_text()) == run.params.model_dump()
    assert status(run.folder)["status"] == "running"
    run.finish()
    assert (status(run.folder)["status"], status(run.folder)["why"]) == ("ok", "")


def test_a_failed_run_says_why(tmp_path):
    run = Run.start(params(run_dir="a"), tmp_path)
    run.mark("failed", "Diverged: lower learning_rate")
    assert status(run.folder) | {"at": ""} == {"status": "failed", "why": "Diverged: lower learning_rate", "at": ""}


def test_a_run_is_opened_with_the_settings_that_it_left(tmp_path):
    started = Run.start(params(run_dir="a", seed=7), tmp_path)
    opened = Run.open(tmp_path / "a")
    assert (opened.params, opened.folder) == (started.params, started.folder)


def test_a_folder_that_no_run_has_left_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"is not a run folder: it has no params\.json"):
        Run.open(tmp_path)


def test_metrics_hold_the_history_and_the_other_methods_rows(tmp_path):
    run = Run.start(params(run_dir="a"), tmp_path)
    run.log("unet", HISTORY[:1])
    run.log("ra", HISTORY)
    run.log("unet", HISTORY)
    assert [row for row in rows(run.folder) if row["method"] == "unet"] == [{"method": "unet", **r} for r in HISTORY]
    assert [row for row in rows(run.folder) if row["method"] == "ra"] == [{"method": "ra", **r} for r in HISTORY]
    assert len(rows(run.folder)) == 4
    assert run.history("ra") == HISTORY


def test_a_run_that_is_not_scored_is_told_how(tmp_path):
    run = Run.start(params(run_dir="a"), tmp_path)
    with pytest.raises(RunError, match=r"has no results\.json yet: score it first \(imgae-evaluate"):
        run.results()
    with pytest.raises(RunError, match=r"has no scores\.parquet yet"):
        run.scores()


def test_results_and_scores_are_read_back_as_they_were_written(tmp_path):
    run = finished(tmp_path, "a", ["unet"])
    opened = Run.open(run.folder)
    assert opened.results() == run.results() == run.write_results(run.results())
    table = opened.scores()
    run.write_scores(table)
    pd.testing.assert_frame_equal(opened.scores(), table)


@pytest.mark.parametrize("content", ['{"accuracy": 1}', '{"version": 1, "split": "x"}'])
def test_results_of_an_older_version_are_refused_with_what_to_do(tmp_path, content):
    run = finished(tmp_path, "a", ["unet"])
    (run.folder / "results.json").write_text(content)
    with pytest.raises(RunError, match=r"was written by an older version: run `imgae-evaluate .*a` to write it again"):
        run.results()


def test_weights_that_saw_another_split_are_refused_and_the_split_stays(tmp_path):
    run = finished(tmp_path, "a", ["unet"])
    run.write_split(divided(seed=1))  # no weights: nothing rests on the split
    run.checkpoint("unet").parent.mkdir()
    run.checkpoint("unet").write_bytes(b"weights")
    with pytest.raises(RunError, match="was trained on split"):
        run.write_split(divided())
    assert json.loads((run.folder / "split.json").read_text())["hash"] == divided(seed=1).hash


def test_fewer_epochs_than_a_finished_run_has_are_refused_and_it_stays_finished(tmp_path):
    run = finished(tmp_path, "r", ["ra"], epochs=4)
    run.checkpoint("ra").parent.mkdir()
    run.checkpoint("ra").write_bytes(b"weights")
    with pytest.raises(RunError, match="epochs: 4 saved, 2 now; the number can only rise"):
        Run.start(params(methods=["ra"], run_dir="r", epochs=2), tmp_path)
    assert status(run.folder)["status"] == "ok"
    assert json.loads((run.folder / "params.json").read_text())["epochs"] == 4


def test_a_figure_is_saved_as_png_and_given_back(tmp_path):
    run = Run.start(params(run_dir="a"), tmp_path)
    figure = Figure(figsize=(2, 1))
    figure.add_subplot().plot([0, 1])
    assert run.save_figure(figure, "line") is figure
    with Image.open(run.folder / "figures" / "line.png") as image:
        assert image.format == "PNG"
        assert min(image.size) > 50
    svg = (run.folder / "figures" / "line.svg").read_text()
    assert "<svg" in svg and "<image" not in svg
    run.save_figure(figure, "line")
    assert (run.folder / "figures" / "line.svg").read_text() == svg
    assert sorted(file.name for file in (run.folder / "figures").iterdir()) == ["line.png", "line.svg"]


def test_a_figure_of_pictures_is_saved_without_vectors(tmp_path):
    run = Run.start(params(run_dir="a"), tmp_path)
    figure = Figure(figsize=(2, 1))
    figure.add_subplot().imshow([[0, 1]])
    run.save_figure(figure, "image")
    assert [file.name for file in (run.folder / "figures").iterdir()] == ["image.png"]


def test_an_opened_run_can_be_finished(tmp_path):
    Run.start(params(run_dir="a"), tmp_path)
    with Run.open(tmp_path / "a") as opened:
        opened.log("unet", HISTORY)
        opened.finish()
    assert status(opened.folder)["status"] == "ok"
    assert len(rows(opened.folder)) == 2


def test_damaged_results_are_refused_with_what_makes_them_again(tmp_path):
    run = Run.start(params(run_dir="a"), tmp_path)
    (run.folder / "results.json").write_text('{"version": ')
    with pytest.raises(RunError, match=r"results\.json is damaged .*imgae-evaluate .* makes it again"):
        run.results()


@pytest.mark.parametrize("content", [b"", b"\x00\xff", b"[]", b'{"version": '])
@pytest.mark.parametrize(
    "name", ["params.json", "split.json", "metrics.jsonl", "yardstick.json", "results.json", "status.json"]
)
def test_a_damaged_file_is_named_with_what_to_do(tmp_path, name, content):
    run = finished(tmp_path, "a", ["unet"])
    run.checkpoint("unet").parent.mkdir()
    run.checkpoint("unet").write_bytes(b"weights")
    (run.folder / name).write_bytes(content)
    read = {
        "params.json": lambda: (Run.open(run.folder), Run.start(run.params, tmp_path)),
        "split.json": lambda: run.write_split(divided()),
        "metrics.jsonl": lambda: run.history("unet"),
        "yardstick.json": run.yardstick,
        "results.json": run.results,
        "status.json": run.status,
    }[name]
    if name == "status.json":
        assert read() == "unknown"
    elif name == "metrics.jsonl" and not content:
        assert read() == []
    else:
        with pytest.raises(RunError, match=rf"{re.escape(name)} is damaged \(.*: .*(again|anew)"):
            read()


def test_a_history_that_is_written_replaces_damaged_metrics_and_says_so(tmp_path, capsys):
    run = Run.start(params(run_dir="a"), tmp_path)
    (run.folder / "metrics.jsonl").write_text('{"method": ')
    run.log("unet", HISTORY)
    assert run.history("unet") == HISTORY
    assert "metrics.jsonl is damaged" in capsys.readouterr().err
