"""Promises of `lib.figures`: what is drawn, that nothing leaks or changes, and what is refused by name."""

import copy
import itertools
from pathlib import Path
from typing import get_args

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from nbclient import NotebookClient

from lib import figures
from lib.params import Params

ROOT = Path(__file__).parents[1]
METHODS = ["unet", "ra", "mean image"]
TEST = pd.DataFrame({"id": [f"image-{i}" for i in range(60)], "label": ["normal"] * 30 + ["abnormal"] * 30})
TEST = TEST.assign(finding=TEST["label"].map({"normal": "", "abnormal": "Edema"}), ra=np.linspace(0, 1, 60))
IMAGES = np.random.default_rng(1).random((5, 1, 16, 16))
MADE = {"unet": IMAGES * 0.9, "ra": IMAGES[:, 0] * 0.5}
for array in (IMAGES, *MADE.values()):
    array.flags.writeable = False  # whoever alters its input fails
HISTORY = [
    {
        "epoch": i,
        "seconds": 2.0,
        "encoder/total": 3 - i,
        "encoder/kl_real": 40.0,
        "decoder/total": 1.0,
        "validation/residual": 1,
    }
    for i in range(4)
]

CASES = np.random.default_rng(2).random((len(TEST), 16, 16))

# Each figure: the function, its arguments, the number of axes (a colour bar counts).
DRAWN = {
    "image_grid": (figures.image_grid, (IMAGES, list("abcde"), 3), 5),
    "reconstructions": (figures.reconstructions, (IMAGES, MADE, list("abcde")), 5 * 5 + 1),
    "loss_curves": (figures.loss_curves, (HISTORY,), 4),
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


def test_a_notebook_shows_a_figure_without_pyplot():
    assert figures.image_grid(IMAGES)._repr_png_()[0].startswith(b"\x89PNG")


def test_a_notebook_that_also_uses_pyplot_still_shows_the_text_that_stands_for_a_figure():
    code = "from lib.figures import Drawing\nimport matplotlib.pyplot as plt\nplt.plot([1])\nfigure = Drawing()\n"
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(f"{code}figure.suptitle('three words');\nfigure")])
    shown = NotebookClient(book, kernel_name="python3", resources={"metadata": {"path": ROOT}}).execute().cells[0]
    [about] = [output.metadata["image/png"] for output in shown.outputs if output.output_type == "execute_result"]
    assert about["alt"] == "three words"


@pytest.mark.parametrize("name", DRAWN)
def test_the_text_that_stands_for_a_figure_holds_every_word_of_its_titles_axes_and_legends(name):
    draw, arguments, _ = DRAWN[name]
    figure = draw(*arguments)
    _, about = figure._repr_png_()
    assert repr(figure) == about["alt"]
    charts = [ax for ax in figure.axes if not ax.images]
    drawn = [ax.get_title() for ax in figure.axes] + [ax.get_xlabel() for ax in charts]
    drawn += [text.get_text() for ax in charts if ax.get_legend() for text in ax.get_legend().get_texts()]
    assert any(drawn)
    assert not [words for words in drawn if " ".join(words.split()) not in about["alt"]]


def test_pictures_without_words_are_named_by_what_the_figure_is_called():
    figure = figures.image_grid(IMAGES)
    figure.set_label("normal")
    assert figure._repr_png_()[1] == {"alt": "5 pictures: normal", "figure": "normal"}


def test_each_method_that_a_run_can_name_has_a_colour_and_a_marker_of_its_own():
    names = get_args(get_args(Params.model_fields["methods"].annotation)[0])
    looks = [figures.look(name) for name in names]
    assert len({to_rgb(colour) for colour, _ in looks}) == len({marker for _, marker in looks}) == len(names)
    assert figures.look("ra, chosen") == figures.look("ra") != figures.look("knn")


def test_all_x_rays_share_one_grey_scale_and_all_residuals_the_printed_limits():
    figure = figures.reconstructions(IMAGES, MADE)
    largest = np.percentile([abs(IMAGES[:, 0] - made.reshape(5, 16, 16)) for made in MADE.values()], 99.5)
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
    figure = figures.reconstructions(IMAGES, MADE)
    residual = figure.axes[2].images[0].get_array()
    assert np.allclose(residual, 0.1 * IMAGES[0, 0])
    assert figure.axes[2].get_xlabel() == f"mean {0.1 * IMAGES[0].mean():.3f}"


def test_bytes_and_unit_floats_draw_the_same_picture():
    greys = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    drawn = [figures.image_grid(images).axes[0].images[0].get_array() for images in (greys, greys / 255)]
    assert np.array_equal(*drawn)


def test_losses_are_drawn_by_part_over_the_epochs():
    decoder, encoder, kl, validation = figures.loss_curves(HISTORY).axes
    assert [line.get_label() for line in encoder.lines] == ["total"]
    assert [line.get_label() for line in kl.lines] == ["kl_real"]
    assert list(encoder.lines[0].get_xdata()) == [0, 1, 2, 3] and list(encoder.lines[0].get_ydata()) == [3, 2, 1, 0]
    assert decoder.get_title() == "decoder: total 1 → 1" and validation.get_title().startswith("validation: residual")


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
        (lambda: figures.loss_curves([]), "history has no row"),
        (lambda: figures.loss_curves([{"epoch": 0, "loss": 1}]), r"history has \['epoch', 'loss'\]"),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


def test_of_many_methods_the_cases_show_one_and_the_first_two_others_so_that_a_report_grows_with_their_number():
    made = dict.fromkeys(["unet", "ra", "vae", "ae-4"], CASES)
    test = TEST.assign(**{name: TEST["ra"] for name in made})
    for method, shown in (("ae-4", "unet, ra, ae-4"), ("ra", "unet, ra, vae")):
        drawn = figures.cases(CASES, made, test, method, "label", {})
        titles = [ax.get_title() for ax in drawn.axes]
        assert ", ".join(name for name in titles if name in made) == shown
