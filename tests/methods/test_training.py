"""The training loop: equal terms for every method, its budget, and no result from a run that diverged."""

import copy
import math
import threading

import numpy as np
import pytest
import torch
from torch import nn
from toys import CPU, METHODS, PARTS, Chain, Convolutions, Toy, Watched, build, differences, each_method, greys, read

from lib.methods import training
from lib.methods.method import Method, to_unit
from lib.methods.ra import ReversedAutoencoder, Weights
from lib.methods.training import Diverged, augmented, choose_device, choose_precision, multiply_adds
from lib.scores.scoring import reconstruct, residuals

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


def _entered_once(method, images, epoch, autocast):
    """Run the moves as one would first write it: autocast once around all of them."""
    with autocast:
        yield from method.moves(images, epoch)


@pytest.mark.parametrize("variant", ["as it is", "autocast entered once"])
def test_under_autocast_the_second_move_sees_what_the_first_has_updated(images, fit, monkeypatch, variant):
    torch.manual_seed(0)
    method, expected = Chain(), Chain()
    expected.load_state_dict(method.state_dict())
    if variant == "autocast entered once":  # shows that the test would notice
        monkeypatch.setattr(training, "_moves", _entered_once)
    else:
        expected.first = method.first  # which training updates; the second part of `expected` stays as it was
    (row,) = fit(method, epochs=1, batch_size=9, learning_rate=0.1, precision=torch.bfloat16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        batch = to_unit(images, CPU)
        assert row["second/total"] == pytest.approx(expected.chained(batch).item(), rel=0.01)
        assert expected.chained(batch) != pytest.approx(method.chained(batch).item(), rel=0.5)


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


def test_a_history_entry_holds_the_mean_of_each_loss_and_the_validation_residual(fit, images):
    method = Toy()
    (row,) = fit(method, images[:8], epochs=1, learning_rate=1e-12)  # the weight stays at one half
    squares = (images[:8] / 255.0) ** 2
    assert row["network/total"] == pytest.approx(np.mean(squares) / 4, rel=1e-5)
    assert row["validation/residual"] == pytest.approx(np.mean(images[:5] / 255.0) / 2, rel=1e-5)  # a batch of 4 and 1


@each_method
def test_the_validation_residual_is_the_mean_score_of_the_validation_images(name, fit, images):
    method = build(name)
    (row,) = fit(method, epochs=1)
    expected = residuals(images[:5], reconstruct(method, images[:5])).mean()
    assert row["validation/residual"] == pytest.approx(expected, rel=1e-5)


@each_method
def test_the_budget_continues_across_a_resume(name, fit, monkeypatch):
    fit(build(name), epochs=2)
    method = build(name)
    rows = fit(method, epochs=4)
    moves = len(PARTS[name])
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3]
    assert [row["images_seen"] for row in rows] == [8, 16, 24, 32]  # two batches of four; one image is left over
    assert [row["steps"] for row in rows] == [2 * moves, 4 * moves, 6 * moves, 8 * moves]
    assert [row["multiply_adds"] for row in rows] == [row["images_seen"] * multiply_adds(method, 16) for row in rows]
    assert 0 < rows[0]["seconds"] < rows[1]["seconds"] < rows[2]["seconds"] < rows[3]["seconds"]


def test_a_warm_up_epoch_costs_less_and_logs_no_rejection(fit):
    torch.manual_seed(0)
    method = ReversedAutoencoder(16, [4, 6], 5, Weights(warmup=1))
    warm, game = fit(method)
    assert "encoder/rejection" not in warm and "encoder/rejection" in game
    assert warm["multiply_adds"] == 8 * multiply_adds(method, 16, epoch=0)
    assert game["multiply_adds"] - warm["multiply_adds"] == 8 * multiply_adds(method, 16, epoch=1)
    assert multiply_adds(method, 16, epoch=0) < multiply_adds(method, 16, epoch=1) / 2


def test_log_receives_the_whole_history_after_a_resume_and_after_each_epoch(fit):
    lengths = []
    fit(Toy(), epochs=2, log=lambda history: lengths.append(len(history)))
    fit(Toy(), epochs=4, log=lambda history: lengths.append(len(history)))
    assert lengths == [0, 1, 2, 2, 3, 4]


# --- augmentation -----------------------------------------------------------------------------------------------------


