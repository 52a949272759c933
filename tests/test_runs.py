"""Promises of `lib.runs`: what a run's folder holds at each moment, and which runs are compared."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import wandb
from matplotlib.figure import Figure
from PIL import Image

from lib.comparison import comparable, evaluate
from lib.dataset import Sides, Split, reference_half, split_records
from lib.params import Params
from lib.runs import Budget, Run, RunError
from lib.training import CheckpointError
from lib.unet import UNetAutoencoder

SMALL = {
    "methods": ["unet"],
    "source": "folder",
    "data_dir": "data",
    "image_size": 16,
    "widths": [4],
    "batch_size": 8,
    "epochs": 1,
    "ra_warmup_epochs": 0,
    "precision": "float32",
    "device": "cpu",
    "resamples": 100,
}
HISTORY = [{"epoch": 0, "network/total": 0.5, "seconds": 1.25}, {"epoch": 1, "network/total": 0.1 + 0.2, "seconds": 2}]
SIZE = 16


def params(**changes) -> Params:
    return Params(**SMALL | changes)


def records(**columns) -> pd.DataFrame:
    names = [f"image-{i}" for i in range(80)]
    kind = ["abnormal" if i % 4 == 3 else "normal" for i in range(80)]
    table = {"id": names, "label": kind, "finding": "", "split": "", "patient": names, "digest": names, "twin": names}
    return pd.DataFrame(table | columns)


def divided(seed: int = 0, **columns) -> Split:
    return split_records(records(**columns), validation_fraction=0.2, seed=seed)


def images(split: Split) -> Sides:
    rng = np.random.default_rng(0)
    shapes = [(len(side), SIZE, SIZE) for side in (split.train, split.validation, split.test)]
    return Sides(*(rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes))


def scored(base: Path, name: str, methods: list[str], split: Split | None = None, seen: int = 640, **changes) -> Run:
    """A finished run with made-up scores: each method's depend on the run's name."""
    split = split or divided()
    run = Run.start(params(methods=methods, run_dir=name, **changes), base)
    rng = np.random.default_rng(sum(map(ord, name)))
    half = reference_half(split.validation)
    sides = {"reference": half.sum(), "validation": (~half).sum(), "test": len(split.test)}
    scores = {method: {side: rng.random(n) for side, n in sides.items()} for method in methods}
    budgets = {method: Budget(10, seen, 20, 30, 1.5) for method in methods}
    run.write_scores(split, scores, budgets, synthetic=False)
    run.finish()
    return run


def older(run: Run, seconds: float) -> None:
    """Let the run's results have been written so long ago."""
    file = run.folder / "results.json"
    os.utime(file, (file.stat().st_mtime - seconds,) * 2)


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


def test_metrics_equal_the_history_also_after_a_resume(tmp_path):
    split = divided()
    sides = images(split)
    first = Run.start(params(run_dir="a", epochs=1), tmp_path)
    first.log("ra", HISTORY)
    first.train("unet", UNetAutoencoder([4]), split, sides)
    first.finish()
    second = Run.start(params(run_dir="a", epochs=3), tmp_path)
    history = second.train("unet", UNetAutoencoder([4]), split, sides)
    second.finish()
    assert [row["epoch"] for row in history] == [0, 1, 2]
    assert [row for row in rows(second.folder) if row["method"] == "unet"] == [{"method": "unet", **r} for r in history]
    assert len(rows(second.folder)) == 5


def test_a_trained_method_is_loaded_again_with_its_history_and_budget(tmp_path):
    split = divided()
    run = Run.start(params(run_dir="a", epochs=2), tmp_path)
    trained = UNetAutoencoder([4])
    history = run.train("unet", trained, split, images(split))
    run.finish()
    loaded = UNetAutoencoder([4])
    assert Run.open(run.folder).load("unet", loaded) == history
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), trained.parameters(), strict=True))
    budget = run.budget(loaded, history)
    batches = len(split.train) // 8
    assert budget.images_seen == 2 * batches * 8
    assert budget.steps == 2 * batches
    assert budget.parameters == sum(p.numel() for p in loaded.parameters())
    assert budget.multiply_adds % budget.images_seen == 0
    assert budget.seconds >= 0


def test_a_method_that_was_not_trained_is_named(tmp_path):
    run = Run.start(params(run_dir="a"), tmp_path)
    with pytest.raises(RunError, match=r"has no trained unet: .*unet\.pt is not there; train it first"):
        run.load("unet", UNetAutoencoder([4]))


