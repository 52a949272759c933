"""A resumed run equals an uninterrupted one, kept weights are those of a shorter run, and no other file is taken."""

import random
import signal
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from toys import CPU, METHODS, PARTS, Toy, build, differences, each_method, read

from lib.methods.checkpoint import CheckpointError, kept, load_checkpoint, read_state, write_state
from lib.methods.method import to_unit

SETTINGS = {"seed": 0, "widths": [4, 6]}  # of `fit`

# --- resume -----------------------------------------------------------------------------------------------------------


@each_method
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "settings", [{}, {"average_decay": 0.9, "augmentation": 0.1}], ids=lambda s: "+".join(s) or "plain"
)
def test_resumed_equals_uninterrupted_to_the_last_bit(name, precision, settings, fit, tmp_path):
    fit = partial(fit, precision=precision, **settings)
    fit(build(name), epochs=4, checkpoint=tmp_path / "whole.pt")
    fit(build(name), epochs=2, checkpoint=tmp_path / "parts.pt")
    torch.manual_seed(99)
    torch.rand(7)  # another process has drawn other numbers, and built other weights
    resumed = METHODS[name]()
    history = fit(resumed, epochs=4, checkpoint=tmp_path / "parts.pt")
    whole, parts = read(tmp_path / "whole.pt"), read(tmp_path / "parts.pt")
    assert not differences(parts, whole)
    assert not differences(history, whole["history"])
    assert not differences(dict(resumed.state_dict()), dict(whole["method"]))


KILLED_IN_MID_EPOCH = """
import os, signal, sys
from pathlib import Path
import numpy as np
import torch
from lib.methods.ra import ReversedAutoencoder
from lib.methods.training import train

class Killed(ReversedAutoencoder):
    batches = 0
    def moves(self, images, epoch=0):
        if epoch == 2 and self.training and len(images) == 4:
            self.batches += 1
            if self.batches == 2:
                os.kill(os.getpid(), signal.SIGKILL)
        yield from super().moves(images, epoch)

torch.set_num_threads(1)
torch.manual_seed(0)
images = np.load(sys.argv[2])
train(Killed(16, [4, 6], 5), images, images[:5], epochs=4, batch_size=4, learning_rate=1e-3, seed=0,
      checkpoint=Path(sys.argv[1]), settings={"seed": 0, "widths": [4, 6]}, device=torch.device("cpu"),
      precision=torch.float32)
"""


