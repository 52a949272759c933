"""A source's images, all of them prepared and checked -> a patient-safe, normal-only split with a manifest.

Labels are read here to keep abnormal images out of training, and then not before the evaluation.
"""

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lib.cache import Cache, Films, Preparation
from lib.duplicates import near_duplicates
from lib.files import replacing
from lib.method import Images
from lib.params import Params
from lib.source import LEFT_OUT, SIZES, Problem, Source, SourceError, problems_table

TEST_FRACTION = 0.2  # of the normal images, where the data has no official split


class SplitError(ValueError):
    """The records cannot be divided into training, validation and test."""


@dataclass(frozen=True)
class Split:
    """Three tables of records: training and validation hold normal images only, the test side holds both kinds."""

    train: pd.DataFrame
    validation: pd.DataFrame
    test: pd.DataFrame
    manifest: dict[str, Any]
    problems: pd.DataFrame = field(default_factory=lambda: problems_table([]))

    @property
    def hash(self) -> str:
        """Names the three sides' images: equal hashes mean equal images on equal sides."""
        return self.manifest["hash"]


def is_normal(records: pd.DataFrame) -> np.ndarray:
    """Return which records every label that is given calls normal, (n,) bool."""
    columns = [column for column in ("label", "strict_label") if column in records]
    given = records[columns].to_numpy() != ""
    return ((records[columns].to_numpy() == "normal") | ~given).all(axis=1) & given.any(axis=1)


def reference_half(validation: pd.DataFrame) -> np.ndarray:
    """Return which validation images are the reference half, (n,) bool; of one patient or film all are in it, or none.

    What is fitted or chosen after training sees these alone; the others, the calibration half, stay exchangeable with
    new normal films, and give the thresholds. Every second patient in an order of hashes, the same on every machine.
    """
    key = validation["patient"].where(validation["patient"] != "", validation["twin"])
    key = key.groupby(_groups(validation.reset_index(drop=True))).transform("min")
    order = sorted(set(key), key=lambda name: hashlib.sha256(name.encode()).digest())
    return key.isin(order[::2]).to_numpy()


def split_records(records: pd.DataFrame, *, validation_fraction: float, seed: int, labels: str = "label") -> Split:
    """Divide the records; no known patient, no exact and no near-duplicate stands on two sides.

    An official test side is kept as it is, and training images that share a patient or a film with it are left out and
    counted. Without one, patients with an abnormal image form the test side together with a fifth of the normal ones.
    What is on no side is counted in the manifest by its reason. The same records, in the same order, and the same seed
    give the same manifest on every machine.

    Raises:
        SplitError: A side would be empty, or the test side would lack normal or abnormal images by the column `labels`.

    """
    records = records.reset_index(drop=True)
    normal, group = is_normal(records), _groups(records)
    official = (records["split"] == "test").any()
    rng = np.random.default_rng([seed, 20])
    if not official and (words := sorted(set(records["split"]) - {""})):
        raise SplitError(f"split is {words} in some rows, and nowhere 'test'; wanted train, val, test, or all empty")
    reason = pd.Series("", index=records.index)

    if official:
        test = (records["split"] == "test").to_numpy()
        unknown = ~test & ~records["split"].isin(["train", "val"]).to_numpy()
        reason[unknown] = "split is neither train, val nor test"
        reason[~test & ~unknown & ~normal] = "abnormal or unlabelled image of the official training or validation side"
        shared = ~test & ~unknown & normal & np.isin(group, group[test])
        reason[shared] = "shares a patient or a film with the official test side"
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
                f"{len(np.unique(group[normal]))} groups of one patient or film; wanted normal images of at least "
                "three patients"
            )
    found = records[labels][test].replace("", "no label").value_counts().to_dict()
    if not {"normal", "abnormal"} <= found.keys():
        raise SplitError(
            f"the test side holds {found} by the column {labels!r}: an AUROC needs images labelled normal and images "
            "labelled abnormal, in these words"
        )
    manifest = _manifest(records, sides, reason, group, bool(official))
    tables = {name: records[side].reset_index(drop=True) for name, side in sides.items()}
    return Split(**tables, manifest=manifest)


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
        "near_duplicates": int(records["twin"].duplicated().sum() - records["digest"].duplicated().sum()),
        "left_out": reason[reason != ""].value_counts().to_dict(),
    }
    if official:
        theirs = ~sides["test"] & records["split"].isin(["train", "val"]).to_numpy()
        manifest["test_images_sharing_a_patient_or_film_with_the_official_training_side"] = {
            "any image": int((sides["test"] & np.isin(group, group[theirs])).sum()),
            "normal image": int((sides["test"] & np.isin(group, group[theirs & is_normal(records)])).sum()),
        }
    return manifest | {"sides": {name: records["id"][side].tolist() for name, side in sides.items()}}


