"""Promises of `lib.dataset`: nobody on two sides, only normals in training, and images prepared alike."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from lib.dataset import (
    Split,
    SplitError,
    is_normal,
    load_images,
    load_masks,
    load_sides,
    prepare,
    split_records,
    to_unit,
)
from lib.sources import FolderSource, PhantomSource

FRACTION = 0.15


def records(count: int, **columns) -> pd.DataFrame:
    """Normal images, each of a patient and a file of its own, but for what `columns` say."""
    names = [f"image-{i:04d}" for i in range(count)]
    table = {"id": names, "label": "normal", "finding": "", "split": "", "patient": names, "digest": names}
    return pd.DataFrame(table | columns)


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
    """Unknown and shared patients, duplicated files, several kinds of label: what real tables hold."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(120, 240))
    table = records(
        n,
        label=rng.choice(["normal", "abnormal", "other", ""], n, p=[0.75, 0.15, 0.05, 0.05]),
        patient=[f"p{p}" if p % 3 else "" for p in rng.integers(0, n, n)],
        digest=[f"d{d}" for d in rng.integers(0, 4 * n, n)],
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
def test_no_patient_and_no_file_is_on_two_sides_and_only_normals_train(seed, with_split):
    table = random_table(seed, with_split)
    result = split(table, seed=seed)
    for column in ("id", "patient", "digest"):
        assert not share(result.train, result.validation, column)
        assert not share(result.train, result.test, column)
        assert not share(result.validation, result.test, column)
    for side in (result.train, result.validation):
        given = side[[c for c in ("label", "strict_label") if c in side]].to_numpy()
        assert set(given.ravel()) <= {"normal", ""}
        assert (given == "normal").any(axis=1).all()
    on_a_side = pd.concat(sides(result).values())["id"]
    assert on_a_side.is_unique
    assert len(on_a_side) + sum(result.manifest["left_out"].values()) == len(table)
    if not with_split:
        assert set(on_a_side) == set(table["id"])
    else:
        assert result.test.equals(table[table["split"] == "test"].reset_index(drop=True))


@pytest.mark.parametrize("with_split", [False, True])
def test_what_is_linked_only_through_others_stays_together(with_split):
    """Image 0 and 1 share a patient, 1 and 2 a file, 2 and 3 a patient again, and so on: one chain of forty."""
    table = official() if with_split else quarter()
    patient = [f"p{i // 2}" if i < 40 else f"own-{i}" for i in range(80)]
    digest = [f"d{(i + 1) // 2}" if i < 40 else f"own-{i}" for i in range(80)]
    table = table.assign(patient=patient, digest=digest)
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
                ),
            ]
        )
        table.loc[table["id"] == "image-0060", "digest"] = "d20"
        result = split(table)
        assert not chain & (set(result.train["id"]) | set(result.validation["id"]))
        assert result.manifest["left_out"]["shares a patient or a file with the official test side"] == 30
    else:
        result = split(table)
        assert chain <= set(result.test["id"])  # ten of them are abnormal


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


def test_training_images_that_share_a_patient_or_a_file_with_the_official_test_are_left_out_and_counted():
    table = official()
    table.loc[0, "patient"] = table.loc[1, "patient"] = "image-0079"  # of the test side
    table.loc[2, "digest"] = "image-0078"
    table.loc[3, "patient"] = "image-0077"  # abnormal: left out for that reason
    result = split(table)
    assert result.manifest["left_out"] == {
        "shares a patient or a file with the official test side": 3,
        "abnormal or unlabelled image of the official training or validation side": 12,
    }
    assert not set(table["id"][:4]) & (set(result.train["id"]) | set(result.validation["id"]))
    overlap = result.manifest["test_images_sharing_a_patient_or_file_with_the_official_training_side"]
    assert overlap == {"any image": 3, "normal image": 2}


def test_the_normals_of_an_official_validation_side_validate_and_are_filled_up_to_the_fraction():
    table = official()
    theirs = set(table["id"][(table["split"] == "val") & (table["label"] == "normal")])
    few, many = split(table, fraction=0.05), split(table, fraction=0.4)
    assert set(few.validation["id"]) == theirs
    assert theirs < set(many.validation["id"])
    assert len(many.validation) == np.ceil(0.4 * (len(many.train) + len(many.validation)))


def test_whoever_shares_a_patient_with_official_validation_validates_too():
    table = official()
    table.loc[0, "patient"] = "image-0040"  # of the validation side
    result = split(table, fraction=0.05)
    assert "image-0000" in set(result.validation["id"])


