"""One loop for every method: nothing in it knows which one it trains. A checkpoint after every epoch, exact resume."""

import copy
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.amp import GradScaler
from torch.optim import Adam
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from lib.cache import Films
from lib.dataset import to_unit
from lib.files import replacing
from lib.method import Images, Losses, Method


class Diverged(RuntimeError):
    """A loss is no longer a number."""


class TrainingError(ValueError):
    """Training cannot begin."""


class CheckpointError(TrainingError):
    """A checkpoint belongs to another run, or is further than asked for."""


def choose_device(name: str = "auto") -> torch.device:
    """Return the device; `auto` takes a CUDA card where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainingError("device='cuda', but torch finds no CUDA card here: write device: cpu, or auto")
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the type that convolutions train in; `auto` takes bfloat16 where the hardware has it natively.

    A T4 only emulates it, slowly: there `auto` takes float16. A processor without it trains in float32.
    """
    if name != "auto":
        return getattr(torch, name)
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    of_cpu = getattr(torch.cpu, "get_capabilities", dict)  # newer than the oldest torch that the project takes
    able: Mapping[str, bool] = of_cpu()
    return torch.bfloat16 if able.get("avx512_bf16") or able.get("amx_bf16") or able.get("bf16") else torch.float32


def train(
    method: Method,
    images: np.ndarray | Films,
    validation: np.ndarray | Films,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    checkpoint: Path,
    settings: Mapping[str, Any],
    device: torch.device,
    precision: torch.dtype,
    keep_every: int = 0,
    log: Callable[[list[dict[str, float]]], None] = lambda history: None,
    name: str = "",
) -> list[dict[str, float]]:
    """Train on normal images, from `checkpoint` on if it exists; return one row an epoch.

    `images` and `validation` are like arrays (n, height, width) uint8. The method is left in evaluation mode.

    A row holds the mean of each loss as "part/loss", the mean absolute residual of the validation normals, and the
    budget so far: images seen, optimizer steps, multiply-adds, seconds. The order of the images is a function of
    (seed, epoch), in the first epoch also of a stream's shards, and the generator's state is in the checkpoint, so that
    a resumed run equals an uninterrupted one to the last bit. With `keep_every` the weights after every so many epochs
    stay beside the checkpoint (`kept`). `log` is called with all rows so far: after a resume, and
    after each epoch.

    Raises:
        TrainingError: There are fewer images than a batch holds, or none to validate on.
        CheckpointError: The checkpoint was trained under other `settings`, or for more epochs, or lacks kept weights.
        Diverged: A loss or the validation residual is NaN or infinite; the last good epoch is in `checkpoint`.

    """
    if len(images) < batch_size:
        raise TrainingError(
            f"{len(images)} training images are fewer than batch_size={batch_size}: lower it, or add images"
        )
    if not len(validation):
        raise TrainingError("there are no validation images: raise validation_fraction, or add normal images")
    torch.backends.cudnn.deterministic = True  # or a resumed run differs from an uninterrupted one on a card
    settings = {**settings, "precision": str(precision).removeprefix("torch.")}  # the one that `auto` has become
    method.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch has it undeclared
    parts = dict(method.named_children())
    optimizers = {part: Adam(module.parameters(), learning_rate) for part, module in parts.items()}
    scalers = {part: GradScaler(device.type, enabled=precision is torch.float16) for part in parts}
    torch.manual_seed(seed)
    history = _resume(checkpoint, method, optimizers, scalers, settings, epochs)
    if not _kept(checkpoint, len(history)).is_file():  # cut short on its way to another disk
        _keep(checkpoint, method, len(history), keep_every)
    kept(checkpoint, min(len(history) + 1, epochs), keep_every)
    log(history)
    batches = len(images) // batch_size
    with tqdm(
        total=epochs * batches, initial=len(history) * batches, desc=name, unit="batch", mininterval=1
    ) as progress:
        for epoch in range(len(history), epochs):
            start = time.perf_counter()
            sums: dict[str, Any] = defaultdict(float)
            method.train()
            for batch in _order(images, seed, epoch)[: batches * batch_size].reshape(batches, batch_size):
                for part, losses in _moves(method, to_unit(images[batch], device), epoch, _autocast(device, precision)):
                    _update(optimizers[part], scalers[part], parts[part], losses)
                    for loss, value in losses.items():
                        sums[f"{part}/{loss}"] += value.detach()  # read once an epoch: reading waits for the device
                progress.update()
            row = {loss: float(total) / batches for loss, total in sums.items()}
            row["validation/residual"] = _residual(method, validation, batch_size, device, precision)
            if not all(map(math.isfinite, row.values())):
                bad = ", ".join(f"{loss}={value}" for loss, value in row.items() if not math.isfinite(value))
                good = f"the last good one, epoch {epoch - 1}, is in {checkpoint}" if history else "no epoch was good"
                raise Diverged(f"{name or 'training'} diverged in epoch {epoch}: {bad}; {good}. Lower learning_rate")
            spent = {
                "seconds": time.perf_counter() - start,
                "images_seen": batches * batch_size,
                "steps": batches * len(parts),
                "multiply_adds": batches * batch_size * multiply_adds(method, images.shape[-1], epoch),
            }
            before = history[-1] if history else dict.fromkeys(spent, 0)
            history.append({"epoch": epoch, **row, **{key: before[key] + spent[key] for key in spent}})
            _keep(checkpoint, method, epoch + 1, keep_every)
            _save(checkpoint, method, optimizers, scalers, settings, history)
            log(history)
            progress.set_postfix_str(f"epoch {epoch + 1}, validation residual {row['validation/residual']:.4f}")
    method.eval()
    return history


