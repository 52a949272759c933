"""Records -> a patient-safe, normal-only split with a manifest -> uint8 images, decoded once.

Labels are read here to keep abnormal images out of training, and then not before the evaluation.
"""

import hashlib
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torchvision.transforms.v2 import functional as transforms
from tqdm import tqdm

from lib.files import replacing
from lib.method import Images
from lib.sources import Source

TEST_FRACTION = 0.2  # of the normal images, where the data has no official split
PREPARATION = "stretch 1-99, pad to a square, resize antialiased"  # part of a cache's identity: change both together


class SplitError(ValueError):
    """The records cannot be divided into training, validation and test."""


@dataclass(frozen=True)
class Split:
    """Three tables of records: training and validation hold normal images only, the test side holds both kinds."""

    train: pd.DataFrame
    validation: pd.DataFrame
    test: pd.DataFrame
    manifest: dict[str, Any]

    @property
    def hash(self) -> str:
        """Names the three sides' images: equal hashes mean equal images on equal sides."""
        return self.manifest["hash"]


def is_normal(records: pd.DataFrame) -> np.ndarray:
    """Return which records every label that is given calls normal, (n,) bool."""
    columns = [column for column in ("label", "strict_label") if column in records]
    given = records[columns].to_numpy() != ""
    return ((records[columns].to_numpy() == "normal") | ~given).all(axis=1) & given.any(axis=1)


def split_records(records: pd.DataFrame, *, validation_fraction: float, seed: int, labels: str = "label") -> Split:
    """Divide the records; no known patient and no exact duplicate stands on two sides.

    An official test side is kept as it is, and training images that share a patient or a file with it are left out and
    counted. Without one, patients with an abnormal image form the test side together with a fifth of the normal ones.
    What is on no side is counted in the manifest by its reason.

    Raises:
        SplitError: A side would be empty, or the test side would lack normal or abnormal images by the column `labels`.

    """
    records = records.reset_index(drop=True)
    normal, group = is_normal(records), _groups(records)
    official = (records["split"] == "test").any()
    rng = np.random.default_rng([seed, 20])
    if not official and (words := sorted(set(records["split"]) - {"", "train", "val"})):
        raise SplitError(f"split is {words} in some rows, and nowhere 'test'; wanted train, val, test, or all empty")
    reason = pd.Series("", index=records.index)

    if official:
        test = (records["split"] == "test").to_numpy()
        unknown = ~test & ~records["split"].isin(["train", "val"]).to_numpy()
        reason[unknown] = "split is neither train, val nor test"
        reason[~test & ~unknown & ~normal] = "abnormal or unlabelled image of the official training or validation side"
        shared = ~test & ~unknown & normal & np.isin(group, group[test])
        reason[shared] = "shares a patient or a file with the official test side"
        pool = ~test & (reason == "").to_numpy()
        validation = pool & (records["split"] == "val").to_numpy()
        validation |= np.isin(group, group[validation]) & pool
    else:
        abnormal_groups = np.unique(group[~normal])
        test = np.isin(group, abnormal_groups)
        test |= _draw(group, ~test, TEST_FRACTION * normal.sum(), rng)
        pool, validation = ~test, np.zeros(len(records), dtype=bool)
    validation |= _draw(group, pool & ~validation, validation_fraction * pool.sum() - validation.sum(), rng)
    train = pool & ~validation

    sides = {"train": train, "validation": validation, "test": test}
    for name, side in sides.items():
        if not side.any():
            raise SplitError(
                f"the {name} side is empty: {len(records)} images, {normal.sum()} of them normal "
                f"(label: {', '.join(sorted(set(records['label'])))}), in "
                f"{len(np.unique(group[normal]))} groups of one patient or file; wanted normal images of at least "
                "three patients"
            )
    found = records[labels][test].replace("", "no label").value_counts().to_dict()
    if not {"normal", "abnormal"} <= found.keys():
        raise SplitError(
            f"the test side holds {found} by the column {labels!r}: an AUROC needs images labelled normal and images "
            "labelled abnormal, in these words"
        )
    manifest = _manifest(records, sides, reason, group, bool(official))
    return Split(*(records[side].reset_index(drop=True) for side in sides.values()), manifest)


