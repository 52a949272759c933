"""The sources: which records, images and masks they give, and what they refuse."""

import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lib.data import anatomy, phantom
from lib.data.dataset import load_data
from lib.data.decoding import decode
from lib.data.phantom import FINDINGS
from lib.data.source import LEFT_OUT, Problem, SourceError
from lib.data.sources import FolderSource, PhantomSource, open_source
from lib.params import Params

COLUMNS = {"id", "label", "finding", "split", "patient", "age", "sex", "view"}


def grey(seed: int, height: int = 20, width: int = 30) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


def write(file: Path, image: np.ndarray) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(file, quality=95)
    return file


def table_folder(folder: Path, rows: pd.DataFrame) -> Path:
    """A folder with labels.csv and an image of its own behind each row."""
    for seed, name in enumerate(rows["filename"]):
        write(folder / "images" / name, grey(seed))
    rows.to_csv(folder / "labels.csv", index=False)
    return folder


def two_rows(**columns) -> pd.DataFrame:
    return pd.DataFrame({"filename": ["a.png", "b.png"], "label": ["normal", "abnormal"]} | columns)


def class_folders(folder: Path, *names: str) -> Path:
    for seed, name in enumerate(names):
        write(folder / name, grey(seed))
    return folder


def read(source, image_id: str) -> np.ndarray:
    [(_, content)] = source.contents([image_id])
    return decode(content()).pixels


def row(source, image_id: str) -> dict:
    return source.records.set_index("id").loc[image_id].to_dict()


def test_a_table_with_every_column_keeps_every_column(tmp_path):
    table = two_rows(
        strict_label=["normal", ""],
        finding=["", "Edema|Mass"],
        split=["train", "test"],
        patient_id=["007", "8"],
        age=["61", ""],
        sex=["F", "M"],
        view=["PA", "AP"],
    )
    source = FolderSource(table_folder(tmp_path, table))
    records = source.records
    expected = table.rename(columns={"filename": "id", "patient_id": "patient"})
    assert records.to_dict("records") == expected[records.columns].to_dict("records")
    assert set(source.records) == COLUMNS | {"strict_label"}
    assert not source.synthetic


def test_a_table_with_names_and_labels_alone_is_enough(tmp_path):
    source = FolderSource(table_folder(tmp_path, two_rows()))
    assert set(source.records) == COLUMNS
    assert row(source, "a.png")["label"] == "normal"
    assert all(row(source, "a.png")[name] == "" for name in ("finding", "split", "patient", "age", "sex", "view"))


@pytest.mark.parametrize("column", ["id", "file", "digest", "patient", "side", "ra"])
def test_an_unknown_column_is_ignored(tmp_path, column):
    table = two_rows(patient_id=["p", "q"], **{column: ["1", "2"]})
    source = FolderSource(table_folder(tmp_path, table))
    assert set(source.records) == COLUMNS
    assert source.records["id"].tolist() == ["a.png", "b.png"]
    assert source.records["patient"].tolist() == ["p", "q"]


@pytest.mark.parametrize("word", ["NA", "null", "None", "nan"])
def test_a_word_that_pandas_takes_for_missing_stays_a_word(tmp_path, word):
    source = FolderSource(table_folder(tmp_path, two_rows(patient_id=[word, "00010"])))
    assert source.records["patient"].tolist() == [word, "00010"]


def test_a_class_folder_gives_its_name_as_the_finding(tmp_path):
    (tmp_path / "notes.txt").write_text("not an image")
    source = FolderSource(class_folders(tmp_path, "NORMAL/a.png", "pneumonia/b.jpg", "pneumonia/c.JPEG"))
    assert source.records["id"].tolist() == ["NORMAL/a.png", "pneumonia/b.jpg", "pneumonia/c.JPEG"]
    assert source.records["label"].tolist() == ["normal", "abnormal", "abnormal"]
    assert source.records["finding"].tolist() == ["", "pneumonia", "pneumonia"]
    assert set(source.records["split"]) == {""}
    assert set(source.records) == COLUMNS


