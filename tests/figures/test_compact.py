"""Small pictures: a map keeps its values up to its ceiling, and an outline encloses the marked pixels."""

import re
from io import BytesIO

import matplotlib as mpl
import numpy as np
from matplotlib.path import Path
from PIL import Image

from lib.figures.compact import colour_tables, outline, picture, shares


def test_a_grey_level_is_the_values_share_of_the_ceiling():
    np.testing.assert_array_equal(shares(np.array([[0, 0.1, 0.2, 0.9]]), 0.2), [[0, 128, 255, 255]])


def test_a_picture_is_the_image_but_for_little_and_far_smaller():
    y, x = np.mgrid[:128, :128]
    image = (100 + 60 * np.sin(x / 20) + 60 * np.cos(y / 15)).astype(np.uint8)
    content = picture(image, 90)
    with Image.open(BytesIO(content)) as file:
        assert file.format == "WEBP"
        difference = np.asarray(file.convert("L")).astype(int) - image
    assert abs(difference).mean() < 2 and len(content) < image.size / 8


def test_an_outline_encloses_the_marked_pixels_and_no_others_also_at_the_border():
    mask = np.zeros((20, 30), dtype=bool)
    mask[0:5, 0:7] = mask[10:20, 12:15] = True
    paths = [re.findall(r"([-\d.]+),([-\d.]+)", part) for part in outline(mask).split("Z")[:-1]]
    assert len(paths) == 2
    centres = np.stack(np.meshgrid(np.arange(30) + 0.5, np.arange(20) + 0.5), axis=-1).reshape(-1, 2)
    inside = [Path(np.array(points, dtype=float)).contains_points(centres) for points in paths]
    np.testing.assert_array_equal(np.logical_or(*inside).reshape(20, 30), mask)
    assert outline(np.zeros((4, 4), dtype=bool)) == ""


def test_the_colours_are_those_of_the_overlays():
    tables = [np.array(values.split(), dtype=float) for values in colour_tables().values()]
    place = np.linspace(0, 1, 256)
    shown = np.stack([np.interp(place, np.linspace(0, 1, len(table)), table) for table in tables], axis=1)
    assert abs(shown - mpl.colormaps["inferno"](place)[:, :3]).max() < 0.02
