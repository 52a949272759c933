"""The run folder: everything that a run leaves, written so that an interruption loses nothing that was finished.

`status.json` (running, ok or failed, and why), `params.json`, `split.json`, `problems.csv`, `metrics.jsonl` (one row
an epoch and method), `checkpoints/`, `reconstructions/`, `scores.parquet` (one row an image), `candidates.parquet` and
`.csv` (every score of every epoch kept), `results.json`, `figures/` (PNG; charts also as SVG), `tables/*.csv`; a
runner adds the executed `notebook.ipynb` and `report.html`.
"""

import copy
import json
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure

from lib.cache import Preparation
from lib.choosing import with_lesions
from lib.dataset import Sides, Split, load_masks, reference_half
from lib.environment import secret
from lib.files import replacing, write_json
from lib.identity import KINDS, copied_share
from lib.judging import Version, feature_distances, judge, version, write_candidates
from lib.keeping import Keeper
from lib.localisation import localise, marked_and_normal
from lib.method import Method
from lib.params import Params
from lib.references import FilmSet, reference_rows
from lib.scoring import residuals
from lib.source import problem_counts
from lib.sources import Source
from lib.training import choose_device, choose_precision, kept, load_checkpoint, train

SCORED_SIDES = ("reference", "validation", "test")
LESIONS = ("opacity",)  # what the criterion paints: the finding of the primary comparison


class RunError(ValueError):
    """A run folder is not what it should be."""


class Budget(NamedTuple):
    """What a method's training has spent."""

    parameters: int
    images_seen: int
    steps: int
    multiply_adds: int
    seconds: float


class Scored(NamedTuple):
    """What a run's methods make of its images."""

    table: pd.DataFrame  # one row an image of the two validation halves and the test side: its record and its scores
    reconstructed: dict[str, np.ndarray]  # by method, the test side, (n, size, size) in [0, 1]
    lesions: dict[str, np.ndarray]  # by id, (size, size) bool, of test images that have one marked


