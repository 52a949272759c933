"""What a gallery shows of each image: its scores, what is known of it, and its pictures."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd

from lib.evidence.results import Estimate

USE = "Research use only, not for diagnosis."


class Score(NamedTuple):
    """A score of every image; above the threshold an image is called abnormal."""

    name: str
    values: list[float | None]
    """None where an image has no such score."""
    threshold: float | None
    auroc: Estimate | None = None
    """None without labels, or without an image of each class."""
    p: Sequence[float] = ()


class Panels(NamedTuple):
    """The pictures of one image, (size, size) uint8 each, and its marked lesion, (size, size) bool."""

    image: np.ndarray
    maps: dict[str, np.ndarray]
    """By method; 255 at the method's ceiling and above."""
    reconstructions: dict[str, np.ndarray]
    lesion: np.ndarray | None = None


@dataclass(frozen=True)
class Shown:
    """What a gallery shows."""

    title: str
    sentences: list[str]
    """Which images, by which labels, and what the numbers mean."""
    records: list[dict[str, str]]
    """Of each image its "name", and "label", "finding", "view" or "unlike" where they are known."""
    scores: list[Score]
    ceilings: dict[str, float]
    """The residual at which a method's map has its brightest colour, in [0, 1]."""
    panels: Callable[[int], Panels]
    """The pictures of the image at a place in `records`."""
    warnings: list[str] = field(default_factory=lambda: [USE])
    labelled: bool = False
    """Whether "label" says of each image that it is normal, abnormal, or neither."""
    remarks: list[str] = field(default_factory=list)
    """What of a table of labels does not fit the images."""


def by_label(counts: Mapping[str, int], table: str) -> str:
    """Return how many images have which label, by the labels in some `table`, and which of them count."""
    order = sorted(counts, key=lambda label: (label != "normal", label != "abnormal"))
    left_out = "; only normal and abnormal ones count in the numbers" if counts.keys() - {"normal", "abnormal"} else ""
    return f"{', '.join(f'{counts[label]:,} {label}' for label in order)}, by the labels in {table}{left_out}."


def records_of(table: pd.DataFrame) -> list[dict[str, str]]:
    """Return what is known of each image, without what is unknown of all: nothing that tells who the patient is."""
    columns = [column for column in ("label", "finding", "view", "unlike") if column in table]
    known = table[["name", *columns]].fillna("").astype(str)
    return known[["name", *(column for column in columns if known[column].any())]].to_dict("records")


def finite(values: pd.Series) -> list[float | None]:
    """Return values as JSON has them: None where one is not finite."""
    return [float(value) if math.isfinite(value) else None for value in values]