def test_class_folders_below_split_folders_give_the_official_split(tmp_path):
    names = [
        "train/NORMAL/a.png",
        "Val/NORMAL/b.png",
        "test/NORMAL/c.png",
        "test/PNEUMONIA/d.png",
        "valid/NORMAL/e.png",
        "Training/NORMAL/f.png",
        "test_set/NORMAL/g.png",
        "1_Validation Data/NORMAL/h.png",
    ]
    source = FolderSource(class_folders(tmp_path / "set", *(f"chest/{name}" for name in names)))
    splits = [row(source, f"chest/{name}")["split"] for name in names]
    assert splits == ["train", "val", "test", "test", "val", "train", "test", "val"]
    assert row(source, "chest/test/PNEUMONIA/d.png")["finding"] == "PNEUMONIA"


@pytest.mark.parametrize("name", ["xray_train_v2", "pretest", "val-b", "trainA"])
def test_a_folder_that_may_be_a_side_of_a_split_is_refused_by_name(tmp_path, name):
    class_folders(tmp_path, "normal/a.png", "mass/b.png", f"{name}/normal/c.png")
    with pytest.raises(SourceError, match=f"'{name}' that may be a side of an official split: call it train"):
        FolderSource(tmp_path)


def test_a_folder_named_like_sides_above_known_ones_is_no_side(tmp_path):
    names = ["train-test-split/train/normal/a.png", "train-test-split/test/mass/b.png", "interval/normal/c.png"]
    assert FolderSource(class_folders(tmp_path, *names)).records["split"].tolist() == ["", "test", "train"]


def test_the_name_of_the_data_folder_is_not_taken_for_a_split(tmp_path):
    source = FolderSource(class_folders(tmp_path / "test", "normal/a.png", "mass/b.png"))
    assert set(source.records["split"]) == {""}


def test_an_image_outside_of_the_class_folders_is_not_taken_for_abnormal(tmp_path):
    folder = class_folders(tmp_path, "normal/a.png", "mass/b.png", "overview.png", "train/montage.png")
    try:
        labels = dict(FolderSource(folder).records[["id", "label"]].to_numpy())
    except SourceError as error:
        assert "overview.png" in str(error)  # refusing is as good as leaving out
    else:
        assert labels == {"normal/a.png": "normal", "mass/b.png": "abnormal"}


def test_an_image_deeper_in_the_folder_of_normals_is_not_taken_for_abnormal(tmp_path):
    folder = class_folders(tmp_path, "normal/a.png", "normal/patient-1/b.png", "mass/c.png")
    try:
        labels = dict(FolderSource(folder).records[["id", "label"]].to_numpy())
    except SourceError as error:
        assert "patient-1" in str(error)
    else:
        assert labels["normal/patient-1/b.png"] == "normal"


def test_macos_resource_files_are_not_images(tmp_path):
    class_folders(tmp_path, "normal/a.png", "mass/b.png")
    (tmp_path / "__MACOSX" / "normal").mkdir(parents=True)
    for file in (tmp_path / "__MACOSX" / "normal" / "._a.png", tmp_path / "normal" / "._a.png"):
        file.write_bytes(b"\x00\x05\x16\x07")
    assert FolderSource(tmp_path).records["id"].tolist() == ["mass/b.png", "normal/a.png"]


def test_hidden_files_and_folders_are_not_used_and_are_named(tmp_path):
    folder = class_folders(tmp_path, "normal/a.png", "mass/b.png")
    hidden = [
        "mass/.ipynb_checkpoints/b-checkpoint.png",
        "normal/.ipynb_checkpoints/a-checkpoint.png",
        "normal/._a.png",
    ]
    source = FolderSource(class_folders(folder, *hidden))
    assert source.records["id"].tolist() == ["mass/b.png", "normal/a.png"]
    assert {problem.image for problem in source.problems} == set(hidden)


@pytest.mark.parametrize("names", [["mass/a.png", "edema/b.png"], ["normal/a.png"], []])
def test_class_folders_without_normal_or_without_abnormal_images_are_refused(tmp_path, names):
    with pytest.raises(SourceError, match=r"expected labels\.csv, or a folder `normal`") as error:
        FolderSource(class_folders(tmp_path, *names))
    assert f"has {len(names)} images in folders" in str(error.value)


def test_an_image_outside_of_the_class_folders_does_not_stand_in_for_a_normal_one(tmp_path):
    with pytest.raises(SourceError):
        FolderSource(class_folders(tmp_path, "mass/a.png", "b.png"))


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(SourceError, match=r"data_dir .*/nowhere is not an existing folder: give the path"):
        FolderSource(tmp_path / "nowhere")


