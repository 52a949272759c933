"""The files of a training run: one checkpoint that it resumes from, and weights kept from earlier epochs.

Each file holds the settings and the history of its training beside its weights, and ends in the SHA-256 of all that.
It is replaced as a whole or not at all, and its hash and settings are checked whenever it is read.
"""

import io
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.amp import GradScaler
from torch.optim import Adam

from lib.files import damage, replacing, seal
from lib.methods.method import Method, TrainingError, to_device

History = list[dict[str, float]]
"""One entry per epoch: its losses, the validation residual, and the budget spent so far."""


class CheckpointError(TrainingError):
    """A file is missing, damaged or foreign, or has other settings, other epochs, or weights that are not finite."""


class Checkpoint:
    """The state of one training run, and the file that holds it."""

    def __init__(
        self,
        file: Path,
        method: Method,
        validated: Method,
        optimizers: Mapping[str, Adam],
        scalers: Mapping[str, GradScaler],
        settings: Mapping[str, Any],
        precision: str,
    ) -> None:
        """Take the `method` that is trained, and the `validated` one: its average, or the method itself.

        `precision` is the one that the settings, such as "auto", have been resolved to.
        """
        self.file, self.settings, self._precision = file, dict(settings), precision
        self._method, self._validated, self._optimizers, self._scalers = method, validated, optimizers, scalers

    def save(self, history: History) -> None:
        """Write everything that an exact resume needs; CheckpointError if a weight is NaN or infinite."""
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        state = {
            **self._kept_state(history),
            "precision": self._precision,
            "trained": None if self._validated is self._method else self._method.state_dict(),
            "optimizers": {part: optimizer.state_dict() for part, optimizer in self._optimizers.items()},
            "scalers": {part: scaler.state_dict() for part, scaler in self._scalers.items()},
            "rng": {"cpu": torch.get_rng_state(), "cuda": cuda},
        }
        write_state(self.file, state)

    def resume(self, epochs: int) -> History:
        """Restore the saved state and return its history; if there is no file, change nothing and return [].

        Raises:
            CheckpointError: The file is damaged or foreign, or has other settings, or more than `epochs` epochs.

        """
        if not self.file.is_file():
            return []
        state = read_state(self.file)
        history = state["history"]
        saved = state["settings"] | {"precision": state["precision"]}
        _refuse_other_settings(self.file, saved, self.settings | {"precision": self._precision})
        if len(history) > epochs:
            raise CheckpointError(
                f"{self.file} has {len(history)} epochs, but epochs={epochs} asks for fewer: choose another run_dir"
            )
        self._validated.load_state_dict(state["method"])
        self._method.load_state_dict(state["trained"] or state["method"])
        for part in self._optimizers:
            self._optimizers[part].load_state_dict(state["optimizers"][part])
            self._scalers[part].load_state_dict(state["scalers"][part])
        torch.set_rng_state(state["rng"]["cpu"])
        if torch.cuda.is_available() and state["rng"]["cuda"]:
            torch.cuda.set_rng_state_all(state["rng"]["cuda"][: torch.cuda.device_count()])
        return history

    def keep_weights(self, history: History, keep_after: Collection[int]) -> None:
        """Write the weights beside the checkpoint if `keep_after` holds this number of epochs."""
        if len(history) in keep_after:
            write_state(kept_file(self.file, len(history)), self._kept_state(history))

    def _kept_state(self, history: History) -> dict[str, Any]:
        return {"settings": self.settings, "history": history, "method": self._validated.state_dict()}


def load_checkpoint(
    file: Path, method: Method, device: torch.device, settings: Mapping[str, Any], epochs: int
) -> History:
    """Load the weights that `epochs` epochs have trained under `settings` into `method`, on `device`.

    The file is a checkpoint or kept weights; its history is returned.

    Raises:
        CheckpointError: It is damaged or foreign, or has other settings or another number of epochs.

    """
    state = read_state(file)
    _refuse_other_settings(file, state["settings"], settings)
    if (found := len(state["history"])) != epochs:
        remedy = "train it to its end; training resumes" if found < epochs else "remove it, and train again"
        raise CheckpointError(f"{file} has {found} of {epochs} epochs: {remedy}")
    method.load_state_dict(state["method"])
    to_device(method, device)
    return state["history"]


def write_state(file: Path, state: Mapping[str, Any]) -> None:
    """Write a state and the hash of its bytes; CheckpointError if a weight is NaN or infinite."""
    _refuse_infinite(file, state)
    content = io.BytesIO()  # in memory first: a full disk then ends in the system's own error
    torch.save(dict(state), content)
    with replacing(file) as out:
        out.write(content.getbuffer())
        out.write(seal(content.getbuffer()))  # torch ignores what follows its own end


def read_state(file: Path) -> dict[str, Any]:
    """Read a state whose bytes agree with their hash; CheckpointError if they do not, or if a weight is not finite."""
    if problem := damage(content := file.read_bytes()):
        raise CheckpointError(f"{file} {problem}: remove it, and train again")
    state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    _refuse_infinite(file, state)
    return state


def kept_file(checkpoint: Path, epochs: int) -> Path:
    """Return the file beside `checkpoint` that keeps the weights after `epochs` epochs."""
    return checkpoint.with_name(f"{checkpoint.stem}.{epochs}{checkpoint.suffix}")


def kept(checkpoint: Path, epochs: int, keep_after: Collection[int]) -> dict[int, Path]:
    """Return the files of kept weights by number of epochs; the last entry, `epochs`, is the checkpoint itself.

    Raises:
        CheckpointError: A file is missing or damaged.

    """
    files = {n: kept_file(checkpoint, n) for n in sorted(keep_after) if n < epochs}
    if missing := [str(file) for file in files.values() if not file.is_file() or damage(file.read_bytes())]:
        raise CheckpointError(
            f"weights that choose_from={sorted(keep_after)} needs are missing or damaged ({', '.join(missing)}): "
            f"remove {checkpoint}, and its copy in keep_in, and train again"
        )
    return files | {epochs: checkpoint}


def _refuse_other_settings(file: Path, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    if changed := sorted(key for key in saved.keys() | now.keys() if saved.get(key) != now.get(key)):
        pairs = ", ".join(f"{key}: {saved.get(key)!r} saved, {now.get(key)!r} now" for key in changed)
        raise CheckpointError(
            f"{file} was trained under other settings ({pairs}): choose another run_dir, or remove the file"
        )


def _refuse_infinite(file: Path, state: Mapping[str, Any]) -> None:
    weights = [*state["method"].items(), *(state.get("trained") or {}).items()]
    if bad := [name for name, values in weights if not values.isfinite().all()]:
        raise CheckpointError(
            f"{file}: {len(bad)} weights are NaN or infinite, {bad[0]} first: train again with a lower learning_rate"
        )
