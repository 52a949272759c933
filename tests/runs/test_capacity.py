"""Training that the free memory cannot hold is refused before it begins, and no other."""

import resource

import psutil
import pytest
import torch
from small import divided, params, prepared

from lib.methods.method import TrainingError
from lib.runs import capacity
from lib.runs.capacity import check_memory, free_memory
from lib.runs.memory import Memory
from lib.runs.run import Run
from lib.runs.tracking import open_tracker
from lib.runs.train import train

CPU, MILLION = torch.device("cpu"), 10**6


def test_what_training_takes_at_least_is_set_against_what_is_free(monkeypatch):
    monkeypatch.setattr(capacity, "training_memory", lambda *_: Memory(weights=400 * MILLION, batch=800 * MILLION))
    monkeypatch.setattr(capacity, "free_memory", lambda device: 1_200 * MILLION)
    check_memory(params())
    monkeypatch.setattr(capacity, "free_memory", lambda device: 1_200 * MILLION - 1)
    wanted = (
        r"unet takes at least 1\.2 GB to train, and cpu has 1\.2 GB free: 0\.4 GB for weights, gradients and Adam's "
        r"means \(widths=\[4\], latent_dim=64\), 0\.8 GB for a batch \(batch_size=8, image_size=16\): write smaller"
    )
    with pytest.raises(TrainingError, match=wanted):
        check_memory(params())
    check_memory(params(precision="bfloat16"))  # a batch takes the half


def test_a_method_whose_memory_is_not_known_is_trained(monkeypatch):
    monkeypatch.setattr(capacity, "training_memory", lambda *_: None)
    monkeypatch.setattr(capacity, "free_memory", lambda device: 0)
    check_memory(params())


def test_no_method_is_trained_if_a_later_one_will_not_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(
        capacity, "training_memory", lambda build, *_: Memory(0, 10 if hasattr(build(), "encoder") else 1)
    )
    monkeypatch.setattr(capacity, "free_memory", lambda device: 5)
    settings = params(methods=["unet", "ra"])
    with Run.start(settings, tmp_path) as run, pytest.raises(TrainingError, match="ra takes at least"):
        train(run, "unet", prepared(divided()), open_tracker(settings, run.folder))
    assert not any((run.folder / "checkpoints").glob("*"))


def test_absurd_sizes_are_refused_in_a_sentence_on_this_machine():
    with pytest.raises(TrainingError, match=r"unet takes at least [\d,]+\.\d GB to train, and cpu has .*: write small"):
        check_memory(params(image_size=1024, batch_size=4096, widths=[512, 512]))


def test_the_free_memory_is_that_of_the_machine_unless_a_limit_leaves_less(tmp_path, monkeypatch):
    everything = psutil.virtual_memory().total + psutil.swap_memory().total
    monkeypatch.setattr(capacity, "CONTAINER", tmp_path)
    assert 0 < free_memory(CPU) <= everything
    (tmp_path / "memory.stat").write_text("anon 7000\nfile 5000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory(CPU) > 10 * MILLION
    (tmp_path / "memory.max").write_text("10000\n")
    assert free_memory(CPU) == 3000
    (tmp_path / "memory.max").write_text("6000\n")
    assert free_memory(CPU) == 0
    (tmp_path / "memory.stat").unlink()
    assert free_memory(CPU) > 10 * MILLION
    (tmp_path / "memory.max").unlink()
    taken = psutil.Process().memory_info().vms
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (taken + MILLION, resource.RLIM_INFINITY))
    assert free_memory(CPU) <= 2 * MILLION


def test_a_cards_free_memory_is_what_it_has_and_what_torch_holds_in_reserve(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (5 * MILLION, 16 * MILLION))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 4 * MILLION)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: MILLION)
    assert free_memory(torch.device("cuda")) == 8 * MILLION
