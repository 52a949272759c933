"""The files of a training run: one checkpoint that it resumes from, and weights kept from earlier epochs.

A checkpoint is replaced as a whole or not at all, and it is read with `weights_only=True`.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.amp import GradScaler
from torch.optim import Adam

from lib.files import replacing
from lib.methods.method import Method, TrainingError, to_device

History = list[dict[str, float]]
"""One entry per epoch: its losses, the validation residual, and the budget spent so far."""


class CheckpointError(TrainingError):
    """A checkpoint has other settings or too many epochs, or kept weights are missing."""


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
    ) -> None:
        """Take the `method` that is trained, and the `validated` one: its average, or the method itself."""
        self.file, self.settings = file, dict(settings)
        self._method, self._validated, self._optimizers, self._scalers = method, validated, optimizers, scalers

    def save(self, history: History) -> None:
        """Write everything that an exact resume needs."""
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        state = {
            "settings": self.settings,
            "history": history,
            "method": self._validated.state_dict(),
            "trained": None if self._validated is self._method else self._method.state_dict(),
            "optimizers": {part: optimizer.state_dict() for part, optimizer in self._optimizers.items()},
            "scalers": {part: scaler.state_dict() for part, scaler in self._scalers.items()},
            "rng": {"cpu": torch.get_rng_state(), "cuda": cuda},
        }
        with replacing(self.file) as out:
            torch.save(state, out)

    def resume(self, epochs: int) -> History:
        """Restore the saved state and return its history; if there is no file, change nothing and return [].

        Raises:
            CheckpointError: The file has other settings, or more than `epochs` epochs.

        """
        if not self.file.is_file():
            return []
        state = torch.load(self.file, map_location="cpu", weights_only=True)
        saved, history = state["settings"], state["history"]
        if changed := sorted(k for k in saved.keys() | self.settings.keys() if saved.get(k) != self.settings.get(k)):
            pairs = ", ".join(f"{k}: {saved.get(k)!r} saved, {self.settings.get(k)!r} now" for k in changed)
            raise CheckpointError(
                f"{self.file} was trained under other settings ({pairs}): choose another run_dir, or remove the file"
            )
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

    def keep_weights(self, epochs: int, keep_after: Collection[int]) -> None:
        """Write the weights beside the checkpoint if `keep_after` holds this number of epochs."""
        if epochs in keep_after:
            with replacing(kept_file(self.file, epochs)) as out:
                torch.save({"method": self._validated.state_dict()}, out)


def load_checkpoint(file: Path, method: Method, device: torch.device) -> dict[str, Any]:
    """Load a checkpoint's weights, or kept weights, into `method` on `device`; return everything in the file."""
    state = torch.load(file, map_location="cpu", weights_only=True)
    method.load_state_dict(state["method"])
    to_device(method, device)
    return state


def kept_file(checkpoint: Path, epochs: int) -> Path:
    """Return the file beside `checkpoint` that keeps the weights after `epochs` epochs."""
    return checkpoint.with_name(f"{checkpoint.stem}.{epochs}{checkpoint.suffix}")


def kept(checkpoint: Path, epochs: int, keep_after: Collection[int]) -> dict[int, Path]:
    """Return the files of kept weights by number of epochs; the last entry, `epochs`, is the checkpoint itself.

    Raises:
        CheckpointError: A file is missing.

    """
    files = {n: kept_file(checkpoint, n) for n in sorted(keep_after) if n < epochs}
    if missing := [str(file) for file in files.values() if not file.is_file()]:
        raise CheckpointError(
            f"weights that choose_from={sorted(keep_after)} needs are missing ({', '.join(missing)}): "
            f"remove {checkpoint}, and its copy in keep_in, and train again"
        )
    return files | {epochs: checkpoint}