def test_a_process_killed_in_mid_epoch_resumes_to_the_weights_of_an_uninterrupted_one(fit, images, tmp_path):
    np.save(tmp_path / "images.npy", images)
    command = [sys.executable, "-c", KILLED_IN_MID_EPOCH, tmp_path / "killed.pt", tmp_path / "images.npy"]
    killed = subprocess.run(command, check=False, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert [row["epoch"] for row in read(tmp_path / "killed.pt")["history"]] == [0, 1]
    fit(build("ra"), epochs=4, checkpoint=tmp_path / "killed.pt")
    fit(build("ra"), epochs=4, checkpoint=tmp_path / "whole.pt")
    assert not differences(read(tmp_path / "killed.pt"), read(tmp_path / "whole.pt"))


@each_method
def test_training_a_finished_run_again_changes_nothing(name, fit, tmp_path):
    method, again = build(name), build(name, seed=1)
    history = fit(method)
    written = (tmp_path / "here.pt").stat().st_mtime_ns
    assert fit(again) == history
    assert (tmp_path / "here.pt").stat().st_mtime_ns == written
    assert not differences(dict(again.state_dict()), dict(method.state_dict()))
    assert again.training == method.training


@each_method
def test_a_checkpoint_holds_all_that_a_resume_needs_and_nothing_but_plain_data(name, fit, tmp_path):
    method = build(name)
    history = fit(method, settings={"seed": 0, "split": "abc", "widths": [4, 6]})
    state = read(tmp_path / "here.pt")
    assert state["settings"].items() >= {"seed": 0, "split": "abc", "widths": [4, 6]}.items()
    assert state["history"] == history
    assert state["method"].keys() == method.state_dict().keys()
    assert list(state["optimizers"]) == list(state["scalers"]) == PARTS[name]
    for part in PARTS[name]:
        adam = state["optimizers"][part]["state"]
        assert len(adam) == len(list(getattr(method, part).parameters()))
        assert all(moments["step"] == 4 for moments in adam.values())  # two epochs of two batches
    assert torch.equal(state["rng"]["cpu"], torch.get_rng_state())


@each_method
def test_a_loaded_checkpoint_reconstructs_as_the_trained_method(name, fit, images, tmp_path):
    method, loaded = build(name), build(name, seed=1)
    fit(method)
    load_checkpoint(tmp_path / "here.pt", loaded, CPU, SETTINGS, 2)
    batch = to_unit(images, CPU)
    assert torch.equal(loaded.eval().reconstruct(batch), method.eval().reconstruct(batch))


def test_other_settings_are_refused_by_name_with_both_values(fit):
    fit(Toy(), settings={"seed": 0, "widths": [4, 6], "gone": 1})
    with pytest.raises(CheckpointError) as refusal:
        fit(Toy(), epochs=3, settings={"seed": 7, "widths": [4, 6], "new": "x"})
    for part in ("seed: 0 saved, 7 now", "gone: 1 saved, None now", "new: None saved, 'x' now", "here.pt"):
        assert part in str(refusal.value)
    assert "widths" not in str(refusal.value)


def test_fewer_epochs_than_the_checkpoint_has_are_refused(fit):
    fit(Toy(), epochs=3)
    with pytest.raises(CheckpointError, match=r"here\.pt has 3 epochs, but epochs=2"):
        fit(Toy(), epochs=2)


def test_a_refused_checkpoint_is_left_as_it_was(fit, tmp_path):
    fit(Toy())
    before = (tmp_path / "here.pt").read_bytes()
    with pytest.raises(CheckpointError):
        fit(Toy(), epochs=9, settings={"seed": 1})
    assert (tmp_path / "here.pt").read_bytes() == before


def test_a_resume_in_another_precision_is_refused(fit):
    fit(Toy(), precision=torch.bfloat16)
    with pytest.raises(CheckpointError, match=r"bfloat16.*float16"):
        fit(Toy(), epochs=3, precision=torch.float16)


# --- kept weights -----------------------------------------------------------------------------------------------------


@each_method
def test_weights_kept_after_n_epochs_equal_those_of_a_run_of_n_epochs(name, fit, tmp_path):
    fit(build(name), epochs=3, keep_after=[1, 2])
    files = kept(tmp_path / "here.pt", 3, [2, 1])
    assert list(files) == [1, 2, 3]
    for epochs, file in files.items():
        whole, loaded = build(name), build(name, seed=1)
        fit(whole, epochs=epochs, checkpoint=tmp_path / f"whole{epochs}.pt")
        load_checkpoint(file, loaded, CPU, SETTINGS, epochs)
        assert not differences(dict(loaded.state_dict()), dict(whole.state_dict())), epochs


@each_method
def test_keeping_weights_does_not_change_training(name, fit, tmp_path):
    fit(build(name), checkpoint=tmp_path / "plain.pt")
    fit(build(name), keep_after=[1, 2])
    assert not differences(read(tmp_path / "here.pt"), read(tmp_path / "plain.pt"))


@pytest.mark.parametrize("first", [1, 2])
def test_a_resumed_run_keeps_the_same_files_as_an_uninterrupted_one(first, fit, tmp_path):
    fit(build("ra"), epochs=3, keep_after=[2], checkpoint=tmp_path / "whole" / "ra.pt")
    for epochs in (first, 3):
        fit(build("ra"), epochs=epochs, keep_after=[2], checkpoint=tmp_path / "parts" / "ra.pt")
    whole, parts = ({file.name: file for file in (tmp_path / run).iterdir()} for run in ("whole", "parts"))
    assert whole.keys() == parts.keys() == {"ra.pt", "ra.2.pt"}
    for name, file in whole.items():
        assert not differences(read(parts[name]), read(file)), name


def test_the_weights_of_the_last_epoch_are_in_the_checkpoint(tmp_path):
    checkpoint = tmp_path / "here.pt"
    assert kept(checkpoint, 4, []) == kept(checkpoint, 4, [4]) == kept(checkpoint, 4, [9]) == {4: checkpoint}


def test_by_default_nothing_is_kept_beside_the_checkpoint(fit, tmp_path):
    fit(Toy(), epochs=3)
    assert [file.name for file in tmp_path.iterdir()] == ["here.pt"]


def test_missing_kept_weights_are_named_and_no_others(fit, tmp_path):
    fit(Toy(), epochs=6, keep_after=[2, 4])
    (tmp_path / "here.4.pt").unlink()
    with pytest.raises(CheckpointError, match=r"choose_from=\[2, 4\] .*missing .*here\.4\.pt.*train again") as refusal:
        kept(tmp_path / "here.pt", 6, [2, 4])
    assert "here.2.pt" not in str(refusal.value)


def test_a_resume_without_its_kept_weights_is_refused_before_training(fit, tmp_path):
    fit(Toy(), epochs=4, keep_after=[2, 4])
    (tmp_path / "here.2.pt").unlink()
    with pytest.raises(CheckpointError, match=r"missing .*here\.2\.pt.*remove .*here\.pt.*train again"):
        fit(Toy(), epochs=6, keep_after=[2, 4])
    assert len(read(tmp_path / "here.pt")["history"]) == 4


def test_missing_kept_weights_of_the_last_epoch_are_written_again(fit, tmp_path):
    fit(Toy(), epochs=4, keep_after=[2, 4])
    before = read(tmp_path / "here.4.pt")
    (tmp_path / "here.4.pt").unlink()
    fit(Toy(), epochs=6, keep_after=[2, 4])
    assert not differences(read(tmp_path / "here.4.pt"), before)


# --- what no reader takes ---------------------------------------------------------------------------------------------


def test_no_flipped_bit_of_a_checkpoint_or_of_kept_weights_is_taken(fit, tmp_path):
    fit(Toy(), keep_after=[1])
    chance = random.Random(0)
    for name in ("here.pt", "here.1.pt"):
        file = tmp_path / name
        whole = file.read_bytes()
        for bit in chance.sample(range(8 * len(whole)), 100):
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            file.write_bytes(damaged)
            with pytest.raises(CheckpointError, match=rf"{name} .*remove it, and train again"):
                load_checkpoint(file, Toy(), CPU, SETTINGS, 2)
        with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):  # the last flipped bit is still there
            fit(Toy(), epochs=3, keep_after=[1])
        file.write_bytes(whole)


