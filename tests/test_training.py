"""Promises of `lib.training`: equal terms for every method, exact resume, and no result from a run that diverged."""

import copy
import math
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lib import training
from lib.dataset import to_unit
from lib.method import Method
from lib.ra import ReversedAutoencoder, Weights
from lib.scoring import reconstruct, residuals
from lib.training import (
    CheckpointError,
    Diverged,
    choose_device,
    choose_precision,
    expected_seconds,
    kept,
    load_checkpoint,
    multiply_adds,
    train,
)
from lib.unet import UNetAutoencoder

CPU = torch.device("cpu")
METHODS = {"unet": lambda: UNetAutoencoder([4, 6]), "ra": lambda: ReversedAutoencoder(16, [4, 6], 5)}
PARTS = {"unet": ["network"], "ra": ["encoder", "decoder"]}
each_method = pytest.mark.parametrize("name", METHODS)


def build(name: str, seed: int = 0) -> Method:
    torch.manual_seed(seed)
    return METHODS[name]()


@pytest.fixture
def fit(tmp_path, films):
    """Train under settings that a test changes by name; the checkpoint is `here`."""

    def fit(method: Method, images: np.ndarray = films, **changed):
        usual = {
            "epochs": 2,
            "batch_size": 4,
            "learning_rate": 1e-3,
            "seed": 0,
            "checkpoint": tmp_path / "here.pt",
            "settings": {"seed": 0, "widths": [4, 6]},
            "device": CPU,
            "precision": torch.float32,
        }
        return train(method, images, films[:5], **(usual | changed))

    return fit


def read(checkpoint: Path) -> dict:
    return torch.load(checkpoint, weights_only=True)


def differences(found, expected, where: str = "") -> list[str]:
    """Name the leaves of two nested states that are not the same to the last bit."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        return [d for key in expected for d in differences(found[key], expected[key], f"{where}/{key}")]
    if isinstance(expected, list | tuple):
        assert len(found) == len(expected), where
        return [
            d for i, pair in enumerate(zip(found, expected, strict=True)) for d in differences(*pair, f"{where}/{i}")
        ]
    same = torch.equal(found, expected) if isinstance(expected, torch.Tensor) else found == expected
    return [] if same or where.endswith("/seconds") else [where]


class Toy(Method):
    """Multiplies its images by one weight; the building block of the tests below."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.constant_(self.network.weight, 0.5)

    def moves(self, images, epoch=0):
        yield "network", {"total": (self.network(images) - images).square().mean()}

    def reconstruct(self, images):
        return self.network(images)


class Watched(Toy):
    """Remembers the images of each batch by their grey: image i is grey i."""

    def __init__(self) -> None:
        super().__init__()
        self.order = []

    def moves(self, images, epoch=0):
        self.order += (images[:, 0, 0, 0] * 255).round().int().tolist()
        yield from super().moves(images, epoch)


def greys(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.uint8)[:, None, None].repeat(4, 1).repeat(4, 2)


class Stream:
    """Films of which half arrive, and the others only once `come` is set; like an array."""

    def __init__(self, images: np.ndarray) -> None:
        self.images, self.shape, self.come = images, images.shape, threading.Event()
        self.arrival = np.arange(len(images)) // (len(images) // 2)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows):
        assert not self.arrival[rows].any() or self.come.wait(timeout=20), "a film was asked for before it could come"
        return self.images[rows]


def test_training_begins_before_all_films_have_arrived(fit):
    stream = Stream(greys(40))

    class Opening(Watched):
        def moves(self, images, epoch=0):
            yield from super().moves(images, epoch)
            if len(self.order) >= 20:  # the first half has been trained on
                stream.come.set()

    method = Opening()
    fit(method, stream, epochs=1)
    assert sorted(method.order[:20]) == list(range(20))
    assert sorted(method.order[20:]) == list(range(20, 40))