def multiply_adds(method: Method, image_size: int, epoch: int = 0) -> int:
    """Return the multiply-adds of training on one image in that epoch, forward and backward, as torch counts them."""
    method = copy.deepcopy(method).train()
    device = next(method.parameters()).device
    with torch.random.fork_rng(), FlopCounterMode(display=False) as counter:
        for part, losses in method.moves(torch.rand(2, 1, image_size, image_size, device=device), epoch):
            losses["total"].backward(inputs=list(getattr(method, part).parameters()))
    return counter.get_total_flops() // 2 // 2  # two operations a multiply-add, two images


def expected_seconds(
    method: Method, image_size: int, batch_size: int, batches: int, epochs: int, device: torch.device
) -> float:
    """Return about how long `epochs` of so many batches train here: a copy plays four, the fastest of three counts.

    On random greys, as in the last epoch, in the precision that `auto` takes. The method and torch's generators stay as
    they are.
    """
    copied = copy.deepcopy(method).train()
    copied.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch has it undeclared
    parts, autocast = dict(copied.named_children()), _autocast(device, choose_precision("auto", device))
    optimizers = {part: Adam(module.parameters()) for part, module in parts.items()}
    seconds = []
    with torch.random.fork_rng():
        for _ in range(4):
            start, images = time.perf_counter(), torch.rand(batch_size, 1, image_size, image_size, device=device)
            for part, losses in _moves(copied, images, epochs - 1, autocast):
                _update(optimizers[part], GradScaler(device.type, enabled=False), parts[part], losses)
                float(losses["total"].detach())  # waits for the device
            seconds.append(time.perf_counter() - start)
    return min(seconds[1:]) * batches * epochs


def _autocast(device: torch.device, precision: torch.dtype) -> AbstractContextManager:
    return torch.autocast(device.type, dtype=precision, enabled=precision is not torch.float32)


def _moves(
    method: Method, images: Images, epoch: int, autocast: AbstractContextManager
) -> Iterator[tuple[str, Losses]]:
    """Run the method's moves under `autocast`, which is left between two of them.

    Autocast keeps its half-precision copies of the weights until it is left: entered once around all moves, the second
    would see the weights as they were before the first move's update.
    """
    moves = method.moves(images.contiguous(memory_format=torch.channels_last), epoch)
    while True:
        with autocast:
            move = next(moves, None)
        if move is None:
            return
        yield move


def _update(optimizer: Adam, scaler: GradScaler, part: nn.Module, losses: Losses) -> None:
    """Take one step in `part`'s parameters, leaving every other gradient untouched."""
    optimizer.zero_grad()
    scaler.scale(losses["total"]).backward(inputs=list(part.parameters()))
    scaler.step(optimizer)
    scaler.update()


