"""Promises of `lib.runs.timing`: what is timed once is extrapolated to all images, resamples and methods."""

import copy

import pytest
import torch
from small import divided, params, prepared

from lib.methods.variants import VARIANTS
from lib.runs import timing
from lib.runs.timing import expected_seconds, expected_work


def test_the_work_of_a_run_is_what_was_timed_times_how_often_it_is_done(monkeypatch):
    def one_second(work) -> float:
        work()
        return 1.0

    monkeypatch.setattr(timing, "quickest", one_second)
    monkeypatch.setattr(timing, "expected_seconds", lambda *_: 7.0)
    settings = params(
        methods=["unet", "ra"], epochs=4, choose_from=[2], references=["pca"], backbone="none", resamples=300
    )
    images = prepared(divided())
    work = expected_work(settings, images)
    assert list(work) == ["train unet", "train ra", "score", "evaluate", "audit"]
    assert work["train ra"] == ("training of ra", 7.0)
    scored = len(images.split.test) + 2 * len(images.split.validation)
    timed = min(16, len(images.split.validation))
    assert work["score"].seconds == pytest.approx(scored * (2 * 2 + 2) / timed)  # two kept epochs of either method
    assert work["evaluate"].seconds == pytest.approx(3 * (5 * 2 + 1))
    assert work["audit"].seconds == pytest.approx(3 * 40 * 2)


@pytest.mark.parametrize("name", ["unet", "ra"])
def test_expected_seconds_grows_with_the_batches_and_leaves_method_and_generators_unchanged(name):
    settings, cpu = params(batch_size=4, epochs=1), torch.device("cpu")
    method = VARIANTS[name](settings)
    before, state = copy.deepcopy(method.state_dict()), torch.get_rng_state()
    assert expected_seconds(method, settings, 0, cpu) == 0 < expected_seconds(method, settings, 10, cpu)
    assert all(torch.equal(before[key], value) for key, value in method.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_the_precision_that_is_timed_is_the_one_that_is_asked_for(monkeypatch):
    asked = []
    step = timing.train_step
    monkeypatch.setattr(timing, "train_step", lambda *words: (asked.append(words[-1]), step(*words))[1])
    for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        settings = params(batch_size=4, epochs=1, precision=precision)
        expected_seconds(VARIANTS["unet"](settings), settings, 1, torch.device("cpu"))
        assert set(asked) == {dtype}
        asked.clear()