def test_a_word_that_is_no_split_is_left_out_and_counted():
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


def test_images_without_a_patient_are_not_taken_for_one_patient():
    result = split(quarter(patient=""))
    assert all(len(side) > 5 for side in sides(result).values())


def test_the_same_seed_gives_the_same_split_and_another_another():
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


def test_the_manifest_says_who_is_where_and_can_be_written_as_json():
    result = split(official())
    manifest = json.loads(json.dumps(result.manifest, allow_nan=False))
    assert manifest == result.manifest
    assert manifest["sides"] == {name: side["id"].tolist() for name, side in sides(result).items()}
    assert manifest["images"] == {name: len(side) for name, side in sides(result).items()}
    assert manifest["official_split"]
    assert manifest["test_labels"] == {"label": result.test["label"].value_counts().to_dict()}


def test_the_callers_table_is_left_as_it_was():
    table = official().set_index(pd.Index(range(100, 180)))
    before = table.copy()
    split(table)
    pd.testing.assert_frame_equal(table, before)


def test_a_normal_label_is_not_believed_against_a_stricter_one():
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
def test_normal_is_what_every_given_label_calls_normal(label, strict, expected):
    assert is_normal(pd.DataFrame({"label": [label], "strict_label": [strict]})).tolist() == [expected]


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


def test_labels_in_other_words_are_shown_when_no_normal_is_found():
    with pytest.raises(SplitError, match="Normal"):
        split(quarter().replace("normal", "Normal"))


@pytest.mark.parametrize("word", ["Test", "TEST", "testing"])
def test_an_official_split_in_other_words_is_not_ignored(word):
    table = official().replace("test", word)
    with pytest.raises(SplitError, match=word):
        split(table)


# Images


def stretched(image: np.ndarray) -> np.ndarray:
    """The definition, written down once more: percentile 1 is 0, percentile 99 is 1."""
    ordered = np.sort(image.ravel()).astype(float)

    def percentile(q: float) -> float:
        place = q / 100 * (len(ordered) - 1)
        below, above = ordered[int(np.floor(place))], ordered[int(np.ceil(place))]
        return below + (place - np.floor(place)) * (above - below)

    low, high = percentile(1), percentile(99)
    return np.clip((image - low) / (high - low), 0, 1)


def test_a_square_image_of_the_right_size_is_only_stretched():
    image = np.random.default_rng(0).integers(60, 180, (32, 32), dtype=np.uint8)
    made = prepare(image, 32)
    assert (made.dtype, made.shape) == (np.uint8, (32, 32))
    np.testing.assert_allclose(made, stretched(image) * 255, atol=0.501)
    assert (made.min(), made.max()) == (0, 255)


@pytest.mark.parametrize("grey", [0, 7, 255])
def test_an_image_of_one_grey_becomes_black(grey):
    assert not prepare(np.full((20, 30), grey, dtype=np.uint8), 16).any()


def test_a_linear_change_of_contrast_by_the_source_does_not_matter():
    image = np.random.default_rng(0).integers(0, 100, (32, 32), dtype=np.uint8)
    assert np.abs(prepare(image, 16).astype(int) - prepare(image * 2 + 30, 16)).max() <= 1


