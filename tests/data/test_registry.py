"""The registry: which records and boxes each data set gives, whatever folder it lies in."""

import re
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from kaggle_server import CLIENT_LEAVES_SOCKETS_OPEN, LAYOUTS, archive, fetch, serving

from lib.data.metadata import normalise
from lib.data.registry import REGISTRY
from lib.data.source import SourceError
from lib.params import Params

pytestmark = CLIENT_LEAVES_SOCKETS_OPEN
COLUMNS = ["id", "label", "strict_label", "finding", "split", "patient", "age", "sex", "view", "file"]
NOT_NORMAL = "No Lung Opacity / Not Normal"
RSNA_BOXES = {"b1": [[264, 152, 213, 379], [562, 152, 256, 453]]}
EXPECTED = {  # in the order of COLUMNS; the fourth image of every RSNA is of the test side
    "rsna": [
        ("a0", "normal", "normal", "", "", "", "51", "F", "PA", "Training/Images/a0.png"),
        ("b1", "abnormal", "abnormal", "Lung Opacity", "", "", "62", "M", "AP", "Training/Images/b1.png"),
        ("c2", "abnormal", "other_abnormal", NOT_NORMAL, "", "", "", "M", "PA", "Training/Images/c2.png"),
    ],
    "rsna-dicom": [
        ("a0", "normal", "normal", "", "", "", "", "", "", "stage_2_train_images/a0.dcm"),
        ("b1", "abnormal", "abnormal", "Lung Opacity", "", "", "", "", "", "stage_2_train_images/b1.dcm"),
        ("c2", "abnormal", "other_abnormal", NOT_NORMAL, "", "", "", "", "", "stage_2_train_images/c2.dcm"),
    ],
    "kermany": [
        (name, label, None, finding, name.split("/")[0], patient, "", "", "", f"chest_xray/{name}")
        for name, label, finding, patient in (
            ("train/NORMAL/IM-0115-0001.jpeg", "normal", "", "IM-0115"),
            ("train/NORMAL/NORMAL2-IM-0115-0001-0002.jpeg", "normal", "", "NORMAL2-IM-0115"),
            ("train/PNEUMONIA/person101_virus_187.jpeg", "abnormal", "viral pneumonia", "person101_virus"),
            ("train/PNEUMONIA/person101_virus_188.jpeg", "abnormal", "viral pneumonia", "person101_virus"),
            ("val/NORMAL/NORMAL2-IM-1427-0001.jpeg", "normal", "", "NORMAL2-IM-1427"),
            ("val/PNEUMONIA/person1946_bacteria_4874.jpeg", "abnormal", "bacterial pneumonia", "person1946_bacteria"),
            ("test/NORMAL/IM-0001-0001.jpeg", "normal", "", "IM-0001"),
            ("test/PNEUMONIA/person101_bacteria_483.jpeg", "abnormal", "bacterial pneumonia", "person101_bacteria"),
        )
    ],
    "nih": [
        (name, label, None, finding, split, name[:8], age, sex, view, f"{folder}/images/{name}")
        for name, label, finding, split, age, sex, view, folder in (
            ("00000001_000.png", "abnormal", "Cardiomegaly", "test", "58", "M", "PA", "images_001"),
            ("00000001_001.png", "abnormal", "Cardiomegaly|Emphysema", "test", "58", "M", "PA", "images_001"),
            ("00000002_000.png", "normal", "", "train", "", "F", "AP", "images_001"),
            ("00030805_000.png", "normal", "", "train", "27", "M", "PA", "images_012"),
        )
    ],
    "nih-sample": [
        (name, label, None, finding, "", name[:8], age, sex, view, f"sample/images/{name}")
        for name, label, finding, age, sex, view in (
            ("00000013_005.png", "abnormal", "Emphysema|Infiltration|Pleural_Thickening|Pneumothorax", "60", "M", "AP"),
            ("00000017_001.png", "normal", "", "0", "F", "PA"),
        )
    ],
    "vinbigdata": [
        ("50a4", "normal", None, "", "", "", "", "", "", "vinbigdata/train/50a4.png"),
        ("9a5c", "abnormal", None, "Aortic enlargement|Cardiomegaly", "", "", "", "", "", "vinbigdata/train/9a5c.png"),
    ],
}
BOXES = {
    "rsna": RSNA_BOXES,
    "rsna-dicom": RSNA_BOXES,
    "nih": {"00000001_001.png": [[225.08, 547.02, 86.78, 79.19]]},
    "vinbigdata": {  # 2048 x 2560 became 512 x 512: a quarter, and a fifth
        "9a5c": [[128, 204.8, 256, 51.2], [256, 102.4, 64, 51.2], [128, 204.8, 256, 51.2]]
    },
}