def test_other_settings_in_a_finished_folder_are_refused_and_its_record_is_kept(tmp_path):
    split = divided()
    run = Run.start(params(run_dir="a"), tmp_path)
    run.train("unet", UNetAutoencoder([4]), split, images(split))
    run.finish()
    before = (run.folder / "params.json").read_text()
    with pytest.raises((RunError, CheckpointError), match="learning_rate"):
        again = Run.start(params(run_dir="a", learning_rate=0.01), tmp_path)
        again.train("unet", UNetAutoencoder([4]), split, images(split))
    assert (run.folder / "params.json").read_text() == before


def test_scores_have_one_row_an_image_beside_its_record(tmp_path):
    split = divided(patient=["" if i % 2 else f"p{i}" for i in range(80)])
    run = scored(tmp_path, "a", ["unet", "ra"], split)
    table = pd.read_parquet(run.folder / "scores.parquet")
    half = reference_half(split.validation)
    halves = {"reference": split.validation["id"][half], "validation": split.validation["id"][~half]}
    for side, ids in (halves | {"test": split.test["id"]}).items():
        assert table["id"][table["side"] == side].tolist() == ids.tolist()
    assert (table["patient"] != "").all()
    unknown = table["patient"][table["patient"].str.startswith("image ")]
    assert unknown.is_unique  # no patient in common is claimed
    assert np.isfinite(table[["unet", "ra"]].to_numpy()).all()
    assert json.loads((run.folder / "split.json").read_text()) == split.manifest


def test_results_say_what_others_need_to_compare(tmp_path):
    run = scored(tmp_path, "a", ["unet"])
    results = run.results()
    assert results["split"] == divided().hash
    assert (results["image_size"], results["synthetic"]) == (16, False)
    assert results["methods"]["unet"]["run"] == "a"
    assert results["methods"]["unet"]["budget"]["images_seen"] == 640


def test_a_run_that_is_not_scored_is_told_how(tmp_path):
    run = Run.start(params(run_dir="a"), tmp_path)
    with pytest.raises(RunError, match=r"has no results\.json yet: score it first \(imgae-evaluate"):
        run.results()


def test_the_second_run_finds_the_first(tmp_path):
    first, second = scored(tmp_path, "runs/u", ["unet"]), scored(tmp_path, "runs/r", ["ra"])
    table, found = comparable(second)
    assert found[["method", "run", "used"]].to_dict("records") == [
        {"method": "ra", "run": "r", "used": True},
        {"method": "unet", "run": "u", "used": True},
    ]
    theirs = pd.read_parquet(first.folder / "scores.parquet").set_index("id")["unet"]
    assert table.set_index("id")["unet"].equals(theirs.loc[table["id"]])
    assert list(second.results()["methods"]) == ["unet", "ra"]  # a difference has one sign, whichever ran last
    assert second.results()["methods"]["unet"]["run"] == "u"
    assert evaluate(second, table)["evaluation"]["differences"][0]["second"] == "ra"


@pytest.mark.parametrize("difference", ["split", "image_size", "images_seen", "unfinished", "elsewhere"])
def test_a_run_on_other_terms_is_not_compared(tmp_path, difference):
    changes = {
        "split": {"split": divided(seed=1)},
        "image_size": {"image_size": 32},
        "images_seen": {"seen": 320},
    }.get(difference, {})
    other = scored(tmp_path, "else/u" if difference == "elsewhere" else "runs/u", ["unet"], **changes)
    if difference == "unfinished":
        (other.folder / "results.json").unlink()
    table, found = comparable(scored(tmp_path, "runs/r", ["ra"]))
    assert found["method"].tolist() == ["ra"]
    assert "unet" not in table


def test_of_two_runs_with_one_method_the_newest_is_used(tmp_path):
    new, old = scored(tmp_path, "a-new", ["unet"]), scored(tmp_path, "b-old", ["unet"])
    older(old, 60)
    table, found = comparable(scored(tmp_path, "r", ["ra"]))
    assert found[["method", "run", "used"]][found["method"] == "unet"].to_dict("records") == [
        {"method": "unet", "run": "a-new", "used": True},
        {"method": "unet", "run": "b-old", "used": False},
    ]
    assert table["unet"].tolist() == pd.read_parquet(new.folder / "scores.parquet")["unet"].tolist()