def test_a_missing_column_is_named_beside_those_found(tmp_path):
    folder = table_folder(tmp_path, two_rows().rename(columns={"label": "class"}).assign(label="x"))
    (folder / "labels.csv").write_text("filename,class\na.png,normal\n")
    with pytest.raises(SourceError, match=r"labels\.csv has no column label; found filename, class"):
        FolderSource(folder)


def test_an_empty_table_is_named(tmp_path):
    (tmp_path / "labels.csv").write_text("")
    with pytest.raises(SourceError, match=r"labels\.csv"):
        FolderSource(tmp_path)


def test_a_row_without_its_file_is_left_out_and_named(tmp_path):
    folder = table_folder(tmp_path, two_rows())
    (folder / "images" / "b.png").unlink()
    source = FolderSource(folder)
    assert source.records["id"].tolist() == ["a.png"]
    assert source.problems == [Problem("b.png", "no file for this row", LEFT_OUT)]
    (folder / "images" / "a.png").unlink()
    with pytest.raises(SourceError, match=r"none of the 2 images in the table exists .*: add the files"):
        FolderSource(folder)


def test_a_file_without_a_row_is_named_and_not_used(tmp_path):
    folder = table_folder(tmp_path, two_rows())
    write(folder / "images" / "more" / "c.png", grey(3))
    source = FolderSource(folder)
    assert len(source.records) == 2
    assert source.problems == [Problem("more/c.png", "file without a row in labels.csv", "not used")]


def test_a_repeated_row_counts_once_and_contradictory_rows_are_left_out(tmp_path):
    folder = table_folder(tmp_path, two_rows())
    write(folder / "images" / "c.png", grey(3))
    (folder / "labels.csv").write_text(
        "filename,label\na.png,normal\nb.png,abnormal\na.png,normal\nb.png,normal\nc.png,normal\n"
    )
    source = FolderSource(folder)
    assert source.records["id"].tolist() == ["a.png", "c.png"]
    assert source.problems == [
        Problem("b.png", "rows of labels.csv contradict each other", LEFT_OUT),
        Problem("a.png", "row twice in labels.csv", "used once"),
    ]


@pytest.mark.parametrize("word", ["", "nan", "Normal", "maybe"])
def test_an_unknown_label_is_named(tmp_path, word):
    source = FolderSource(table_folder(tmp_path, two_rows(label=["normal", word], strict_label=["", "other_abnormal"])))
    assert source.records["label"].tolist() == ["normal", word]
    assert source.problems == [Problem("b.png", f"label is not one of normal, abnormal: {word!r}", "counted apart")]


@pytest.mark.parametrize("word", ["Normal", "NORMAL", "No Finding", "normal "])
def test_a_table_that_writes_normal_otherwise_is_told_how(tmp_path, word):
    folder = table_folder(tmp_path, two_rows(label=[word, "Abnormal"]))
    with pytest.raises(SourceError, match=f"has the label '{word}', and never 'normal': write normal, and abnormal"):
        FolderSource(folder)


def test_a_file_of_another_kind_in_a_folder_of_a_class_is_named(tmp_path):
    folder = class_folders(tmp_path, "normal/a.png", "mass/b.png")
    (folder / "mass" / "notes.txt").write_text("not an image")
    assert FolderSource(folder).problems == [
        Problem("mass/notes.txt", "not an image by its name and content", "not used")
    ]


def test_about_yaml_describes_a_folder(tmp_path):
    folder = class_folders(tmp_path / "ours", "normal/a.png", "mass/b.png")
    assert FolderSource(folder).about["from"] == "folder ours"
    assert FolderSource(folder).about["licence"].startswith("not stated")
    (folder / "about.yaml").write_text("licence: CC BY 4.0\nlabels: two readers\n")
    assert FolderSource(folder).about == {"from": "folder ours", "licence": "CC BY 4.0", "labels": "two readers"}


@pytest.mark.parametrize("code", ["utf-16", "utf-8-sig"])
def test_about_yaml_may_carry_the_mark_of_its_encoding(tmp_path, code):
    folder = class_folders(tmp_path, "normal/a.png", "mass/b.png")
    (folder / "about.yaml").write_bytes("licence: M\u00fcller\n".encode(code))
    assert FolderSource(folder).about["licence"] == "M\u00fcller"


