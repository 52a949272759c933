"""A source's images, prepared and checked -> a patient-safe, normal-only split with a manifest.

Labels are read here, to keep abnormal images out of training, and then not until the evaluation.
"""

import hashlib
import itertools
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lib.data.cache import Cache, CachedImages
from lib.data.duplicates import near_duplicates
from lib.data.groups import connected, group_numbers, groups
from lib.data.metadata import known, normalise
from lib.data.preparation import Preparation
from lib.data.source import LABELS, LEFT_OUT, SIZES, Problem, Source, SourceError, problems_table
from lib.files import hash_of, replacing, write_csv
from lib.params import Params
from lib.refusals import Refusal

TEST_FRACTION = 0.2  # of the normal images, if the data has no official split


class SplitError(Refusal):
    """The records cannot be divided into training, validation and test."""


@dataclass(frozen=True)
class Split:
    """Three tables of records: training and validation hold only normal images, the test side holds both kinds."""

    train: pd.DataFrame
    validation: pd.DataFrame
    test: pd.DataFrame
    manifest: dict[str, Any]
    groups: pd.Series
    """The name of each image's group, by id, also of the images on no side (`lib.data.groups`)."""
    problems: pd.DataFrame = field(default_factory=lambda: problems_table([]))

    @property
    def sides(self) -> dict[str, pd.DataFrame]:
        """The records by side: `train`, `validation`, `test`."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def grouped(self) -> dict[str, pd.DataFrame]:
        """The same with the column `group`: images of one group count as one patient."""
        return {name: side.assign(group=side["id"].map(self.groups)) for name, side in self.sides.items()}

    @property
    def hash(self) -> str:
        """Identifies the images of the three sides: equal hashes mean equal images on equal sides."""
        return self.manifest["hash"]


def is_normal(records: pd.DataFrame) -> np.ndarray:
    """Return which records are normal by every label that they have, (n,) bool."""
    labels = records[[column for column in LABELS if column in records]].to_numpy()
    return ((labels == "normal") | (labels == "")).all(axis=1) & (labels != "").any(axis=1)


def reference_half(validation: pd.DataFrame) -> np.ndarray:
    """Return which validation images form the reference half, (n,) bool; a patient's images are all in it, or none is.

    Whatever is fitted or chosen after training sees only these. The others, the calibration half, stay exchangeable
    with new normal images and give the thresholds. The half is every second patient in the order of a hash, which is
    the same on every machine.
    """
    key = validation["patient"].where(validation["patient"] != "", validation["twin"])
    key = key.groupby(groups(validation)).transform("min")
    order = sorted(set(key), key=lambda name: hashlib.sha256(name.encode()).digest())
    return key.isin(order[::2]).to_numpy()


def split_records(records: pd.DataFrame, *, validation_fraction: float, seed: int, labels: str = "label") -> Split:
    """Divide the records; no known patient, no exact and no near-duplicate is on two sides.

    An official test side is kept as it is; training images that share a patient or an image with it are left out and
    counted. Without one, the test side consists of the patients with an abnormal image and a fifth of the normal
    images. Images on no side are counted in the manifest by reason. The same records, in the same order, and the same
    seed give the same manifest on every machine.

    Raises:
        SplitError: A side would be empty, or the test side would lack normal or abnormal images by the column `labels`.

    """
    records = records.reset_index(drop=True)
    normal, group = is_normal(records), group_numbers(records)
    official = (records["split"] == "test").any()
    rng = np.random.default_rng([seed, 20])
    if not official and (words := sorted(set(records["split"]) - {""})):
        raise SplitError(f"split is {words} in some rows, and never 'test'; expected train, val, test, or all empty")
    if official:
        test, known = (records["split"].isin(words).to_numpy() for words in (["test"], ["train", "val"]))
        reasons = {
            "": test,
            "split is neither train, val nor test": ~known,
            "abnormal or unlabelled image of the official training or validation side": ~normal,
            "shares a patient or an image with the official test side": np.isin(group, group[test]),
        }
        reason = np.select(list(reasons.values()), list(reasons), "")  # the first that holds
    else:
        test, reason = np.isin(group, group[~normal]), np.full(len(records), "")
        test |= _draw(group, ~test, TEST_FRACTION * normal.sum(), rng)
    pool = ~test & (reason == "")
    validation = pool & np.isin(group, group[pool & (records["split"] == "val").to_numpy()])
    validation |= _draw(group, pool & ~validation, validation_fraction * pool.sum() - validation.sum(), rng)
    train = pool & ~validation

    sides = {"train": train, "validation": validation, "test": test}
    for name, side in sides.items():
        if not side.any():
            raise SplitError(
                f"the {name} side is empty: {len(records)} images, {normal.sum()} of them normal "
                f"(label: {', '.join(sorted(set(records['label'])))}), in "
                f"{len(np.unique(group[normal]))} groups of one patient or image; expected normal images of at least "
                f"three patients, and {records['patient'].replace('', 'unknown').mode()[0]!r} is the most frequent: if "
                "it stands for no patient, fill the column patient_id of labels.csv, which overrules DICOM headers"
            )
    manifest = _manifest(records, sides, reason, group, bool(official))
    found = manifest["test_labels"][labels]
    if not {"normal", "abnormal"} <= found.keys():
        raise SplitError(
            f"the test side holds {found} by the column {labels!r}: an AUROC needs images labelled 'normal' and images "
            "labelled 'abnormal'"
        )
    tables = {name: records[side].reset_index(drop=True) for name, side in sides.items()}
    return Split(**tables, manifest=manifest, groups=groups(records).set_axis(records["id"]))


def _manifest(
    records: pd.DataFrame, sides: dict[str, np.ndarray], reason: np.ndarray, group: np.ndarray, official: bool
) -> dict[str, Any]:
    """Return what a reader needs to check the split and to reproduce it, ready for JSON."""
    known = (records["patient"] != "").to_numpy()
    without_id = {name: int((side & ~known).sum()) for name, side in sides.items()}
    patients = [set(records["patient"][side & known]) for side in sides.values()]
    assert all(not a & b for a, b in itertools.combinations(patients, 2)), "a known patient is on two sides"
    unverified = [f"{count} {name} images without a patient id" for name, count in without_id.items() if count]
    lines = sorted(
        f"{name} {row.id} {row.digest}" for name, side in sides.items() for row in records[side].itertuples()
    )
    manifest = {
        "hash": hash_of("\n".join(lines)),
        "official_split": official,
        "images": {name: int(side.sum()) for name, side in sides.items()},
        "known_patients": {name: int(records["patient"][side & known].nunique()) for name, side in sides.items()},
        "test_labels": {
            column: records[column][sides["test"]].replace("", "no label").value_counts().to_dict()
            for column in LABELS
            if column in records
        },
        "patient_separation": "unverified for " + ", ".join(unverified) if unverified else "verified",
        "exact_duplicates": int(records["digest"].duplicated().sum()),
        "near_duplicates": int(records["twin"].duplicated().sum() - records["digest"].duplicated().sum()),
        "left_out": pd.Series(reason[reason != ""]).value_counts().to_dict(),
    }
    if official:
        theirs = ~sides["test"] & records["split"].isin(["train", "val"]).to_numpy()
        manifest["test_images_sharing_a_patient_or_image_with_the_official_training_side"] = {
            "any image": int((sides["test"] & np.isin(group, group[theirs])).sum()),
            "normal image": int((sides["test"] & np.isin(group, group[theirs & is_normal(records)])).sum()),
        }
    return manifest | {"sides": {name: records["id"][side].tolist() for name, side in sides.items()}}


def _draw(group: np.ndarray, among: np.ndarray, wanted: float, rng: np.random.Generator) -> np.ndarray:
    """Draw whole groups `among` these images until about `wanted` images are drawn; return which, (n,) bool."""
    groups, sizes = np.unique(group[among], return_counts=True)
    order = rng.permutation(len(groups))
    before = np.cumsum(sizes[order]) - sizes[order]
    return among & np.isin(group, groups[order][before < wanted])


@dataclass(frozen=True)
class Sides:
    """The images of a split: each side is like an array (n, size, size) uint8, in the order of its records."""

    train: CachedImages
    validation: CachedImages
    test: CachedImages


@dataclass(frozen=True)
class Data:
    """A source's usable records, their images in the same order, and the problems that were found."""

    records: pd.DataFrame
    """With five more columns: `digest`, equal for equal files; `twin`, equal for images that are nearly the same; and
    `SIZES`, float64, NaN if unknown."""
    images: CachedImages
    problems: pd.DataFrame

    def split(self, params: Params) -> Split:
        """Divide the records as the settings say; see `split_records`."""
        fraction, seed = params.validation_fraction, params.split_seed
        split = split_records(self.records, validation_fraction=fraction, seed=seed, labels=params.label_column)
        return replace(split, problems=self.problems)

    def sides(self, split: Split) -> Sides:
        """Return the images of the three sides."""
        place = pd.Series(np.arange(len(self.records)), index=self.records["id"])
        return Sides(**{name: self.images.of(place[side["id"]].to_numpy()) for name, side in split.sides.items()})


