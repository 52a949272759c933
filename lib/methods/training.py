"""One training loop for every method; it does not know which one it trains.

`train_step` updates it on one batch, `multiply_adds` counts what that costs.
"""

import copy
import math
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.amp import GradScaler
from torch.nn import functional as F
from torch.optim import Adam
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from lib.allocator import keep_freed_memory
from lib.data.source import ImageStack
from lib.methods.checkpoint import Checkpoint, History, kept, kept_file
from lib.methods.method import Images, Losses, Method, TrainingError, to_device, to_unit
from lib.refusals import Refusal


class Diverged(Refusal):
    """A loss or the validation residual is NaN or infinite."""


def choose_device(name: str = "auto") -> torch.device:
    """Return the device of that name; "auto" is a CUDA card if there is one, else the CPU.

    Raises:
        TrainingError: The name is "cuda", and torch finds no card.

    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainingError("device='cuda', but torch finds no CUDA card: write device: cpu, or auto")
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the type that convolutions train in; "auto" is bfloat16 if the hardware computes in it.

    A card that only emulates bfloat16, such as a T4, is slow in it; "auto" is then float16. On a CPU without bfloat16
    it is float32.
    """
    if name != "auto":
        return getattr(torch, name)
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    ask_cpu = getattr(torch.cpu, "get_capabilities", dict)  # torch 2.6, the oldest that we support, lacks it
    abilities: Mapping[str, bool] = ask_cpu()
    native = any(abilities.get(ability) for ability in ("avx512_bf16", "amx_bf16", "bf16"))
    return torch.bfloat16 if native else torch.float32