def test_about_yaml_in_an_old_encoding_is_told_what_to_save(tmp_path):
    folder = class_folders(tmp_path, "normal/a.png", "mass/b.png")
    (folder / "about.yaml").write_bytes("licence: M\u00fcller\n".encode("latin-1"))
    with pytest.raises(SourceError, match=r"about\.yaml is not in UTF-8: save it as such"):
        FolderSource(folder)


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_the_contents_are_the_files_bytes_in_the_order_asked_for(tmp_path, name):
    folder = table_folder(tmp_path, two_rows().replace("a.png", name))
    contents = list(FolderSource(folder).contents(["b.png", name]))
    assert [image_id for image_id, _ in contents] == ["b.png", name]
    assert contents[1][1]() == (folder / "images" / name).read_bytes()


def test_the_name_depends_on_the_files_and_not_on_the_place(tmp_path):
    folder = table_folder(tmp_path / "here", two_rows())
    name = FolderSource(folder).name
    folder = folder.rename(tmp_path / "there")
    assert FolderSource(folder).name == name
    write(folder / "images" / "b.png", grey(99))
    assert FolderSource(folder).name != name


@pytest.mark.parametrize("way", ["in another folder", "in place", "by a new file"])
def test_other_pixels_of_equal_names_sizes_and_times_have_another_name(tmp_path, way):
    folder = table_folder(tmp_path / "here", two_rows().replace({"a.png": "a.bmp", "b.png": "b.bmp"}))
    file, name = folder / "images" / "b.bmp", FolderSource(folder).name
    before = file.stat()
    if way == "in another folder":
        folder = shutil.copytree(folder, tmp_path / "copy")  # with its times
        file = folder / "images" / "b.bmp"
    elif way == "by a new file":
        file.unlink()
    write(file, grey(99))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert FolderSource(folder).name != name


def test_a_mask_is_the_union_of_an_images_boxes(tmp_path):
    folder = table_folder(tmp_path, two_rows())
    (folder / "boxes.csv").write_text("filename,finding,x,y,w,h\nb.png,Mass,2,3,5,4\nb.png,Mass,4.6,5.2,10,3\n")
    source = FolderSource(folder)
    expected = np.zeros((20, 30), dtype=bool)
    expected[3:7, 2:7] = True  # rows are y, columns are x
    expected[5:8, 5:15] = True
    mask = source.mask("b.png")
    assert mask.dtype == bool
    assert np.array_equal(mask, expected)
    assert source.mask("a.png") is None


def test_a_box_that_begins_outside_the_image_is_clipped(tmp_path):
    folder = table_folder(tmp_path, two_rows())
    (folder / "boxes.csv").write_text("filename,x,y,w,h\nb.png,-2,-3,10,8\nb.png,25,18,10,8\n")
    expected = np.zeros((20, 30), dtype=bool)
    expected[:5, :8] = expected[18:, 25:] = True
    assert np.array_equal(FolderSource(folder).mask("b.png"), expected)


def test_boxes_without_a_column_are_refused_by_name(tmp_path):
    folder = table_folder(tmp_path, two_rows())
    (folder / "boxes.csv").write_text("filename,x,y,width,h\nb.png,2,3,5,4\n")
    with pytest.raises(SourceError, match=r"boxes\.csv has no column w; found filename, x, y, width, h"):
        FolderSource(folder)


@pytest.mark.parametrize("number", ["", "nan", "inf", "wide"])
def test_a_box_without_finite_numbers_is_refused_with_its_row(tmp_path, number):
    folder = table_folder(tmp_path, two_rows())
    (folder / "boxes.csv").write_text(f"filename,x,y,w,h\nb.png,1,2,3,4\nb.png,2,3,{number},4\n")
    with pytest.raises(SourceError, match=r"boxes\.csv, row 3: .*expected numbers"):
        FolderSource(folder)


@pytest.mark.parametrize("side", [0, -5])
def test_a_box_without_a_positive_size_is_refused_with_its_row_also_beside_a_good_one(tmp_path, side):
    folder = table_folder(tmp_path, two_rows())
    (folder / "boxes.csv").write_text(f"filename,x,y,w,h\nb.png,1,2,3,4\nb.png,2,3,4,{side}\n")
    with pytest.raises(SourceError, match=r"boxes\.csv, row 3: .*expected positive w, h"):
        FolderSource(folder)


def test_a_table_with_a_column_twice_is_refused(tmp_path):
    folder = table_folder(tmp_path, two_rows())
    (folder / "labels.csv").write_text("filename,label,label\na.png,normal,abnormal\nb.png,abnormal,normal\n")
    with pytest.raises(SourceError, match=r"labels\.csv has the column label twice"):
        FolderSource(folder)