def test_a_streams_first_epoch_is_shuffled_within_its_shards_and_later_ones_altogether(fit, tmp_path):
    stream, method, plain = Stream(greys(40)), Watched(), Watched()
    stream.come.set()
    fit(method, stream)
    fit(plain, stream.images, checkpoint=tmp_path / "plain.pt")
    assert sorted(method.order[:40]) == list(range(40)) and method.order[:20] != sorted(method.order[:20])
    assert max(method.order[:20]) == 19
    assert method.order[40:] == plain.order[40:]
    assert method.order[:20] == [i for i in plain.order[:40] if i < 20]


# --- moves ------------------------------------------------------------------------------------------------------------


@each_method
def test_each_move_changes_its_own_part_and_no_other(name, fit, monkeypatch):
    method, update, moves = build(name), training._update, []

    def watched(optimizer, scaler, part, losses):
        before = {key: (weight.detach().clone(), copy.copy(weight.grad)) for key, weight in method.named_parameters()}
        update(optimizer, scaler, part, losses)
        (own,) = (child for child, module in method.named_children() if module is part)
        for key, weight in method.named_parameters():
            old, slope = before[key]
            assert torch.equal(weight, old) != key.startswith(f"{own}."), key
            assert key.startswith(f"{own}.") or weight.grad is slope or torch.equal(weight.grad, slope), key
        moves.append(own)

    monkeypatch.setattr(training, "_update", watched)
    fit(method, epochs=1)
    assert moves == 2 * PARTS[name]
    assert [child for child, _ in method.named_children()] == PARTS[name]


class Chain(Method):
    """Two parts, the second on the first, so that a move that sees stale weights has another loss."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(256, 256), nn.Linear(256, 1)

    def chained(self, images):
        return (self.second(self.first(images.flatten(1))) - 3).square().float().mean()

    def moves(self, images, epoch=0):
        yield "first", {"total": (self.first(images.flatten(1)) - 3).square().float().mean()}
        yield "second", {"total": self.chained(images)}

    def reconstruct(self, images):
        return images


def _entered_once(method, images, epoch, autocast):
    """Run the moves as one would first write it: autocast once around all of them."""
    with autocast:
        yield from method.moves(images, epoch)


@pytest.mark.parametrize("variant", ["as it is", "autocast entered once"])
def test_under_autocast_the_second_move_sees_what_the_first_has_updated(films, fit, monkeypatch, variant):
    torch.manual_seed(0)
    method, expected = Chain(), Chain()
    expected.load_state_dict(method.state_dict())
    if variant == "autocast entered once":  # shows that the test would notice
        monkeypatch.setattr(training, "_moves", _entered_once)
    else:
        expected.first = method.first  # which training updates; the second part of `expected` stays as it was
    (row,) = fit(method, epochs=1, batch_size=9, learning_rate=0.1, precision=torch.bfloat16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        images = to_unit(films, CPU)
        assert row["second/total"] == pytest.approx(expected.chained(images).item(), rel=0.01)
        assert expected.chained(images) != pytest.approx(method.chained(images).item(), rel=0.5)


# --- resume -----------------------------------------------------------------------------------------------------------


@each_method
def test_the_expected_time_is_that_of_all_batches_and_leaves_method_and_generator_alone(name):
    method = build(name)
    before, state = copy.deepcopy(method.state_dict()), torch.get_rng_state()
    assert expected_seconds(method, 16, 4, 0, 1, CPU) == 0 < expected_seconds(method, 16, 4, 10, 1, CPU)
    assert all(torch.equal(before[key], value) for key, value in method.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


@each_method
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16])
def test_resumed_equals_uninterrupted_to_the_last_bit(name, precision, fit, tmp_path):
    fit(build(name), epochs=4, precision=precision, checkpoint=tmp_path / "whole.pt")
    fit(build(name), epochs=2, precision=precision, checkpoint=tmp_path / "parts.pt")
    torch.manual_seed(99)
    torch.rand(7)  # another process has drawn other numbers, and built other weights
    resumed = METHODS[name]()
    history = fit(resumed, epochs=4, precision=precision, checkpoint=tmp_path / "parts.pt")
    whole, parts = read(tmp_path / "whole.pt"), read(tmp_path / "parts.pt")
    assert not differences(parts, whole)
    assert not differences(history, whole["history"])
    assert not differences(dict(resumed.state_dict()), dict(whole["method"]))


KILLED_IN_MID_EPOCH = """
import os, signal, sys
from pathlib import Path
import numpy as np
import torch
from lib.ra import ReversedAutoencoder
from lib.training import train

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
films = np.load(sys.argv[2])
train(Killed(16, [4, 6], 5), films, films[:5], epochs=4, batch_size=4, learning_rate=1e-3, seed=0,
      checkpoint=Path(sys.argv[1]), settings={"seed": 0, "widths": [4, 6]}, device=torch.device("cpu"),
      precision=torch.float32)