def train(
    method: Method,
    images: ImageStack,
    validation: ImageStack,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    checkpoint: Path,
    settings: Mapping[str, Any],
    device: torch.device,
    precision: torch.dtype,
    augmentation: float = 0.0,
    average_decay: float = 0.0,
    keep_after: Collection[int] = (),
    measure: Callable[[Method, int], Mapping[str, float]] = lambda method, epochs: {},
    log: Callable[[History], None] = lambda history: None,
    name: str = "",
) -> History:
    """Train on normal images, resuming from `checkpoint` if it exists; return the history, one entry per epoch.

    `images` and `validation` are like arrays (n, height, width) uint8. With `augmentation` above 0 a training image is
    changed anew each time (`augmented`). The method is left in evaluation mode, with the weights that are validated and
    kept: the last ones, or with `average_decay` in (0, 1) an exponential moving average of all weights and running
    statistics, by that decay a batch (`_average`).

    An entry holds the mean of each loss as "part/loss", the mean absolute residual of the validation normals, and the
    budget so far: images seen, optimizer steps, multiply-adds, seconds, seconds of CPU time. `measure` adds numbers of
    its own by name; it gets the validated method in evaluation mode, and the number of epochs, and costs no budget. The
    order of the images depends on seed and epoch alone, in the first epoch also on a stream's shards; the checkpoint
    holds the state of torch's generators. So a resumed run equals an uninterrupted one to the last bit. After each
    number of epochs in `keep_after` the weights are kept beside the checkpoint (`kept`). `log` is called with the
    history before the first new epoch and after each epoch.

    Raises:
        TrainingError: There are fewer images than a batch holds, or no validation images.
        CheckpointError: The checkpoint is damaged, or has other `settings` or more epochs; kept weights are missing or
            damaged; or weights are NaN or infinite.
        Diverged: A loss or the validation residual is NaN or infinite; the last good epoch is in `checkpoint`.

    """
    if len(images) < batch_size:
        raise TrainingError(
            f"{len(images)} training images are fewer than batch_size={batch_size}: lower it, or add images"
        )
    if not len(validation):
        raise TrainingError("there are no validation images: raise validation_fraction, or add normal images")
    torch.backends.cudnn.deterministic = True  # without it, a resumed run on a card differs from an uninterrupted one
    keep_freed_memory()
    to_device(method, device)
    optimizers = optimizers_of(method, learning_rate)
    scalers = {part: GradScaler(device.type, enabled=precision is torch.float16) for part in optimizers}
    torch.manual_seed(seed)
    validated = copy.deepcopy(method) if average_decay else method
    resolved = str(precision).removeprefix("torch.")
    state = Checkpoint(checkpoint, method, validated, optimizers, scalers, settings, resolved)
    history = state.resume(epochs)
    if not kept_file(checkpoint, len(history)).is_file():  # the copy to another disk may have been cut short
        state.keep_weights(history, keep_after)
    kept(checkpoint, min(len(history) + 1, epochs), keep_after)
    log(history)
    batches = len(images) // batch_size
    with tqdm(
        total=epochs * batches, initial=len(history) * batches, desc=name, unit="batch", mininterval=1, leave=False
    ) as progress:
        for epoch in range(len(history), epochs):
            start, cpu_start = time.perf_counter(), time.process_time()
            sums: dict[str, Any] = defaultdict(float)
            method.train()
            order = _order(images, seed, epoch)[: batches * batch_size].reshape(batches, batch_size)
            for step, batch in enumerate(order, epoch * batches):
                batch_images = to_unit(images[batch], device)
                if augmentation:
                    batch_images = augmented(batch_images, augmentation)
                losses = train_step(method, optimizers, scalers, batch_images, epoch, precision)
                for loss, value in losses.items():
                    sums[loss] += value  # read once per epoch: reading waits for the device
                if average_decay:
                    _average(validated, method, min(average_decay, (1 + step) / (10 + step)))
                progress.update()
            means = {loss: float(total) / batches for loss, total in sums.items()}
            means["validation/residual"] = _residual(validated, validation, batch_size, device, precision)
            if not all(map(math.isfinite, means.values())):
                bad = ", ".join(f"{loss}={value}" for loss, value in means.items() if not math.isfinite(value))
                good = f"the last good one, epoch {epoch - 1}, is in {checkpoint}" if history else "no epoch was good"
                raise Diverged(f"{name or 'training'} diverged in epoch {epoch}: {bad}; {good}. Lower learning_rate")
            spent = {
                "seconds": time.perf_counter() - start,
                "cpu_seconds": time.process_time() - cpu_start,
                "images_seen": batches * batch_size,
                "steps": batches * len(optimizers),
                "multiply_adds": batches * batch_size * multiply_adds(method, images.shape[-1], epoch),
            }
            before = history[-1] if history else dict.fromkeys(spent, 0)
            with torch.random.fork_rng():  # what is measured, and when, has no part in what is learnt
                means |= measure(validated, epoch + 1)
            history.append({"epoch": epoch, **means, **{key: before[key] + spent[key] for key in spent}})
            state.keep_weights(history, keep_after)
            state.save(history)
            log(history)
            progress.set_postfix_str(f"epoch {epoch + 1}, validation residual {means['validation/residual']:.4f}")
    method.load_state_dict(validated.state_dict())
    method.eval()
    return history


def optimizers_of(method: Method, learning_rate: float) -> dict[str, Adam]:
    """Return an optimizer for each part of the method; it updates all weights of a part in one call."""
    return {part: Adam(module.parameters(), learning_rate, fused=True) for part, module in method.named_children()}


def train_step(
    method: Method,
    optimizers: Mapping[str, Adam],
    scalers: Mapping[str, GradScaler],
    images: Images,
    epoch: int,
    precision: torch.dtype,
) -> Losses:
    """Make the method's updates on one batch, with each part's own optimizer; return the losses as "part/loss"."""
    done = {}
    for part, losses in _moves(method, images, epoch, _autocast(images.device, precision)):
        _update(optimizers[part], scalers[part], getattr(method, part), losses)
        for loss in list(losses):  # emptied, so that the next move does not hold what this one has computed
            done[f"{part}/{loss}"] = losses.pop(loss).detach()
    return done


