"""The split: no patient on two sides, only normal images in training, and all images prepared alike."""

import json
import zlib
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from listed import read_only
from PIL import Image

from lib.data.dataset import (
    Data,
    Split,
    SplitError,
    is_normal,
    load_data,
    reference_half,
    split_records,
)
from lib.data.lesions import load_masks
from lib.data.phantom import radiograph
from lib.data.preparation import Preparation
from lib.data.source import LEFT_OUT, SIZES, SourceError
from lib.data.sources import open_source
from lib.data.stream import write_shards
from lib.evidence.trivial import tags
from lib.methods.method import to_unit
from lib.params import Params

FRACTION = 0.15


def records(count: int, **columns) -> pd.DataFrame:
    """Normal images, each with its own patient and file, except for the `columns` given."""
    names = [f"image-{i:04d}" for i in range(count)]
    table = {"id": names, "label": "normal", "finding": "", "split": "", "patient": names}
    return pd.DataFrame(table | {"digest": names, "twin": names} | columns)


def quarter(count: int = 80, **columns) -> pd.DataFrame:
    """Every fourth image abnormal."""
    return records(count, **{"label": ["abnormal" if i % 4 == 3 else "normal" for i in range(count)]} | columns)


def official(count: int = 80, **columns) -> pd.DataFrame:
    """The first half for training (every fourth abnormal), then a tenth for validation, the rest for the test."""
    split = ["train"] * (count // 2) + ["val"] * (count // 10)
    return quarter(count, split=split + ["test"] * (count - len(split)), **columns)


def split(table: pd.DataFrame, fraction: float = FRACTION, seed: int = 0) -> Split:
    return split_records(table, validation_fraction=fraction, seed=seed)


def random_table(seed: int, with_split: bool) -> pd.DataFrame:
    """Unknown and shared patients, duplicated files and several labels, as in real tables."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(120, 240))
    table = records(
        n,
        label=rng.choice(["normal", "abnormal", "other", ""], n, p=[0.75, 0.15, 0.05, 0.05]),
        patient=[f"p{p}" if p % 3 else "" for p in rng.integers(0, n, n)],
        digest=[f"d{d}" for d in rng.integers(0, 4 * n, n)],
        twin=[f"t{t}" for t in rng.integers(0, 4 * n, n)],
    )
    if seed % 2:
        table["strict_label"] = rng.choice(["", "normal", "abnormal"], n, p=[0.85, 0.13, 0.02])
    if with_split:
        table["split"] = rng.choice(["train", "val", "test", "", "extra"], n, p=[0.6, 0.1, 0.2, 0.05, 0.05])
    return table


def sides(result: Split) -> dict[str, pd.DataFrame]:
    return {"train": result.train, "validation": result.validation, "test": result.test}


def share(a: pd.DataFrame, b: pd.DataFrame, column: str) -> set[str]:
    return (set(a[column]) & set(b[column])) - {""}


@pytest.mark.parametrize("with_split", [False, True])
@pytest.mark.parametrize("seed", range(25))
def test_no_patient_file_or_image_is_on_two_sides_and_only_normals_train(seed, with_split):
    table = random_table(seed, with_split)
    result = split(table, seed=seed)
    for column in ("id", "patient", "digest", "twin"):
        assert not share(result.train, result.validation, column)
        assert not share(result.train, result.test, column)
        assert not share(result.validation, result.test, column)
    for side in (result.train, result.validation):
        labels = side[[c for c in ("label", "strict_label") if c in side]].to_numpy()
        assert set(labels.ravel()) <= {"normal", ""}
        assert (labels == "normal").any(axis=1).all()
    on_a_side = pd.concat(sides(result).values())["id"]
    assert on_a_side.is_unique
    assert len(on_a_side) + sum(result.manifest["left_out"].values()) == len(table)
    if not with_split:
        assert set(on_a_side) == set(table["id"])
    else:
        assert result.test.equals(table[table["split"] == "test"].reset_index(drop=True))


@pytest.mark.parametrize("with_split", [False, True])
def test_images_linked_only_through_others_stay_together(with_split):
    """Images 0 and 1 share a patient, 1 and 2 a file or an image, 2 and 3 a patient again: a chain of forty."""
    table = official() if with_split else quarter()
    patient = [f"p{i // 2}" if i < 40 else f"own-{i}" for i in range(80)]
    digest = [f"d{(i + 1) // 2}" if i < 40 and (i + 1) // 2 % 2 == 0 else f"own-{i}" for i in range(80)]
    twin = [f"t{(i + 1) // 2}" if i < 40 and (i + 1) // 2 % 2 else f"own-{i}" for i in range(80)]
    table = table.assign(patient=patient, digest=digest, twin=twin)
    chain = set(table["id"][:40])
    if with_split:  # the chain is training material, until its last image shares a file with the test
        table = pd.concat(
            [
                table,
                table[:10].assign(
                    split="train",
                    label="normal",
                    id=[f"new-{i}" for i in range(10)],
                    patient=[f"new-{i}" for i in range(10)],
                    digest=[f"new-{i}" for i in range(10)],
                    twin=[f"new-{i}" for i in range(10)],
                ),
            ]
        )
        table.loc[table["id"] == "image-0060", "digest"] = "d20"
        result = split(table)
        assert not chain & (set(result.train["id"]) | set(result.validation["id"]))
        assert result.manifest["left_out"]["shares a patient or an image with the official test side"] == 30
    else:
        result = split(table)
        assert chain <= set(result.test["id"])  # ten of them are abnormal


def test_two_test_images_that_only_an_image_on_no_side_links_are_in_one_group():
    """An abnormal training image has the patient of the one and the picture of the other."""
    table = official(patient=[""] * 80)
    table.loc[3, "twin"], table.loc[[3, 70], "patient"] = table["twin"][60], "p"
    result = split(table)
    assert result.manifest["left_out"]["abnormal or unlabelled image of the official training or validation side"] > 0
    test = result.grouped["test"].set_index("id")["group"]
    assert test["image-0060"] == test["image-0070"] and test.nunique() == len(test) - 1
    assert result.grouped["test"].drop(columns="group").equals(result.test)


def test_without_an_official_split_a_fifth_of_the_normals_is_tested_and_the_fraction_validates():
    result = split(quarter(400))
    counts = {name: len(side) for name, side in sides(result).items()}
    assert counts["test"] == 100 + 60  # all abnormal ones, and a fifth of 300 normals
    assert counts["validation"] == 36  # 0.15 of the 240 that are left
    assert counts["train"] == 240 - 36
    assert (result.test["label"] == "abnormal").sum() == 100
    assert not result.manifest["official_split"]


def test_a_patient_with_one_abnormal_image_is_tested_with_all_images():
    table = quarter(patient=[f"p{i // 4}" if i < 40 else f"own-{i}" for i in range(80)])
    assert set(table["id"][:40]) <= set(split(table).test["id"])


def test_an_official_test_side_is_kept_in_its_order_for_every_seed():
    table = official()
    for seed in range(5):
        assert split(table, seed=seed).test["id"].tolist() == table["id"][table["split"] == "test"].tolist()


def test_training_images_that_share_a_patient_or_image_with_the_official_test_side_are_left_out_and_counted():
    table = official()
    table.loc[0, "patient"] = table.loc[1, "patient"] = "image-0079"  # of the test side
    table.loc[2, "digest"] = "image-0078"
    table.loc[4, "twin"] = "image-0076"
    table.loc[3, "patient"] = "image-0077"  # abnormal: left out for that reason
    result = split(table)
    assert result.manifest["left_out"] == {
        "shares a patient or an image with the official test side": 4,
        "abnormal or unlabelled image of the official training or validation side": 12,
    }
    assert not set(table["id"][:5]) & (set(result.train["id"]) | set(result.validation["id"]))
    overlap = result.manifest["test_images_sharing_a_patient_or_image_with_the_official_training_side"]
    assert overlap == {"any image": 4, "normal image": 3}


def test_an_official_validation_side_is_kept_and_filled_up_to_the_fraction():
    table = official()
    theirs = set(table["id"][(table["split"] == "val") & (table["label"] == "normal")])
    few, many = split(table, fraction=0.05), split(table, fraction=0.4)
    assert set(few.validation["id"]) == theirs
    assert theirs < set(many.validation["id"])
    assert len(many.validation) == np.ceil(0.4 * (len(many.train) + len(many.validation)))


def test_images_that_share_a_patient_with_the_official_validation_side_join_it():
    table = official()
    table.loc[0, "patient"] = "image-0040"  # of the validation side
    result = split(table, fraction=0.05)
    assert "image-0000" in set(result.validation["id"])


def test_images_with_an_unknown_split_are_left_out_and_counted():
    table = official()
    table.loc[:4, "split"] = ["", "other", "TRAIN", "holdout", "x"]
    assert split(table).manifest["left_out"]["split is neither train, val nor test"] == 5


def test_images_without_a_patient_are_reported_as_unverified_with_their_numbers():
    table = official(patient="")
    result = split(table)
    n = {name: len(side) for name, side in sides(result).items()}
    assert result.manifest["patient_separation"] == (
        f"unverified for {n['train']} train images without a patient id, {n['validation']} validation images without "
        f"a patient id, {n['test']} test images without a patient id"
    )
    assert result.manifest["known_patients"] == {"train": 0, "validation": 0, "test": 0}
    assert split(official()).manifest["patient_separation"] == "verified"


def test_images_without_a_patient_do_not_count_as_one_patient():
    result = split(quarter(patient=""))
    assert all(len(side) > 5 for side in sides(result).values())


def test_the_split_is_a_function_of_the_seed():
    table = quarter()
    assert split(table, seed=1).manifest == split(table, seed=1).manifest
    assert len({split(table, seed=seed).hash for seed in range(5)}) == 5


def test_the_hash_follows_the_images_and_not_the_other_columns():
    table = official()
    again = split(table.assign(age="61", finding="Mass"))
    assert again.hash == split(table).hash
    other = table.copy()
    other.loc[79, "digest"] = "another file"
    assert split(other).hash != split(table).hash


def test_the_manifest_lists_the_sides_and_can_be_written_as_json():
    result = split(official())
    manifest = json.loads(json.dumps(result.manifest, allow_nan=False))
    assert manifest == result.manifest
    assert manifest["sides"] == {name: side["id"].tolist() for name, side in sides(result).items()}
    assert manifest["images"] == {name: len(side) for name, side in sides(result).items()}
    assert manifest["official_split"]
    assert manifest["test_labels"] == {"label": result.test["label"].value_counts().to_dict()}


def test_the_callers_table_is_not_modified():
    table = official().set_index(pd.Index(range(100, 180)))
    before = table.copy()
    split(table)
    pd.testing.assert_frame_equal(table, before)


def test_a_stricter_label_overrules_a_normal_one():
    table = official(strict_label="")
    table.loc[[0, 1, 2], "strict_label"] = ["abnormal", "other_abnormal", "normal"]
    result = split(table, fraction=0.05)
    trained = set(result.train["id"]) | set(result.validation["id"])
    assert not {"image-0000", "image-0001"} & trained
    assert "image-0002" in trained


@pytest.mark.parametrize(
    ("label", "strict", "expected"),
    [
        ("normal", "normal", True),
        ("normal", "", True),
        ("", "normal", True),
        ("normal", "abnormal", False),
        ("abnormal", "normal", False),
        ("", "", False),
        ("other", "", False),
    ],
)
def test_an_image_is_normal_if_all_its_labels_are(label, strict, expected):
    assert is_normal(pd.DataFrame({"label": [label], "strict_label": [strict]})).tolist() == [expected]


def validation_side(patients: int, seed: int = 0) -> pd.DataFrame:
    """Normal images, one to four per patient; every fifth patient is known only by twin images."""
    rng = np.random.default_rng(seed)
    owner = np.repeat([f"p{i}" for i in range(patients)], rng.integers(1, 5, patients))
    unknown = np.array([int(name[1:]) % 5 == 0 for name in owner])
    table = records(len(owner), patient=np.where(unknown, "", owner), owner=owner)
    return table.assign(twin=table["twin"].where(~unknown, "image of " + table["owner"])).sample(
        frac=1, random_state=rng
    )


@pytest.mark.parametrize("patients", [1, 2, 3, 40, 41])
@pytest.mark.parametrize("seed", range(5))
def test_the_halves_differ_by_at_most_one_patient_and_share_none(patients, seed):
    side = validation_side(patients, seed)
    half = reference_half(side)
    assert half.dtype == bool and half.shape == (len(side),)
    reference, calibration = set(side["owner"][half]), set(side["owner"][~half])
    assert not reference & calibration
    assert len(reference | calibration) == patients
    assert 0 <= len(reference) - len(calibration) <= 1


def test_an_image_is_in_the_same_half_whatever_the_order_of_the_records():
    side = validation_side(40)
    expected = dict(zip(side["id"], reference_half(side), strict=True))
    assert len(set(expected.values())) == 2
    for seed in range(5):
        other = side.sample(frac=1, random_state=seed)
        assert dict(zip(other["id"], reference_half(other), strict=True)) == expected


def test_a_test_side_of_one_class_is_refused_with_what_was_found():
    with pytest.raises(SplitError, match=r"holds \{'normal': 32\} by the column 'label': an AUROC needs"):
        split(official(label="normal"))
    table = official()
    table.loc[table["split"] == "test", "label"] = "abnormal"
    with pytest.raises(SplitError, match=r"holds \{'abnormal': 32\}"):
        split(table)


@pytest.mark.parametrize(
    ("table", "side"),
    [
        (quarter(label="abnormal"), "train"),
        (quarter(patient="one"), "train"),
        (official(8, patient=[f"p{i // 4}" for i in range(8)]), "train"),
    ],
    ids=["no normals", "one patient", "all shared with the test"],
)
def test_an_empty_side_is_refused_by_name(table, side):
    with pytest.raises(SplitError, match=f"the {side} side is empty: {len(table)} images"):
        split(table)


def test_three_normal_patients_and_an_abnormal_one_are_the_fewest_that_can_be_split():
    few = records(4, label=["normal"] * 3 + ["abnormal"])
    assert {name: len(side) for name, side in sides(split(few)).items()} == {"train": 1, "validation": 1, "test": 2}
    with pytest.raises(
        SplitError, match=r"the train side is empty: 3 images, 2 of them normal .* at least three patients"
    ):
        split(few.iloc[1:])


def test_labels_in_other_words_are_shown_when_no_normal_is_found():
    with pytest.raises(SplitError, match="Normal"):
        split(quarter().replace("normal", "Normal"))


@pytest.mark.parametrize("word", ["Test", "TEST", "testing"])
def test_an_official_split_in_other_words_is_not_ignored(word):
    table = official().replace("test", word)
    with pytest.raises(SplitError, match=word):
        split(table)


def test_one_patient_id_in_all_files_is_named_with_what_to_do():
    table = records(40).assign(patient="ANONYMOUS")
    with pytest.raises(SplitError, match="'ANONYMOUS' is the most frequent: if it stands for no"):
        split(table)


# All of a source's images


def image(seed: int, finding: str = "") -> np.ndarray:
    return np.round(radiograph(seed, finding=finding, size=64).image * 255).astype(np.uint8)


def folder_of(folder: Path, count: int = 24, **settings) -> Params:
    """A folder of phantoms, every fourth abnormal, and settings that read it."""
    (folder / "images").mkdir(parents=True)
    labels = ["abnormal" if i % 4 == 3 else "normal" for i in range(count)]
    for i, label in enumerate(labels):
        Image.fromarray(image(i, "opacity" if label == "abnormal" else "")).save(folder / "images" / f"{i}.png")
    table = pd.DataFrame({"filename": [f"{i}.png" for i in range(count)], "label": labels})
    table.to_csv(folder / "labels.csv", index=False)
    return Params(source="folder", data_dir=str(folder), image_size=32, widths=[4], **settings)


def add(params: Params, name: str, content: bytes | Image.Image | None, label: str = "normal", **options) -> None:
    """Add a row to the folder, and its file unless `content` is None."""
    folder = Path(params.data_dir)
    if isinstance(content, Image.Image):
        content.save(folder / "images" / name, **options)
    elif content is not None:
        (folder / "images" / name).write_bytes(content)
    with (folder / "labels.csv").open("a") as table:
        table.write(f"{name},{label}\n")


def data(params: Params, cache: Path) -> Data:
    return load_data(open_source(params, cache), params, cache)


def png(*, side: int = 40) -> bytes:
    Image.fromarray(image(99)).resize((side, side)).save(file := BytesIO(), "png")
    return file.getvalue()


def bomb() -> bytes:
    """A PNG whose header promises 20,000 x 20,000 pixels: 400 million of them in 400 bytes."""
    whole = png()
    header = b"IHDR" + (20_000).to_bytes(4, "big") * 2 + whole[24:29]
    return whole[:12] + header + zlib.crc32(header).to_bytes(4, "big") + whole[33:]


def every_bad_file(params: Params) -> None:
    """Add everything that public data sets contain and should not."""
    grey, folder = Image.fromarray(image(50)), Path(params.data_dir)
    add(params, "truncated.png", png()[:-300])
    add(params, "empty.png", b"")
    add(params, "text.png", b"<html>404 Not Found</html>")
    add(params, "animated.gif", grey, save_all=True, append_images=[Image.fromarray(image(51))])
    add(params, "dot.png", png(side=1))
    add(params, "bomb.png", bomb())
    add(params, "no-file.png", None)
    (folder / "images" / "no-row.png").write_bytes(png())
    add(params, "16-bit.png", Image.fromarray(image(52).astype(np.uint16) * 257))
    add(params, "rgba.png", Image.fromarray(image(53)).convert("RGBA"))
    add(params, "cmyk.jpg", Image.fromarray(image(54)).convert("CMYK"))
    add(params, "palette.png", Image.fromarray(image(55)).convert("P"))
    add(params, "unknown-label.png", Image.fromarray(image(56)), label="maybe")
    add(params, "nan-label.png", Image.fromarray(image(57)), label="nan")
    add(params, "twin.png", Image.fromarray(image(0)))
    add(params, "contradiction.png", Image.fromarray(image(1)), label="abnormal")
    add(params, "again.jpg", Image.fromarray(image(2)), quality=60)


USED = {
    "16-bit.png",
    "rgba.png",
    "cmyk.jpg",
    "palette.png",
    "unknown-label.png",
    "nan-label.png",
    "twin.png",
    "again.jpg",
}
UNUSABLE = {"truncated.png", "empty.png", "text.png", "animated.gif", "dot.png", "bomb.png", "no-file.png"}


def test_every_bad_file_is_handled_or_named_with_its_problem_and_consequence(tmp_path):
    params = folder_of(tmp_path / "data", on_bad_image="skip")
    every_bad_file(params)
    loaded = data(params, tmp_path / "cache")
    left_out = loaded.problems[loaded.problems["consequence"] == LEFT_OUT]
    assert set(left_out["image"]) == UNUSABLE | {"contradiction.png", "1.png"}
    assert left_out["problem"].str.len().min() > 5
    named = dict(loaded.problems[loaded.problems["consequence"] != LEFT_OUT][["image", "problem"]].to_numpy())
    assert named == {
        "no-row.png": "file without a row in labels.csv",
        "unknown-label.png": "label is not one of normal, abnormal: 'maybe'",
        "nan-label.png": "label is not one of normal, abnormal: 'nan'",
        "0.png": "the same file as another image: twin.png",
        "twin.png": "the same file as another image: 0.png",
        "2.png": "nearly the same as another image: again.jpg",
        "again.jpg": "nearly the same as another image: 2.png",
    }
    assert set(loaded.records["id"]) == ({f"{i}.png" for i in range(24)} - {"1.png"}) | USED
    for number, name in [(52, "16-bit.png"), (53, "rgba.png"), (54, "cmyk.jpg"), (55, "palette.png")]:
        row = loaded.records["id"].tolist().index(name)
        expected = Preparation(32).image(image(number)).astype(int)
        assert np.abs(loaded.images[row] - expected).mean() < 3, name
    split = loaded.split(params)
    assert len(split.problems) == len(loaded.problems)
    assert split.manifest["exact_duplicates"] == split.manifest["near_duplicates"] == 1


def test_near_duplicates_with_different_labels_are_named_and_kept_together(tmp_path):
    params = folder_of(tmp_path / "data")
    add(params, "again.jpg", Image.fromarray(image(2)), label="abnormal", quality=60)
    loaded = data(params, tmp_path / "cache")
    assert sorted(loaded.problems.to_numpy().tolist()) == [
        ["2.png", "nearly the same as another image, with another label: again.jpg", "kept on one side with it"],
        ["again.jpg", "nearly the same as another image, with another label: 2.png", "kept on one side with it"],
    ]


def test_an_image_that_becomes_readable_is_recognised_as_a_near_duplicate(tmp_path, monkeypatch):
    def fail(file: Path) -> bytes:
        if file.name == "again.jpg":
            raise PermissionError(13, "Permission denied")
        return read(file)

    params, read = folder_of(tmp_path / "data", on_bad_image="skip"), Path.read_bytes
    add(params, "again.jpg", Image.fromarray(image(2)), quality=60)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fail)
        assert data(params, tmp_path / "cache").problems["problem"].tolist() == ["cannot be read: Permission denied"]
    records = data(params, tmp_path / "cache").records.set_index("id")
    assert records.loc["again.jpg", "twin"] == records.loc["2.png", "twin"]


PAIRS = {"empty": b"", "cut": None, "garbage": b"PK\3\4" + b"x" * 200}
PAIRS |= {
    name: np.array(pairs) for name, pairs in {"beyond": [[0, 99]], "before": [[-1, 2]], "triples": [[0, 1, 2]]}.items()
}
PAIRS |= {"fractions": np.array([[0.0, 1.0]])}


@pytest.mark.parametrize("damage", PAIRS)
def test_damaged_pairs_of_near_duplicates_are_computed_again(tmp_path, damage):
    params, content = folder_of(tmp_path / "data", count=8), PAIRS[damage]
    add(params, "again.jpg", Image.fromarray(image(2)), quality=60)
    whole = data(params, tmp_path / "cache").records
    [file] = (tmp_path / "cache").glob("*/near-duplicates.npy")
    if isinstance(content, np.ndarray):
        np.save(file, content)
    else:
        file.write_bytes(file.read_bytes()[:-5] if content is None else content)
    pd.testing.assert_frame_equal(data(params, tmp_path / "cache").records, whole)
    assert np.load(file).tolist() == [[2, 8]]


def test_by_default_an_unusable_image_ends_the_run_with_the_list(tmp_path):
    params = folder_of(tmp_path / "data")
    add(params, "empty.png", b"")
    add(params, "text.png", b"<html>")
    with pytest.raises(
        SourceError, match=r"2 of 26 images cannot be used, first \w+\.png: .*on_bad_image: skip"
    ) as error:
        data(params, tmp_path / "cache")
    [file] = (tmp_path / "cache").glob("*/problems.csv")
    assert str(file) in str(error.value)
    assert set(pd.read_csv(file)["image"]) == {"empty.png", "text.png"}


def test_a_source_without_a_usable_image_is_refused_with_the_first_problem(tmp_path):
    params = folder_of(tmp_path / "data", count=4, on_bad_image="skip")
    for file in (tmp_path / "data" / "images").iterdir():
        file.write_bytes(b"")
    with pytest.raises(SplitError, match=r"4 of 4 images cannot be used, first 0\.png: is empty; none is left"):
        data(params, tmp_path / "cache")


def test_a_cache_that_cannot_be_written_gives_the_same_data_without_what_is_kept_beside_it(reachable, monkeypatch):
    params = folder_of(reachable / "data")
    add(params, "again.jpg", Image.fromarray(image(2)), quality=60)
    loaded = data(params, reachable / "cache")
    [kept] = (reachable / "cache").glob("*/near-duplicates.npy")
    kept.unlink()
    with read_only(reachable / "cache"):
        again = data(params, reachable / "cache")
        pd.testing.assert_frame_equal(again.records, loaded.records)
        np.testing.assert_array_equal(again.images, loaded.images)
    assert loaded.records["twin"].duplicated().sum() == 1 and not kept.exists()


def test_unusable_images_are_said_where_their_list_cannot_be_written(reachable):
    params = folder_of(reachable / "data")
    add(params, "empty.png", b"")
    data(params.model_copy(update={"on_bad_image": "skip"}), reachable / "cache")
    with (
        read_only(reachable / "cache"),
        pytest.raises(SourceError, match=r"1 of 25 images cannot be used, first empty\.png: .*\(Permission denied\)"),
    ):
        data(params, reachable / "cache")


def test_a_folder_without_problems_has_an_empty_table_and_all_of_its_images(tmp_path):
    loaded = data(folder_of(tmp_path / "data"), tmp_path / "cache")
    assert loaded.problems.empty and len(loaded.records) == len(loaded.images) == 24
    np.testing.assert_array_equal(loaded.images[5], Preparation(32).image(image(5)))


def dicom(patient: str, age: str = "061Y", view: str = "AP") -> bytes:
    import pydicom

    data = pydicom.Dataset()
    data.PatientID, data.PatientAge, data.PatientSex, data.ViewPosition = patient, age, "F", view
    data.SOPClassUID, data.SOPInstanceUID = pydicom.uid.SecondaryCaptureImageStorage, pydicom.uid.generate_uid()
    data.Rows = data.Columns = 64
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
    data.PixelData = image(int(patient.strip("p") or 0)).tobytes()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    pydicom.dcmwrite(file := BytesIO(), data, enforce_file_format=True)
    return file.getvalue()


def test_a_dicom_header_fills_in_the_table_and_an_images_own_id_is_no_patient(tmp_path):
    pytest.importorskip("pydicom")
    params = folder_of(tmp_path / "data")
    add(params, "101.dcm", dicom("p101"))
    add(params, "p102", dicom("p102", age="", view=""))
    records = data(params, tmp_path / "cache").records.set_index("id")
    assert records.loc["101.dcm", ["patient", "age", "sex", "view"]].tolist() == ["p101", "61", "F", "AP"]
    assert records.loc["p102", ["patient", "age", "sex", "view"]].tolist() == ["", "", "F", ""]
    assert records.loc["0.png", ["patient", "age", "sex", "view"]].tolist() == [""] * 4


@pytest.mark.parametrize("word", [" ", "unknown"])
def test_a_patient_whom_the_table_calls_unknown_is_that_of_the_header(tmp_path, word):
    pytest.importorskip("pydicom")
    params = folder_of(tmp_path / "data", count=4)
    add(params, "101.dcm", dicom("p101"))
    table = Path(params.data_dir) / "labels.csv"
    pd.read_csv(table).assign(patient_id=word).to_csv(table, index=False)
    assert data(params, tmp_path / "cache").records["patient"].tolist() == [""] * 4 + ["p101"]


def test_each_record_has_the_size_of_its_file_and_image_which_the_audit_uses_as_tags(tmp_path):
    params = folder_of(tmp_path / "data", on_bad_image="skip")
    add(params, "oblong.png", Image.fromarray(image(50)).resize((90, 60)))
    add(params, "text.png", b"<html>")  # is left out, and breaks nothing
    records = data(params, tmp_path / "cache").records
    files = [Path(params.data_dir) / "images" / name for name in records["id"]]
    sizes = [(90, 60) if file.name == "oblong.png" else (64, 64) for file in files]
    assert records["file size"].tolist() == [file.stat().st_size for file in files]
    assert [*zip(records["width"], records["height"], strict=True)] == sizes
    assert set(records[[*SIZES]].dtypes.astype(str)) == {"float64"}
    shown = tags(records)
    assert {"file size", "width", "height", "aspect"} <= shown.keys()
    assert not {f"{name} is known" for name in SIZES} & shown.keys()
    assert dict(zip(records["id"], shown["aspect"], strict=True))["oblong.png"] == 1.5
    records.to_parquet(tmp_path / "scores.parquet")


def test_file_sizes_do_not_change_the_split(tmp_path):
    params = folder_of(tmp_path / "data")
    loaded = data(params, tmp_path / "cache")
    without = replace(loaded, records=loaded.records.drop(columns=[*SIZES]))
    assert loaded.split(params).manifest == without.split(params).manifest


def test_another_seed_reads_the_same_cache(tmp_path):
    params = folder_of(tmp_path / "data")
    for seed in range(3):
        split = data(params.model_copy(update={"seed": seed}), tmp_path / "cache").split(params)
        assert len(split.train)
    assert len(list((tmp_path / "cache").glob("images-*"))) == 1


def test_images_of_a_side_are_in_the_order_of_its_records(tmp_path):
    params = Params(phantom_images=40, image_size=32, widths=[4])
    source = open_source(params, tmp_path)
    loaded = load_data(source, params, tmp_path)
    result = loaded.split(params)
    for name, side in sides(result).items():
        images = getattr(loaded.sides(result), name)
        assert images.shape == (len(side), 32, 32)
        drawn = np.round(source.image(side["id"].iloc[-1]).image * 255).astype(np.uint8)
        np.testing.assert_array_equal(images[-1], Preparation(32).image(drawn))


def test_lesions_are_aligned_with_their_images(tmp_path):
    params = Params(phantom_images=40, image_size=32, widths=[4])
    source = open_source(params, tmp_path)
    masks = load_masks(source, source.records["id"], Preparation(32))
    assert set(masks) == set(source.records["id"][source.records["label"] == "abnormal"])
    assert all((mask.dtype, mask.shape) == (bool, (32, 32)) and mask.any() for mask in masks.values())


def test_to_unit_scales_to_the_unit_interval():
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    images.flags.writeable = False  # as a memory map is
    unit = to_unit(images, torch.device("cpu"))
    assert (unit.dtype, unit.shape) == (torch.float32, (1, 1, 16, 16))
    np.testing.assert_allclose(unit[0, 0].numpy(), images[0] / 255, atol=1e-7)


# Real radiographs


@pytest.fixture(scope="module")
def real(xrays: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Data]:
    """The real images at the smallest size at which near-duplicates are looked for."""
    folder = tmp_path_factory.mktemp("real")
    return lambda name: data(Params(source="folder", data_dir=str(xrays / name), image_size=64, widths=[4]), folder)


def test_real_adults_train_on_all_normals_and_their_separation_is_unverified(real):
    adult = split(real("adult").records)
    assert len(adult.train) + len(adult.validation) == 2_300
    assert len(adult.test) == 392
    assert len(adult.validation) == 345
    assert adult.manifest["test_labels"]["label"] == {"normal": 196, "abnormal": 196}
    strict = adult.manifest["test_labels"]["strict_label"]
    assert {name: strict[name] for name in ("normal", "abnormal", "other_abnormal")} == {
        "normal": 36,
        "abnormal": 64,
        "other_abnormal": 57,
    }
    assert adult.manifest["patient_separation"] == (
        "unverified for 1955 train images without a patient id, 345 validation images without a patient id"
    )


def test_real_pediatric_test_images_share_patients_only_with_abnormal_training_images(real):
    result = split(real("pediatric").records)
    assert result.manifest["patient_separation"] == "verified"
    assert len(result.test) == 177 + 296
    overlap = result.manifest["test_images_sharing_a_patient_or_image_with_the_official_training_side"]
    assert overlap == {"any image": 239, "normal image": 0}
    assert len(result.train) + len(result.validation) == 1_011 + 8
    assert sum(result.manifest["left_out"].values()) == 2_911 + 8


def test_real_radiographs_are_prepared_to_the_full_range(real):
    images = real("adult").images[::100]
    assert (images.max(axis=(1, 2)) > 230).all()
    assert (images.std(axis=(1, 2)) > 30).all()


def test_age_sex_and_view_read_alike_from_a_table_a_header_and_shards(tmp_path):
    """One notation, whatever the route; what cannot be read is named on each."""
    pydicom = pytest.importorskip("pydicom", reason="a header needs the extra `dicom`")
    written = [("058Y", "M", "PA"), ("012M", "F", "AP"), ("414Y", "O", "LL")]
    known = [("58", "M", "PA"), ("1", "F", "AP"), ("", "", "lateral")]
    table, headers = folder_of(tmp_path / "table"), folder_of(tmp_path / "headers")
    for params, columns in ((table, True), (headers, False)):
        rows = pd.read_csv(file := Path(params.data_dir) / "labels.csv", dtype=str)
        for i, row in rows.iterrows():
            age, sex, view = written[i % 3]
            if columns:
                rows.loc[i, ["age", "sex", "view"]] = age, sex, view
                continue
            pixels = np.asarray(Image.open(Path(params.data_dir) / "images" / row["filename"]))
            data_set = pydicom.Dataset()
            data_set.file_meta = pydicom.dataset.FileMetaDataset()
            data_set.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
            data_set.SOPClassUID, data_set.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", f"1.2.{i}"
            data_set.PatientAge, data_set.PatientSex, data_set.ViewPosition = age, sex, view
            data_set.Rows, data_set.Columns = pixels.shape
            data_set.SamplesPerPixel, data_set.PhotometricInterpretation = 1, "MONOCHROME2"
            data_set.BitsAllocated = data_set.BitsStored = 8
            data_set.HighBit, data_set.PixelRepresentation, data_set.PixelData = 7, 0, pixels.tobytes()
            data_set.save_as(Path(params.data_dir) / "images" / row["filename"], enforce_file_format=True)
        rows.to_csv(file, index=False)
    from_table, from_headers = data(table, tmp_path / "cache"), data(headers, tmp_path / "cache")
    shards = tmp_path / "shards"
    source = open_source(table, tmp_path)
    write_shards(source, from_table.records.assign(age="058Y", sex="male", view="pa"), str(shards))
    streamed = data(Params(source="stream", data_dir=str(shards), image_size=32, widths=[4]), tmp_path / "cache")
    for found in (from_table, from_headers):
        rows = found.records[["age", "sex", "view"]].itertuples(index=False, name=None)
        assert list(rows) == [known[i % 3] for i in range(24)]
        problems = found.problems["problem"].str.split(":").str[0].value_counts()
        assert problems["age is not an age of up to 120 years"] == problems["sex is not M or F"] == 8
    assert set(streamed.records[["age", "sex", "view"]].itertuples(index=False, name=None)) == {("58", "M", "PA")}