def test_ones_own_method_is_never_replaced_by_a_newer_one(tmp_path):
    run = scored(tmp_path, "mine", ["ra"])
    scored(tmp_path, "newer", ["ra"])
    table, found = comparable(run)
    assert table["ra"].tolist() == pd.read_parquet(run.folder / "scores.parquet")["ra"].tolist()
    assert found["used"].tolist() == [True, False]


def test_a_method_that_a_run_has_only_copied_is_not_handed_on(tmp_path):
    original = scored(tmp_path, "u", ["unet"])
    copier = scored(tmp_path, "r", ["ra"])
    comparable(copier)
    shutil.rmtree(original.folder)
    table, found = comparable(scored(tmp_path, "other", ["ra"]))
    assert "unet" not in table
    assert found["method"].tolist() == ["ra", "ra"]


def test_comparing_again_gives_the_same_again(tmp_path):
    scored(tmp_path, "u", ["unet"])
    run = scored(tmp_path, "r", ["ra"])
    table, found = comparable(run)
    again, found_again = comparable(run)
    pd.testing.assert_frame_equal(again, table)
    pd.testing.assert_frame_equal(found_again, found)


def test_comparing_again_finds_a_run_that_has_come_since(tmp_path):
    older(scored(tmp_path, "old", ["unet"]), 60)
    run = scored(tmp_path, "r", ["ra"])
    comparable(run)
    scored(tmp_path, "new", ["unet"])
    _, found = comparable(run)
    assert found[found["used"]]["run"].tolist() == ["r", "new"]


def test_a_run_without_methods_compares_runs_of_one_budget_only(tmp_path):
    older(scored(tmp_path, "u", ["unet"], seen=320), 60)
    scored(tmp_path, "r", ["ra"], seen=640)
    run = scored(tmp_path, "compare", [])
    comparable(run)
    assert len({entry["budget"]["images_seen"] for entry in run.results()["methods"].values()}) == 1


def test_a_run_without_methods_compares_two_equal_ones(tmp_path):
    scored(tmp_path, "u", ["unet"])
    scored(tmp_path, "r", ["ra"])
    run = scored(tmp_path, "compare", [])
    table, _ = comparable(run)
    assert set(evaluate(run, table)["evaluation"]["methods"]) == {"unet", "ra"}


def test_a_foreign_results_file_beside_is_named_and_passed_over(tmp_path):
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "results.json").write_text('{"accuracy": 1}')
    _, found = comparable(scored(tmp_path, "r", ["ra"]))
    assert found[["run", "used"]].to_numpy().tolist() == [["r", True], ["foreign", False]]
    assert found["remark"][1].startswith("cannot be read: ")


def test_a_run_without_its_scores_is_named_and_passed_over(tmp_path):
    (scored(tmp_path, "u", ["unet"]).folder / "scores.parquet").unlink()
    table, found = comparable(scored(tmp_path, "r", ["ra"]))
    assert "unet" not in table
    assert found["remark"][1].startswith("cannot be read: FileNotFoundError")


def test_fewer_epochs_than_a_finished_run_has_are_refused_and_it_stays_finished(tmp_path):
    run = scored(tmp_path, "r", ["ra"], epochs=4)
    run.checkpoint("ra").parent.mkdir()
    run.checkpoint("ra").write_bytes(b"weights")
    with pytest.raises(RunError, match="epochs: 4 there, 2 now; only more can be asked for"):
        Run.start(params(methods=["ra"], run_dir="r", epochs=2), tmp_path)
    assert status(run.folder)["status"] == "ok"
    assert json.loads((run.folder / "params.json").read_text())["epochs"] == 4


def test_a_run_that_is_not_finished_is_named_and_not_compared(tmp_path):
    other = scored(tmp_path, "u", ["unet"])
    other.mark("failed", "out of memory")
    table, found = comparable(scored(tmp_path, "r", ["ra"]))
    assert "unet" not in table
    assert found[["run", "used", "remark"]].to_numpy().tolist() == [
        ["r", True, ""],
        ["u", False, "its status is failed"],
    ]


def test_a_run_that_trains_nothing_and_finds_nothing_says_so(tmp_path):
    run = scored(tmp_path, "r", [])
    table, _ = comparable(run)
    with pytest.raises(RunError, match=r"nothing to evaluate: .* \(methods is empty\)"):
        evaluate(run, table)