@pytest.mark.parametrize("content", [b"", b"not torch's", b"cut"])
def test_a_file_without_a_hash_is_refused_with_what_it_may_be(content, fit, tmp_path):
    file = tmp_path / "here.pt"
    fit(Toy())
    file.write_bytes(file.read_bytes()[:-100] if content == b"cut" else content)
    with pytest.raises(CheckpointError, match=r"here\.pt does not end in a hash: it was cut short, an older version"):
        fit(Toy())


def test_weights_of_other_settings_are_not_loaded(fit, tmp_path):
    fit(Toy())
    with pytest.raises(CheckpointError, match=r"under other settings .*seed: 0 saved, 1 now"):
        load_checkpoint(tmp_path / "here.pt", Toy(), CPU, SETTINGS | {"seed": 1}, 2)


@pytest.mark.parametrize(("name", "wanted", "found"), [("here.2.pt", 2, 1), ("here.pt", 2, 3), ("here.pt", 4, 3)])
def test_weights_of_another_epoch_are_not_loaded_whatever_the_name_says(name, wanted, found, fit, tmp_path):
    fit(Toy(), epochs=3, keep_after=[1, 2])
    (tmp_path / "here.1.pt").replace(tmp_path / "here.2.pt")
    with pytest.raises(CheckpointError, match=rf"{name} has {found} of {wanted} epochs"):
        load_checkpoint(tmp_path / name, Toy(), CPU, SETTINGS, wanted)


def test_damaged_kept_weights_are_refused_before_training_goes_on(fit, tmp_path):
    fit(Toy(), epochs=4, keep_after=[2])
    (tmp_path / "here.2.pt").write_bytes((tmp_path / "here.2.pt").read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"missing or damaged .*here\.2\.pt"):
        fit(Toy(), epochs=6, keep_after=[2])


class Infinite(Toy):
    """Has an infinite weight after its first epoch that no loss and no reconstruction depends on."""

    def __init__(self):
        super().__init__()
        self.critic = torch.nn.Linear(1, 1)

    def moves(self, images, epoch=0):
        if epoch:
            torch.nn.init.constant_(self.critic.weight, torch.inf)
        yield from super().moves(images, epoch)


@pytest.mark.parametrize("average_decay", [0.0, 0.9])
def test_weights_that_are_not_finite_are_not_saved_and_the_epoch_before_stays(average_decay, fit, tmp_path):
    with pytest.raises(CheckpointError, match=r"here\.pt: [12] weights are NaN or infinite, critic\.weight first"):
        fit(Infinite(), epochs=3, average_decay=average_decay)
    assert len(read(tmp_path / "here.pt")["history"]) == 1


def test_weights_that_are_not_finite_are_not_loaded(fit, tmp_path, monkeypatch):
    fit(Toy())
    state = read_state(tmp_path / "here.pt")
    state["method"]["network.weight"].fill_(torch.nan)
    with monkeypatch.context() as patch:
        patch.setattr("lib.methods.checkpoint._refuse_infinite", lambda *_: None)
        write_state(tmp_path / "here.pt", state)
    with pytest.raises(CheckpointError, match=r"network\.weight first"):
        load_checkpoint(tmp_path / "here.pt", Toy(), CPU, SETTINGS, 2)