"""


def test_a_process_killed_in_mid_epoch_resumes_to_the_weights_of_an_uninterrupted_one(fit, films, tmp_path):
    np.save(tmp_path / "films.npy", films)
    command = [sys.executable, "-c", KILLED_IN_MID_EPOCH, tmp_path / "killed.pt", tmp_path / "films.npy"]
    killed = subprocess.run(command, check=False, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert [row["epoch"] for row in read(tmp_path / "killed.pt")["history"]] == [0, 1]
    fit(build("ra"), epochs=4, checkpoint=tmp_path / "killed.pt")
    fit(build("ra"), epochs=4, checkpoint=tmp_path / "whole.pt")
    assert not differences(read(tmp_path / "killed.pt"), read(tmp_path / "whole.pt"))


@each_method
def test_a_finished_run_is_given_back_as_it_was_left(name, fit, tmp_path):
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
def test_a_loaded_checkpoint_reconstructs_as_the_trained_method(name, fit, films, tmp_path):
    method, loaded = build(name), build(name, seed=1)
    fit(method)
    load_checkpoint(tmp_path / "here.pt", loaded, CPU)
    images = to_unit(films, CPU)
    assert torch.equal(loaded.eval().reconstruct(images), method.eval().reconstruct(images))


def test_other_settings_are_refused_by_name_with_both_values(fit):
    fit(Toy(), settings={"seed": 0, "widths": [4, 6], "gone": 1})
    with pytest.raises(CheckpointError) as refusal:
        fit(Toy(), epochs=3, settings={"seed": 7, "widths": [4, 6], "new": "x"})
    for part in ("seed: 0 there, 7 now", "gone: 1 there", "new: ", "'x' now", "here.pt"):
        assert part in str(refusal.value)
    assert "widths" not in str(refusal.value)


def test_fewer_epochs_than_the_checkpoint_has_are_refused(fit):
    fit(Toy(), epochs=3)
    with pytest.raises(CheckpointError, match=r"here\.pt has 3 epochs, epochs=2"):
        fit(Toy(), epochs=2)


def test_a_refused_checkpoint_is_left_as_it_was(fit, tmp_path):
    fit(Toy())
    before = (tmp_path / "here.pt").read_bytes()
    with pytest.raises(CheckpointError):
        fit(Toy(), epochs=9, settings={"seed": 1})
    assert (tmp_path / "here.pt").read_bytes() == before


def test_a_run_on_a_card_of_another_precision_is_refused_in_the_users_words(fit):
    fit(Toy(), precision=torch.bfloat16)
    with pytest.raises(CheckpointError, match=r"bfloat16.*float16"):
        fit(Toy(), epochs=3, precision=torch.float16)


def test_fewer_images_than_a_batch_are_refused_with_both_numbers(fit, films, tmp_path):
    with pytest.raises(ValueError, match=r"3 training images.*batch_size=4"):
        fit(Toy(), films[:3])
    assert not (tmp_path / "here.pt").exists()


# --- kept weights -----------------------------------------------------------------------------------------------------


@each_method
def test_the_weights_kept_after_some_epochs_are_those_of_a_run_of_so_many(name, fit, tmp_path):
    fit(build(name), epochs=3, keep_every=1)
    files = kept(tmp_path / "here.pt", 3, 1)
    assert list(files) == [1, 2, 3]
    for epochs, file in files.items():
        whole, loaded = build(name), build(name, seed=1)
        fit(whole, epochs=epochs, checkpoint=tmp_path / f"whole{epochs}.pt")
        load_checkpoint(file, loaded, CPU)
        assert not differences(dict(loaded.state_dict()), dict(whole.state_dict())), epochs


@each_method
def test_keeping_weights_changes_nothing_that_is_trained(name, fit, tmp_path):
    fit(build(name), checkpoint=tmp_path / "plain.pt")
    fit(build(name), keep_every=1)
    assert not differences(read(tmp_path / "here.pt"), read(tmp_path / "plain.pt"))


@pytest.mark.parametrize("first", [1, 2])
def test_a_resumed_run_keeps_the_same_files_as_an_uninterrupted_one(first, fit, tmp_path):
    fit(build("ra"), epochs=3, keep_every=2, checkpoint=tmp_path / "whole" / "ra.pt")
    for epochs in (first, 3):
        fit(build("ra"), epochs=epochs, keep_every=2, checkpoint=tmp_path / "parts" / "ra.pt")
    whole, parts = ({file.name: file for file in (tmp_path / run).iterdir()} for run in ("whole", "parts"))
    assert whole.keys() == parts.keys() == {"ra.pt", "ra.2.pt"}
    for name, file in whole.items():
        assert not differences(read(parts[name]), read(file)), name


def test_the_last_epochs_weights_are_the_checkpoints_own(tmp_path):
    checkpoint = tmp_path / "here.pt"
    assert kept(checkpoint, 4, 0) == kept(checkpoint, 4, 4) == kept(checkpoint, 4, 9) == {4: checkpoint}


def test_by_default_nothing_is_kept_beside_the_checkpoint(fit, tmp_path):
    fit(Toy(), epochs=3)
    assert [file.name for file in tmp_path.iterdir()] == ["here.pt"]


def test_kept_weights_that_are_gone_are_named_and_those_that_are_there_are_not(fit, tmp_path):
    fit(Toy(), epochs=6, keep_every=2)
    (tmp_path / "here.4.pt").unlink()
    with pytest.raises(CheckpointError, match=r"here\.4\.pt.*choose_every=2.*train anew") as refusal:
        kept(tmp_path / "here.pt", 6, 2)
    assert "here.2.pt" not in str(refusal.value)


def test_a_resumed_training_whose_kept_weights_are_gone_ends_before_it_begins(fit, tmp_path):
    fit(Toy(), epochs=4, keep_every=2)
    (tmp_path / "here.2.pt").unlink()
    with pytest.raises(CheckpointError, match=r"here\.2\.pt are not there.*remove .*here\.pt.*, and train anew"):
        fit(Toy(), epochs=6, keep_every=2)
    assert len(read(tmp_path / "here.pt")["history"]) == 4


def test_kept_weights_of_the_checkpoints_own_epoch_are_made_again_where_they_are_gone(fit, tmp_path):
    fit(Toy(), epochs=4, keep_every=2)
    before = read(tmp_path / "here.4.pt")
    (tmp_path / "here.4.pt").unlink()
    fit(Toy(), epochs=6, keep_every=2)
    assert not differences(read(tmp_path / "here.4.pt"), before)


# --- equal terms ------------------------------------------------------------------------------------------------------


def test_the_order_of_the_images_is_a_function_of_seed_and_epoch(fit, tmp_path):
    def order(seed: int, epochs: int = 3, checkpoint: str = "") -> list[list[int]]:
        method = Watched()
        fit(method, greys(12), seed=seed, epochs=epochs, checkpoint=tmp_path / (checkpoint or f"{seed}.pt"))
        return [method.order[i : i + 12] for i in range(0, len(method.order), 12)]

    zero, one = order(0), order(1)
    assert all(sorted(epoch) == list(range(12)) for epoch in zero + one)
    assert len({tuple(epoch) for epoch in zero + one}) == 6  # so seed 1 does not repeat seed 0 an epoch late
    assert order(0, epochs=2, checkpoint="parts.pt") + order(0, checkpoint="parts.pt") == zero


def test_every_method_sees_the_same_images_in_the_same_order_whatever_it_draws(fit, tmp_path):
    class Drawing(Watched):
        def moves(self, images, epoch=0):
            torch.rand(3)
            yield from super().moves(images, epoch)

    plain, drawing = Watched(), Drawing()
    fit(plain, greys(13))
    fit(drawing, greys(13), checkpoint=tmp_path / "drawing.pt")
    assert plain.order == drawing.order
    assert len(plain.order) == 2 * 12  # the thirteenth fills no batch; which one that is differs between epochs


@each_method
def test_a_method_trained_alone_equals_the_same_method_trained_after_another(name, fit, tmp_path):
    (other,) = METHODS.keys() - {name}
    alone, after = build(name), build(name)
    fit(alone, epochs=1, checkpoint=tmp_path / "alone.pt")
    fit(build(other), epochs=1, checkpoint=tmp_path / "other.pt")
    fit(after, epochs=1, checkpoint=tmp_path / "after.pt")
    assert not differences(read(tmp_path / "after.pt"), read(tmp_path / "alone.pt"))


def test_another_seed_trains_other_weights(fit, tmp_path):
    zero, one = build("unet"), build("unet")
    fit(zero, epochs=1, checkpoint=tmp_path / "zero.pt")
    fit(one, epochs=1, checkpoint=tmp_path / "one.pt", seed=1)
    assert differences(dict(one.state_dict()), dict(zero.state_dict()))


def test_a_row_holds_the_mean_of_each_loss_and_the_validation_residual(fit, films):
    method = Toy()
    (row,) = fit(method, films[:8], epochs=1, learning_rate=1e-12)  # the weight stays at one half
    squares = (films[:8] / 255.0) ** 2
    assert row["network/total"] == pytest.approx(np.mean(squares) / 4, rel=1e-5)
    assert row["validation/residual"] == pytest.approx(np.mean(films[:5] / 255.0) / 2, rel=1e-5)  # a batch of 4 and 1


@each_method
def test_the_validation_residual_is_the_mean_score_of_the_validation_images(name, fit, films):
    method = build(name)
    (row,) = fit(method, epochs=1)
    expected = residuals(films[:5], reconstruct(method, films[:5])).mean()
    assert row["validation/residual"] == pytest.approx(expected, rel=1e-5)


@each_method
def test_the_budget_is_counted_from_the_first_epoch_on_across_a_resume(name, fit, monkeypatch):
    fit(build(name), epochs=2)
    method = build(name)
    rows = fit(method, epochs=4)
    moves = len(PARTS[name])
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3]
    assert [row["images_seen"] for row in rows] == [8, 16, 24, 32]  # two batches of four; one image is left over
    assert [row["steps"] for row in rows] == [2 * moves, 4 * moves, 6 * moves, 8 * moves]
    assert [row["multiply_adds"] for row in rows] == [row["images_seen"] * multiply_adds(method, 16) for row in rows]
    assert 0 < rows[0]["seconds"] < rows[1]["seconds"] < rows[2]["seconds"] < rows[3]["seconds"]


def test_a_warm_up_costs_and_logs_what_it_does(fit):
    torch.manual_seed(0)
    method = ReversedAutoencoder(16, [4, 6], 5, Weights(warmup=1))
    warm, game = fit(method)
    assert "encoder/rejection" not in warm and "encoder/rejection" in game
    assert warm["multiply_adds"] == 8 * multiply_adds(method, 16, epoch=0)
    assert game["multiply_adds"] - warm["multiply_adds"] == 8 * multiply_adds(method, 16, epoch=1)
    assert multiply_adds(method, 16, epoch=0) < multiply_adds(method, 16, epoch=1) / 2


def test_the_log_is_given_all_rows_after_a_resume_and_after_each_epoch(fit):
    lengths = []
    fit(Toy(), epochs=2, log=lambda history: lengths.append(len(history)))
    fit(Toy(), epochs=4, log=lambda history: lengths.append(len(history)))
    assert lengths == [0, 1, 2, 2, 3, 4]


# --- multiply-adds ----------------------------------------------------------------------------------------------------


class Convolutions(Toy):
    """`count` 3x3 convolutions of three channels in a row, the first from grey, without padding."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.network = nn.Sequential(*(nn.Conv2d(3 if i else 1, 3, 3, bias=False) for i in range(count)))

    def moves(self, images, epoch=0):
        yield "network", {"total": self.network(images).mean()}