def test_augmentation_turns_zooms_and_shifts_each_image_on_its_own_by_at_most_what_is_asked():
    torch.manual_seed(0)
    centres = (torch.arange(64) + 0.5) / 32 - 1
    down, across = torch.meshgrid(centres, centres, indexing="ij")
    planes = (0.5 + 0.2 * across).repeat(50, 1, 1, 1)  # a plane stays one, and shows where it has been moved to
    inner = np.s_[16:48, 16:48]  # nothing from beyond an edge is here
    columns = np.stack([np.ones(32 * 32), across[inner].ravel(), down[inner].ravel()], axis=1)
    moved = augmented(planes, 0.1)[:, 0, *inner].reshape(50, -1).double().numpy()
    fit, misfit, *_ = np.linalg.lstsq(columns, moved.T, rcond=None)
    assert misfit.max() < 1e-4  # bicubic interpolation bends a plane a little
    shift, cosine, sine = (fit - [[0.5], [0], [0]]) / 0.2
    found = np.array([shift / 2, np.arctan2(sine, cosine), np.log(np.hypot(cosine, sine))])
    assert ((np.abs(found).max(axis=1) > 0.08) & (np.abs(found).max(axis=1) < 0.101)).all()
    assert ((found.min(axis=1) < -0.07) & (found.max(axis=1) > 0.07)).all()
    assert np.abs(np.corrcoef(found)[np.triu_indices(3, 1)]).max() < 0.4


def test_augmented_images_stay_in_range_and_a_uniform_one_stays_what_it_is():
    images = torch.rand(20, 1, 16, 16).round()
    assert augmented(images, 0.5).aminmax() == (0, 1)
    assert torch.allclose(augmented(torch.full((3, 1, 8, 8), 0.3), 0.5), torch.tensor(0.3))


def test_training_sees_augmented_images_each_time_anew_and_validation_sees_none(fit, images):
    seen = []

    class Looking(Toy):
        def moves(self, images, epoch=0):
            if len(images) == 9:
                seen.append(images.clone())
            yield from super().moves(images, epoch)

        def reconstruct(self, images):
            assert any(torch.equal(images[0], to_unit(one[None], CPU)[0]) for one in originals)
            return super().reconstruct(images)

    originals = images[:5]
    fit(Looking(), epochs=2, batch_size=9, augmentation=0.1)
    first, second = (batch.flatten(1).sort(dim=0).values for batch in seen)
    assert not torch.allclose(first, second, atol=1e-3)


# --- the average of the weights ---------------------------------------------------------------------------------------


def test_the_average_of_the_weights_is_what_is_validated_kept_and_left_in_the_method(fit, images, tmp_path):
    class Remembering(Toy):
        def moves(self, images, epoch=0):
            yield from super().moves(images, epoch)
            if len(images) == 4:  # a batch, and not what counts multiply-adds
                weights.append(self.network.weight.item())

    weights, method, measured = [], Remembering(), []
    settings = {"learning_rate": 0.1, "average_decay": 0.25, "keep_after": [1]}
    rows = fit(method, **settings, measure=lambda m, _: measured.append(m.network.weight.item()) or {})
    average, averages = 0.5, []
    for n, weight in enumerate(weights):
        decay = min(0.25, (1 + n) / (10 + n))
        average = decay * average + (1 - decay) * weight
        averages.append(average)
    assert measured == pytest.approx(averages[1::2], rel=1e-5)  # two batches an epoch
    assert method.network.weight.item() == pytest.approx(averages[-1], rel=1e-5)
    first = read(tmp_path / "here.1.pt")["method"]["network.weight"].item()
    assert first == pytest.approx(averages[1], rel=1e-5) != pytest.approx(weights[1], rel=1e-3)
    residual = np.mean(images[:5] / 255.0) * (1 - averages[-1])
    assert rows[-1]["validation/residual"] == pytest.approx(residual, rel=1e-4)


def test_running_statistics_are_averaged_too(fit, tmp_path):
    plain, averaged = build("unet"), build("unet")
    fit(plain, epochs=1, batch_size=9)  # one batch: the decay is 1 in 10
    initial = {name: statistic.clone() for name, statistic in averaged.named_buffers()}
    fit(averaged, epochs=1, batch_size=9, average_decay=0.5, checkpoint=tmp_path / "averaged.pt")
    for name, statistic in plain.named_buffers():
        now = averaged.get_buffer(name)
        expected = 0.1 * initial[name] + 0.9 * statistic if statistic.is_floating_point() else statistic
        assert torch.allclose(now, expected, atol=1e-6), name


def test_what_is_measured_draws_no_number_that_training_would_have_drawn(fit, tmp_path):
    def trained(measure) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        method = build("ra")
        fit(method, measure=measure, checkpoint=tmp_path / measure.__name__)
        return method.state_dict()

    def nothing(method, epochs):
        return {}

    def opens_a_network(method, epochs):
        nn.Linear(3, 3)
        return {}

    assert not differences(trained(nothing), trained(opens_a_network))


