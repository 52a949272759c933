"""Masks of lesions, and what follows from them alone: which images have one, their regions, where lesions usually lie.

Maps and masks are stacks, (n, height, width), that are read batch by batch.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from scipy.ndimage import label

from lib.evidence.metrics import numbered

BATCH = 64  # images read at once


class Stack(Protocol):
    """Maps or masks, (n, height, width), read by slice: an array, or what is computed as it is read."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of images, height, width."""

    def __getitem__(self, key: Any, /) -> np.ndarray: ...


class Masks:
    """The masks of images by their ids, (n, height, width) bool; that of an image without `lesions` is empty."""

    def __init__(self, lesions: Mapping[str, np.ndarray], ids: Sequence[str]) -> None:
        self._lesions, self._ids = lesions, np.asarray(ids, dtype=object)
        self._none = np.zeros_like(next(iter(lesions.values()), np.empty((0, 0))), dtype=bool)
        self.shape = (len(ids), *self._none.shape)

    def __getitem__(self, key: Any) -> np.ndarray:
        ids = self._ids[key]
        masks = [self._lesions.get(image_id, self._none) for image_id in np.atleast_1d(ids)]
        return np.array(masks, dtype=bool).reshape(*np.shape(ids), *self._none.shape)


def batches(stack: Stack) -> list[slice]:
    """Return the rows of each batch of images."""
    return [slice(start, start + BATCH) for start in range(0, stack.shape[0], BATCH)]


def marked(masks: Stack) -> np.ndarray:
    """Return which masks hold a lesion, (n,) bool."""
    axes = tuple(range(1, len(masks.shape)))
    return np.concatenate([np.zeros(0, dtype=bool), *((masks[rows] > 0).any(axis=axes) for rows in batches(masks))])


def numbered_for(masks: Stack, patients: Sequence[str]) -> np.ndarray:
    """Return the number of each image's patient, (n,); ValueError unless there is a named one for each mask."""
    nameless = (np.asarray(patients, dtype=object) == "").sum()
    if len(patients) != masks.shape[0] or nameless:
        raise ValueError(f"{len(patients)} patients, {nameless} of them '', for {masks.shape[0]} masks: name each")
    return numbered(patients)


def lungs_template(size: int) -> np.ndarray:
    """Return where the lungs of a centred frontal image are, (size, size) bool: two upright ellipses.

    In shares of a side: centres (0.31, 0.46) and (0.69, 0.46), x before y, half axes 0.15 and 0.32; drawn by eye on the
    mean of 600 normal adult images, with the mean of the adult test boxes in view; 83 % of their area lies inside.
    """
    place = (np.arange(size) + 0.5) / size
    return ((np.abs(place - 0.5) - 0.19) / 0.15) ** 2 + ((place[:, None] - 0.46) / 0.32) ** 2 <= 1


def marked_and_normal(
    ids: Sequence[str], labels: Sequence[str], lesions: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, Masks, dict[str, int]]:
    """Return the rows that localisation is measured on, (k,) ints, their masks, (k, h, w), and the number of others.

    `lesions` are masks, (h, w) bool, by id. An image counts if its label is "normal" and it has no mask, or if it has
    another label and at least one marked pixel; a box that is outside the image or too small marks none. All other
    images are counted by the reason why they are left out. Raises ValueError for unequal numbers of ids and labels.
    """
    if len(ids) != len(labels):
        raise ValueError(f"{len(ids)} images and {len(labels)} labels: expected a label for each, in the same order")
    normal, known = np.asarray(labels) == "normal", np.array([i in lesions for i in ids], dtype=bool)
    seen = np.array([i in lesions and lesions[i].any() for i in ids], dtype=bool)
    left_out = {
        "called normal, and a lesion marked": normal & known,
        "not normal, and nothing marked": ~normal & ~known,
        "marked where the image has no pixel": ~normal & known & ~seen,
    }
    rows = np.flatnonzero(np.where(normal, ~known, seen))
    masks = Masks(lesions, [ids[int(row)] for row in rows])
    return rows, masks, {why: int(where.sum()) for why, where in left_out.items() if where.any()}


class LocationPrior:
    """The mean of the *other* patients' lesions for each image, (n, height, width) float32, from masks of that shape.

    Images without a lesion are not in the mean. Raises ValueError if fewer than two patients have a lesion.
    """

    def __init__(self, masks: Stack, patients: Sequence[str]) -> None:
        self.shape, self._masks, self._patient = masks.shape, masks, numbered_for(masks, patients)
        self._total = sum((masks[rows] > 0).sum(axis=0) for rows in batches(masks))
        self._count = np.bincount(self._patient, weights=marked(masks))  # images with a lesion, by patient
        self._lesions = lru_cache(BATCH)(self._lesions_of)  # a patient's images mostly follow each other
        if (self._count > 0).sum() < 2:
            found = f"{(self._count > 0).sum()} patients with a lesion"
            raise ValueError(f"{found}: the prior of one comes from the others; expected two or more")

    def _lesions_of(self, patient: int) -> np.ndarray:
        return (self._masks[np.flatnonzero(self._patient == patient)] > 0).sum(axis=0)

    def __getitem__(self, key: Any) -> np.ndarray:
        patients = self._patient[key]
        own = [self._lesions(patient) if self._count[patient] else 0 for patient in np.atleast_1d(patients)]
        others = [self._count.sum() - self._count[patient] for patient in np.atleast_1d(patients)]
        means = [(self._total - lesions) / count for lesions, count in zip(own, others, strict=True)]
        return np.array(means, dtype=np.float32).reshape(*np.shape(patients), *self.shape[1:])


class Lesions:
    """The lesion pixels of masks in a part of the image: which they are, and the connected region of each."""

    def __init__(self, masks: Stack, inside: np.ndarray | None) -> None:
        """Number the regions; corners connect, images do not. `inside`, (h, w) bool, is the part, by default all."""
        self._masks, self.inside = masks, np.ones(masks.shape[1:], dtype=bool) if inside is None else inside
        if self.inside.dtype != bool or self.inside.shape != masks.shape[1:]:
            raise ValueError(f"inside is {self.inside.dtype} {self.inside.shape}: expected bool {masks.shape[1:]}")
        regions, count = [], 0
        for rows in batches(masks):
            numbers, found = label(masks[rows] > 0, np.ones((3, 3, 3)) * [[[0]], [[1]], [[0]]])
            part = numbers[:, self.inside]
            regions.append(part[part > 0].astype(np.int64) + count)
            count += found
        self.region = np.unique(np.concatenate(regions), return_inverse=True)[1]
        self.pixels = masks.shape[0] * int(self.inside.sum())

    def batches(self, maps: Stack) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        """Yield the rows of a batch, its maps, (b, p) floats, and where the lesions are, (b, p) bool."""
        for rows in batches(self._masks):
            batch = maps[rows][:, self.inside]
            yield rows, batch.astype(np.result_type(batch, np.float32)), self._masks[rows][:, self.inside] > 0