def test_multiply_adds_are_those_of_a_hand_count():
    first = 9 * 1 * 3 * 6 * 6  # kernel, channels in and out, and the pixels that an 8x8 image leaves
    assert multiply_adds(Convolutions(1), 8) == 2 * first  # forward, and the weights' gradient
    second = 9 * 3 * 3 * 4 * 4
    assert multiply_adds(Convolutions(2), 8) == 2 * first + 3 * second  # and the gradient that the second hands down


def test_multiply_adds_count_every_move_and_what_passes_through_another_part():
    torch.manual_seed(0)
    hidden, out = 256 * 256, 256  # of the two linear layers of `Chain`, on 16x16 images
    first = hidden + hidden
    second = hidden + out + out  # forward through both, backward to the second's weights alone
    assert multiply_adds(Chain(), 16) == first + second


@each_method
def test_counting_multiply_adds_leaves_no_trace(name):
    method = build(name).eval()
    random, before = torch.get_rng_state(), copy.deepcopy(dict(method.state_dict()))
    multiply_adds(method, 16)
    assert torch.equal(torch.get_rng_state(), random)
    assert not differences(dict(method.state_dict()), before)
    assert all(weight.grad is None for weight in method.parameters())
    assert not method.training


# --- divergence -------------------------------------------------------------------------------------------------------


