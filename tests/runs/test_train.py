"""Promises of `lib.runs.train`: a method trains from the seed, resumes from its checkpoint, and is loaded as it was."""

import shutil

import pytest
import torch

from lib.methods.checkpoint import CheckpointError
from lib.runs.run import Run, RunError
from lib.runs.score import budget
from lib.runs.tracking import Tracker
from lib.runs.train import load, train
from tests.runs.small import HISTORY, divided, params, prepared


def equal(first, second) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_metrics_equal_the_history_also_after_a_resume(tmp_path):
    images = prepared(divided())
    first = Run.start(params(run_dir="a", epochs=1), tmp_path)
    first.log("ra", HISTORY)
    train(first, "unet", images, Tracker())
    second = Run.start(params(run_dir="a", epochs=3), tmp_path)
    _, history = train(second, "unet", images, Tracker())
    assert [row["epoch"] for row in history] == [0, 1, 2]
    assert second.history("unet") == history
    assert second.history("ra") == HISTORY


def test_health_is_measured_at_half_octaves_at_kept_epochs_and_at_the_end(tmp_path):
    run = Run.start(params(run_dir="a", epochs=11, choose_from=[5], measure_every=0), tmp_path)
    _, history = train(run, "unet", prepared(divided()), Tracker())
    assert [row["epoch"] + 1 for row in history if "health/residual" in row] == [1, 2, 3, 4, 5, 6, 8, 11]
    assert run.yardstick().components[16].residual > 0


def test_the_tracker_is_given_the_history_after_each_epoch_and_the_figures(tmp_path):
    heard = []

    class Noting(Tracker):
        def log(self, method, history):
            heard.append((method, len(history)))

        def figures(self, folder):
            heard.append(folder)

    run = Run.start(params(run_dir="a", epochs=2), tmp_path)
    train(run, "unet", prepared(divided()), Noting())
    assert heard == [("unet", 0), ("unet", 1), ("unet", 2), run.folder / "figures"]


def test_a_method_trains_the_same_whatever_was_drawn_before_it(tmp_path):
    images = prepared(divided())
    trained = []
    for name in ("a", "b"):
        torch.rand(len(trained) + 1)
        trained.append(train(Run.start(params(run_dir=name), tmp_path), "unet", images, Tracker()).method)
    assert equal(*trained)


def test_a_trained_method_is_loaded_again_with_its_history_and_budget(tmp_path):
    split = divided()
    run = Run.start(params(run_dir="a", epochs=2), tmp_path)
    trained, history = train(run, "unet", prepared(split), Tracker())
    (run.folder / "metrics.jsonl").unlink()  # as of a folder whose checkpoints came back from a copy
    loaded = load(Run.open(run.folder), "unet", split)
    assert loaded.history == history == run.history("unet")
    assert equal(loaded.method, trained)
    spent, batches = budget(loaded.method, history), len(split.train) // 8
    assert spent.images_seen == 2 * batches * 8
    assert spent.steps == 2 * batches
    assert spent.parameters == sum(p.numel() for p in trained.parameters())
    assert spent.multiply_adds % spent.images_seen == 0
    assert spent.seconds >= 0


def test_a_method_that_was_not_trained_is_named(tmp_path):
    run = Run.start(params(run_dir="a"), tmp_path)
    with pytest.raises(RunError, match=r"has no trained unet: .*unet\.pt is not there; train it first"):
        load(run, "unet", divided())


def test_a_method_that_was_not_trained_to_its_end_is_named(tmp_path):
    train(Run.start(params(run_dir="a", epochs=1), tmp_path), "unet", prepared(divided()), Tracker())
    run = Run.start(params(run_dir="a", epochs=2), tmp_path)
    with pytest.raises(CheckpointError, match=r"unet\.pt has 1 of 2 epochs: train it to its end"):
        load(run, "unet", divided())


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"seed": 1}, "seed: 1 saved, 0 now"),
        ({"methods": ["ae-16"]}, "method: 'ae-16' saved, 'ae-4' now"),
        ({"precision": "bfloat16"}, "precision: 'bfloat16' saved, 'float32' now"),
        ({"split": divided(seed=1)}, "split: "),
        ({"epochs": 2}, "has 2 of 1 epochs"),
    ],
    ids=["settings", "method", "precision", "split", "epochs"],
)
def test_weights_that_the_run_has_not_trained_are_not_loaded(tmp_path, changes, found):
    split = changes.pop("split", divided())
    other = Run.start(params(run_dir="other", **{"methods": ["ae-4"]} | changes), tmp_path)
    train(other, other.params.methods[0], prepared(split), Tracker())
    run = Run.start(params(run_dir="a", methods=["ae-4"]), tmp_path)
    run.checkpoint("ae-4").parent.mkdir()
    shutil.copy(other.checkpoint(other.params.methods[0]), run.checkpoint("ae-4"))
    with pytest.raises(CheckpointError, match=found):
        load(run, "ae-4", divided())


def test_other_settings_in_a_finished_folder_are_refused_and_its_record_is_kept(tmp_path):
    images = prepared(divided())
    run = Run.start(params(run_dir="a"), tmp_path)
    train(run, "unet", images, Tracker())
    run.finish()
    before = (run.folder / "params.json").read_text()
    with pytest.raises((RunError, CheckpointError), match="learning_rate"):
        train(Run.start(params(run_dir="a", learning_rate=0.01), tmp_path), "unet", images, Tracker())
    assert (run.folder / "params.json").read_text() == before