def _order(images: np.ndarray | Films, seed: int, epoch: int) -> np.ndarray:
    """Return the epoch's order; the first takes the images of a stream shard by shard, as they arrive."""
    order = np.random.default_rng([seed, epoch]).permutation(len(images))
    arrival = getattr(images, "arrival", None)
    return order if epoch or arrival is None else order[np.argsort(arrival[order], kind="stable")]


@torch.no_grad()
def _residual(
    method: Method, images: np.ndarray | Films, batch_size: int, device: torch.device, precision: torch.dtype
) -> float:
    method.eval()
    total = 0.0
    for start in range(0, len(images), batch_size):
        batch = to_unit(images[start : start + batch_size], device)
        with _autocast(device, precision):
            total += (batch - method.reconstruct(batch)).abs().mean().item() * len(batch)
    return total / len(images)


def _save(
    checkpoint: Path,
    method: Method,
    optimizers: Mapping[str, Adam],
    scalers: Mapping[str, GradScaler],
    settings: Mapping[str, Any],
    history: list[dict[str, float]],
) -> None:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    state = {
        "settings": dict(settings),
        "history": history,
        "method": method.state_dict(),
        "optimizers": {part: optimizer.state_dict() for part, optimizer in optimizers.items()},
        "scalers": {part: scaler.state_dict() for part, scaler in scalers.items()},
        "rng": {"cpu": torch.get_rng_state(), "cuda": cuda},
    }
    with replacing(checkpoint) as file:
        torch.save(state, file)


def load_checkpoint(checkpoint: Path, method: Method, device: torch.device) -> dict[str, Any]:
    """Load a checkpoint's weights into `method`, moved to `device`; return the whole state."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    method.load_state_dict(state["method"])
    method.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch has it undeclared
    return state


def _kept(checkpoint: Path, epochs: int) -> Path:
    return checkpoint.with_name(f"{checkpoint.stem}.{epochs}{checkpoint.suffix}")


def _keep(checkpoint: Path, method: Method, epochs: int, keep_every: int) -> None:
    """Keep the weights after so many epochs beside the checkpoint, if it is their turn."""
    if keep_every and epochs and epochs % keep_every == 0:
        with replacing(_kept(checkpoint, epochs)) as file:
            torch.save({"method": method.state_dict()}, file)


def kept(checkpoint: Path, epochs: int, keep_every: int) -> dict[int, Path]:
    """Return the files that hold the weights after so many epochs, by that number; the last is the checkpoint itself.

    Raises:
        CheckpointError: One of them is not there.

    """
    files = {n: _kept(checkpoint, n) for n in range(keep_every, epochs, keep_every)} if keep_every else {}
    if missing := [str(file) for file in files.values() if not file.is_file()]:
        raise CheckpointError(
            f"{', '.join(missing)} are not there, and choose_every={keep_every} wants them: remove {checkpoint}, also "
            "from where keep_in keeps it, and train anew"
        )
    return files | {epochs: checkpoint}


def _resume(
    checkpoint: Path,
    method: Method,
    optimizers: Mapping[str, Adam],
    scalers: Mapping[str, GradScaler],
    settings: Mapping[str, Any],
    epochs: int,
) -> list[dict[str, float]]:
    if not checkpoint.is_file():
        return []
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    there = state["settings"]
    differing = [key for key in there.keys() | settings.keys() if there.get(key) != settings.get(key)]
    if differing:
        pairs = ", ".join(f"{key}: {there.get(key)!r} there, {settings.get(key)!r} now" for key in sorted(differing))
        raise CheckpointError(
            f"{checkpoint} was trained under other settings ({pairs}): choose another run_dir, or remove it"
        )
    if len(state["history"]) > epochs:
        raise CheckpointError(
            f"{checkpoint} has {len(state['history'])} epochs, epochs={epochs} asks for fewer: choose another run_dir"
        )
    method.load_state_dict(state["method"])
    for part in optimizers:
        optimizers[part].load_state_dict(state["optimizers"][part])
        scalers[part].load_state_dict(state["scalers"][part])
    torch.set_rng_state(state["rng"]["cpu"])
    if torch.cuda.is_available() and state["rng"]["cuda"]:
        torch.cuda.set_rng_state_all(state["rng"]["cuda"][: torch.cuda.device_count()])
    return state["history"]
