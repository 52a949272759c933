"""The run folder: everything that a run leaves, written so that an interruption loses nothing that was finished.

`status.json` (running, ok or failed, and why), `params.json`, `split.json`, `problems.csv`, `metrics.jsonl` (one row
an epoch and method), `checkpoints/`, `reconstructions/`, `scores.parquet` (one row an image), `candidates.parquet` and
`.csv` (every score of every epoch kept), `results.json`, `figures/*.png`; a runner adds the executed `notebook.ipynb`
and `report.html`.
"""

import copy
import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from lib.cache import Preparation
from lib.choosing import with_lesions
from lib.dataset import Sides, Split, load_masks, reference_half
from lib.evaluation import evaluate_scores, pixel_results
from lib.files import replacing, write_json
from lib.identity import KINDS, copied_share
from lib.judging import Version, feature_distances, judge, version, write_candidates
from lib.method import Method
from lib.params import Params
from lib.references import reference_rows
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

    @classmethod
    def start(cls, params: Params, base: Path) -> "Run":
        """Make or reopen the folder, mark it as running, start the tracker."""
        folder, params = params.folder(base), params.with_data_under(base)
        run = cls(params, folder)
        run.refuse_other_settings()
        write_json(run.folder / "params.json", params.model_dump())
        run.mark("running")
        run.track()
        return run

    def track(self) -> None:
        """Start the tracker: offline unless WANDB_MODE says otherwise, disabled if `tracking` is off."""
        import wandb  # here: it takes 0.7 s, and only a run needs it

        mode = os.environ.get("WANDB_MODE", "offline") if self.params.tracking == "wandb" else "disabled"
        wandb.finish()  # the tracker of a run that this process has started before, and not finished
        self._tracker = wandb.init(
            project="imgae-dx", name=self.folder.name, dir=self.folder, mode=mode, config=self.params.model_dump()
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

    def save_figure(self, figure: Figure, name: str) -> Figure:
        """Write figures/<name>.png, send it to the tracker, and return the figure for the page."""
        file = self.folder / "figures" / f"{name}.png"
        with replacing(file) as out:
            figure.savefig(out, format="png", dpi=150, bbox_inches="tight")
        if self._tracker is not None:
            import wandb

            self._tracker.log({f"figures/{name}": wandb.Image(str(file))})
        return figure

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
        films = {side: images.validation[np.flatnonzero(half == (side == "reference"))] for side in list(records)[:2]}
        films |= {"test": images.test, "lesions": with_lesions(films["reference"], self.params.seed, LESIONS)[0]}
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
        pixels = {name: pixel_results(residuals(images.test, reconstructed[name]), ids, lesions) for name in trained}
        budgets = {name: self.budget(method, histories[name]) for name, method in trained.items()}
        table = self.write_scores(split, columns | rows.scores, budgets, pixels, source.synthetic)
        write_candidates(judged, table, SCORED_SIDES, self.folder)
        self.write_results(
            self.results()
            | {
                "references": [*rows.fitted, *rows.scores],
                "left_out": rows.left_out,
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
        pixels: Mapping[str, Mapping[str, float] | None],
        synthetic: bool,
    ) -> pd.DataFrame:
        """Write split.json, scores.parquet and results.json from each column's scores by side; return the table."""
        half = reference_half(split.validation)
        records = {"reference": split.validation[half], "validation": split.validation[~half], "test": split.test}
        table = pd.concat([records[side].assign(side=side) for side in SCORED_SIDES], ignore_index=True)
        table["patient"] = table["patient"].where(table["patient"] != "", "image " + table["id"])
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
                    name: {"run": self.folder.name, "budget": budget._asdict(), "pixels": pixels.get(name)}
                    for name, budget in budgets.items()
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

    def comparable(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return this run's scores with those of finished runs beside it, and what was found, one row a run and method.

        A run beside it counts if it is finished and its split, image size and number of images seen are the same; in
        what else it differs is said. This run's own methods count first, and of several with one method the newest.
        """
        mine, table = self.results(), pd.read_parquet(self.folder / "scores.parquet")
        mine["columns"] = [column for column in mine["columns"] if column in table]
        entries = {name: entry for name, entry in mine["methods"].items() if entry["run"] == self.folder.name}
        found = [{"method": name, "run": self.folder.name, "used": True, "remark": ""} for name in entries]
        settings = self.params.training_settings() | self.params.model_dump(include={"backbone", "ra_map"})
        seen = {entry["budget"]["images_seen"] for entry in entries.values()} or None
        others = [file for file in self.folder.parent.glob("*/results.json") if file.parent != self.folder]
        for file in sorted(others, key=lambda file: file.stat().st_mtime, reverse=True):
            try:
                theirs, params, status = (
                    json.loads((file.parent / f"{name}.json").read_text()) for name in ("results", "params", "status")
                )
                if any(theirs[key] != mine[key] for key in ("split", "image_size", "score")):
                    continue
                own = {n: entry for n, entry in theirs["methods"].items() if entry["run"] == file.parent.name}
                own = {n: entry for n, entry in own.items() if not seen or entry["budget"]["images_seen"] in seen}
                used = [name for name in own if name not in entries and status["status"] == "ok"]
                columns = [column for column in theirs["columns"] if column.partition(",")[0] in used]
                beside = pd.read_parquet(file.parent / "scores.parquet", columns=["id", *columns])
                differs = [f"{key} {params.get(key)}" for key in settings if params.get(key) != settings[key]]
                remark = f"differs in {', '.join(differs)}" if differs else ""
                remark = remark if status["status"] == "ok" else f"its status is {status['status']}"
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                own, used = {"": {}}, []
                remark = f"cannot be read: {type(error).__name__}: {error}"
            found += [{"method": n, "run": file.parent.name, "used": n in used, "remark": remark} for n in own]
            for name in used:
                entries[name] = own[name]
                seen = seen or {own[name]["budget"]["images_seen"]}  # a run that trains nothing takes the newest's
            if used:
                table = table.merge(beside, on="id", how="left", validate="one_to_one")
                mine["columns"] = list(dict.fromkeys([*mine["columns"], *columns]))
        order = Params.model_fields["methods"].default  # so that a difference has the same sign whichever ran last
        mine["methods"] = {name: entries[name] for name in sorted(entries, key=lambda n: (*order, n).index(n))}
        self.write_results(mine)
        return table, pd.DataFrame(found, columns=["method", "run", "used", "remark"])

    def evaluate(self, table: pd.DataFrame) -> dict[str, Any]:
        """Evaluate every method of `table`, under each label column there is; write and return results.json.

        The column that the settings name is `results["evaluation"]`, others that hold both classes are in
        `results["other_labels"]`; `results["rows"]` holds all that was scored, references too, and how far the methods'
        chosen and combined scores lie from each other's and from frozen features'.
        """
        results = self.results()
        if not results["methods"]:
            raise RunError(
                f"nothing to evaluate: {self.folder} trains no method (methods is empty), and no finished run in "
                f"{self.folder.parent} has the same split, image size and budget"
            )
        options = {"resamples": self.params.resamples, "seed": self.params.seed}
        labelled = table[table["side"] == "test"]
        columns = [
            column
            for column in ("label", "strict_label")
            if column in table
            and column != self.params.label_column
            and {"normal", "abnormal"} <= set(labelled[column])
        ]
        methods = list(results["methods"])
        results["evaluation"] = evaluate_scores(table, methods, labels=self.params.label_column, **options)
        results["other_labels"] = [evaluate_scores(table, methods, labels=column, **options) for column in columns]
        rivals = [name for name in ("knn", "patchcore") if name in results["columns"]]
        pairs = [pair for what in ("chosen", "combined") for pair in combinations([f"{m}, {what}" for m in methods], 2)]
        pairs += [(f"{m}, {what}", rival) for m in methods for what in ("chosen", "combined") for rival in rivals]
        pairs = [pair for pair in pairs if set(pair) <= set(results["columns"])]
        results["rows"] = evaluate_scores(
            table, results["columns"], labels=self.params.label_column, pairs=pairs, **options
        )
        self.write_results(results)
        if self._tracker is not None:
            for name, entry in results["evaluation"]["methods"].items():
                self._tracker.summary[f"{name}/auroc"] = entry["auroc"]["value"]
                self._tracker.summary[f"{name}/average_precision"] = entry["average_precision"]["value"]
        return results

    def finish(self) -> None:
        """Mark the run as ok and close the tracker."""
        self.mark("ok")
        if self._tracker is not None:
            self._tracker.finish()