class Run:
    """One run's folder and its tracker."""

    def __init__(self, params: Params, folder: Path) -> None:
        self.params, self.folder = params, folder
        self._sent: dict[str, int] = {}
        self._tracker: Any = None
        self._finished = False

    @classmethod
    def start(cls, params: Params, base: Path) -> "Run":
        """Make or reopen the folder, mark it as running, start the tracker."""
        folder, params = params.folder(base), params.with_paths_under(base)
        run = cls(params, folder)
        run.refuse_other_settings()
        if run.keeper:
            run.keeper.take()
        write_json(run.folder / "params.json", params.model_dump())
        run.mark("running")
        run.track()
        return run

    @cached_property
    def keeper(self) -> Keeper | None:
        """What keeps copies of the run's files elsewhere, if `keep_in` names a place."""
        return Keeper(Path(self.params.keep_in), self.folder) if self.params.keep_in else None

    def keep(self) -> None:
        """Copy what is new to where `keep_in` says."""
        if self.keeper:
            self.keeper.keep_all()

    def track(self) -> None:
        """Start the tracker: offline unless WANDB_MODE says otherwise, disabled if `tracking` is off.

        Online it takes the key that wandb knows, else WANDB_API_KEY of Colab's secrets; without one it stays offline.
        """
        import wandb  # here: it takes 0.7 s, and only a run needs it

        mode: Any = os.environ.get("WANDB_MODE", "offline") if self.params.tracking == "wandb" else "disabled"
        key = (wandb.api.api_key or secret("WANDB_API_KEY")) if mode == "online" else None
        if mode == "online" and not key:
            print("no WANDB_API_KEY, in the environment or Colab's secrets: tracking stays offline", file=sys.stderr)
            mode = "offline"
        wandb.finish()  # the tracker of a run that this process has started before, and not finished
        self._tracker = wandb.init(
            project="imgae-dx",
            name=self.folder.name,
            dir=self.folder,
            mode=mode,
            config=self.params.model_dump(),
            settings=wandb.Settings(api_key=key),  # not the environment: a cell may print that
        )
        for method in self.params.methods:
            self._tracker.define_metric(f"{method}/*", step_metric=f"{method}/epoch")

    def refuse_other_settings(self) -> None:
        """Raise RunError if the folder holds weights that were trained under other settings than the run's."""
        if not any((self.folder / "checkpoints").glob("*.pt")):
            return
        there, now = json.loads((self.folder / "params.json").read_text()), self.params.training_settings()
        pairs = [f"{key}: {there.get(key)!r} there, {now[key]!r} now" for key in now if there.get(key) != now[key]]
        if there["epochs"] > self.params.epochs:
            pairs.append(f"epochs: {there['epochs']} there, {self.params.epochs} now; only more can be asked for")
        if pairs:
            raise RunError(
                f"{self.folder} was trained under other settings ({', '.join(pairs)}): "
                "choose another run_dir, or remove it"
            )

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """Open a folder that a run has left."""
        file = folder / "params.json"
        if not file.is_file():
            raise RunError(f"{folder} is not a run folder: it has no params.json")
        return cls(Params(**json.loads(file.read_text())), folder.resolve())

    def mark(self, status: str, why: str = "") -> None:
        """Write the run's status: running, ok or failed."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(self.folder / "status.json", {"status": status, "why": why, "at": now})

    def train(self, name: str, method: Method, split: Split, images: Sides) -> list[dict[str, float]]:
        """Train a method as the run's settings say, from its checkpoint on if there is one; return its history."""
        self._keep_split(split)
        device = choose_device(self.params.device)
        return train(
            method,
            images.train,
            images.validation,
            epochs=self.params.epochs,
            batch_size=self.params.batch_size,
            learning_rate=self.params.learning_rate,
            seed=self.params.seed,
            checkpoint=self.checkpoint(name),
            settings=self.params.training_settings() | {"split": split.hash},
            device=device,
            precision=choose_precision(self.params.precision, device),
            keep_every=self.params.choose_every,
            log=lambda history: self.log(name, history),
            name=name,
        )

    def _keep_split(self, split: Split) -> None:
        """Write split.json and problems.csv; weights of this folder that were trained on another split end the run."""
        file = self.folder / "split.json"
        there = json.loads(file.read_text())["hash"] if file.is_file() else split.hash
        if there != split.hash and any((self.folder / "checkpoints").glob("*.pt")):
            raise RunError(
                f"{self.folder} was trained on split {there}, and the images now give {split.hash}: train anew"
            )
        write_json(file, split.manifest)
        with replacing(self.folder / "problems.csv") as out:
            split.problems.to_csv(out, index=False)

    def checkpoint(self, name: str) -> Path:
        """Return where a method's weights are."""
        return self.folder / "checkpoints" / f"{name}.pt"

    def load(self, name: str, method: Method) -> list[dict[str, float]]:
        """Load a trained method's weights; return its history."""
        if not self.checkpoint(name).is_file():
            raise RunError(f"{self.folder} has no trained {name}: {self.checkpoint(name)} is not there; train it first")
        history = load_checkpoint(self.checkpoint(name), method, choose_device(self.params.device))["history"]
        if len(history) < self.params.epochs:
            raise RunError(
                f"{self.checkpoint(name)} has {len(history)} of {self.params.epochs} epochs: train it to its end; "
                "the same command goes on where it was"
            )
        return history

    def log(self, name: str, history: Sequence[Mapping[str, float]]) -> None:
        """Write a method's rows to metrics.jsonl, in place of those it had, and send the new ones to the tracker."""
        file = self.folder / "metrics.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
        rows = [row for row in rows if row["method"] != name] + [{"method": name, **row} for row in history]
        with replacing(file) as out:
            out.writelines((json.dumps(row) + "\n").encode() for row in rows)
        for row in history[self._sent.get(name, 0) :] if self._tracker is not None else ():
            self._tracker.log({f"{name}/{key}": value for key, value in row.items()})
        self._sent[name] = len(history)
        if self.keeper:
            self.keeper.keep_checkpoints()

    def save_figure(self, figure: Figure, name: str) -> Figure:
        """Write figures/<name>.png, of a chart .svg too, send it to the tracker, and return the figure for the page."""
        figure.set_label(name)  # by which the page finds the file
        file = self.folder / "figures" / f"{name}.png"
        with replacing(file) as out:
            figure.savefig(out, format="png", dpi=150, bbox_inches="tight")
        if not any(ax.images for ax in figure.axes):  # as vectors, pictures would become larger and no sharper
            same = rc_context({"svg.fonttype": "none", "svg.hashsalt": name})  # text as text; the same bytes every time
            with replacing(file.with_suffix(".svg")) as out, same:
                figure.savefig(out, format="svg", bbox_inches="tight", metadata={"Date": None})
        if self._tracker is not None:
            import wandb

            self._tracker.log({f"figures/{name}": wandb.Image(str(file))})
        if self._finished:
            self.keep()
        return figure

    def save_table(self, table: pd.DataFrame, name: str) -> None:
        """Write tables/<name>.csv."""
        with replacing(self.folder / "tables" / f"{name}.csv") as out:
            table.to_csv(out)

    def budget(self, method: Method, history: Sequence[Mapping[str, float]]) -> Budget:
        """Return what training `method` has spent."""
        last = history[-1]
        return Budget(
            parameters=sum(weight.numel() for weight in method.parameters()),
            images_seen=int(last["images_seen"]),
            steps=int(last["steps"]),
            multiply_adds=int(last["multiply_adds"]),
            seconds=round(last["seconds"], 1),
        )

    def score(
        self,
        trained: Mapping[str, Method],
        histories: Mapping[str, Sequence[Mapping[str, float]]],
        source: Source,
        split: Split,
        images: Sides,
    ) -> Scored:
        """Score every trained method and every reference row; from here on other runs can compare.

        What can be had has three scores: that of the primary comparison, the one that is chosen without labels among
        all kept epochs and all scores, and the combined one (`lib.judging`); a row without reconstructions has its own.
        """
        device, half = choose_device(self.params.device), reference_half(split.validation)
        records = {"reference": split.validation[half], "validation": split.validation[~half], "test": split.test}
        films: dict[str, FilmSet]
        films = {side: images.validation[np.flatnonzero(half == (side == "reference"))] for side in list(records)[:2]}
        films |= {"test": images.test, "lesions": with_lesions(films["reference"][:], self.params.seed, LESIONS)[0]}
        backbone, distances = feature_distances(self.params, trained, device)

        versions = {name: self._versions(name, method, device) for name, method in trained.items()}
        rows = reference_rows(self.params.references, images.train, films, records, backbone, self.params.seed)
        versions |= {name: {0: fitted} for name, fitted in rows.fitted.items()}
        made = self.folder / "reconstructions"
        judged = judge(versions, films, distances, made)

        columns = {
            name if what == "primary" else f"{name}, {what}": by_side
            for name, judgement in judged.items()
            for what, by_side in judgement.columns.items()
        }
        reconstructed = {
            name: np.load(made / f"{name}.{max(versions[name])}.test.npy", mmap_mode="r") for name in trained
        }
        ids = list(split.test["id"])
        lesions = load_masks(source, ids, Preparation.from_params(self.params))
        budgets = {name: self.budget(method, histories[name]) for name, method in trained.items()}
        table = self.write_scores(split, columns | rows.scores, budgets, source.synthetic)
        write_candidates(judged, table, SCORED_SIDES, self.folder)
        test = table[table["side"] == "test"].reset_index(drop=True)
        marked, masks, others = marked_and_normal(ids, test[self.params.label_column], lesions)
        maps = {name: residuals(images.test[marked], made_of[marked]) for name, made_of in reconstructed.items()}
        located = localise(maps, masks, test["patient"][marked], self.params.resamples, self.params.seed)
        self.write_results(
            self.results()
            | {
                "references": [*rows.fitted, *rows.scores],
                "left_out": rows.left_out,
                "localisation": located and located | {"left_out": others},
                "choices": {name: judgement.choice for name, judgement in judged.items()},
                "copied": {
                    name: {kind: copied_share(method, films["reference"][:32], kind).share for kind in KINDS}
                    for name, method in trained.items()
                },
            }
        )
        return Scored(table, reconstructed, lesions)

    def _versions(self, name: str, method: Method, device: torch.device) -> dict[int, Version]:
        """Return what scores films by the method after each number of epochs whose weights were kept."""
        versions = {}
        for epochs, file in kept(self.checkpoint(name), self.params.epochs, self.params.choose_every).items():
            earlier = copy.deepcopy(method)
            load_checkpoint(file, earlier, device)
            versions[epochs] = version(earlier, f"{name}: epoch {epochs}")
        return versions

    def write_scores(
        self,
        split: Split,
        by_side: Mapping[str, Mapping[str, np.ndarray]],
        budgets: Mapping[str, Budget],
        synthetic: bool,
    ) -> pd.DataFrame:
        """Write split.json, scores.parquet and results.json from each column's scores by side; return the table."""
        half = reference_half(split.validation)
        records = {"reference": split.validation[half], "validation": split.validation[~half], "test": split.test}
        table = pd.concat([records[side].assign(side=side) for side in SCORED_SIDES], ignore_index=True)
        table["patient"] = table["patient"].where(table["patient"] != "", "image " + table["id"])
        if taken := sorted(set(by_side) & set(table)):
            raise RunError(f"scores named {taken}, as columns of the records are: give them other names")
        for name, of_side in by_side.items():
            table[name] = np.concatenate([of_side[side] for side in SCORED_SIDES])
        self._keep_split(split)
        with replacing(self.folder / "scores.parquet") as out:
            table.to_parquet(out, index=False)
        self.write_results(
            {
                "split": split.hash,
                "image_size": self.params.image_size,
                "synthetic": synthetic,
                "score": "mean absolute residual",
                "patient_separation": split.manifest["patient_separation"],
                "problems": problem_counts(split.problems),
                "columns": list(by_side),
                "methods": {
                    name: {"run": self.folder.name, "budget": budget._asdict()} for name, budget in budgets.items()
                },
            }
        )
        return table

    def write_results(self, results: Mapping[str, Any]) -> None:
        """Write results.json."""
        write_json(self.folder / "results.json", results)

    def results(self) -> dict[str, Any]:
        """Read results.json."""
        file = self.folder / "results.json"
        if not file.is_file():
            raise RunError(f"{self.folder} has no results.json yet: score it first (imgae-evaluate {self.folder})")
        return json.loads(file.read_text())

    def summarise(self, figures: Mapping[str, float]) -> None:
        """Give the tracker the figures that stand for this run."""
        if self._tracker is not None:
            self._tracker.summary.update(figures)

    def finish(self) -> None:
        """Mark the run as ok, close the tracker, keep the results; a figure saved later is kept, and not tracked."""
        self.mark("ok")
        if self._tracker is not None:
            self._tracker.finish()
        self._tracker, self._finished = None, True
        self.keep()
