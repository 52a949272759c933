"""Images a second in training, relative to a plain float32 step: of RA as the authors make it, of others in our order.

Beside each stand the multiply-adds of an image and the share of this machine's ceiling that they reach. The ceiling is
the highest rate of a 3x3 convolution of 256 channels with channels last, forward and backward, in the same precision
and measured in the same minute.
"""

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import NamedTuple

import torch
from torch import nn
from torch.amp import GradScaler
from torch.optim import Adam

from benchmarks.authors import authors_step, contiguous
from benchmarks.measuring import Figure, compared, in_turns, memory
from lib.allocator import keep_freed_memory
from lib.methods.method import to_device
from lib.methods.ra import ReversedAutoencoder
from lib.methods.training import choose_device, choose_precision, multiply_adds, optimizers_of, train_step
from lib.methods.variants import VARIANTS
from lib.params import Params


class Setting(NamedTuple):
    """A size of network and batch, and the threads that train it."""

    image_size: int
    widths: list[int]
    batch_size: int
    threads: int
    normalisation: str
    laps: int

    def __str__(self) -> str:
        widths = "-".join(map(str, self.widths))
        return f"{self.image_size} px, {widths}, {self.normalisation}, batch {self.batch_size}, {self.threads} threads"


SETTINGS = [
    Setting(64, [8, 16, 32, 64], 16, 1, "group", 7),
    Setting(64, [16, 32, 64, 128], 32, 1, "batch", 3),
    Setting(64, [16, 32, 64, 128], 32, 2, "batch", 3),
    Setting(128, [64, 128, 256, 512, 512], 8, 2, "batch", 2),
]
METHODS = ("ra", "vae", "unet")
EPOCH = Params(preset="standard").epochs - 1  # in which RA plays its game


def params_of(setting: Setting) -> Params:
    """Return the setting as a run has it."""
    return Params(
        preset="standard",
        image_size=setting.image_size,
        widths=setting.widths,
        batch_size=setting.batch_size,
        normalisation=setting.normalisation,
    )


def ceiling(precision: torch.dtype, device: torch.device) -> Callable[[], float]:
    """Return a call for the multiply-adds a second of a convolution: forward, towards inputs and towards weights."""
    batch, channels, size = 8, 256, 32
    layer = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
    to_device(layer, device)
    layer.to(precision)
    features = torch.rand(batch, channels, size, size, device=device, dtype=precision)
    features = features.contiguous(memory_format=torch.channels_last).requires_grad_()
    changes = torch.rand_like(features)

    def rate() -> float:
        fastest = math.inf
        for _ in range(CEILING_PASSES):
            start = time.perf_counter()
            layer(features).backward(changes)
            if device.type == "cuda":
                torch.cuda.synchronize()
            fastest = min(fastest, time.perf_counter() - start)
            layer.weight.grad = features.grad = None
        return 3 * batch * size**2 * 9 * channels**2 / fastest

    return rate


CEILING_PASSES = 10


def ours(name: str, params: Params, precision: torch.dtype, device: torch.device) -> Callable[[], object]:
    """Return a training step as the loop makes it, on a batch of noise."""
    torch.manual_seed(0)
    method = VARIANTS[name](params).train()
    to_device(method, device)
    optimizers = optimizers_of(method, params.learning_rate)
    scalers = {part: GradScaler(device.type, enabled=precision is torch.float16) for part in optimizers}
    images = torch.rand(params.batch_size, 1, params.image_size, params.image_size, device=device)
    return lambda: train_step(method, optimizers, scalers, images, EPOCH, precision)


def plain(name: str, params: Params, device: torch.device) -> Callable[[], object]:
    """Return a training step in float32 with contiguous features; RA's is the authors'."""
    torch.manual_seed(0)
    method = contiguous(VARIANTS[name](params).train().to(device))
    optimizers = {part: Adam(module.parameters()) for part, module in method.named_children()}
    images = torch.rand(params.batch_size, 1, params.image_size, params.image_size, device=device)

    def step() -> None:
        if isinstance(method, ReversedAutoencoder) and name == "ra":
            authors_step(method, optimizers["encoder"], optimizers["decoder"], images)
            return
        for part, losses in method.moves(images, EPOCH):
            optimizers[part].zero_grad()
            losses["total"].backward(inputs=list(getattr(method, part).parameters()), retain_graph=True)
            optimizers[part].step()

    return step


def peak(name: str, params: Params, is_ours: bool) -> float:
    """Return by how many MiB two steps raise the memory of a process of their own."""
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_raised, name, params, is_ours).result()


def _raised(name: str, params: Params, is_ours: bool) -> float:
    cpu = torch.device("cpu")
    before = memory("VmHWM")
    step = ours(name, params, torch.float32, cpu) if is_ours else plain(name, params, cpu)
    step()
    step()
    return memory("VmHWM") - before


def figures(quick: bool) -> Iterator[Figure]:
    """Yield the speed of each method at each size; `quick` takes the first size and few laps."""
    device = choose_device()
    precisions = {"float32": torch.float32, "auto": choose_precision("auto", device)}
    if precisions["auto"] is torch.float32:
        del precisions["auto"]
    threads = torch.get_num_threads()
    keep_freed_memory()  # as a run does; the plain step profits, too
    for setting in SETTINGS[:1] if quick else SETTINGS:
        torch.set_num_threads(setting.threads)
        params = params_of(setting)
        for name in METHODS:
            what, cost = f"{name}, {setting}", multiply_adds(VARIANTS[name](params), params.image_size, EPOCH)
            calls = {"plain": plain(name, params, device)}
            calls |= {label: ours(name, params, precision, device) for label, precision in precisions.items()}
            seconds = in_turns(calls, 2 if quick else setting.laps, what)
            for label, precision in precisions.items():
                at_most = ceiling(precision, device)()
                speed = {"own": label, "reference": "plain", "amount": params.batch_size, "unit": "images/s"}
                figure = compared("step", f"{what}, {label}", seconds, **speed)
                yield figure
                reached = figure.value * cost
                yield Figure("step", f"{what}, {label}: share of the ceiling", 100 * reached / at_most, "%")
            yield Figure("step", f"{what}: multiply-adds of an image", cost / 1e9, "10^9")
            if not quick:
                ours_peak, plain_peak = (peak(name, params, is_ours) for is_ours in (True, False))
                ratio = plain_peak / ours_peak
                yield Figure("step", f"{what}: memory", ours_peak, "MiB", "plain", ratio, ratio, ratio)
    torch.set_num_threads(threads)
