"""The data sets from Kaggle that a run can name: where they are, what they may be used for, what their labels mean."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd

from lib.data.source import SourceError, boxes_by_image, read_table

STRICT = {"Normal": "normal", "Lung Opacity": "abnormal", "No Lung Opacity / Not Normal": "other_abnormal"}
NIH_COLUMNS = ("Image Index", "Finding Labels", "Patient ID", "Patient Age", "Patient Gender", "View Position")


@dataclass(frozen=True, kw_only=True)
class Registered:
    """A data set in a pinned version, and what a reader must know about it before believing a result."""

    handle: str  # for `lib.data.kaggle.fetch`; the bare name of a competition needs an account that accepted its rules
    licence: str
    citation: str
    labels: str  # where they come from, and how wrong they may be
    normal: str  # which images count as normal
    patients: str  # how patients are known
    view_age_sex: str = "unknown"  # where they are found
    lesions: str = "unmarked"  # how they are marked
    left_out: str = "nothing"
    expected: Mapping[str, int]  # images by `label`
    unverified: tuple[str, ...]  # what could not be checked without the network
    records: Callable[[Path], pd.DataFrame]  # folder -> a table as in `lib.data.sources`, with the column `file`
    boxes: Callable[[Path], dict[str, np.ndarray]] = lambda root: {}  # by id, (k, 4): x, y, w, h in the file's pixels

    def about(self) -> dict[str, str]:
        """Return the entry in words, by topic."""
        words = {"from": f"Kaggle, {self.handle}" + ("" if "/" in self.handle else " (account needed, rules accepted)")}
        words |= {field.name: getattr(self, field.name) for field in fields(self)[1:] if field.type is str}
        words["expected"] = ", ".join(f"{count:,} {label}" for label, count in self.expected.items())
        return words | {"unverified": "; ".join(self.unverified)}


def _find(root: Path, name: str) -> Path:
    """Return the uppermost file or folder of that name: a mount has no versions/N, and duplicates lie deeper."""
    for depth in range(4):
        if found := sorted(root.glob("*/" * depth + name)):
            return found[0].absolute()
    top = ", ".join(sorted(path.name for path in root.iterdir())[:10]) if root.is_dir() else "no such folder"
    raise SourceError(f"{root} contains no {name}: found {top or 'nothing'}, expected the layout of Kaggle's archive")


def _table(root: Path, name: str, *columns: str) -> pd.DataFrame:
    return read_table(_find(root, name), columns)[[*columns]]


def _boxes(root: Path, name: str, image: str, *sides: str) -> dict[str, np.ndarray]:
    """Return the boxes of the rows that have one."""
    rows = read_table(file := _find(root, name), (image, *sides))
    return boxes_by_image(file, rows[(rows[[*sides]] != "").all(axis=1)], image, sides)


def _records(ids: pd.Series, words: pd.Series, normal: str, files: Iterable[Path], **more: pd.Series) -> pd.DataFrame:
    """Return the table of images, labelled by their words, of which `normal` means that nothing was found."""
    label = words.map(lambda word: {normal: "normal", "": ""}.get(word, "abnormal"))
    more = {"split": "", "patient": "", "age": "", "sex": "", "view": "", **more, "file": list(files)}
    table = pd.DataFrame({"id": ids, "label": label, "finding": words.where(label == "abnormal", ""), **more})
    return table.reset_index(drop=True)


def _rsna(root: Path, table: str, images: str, *covariates: str) -> pd.DataFrame:
    rows = _table(root, table, "patientId", "class", *covariates).drop_duplicates("patientId")  # one row per box
    folder, suffix = _find(root, str(Path(images).parent)), Path(images).suffix
    more = {{"position": "view"}.get(column, column): rows[column] for column in covariates}
    ids, classes = rows["patientId"], rows["class"]
    files = (folder / f"{image}{suffix}" for image in ids)
    return _records(ids, classes, "Normal", files, strict_label=classes.replace(STRICT), **more)


def _kermany(root: Path) -> pd.DataFrame:
    base = _find(root, "train/NORMAL").parents[1]
    files = [file for split in ("train", "val", "test") for file in sorted(base.glob(f"{split}/*/[!.]*.jpeg"))]
    split, folder, name = (pd.Series([file.parts[i] for file in files], dtype=str) for i in (-3, -2, -1))
    patient = name.str.extract(r"^(person\d+_[a-z]+|(?:NORMAL2-)?IM-\d+)")[0].fillna("")
    kind = patient.str.partition("_")[2].map({"bacteria": "bacterial pneumonia", "virus": "viral pneumonia"})
    words = kind.where(folder != "NORMAL").fillna(folder.str.lower())
    return _records(split + "/" + folder + "/" + name, words, "normal", files, split=split, patient=patient)


def _nih(root: Path, table: str, **lists: str) -> pd.DataFrame:
    ids, words, patient, age, sex, view = (column for _, column in _table(root, table, *NIH_COLUMNS).items())
    files = {path.name: path for path in _find(root, "images*").parent.glob("images*/**/*.png")}  # 1 folder, or 12
    sides = {name: side for side, file in lists.items() for name in _find(root, file).read_text().split()}
    patient, split = patient.map(lambda number: number and number.zfill(8)), ids.map(lambda name: sides.get(name, ""))
    places, more = (files.get(name, root.absolute() / name) for name in ids), {"age": age, "sex": sex, "view": view}
    return _records(ids, words, "No Finding", places, patient=patient, split=split, **more)


def _vinbigdata(root: Path) -> pd.DataFrame:
    rows, images = _table(root, "train.csv", "image_id", "class_name"), _find(root, "train.csv").parent / "train"
    found = rows.groupby("image_id", sort=False)["class_name"].agg(set).reset_index()
    words = found["class_name"].map(lambda names: "|".join(sorted(names - {"No finding"} or names)))
    return _records(found["image_id"], words, "No finding", (images / f"{name}.png" for name in found["image_id"]))


def _vinbigdata_boxes(root: Path) -> dict[str, np.ndarray]:
    at = _boxes(root, "train.csv", "image_id", "x_min", "y_min", "x_max", "y_max", "width", "height")
    return {image: np.c_[a[:, :2], a[:, 2:4] - a[:, :2]] * 512 / a[:, [4, 5, 4, 5]] for image, a in at.items()}


REGISTRY: dict[str, Registered] = {
    "rsna": Registered(
        handle="iamtapendu/rsna-pneumonia-processed-dataset/versions/1",
        licence="RSNA's terms: research, education and other uses with attribution; images: NIH, with attribution",
        citation="Shih et al., Radiology: Artificial Intelligence 2019;1(1):e180041; Wang et al., CVPR 2017",
        labels="radiologists' reading of the image alone: an opacity may be pneumonia, without other confirmation",
        normal="class Normal; `label` calls both other classes abnormal, `strict_label` Lung Opacity only",
        patients="unknown: patientId identifies an image, and the 26,684 images are of about 11,400 patients",
        view_age_sex="columns position, age, sex; ages above 120 count as unknown",
        lesions="boxes in the table; Training/Masks shows the same boxes and is not read",
        left_out="the test images: their labels are not published",
        expected={"normal": 8_851, "abnormal": 17_833},
        unverified=("layout and version: from public code", "that the PNG files have the 1,024 pixels of the boxes"),
        records=lambda root: _rsna(
            root, "stage2_train_metadata.csv", "Training/Images/*.png", "age", "sex", "position"
        ),
        boxes=lambda root: _boxes(root, "stage2_train_metadata.csv", "patientId", "x", "y", "width", "height"),
    ),
    "kermany": Registered(
        handle="paultimothymooney/chest-xray-pneumonia/versions/2",
        licence="CC BY 4.0",
        citation="Kermany et al., Cell 2018;172(5):1122-1131",
        labels="two physicians graded each image, a third the test side; children of 1 to 5 years",
        normal="folder NORMAL",
        patients="series and number in the file name (person101_virus); each series seems to have its own numbering",
        left_out="the second copy of all images in chest_xray/chest_xray, and __MACOSX",
        expected={"normal": 1_583, "abnormal": 4_273},
        unverified=("layout and version: from public code", "that the copy is the same", "the rule for patients"),
        records=_kermany,
    ),
    "nih": Registered(
        handle="nih-chest-xrays/data/versions/3",
        licence="CC0; the NIH Clinical Center asks to be named as the source",
        citation="Wang et al., ChestX-ray8, CVPR 2017",
        labels="text-mined from reports: 90 % right say its authors; readers agreed on 19 of 53 No Finding images",
        normal="No Finding",
        patients="column Patient ID",
        view_age_sex="columns View Position, Patient Age, Patient Gender; ages above 120 count as unknown",
        lesions="boxes of 880 images of the test side in BBox_List_2017.csv",
        expected={"normal": 60_361, "abnormal": 51_759},
        unverified=("layout and version: from public code", "the licence on Kaggle"),
        records=lambda root: _nih(root, "Data_Entry_2017.csv", train="train_val_list.txt", test="test_list.txt"),
        boxes=lambda root: _boxes(root, "BBox_List_2017.csv", "Image Index", "Bbox [x", "y", "w", "h]"),
    ),
    "vinbigdata": Registered(
        handle="awsaf49/vinbigdata-512-image-dataset/versions/1",
        licence="the competition's terms (research) apply; the original on PhysioNet needs credentials",
        citation="Nguyen et al., VinDr-CXR, Scientific Data 2022;9:429",
        labels="three of 17 radiologists read each image; a finding counts if any of them reports it",
        normal="No finding by all three readers",
        patients="unknown",
        lesions="the three readers' boxes, unmerged, scaled to files of 512 x 512 pixels",
        left_out="the test images: their labels are not published",
        expected={"normal": 10_606, "abnormal": 4_394},
        unverified=("layout and version: from public code", "the licence on Kaggle", "that all files are 512 x 512"),
        records=_vinbigdata,
        boxes=_vinbigdata_boxes,
    ),
}
REGISTRY["rsna-dicom"] = replace(
    REGISTRY["rsna"],
    handle="rsna-pneumonia-detection-challenge",
    view_age_sex="DICOM headers",
    lesions="boxes in stage_2_train_labels.csv",
    unverified=("layout: from public code; the images might be in separate archives",),
    records=lambda root: _rsna(root, "stage_2_detailed_class_info.csv", "stage_2_train_images/*.dcm"),
    boxes=lambda root: _boxes(root, "stage_2_train_labels.csv", "patientId", "x", "y", "width", "height"),
)
REGISTRY["nih-sample"] = replace(
    REGISTRY["nih"],
    handle="nih-chest-xrays/sample/versions/4",
    lesions="unmarked",
    left_out="the second copy of all images in sample/sample",
    expected={"normal": 3_044, "abnormal": 2_562},
    records=lambda root: _nih(root, "sample_labels.csv"),
    boxes=lambda root: {},
)