@pytest.mark.parametrize("shape", [(24, 16), (16, 24)])
def test_an_oblong_image_stands_in_the_middle_between_black_bands(shape):
    image = np.full(shape, 200, dtype=np.uint8)
    image[::2] = 100
    made = prepare(image, 24)
    inside = np.zeros((24, 24), dtype=bool)
    inside[(24 - shape[0]) // 2 :, (24 - shape[1]) // 2 :][: shape[0], : shape[1]] = True
    assert not made[~inside].any()
    np.testing.assert_array_equal(made[inside].reshape(shape), np.where(image == 200, 255, 0))


def test_halving_the_size_averages_and_keeps_the_mean():
    image = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    assert abs(prepare(image, 32).mean() - prepare(image, 64).mean()) < 1
    fine = np.indices((64, 64)).sum(axis=0) % 2 * 255  # a checkerboard has no right to survive
    assert prepare(fine.astype(np.uint8), 32)[4:-4, 4:-4].std() < 8


class Listed:
    """A source in memory that counts how often it is read."""

    synthetic = True

    def __init__(self, images: dict[str, np.ndarray], masks: dict[str, np.ndarray] | None = None) -> None:
        self.name, self.images, self.masks, self.reads = "listed", images, masks or {}, 0

    def read(self, image_id: str) -> np.ndarray:
        self.reads += 1
        return self.images[image_id]

    def mask(self, image_id: str) -> np.ndarray | None:
        return self.masks.get(image_id)


@pytest.fixture
def listed() -> Listed:
    rng = np.random.default_rng(0)
    return Listed({f"i{i}": rng.integers(0, 256, (20 + i, 30), dtype=np.uint8) for i in range(5)})


def test_cached_images_equal_prepared_ones_and_are_made_once(listed, tmp_path):
    ids = ["i3", "i0", "i4"]
    first, second = load_images(listed, ids, 16, tmp_path), load_images(listed, ids, 16, tmp_path)
    assert listed.reads == 3
    for made in (first, second):
        assert isinstance(made, np.memmap)
        np.testing.assert_array_equal(made, [prepare(listed.images[i], 16) for i in ids])
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 0


def test_other_images_sizes_orders_and_sources_have_other_files(listed, tmp_path):
    for name, ids, size in [
        ("a", ["i0", "i1"], 16),
        ("a", ["i0", "i1"], 8),
        ("a", ["i1", "i0"], 16),
        ("b", ["i0", "i1"], 16),
    ]:
        listed.name = name
        made = load_images(listed, ids, size, tmp_path)
        np.testing.assert_array_equal(made, [prepare(listed.images[i], size) for i in ids])
    assert len(list(tmp_path.iterdir())) == 4


def test_an_interrupted_preparation_leaves_no_file(listed, tmp_path):
    with pytest.raises(KeyError):
        load_images(listed, ["i0", "absent"], 16, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_sides_images_are_in_the_order_of_their_records(tmp_path, monkeypatch):
    monkeypatch.setenv("IMGAE_DX_CACHE", str(tmp_path))
    source = PhantomSource(40, 32)
    result = split(source.records)
    images = load_sides(source, result, 32)
    for name, side in sides(result).items():
        made = getattr(images, name)
        assert made.shape == (len(side), 32, 32)
        np.testing.assert_array_equal(made[-1], prepare(source.read(side["id"].iloc[-1]), 32))
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (48, 48)])
def test_a_white_square_and_its_mask_are_placed_alike(shape):
    lesion = np.zeros(shape, dtype=bool)
    lesion[8:20, 10:30] = True
    source = Listed({"a": lesion * np.uint8(255), "b": lesion * np.uint8(0)}, {"a": lesion})
    masks = load_masks(source, ["a", "b"], 24)
    assert list(masks) == ["a"]
    assert (masks["a"].dtype, masks["a"].shape) == (bool, (24, 24))
    np.testing.assert_array_equal(masks["a"], prepare(source.images["a"], 24) > 127)
    assert masks["a"].mean() == pytest.approx(lesion.sum() / max(shape) ** 2, rel=0.15)


def test_the_network_sees_the_unit_interval():
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    images.flags.writeable = False  # as a memory map is
    unit = to_unit(images, torch.device("cpu"))
    assert (unit.dtype, unit.shape) == (torch.float32, (1, 1, 16, 16))
    np.testing.assert_allclose(unit[0, 0].numpy(), images[0] / 255, atol=1e-7)


# Real radiographs


@pytest.fixture(scope="module")
def adult(xrays: Path) -> Split:
    return split(FolderSource(xrays / "adult").records)


def test_real_adults_train_on_all_normals_and_their_separation_is_unverified(adult):
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


def test_real_children_of_the_test_share_patients_with_abnormal_training_images_only(xrays):
    result = split(FolderSource(xrays / "pediatric").records)
    assert result.manifest["patient_separation"] == "verified"
    assert len(result.test) == 177 + 296
    overlap = result.manifest["test_images_sharing_a_patient_or_file_with_the_official_training_side"]
    assert overlap == {"any image": 239, "normal image": 0}
    assert len(result.train) + len(result.validation) == 1_011 + 8
    assert sum(result.manifest["left_out"].values()) == 2_911 + 8


def test_real_radiographs_are_prepared_to_the_full_range(xrays, tmp_path):
    source = FolderSource(xrays / "adult")
    made = load_images(source, source.records["id"][::300].tolist(), 64, tmp_path)
    assert made.shape == (9, 64, 64)
    assert (made.max(axis=(1, 2)) > 230).all()
    assert (made.std(axis=(1, 2)) > 30).all()