def _groups(records: pd.DataFrame) -> np.ndarray:
    """Return a number a record, (n,), equal for images that share a patient, file or film, also through others."""
    patient = records["patient"].where(records["patient"] != "", "image " + records["id"])  # unknown: its own patient
    rows = pd.Series(np.arange(len(records)))
    keys = (patient, records["digest"], records["twin"])
    return _connected(len(rows), [(rows, rows.groupby(key.to_numpy()).transform("min")) for key in keys])


def _connected(count: int, links: Sequence[np.ndarray | tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Return a number for each of `count` things, equal for those that are linked, also through others."""
    first, second = (np.concatenate(ends) for ends in zip(*links, strict=True))
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def _draw(group: np.ndarray, among: np.ndarray, wanted: float, rng: np.random.Generator) -> np.ndarray:
    """Return whole groups `among` these images until about `wanted` are drawn, (n,) bool."""
    groups, sizes = np.unique(group[among], return_counts=True)
    order = rng.permutation(len(groups))
    before = np.cumsum(sizes[order]) - sizes[order]
    return among & np.isin(group, groups[order][before < wanted])


@dataclass(frozen=True)
class Sides:
    """The images of a split, each side like an array (n, size, size) uint8, in the order of its records."""

    train: Films
    validation: Films
    test: Films


@dataclass(frozen=True)
class Data:
    """A source's records that can be used, their images in the same order, and what was wrong with any."""

    records: pd.DataFrame
    """With five columns more: `digest`, equal for equal files; `twin`, equal for images that are nearly the same; and
    `SIZES`, float64, NaN where unknown."""
    images: Films
    problems: pd.DataFrame

    def split(self, params: Params) -> Split:
        """Divide the records as the settings say; see `split_records`."""
        made = split_records(
            self.records, validation_fraction=params.validation_fraction, seed=params.seed, labels=params.label_column
        )
        return replace(made, problems=self.problems)

    def sides(self, split: Split) -> Sides:
        """Return the images of the three sides."""
        place = pd.Series(np.arange(len(self.records)), index=self.records["id"])
        return Sides(
            *(self.images.of(place[side["id"]].to_numpy()) for side in (split.train, split.validation, split.test))
        )


def load_data(source: Source, params: Params, cache: Path | None = None) -> Data:
    """Prepare and check all of a source's images; `cache` defaults to `IMGAE_DX_CACHE`, else the user's cache.

    Shards that were checked when they were written are used while they arrive; their records say the files' sizes, or
    nobody does.

    Raises:
        SourceError: Images cannot be used, and `on_bad_image` says stop.

    """
    store, records = Cache(source, Preparation.from_params(params), cache), source.records
    if "arrival" in records and params.on_bad_image == "stop":
        store.fill_in_background()
        films = Films(store, np.arange(len(records)), records["arrival"].to_numpy())
        known = records.reindex(columns=SIZES).apply(pd.to_numeric, errors="coerce").astype(float)
        records = records.assign(**known)
        return Data(records, films, problems_table(source.problems))
    store.fill()
    lines = pd.DataFrame([store.rows[row] for row in range(len(records))])
    records = records.assign(digest=lines["digest"])
    records[[*SIZES]] = lines[["bytes", "width", "height"]].astype(float)
    for column in ("patient", "age", "sex", "view"):  # what the table does not say, a DICOM header may
        said = lines["header"].map(lambda header, column=column: header.get(column, ""))
        said = said.where(said != records["id"], "")  # RSNA's names each image as a patient of its own
        records[column] = records[column].where(records[column] != "", said)
    films = Films(store, np.arange(len(records)))
    pairs = np.empty((2, 0), dtype=int) if source.synthetic else _near_duplicates(store, films)  # drawn ones are alike
    first = pd.Series(np.arange(len(records))).groupby(_connected(len(records), [pairs])).transform("min")
    records["twin"] = records["id"].to_numpy()[first]
    bad = lines["problem"] != ""
    problems = [*source.problems, *map(Problem, records["id"][bad], lines["problem"][bad], itertools.repeat(LEFT_OUT))]
    table = problems_table(problems + _repeated(records[~bad]))
    left_out = table[table["consequence"] == LEFT_OUT]
    if len(left_out) and params.on_bad_image == "stop":
        with replacing(file := store.folder / "problems.csv") as out:
            table.to_csv(out, index=False)
        raise SourceError(
            f"{len(left_out)} of {len(records)} images cannot be used, first {left_out['image'].iloc[0]}: "
            f"{left_out['problem'].iloc[0]}; all are named in {file}. Mend them, or write on_bad_image: skip"
        )
    kept = np.flatnonzero(~records["id"].isin(left_out["image"]))
    return Data(records.iloc[kept].reset_index(drop=True), Films(store, kept), table)


def _near_duplicates(store: Cache, films: Films) -> np.ndarray:
    """Return the pairs of a complete cache, (2, k); found once, and again where an image came later."""
    file, journal = store.folder / "near-duplicates.npy", store.folder / "rows.jsonl"
    if not file.is_file() or file.stat().st_mtime_ns < journal.stat().st_mtime_ns:
        with replacing(file) as out:
            np.save(out, near_duplicates(films))
    return np.load(file).T


def _repeated(records: pd.DataFrame) -> list[Problem]:
    """Return the images that are there more than once, each with another such image."""
    problems = []
    labels = [column for column in ("label", "strict_label") if column in records]
    for key, like in (("digest", "the same file as another image"), ("twin", "nearly the same as another image")):
        some = records[records[key].duplicated(keep=False)]
        if key == "twin":
            some = some[some.groupby(key)["digest"].transform("nunique") > 1]
        groups = some.groupby(key)
        first, last = (groups["id"].transform(which) for which in ("first", "last"))
        others = first.where(first != some["id"], last)
        contradicted = (groups[labels].transform("nunique") > 1).any(axis=1)
        for one, other, contradiction in zip(some["id"], others, contradicted, strict=True):
            what = f"{like}, with another label" if contradiction else like
            consequence = LEFT_OUT if contradiction and key == "digest" else "kept on one side with it"
            problems.append(Problem(one, f"{what}: {other}", consequence))
    return problems


def load_masks(source: Source, ids: Sequence[str], preparation: Preparation) -> dict[str, np.ndarray]:
    """Return the lesion of each image that has one marked, by id, (size, size) bool, where its film shows it."""
    marked = {image_id: mask for image_id in ids if (mask := source.mask(image_id)) is not None}
    return {image_id: preparation.mask(mask) for image_id, mask in marked.items()}


def to_unit(images: np.ndarray | Films, device: torch.device) -> Images:
    """Return uint8 images, (n, height, width), as float32 in [0, 1] on the device."""
    return torch.from_numpy(np.array(images)).to(device)[:, None].float() / 255  # copied: torch wants it writable