class Diverging(Toy):
    """Its loss is `bad` in epoch 2's second batch."""

    def __init__(self, bad: float) -> None:
        super().__init__()
        self.bad, self.batches = bad, 0

    def moves(self, images, epoch=0):
        self.batches += 1
        ((part, losses),) = super().moves(images, epoch)
        factor = self.bad if epoch == 2 and self.batches % 2 == 0 else 1.0
        yield part, {"total": losses["total"], "other": losses["total"] * factor}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_epoch(bad, fit, tmp_path):
    with pytest.raises(Diverged, match=rf"toy .*epoch 2: network/other={bad}; .*epoch 1, is in .*here\.pt"):
        fit(Diverging(bad), epochs=5, name="toy")
    state = read(tmp_path / "here.pt")
    assert [row["epoch"] for row in state["history"]] == [0, 1]
    assert state["method"]["network.weight"].isfinite().all()


def test_a_run_that_diverges_at_once_leaves_no_checkpoint(fit, films, tmp_path):
    class AtOnce(Toy):
        def moves(self, images, epoch=0):
            yield "network", {"total": self.network(images).mean() * math.nan}

    with pytest.raises(Diverged, match=r"epoch 0: network/total=nan.*no epoch was good"):
        fit(AtOnce())
    assert not (tmp_path / "here.pt").exists()


