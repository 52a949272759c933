"""Promises of `lib.figures.game`: pictures stand where their titles say, curves are the history's."""

import numpy as np
import pytest

from lib.figures.game import embedding_levels, players, variational

ROWS = [
    {"epoch": 0, "encoder/kl_real": 3.0, "decoder/reconstruction": 0.4},
    {
        "epoch": 1,
        "encoder/kl_real": 2.0,
        "encoder/kl_sample": 9.0,
        "decoder/reconstruction": 0.2,
        "encoder/rejection": 0.1,
    },
]
KL = {"real": np.array([3.0, 1.0, 2.0]), "reconstruction": np.array([4.0]), "sample": np.array([8.0, 9.0])}
MEDIANS = {"real": 2.0, "reconstruction": 4.0, "sample": 8.5}


def test_each_image_has_a_row_and_each_kind_of_picture_a_column():
    columns = {
        "image x": np.stack([np.full((1, 4, 4), value) for value in (0.1, 0.2)]),
        "D(μ)": np.full((3, 1, 4, 4), 2),
    }
    figure = variational(columns, {"D(μ)": "L 7"})
    assert [ax.get_title() for ax in figure.axes] == ["image x", "D(μ)", "", "L 7"]
    shown = [float(ax.images[0].get_array().mean()) for ax in figure.axes]
    assert shown == pytest.approx([0.1, 1, 0.2, 1])  # what is brighter than white is white


def test_the_players_curves_are_those_of_the_history_and_of_the_new_images():
    figure = players("ra", ROWS, KL, MEDIANS, 0.25, 89.0)
    left, middle, right = figure.axes
    assert list(left.lines[0].get_ydata()) == [3.0, 2.0]
    assert [list(line.get_xdata()) for line in middle.lines] == [[1, 2, 3], [4], [8, 9]]
    assert list(right.lines[0].get_ydata()) == [0.4, 0.2]
    assert 89.0 in left.lines[-1].get_ydata()
    words = "median KL of real images 2 nats, of their reconstructions 4, of samples 8; mean exp(…) of the samples 0.25"
    assert words in figure.get_suptitle()


def test_a_method_without_a_game_has_its_curves_too():
    figure = players("vae", ROWS[:1], KL, MEDIANS, 1.0, 89.0)
    assert [line.get_label() for line in figure.axes[2].lines] == ["reconstruction error"]


def test_a_level_is_enlarged_to_the_image_and_drawn_up_to_its_maximum():
    disagreement = np.array([[0.0, 0.1], [0.2, 0.4]])
    figure = embedding_levels(np.zeros((4, 4)), np.ones((4, 4)), [1.5], [disagreement])
    picture = figure.axes[2].images[0].get_array()
    np.testing.assert_allclose(picture[::2, ::2], disagreement / 0.4)
    np.testing.assert_array_equal(picture[::2], picture[1::2])
    assert figure.axes[2].get_title() == "level 1: 1.50\n2 px"
