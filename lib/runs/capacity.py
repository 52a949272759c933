"""Whether the memory that is free suffices to train a run's methods: asked before the first of them begins."""

import resource
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
import torch

from lib.methods.method import TrainingError
from lib.methods.training import choose_device, choose_precision
from lib.methods.variants import VARIANTS
from lib.params import Params
from lib.runs.memory import training_memory

CONTAINER = Path("/sys/fs/cgroup")


def free_memory(device: torch.device) -> int:
    """Return the bytes that this process can still take on the device: of the machine, or of a limit on its own."""
    if device.type == "cuda":
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + idle
    free = [psutil.virtual_memory().available + psutil.swap_memory().free]
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most != resource.RLIM_INFINITY:
        free.append(most - psutil.Process().memory_info().vms)
    with suppress(OSError, ValueError, KeyError):  # no container, or "max"
        limit = int((CONTAINER / "memory.max").read_text())
        pages = dict(line.split() for line in (CONTAINER / "memory.stat").read_text().splitlines())
        free.append(limit - int(pages["anon"]))  # the pages of files are given up
    return max(min(free), 0)


def check_memory(params: Params) -> None:
    """Raise TrainingError if training one of the settings' methods takes more memory than is free.

    What is compared is the least that it takes: the half, where it trains in half precision.
    """
    device = choose_device(params.device)
    half = choose_precision(params.precision, device) is not torch.float32
    free = free_memory(device)
    for name in params.methods:
        build = partial(VARIANTS[name], params)
        wanted = training_memory(build, params.image_size, params.batch_size, params.epochs - 1)
        if not wanted:
            continue
        batch = wanted.batch // 2 if half else wanted.batch
        if wanted.weights + batch > free:
            raise TrainingError(
                f"{name} takes at least {_gigabytes(wanted.weights + batch)} to train, and {device} has "
                f"{_gigabytes(free)} free: {_gigabytes(wanted.weights)} for weights, gradients and Adam's means "
                f"(widths={params.widths}, latent_dim={params.latent_dim}), {_gigabytes(batch)} for a batch "
                f"(batch_size={params.batch_size}, image_size={params.image_size}): write smaller numbers"
            )


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:,.1f} GB"