def unpacked(root: Path, source: str) -> Path:
    for name, content in LAYOUTS[source]().items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def expected(source: str, root: Path) -> list[dict]:
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in EXPECTED[source]]
    return [
        {key: value for key, value in row.items() if value is not None} | {"file": root / row["file"]} for row in rows
    ]


def records_of(source: str, root: Path) -> pd.DataFrame:
    """A registered data set's records as a run gets them."""
    return normalise(REGISTRY[source].records(root))[0]


@pytest.mark.parametrize("source", REGISTRY)
def test_kaggles_archive_gives_these_records_and_boxes(tmp_path, monkeypatch, source):
    entry = REGISTRY[source]
    with serving(tmp_path, monkeypatch) as server:
        if "/" not in entry.handle:
            monkeypatch.setenv("KAGGLE_API_TOKEN", "token")
        server.archives[entry.handle] = archive(LAYOUTS[source]())
        root = fetch(entry.handle)
    records, boxes = records_of(source, root), entry.boxes(root)
    assert records.to_dict("records") == expected(source, root)
    assert all(file.is_file() for file in records["file"])
    assert boxes.keys() == BOXES.get(source, {}).keys()
    for name, box in boxes.items():
        np.testing.assert_allclose(box, BOXES[source][name])


@pytest.mark.parametrize("source", REGISTRY)
def test_the_data_may_lie_one_folder_deeper(tmp_path, source):
    root = unpacked(tmp_path / "mount", source)
    assert records_of(source, tmp_path).to_dict("records") == expected(source, root)


@pytest.mark.parametrize(
    ("source", "inner"), [("kermany", "chest_xray"), ("nih-sample", "sample"), ("vinbigdata", "vinbigdata")]
)
def test_the_archives_inner_folder_is_enough(tmp_path, source, inner):
    root = unpacked(tmp_path, source)
    assert records_of(source, root / inner).to_dict("records") == expected(source, root)


@pytest.mark.parametrize("source", REGISTRY)
def test_a_missing_image_keeps_its_row_if_there_is_a_table(tmp_path, source):
    root = unpacked(tmp_path, source)
    lost = root / expected(source, root)[-1]["file"]
    lost.unlink()
    records = REGISTRY[source].records(root)
    kept = [row["id"] for row in expected(source, root)][: -1 if source == "kermany" else None]
    assert records["id"].tolist() == kept
    assert [file.is_file() for file in records["file"]] == [row["file"] != lost for row in expected(source, root)][
        : len(kept)
    ]
    assert all(file.is_absolute() for file in records["file"])


@pytest.mark.parametrize("source", REGISTRY)
def test_another_folder_is_refused_with_its_contents(tmp_path, source):
    (tmp_path / "holiday.jpg").touch()
    (tmp_path / "notes").mkdir()
    with pytest.raises(
        SourceError, match=r"contains no \S+: found holiday.jpg, notes, expected the layout of Kaggle's archive$"
    ):
        REGISTRY[source].records(tmp_path)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(SourceError, match="contains no train/NORMAL: found no such folder"):
        REGISTRY["kermany"].records(tmp_path / "nowhere")


def edited(root: Path, source: str, table: str, old: str, new: str) -> Path:
    unpacked(root, source)
    file = root / table
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    return root


def test_a_column_that_is_missing_is_named_with_the_file(tmp_path):
    root = edited(tmp_path, "rsna", "stage2_train_metadata.csv", ",position\n", ",place\n")
    with pytest.raises(SourceError, match=r"stage2_train_metadata.csv has no column position; found patientId"):
        REGISTRY["rsna"].records(root)


