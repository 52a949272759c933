"""Experiment trackers behind one contract: none, and Weights & Biases.

A tracker gets copies only: everything that counts is in the run folder. It remembers what it has been sent, so the
whole history, or the whole folder of figures, can be sent again and again.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lib.environment import secret
from lib.evidence.results import Results
from lib.params import Params
from lib.runs.run import Run

PROJECT = "imgae-dx"  # the project's name at Weights & Biases


class Tracker:
    """What a run's stages tell a tracker; this one takes nothing."""

    def log(self, method: str, history: Sequence[Mapping[str, float]]) -> None:
        """Take the rows of a method's history, one per epoch, that are new."""

    def figures(self, folder: Path) -> None:
        """Take the figures in `folder`, as PNG, that are new or have changed."""

    def summarise(self, values: Mapping[str, float]) -> None:
        """Take the numbers that stand for the run."""

    def finish(self) -> None:
        """Close the tracker; it takes nothing after that."""


def open_tracker(params: Params, folder: Path) -> Tracker:
    """Return the tracker that the settings name; a tracker that this process left open is closed first."""
    if wandb := sys.modules.get("wandb"):
        wandb.finish()
    return WandB(params, folder) if params.tracking == "wandb" else Tracker()


def finish(run: Run, tracker: Tracker, results: Results | None = None) -> None:
    """End a run: give its figures and headline numbers to the tracker, close it, mark the run as ok, keep its files."""
    tracker.figures(run.folder / "figures")
    if results and results.evaluation:
        methods = results.evaluation.methods
        tracker.summarise({f"{name}/auroc": found.auroc.value for name, found in methods.items()})
        tracker.summarise({f"{name}/average_precision": f.average_precision.value for name, f in methods.items()})
    tracker.finish()
    run.finish()


class WandB(Tracker):
    """Weights & Biases, offline unless the environment variable WANDB_MODE says otherwise."""

    def __init__(self, params: Params, folder: Path) -> None:
        """Start a run of the folder's name, which keeps its files in the folder.

        Online it needs a key: the one that wandb knows, else WANDB_API_KEY from the environment or Colab's secrets.
        Without a key it stays offline and prints a message.
        """
        import wandb  # here: it takes 0.7 s, and only a run that is tracked needs it

        mode: Any = os.environ.get("WANDB_MODE") or "offline"
        key = (wandb.api.api_key or secret("WANDB_API_KEY")) if mode == "online" else None
        if mode == "online" and not key:
            print("no WANDB_API_KEY, in the environment or Colab's secrets: tracking stays offline", file=sys.stderr)
            mode = "offline"
        self._run = wandb.init(
            project=PROJECT,
            name=folder.name,
            dir=folder,
            mode=mode,
            config=params.model_dump(),
            settings=wandb.Settings(api_key=key),  # not the environment, which a cell may print
        )
        for method in params.methods:
            self._run.define_metric(f"{method}/*", step_metric=f"{method}/epoch")
        self._rows: dict[str, int] = {}
        self._figures: dict[str, int] = {}

    def log(self, method: str, history: Sequence[Mapping[str, float]]) -> None:
        """Log the new rows, each value as "method/key"."""
        for row in history[self._rows.get(method, 0) :]:
            self._run.log({f"{method}/{key}": value for key, value in row.items()})
        self._rows[method] = len(history)

    def figures(self, folder: Path) -> None:
        """Log the new figures as "figures/name"."""
        import wandb

        for file in sorted(folder.glob("*.png")):
            changed = file.stat().st_mtime_ns
            if self._figures.get(file.name) != changed:
                self._run.log({f"figures/{file.stem}": wandb.Image(str(file))})
                self._figures[file.name] = changed

    def summarise(self, values: Mapping[str, float]) -> None:
        """Put the numbers into the run's summary."""
        self._run.summary.update(dict(values))

    def finish(self) -> None:
        """Write what is pending, and close the run."""
        self._run.finish()
