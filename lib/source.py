"""The contract of a source of images, and what may be wrong with them: an error, or a line in a table of problems."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import pandas as pd

LABELS = {"label": ("normal", "abnormal"), "strict_label": ("normal", "abnormal", "other_abnormal", "")}
NORMAL_WORDS = {"normal", "no finding", "no_finding"}  # what folders and classes of normal images are called
SPLIT_WORDS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
SIZES = ("file size", "width", "height")  # of an image as it came: bytes, and pixels before it becomes square
LEFT_OUT = "left out"  # the image takes part in nothing; a run goes on only if `on_bad_image` says skip


class SourceError(ValueError):
    """The images or their table are not as a source needs them."""


class Problem(NamedTuple):
    """One thing that was found, and what became of it."""

    image: str
    """The record's id, or the file's name where there is no record."""
    problem: str
    """What was found; what differs from image to image stands after a colon, so that reasons can be counted."""
    consequence: str
    """`LEFT_OUT`, or how the image was used nevertheless."""


class Source(Protocol):
    """What the data set needs from a source."""

    name: str
    """Names what `contents` returns, for the cache: equal names mean equal images."""
    synthetic: bool
    about: dict[str, str]
    """What a reader wants to know of it: where it is from, licence, how the labels were made."""
    records: pd.DataFrame
    problems: list[Problem]
    """What opening it has found; the images that were left out are not among the records."""

    def contents(self, ids: Sequence[str]) -> Iterator[tuple[str, Callable[[], bytes]]]:
        """Yield each of these images once, in the order that suits the source, with a function that reads its file."""

    def mask(self, image_id: str) -> np.ndarray | None:
        """Return the lesion, (height, width) bool, or None where none is marked."""


def problems_table(problems: Iterable[Problem]) -> pd.DataFrame:
    """Return one row a problem, sorted by reason and image."""
    table = pd.DataFrame(list(problems), columns=Problem._fields, dtype=str)
    return table.sort_values(["problem", "image"], ignore_index=True)


def problem_counts(table: pd.DataFrame) -> dict[str, int]:
    """Return how often each reason occurs, by the reason and what became of the images."""
    reasons = table["problem"].str.split(":").str[0] + ": " + table["consequence"]
    return {reason: int(count) for reason, count in reasons.value_counts().sort_index().items()}


def label_problems(records: pd.DataFrame) -> list[Problem]:
    """Return the records whose label is missing or is no word that is known."""
    problems = []
    for column, known in LABELS.items():
        if column in records:
            odd = records[~records[column].isin(known)]
            problems += [
                Problem(row.id, f"{column} is not one of {', '.join(filter(None, known))}: {word!r}", "counted apart")
                for row, word in zip(odd.itertuples(), odd[column], strict=True)
            ]
    return problems