def _manifest(
    records: pd.DataFrame, sides: dict[str, np.ndarray], reason: pd.Series, group: np.ndarray, official: bool
) -> dict[str, Any]:
    """Return what a reader needs to check the split, and to make it again: JSON-ready."""
    known = (records["patient"] != "").to_numpy()
    without_id = {name: int((side & ~known).sum()) for name, side in sides.items()}
    patients = [set(records["patient"][side & known]) for side in sides.values()]
    assert all(not a & b for a, b in itertools.combinations(patients, 2)), "a known patient stands on two sides"
    unverified = [f"{count} {name} images without a patient id" for name, count in without_id.items() if count]
    lines = sorted(
        f"{name} {row.id} {row.digest}" for name, side in sides.items() for row in records[side].itertuples()
    )
    manifest = {
        "hash": hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16],
        "official_split": official,
        "images": {name: int(side.sum()) for name, side in sides.items()},
        "known_patients": {name: int(records["patient"][side & known].nunique()) for name, side in sides.items()},
        "test_labels": {
            column: records[column][sides["test"]].replace("", "no label").value_counts().to_dict()
            for column in ("label", "strict_label")
            if column in records
        },
        "patient_separation": "unverified for " + ", ".join(unverified) if unverified else "verified",
        "exact_duplicates": int(records["digest"].duplicated().sum()),
        "left_out": reason[reason != ""].value_counts().to_dict(),
    }
    if official:
        theirs = ~sides["test"] & records["split"].isin(["train", "val"]).to_numpy()
        manifest["test_images_sharing_a_patient_or_file_with_the_official_training_side"] = {
            "any image": int((sides["test"] & np.isin(group, group[theirs])).sum()),
            "normal image": int((sides["test"] & np.isin(group, group[theirs & is_normal(records)])).sum()),
        }
    return manifest | {"sides": {name: records["id"][side].tolist() for name, side in sides.items()}}


def _groups(records: pd.DataFrame) -> np.ndarray:
    """Return a number a record, (n,), equal for images that share a patient or a digest, also through others."""
    rows = np.arange(len(records))
    patient = records["patient"].where(records["patient"] != "", "image " + records["id"])  # unknown: its own patient
    first_of_patient = pd.Series(rows).groupby(patient.to_numpy()).transform("min").to_numpy()
    first_of_digest = pd.Series(rows).groupby(records["digest"].to_numpy()).transform("min").to_numpy()
    links = np.concatenate([first_of_patient, first_of_digest])
    graph = coo_array((np.ones(len(links)), (np.concatenate([rows, rows]), links)), shape=(len(rows), len(rows)))
    return connected_components(graph, directed=False)[1]


def _draw(group: np.ndarray, among: np.ndarray, wanted: float, rng: np.random.Generator) -> np.ndarray:
    """Return whole groups `among` these images until about `wanted` are drawn, (n,) bool."""
    groups, sizes = np.unique(group[among], return_counts=True)
    order = rng.permutation(len(groups))
    before = np.cumsum(sizes[order]) - sizes[order]
    return among & np.isin(group, groups[order][before < wanted])


@dataclass(frozen=True)
class Sides:
    """The images of a split, each side (n, size, size) uint8, in the order of its records."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def load_sides(source: Source, split: Split, size: int, cache: Path | None = None) -> Sides:
    """Return the prepared images of all three sides; `cache` defaults to `IMGAE_DX_CACHE`, else the user's cache."""
    cache = cache or Path(os.environ.get("IMGAE_DX_CACHE", Path.home() / ".cache" / "imgae-dx"))
    records = [split.train, split.validation, split.test]
    images = load_images(source, [image_id for side in records for image_id in side["id"]], size, cache)
    return Sides(*np.split(images, np.cumsum([len(side) for side in records])[:-1]))


def load_images(source: Source, ids: Sequence[str], size: int, cache: Path) -> np.ndarray:
    """Return the prepared images, (n, size, size) uint8, memory-mapped from a file in `cache` (made once)."""
    identity = "\n".join([source.name, str(size), PREPARATION, *ids])
    file = cache / f"images-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.npy"
    if not file.is_file():
        images = np.empty((len(ids), size, size), dtype=np.uint8)
        for i, image_id in enumerate(
            tqdm(ids, desc=f"prepare {source.name.split('-')[0]} images", unit="image", mininterval=1)
        ):
            images[i] = prepare(source.read(image_id), size)
        with replacing(file) as out:
            np.save(out, images)
    return np.load(file, mmap_mode="r")


def load_masks(source: Source, ids: Sequence[str], size: int) -> dict[str, np.ndarray]:
    """Return the lesion of each image that has one marked, by id, (size, size) bool, as `prepare` places it."""
    marked = {image_id: mask for image_id in ids if (mask := source.mask(image_id)) is not None}
    return {image_id: _to_square(mask.astype(np.float32), size) > 0.5 for image_id, mask in marked.items()}


def prepare(image: np.ndarray, size: int) -> np.ndarray:
    """Stretch the grey levels between percentiles 1 and 99, pad with black to a square, resize: (size, size) uint8.

    The stretch is the same for every image: parts of public sets were stretched by their sources and parts were not,
    and the difference alone would tell them apart.
    """
    low, high = np.percentile(image, [1, 99])
    stretched = np.clip((image - low) / (high - low or 1), 0, 1).astype(np.float32)
    return np.round(_to_square(stretched, size) * 255).astype(np.uint8)


def _to_square(image: np.ndarray, size: int) -> np.ndarray:
    height, width = image.shape
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = np.zeros((side, side), dtype=np.float32)
    square[top : top + height, left : left + width] = image
    return transforms.resize(torch.from_numpy(square)[None], [size, size], antialias=True)[0].clamp(0, 1).numpy()


def to_unit(images: np.ndarray, device: torch.device) -> Images:
    """Return uint8 images, (n, height, width), as float32 in [0, 1] on the device."""
    return torch.from_numpy(np.array(images)).to(device)[:, None].float() / 255  # copied: torch wants it writable