def test_a_table_without_any_of_its_files_is_refused_with_the_first_path(tmp_path):
    (tmp_path / "labels.csv").write_text("filename,label\nimages/a.png,normal\n")
    with pytest.raises(SourceError, match=r"none of the 1 images .* \(the first would be .*/images/images/a\.png\)"):
        FolderSource(tmp_path)


def test_an_impossible_file_name_is_a_row_without_a_file(tmp_path):
    folder, name = table_folder(tmp_path, two_rows()), "x" * 300
    with (folder / "labels.csv").open("a") as table:
        table.write(f"{name},normal\n")
    assert FolderSource(folder).problems == [Problem(name, "no file for this row", LEFT_OUT)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("licence: a\nlicence: b\n", "line 2: licence"),
        ("a: [", "line 1: this is not YAML"),
        ("a: &x [1]\nb: [*x, *x]\n", "line 2: "),
    ],
)
def test_an_about_yaml_that_reads_otherwise_than_it_is_written_is_refused_by_line(tmp_path, text, found):
    folder = class_folders(tmp_path, "normal/a.png", "mass/b.png")
    (folder / "about.yaml").write_text(text)
    with pytest.raises(SourceError, match=rf"about\.yaml, {found}.*correct or remove it"):
        FolderSource(folder)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("- a\n", "is not YAML with lines `name: text`"),
        ("just text", "is not YAML with lines `name: text`"),
        ("", "says nothing: write lines"),
        ("# to be written\n", "says nothing: write lines"),
    ],
)
def test_an_about_yaml_of_another_form_or_without_a_line_is_refused(tmp_path, text, found):
    folder = class_folders(tmp_path, "normal/a.png", "mass/b.png")
    (folder / "about.yaml").write_text(text)
    with pytest.raises(SourceError, match=rf"about\.yaml {found}"):
        FolderSource(folder)


# Folders of classes


def test_a_class_folder_that_is_a_link_is_followed(tmp_path):
    class_folders(tmp_path / "store", "mass/b.png", "mass/deep.png")
    folder = class_folders(tmp_path / "set", "normal/a.png")
    (folder / "mass").symlink_to(tmp_path / "store" / "mass", target_is_directory=True)
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    for way in (folder, tmp_path / "link"):
        source = FolderSource(way)
        assert source.records["id"].tolist() == ["mass/b.png", "mass/deep.png", "normal/a.png"]
        assert source.problems == []


def test_a_link_that_leads_in_a_circle_or_to_a_folder_that_was_read_is_named_and_followed_once(tmp_path):
    folder = class_folders(tmp_path / "above" / "set", "normal/a.png", "mass/b.png")
    for name, target in (("mass/self", folder / "mass"), ("all", folder.parent), ("edema", folder / "normal")):
        (folder / name).symlink_to(target, target_is_directory=True)
    (folder / "mass" / "lost.png").symlink_to(folder / "nowhere.png")
    source = FolderSource(folder)
    assert source.records["id"].tolist() == ["mass/b.png", "normal/a.png"]
    named = {problem.image: problem.consequence for problem in source.problems}
    assert named == dict.fromkeys(["mass/self", "all", "edema", "mass/lost.png"], "not followed")


@pytest.mark.parametrize("name", ["masks", "new", "segmentation", "Lung_Masks", "mass (copy)", "masks/normal"])
def test_a_folder_that_is_no_class_by_its_name_is_refused_with_what_to_write(tmp_path, name):
    folder, odd = class_folders(tmp_path, "normal/a.png", "mass/b.png", f"{name}/c.png"), name.split("/")[0]
    with pytest.raises(SourceError, match="folders that do not look like classes: ") as error:
        FolderSource(folder)
    assert f"`classes: {{{odd}: ignore}}`" in str(error.value)
    (folder / "about.yaml").write_text(f"classes: {{{odd}: ignore}}\n")
    source = FolderSource(folder)
    assert source.records["id"].tolist() == ["mass/b.png", "normal/a.png"]
    assert source.problems == [Problem(f"{name}/c.png", "ignored by about.yaml", "not used")]
    assert "classes" not in source.about