def load_data(source: Source, params: Params, cache: Path | None = None) -> Data:
    """Prepare and check all of a source's images; `cache` is the folder of caches, by default `cache_folder()`.

    Shards that were checked when they were written are used while they arrive; the files' sizes are then those in
    their records, if any.

    Raises:
        SourceError: Images cannot be used, and `on_bad_image` is "stop".
        SplitError: No image can be used.

    """
    store, records = Cache(source, Preparation.from_params(params), cache), source.records
    if "arrival" in records and params.on_bad_image == "stop":
        store.fill_in_background()
        images = CachedImages(store, np.arange(len(records)), records["arrival"].to_numpy())
        sizes = records.reindex(columns=SIZES).apply(pd.to_numeric, errors="coerce").astype(float)
        records, unread = normalise(records.assign(**sizes))
        return Data(records, images, problems_table([*source.problems, *unread]))
    store.fill()
    lines = pd.DataFrame([store.rows[row] for row in range(len(records))])
    records = records.assign(digest=lines["digest"])
    records[[*SIZES]] = lines[["bytes", "width", "height"]].astype(float)
    for column in ("patient", "age", "sex", "view"):  # a DICOM header may say what the table does not
        header = lines["header"].map(lambda header, column=column: header.get(column, ""))
        header = header.where(header != records["id"], "")  # RSNA's headers call each image a patient of its own
        stated = known(records[column])
        records[column] = stated.where(stated != "", header)
    records, unread = normalise(records)
    images = CachedImages(store, np.arange(len(records)))
    pairs = np.empty((2, 0), dtype=int) if source.synthetic else _near_duplicates(store, images)  # phantoms look alike
    first = pd.Series(np.arange(len(records))).groupby(connected(len(records), [pairs])).transform("min")
    records["twin"] = records["id"].to_numpy()[first]
    bad = lines["problem"] != ""
    problems = [
        *source.problems,
        *unread,
        *map(Problem, records["id"][bad], lines["problem"][bad], itertools.repeat(LEFT_OUT)),
    ]
    table = problems_table(problems + _repeated(records[~bad]))
    left_out = table[table["consequence"] == LEFT_OUT]
    kept = np.flatnonzero(~records["id"].isin(left_out["image"]))
    found = f"{len(left_out)} of {len(records)} images cannot be used"
    if len(left_out):
        found += f", first {left_out['image'].iloc[0]}: {left_out['problem'].iloc[0]}"
    if len(left_out) and params.on_bad_image == "stop":
        file = store.folder / "problems.csv"
        try:
            write_csv(file, table, index=False)
            listed = f"all are listed in {file}"
        except OSError as error:
            listed = f"the list {file} cannot be written ({error.strerror})"
        raise SourceError(f"{found}; {listed}. Repair them, or write on_bad_image: skip")
    if not len(kept):
        raise SplitError(f"{found}; none is left to divide: check the files, or give another data_dir")
    return Data(records.iloc[kept].reset_index(drop=True), CachedImages(store, kept), table)


