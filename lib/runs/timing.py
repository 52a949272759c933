"""How long a run's stages will take on this machine: each kind of work is timed once and extrapolated."""

import copy
import time
import timeit
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch.amp import GradScaler

from lib.evidence.uncertainty import affordable, bootstrap
from lib.methods.method import Method, to_device, to_unit
from lib.methods.training import choose_device, choose_precision, optimizers_of, train_step
from lib.methods.variants import VARIANTS
from lib.params import Params
from lib.runs.capacity import check_memory
from lib.runs.prepare import Prepared
from lib.scores.maps import anomaly_maps, describe
from lib.scores.selection import feature_distances

TIMED = 16  # images


class Work(NamedTuple):
    """What a stage does, and its estimated seconds."""

    what: str
    seconds: float


def expected_work(params: Params, prepared: Prepared) -> dict[str, Work]:
    """Estimate the long work of a run, by stage: "train NAME" for each method, then score, evaluate, seeds, audit.

    To time it, a copy of each method trains on a few batches of noise, 16 images are scored, 100 resamples are drawn.
    Raises TrainingError if training one of the methods takes more memory than is free.
    """
    check_memory(params)
    device, split = choose_device(params.device), prepared.split
    batches = len(split.train) // params.batch_size
    work = {}
    for name in params.methods:
        seconds = expected_seconds(VARIANTS[name](params), params, batches, device)
        work[f"train {name}"] = Work(f"training of {name}", seconds)

    images = to_unit(prepared.images.validation[:TIMED], torch.device("cpu"))
    _, distances = feature_distances(params, {}, device)
    with torch.no_grad():
        described = describe(images, distances)
        maps = quickest(lambda: anomaly_maps(described, describe(images, distances), distances)) / len(images)
    scored = len(split.test) + 2 * len(split.validation)  # reference half thrice: moments, itself, painted
    kept = len({*params.choose_from, params.epochs})
    times = len(params.methods) * kept + 2  # references that reconstruct
    work["score"] = Work(f"scoring of {scored:,} images, {times} times", maps * scored * times)

    tested = np.arange(len(split.test))
    resamples = affordable(params.resamples, len(tested))
    resampled = quickest(lambda: bootstrap(tested[None] % 7, tested % 2 == 0, tested, 100)) * resamples / 100
    scores, checks = 5 * len(params.methods) + len(params.references), 40 * len(params.methods)
    work["evaluate"] = Work(f"{resamples:,} resamples of every score", resampled * scores)
    each = sum(task.seconds for task in work.values())
    if others := len(params.seeds[1:]):
        work["seeds"] = Work(f"the same with {others} other seed{'s' if others > 1 else ''}", others * each)
    work["audit"] = Work(f"{resamples:,} resamples of every check", resampled * checks)
    return work


def quickest(work: Callable[[], object]) -> float:
    """Return the seconds that the faster of two calls takes."""
    return min(timeit.repeat(work, number=1, repeat=2))


def expected_seconds(method: Method, params: Params, batches: int, device: torch.device) -> float:
    """Estimate the seconds that all epochs, each of so many batches, take on this device.

    A copy of the method trains on four batches of noise, as in the last epoch. The first batch is not counted; the
    fastest of the others is. The method and torch's generators do not change.
    """
    method = copy.deepcopy(method).train()
    to_device(method, device)
    precision, size = choose_precision(params.precision, device), params.image_size
    optimizers = optimizers_of(method, params.learning_rate)
    scalers = {part: GradScaler(device.type, enabled=False) for part in optimizers}
    seconds = []
    with torch.random.fork_rng():
        for _ in range(4):
            start, images = time.perf_counter(), torch.rand(params.batch_size, 1, size, size, device=device)
            losses = train_step(method, optimizers, scalers, images, params.epochs - 1, precision)
            sum(map(float, losses.values()))  # waits
            seconds.append(time.perf_counter() - start)
    return min(seconds[1:]) * batches * params.epochs
