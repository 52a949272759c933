"""A table of labels, such as labels.csv -> one row an image, by the path of its file."""

import posixpath
import unicodedata
from pathlib import Path

import pandas as pd

from lib.data.source import LEFT_OUT, NORMAL_WORDS, OPTIONAL, Problem, SourceError, read_table

COLUMNS = {"filename": "id", "label": "label", "strict_label": "strict_label", "patient_id": "patient"}
"""What a record calls the columns of a table; those of `OPTIONAL` have one name in both."""


def read_labels(table: Path) -> tuple[pd.DataFrame, list[Problem]]:
    """Return the `id` and the `label` of each image, with what else the table says that a record holds; and problems.

    Rows of an image that contradict each other are left out, and one that is there twice counts once.

    Raises:
        SourceError: The table cannot be read, lacks a column, or has another word for "normal".

    """
    rows = read_table(table, ("filename", "label"))
    ours = COLUMNS | {column: column for column in OPTIONAL if column != "patient"}
    rows = rows[[name for name in ours if name in rows]].rename(columns=ours)
    words = sorted(word for word in set(rows["label"]) if word.strip().lower() in NORMAL_WORDS)
    if words and "normal" not in words:
        raise SourceError(f"{table} has the label {words[0]!r}, and never 'normal': write normal, and abnormal")
    rows["id"] = rows["id"].map(plain)
    repeated = rows.drop_duplicates()["id"].duplicated(keep=False).reindex(rows.index, fill_value=False)
    contradicted = rows["id"].isin(rows["id"][repeated])
    contradiction, repetition = f"rows of {table.name} contradict each other", f"row twice in {table.name}"
    problems = [Problem(name, contradiction, LEFT_OUT) for name in rows["id"][contradicted].unique()]
    twice = rows["id"][~contradicted & rows.duplicated()].unique()
    problems += [Problem(name, repetition, "used once") for name in twice]
    return rows[~contradicted].drop_duplicates(ignore_index=True), problems


def plain(name: str) -> str:
    """Return a path as written in a table without `./`, and in the one of Unicode's forms that this project uses."""
    return unicodedata.normalize("NFC", posixpath.normpath(name)) if name else ""