class Poisoned(Toy):
    """In epoch 1's last batch its loss is a number, but the gradient is not: the root of zero has no slope."""

    def __init__(self) -> None:
        super().__init__()
        self.batches = 0

    def moves(self, images, epoch=0):
        self.batches += 1
        if self.batches == 4:
            yield "network", {"total": (self.network.weight.sum() * 0).sqrt()}
        else:
            yield from super().moves(images, epoch)


def test_weights_that_are_no_numbers_are_found_by_the_validation_residual_whatever_the_loss(fit, tmp_path):
    with pytest.raises(Diverged, match=r"epoch 1: validation/residual=nan"):
        fit(Poisoned(), epochs=4)
    assert read(tmp_path / "here.pt")["method"]["network.weight"].isfinite().all()


# --- device and precision ---------------------------------------------------------------------------------------------


class Slopeless(Method):
    """Two parts; the second's first gradient is no number, as when float16 overflows, though its loss is one."""

    def __init__(self) -> None:
        super().__init__()
        self.smooth, self.rough = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        self.batches = 0

    def moves(self, images, epoch=0):
        self.batches += 1
        rough = self.rough.weight.sum()
        yield "smooth", {"total": self.smooth.weight.sum()}
        yield "rough", {"total": (rough * 0).sqrt() if self.batches == 1 else rough}

    def reconstruct(self, images):
        return images