def test_a_finding_that_is_not_known_is_named_unless_it_is_listed(tmp_path):
    folder = class_folders(tmp_path, "normal/a.png", "silicosis/b.png", "silicosis/c.png", "Lung_Opacity/d.png")
    found = "folder 'silicosis' is taken for a finding by its name alone"
    problems = [Problem(f"silicosis/{name}.png", found, "counted as abnormal") for name in "bc"]
    assert FolderSource(folder).problems == problems
    (folder / "about.yaml").write_text("classes: {silicosis: abnormal}\n")
    source = FolderSource(folder)
    assert source.problems == []
    assert source.records["finding"].tolist() == ["Lung_Opacity", "", "silicosis", "silicosis"]


def test_listed_classes_may_have_any_name_and_folders_of_their_own(tmp_path):
    folder = class_folders(tmp_path, "train/class_0/p1/a.png", "test/class_0/p2/b.png", "test/class_1/p3/c.png")
    (folder / "about.yaml").write_text("classes:\n  class_0: normal\n  test/class_1: abnormal\n")
    rows = FolderSource(folder).records[["id", "label", "finding", "split"]].to_numpy().tolist()
    assert rows == [
        ["test/class_0/p2/b.png", "normal", "", "test"],
        ["test/class_1/p3/c.png", "abnormal", "class_1", "test"],
        ["train/class_0/p1/a.png", "normal", "", "train"],
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("classes: {mas: ignore}", "names mas, where no file is"),
        ("classes: {mass: maybe}", r"expected lines `folder: normal \| abnormal \| ignore`"),
        ("classes: [mass]", r"expected lines `folder: normal \| abnormal \| ignore`"),
    ],
)
def test_classes_that_name_no_folder_or_no_kind_are_refused(tmp_path, text, words):
    folder = class_folders(tmp_path, "normal/a.png", "mass/b.png")
    (folder / "about.yaml").write_text(text)
    with pytest.raises(SourceError, match=words):
        FolderSource(folder)


def test_files_in_class_folders_are_known_by_their_content(tmp_path):
    folder = class_folders(tmp_path, "normal/a.png", "mass/b.png")
    (folder / "mass" / "b.png").rename(folder / "mass" / "b")
    (folder / "normal" / "IM0001").write_bytes(bytes(128) + b"DICM" + bytes(100))
    (folder / "normal" / "IM0002.1.2.840").write_bytes(b"\x08\0\x05\0" + bytes(100))
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM" + bytes(100))
    (folder / "normal" / "notes").write_text("not an image")
    source = FolderSource(folder)
    assert source.records["id"].tolist() == ["mass/b", "normal/IM0001", "normal/IM0002.1.2.840", "normal/a.png"]
    unused = "not an image by its name and content"
    assert source.problems == [Problem(name, unused, "not used") for name in ("DICOMDIR", "normal/notes")]


def test_a_class_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    folder, listed = class_folders(tmp_path, "normal/a.png", "mass/b.png"), Path.iterdir

    def refuse(self):
        if self.name == "mass":
            raise PermissionError(13, "Permission denied")
        return listed(self)

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(SourceError, match=r"mass cannot be read \(Permission denied\)"):
        FolderSource(folder)


def test_a_file_name_that_is_not_utf8_is_left_out_and_named(tmp_path):
    folder = class_folders(tmp_path, "normal/a.png", "mass/b.png")
    try:
        shutil.copy(folder / "mass" / "b.png", os.fsencode(folder / "mass") + b"/\xe9t\xe9.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    source = FolderSource(folder)
    assert source.records["id"].tolist() == ["mass/b.png", "normal/a.png"]
    assert source.problems == [Problem("mass/\ufffdt\ufffd.png", "a file name that is not UTF-8; rename it", LEFT_OUT)]


# Tables


@pytest.mark.parametrize("written", ["../secret.png", "a/../../secret.png", "/secret.png"])
def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path, written):
    folder = table_folder(tmp_path / "set", two_rows())
    write(tmp_path / "set" / "secret.png", grey(5))
    written = str(folder) + written if written[0] == "/" else written
    two_rows(filename=["a.png", written]).to_csv(folder / "labels.csv", index=False)
    with pytest.raises(SourceError, match=r"the image '.*secret.png' leads out of .*images: give its path from there"):
        FolderSource(folder)


