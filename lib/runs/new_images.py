"""New images, without labels -> their scores by a trained model, what the scores promise, and maps to look at.

One batch of images is in memory at a time, and what is finished is on the disk: an interrupted call goes on there.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from lib.data.cache import read_image
from lib.data.metadata import normalise
from lib.data.preparation import displayed
from lib.data.source import LEFT_OUT, Problem, problems_table
from lib.data.unlabelled import Unlabelled, open_unlabelled
from lib.figures.overlay import eight_bits, overlay, sixteen_bits
from lib.files import hash_of, locked, no_formula, replacing, without_formulas, write_csv, write_json
from lib.runs.dicom_object import LONGEST, Finding, check_installed, overlay_object, read_source
from lib.runs.layout import ABOUT, PROBLEMS, SCORES, map_place, overlay_place, picture_place
from lib.runs.model import FORM, USE, Model, open_model
from lib.runs.run import RunError
from lib.scores.conformal import p_values, promise
from lib.scores.features import Backbone

BATCH = 32
SHOWN = 512  # pixels of the longer side of an image under its map
NO_OBJECT = "no DICOM object"  # a consequence: the image is scored


class Asked(NamedTuple):
    """What a call asks of a model."""

    false_alarm_rate: float = 0.05
    primary_only: bool = False
    maps: bool = True
    hash_names: bool = False
    dicom: bool = False
    """Whether to write DICOM objects, which name the patient."""

    def written(self, name: str) -> str:
        """Return what is written in place of an image's name."""
        return hash_of(name) if self.hash_names else name


class Found(NamedTuple):
    """The scores of new images, and what was found on the way."""

    table: pd.DataFrame
    """One row per image."""
    problems: pd.DataFrame
    """One row per problem; an image that cannot be used is `LEFT_OUT` and not in the table."""
    about: dict[str, Any]
    """The model, the thresholds, and what the numbers promise, as sentences."""
    new: int
    """How many images this call has scored."""
    before: int
    """How many of its images an earlier call had scored."""


class _New(NamedTuple):
    """An image that was read, and facts about it; no pixels if it is unusable or scored already."""

    name: str
    facts: dict[str, Any]
    pixels: np.ndarray | None = None  # as the model wants it
    shown: np.ndarray | None = None  # as a reader wants it, (height, width) uint8
    captured: np.ndarray | None = None  # the same for its DICOM object
    source: Any = None  # the header that the object refers to
    no_object: str = ""  # why there is none


def score_new(model: Model | str, places: Sequence[str], *, false_alarm_rate: float = 0.05) -> Found:
    """Return the scores of images: files, folders, shards; `model` may be the folder of a run. Nothing is written."""
    model = open_model(model) if isinstance(model, str) else model
    images = open_unlabelled(places)
    with Scoring(model, Asked(false_alarm_rate, maps=False)) as scoring:
        batches = list(scoring.batches(images, {}))
    table = pd.concat([batch.table for batch in batches], ignore_index=True)
    problems = [*images.problems, *(problem for batch in batches for problem in batch.problems)]
    return Found(table, problems_table(problems), scoring.about, len(table), 0)


def write_scores(model: Model, places: Sequence[str], asked: Asked, folder: Path) -> Found:
    """Write the scores of images, their maps and pictures into a folder; what is there already is not computed again.

    Raises:
        RunError: The folder holds scores of another model, or asked for otherwise.

    """
    images = open_unlabelled(places)
    folder.mkdir(parents=True, exist_ok=True)
    problems = [problem._replace(image=asked.written(problem.image)) for problem in images.problems]
    file, new = folder / SCORES, 0
    with locked(folder / ".lock", f"scores images into {folder}"), Scoring(model, asked) as scoring:
        for batch in scoring.batches(images, _finished(folder, scoring.about)):
            for place, content in batch.pictures.items():
                with replacing(folder / place) as out:
                    out.write(content)
            if len(batch.table):
                with file.open("a", encoding="utf-8", newline="") as rows:
                    without_formulas(batch.table).to_csv(rows, index=False, header=not rows.tell())
            problems, new = problems + batch.problems, new + len(batch.table)
        listed = problems_table(problems)
        write_csv(folder / PROBLEMS, listed, index=False)
        written = file.is_file() and file.stat().st_size
        table = pd.read_csv(file, keep_default_na=False) if written else pd.DataFrame(columns=["image"])
        if table["image"].duplicated().any():  # of an image that has changed, the last row counts
            table = table.drop_duplicates("image", keep="last", ignore_index=True)
            write_csv(file, table, index=False)
    before = len(images.names) - new - int((listed["consequence"] == LEFT_OUT).sum())
    return Found(table, listed, scoring.about, new, before)