def test_what_is_measured_stands_in_the_history_and_costs_no_budget(fit, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(training.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(training.time, "process_time", lambda: next(clock))

    def measure(method, epochs):
        assert not method.training
        for _ in range(100):
            next(clock)
        return {"health/residual": 1.0 * epochs} if epochs == 2 else {}

    rows = fit(Toy(), measure=measure)
    assert ["health/residual" in row for row in rows] == [False, True]
    assert rows[1]["health/residual"] == 2
    assert rows[1]["seconds"] < 100 > rows[1]["cpu_seconds"]


class Stream:
    """Images of which half arrive, and the others only once `come` is set; like an array."""

    def __init__(self, images: np.ndarray) -> None:
        self.images, self.shape, self.come = images, images.shape, threading.Event()
        self.arrival = np.arange(len(images)) // (len(images) // 2)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows):
        assert not self.arrival[rows].any() or self.come.wait(timeout=20), "an image was asked for before it could come"
        return self.images[rows]


def test_training_begins_before_all_images_have_arrived(fit):
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


def test_a_streams_first_epoch_is_shuffled_within_its_shards_and_later_epochs_across_them(fit, tmp_path):
    stream, method, plain = Stream(greys(40)), Watched(), Watched()
    stream.come.set()
    fit(method, stream)
    fit(plain, stream.images, checkpoint=tmp_path / "plain.pt")
    assert sorted(method.order[:40]) == list(range(40)) and method.order[:20] != sorted(method.order[:20])
    assert max(method.order[:20]) == 19
    assert method.order[40:] == plain.order[40:]
    assert method.order[:20] == [i for i in plain.order[:40] if i < 20]


def test_fewer_images_than_a_batch_are_refused_with_both_numbers(fit, images, tmp_path):
    with pytest.raises(ValueError, match=r"3 training images.*batch_size=4"):
        fit(Toy(), images[:3])
    assert not (tmp_path / "here.pt").exists()


# --- multiply-adds ----------------------------------------------------------------------------------------------------


def test_multiply_adds_are_those_of_a_hand_count():
    first = 9 * 1 * 3 * 6 * 6  # kernel, channels in and out, and the pixels that an 8x8 image leaves
    assert multiply_adds(Convolutions(1), 8) == 2 * first  # forward, and the weights' gradient
    second = 9 * 3 * 3 * 4 * 4
    assert multiply_adds(Convolutions(2), 8) == 2 * first + 3 * second  # and the gradient that the second hands down


def test_multiply_adds_include_every_move_and_passes_through_other_parts():
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
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_epoch(bad, fit, tmp_path):
    with pytest.raises(Diverged, match=rf"toy .*epoch 2: network/other={bad}; .*epoch 1, is in .*here\.pt"):
        fit(Diverging(bad), epochs=5, name="toy")
    state = read(tmp_path / "here.pt")
    assert [row["epoch"] for row in state["history"]] == [0, 1]
    assert state["method"]["network.weight"].isfinite().all()


def test_a_run_that_diverges_at_once_leaves_no_checkpoint(fit, tmp_path):
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


def test_weights_that_are_not_finite_are_found_by_the_validation_residual(fit, tmp_path):
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
def test_other_precisions_use_no_gradient_scaling(precision, fit, tmp_path):
    fit(Toy(), precision=precision)
    assert read(tmp_path / "here.pt")["scalers"] == {"network": {}}


@each_method
@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_half_precision_trains_like_float32_and_keeps_its_weights(name, precision, fit, tmp_path):
    full = fit(build(name), checkpoint=tmp_path / "full.pt")
    half = fit(build(name), precision=precision)
    for key in full[-1].keys() - {"seconds", "cpu_seconds"}:
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


def test_a_processor_of_unknown_abilities_trains_in_float32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert choose_precision("auto", CPU) is torch.float32


@pytest.mark.parametrize(("native", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_a_card_that_only_emulates_bfloat16_trains_in_float16(native, expected, monkeypatch):
    # A T4: `including_emulation`, the default, would say yes.
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or native)
    assert choose_precision("auto", torch.device("cuda")) is expected


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_an_explicit_precision_is_used(name):
    assert choose_precision(name, CPU) is getattr(torch, name)


def test_without_a_card_auto_means_cpu_and_cuda_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == CPU
    with pytest.raises(ValueError, match=r"device='cuda'.*write device: cpu"):
        choose_device("cuda")


def test_with_a_card_auto_means_cuda(monkeypatch):
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


@each_method
def test_running_statistics_move_in_training_and_not_in_reconstruction(name):
    method, images = build(name), torch.rand(4, 1, 16, 16)
    fresh = {name: buffer.clone() for name, buffer in method.named_buffers()}
    list(method.moves(images))
    trained = {name: buffer.clone() for name, buffer in method.named_buffers()}
    assert fresh and not any(torch.equal(fresh[name], trained[name]) for name in fresh)
    method.eval().reconstruct(images)
    assert all(torch.equal(trained[name], buffer) for name, buffer in method.named_buffers())