def test_a_box_that_is_no_number_is_named_with_the_file(tmp_path):
    root = edited(tmp_path, "nih", "BBox_List_2017.csv", "547.02", "top")
    with pytest.raises(SourceError, match=r"BBox_List_2017.csv, row 2: .*'top'.*expected numbers"):
        REGISTRY["nih"].boxes(root)


def test_an_unknown_rsna_class_is_kept(tmp_path):
    root = edited(tmp_path, "rsna", "stage2_train_metadata.csv", ",Normal,", ",Maybe,")
    assert REGISTRY["rsna"].records(root)["strict_label"].tolist() == ["Maybe", "abnormal", "other_abnormal"]


@pytest.mark.parametrize(
    ("source", "table", "nothing_found"),
    [("nih", "Data_Entry_2017.csv", ",No Finding,"), ("vinbigdata", "vinbigdata/train.csv", ",No finding,")],
)
def test_an_image_without_a_word_is_not_normal(tmp_path, source, table, nothing_found):
    records = REGISTRY[source].records(edited(tmp_path, source, table, nothing_found, ",,"))
    assert set(records["label"]) == {"abnormal", ""}
    assert set(records["finding"][records["label"] == ""]) == {""}


def test_one_readers_finding_makes_an_image_abnormal(tmp_path):
    root = edited(tmp_path, "vinbigdata", "vinbigdata/train.csv", "No finding,14,R9", "ILD,5,R9")
    assert REGISTRY["vinbigdata"].records(root)["finding"].tolist() == ["ILD", "Aortic enlargement|Cardiomegaly"]


def test_no_patient_of_the_pediatric_set_stands_on_two_sides(tmp_path, xrays):
    real = pd.read_csv(xrays / "pediatric" / "labels.csv", dtype=str, keep_default_na=False)
    folders = real["label"].map({"normal": "NORMAL", "abnormal": "PNEUMONIA"})
    ids = real["split"] + "/" + folders + "/" + real["filename"].str.replace(".jpg", ".jpeg")
    for name in ids:
        (tmp_path / "chest_xray" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "chest_xray" / name).touch()
    records = REGISTRY["kermany"].records(tmp_path).set_index("id").loc[ids]
    assert records["finding"].tolist() == real["finding"].tolist()
    assert records["label"].tolist() == real["label"].tolist()
    assert (records["patient"] != "").all()
    assert (records.groupby("patient")["split"].nunique() == 1).all()
    assert (records.groupby("patient")["label"].nunique() == 1).all()


def test_macos_resource_files_are_no_images(tmp_path):
    root = unpacked(tmp_path, "kermany")
    (root / "chest_xray" / "train" / "NORMAL" / "._IM-0115-0001.jpeg").touch()
    assert records_of("kermany", root).to_dict("records") == expected("kermany", root)


def test_the_parameter_names_exactly_what_is_registered():
    named = set(get_args(Params.model_fields["source"].annotation))
    assert named - {"phantom", "folder", "stream"} == set(REGISTRY)


def test_every_data_set_is_pinned_and_only_a_competition_needs_an_account():
    pinned = re.compile(r"[\w-]+/[\w-]+/versions/\d+")
    handles = {source: entry.handle for source, entry in REGISTRY.items()}
    assert {source for source, handle in handles.items() if not pinned.fullmatch(handle)} == {"rsna-dicom"}
    assert {source for source, entry in REGISTRY.items() if "account" in entry.about()["from"]} == {"rsna-dicom"}


def test_the_expected_counts_add_up_to_the_published_sizes():
    sizes = {source: sum(entry.expected.values()) for source, entry in REGISTRY.items()}
    rsna, nih = 8_851 + 11_821 + 6_012, 86_524 + 25_596
    assert sizes == {
        "rsna": rsna,
        "rsna-dicom": rsna,
        "kermany": 5_216 + 16 + 624,
        "nih": nih,
        "nih-sample": 5_606,
        "vinbigdata": 15_000,
    }


@pytest.mark.parametrize("source", REGISTRY)
def test_every_data_set_describes_itself(source):
    about = REGISTRY[source].about()
    assert {"from", "licence", "citation", "labels", "normal", "patients", "lesions", "unverified"} <= about.keys()
    assert all(isinstance(words, str) and words for words in about.values())
    assert REGISTRY[source].handle in about["from"]
