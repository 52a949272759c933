"""The second stage: prepared images -> a trained method; `load` reads one that is trained already."""

from typing import Any, NamedTuple

import torch

from lib.data.dataset import Split
from lib.methods import training
from lib.methods.checkpoint import History, load_checkpoint
from lib.methods.method import Method
from lib.methods.training import choose_device, choose_precision
from lib.methods.variants import VARIANTS
from lib.params import Params
from lib.runs.capacity import check_memory
from lib.runs.prepare import Prepared
from lib.runs.run import Run, RunError
from lib.runs.tracking import Tracker
from lib.scores.health import measured_after


class TrainedMethod(NamedTuple):
    """A method with trained weights, and one row of numbers for each of its epochs."""

    method: Method
    history: History


def train(run: Run, name: str, prepared: Prepared, tracker: Tracker) -> TrainedMethod:
    """Train the method of that name as the run's settings say, resuming from its checkpoint if there is one.

    Its initial weights depend on the seed alone, not on what was trained before. Raises TrainingError, before the first
    of the run's methods is trained, if one of them takes more memory than is free; otherwise as `training.train`.
    """
    params, images = run.params, prepared.images
    run.write_split(prepared.split)
    if not any(len(_logged(run, each)) for each in params.methods):
        check_memory(params)
    torch.manual_seed(params.seed)
    method, device = VARIANTS[name](params), choose_device(params.device)

    def measure(method: Method, epochs: int) -> dict[str, float]:
        due = measured_after(epochs, params.epochs, params.measure_every)
        if not due and epochs not in params.choose_from:
            return {}
        run.write_yardstick(prepared.yardstick)
        return {f"health/{name}": value for name, value in prepared.health_check(method).items()}

    def log(history: History) -> None:
        run.log(name, history)
        tracker.log(name, history)

    history = training.train(
        method,
        images.train,
        images.validation,
        epochs=params.epochs,
        batch_size=params.batch_size,
        learning_rate=params.learning_rate,
        seed=params.seed,
        checkpoint=run.checkpoint(name),
        settings=trained_under(params, name, prepared.split.hash),
        device=device,
        precision=choose_precision(params.precision, device),
        augmentation=params.augmentation,
        average_decay=params.average_decay,
        keep_after=params.choose_from,
        measure=measure,
        log=log,
        name=name,
    )
    tracker.figures(run.folder / "figures")
    return TrainedMethod(method, history)


def load(run: Run, name: str, split: Split) -> TrainedMethod:
    """Return a method that the run has trained to its end on this split.

    RunError or CheckpointError if it has not been, or if the weights' file is not the one that training wrote.
    """
    file, method, device = run.checkpoint(name), VARIANTS[name](run.params), choose_device(run.params.device)
    if not file.is_file():
        raise RunError(f"{run.folder} has no trained {name}: {file} is not there; train it first")
    history = load_checkpoint(file, method, device, trained_under(run.params, name, split.hash), run.params.epochs)
    if _logged(run, name) != history:  # damaged, or the checkpoint was restored from a copy
        run.log(name, history)
    return TrainedMethod(method, history)


def _logged(run: Run, name: str) -> History:
    try:
        return run.history(name)
    except RunError:  # metrics.jsonl is damaged
        return []


def trained_under(params: Params, name: str, split: str) -> dict[str, Any]:
    """Return what weights depend on, as their file records it: settings, the split's hash, and the method's name."""
    return params.training_settings() | {"split": split, "method": name}
