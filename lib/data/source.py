"""The contract of a source of images, and what may be wrong with them: an error, or an entry in a table of problems."""

import codecs
import csv
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import pandas as pd

from lib.privacy import masked
from lib.refusals import Refusal

LABELS = {"label": ("normal", "abnormal"), "strict_label": ("normal", "abnormal", "other_abnormal", "")}
NORMAL_WORDS = {"normal", "no finding", "no_finding"}  # names of folders and classes of normal images
SIDE = re.compile(r"(?:(train(?:ing)?)|(val(?:id(?:ation)?)?)|(test(?:s|ing)?))(?:sets?|splits?|data|images?|imgs?)?")
OPTIONAL = ("finding", "split", "patient", "age", "sex", "view")  # columns of a record that may be unknown, ""
SIZES = ("file size", "width", "height")  # of the original file: bytes, and pixels before the image becomes square
LEFT_OUT = "left out"  # the image is used for nothing; the run continues only if `on_bad_image` is "skip"


@runtime_checkable
class ImageStack(Protocol):
    """Images (n, height, width) uint8, read by index: a NumPy array, or `lib.data.cache.CachedImages`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of images, height, width."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any, /) -> np.ndarray: ...


class Subset:
    """Some images of a stack, (k, height, width) uint8, read by index when they are wanted."""

    def __init__(self, images: ImageStack, rows: np.ndarray) -> None:
        self._images, self._rows = images, rows
        self.shape = (len(rows), *images.shape[1:])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: Any) -> np.ndarray:
        return self._images[self._rows[key]]


class SourceError(Refusal):
    """The images or their table cannot be used; the message names no secret of an address."""

    def __init__(self, message: str) -> None:
        super().__init__(masked(message))


class Problem(NamedTuple):
    """One problem with an image, and its consequence."""

    image: str
    """The record's id, or the file's name if there is no record."""
    problem: str
    """What was found; details of the image follow a colon, so that reasons can be counted."""
    consequence: str
    """`LEFT_OUT`, or how the image was used nevertheless."""


class Source(Protocol):
    """What the data set needs from a source."""

    name: str
    """Identifies what `contents` returns, for the cache: equal names mean equal images."""
    synthetic: bool
    about: dict[str, str]
    """What a reader wants to know: where the images are from, their licence, how the labels came about."""
    records: pd.DataFrame
    """One row per image, as described in `lib.data.sources`."""
    problems: list[Problem]
    """Problems found while opening the source; images that were left out are not among the records."""

    def contents(self, ids: Sequence[str]) -> Iterator[tuple[str, Callable[[], bytes]]]:
        """Yield the id of each of these images once, in any order, with a function that reads the image's file."""

    def mask(self, image_id: str) -> np.ndarray | None:
        """Return the lesion, (height, width) bool, or None if none is marked."""


def problems_table(problems: Iterable[Problem]) -> pd.DataFrame:
    """Return one row per problem, sorted by reason and image."""
    table = pd.DataFrame(list(problems), columns=Problem._fields, dtype=str)
    return table.sort_values(["problem", "image"], ignore_index=True)


def problem_counts(table: pd.DataFrame) -> dict[str, int]:
    """Return how often each reason occurs, by "reason: consequence"."""
    reasons = table["problem"].str.split(":").str[0] + ": " + table["consequence"]
    return {reason: int(count) for reason, count in reasons.value_counts().sort_index().items()}


def side_of(word: str) -> str:
    """Return the side of an official split that a word names, such as "Training" or "test_set"; "" for other words."""
    side = SIDE.fullmatch(re.sub(r"[\W\d_]", "", word.casefold()))
    return (
        next(name for name, found in zip(("train", "val", "test"), side.groups(), strict=True) if found) if side else ""
    )


def label_problems(records: pd.DataFrame) -> list[Problem]:
    """Return the records whose label is missing or unknown."""
    problems = []
    for column, known in LABELS.items():
        if column in records:
            odd = records[~records[column].isin(known)]
            problems += [
                Problem(row.id, f"{column} is not one of {', '.join(filter(None, known))}: {word!r}", "counted apart")
                for row, word in zip(odd.itertuples(), odd[column], strict=True)
            ]
    return problems


def read_text(file: Path) -> str:
    """Return a text in UTF-8 or, with its mark, in UTF-16; UnicodeError if it is in another encoding."""
    content = file.read_bytes()
    return content.decode("utf-16" if content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig")


def read_table(file: Path, wanted: Sequence[str]) -> pd.DataFrame:
    """Return a CSV file as text, empty cells as ""; SourceError if it cannot be read or lacks a `wanted` column.

    It may be in UTF-8 or, with its mark, in UTF-16; rows may end in a comma.
    """
    try:
        lines = [row for row in csv.reader(io.StringIO(read_text(file), newline=""), strict=True) if row]
    except (ValueError, csv.Error) as error:
        how = "save it as UTF-8, with commas between the cells"
        raise SourceError(f"{file} cannot be read as a table: {error}; {how}") from error
    if not lines:
        raise SourceError(f"{file} is empty: write the columns' names in its first row")
    header, *rows = lines
    while header and not header[-1]:
        header.pop()
    width = len(header)
    if long := next((number for number, row in enumerate(rows, 2) if any(row[width:])), None):
        raise SourceError(
            f"{file}, row {long} has more cells than the {width} columns: put a text with commas in quotes"
        )
    if absent := [column for column in wanted if column not in header]:
        raise SourceError(f"{file} has no column {', '.join(absent)}; found {', '.join(header)}")
    if twice := sorted({column for column in header if header.count(column) > 1}):
        raise SourceError(f"{file} has the column {', '.join(twice)} twice: remove one of them")
    return pd.DataFrame([row[:width] + [""] * (width - len(row)) for row in rows], columns=header, dtype=str)


def boxes_by_image(file: Path, table: pd.DataFrame, image: str, sides: Sequence[str]) -> dict[str, np.ndarray]:
    """Return each image's boxes, (boxes, sides) float, of which the last two sides are lengths.

    Raises:
        SourceError: A row of `file`, which it names, holds no numbers, or a length that is not positive.

    """
    numbers = table[[*sides]].apply(pd.to_numeric, errors="coerce")
    if (bad := ~np.isfinite(numbers).all(axis=1)).any():
        row = int(bad.idxmax())
        raise SourceError(f"{file}, row {row + 2}: {table.loc[row].to_dict()}; expected numbers for {', '.join(sides)}")
    if (bad := (numbers[[*sides[-2:]]] <= 0).any(axis=1)).any():
        row = int(bad.idxmax())
        raise SourceError(
            f"{file}, row {row + 2}: {table.loc[row].to_dict()}; expected positive {', '.join(sides[-2:])}"
        )
    return {name: rows.to_numpy() for name, rows in numbers.groupby(table[image])}


def cache_folder() -> Path:
    """Return the folder of all caches: `IMGAE_DX_CACHE`, else, also if that is empty, the user's cache."""
    return Path(os.environ.get("IMGAE_DX_CACHE") or Path.home() / ".cache" / "imgae-dx")


def age_quantiles(records: pd.DataFrame) -> tuple[float, float, float, int] | None:
    """Return the 5th, 50th and 95th percentile of the known ages, in years, and their number; None if none is known."""
    known = pd.to_numeric(records["age"], errors="coerce").dropna()
    if known.empty:
        return None
    low, middle, high = (float(age) for age in known.quantile([0.05, 0.5, 0.95]))
    return low, middle, high, len(known)