def test_both_label_columns_are_evaluated(tmp_path):
    strict = ["normal" if i % 5 else "abnormal" if i % 4 == 3 else "" for i in range(80)]
    run = scored(tmp_path, "a", ["unet"], divided(strict_label=strict), labels="strict")
    table, _ = comparable(run)
    results = evaluate(run, table)
    assert results == json.loads((run.folder / "results.json").read_text())
    assert results["evaluation"]["labels"] == "strict_label"
    assert [other["labels"] for other in results["other_labels"]] == ["label"]
    plain = scored(tmp_path / "b", "b", ["unet"])
    assert evaluate(plain, comparable(plain)[0])["other_labels"] == []


def test_an_unusable_second_label_column_does_not_lose_the_first_ones_result(tmp_path):
    strict = ["" if i % 4 == 3 else "normal" for i in range(80)]
    run = scored(tmp_path, "a", ["unet"], divided(strict_label=strict))
    assert evaluate(run, comparable(run)[0])["evaluation"]["labels"] == "label"


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
    run.save_figure(figure, "film")
    assert [file.name for file in (run.folder / "figures").iterdir()] == ["film.png"]


# Weights & Biases, offline


def wandb_history(folder: Path) -> list[dict]:
    """The rows of each wandb file below `folder`, as its own command line prints them."""
    program = Path(sys.executable).with_name("wandb")
    found = []
    for file in sorted(folder.rglob("run-*.wandb")):
        made = subprocess.run([program, "leet", "inspect", "--json", file], capture_output=True, text=True, check=True)
        lines = [json.loads(line) for line in made.stdout.splitlines()]
        found += [line["history"]["item"] for line in lines if line["type"] == "history"]
    return [{key: value for key, value in row.items() if not key.startswith("_")} for row in found]


def test_the_tracker_holds_what_metrics_hold(tmp_path):
    run = Run.start(params(run_dir="a", tracking="wandb", methods=["unet", "ra"]), tmp_path)
    run.log("unet", HISTORY[:1])
    run.log("unet", HISTORY)
    run.log("ra", HISTORY)
    run.finish()
    expected = [
        {f"{row['method']}/{key}": value for key, value in row.items() if key != "method"} for row in rows(run.folder)
    ]
    sent = wandb_history(run.folder)
    assert len(sent) == len(expected) == 4
    for mine, theirs in zip(expected, sent, strict=True):
        assert theirs == pytest.approx(mine)


def test_a_figure_reaches_the_tracker(tmp_path):
    run = Run.start(params(run_dir="a", tracking="wandb"), tmp_path)
    run.save_figure(Figure(figsize=(2, 1)), "empty")
    run.finish()
    run.save_figure(Figure(figsize=(2, 1)), "later")  # of a chapter below the one that finishes the run
    assert any("empty" in key for row in wandb_history(run.folder) for key in row)


def test_without_tracking_nothing_of_the_tracker_is_written(tmp_path):
    run = Run.start(params(run_dir="a"), tmp_path)
    run.log("unet", HISTORY)
    run.save_figure(Figure(figsize=(2, 1)), "empty")
    run.finish()
    files = {str(file.relative_to(run.folder)) for file in run.folder.rglob("*") if file.is_file()}
    assert files == {"params.json", "status.json", "metrics.jsonl", "figures/empty.png", "figures/empty.svg"}


def test_a_run_started_while_another_is_open_has_a_tracker_of_its_own(tmp_path):
    """As in a notebook whose parameters cell is changed and run again."""
    try:
        for epoch, (name, tracking) in enumerate([("a", "wandb"), ("b", "wandb"), ("c", "off")]):
            run = Run.start(params(run_dir=name, tracking=tracking), tmp_path)
            run.log("unet", [{"epoch": epoch}])
        run.finish()
    finally:
        wandb.finish()
    epochs = {name: [row["unet/epoch"] for row in wandb_history(tmp_path / name)] for name in "abc"}
    assert epochs == {"a": [0], "b": [1], "c": []}


def test_an_opened_run_can_be_finished(tmp_path):
    Run.start(params(run_dir="a"), tmp_path)
    opened = Run.open(tmp_path / "a")
    opened.log("unet", HISTORY)
    opened.finish()
    assert status(opened.folder)["status"] == "ok"
    assert len(rows(opened.folder)) == 2


def test_tracking_that_is_to_be_online_stays_offline_without_a_key_and_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    run = Run.start(params(run_dir="a", tracking="wandb"), tmp_path)
    run.finish()
    assert "no WANDB_API_KEY, in the environment or Colab's secrets: tracking stays offline" in capsys.readouterr().err
    assert list(run.folder.rglob("offline-run-*"))
