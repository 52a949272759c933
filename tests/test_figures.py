"""Promises of `lib.figures`: what is drawn, that nothing leaks or changes, and what is refused by name."""

import copy

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from lib import figures
from lib.evaluation import evaluate_scores

METHODS = ["unet", "ra", "mean image"]


def scores() -> pd.DataFrame:
    """30 validation normals, 30 test normals, 30 abnormal images of which 5 have a hernia."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "id": [f"image-{i}" for i in range(90)],
            "side": ["validation"] * 30 + ["test"] * 60,
            "patient": [f"patient-{i}" for i in range(90)],
            "label": ["normal"] * 60 + ["abnormal"] * 30,
            "finding": [""] * 60 + ["Edema"] * 25 + ["Hernia"] * 5,
        }
    )
    for shift, method in enumerate(METHODS):
        frame[method] = random.normal(size=90) + shift * (frame["label"] == "abnormal")
    return frame


TABLE = scores()
RESULTS = evaluate_scores(TABLE, METHODS, resamples=50)
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

TEST = TABLE[TABLE["side"] == "test"].reset_index(drop=True)
CASES = np.random.default_rng(2).random((len(TEST), 16, 16))

# Each figure: the function, its arguments, the number of axes (a colour bar counts).
DRAWN = {
    "image_grid": (figures.image_grid, (IMAGES, list("abcde"), 3), 5),
    "reconstructions": (figures.reconstructions, (IMAGES, MADE, list("abcde")), 5 * 5 + 1),
    "loss_curves": (figures.loss_curves, (HISTORY,), 4),
    "roc_curves": (figures.roc_curves, (TABLE, METHODS, "label", RESULTS), 1),
    "score_histograms": (figures.score_histograms, (TABLE, METHODS, "label", RESULTS), 3),
    "findings_forest": (figures.findings_forest, (RESULTS,), 1),
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
    assert figures.image_grid(IMAGES)._repr_png_().startswith(b"\x89PNG")


def test_a_method_keeps_its_colour_and_shares_it_with_no_other():
    first = [figures.colour(name) for name in ("ra", "some row", "unet", "another row")]
    again = [figures.colour(name) for name in ("ra", "some row", "unet", "another row")]
    assert first == again and len(set(first)) == 4
    lines = {
        line.get_label().split("  ")[0]: line
        for line in DRAWN["roc_curves"][0](TABLE, METHODS, "label", RESULTS).axes[0].lines
    }
    forest = {line.get_label(): line for line in figures.findings_forest(RESULTS).axes[0].lines}
    for name in METHODS:
        assert to_rgb(lines[name].get_color()) == to_rgb(forest[name].get_color()) == to_rgb(figures.colour(name))


def test_all_x_rays_share_one_grey_scale_and_all_residuals_the_printed_limits():
    figure = figures.reconstructions(IMAGES, MADE)
    largest = np.percentile([abs(IMAGES[:, 0] - made.reshape(5, 16, 16)) for made in MADE.values()], 99.5)
    limits = {"gray": set(), "magma": set()}
    for ax in figure.axes[:-1]:
        picture = ax.images[0]
        limits[picture.get_cmap().name].add(picture.get_clim())
    assert limits == {"gray": {(0, 1)}, "magma": {(0, largest)}}
    assert f"0 to {largest:.2g}" in texts(figure)


def test_a_residual_is_the_absolute_difference_and_its_mean_is_written_below():
    figure = figures.reconstructions(IMAGES, MADE)
    residual = figure.axes[2].images[0].get_array()
    assert np.allclose(residual, 0.1 * IMAGES[0, 0])
    assert figure.axes[2].get_xlabel() == f"mean {0.1 * IMAGES[0].mean():.3f}"


def test_bytes_and_unit_floats_draw_the_same_picture():
    greys = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    drawn = [figures.image_grid(images).axes[0].images[0].get_array() for images in (greys, greys / 255)]
    assert np.array_equal(*drawn)


def test_the_roc_curve_passes_through_its_marked_threshold_and_names_its_auroc():
    figure = figures.roc_curves(TABLE, ["ra"], "label", RESULTS)
    _, curve, dot, _ = figure.axes[0].lines
    one = RESULTS["methods"]["ra"]
    assert np.trapezoid(curve.get_ydata(), curve.get_xdata()) == pytest.approx(one["auroc"]["value"])
    point = np.array([dot.get_xdata()[0], dot.get_ydata()[0]])
    assert point == pytest.approx([1 - one["threshold"]["specificity"], one["threshold"]["sensitivity"]])
    assert np.abs(curve.get_xydata() - point).sum(axis=1).min() == pytest.approx(0, abs=1e-12)
    assert f"ra  {one['auroc']['value']:.3f} [" in texts(figure)


def test_the_histogram_shows_the_threshold_and_how_many_images_there_are():
    words = texts(figures.score_histograms(TABLE, ["ra"], "label", RESULTS))
    assert f"threshold {RESULTS['methods']['ra']['threshold']['value']:.3g}" in words
    assert "normal, validation (30)" in words and "abnormal, test (30)" in words


def test_a_finding_with_too_few_images_stays_in_the_forest():
    words = texts(figures.findings_forest(RESULTS))
    assert "Hernia (5)" in words and "too few images" in words and "Edema (25)" in words


def test_the_headline_claims_a_better_method_only_if_the_interval_excludes_zero():
    results = copy.deepcopy(RESULTS)
    pair = next(one for one in results["differences"] if one["first"] == "ra")  # minus "mean image", the best
    pair["auroc"] = {"value": -0.1, "low": -0.2, "high": -0.05}
    assert figures.headline(results) == "mean image ranks better than ra: AUROC +0.10 [+0.05, +0.20]"
    pair["auroc"]["high"] = 0.05
    assert figures.headline(results) == "mean image and ra not told apart: AUROC +0.10 [-0.05, +0.20]"


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
        (lambda: figures.roc_curves(TABLE, ["pca"], "label", RESULTS), r"no column \['pca'\]"),
        (lambda: figures.score_histograms(TABLE, ["ra"], "strict_label", RESULTS), r"no column \['strict_label'\]"),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
