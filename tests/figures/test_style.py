"""Promises of `lib.figures.style`: a figure says in words what it shows, a method looks the same everywhere."""

import importlib
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import nbformat
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from nbclient import NotebookClient
from PIL import Image

from lib.figures import style
from lib.figures.charts import loss_curves
from lib.figures.images import image_grid, reconstructions
from lib.figures.style import LOOKS, Drawing, look, panels

ROOT = Path(__file__).parents[2]


def test_a_notebook_shows_a_figure_without_pyplot():
    assert image_grid(np.zeros((5, 8, 8)))._repr_png_()[0].startswith(b"\x89PNG")


@pytest.mark.parametrize("text", [r"$\frac{$", "Mass $^$ edema", r"$\nothing$"])
@pytest.mark.parametrize("kind", ["png", "svg"])
def test_a_finding_whose_formula_is_broken_stands_in_the_figure_as_it_is_written(tmp_path, text, kind):
    figure, (ax,) = panels(1, 2)
    ax.set(title=text, xscale="log", xlim=(1, 100), yticks=[0], yticklabels=[text])
    with (tmp_path / "figure").open("wb") as file, matplotlib.rc_context({"svg.fonttype": "none"}):
        figure.savefig(file, format=kind)
    if kind == "svg":
        svg = ElementTree.parse(tmp_path / "figure")
        words = [node.text for node in svg.iter("{http://www.w3.org/2000/svg}text")]
        assert words.count(text) == 2 and "$" not in "".join(words).replace(text, "")
    else:
        with Image.open(tmp_path / "figure") as image:
            assert image.size[0] > 100


def test_a_figure_does_not_depend_on_a_users_matplotlibrc():
    before = panels(1, 2)[0]._repr_png_()[0]
    with matplotlib.rc_context({"text.usetex": True, "font.size": 30, "axes.facecolor": "red"}):
        importlib.reload(style)
        ax = style.panels(1, 2)[0]
        assert ax._repr_png_()[0] == before


def test_a_notebook_that_also_uses_pyplot_still_shows_the_text_that_stands_for_a_figure():
    code = "from lib.figures.style import Drawing\nimport matplotlib.pyplot as plt\nplt.plot([1])\nfigure = Drawing()\n"
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(f"{code}figure.suptitle('three words');\nfigure")])
    shown = NotebookClient(book, kernel_name="python3", resources={"metadata": {"path": ROOT}}).execute().cells[0]
    [about] = [output.metadata["image/png"] for output in shown.outputs if output.output_type == "execute_result"]
    assert about["alt"] == "three words"


def picture() -> Figure:
    """Two images and a residual, with titles and the name of a row."""
    images = np.random.default_rng(1).random((1, 8, 8))
    return reconstructions(images, {"ra": images * 0.5}, ["a case"])


def chart() -> Figure:
    """Two panels, with titles, axes and legends."""
    return loss_curves([{"epoch": i, "encoder/total": 3 - i, "decoder/total": 1.0} for i in range(3)])


def legend() -> Figure:
    """A legend of the figure's own."""
    figure = Drawing()
    figure.subplots().plot([0, 1], label="a line")
    figure.suptitle("a title")
    figure.legend()
    return figure


@pytest.mark.parametrize("draw", [picture, chart, legend])
def test_the_text_that_stands_for_a_figure_holds_every_word_of_its_titles_axes_and_legends(draw):
    figure = draw()
    _, about = figure._repr_png_()
    assert repr(figure) == about["alt"]
    charts = [ax for ax in figure.axes if not ax.images]
    words = [figure.get_suptitle()] + [ax.get_title() for ax in figure.axes] + [ax.get_xlabel() for ax in charts]
    legends = [ax.get_legend() for ax in charts if ax.get_legend()] + figure.legends
    words += [text.get_text() for legend in legends for text in legend.get_texts()]
    assert any(words)
    assert not [text for text in words if " ".join(text.split()) not in about["alt"]]


def test_pictures_without_words_are_named_by_what_the_figure_is_called():
    figure = image_grid(np.zeros((5, 8, 8)))
    figure.set_label("normal")
    assert figure._repr_png_()[1] == {"alt": "5 pictures: normal", "figure": "normal"}


def test_no_two_methods_with_a_look_share_its_colour_or_its_marker_and_all_others_have_one_look():
    looks = [look(name) for name in LOOKS]
    assert len({to_rgb(colour) for colour, _ in looks}) == len({marker for _, marker in looks}) == len(LOOKS)
    assert look("ra, chosen") == look("ra") != look("knn") == look("a new method")


def test_panels_are_as_many_as_asked_in_rows_as_equal_as_can_be():
    figure, grid = panels(7, 2.0, most=5)
    assert len(grid) == len(figure.axes) == 7
    rows = [ax.get_subplotspec().rowspan.start for ax in grid]
    assert rows == [0, 0, 0, 0, 1, 1, 1]
    assert (figure.get_figwidth(), figure.get_figheight()) == (10, 4)