def augmented(images: Images, most: float) -> Images:
    """Return each image turned about its centre, zoomed and shifted at random, the same for all its pixels.

    The angle in radians, the logarithm of the zoom, and the shift along either axis as a share of the side are uniform
    between -`most` and `most`. Interpolation is bicubic, and values at the edges continue beyond them. Nothing is
    mirrored: a heart on the right is a finding.
    """
    angle, zoom, across, down = most * (2 * torch.rand(4, len(images), device=images.device) - 1)
    cosine, sine = zoom.exp() * angle.cos(), zoom.exp() * angle.sin()
    affine = torch.stack([cosine, -sine, 2 * across, sine, cosine, 2 * down], dim=1).view(-1, 2, 3)  # a side is 2 long
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, mode="bicubic", padding_mode="border", align_corners=False)
    return moved.clamp(0, 1)


def multiply_adds(method: Method, image_size: int, epoch: int = 0) -> int:
    """Return the multiply-adds of training on one image in that epoch, forward and backward, as torch counts them."""
    method = copy.deepcopy(method).train()
    device = next(method.parameters()).device
    with torch.random.fork_rng(), FlopCounterMode(display=False) as counter:
        for part, losses in method.moves(torch.rand(2, 1, image_size, image_size, device=device), epoch):
            losses["total"].backward(inputs=list(getattr(method, part).parameters()), retain_graph=True)
    return counter.get_total_flops() // 2 // 2  # two operations per multiply-add, two images


def _autocast(device: torch.device, precision: torch.dtype) -> AbstractContextManager:
    return torch.autocast(device.type, dtype=precision, enabled=precision is not torch.float32)


def _moves(
    method: Method, images: Images, epoch: int, autocast: AbstractContextManager
) -> Iterator[tuple[str, Losses]]:
    """Run the method's moves under `autocast`, which is left after each of them.

    Inside it, autocast keeps half-precision copies of the weights. A single autocast around all moves would show the
    second move the weights from before the first update.
    """
    moves = method.moves(images.contiguous(memory_format=torch.channels_last), epoch)
    while True:
        with autocast:
            move = next(moves, None)
        if move is None:
            return
        yield move


def _update(optimizer: Adam, scaler: GradScaler, part: nn.Module, losses: Losses) -> None:
    """Take one step in `part`'s parameters, leaving every other gradient untouched.

    What has been computed is kept, for a later move that shares it.
    """
    optimizer.zero_grad()
    scaler.scale(losses["total"]).backward(inputs=list(part.parameters()), retain_graph=True)
    scaler.step(optimizer)
    scaler.update()


@torch.no_grad()
def _average(average: Method, method: Method, decay: float) -> None:
    """Move the average towards the method's weights and running statistics, by 1 - `decay` of the way.

    The loop lets the decay grow with the number of batches n, as min(decay, (1 + n) / (10 + n)): early averages forget
    the initial weights soon. Integers, which count batches, are copied.
    """
    for mean, value in zip(average.state_dict().values(), method.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)


def _order(images: ImageStack, seed: int, epoch: int) -> np.ndarray:
    """Return the order of the images in an epoch; the first takes a stream shard by shard, as the shards arrive."""
    order = np.random.default_rng([seed, epoch]).permutation(len(images))
    arrival = getattr(images, "arrival", None)
    return order if epoch or arrival is None else order[np.argsort(arrival[order], kind="stable")]


@torch.no_grad()
def _residual(
    method: Method, images: ImageStack, batch_size: int, device: torch.device, precision: torch.dtype
) -> float:
    """Return the mean absolute residual of the images, in evaluation mode."""
    method.eval()
    total = 0.0
    for start in range(0, len(images), batch_size):
        batch = to_unit(images[start : start + batch_size], device)
        with _autocast(device, precision):
            total += (batch - method.reconstruct(batch)).abs().mean().item() * len(batch)
    return total / len(images)