def test_a_registered_tables_name_that_leads_out_of_the_folder_is_refused(tmp_path):
    for name in ("vinbigdata/train/a.png", "vinbigdata/train/b.png", "secret.png"):
        write(tmp_path / "root" / name if "/" in name else tmp_path / name, grey(3))
    (tmp_path / "root" / "vinbigdata" / "train.csv").write_text(
        "image_id,class_name,x_min,y_min,x_max,y_max,width,height\n"
        "a,No finding,,,,,,\n../../../secret,Mass,1,1,2,2,9,9\n"
    )
    with pytest.raises(SourceError, match="leads out of"):
        open_source(Params(source="vinbigdata", data_dir=str(tmp_path / "root")), tmp_path)


def test_names_match_whatever_form_of_unicode_they_have(tmp_path):
    composed, apart = unicodedata.normalize("NFC", "é.png"), unicodedata.normalize("NFD", "é.png")
    for on_disk, in_table in ((composed, apart), (apart, composed)):
        folder = tmp_path / str(len(on_disk))
        table_folder(folder, two_rows(filename=["a.png", on_disk]))
        two_rows(filename=["./a.png", in_table]).to_csv(folder / "labels.csv", index=False)
        (folder / "boxes.csv").write_text(f"filename,x,y,w,h\n./{in_table},2,3,5,4\n")
        source = FolderSource(folder)
        assert source.problems == []
        assert source.records["id"].tolist() == ["a.png", composed]
        assert source.mask(composed) is not None


def test_a_table_whose_rows_end_in_a_comma_is_read(tmp_path):
    folder = table_folder(tmp_path, two_rows())
    (folder / "labels.csv").write_text("filename,label\na.png,normal,\nb.png,abnormal,\n")
    (folder / "boxes.csv").write_text("filename,x,y,w,h\nb.png,2,3,5,4,\n")
    source = FolderSource(folder)
    assert source.records["label"].tolist() == ["normal", "abnormal"]
    assert source.mask("b.png").sum() == 20


@pytest.mark.parametrize("text", ["filename,label\na.png,normal,extra\nb.png,abnormal,\n"])
def test_a_row_with_more_cells_than_columns_is_refused(tmp_path, text):
    folder = table_folder(tmp_path, two_rows())
    (folder / "labels.csv").write_text(text)
    with pytest.raises(SourceError, match=r"labels\.csv, row 2 has more cells than the 2 columns"):
        FolderSource(folder)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_a_table_in_another_unicode_encoding_is_read(tmp_path, encoding):
    folder = table_folder(tmp_path, two_rows())
    text = "filename,label,finding\na.png,normal,\nb.png,abnormal,Ödem\n"
    mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") else ""
    (folder / "labels.csv").write_bytes((mark + text).encode(encoding))
    assert FolderSource(folder).records["finding"].tolist() == ["", "Ödem"]


def test_a_table_that_is_not_unicode_says_how_to_save_it(tmp_path):
    folder = table_folder(tmp_path, two_rows())
    (folder / "labels.csv").write_bytes("filename,label,finding\na.png,normal,Ödem\n".encode("latin-1"))
    with pytest.raises(SourceError, match=r"labels\.csv cannot be read as a table: .*save it as UTF-8"):
        FolderSource(folder)


def test_without_boxes_no_image_has_a_mask(tmp_path):
    source = FolderSource(class_folders(tmp_path, "normal/a.png", "mass/b.png"))
    assert source.mask("normal/a.png") is source.mask("mass/b.png") is None


@pytest.fixture(scope="module")
def phantoms() -> PhantomSource:
    return PhantomSource(48, 32, seed=3)


def test_a_quarter_of_the_phantoms_is_abnormal_and_all_findings_are_equally_frequent(phantoms):
    records = phantoms.records
    assert records["label"].value_counts().to_dict() == {"normal": 36, "abnormal": 12}
    counts = records["finding"][records["label"] == "abnormal"].value_counts()
    assert set(counts.index) == set(FINDINGS)
    assert counts.max() - counts.min() <= 1
    assert (records["finding"][records["label"] == "normal"] == "").all()
    assert set(records) == COLUMNS
    assert phantoms.synthetic


def test_some_phantom_patients_have_two_images_and_none_is_both_normal_and_abnormal(phantoms):
    by_patient = phantoms.records.groupby("patient")
    assert by_patient.size().value_counts().to_dict() == {2: 12, 1: 24}
    assert (by_patient["label"].nunique() == 1).all()
    assert (by_patient[["age", "sex"]].nunique() == 1).all(axis=None)