def test_in_float16_each_optimizer_has_its_own_scaler_which_skips_its_own_steps(fit, tmp_path):
    method = Slopeless()
    before = copy.deepcopy(dict(method.named_parameters()))
    fit(method, epochs=1, precision=torch.float16)
    state = read(tmp_path / "here.pt")
    assert {part: scaler["scale"] for part, scaler in state["scalers"].items()} == {"smooth": 2.0**16, "rough": 2.0**15}
    moved = {key: (before[key] - weight).item() for key, weight in method.named_parameters()}
    assert moved["smooth.weight"] == pytest.approx(2 * 1e-3, rel=1e-3)  # at a constant slope Adam's step is its rate
    assert moved["rough.weight"] == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_other_precisions_scale_nothing(precision, fit, tmp_path):
    fit(Toy(), precision=precision)
    assert read(tmp_path / "here.pt")["scalers"] == {"network": {}}


@each_method
@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_half_precision_trains_like_float32_and_keeps_its_weights(name, precision, fit, tmp_path):
    full = fit(build(name), checkpoint=tmp_path / "full.pt")
    half = fit(build(name), precision=precision)
    for key in full[-1].keys() - {"seconds"}:
        assert half[-1][key] == pytest.approx(full[-1][key], rel=0.1), key
    weights = read(tmp_path / "here.pt")["method"]
    assert all(w.dtype is torch.float32 for key, w in weights.items() if not key.endswith("num_batches_tracked"))


@pytest.mark.parametrize(
    ("able", "expected"),
    [
        ({}, torch.float32),
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, torch.float32),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"bf16": True}, torch.bfloat16),
    ],
)
def test_a_processor_trains_in_bfloat16_only_where_it_has_it(able, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)
    assert choose_precision("auto", CPU) is expected


def test_a_processor_that_cannot_be_asked_trains_in_float32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert choose_precision("auto", CPU) is torch.float32


@pytest.mark.parametrize(("native", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_a_card_that_only_emulates_bfloat16_trains_in_float16(native, expected, monkeypatch):
    # A T4: `including_emulation`, the default, would say yes.
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or native)
    assert choose_precision("auto", torch.device("cuda")) is expected


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_a_precision_that_is_asked_for_is_taken(name):
    assert choose_precision(name, CPU) is getattr(torch, name)


def test_without_a_card_auto_is_the_processor_and_cuda_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == CPU
    with pytest.raises(ValueError, match=r"device='cuda'.*write device: cpu"):
        choose_device("cuda")


def test_with_a_card_auto_takes_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda")
    assert choose_device("cpu") == CPU


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA card")
@each_method
@pytest.mark.parametrize("precision", [torch.float32, torch.float16])
def test_on_a_card_resumed_continues_the_same_draws(name, precision, fit, tmp_path):
    card = {"device": torch.device("cuda"), "precision": precision}
    whole = fit(build(name), epochs=4, checkpoint=tmp_path / "whole.pt", **card)
    fit(build(name), epochs=2, **card)
    torch.rand(7, device="cuda")
    resumed = fit(build(name, seed=1), epochs=4, **card)
    for key in whole[-1].keys() - {"seconds"}:
        assert resumed[-1][key] == pytest.approx(whole[-1][key], rel=1e-3), key
