"""Which images count as one: those that share a patient, a file or a picture, also through other images.

A copy of an image is no new patient. The split keeps a group on one side, and every interval resamples whole groups.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def groups(records: pd.DataFrame) -> pd.Series:
    """Return the name of each record's group, (n,): the least of its patients; an unknown patient is the image's own.

    The tables of `Split.grouped` carry theirs: those of all records that were divided, also of those on no side.
    """
    if "group" in records:
        return records["group"]
    names = _patients(records)
    return names.groupby(group_numbers(records)).transform("min")


def group_numbers(records: pd.DataFrame) -> np.ndarray:
    """Return a number per record, (n,), equal for images that share a patient, file or image, also through others."""
    rows = pd.Series(np.arange(len(records)))
    keys = (_patients(records), records["digest"], records["twin"])
    return connected(len(rows), [(rows, rows.groupby(key.to_numpy()).transform("min")) for key in keys])


def connected(count: int, links: Sequence[np.ndarray | tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Return a number for each of `count` items, equal for those that are linked, also through others."""
    first, second = (np.concatenate(ends) for ends in zip(*links, strict=True))
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def _patients(records: pd.DataFrame) -> pd.Series:
    return records["patient"].where(records["patient"] != "", "image " + records["id"])