def test_a_phantom_has_a_mask_if_and_only_if_it_is_abnormal(phantoms):
    for image_id, label in phantoms.records[["id", "label"]].head(24).to_numpy():
        mask, image = phantoms.mask(image_id), read(phantoms, image_id)
        assert (image.dtype, image.shape) == (np.uint8, (32, 32))
        assert (mask is None) == (label == "normal")
        if mask is not None:
            assert (mask.dtype, mask.shape) == (bool, image.shape)
            assert 0 < mask.mean() < 0.5


def test_phantoms_have_the_severities_and_the_number_of_lesions_that_are_asked_for(phantoms):
    mild, severe = (PhantomSource(48, 32, seed=3, severity=(low, low + 0.1)) for low in (0.1, 0.9))
    ill = phantoms.records.query("label == 'abnormal'")["id"]
    assert all(0.1 < mild.image(name).severity <= 0.2 and 0.9 < severe.image(name).severity <= 1 for name in ill)
    several = PhantomSource(48, 32, seed=3, severity=(0.9, 1.0), lesions=4)
    areas = [sum(source.image(name).mask.sum() for name in ill) for source in (mild, severe, several)]
    assert areas == sorted(areas) and len({mild.name, severe.name, several.name}) == 3
    for source in (mild, several):  # the normal images are those of any other lesions
        normal = phantoms.records.query("label == 'normal'")["id"].iloc[0]
        assert np.array_equal(read(source, normal), read(phantoms, normal))


@pytest.mark.parametrize("source", ["phantom", "folder"])
def test_seeds_share_their_split_and_split_seeds_do_not(tmp_path, source):
    class_folders(tmp_path, *[f"{kind}/{i}.png" for kind in ("normal", "ill") for i in range(20)])
    settings = {"source": source, "data_dir": str(tmp_path), "phantom_images": 40, "image_size": 32, "widths": [4]}

    def split_of(**seeds) -> str:
        params = Params(**settings | seeds)
        return load_data(open_source(params, tmp_path), params, tmp_path / "cache").split(params).hash

    assert split_of(seed=0) == split_of(seed=1) != split_of(split_seed=1)


def test_equal_names_of_phantoms_mean_equal_images(phantoms):
    again, other, larger = PhantomSource(48, 32, seed=3), PhantomSource(48, 32, seed=4), PhantomSource(48, 40, seed=3)
    assert again.name == phantoms.name
    assert again.records.equals(phantoms.records)
    for image_id in phantoms.records["id"][:8]:
        assert np.array_equal(read(again, image_id), read(phantoms, image_id))
        assert not np.array_equal(read(other, image_id), read(phantoms, image_id))
    assert len({phantoms.name, other.name, larger.name}) == 3


@pytest.mark.parametrize("module", [anatomy, phantom])
def test_a_change_in_any_file_that_draws_phantoms_changes_their_name(tmp_path, monkeypatch, module):
    before = PhantomSource(4, 32).name
    changed = tmp_path / "changed.py"
    changed.write_text(Path(module.__file__).read_text() + "# another formula\n")
    monkeypatch.setattr(module, "__file__", str(changed))
    assert PhantomSource(4, 32).name != before
    imported = {getattr(value, "__module__", None) or "" for value in vars(module).values()}
    assert {name for name in imported if name.startswith("lib.")} <= {anatomy.__name__, phantom.__name__}


def test_the_settings_choose_the_source(tmp_path):
    class_folders(tmp_path / "data", "normal/a.png", "mass/b.png")
    folder = open_source(Params(source="folder", data_dir="data"), tmp_path)
    assert folder.records["id"].tolist() == ["mass/b.png", "normal/a.png"]
    phantoms = open_source(Params(phantom_images=40, image_size=32, widths=[4]), tmp_path)
    assert len(phantoms.records) == 40
    assert read(phantoms, "phantom-000000").shape == (32, 32)


def test_real_radiographs_are_read_with_their_boxes(xrays):
    source = FolderSource(xrays / "adult")
    boxes = pd.read_csv(xrays / "adult" / "boxes.csv")
    assert len(source.records) == 2_300 + 392
    assert "strict_label" in source.records
    for image_id in boxes["filename"].unique()[:3]:
        image, mask = read(source, image_id), source.mask(image_id)
        assert min(image.shape) == 128
        assert mask.shape == image.shape
        area = (boxes["w"] * boxes["h"])[boxes["filename"] == image_id]
        assert area.max() * 0.9 <= mask.sum() <= area.sum() * 1.1 + 40
