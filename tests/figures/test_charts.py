"""Promises of `lib.figures.charts`.

What is drawn is what was evaluated, titles say what was found, and nothing leaks.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from lib.evidence.curves import curve_bands, false_alarm_rates, score_groups
from lib.evidence.evaluation import evaluate_scores
from lib.evidence.results import Estimate, Evaluation
from lib.figures import charts
from lib.figures.style import LOOKS, look

METHODS = ["unet", "ra"]


def scores(methods: list[str], normal: int = 30) -> pd.DataFrame:
    """30 validation normals, some test normals, 30 abnormal images of which 5 have a hernia; each second one is AP."""
    random = np.random.default_rng(0)
    n = 60 + normal
    frame = pd.DataFrame({"id": [f"image-{i}" for i in range(n)], "patient": [f"patient-{i}" for i in range(n)]})
    frame["side"] = ["validation"] * 30 + ["test"] * (n - 30)
    frame["label"] = ["normal"] * (30 + normal) + ["abnormal"] * 30
    frame["finding"] = [""] * (30 + normal) + ["Edema"] * 25 + ["Hernia"] * 5
    frame["view"] = ["AP", "PA"] * (n // 2)
    for shift, method in enumerate(methods):
        frame[method] = random.normal(size=n) + shift / len(methods) * 2 * (frame["label"] == "abnormal")
    return frame


TABLE = scores(METHODS)
RESULTS = evaluate_scores(TABLE, METHODS, resamples=50)
ALL = list(LOOKS)
ALL_TABLE = scores(ALL)
ALL_RESULTS = evaluate_scores(ALL_TABLE, ALL, resamples=50)
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


def texts(figure: Figure) -> str:
    """All words of a figure."""
    return "\n".join(text.get_text() for text in figure.findobj(lambda one: hasattr(one, "get_text")))


def drawn(table: pd.DataFrame, evaluation: Evaluation) -> dict[str, Figure]:
    """Every chart of an evaluation."""
    roc, precision_recall = charts.curves(evaluation, curve_bands(table, evaluation))
    return {
        "roc": roc,
        "precision-recall": precision_recall,
        "scores": charts.score_distributions(evaluation, score_groups(table, evaluation)),
        "findings": charts.forest(evaluation, "findings"),
        "strata": charts.forest(evaluation, "strata"),
        "false-alarms": charts.false_alarms(false_alarm_rates(table, list(evaluation.methods), "label")),
    }


@pytest.mark.parametrize(("methods", "table", "results"), [(METHODS, TABLE, RESULTS), (ALL, ALL_TABLE, ALL_RESULTS)])
def test_charts_of_two_and_of_all_methods_fit_a_notebook_cut_no_words_and_change_nothing(methods, table, results):
    before = table.copy(), repr(results)
    for name, figure in drawn(table, results).items():
        figure.draw_without_rendering()
        inside = figure.get_tightbbox().padded(-0.02)  # inches
        assert figure.get_figwidth() <= 10, name
        assert inside.x0 >= 0 and inside.y0 >= 0, name
        assert inside.x1 <= figure.get_figwidth() and inside.y1 <= figure.get_figheight(), name
        one_a_method = 1 if name in ("findings", "strata") else len(methods)
        assert len(figure.axes) == one_a_method, name
        assert all(method in texts(figure) for method in methods), name
    assert plt.get_fignums() == []
    assert table.equals(before[0]) and repr(results) == before[1]


@pytest.mark.parametrize("name", ["roc", "precision-recall", "false-alarms"])
def test_a_method_has_its_own_colour_and_marker_in_its_panel(name):
    for ax, method in zip(drawn(ALL_TABLE, ALL_RESULTS)[name].axes, ALL, strict=True):
        marked = [line for line in ax.lines if line.get_marker() not in ("None", "")]
        assert [(line.get_color(), line.get_marker()) for line in marked] == [look(method)]


def test_in_a_forest_a_method_has_its_own_colour_and_marker():
    for by in ("findings", "strata"):
        lines = {line.get_label(): line for line in charts.forest(ALL_RESULTS, by).axes[0].lines}
        assert {(lines[m].get_color(), lines[m].get_marker()) for m in ALL} == {look(m) for m in ALL}


def test_the_curves_their_bands_and_their_marks_are_those_that_were_computed():
    bands = curve_bands(TABLE, RESULTS)["ra"]
    for figure, band in zip(charts.curves(RESULTS, {"ra": bands}), bands, strict=True):
        [ax] = figure.axes
        _, _, curve, mark = ax.lines  # after chance and the curve in grey
        assert np.array_equal(curve.get_xydata(), np.transpose([band.at, band.value]))
        assert mark.get_xydata()[0] == pytest.approx(band.mark)
        edges = ax.collections[0].get_paths()[0].vertices
        assert {*band.low, *band.high} == set(edges[:, 1])


def test_the_distributions_have_a_dot_an_image_and_a_bar_at_each_groups_median():
    [ax] = charts.score_distributions(RESULTS, {"ra": score_groups(TABLE, RESULTS)["ra"]}).axes
    groups = [label.get_text() for label in ax.get_yticklabels()]
    assert groups == ["normal, validation (30)", "normal, test (30)", "abnormal, test (30)", "Edema (25)", "Hernia (5)"]
    dots, bars = ax.lines[:-1:2], ax.lines[1:-1:2]
    assert [len(line.get_xdata()) for line in dots] == [30, 30, 30, 25, 5]
    medians = [TABLE["ra"][:30].median(), TABLE["ra"][30:60].median(), TABLE["ra"][60:].median()]
    assert [bar.get_xdata()[0] for bar in bars[:3]] == pytest.approx(medians)
    assert ax.lines[-1].get_xdata()[0] == RESULTS.methods["ra"].threshold.value


def test_of_many_images_and_findings_some_are_drawn_and_the_title_says_so():
    table = pd.concat([TABLE] * 11, ignore_index=True)
    table = table.assign(
        id=table.index.astype(str), finding=table["finding"].where(table.index % 90 < 60, table.index % 9)
    )
    table["finding"] = table["finding"].astype(str)
    evaluation = evaluate_scores(table, ["ra"], resamples=20)
    figure = charts.score_distributions(evaluation, score_groups(table, evaluation))
    assert [len(line.get_xdata()) for line in figure.axes[0].lines[:6:2]] == [300, 300, 300]
    assert "; the 8 largest of 9 groups" in figure.get_suptitle()


def test_a_group_with_too_few_images_stays_in_the_forest_and_says_why():
    assert "5 abnormal: fewer than 10 patients" in texts(charts.forest(RESULTS, "findings"))
    few = evaluate_scores(scores(METHODS, normal=12), METHODS, resamples=50)
    strata = texts(charts.forest(few, "strata"))
    assert "6 normal: fewer than 10 patients" in strata and "no group has enough images" in strata


def test_the_forests_title_gives_the_range_over_the_groups():
    words = texts(charts.forest(RESULTS, "strata"))
    inside = [stratum.auroc["ra"].value for stratum in RESULTS.strata]
    assert f"ra: {min(inside):.2f} to {max(inside):.2f} by group" in words


@pytest.mark.parametrize(("moved", "verdict"), [(0, "every method keeps"), (3, "ra cannot keep")])
def test_a_promise_is_called_broken_where_more_normals_alarm_than_chance_allows(moved, verdict):
    table = TABLE.copy()
    table.loc[30:59, "ra"] = table["ra"][:30].to_numpy() + moved
    figure = charts.false_alarms(false_alarm_rates(table, ["ra"], "label"))
    first, *others = figure.get_suptitle().split("\n")
    assert first == f"{verdict} a promise of 5 % false alarms"
    assert others == (["more than chance allows at some promise: ra"] if moved else [])


def test_too_few_calibration_images_are_said_to_promise_nothing():
    figure = charts.false_alarms(false_alarm_rates(TABLE.drop(index=range(20)), ["ra"], "label"))
    assert figure.get_suptitle() == "too few calibration images (10) for a promise"


@pytest.mark.parametrize(
    ("high", "words"),
    [
        (-0.05, "ra ranks better than unet: AUROC +0.10 [+0.05, +0.20]"),
        (0.05, "no difference shown between ra and unet: AUROC +0.10 [-0.05, +0.20]"),
    ],
)
def test_the_headline_claims_a_better_method_only_if_the_interval_excludes_zero(high, words):
    pair = RESULTS.differences[0].model_copy(update={"auroc": Estimate(-0.1, -0.2, high)})  # unet minus ra
    assert charts.headline(RESULTS.model_copy(update={"differences": [pair]})) == words


def test_losses_are_drawn_by_part_over_the_epochs():
    decoder, encoder, kl, validation = charts.loss_curves(HISTORY).axes
    assert [line.get_label() for line in encoder.lines] == ["total"]
    assert [line.get_label() for line in kl.lines] == ["kl_real"]
    assert list(encoder.lines[0].get_xdata()) == [0, 1, 2, 3] and list(encoder.lines[0].get_ydata()) == [3, 2, 1, 0]
    assert decoder.get_title() == "decoder: total 1 → 1" and validation.get_title().startswith("validation: residual")


def test_loss_curves_fit_a_notebook_cut_no_words_and_change_nothing():
    before = repr(HISTORY)
    figure = charts.loss_curves(HISTORY)
    figure.draw_without_rendering()
    assert repr(HISTORY) == before and plt.get_fignums() == []
    inside = figure.get_tightbbox().padded(-0.02)  # inches
    assert figure.get_figwidth() <= 10 and inside.x0 >= 0 and inside.y0 >= 0
    assert inside.x1 <= figure.get_figwidth() and inside.y1 <= figure.get_figheight()


@pytest.mark.parametrize(
    ("history", "message"),
    [([], "history has no row"), ([{"epoch": 0, "loss": 1}], r"history has \['epoch', 'loss'\]")],
)
def test_a_history_that_cannot_be_drawn_is_refused_by_what_it_holds(history, message):
    with pytest.raises(ValueError, match=message):
        charts.loss_curves(history)
