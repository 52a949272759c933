"""Near-duplicates: the pairs are those that a correlation of every pair finds."""

from io import BytesIO

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageDraw
from torch.nn.functional import interpolate

import lib.data.duplicates
from lib.data.duplicates import near_duplicates
from lib.data.phantom import radiograph


def image(patient: int, exposure: int = 0, size: int = 64) -> np.ndarray:
    return np.round(radiograph(patient, exposure, size=size).image * 255).astype(np.uint8)


def different_images(count: int, size: int = 64) -> np.ndarray:
    return np.stack([image(patient, size=size) for patient in range(count)])


def reencoded(image: np.ndarray) -> np.ndarray:
    file = BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=30)
    return np.asarray(Image.open(file))


def darker(image: np.ndarray) -> np.ndarray:
    return np.round(image * 0.6).astype(np.uint8)


def resized(image: np.ndarray) -> np.ndarray:
    height, width = image.shape
    return np.asarray(Image.fromarray(image).resize((width // 2, height // 2)).resize((width, height)))


def cropped(image: np.ndarray) -> np.ndarray:
    height, width = image.shape
    return np.asarray(Image.fromarray(image[1:, 1:]).resize((width, height)))


def marked(image: np.ndarray) -> np.ndarray:
    written = Image.fromarray(image)
    ImageDraw.Draw(written).text((3, 3), "L", fill=255)
    return np.asarray(written)


ALTERATIONS = [reencoded, darker, resized, cropped, marked]


def correlated(images: np.ndarray) -> list[list[int]]:
    """The pairs above 0.99 of all pairs, by NumPy's own correlation."""
    with np.errstate(invalid="ignore", divide="ignore"):  # a constant image has none: NaN, and not above
        correlation = np.corrcoef(images.reshape(len(images), -1))
    return np.argwhere(np.triu(correlation > 0.99, 1)).tolist()


@pytest.mark.parametrize("alter", ALTERATIONS)
def test_an_altered_copy_is_found_and_nothing_else(alter):
    images = different_images(12, size=128)
    copies = np.stack([alter(image) for image in images[:6]])
    assert near_duplicates(np.concatenate([images, copies])).tolist() == [[i, 12 + i] for i in range(6)]


def test_the_pairs_are_those_of_all_pairs_that_correlate():
    rng = np.random.default_rng(0)
    originals = different_images(150, size=32)  # small ones: some patients look alike by themselves
    strength = rng.uniform(0, 20, (150, 1, 1))  # the copies' correlations lie on both sides of 0.99
    noisy = np.clip(originals + strength * rng.standard_normal(originals.shape), 0, 255).astype(np.uint8)
    images = rng.permutation(np.concatenate([originals, noisy, rng.integers(0, 256, originals.shape, dtype=np.uint8)]))
    expected = correlated(images)
    assert 50 < len(expected) < 150
    assert near_duplicates(images).tolist() == expected


def test_images_of_one_patient_are_not_pairs():
    images = np.stack([image(patient, exposure) for patient in range(5) for exposure in range(4)])
    assert len(near_duplicates(images)) == 0


def test_images_are_compared_at_64_pixels_without_aliasing():
    originals = different_images(4, size=192)
    fine = (np.indices((192, 192)).sum(axis=0) % 2 * 60).astype(np.uint8)  # a checkerboard that 64 pixels do not show
    images = np.concatenate([originals // 2, originals // 2 + fine])
    shrunk = interpolate(torch.from_numpy(images)[:, None].float(), size=(64, 64), mode="bilinear", antialias=True)
    assert correlated(images) == []
    assert near_duplicates(images).tolist() == correlated(shrunk.numpy()) == [[i, 4 + i] for i in range(4)]


def test_the_size_of_the_blocks_does_not_change_the_pairs(monkeypatch):
    originals = different_images(10)
    images = np.concatenate([originals, originals[::-1], originals[:3]])
    whole = near_duplicates(images)
    monkeypatch.setattr(lib.data.duplicates, "ROWS", 3)
    np.testing.assert_array_equal(near_duplicates(images), whole)
    assert whole.tolist() == correlated(images)


def test_many_equal_images_are_all_paired():
    images = np.repeat(different_images(1, size=32), 300, axis=0)
    np.testing.assert_array_equal(near_duplicates(images), np.argwhere(np.triu(np.ones((300, 300)), 1)))


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_images_have_no_pairs(count):
    pairs = near_duplicates(np.full((count, 64, 64), 7, dtype=np.uint8))
    assert (pairs.shape, pairs.dtype.kind) == ((0, 2), "i")


def test_a_constant_image_has_no_duplicate():
    blank = np.full((3, 64, 64), 200, dtype=np.uint8)
    images = different_images(3)
    assert near_duplicates(np.concatenate([blank, images, images[:1], blank * 0])).tolist() == [[3, 6]]


def test_a_memory_map_is_read_by_slices_and_every_row_once(tmp_path):
    images = different_images(150, size=128)
    np.save(tmp_path / "images.npy", images)

    class Slices:
        """What the images must offer, and which rows were asked for."""

        shape = images.shape
        rows: tuple[int, ...] = ()
        stored = np.load(tmp_path / "images.npy", mmap_mode="r")

        def __len__(self) -> int:
            return len(self.stored)

        def __getitem__(self, rows: slice) -> np.ndarray:
            self.rows += tuple(range(*rows.indices(len(self))))
            return self.stored[rows]

    slices = Slices()
    np.testing.assert_array_equal(near_duplicates(slices), near_duplicates(images))
    assert slices.rows == tuple(range(150))


@pytest.mark.parametrize(
    ("shape", "kind"),
    [((2, 64, 32), np.uint8), ((2, 8, 8), np.uint8), ((2, 64, 64), np.float32), ((2, 64, 64, 3), np.uint8)],
)
def test_images_that_were_not_prepared_are_refused(shape, kind):
    with pytest.raises(ValueError, match=r"expected prepared ones, uint8 \(n, s, s\), s at least 9") as error:
        near_duplicates(np.zeros(shape, dtype=kind))
    assert f"images are {np.dtype(kind)} {shape}" in str(error.value)


@pytest.mark.parametrize("population", ["adult", "pediatric"])
def test_of_real_images_only_the_altered_copies_are_found(xrays, population):
    names = pd.read_csv(xrays / population / "labels.csv")["filename"][:200]
    images = [Image.open(xrays / population / "images" / name).convert("L").resize((128, 128)) for name in names]
    images = np.stack([np.asarray(image) for image in images])
    copies = np.stack([reencoded(darker(image)) for image in images[::5]])
    expected = [[5 * i, 200 + i] for i in range(40)]
    assert near_duplicates(np.concatenate([images, copies])).tolist() == expected