def _near_duplicates(store: Cache, images: CachedImages) -> np.ndarray:
    """Return the pairs of a complete cache, (2, k); computed once, and again if images were added since."""
    file, journal = store.folder / "near-duplicates.npy", store.folder / "rows.jsonl"
    with suppress(OSError, ValueError, EOFError), file.open("rb") as opened:  # missing or damaged: computed again
        if file.stat().st_mtime_ns >= journal.stat().st_mtime_ns:
            found = np.lib.format.read_array(opened)
            if found.dtype == int and found.shape[1:] == (2,) and ((found >= 0) & (found < len(images))).all():
                return found.T
    pairs = near_duplicates(images)
    with suppress(OSError), replacing(file) as out:  # a complete cache may lie where nothing can be written
        np.save(out, pairs)
    return pairs.T


def _repeated(records: pd.DataFrame) -> list[Problem]:
    """Return the images that occur more than once, each with another such image."""
    problems = []
    labels = [column for column in LABELS if column in records]
    for key, like in (("digest", "the same file as another image"), ("twin", "nearly the same as another image")):
        repeated = records[records[key].duplicated(keep=False)]
        if key == "twin":
            repeated = repeated[repeated.groupby(key)["digest"].transform("nunique") > 1]
        groups = repeated.groupby(key)
        first, last = (groups["id"].transform(which) for which in ("first", "last"))
        others = first.where(first != repeated["id"], last)
        contradicted = (groups[labels].transform("nunique") > 1).any(axis=1)
        for image, other, contradiction in zip(repeated["id"], others, contradicted, strict=True):
            what = f"{like}, with another label" if contradiction else like
            consequence = LEFT_OUT if contradiction and key == "digest" else "kept on one side with it"
            problems.append(Problem(image, f"{what}: {other}", consequence))
    return problems