def _finished(folder: Path, about: dict[str, Any]) -> dict[str, str]:
    """Return the digests of the images whose rows are in a folder's scores.csv, by name; start its about.json.

    A row that was cut is removed.
    """
    file, facts = folder / SCORES, folder / ABOUT
    if file.is_file():
        made = json.loads(facts.read_text(encoding="utf-8")) if facts.is_file() else {}
        if differing := [name for name, value in about.items() if made.get(name) != value]:
            name, was = differing[0], made.get(differing[0], "unknown")
            other = f"{name.replace('_', ' ')}: {was}, and not {about[name]}"
            raise RunError(f"{folder} holds scores with another {other}: choose another folder with --to")
    write_json(facts, about)
    if not file.is_file():
        return {}
    content = file.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(file, len(whole))
    if not whole:
        return {}
    table = pd.read_csv(file, usecols=["image", "sha256"], dtype=str, keep_default_na=False)
    return dict(zip(table["image"], table["sha256"], strict=True))


class Batch(NamedTuple):
    """The scores of some images, what was wrong with others, and their pictures by place in the folder."""

    table: pd.DataFrame
    problems: list[Problem]
    pictures: dict[str, bytes]


class Scoring:
    """A model at work on new images: files are read and pictures drawn by all threads while it scores."""

    def __init__(self, model: Model, asked: Asked) -> None:
        if asked.dicom:
            check_installed()
        self._model, self._asked = model, asked
        self._scorers = model.scorers(primary_only=asked.primary_only)
        self._columns = [
            f"{name}{suffix}"
            for name, scorer in self._scorers.items()
            for form, suffix in FORM.items()
            if form == "primary" or scorer.complete
        ]
        every = model.thresholds(asked.false_alarm_rate)
        self._thresholds = {column: every[column] for column in self._columns}

    def __enter__(self) -> "Scoring":
        self._threads = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(self._threads, initializer=torch.set_num_threads, initargs=(1,))
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self._threads)

    @property
    def about(self) -> dict[str, Any]:
        """What is written beside the scores: the model, how it scores, thresholds, and what the numbers promise."""
        n = self._model.fitted.likeness.calibration
        return {
            "model": self._model.name,
            "identity": self._model.identity,
            **self._asked._asdict(),
            "primary_only": len(self._columns) == len(self._scorers),
            "thresholds": self._thresholds,
            "ceilings": {name: scorer.fit.ceiling for name, scorer in self._scorers.items()},
            "promise": promise(n, self._asked.false_alarm_rate),
            "unlike": self._model.fitted.likeness.rule(self._backbone),
            "use": USE,
        }

    def batches(self, images: Unlabelled, done: Mapping[str, str]) -> Iterator[Batch]:
        """Yield the images in batches; those whose file's digest is that in `done`, by name, are left out."""
        waiting: Iterator[_New] | None = None
        with tqdm(total=len(images.names), desc="score", unit="image", mininterval=1, leave=False) as progress:
            for chunk in chain(iter(lambda: list(islice(images.contents, BATCH)), []), [None]):
                reading = self._pool.map(lambda image: self._read(image, done), chunk) if chunk else None
                if waiting is not None:  # the next batch is read while this one is scored
                    batch = list(waiting)
                    yield self._score(batch)
                    progress.update(len(batch))
                waiting = reading

    def _read(self, image: tuple[str, Callable[[], bytes]], done: Mapping[str, str]) -> _New:
        """Return an image, prepared; without pixels if it is unusable, or if it is done."""
        name = self._asked.written(image[0])
        decoded, facts = read_image(image[1])
        source, no_object = read_source(image[1]()) if self._asked.dicom and decoded else (None, "")
        if decoded is None or done.get(no_formula(name)) == facts["digest"]:
            return _New(name, facts, no_object=no_object)
        preparation = self._model.preparation
        stretched = preparation.stretched(decoded.pixels, decoded.padding)
        shown = displayed(stretched, SHOWN) if self._asked.maps else None
        captured = displayed(stretched, LONGEST) if source else None
        return _New(name, facts, preparation.squared(stretched), shown, captured, source, no_object)

    def _score(self, batch: Sequence[_New]) -> Batch:
        problems = [Problem(new.name, new.facts["problem"], LEFT_OUT) for new in batch if new.facts["problem"]]
        problems += [Problem(new.name, new.no_object, NO_OBJECT) for new in batch if new.no_object]
        batch = [new for new in batch if new.pixels is not None]
        if not batch:
            return Batch(pd.DataFrame(), problems, {})
        pixels = np.stack([new.pixels for new in batch if new.pixels is not None])
        records, unread = _records(batch)
        columns: dict[str, Any] = {"image": records["id"].tolist()}
        unlike = self._model.fitted.likeness.unlike(pixels, records, self._backbone)
        pictures: dict[str, Future[bytes]] = {}
        for name, scorer in self._scorers.items():
            scored = scorer(pixels)
            for form, values in scored.scores.items():
                column = f"{name}{FORM[form]}"
                columns[column] = values
                columns[f"{column}, p"] = p_values(scorer.fit.calibration[form], values)
                columns[f"{column}, threshold"] = self._thresholds[column]
            columns[f"{name}, abnormal"] = np.where(scored.scores["primary"] > self._thresholds[name], "yes", "no")
            for row, (new, values) in enumerate(zip(batch, scored.residuals, strict=True)):
                place, ceiling = overlay_place(name, new.name), scorer.fit.ceiling
                box = self._model.preparation.extent(new.facts["height"], new.facts["width"])
                if new.shown is not None:
                    pictures[map_place(name, new.name)] = self._pool.submit(sixteen_bits, values, 0, 1)
                    pictures[place] = self._pool.submit(overlay, new.shown, values, ceiling, box)
                if new.captured is not None:
                    score, p = (float(columns[column][row]) for column in (name, f"{name}, p"))
                    limit, rate = self._thresholds[name], self._asked.false_alarm_rate
                    says = Finding(self._model.identity, name, score, limit, rate, p, unlike[row])
                    made = self._pool.submit(overlay_object, new.source, says, new.captured, values, ceiling, box)
                    pictures[f"{place.removesuffix('jpg')}dcm"] = made
        for new in batch:
            if new.shown is not None and new.pixels is not None:
                pictures[picture_place(new.name)] = self._pool.submit(eight_bits, new.pixels)
        columns["unlike"] = unlike
        columns["sha256"] = [new.facts["digest"] for new in batch]
        files = {place: future.result() for place, future in pictures.items()}
        return Batch(pd.DataFrame(columns), problems + unread, files)

    @property
    def _backbone(self) -> Backbone | None:
        return None if self._asked.primary_only else self._model.backbone


def _records(batch: Sequence[_New]) -> tuple[pd.DataFrame, list[Problem]]:
    """Return what is known of images without labels, and what of it could not be read."""
    known = [{column: new.facts["header"].get(column, "") for column in ("age", "view")} for new in batch]
    table = pd.DataFrame(known).assign(**{column: "" for column in ("sex", "patient", "split")})
    table = table.assign(id=[new.name for new in batch])
    for side in ("width", "height"):
        table[side] = [new.facts[side] for new in batch]
    return normalise(table)
