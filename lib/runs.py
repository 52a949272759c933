"""The run folder: everything that a run leaves, written so that an interruption loses nothing that was finished.

`status.json` (running, ok or failed, and why), `params.json`, `split.json`, `metrics.jsonl` (one row an epoch and
method), `checkpoints/`, `scores.parquet` (one row an image), `results.json`, `figures/*.png`; a runner adds the
executed `notebook.ipynb` and `report.html`.
"""

import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib.dataset import Sides, Split
from lib.evaluation import evaluate_scores, pixel_average_precision, results_table
from lib.files import replacing, write_json
from lib.method import Method
from lib.params import Params
from lib.training import choose_device, choose_precision, load_checkpoint, train

SYNTHETIC = "synthetic images: a smoke test, not evidence"


class RunError(ValueError):
    """A run folder is not what it should be."""


class Budget(NamedTuple):
    """What a method's training has spent."""

    parameters: int
    images_seen: int
    steps: int
    multiply_adds: int
    seconds: float


class Run:
    """One run's folder and its tracker."""

    def __init__(self, params: Params, folder: Path) -> None:
        self.params, self.folder = params, folder
        self._sent: dict[str, int] = {}
        self._tracker: Any = None

    @classmethod
    def start(cls, params: Params, base: Path) -> "Run":
        """Make or reopen the folder, mark it as running, start the tracker (offline unless WANDB_MODE says so)."""
        import wandb  # here: it takes 0.7 s, and only a run needs it

        run = cls(params, params.folder(base))
        run._refuse_other_settings()
        write_json(run.folder / "params.json", params.model_dump())
        run.mark("running")
        mode = os.environ.get("WANDB_MODE", "offline") if params.tracking == "wandb" else "disabled"
        wandb.finish()  # the tracker of a run that this process has started before, and not finished
        run._tracker = wandb.init(
            project="imgae-dx", name=run.folder.name, dir=run.folder, mode=mode, config=params.model_dump()
        )
        for method in params.methods:
            run._tracker.define_metric(f"{method}/*", step_metric=f"{method}/epoch")
        return run

    def _refuse_other_settings(self) -> None:
        """A folder with trained weights keeps the record of what they were trained under."""
        if not any((self.folder / "checkpoints").glob("*.pt")):
            return
        there, now = Run.open(self.folder).params.training_settings(), self.params.training_settings()
        if pairs := ", ".join(
            f"{key}: {there[key]!r} there, {now[key]!r} now" for key in now if there[key] != now[key]
        ):
            raise RunError(
                f"{self.folder} was trained under other settings ({pairs}): choose another run_dir, or remove it"
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
            log=lambda history: self.log(name, history),
            name=name,
        )

    def _keep_split(self, split: Split) -> None:
        """Write split.json; weights of this folder that were trained on another split end the run."""
        file = self.folder / "split.json"
        there = json.loads(file.read_text())["hash"] if file.is_file() else split.hash
        if there != split.hash and any((self.folder / "checkpoints").glob("*.pt")):
            raise RunError(
                f"{self.folder} was trained on split {there}, and the images now give {split.hash}: train anew"
            )
        write_json(file, split.manifest)

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

    def write_scores(
        self,
        split: Split,
        scores: Mapping[str, Mapping[str, np.ndarray]],
        budgets: Mapping[str, Budget],
        pixels: Mapping[str, Mapping[str, float]],
        synthetic: bool,
    ) -> pd.DataFrame:
        """Write split.json, scores.parquet and results.json: from here on other runs can compare with this one.

        `scores` holds each method's image scores by side ("validation", "test"). Returns the table of scores.
        """
        sides = {"validation": split.validation, "test": split.test}
        table = pd.concat([records.assign(side=side) for side, records in sides.items()], ignore_index=True)
        table["patient"] = table["patient"].where(table["patient"] != "", "image " + table["id"])
        for name, by_side in scores.items():
            table[name] = np.concatenate([by_side[side] for side in sides])
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
                "methods": {
                    name: {"run": self.folder.name, "budget": budgets[name]._asdict(), "pixels": pixels.get(name)}
                    for name in scores
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

        A run beside it counts if its split, image size and number of images seen are the same; in what else it differs
        is said. Of several with one method the newest is taken; this run's own methods come first.
        """
        mine, table = self.results(), pd.read_parquet(self.folder / "scores.parquet")
        mine["methods"] = {n: entry for n, entry in mine["methods"].items() if entry["run"] == self.folder.name}
        settings = self.params.training_settings()
        found = [{"method": name, "run": self.folder.name, "used": True, "differs in": ""} for name in mine["methods"]]
        seen = {entry["budget"]["images_seen"] for entry in mine["methods"].values()} or None
        others = [file for file in self.folder.parent.glob("*/results.json") if file.parent != self.folder]
        for file in sorted(others, key=lambda file: file.stat().st_mtime, reverse=True):
            theirs = json.loads(file.read_text())
            if any(theirs.get(key) != mine[key] for key in ("split", "image_size", "score")):
                continue
            other = Run.open(file.parent).params.training_settings()
            differs = ", ".join(f"{key} {other[key]}" for key in settings if other[key] != settings[key])
            for name, entry in theirs["methods"].items():
                if entry["run"] != file.parent.name or (seen and entry["budget"]["images_seen"] not in seen):
                    continue
                seen = seen or {entry["budget"]["images_seen"]}  # a run that trains nothing takes the newest's budget
                used = name not in mine["methods"]
                found.append({"method": name, "run": entry["run"], "used": used, "differs in": differs})
                if used:
                    scores = pd.read_parquet(file.parent / "scores.parquet", columns=["id", name])
                    table = table.merge(scores, on="id", how="left", validate="one_to_one")
                    mine["methods"][name] = entry
        self.write_results(mine)
        return table, pd.DataFrame(found, columns=["method", "run", "used", "differs in"])

    def evaluate(self, table: pd.DataFrame) -> dict[str, Any]:
        """Evaluate every method of `table`, under each label column there is; write and return results.json.

        The column that the settings name is `results["evaluation"]`, others that hold both classes are in
        `results["other_labels"]`.
        """
        results = self.results()
        options = {"resamples": self.params.resamples, "seed": self.params.seed}
        labelled = table[table["side"] == "test"]
        columns = [
            column
            for column in ("label", "strict_label")
            if column in table and column != self.params.labels and {"normal", "abnormal"} <= set(labelled[column])
        ]
        methods = list(results["methods"])
        results["evaluation"] = evaluate_scores(table, methods, labels=self.params.labels, **options)
        results["other_labels"] = [evaluate_scores(table, methods, labels=column, **options) for column in columns]
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


def pixel_results(maps: np.ndarray, ids: Sequence[str], masks: Mapping[str, np.ndarray]) -> dict[str, float] | None:
    """Return the pixel-level average precision over the images that have a lesion marked, with its prevalence and n."""
    marked = [i for i, image_id in enumerate(ids) if image_id in masks]
    if not marked or not (lesions := np.stack([masks[ids[i]] for i in marked])).any():
        return None
    return {
        "average_precision": pixel_average_precision(maps[marked], lesions),
        "prevalence": float(lesions.mean()),
        "images": len(marked),
    }


def budget_table(results: Mapping[str, Any]) -> pd.DataFrame:
    """Return what each method has spent, one row a method."""
    rows = {name: entry["budget"] for name, entry in results["methods"].items()}
    return pd.DataFrame(
        {
            name: {
                "parameters": f"{b['parameters']:,}",
                "images seen": f"{b['images_seen']:,}",
                "optimizer steps": f"{b['steps']:,}",
                "multiply-adds": f"{b['multiply_adds']:.2e}",
                "seconds": f"{b['seconds']:,.0f}",
            }
            for name, b in rows.items()
        }
    ).T.rename_axis("method")


def summary(results: Mapping[str, Any]) -> str:
    """Return the result as plain text: the table, the differences, and that it is no evidence where it is none."""
    evaluation = results["evaluation"]
    lines = [results_table(evaluation).to_string()]
    for d in evaluation["differences"]:
        a = d["auroc"]
        lines.append(f"AUROC {d['first']} minus {d['second']}: {a['value']:+.3f} [{a['low']:+.3f}, {a['high']:+.3f}]")
    if results["synthetic"]:
        lines.append(SYNTHETIC)
    return "\n".join(lines)


def write_report(notebook: Path, report: Path) -> None:
    """Write an executed notebook as one HTML page, without the library's cells."""
    import nbformat
    from nbconvert import HTMLExporter
    from traitlets.config import Config

    config = Config()
    config.TagRemovePreprocessor.remove_cell_tags = {"library"}
    config.HTMLExporter.preprocessors = ["nbconvert.preprocessors.TagRemovePreprocessor"]
    page, _ = HTMLExporter(config=config).from_notebook_node(nbformat.read(notebook, as_version=4))
    with replacing(report) as out:
        out.write(page.encode())
