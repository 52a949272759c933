"""Images without labels: what a user names is found once, by a name that lasts, and what is none is said."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lib.data.decoding import encode
from lib.data.unlabelled import open_unlabelled
from lib.refusals import Refusal


def image(seed: int) -> bytes:
    return encode(np.random.default_rng(seed).integers(0, 256, (20, 24), dtype=np.uint8))


def wrote(file: Path, content: bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def read(*places: Path | str) -> dict[str, bytes]:
    found = open_unlabelled([*map(str, places)])
    contents = {name: content() for name, content in found.contents}
    assert list(contents) == found.names
    return contents


def test_files_and_folders_give_each_image_once_by_its_path_from_what_they_share(tmp_path):
    one = wrote(tmp_path / "in" / "one.png", image(1))
    wrote(tmp_path / "in" / "more" / "one.png", image(2))
    wrote(tmp_path / "in" / "more" / "deep" / "DICOM0001", image(3))  # known by its content
    assert read(one) == {"one.png": image(1)}
    found = read(tmp_path / "in" / "more", one, tmp_path / "in" / "more" / "one.png")
    assert found == {"more/deep/DICOM0001": image(3), "more/one.png": image(2), "one.png": image(1)}


def test_a_file_that_is_no_image_is_named_below_a_folder_and_taken_for_one_where_it_is_named(tmp_path):
    wrote(tmp_path / "a.png", image(1))
    text = wrote(tmp_path / "notes.txt", b"about the patients")
    found = open_unlabelled([str(tmp_path)])
    assert found.names == ["a.png"]
    assert found.problems == [("notes.txt", "not an image by its name and content", "not used")]
    assert open_unlabelled([str(text)]).names == ["notes.txt"]


def test_what_is_not_used_is_named_as_images_are_and_by_no_absolute_path(tmp_path):
    for name in ("in/a.png", "in/more/b.png", "in/more/list.csv", "in/notes.txt"):
        wrote(tmp_path / name, image(1) if name.endswith("png") else b"text")
    (tmp_path / "in" / "more" / "back").symlink_to(tmp_path / "in")
    found = open_unlabelled([str(tmp_path / "in")])
    assert found.names == ["a.png", "more/b.png"]
    assert sorted(problem.image for problem in found.problems) == ["more/back", "more/list.csv", "notes.txt"]
    (tmp_path / "in" / "a.png").unlink()
    below = open_unlabelled([str(tmp_path / "in")])  # images are named from the folder that all of them share
    assert below.names == ["b.png"]
    assert sorted(problem.image for problem in below.problems) == ["../notes.txt", "back", "list.csv"]


def test_shards_need_no_labels_and_may_stand_beside_files(tmp_path):
    rows = {"id": ["7", "8"], "image": [{"bytes": image(n), "path": None} for n in (7, 8)]}
    pq.write_table(pa.table(rows), tmp_path / "new.parquet")
    one = wrote(tmp_path / "one.png", image(1))
    assert read(tmp_path / "new.parquet", one) == {"one.png": image(1), "7": image(7), "8": image(8)}


@pytest.mark.parametrize(
    ("places", "complaint"),
    [
        (["gone.png"], "gone.png does not exist: give files, folders or shards"),
        (["empty"], "holds no image among 1 files"),
        (["new.parquet", "a.png"], "the image 'a.png' occurs in several of the places"),
    ],
)
def test_what_cannot_be_scored_is_refused_by_name(tmp_path, monkeypatch, places, complaint):
    monkeypatch.chdir(tmp_path)
    wrote(tmp_path / "empty" / "notes.txt", b"nothing")
    wrote(tmp_path / "a.png", image(1))
    pd.DataFrame({"id": ["a.png"], "image": [image(1)]}).to_parquet(tmp_path / "new.parquet")
    with pytest.raises(Refusal, match=complaint):
        open_unlabelled(places)


def test_a_name_that_cannot_be_printed_becomes_one_that_can(tmp_path):
    wrote(tmp_path / "two\nlines.png", image(1))
    assert read(tmp_path) == {"two\ufffdlines.png": image(1)}
