"""Promises of `lib.figures.networks`: what was counted is drawn, and what was copied is given in whole percent."""

import numpy as np

from lib.figures.networks import carried_numbers, copied_text, skips_cut


def test_networks_with_the_same_numbers_share_a_curve_and_the_title_names_the_narrow_ones():
    figure = carried_numbers({"ra": [64, 4, 64], "si-vae": [64, 4, 64], "unet": [64, 256, 128]}, 64)
    [ax] = figure.axes
    curves = [list(line.get_ydata()) for line in ax.lines]
    assert curves[:2] == [[64, 4, 64], [64, 256, 128]]
    assert ax.get_title() == "Narrower than the image's 64 pixels: ra, si-vae (4)"


def test_a_run_that_trains_nothing_has_an_empty_figure():
    assert carried_numbers({}, 64).axes[0].get_title().endswith("none")


def test_the_image_stands_before_its_reconstructions_each_under_its_cut():
    image, halved = np.full((8, 8), 0.5), np.full((8, 8), 0.25)
    figure = skips_cut("unet", image, {"all skips": image, "none": halved}, {"all skips": 0.0, "none": 0.25})
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == ["unet: input", "all skips\nsquare off by 0.00", "none\nsquare off by 0.25"]
    np.testing.assert_array_equal(figure.axes[2].images[0].get_array(), halved)


def test_shares_are_said_in_whole_percents():
    text = copied_text({"unet": {"square": 0.994, "shuffle": -0.001}}, {"unet": 0.0123})
    assert text == (
        "- *unet* copies 99 % of a square and 0 % of a shuffled patch; its mean residual on new normal images is 0.012."
    )
