"""Promises of `lib.figures.images`: what is drawn, that nothing leaks or changes, and what is refused by name."""

import copy
import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from lib.figures import images as figures

TEST = pd.DataFrame({"id": [f"image-{i}" for i in range(60)], "label": ["normal"] * 30 + ["abnormal"] * 30})
TEST = TEST.assign(finding=TEST["label"].map({"normal": "", "abnormal": "Edema"}), ra=np.linspace(0, 1, 60))
IMAGES = np.random.default_rng(1).random((5, 1, 16, 16))
OUTPUTS = {"unet": IMAGES * 0.9, "ra": IMAGES[:, 0] * 0.5}
for array in (IMAGES, *OUTPUTS.values()):
    array.flags.writeable = False  # whoever alters its input fails
CASES = np.random.default_rng(2).random((len(TEST), 16, 16))

# Each figure: the function, its arguments, the number of axes (a colour bar counts).
DRAWN = {
    "image_grid": (figures.image_grid, (IMAGES, list("abcde"), 3), 5),
    "reconstructions": (figures.reconstructions, (IMAGES, OUTPUTS, list("abcde")), 5 * 5 + 1),
    "over_training": (figures.over_training, (CASES, {2: CASES * 0.5, 40: CASES}, TEST, "ra", "label"), 4 * 3),
    "cases": (figures.cases, (CASES, {"ra": CASES}, TEST, "ra", "label", {TEST["id"][0]: CASES[0] > 0.5}), 8 * 3 + 1),
}


def texts(figure: Figure) -> str:
    """All words of a figure."""
    return "\n".join(text.get_text() for text in figure.findobj(lambda one: hasattr(one, "get_text")))


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_has_its_panels_fits_a_notebook_and_changes_nothing(name):
    draw, arguments, axes = DRAWN[name]
    before = copy.deepcopy(arguments)
    figure = draw(*arguments)
    figure.draw_without_rendering()
    assert isinstance(figure, Figure)
    assert len(figure.axes) == axes
    assert figure.get_figwidth() <= 10
    assert plt.get_fignums() == []
    for was, now in zip(before, arguments, strict=True):
        assert now.equals(was) if isinstance(now, pd.DataFrame) else repr(now) == repr(was)


@pytest.mark.parametrize("name", DRAWN)
def test_no_words_are_cut_off_at_the_edge(name):
    draw, arguments, _ = DRAWN[name]
    figure = draw(*arguments)
    figure.draw_without_rendering()
    drawn = figure.get_tightbbox().padded(-0.02)  # inches
    assert drawn.x0 >= 0 and drawn.y0 >= 0
    assert drawn.x1 <= figure.get_figwidth() and drawn.y1 <= figure.get_figheight()


def test_all_x_rays_share_one_grey_scale_and_all_residuals_the_printed_limits():
    figure = figures.reconstructions(IMAGES, OUTPUTS)
    largest = np.percentile([abs(IMAGES[:, 0] - output.reshape(5, 16, 16)) for output in OUTPUTS.values()], 99.5)
    limits = {"gray": set(), "magma": set()}
    for ax in figure.axes[:-1]:
        picture = ax.images[0]
        limits[picture.get_cmap().name].add(picture.get_clim())
    assert limits == {"gray": {(0, 1)}, "magma": {(0, largest)}}
    assert f"0 to {largest:.2g}" in texts(figure)


def test_a_long_title_breaks_before_it_reaches_the_next_picture():
    figure = figures.image_grid(np.zeros((8, 4, 4)), ["bacterial pneumonia"] * 8)
    figure.draw_without_rendering()
    boxes = [ax.title.get_window_extent() for ax in figure.axes]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


def test_a_residual_is_the_absolute_difference_and_its_mean_is_written_below():
    figure = figures.reconstructions(IMAGES, OUTPUTS)
    residual = figure.axes[2].images[0].get_array()
    assert np.allclose(residual, 0.1 * IMAGES[0, 0])
    assert figure.axes[2].get_xlabel() == f"mean {0.1 * IMAGES[0].mean():.3f}"


def test_bytes_and_unit_floats_draw_the_same_picture():
    greys = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    drawn = [figures.image_grid(images).axes[0].images[0].get_array() for images in (greys, greys / 255)]
    assert np.array_equal(*drawn)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: figures.image_grid(np.zeros((2, 3, 8, 8))), r"images has shape \(2, 3, 8, 8\), expected \(n, H, W\)"),
        (lambda: figures.image_grid(np.zeros((0, 8, 8))), r"images has shape \(0, 8, 8\)"),
        (lambda: figures.image_grid(np.full((1, 8, 8), 255.0)), r"images lies in \[255.0, 255.0\], expected \[0, 1\]"),
        (lambda: figures.image_grid(np.full((1, 8, 8), np.nan)), "images lies in"),
        (lambda: figures.image_grid(IMAGES, ["one"]), "1 titles for 5 images"),
        (
            lambda: figures.reconstructions(IMAGES, {"ra": IMAGES[:3]}),
            r"reconstructions\['ra'\] has shape \(3, 16, 16\)",
        ),
        (lambda: figures.reconstructions(IMAGES, {}), "reconstructions is empty"),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


def test_of_many_methods_the_cases_show_one_and_the_first_two_others_so_that_a_report_grows_with_their_number():
    outputs = dict.fromkeys(["unet", "ra", "vae", "ae-4"], CASES)
    test = TEST.assign(**{name: TEST["ra"] for name in outputs})
    for method, shown in (("ae-4", "unet, ra, ae-4"), ("ra", "unet, ra, vae")):
        drawn = figures.cases(CASES, outputs, test, method, "label", {})
        titles = [ax.get_title() for ax in drawn.axes]
        assert ", ".join(name for name in titles if name in outputs) == shown


def test_training_is_shown_on_images_of_either_kind_at_the_quarters_of_the_scores():
    figure = figures.over_training(CASES, {2: CASES * 0.5, 40: CASES}, TEST, "ra", "label")
    shown = [ax.images[0].get_array() for ax in figure.axes]
    for row, i in enumerate((7, 22, 37, 52)):
        for picture, right in zip(shown[3 * row :], (CASES[i], CASES[i] * 0.5, CASES[i]), strict=False):
            np.testing.assert_allclose(picture, right)
    titles = [ax.get_title() for ax in figure.axes]
    assert titles[:3] == ["normal", "2 epochs", "40 epochs"] and titles[6] == "Edema"
