"""Promises of `lib.charts`: what is drawn is what was evaluated, titles say what was found, and nothing leaks."""

import copy

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_curve

from lib import charts
from lib.evaluation import evaluate_scores
from lib.figures import LOOKS, look

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


def texts(figure: Figure) -> str:
    """All words of a figure."""
    return "\n".join(text.get_text() for text in figure.findobj(lambda one: hasattr(one, "get_text")))


def drawn(methods: list[str], table: pd.DataFrame, results: dict) -> dict[str, Figure]:
    """Every chart of the methods."""
    roc, precision_recall = charts.curves(table, methods, "label", results)
    return {
        "roc": roc,
        "precision-recall": precision_recall,
        "scores": charts.score_distributions(table, methods, "label", results),
        "findings": charts.forest(results, "findings"),
        "strata": charts.forest(results, "strata"),
        "false-alarms": charts.false_alarms(table, methods, "label"),
    }


def test_a_rate_reads_the_same_whichever_way_it_was_computed():
    assert charts.percent(3 / 120) == charts.percent(1 - 117 / 120) == "2 %"


@pytest.mark.parametrize(("methods", "table", "results"), [(METHODS, TABLE, RESULTS), (ALL, ALL_TABLE, ALL_RESULTS)])
def test_charts_of_two_and_of_all_methods_fit_a_notebook_cut_no_words_and_change_nothing(methods, table, results):
    before = table.copy(), copy.deepcopy(results)
    for name, figure in drawn(methods, table, results).items():
        figure.draw_without_rendering()
        inside = figure.get_tightbbox().padded(-0.02)  # inches
        assert figure.get_figwidth() <= 10, name
        assert inside.x0 >= 0 and inside.y0 >= 0, name
        assert inside.x1 <= figure.get_figwidth() and inside.y1 <= figure.get_figheight(), name
        one_a_method = 1 if name in ("findings", "strata") else len(methods)
        assert len(figure.axes) == one_a_method, name
        assert all(method in texts(figure) for method in methods), name
    assert plt.get_fignums() == []
    assert table.equals(before[0]) and repr(results) == repr(before[1])


@pytest.mark.parametrize("name", ["roc", "precision-recall", "false-alarms"])
def test_a_method_has_its_own_colour_and_marker_in_its_panel(name):
    for ax, method in zip(drawn(ALL, ALL_TABLE, ALL_RESULTS)[name].axes, ALL, strict=True):
        marked = [line for line in ax.lines if line.get_marker() not in ("None", "")]
        assert [(line.get_color(), line.get_marker()) for line in marked] == [look(method)]


def test_in_a_forest_a_method_has_its_own_colour_and_marker():
    for by in ("findings", "strata"):
        lines = {line.get_label(): line for line in charts.forest(ALL_RESULTS, by).axes[0].lines}
        assert {(lines[m].get_color(), lines[m].get_marker()) for m in ALL} == {look(m) for m in ALL}


def test_the_curves_are_scikit_learns_and_lie_in_their_bands():
    roc, precision_recall = charts.curves(TABLE, ["ra"], "label", RESULTS)
    test = TABLE[TABLE["side"] == "test"]
    is_abnormal = test["label"] == "abnormal"
    alarms, found, _ = roc_curve(is_abnormal, test["ra"], drop_intermediate=False)
    curve = roc.axes[0].lines[2]
    for at, value in curve.get_xydata():
        assert value == pytest.approx(found[alarms <= at + 1e-9].max())
    precision, recall, _ = precision_recall_curve(is_abnormal, test["ra"])
    curve = precision_recall.axes[0].lines[2]
    for at, value in curve.get_xydata()[1:]:
        assert value == pytest.approx(precision[recall >= at - 1e-9][-1])
    assert np.mean(curve.get_ydata()) == pytest.approx(average_precision_score(is_abnormal, test["ra"]), abs=0.01)


def test_the_marker_stands_on_both_curves_where_the_threshold_is():
    roc, precision_recall = charts.curves(TABLE, ["ra"], "label", RESULTS)
    threshold = RESULTS["methods"]["ra"]["threshold"]
    called = TABLE[(TABLE["side"] == "test") & (TABLE["ra"] > threshold["value"])]
    assert roc.axes[0].lines[-1].get_xydata()[0] == pytest.approx(
        [1 - threshold["specificity"], threshold["sensitivity"]]
    )
    precision = (called["label"] == "abnormal").mean()
    assert precision_recall.axes[0].lines[-1].get_xydata()[0] == pytest.approx([threshold["sensitivity"], precision])


def test_the_distributions_have_a_dot_an_image_and_a_bar_at_each_groups_median():
    [ax] = charts.score_distributions(TABLE, ["ra"], "label", RESULTS).axes
    groups = [label.get_text() for label in ax.get_yticklabels()]
    assert groups == ["normal, validation (30)", "normal, test (30)", "abnormal, test (30)", "Edema (25)", "Hernia (5)"]
    dots, bars = ax.lines[:-1:2], ax.lines[1:-1:2]
    assert [len(line.get_xdata()) for line in dots] == [30, 30, 30, 25, 5]
    medians = [TABLE["ra"][:30].median(), TABLE["ra"][30:60].median(), TABLE["ra"][60:].median()]
    assert [bar.get_xdata()[0] for bar in bars[:3]] == pytest.approx(medians)
    assert ax.lines[-1].get_xdata()[0] == RESULTS["methods"]["ra"]["threshold"]["value"]


def test_images_without_a_label_are_in_no_group_of_the_distributions():
    table = TABLE.copy()
    table.loc[table["finding"] == "Edema", "label"] = ""
    results = evaluate_scores(table, ["ra"], resamples=50)
    [ax] = charts.score_distributions(table, ["ra"], "label", results).axes
    groups = [label.get_text() for label in ax.get_yticklabels()]
    assert groups == ["normal, validation (30)", "normal, test (30)", "abnormal, test (5)", "Hernia (5)"]


def test_a_group_with_too_few_images_stays_in_the_forest_and_says_why():
    assert "5 abnormal: fewer than 10" in texts(charts.forest(RESULTS, "findings"))
    few = evaluate_scores(scores(METHODS, normal=12), METHODS, resamples=50)
    strata = texts(charts.forest(few, "strata"))
    assert "6 normal: fewer than 10" in strata and "no group has a figure" in strata


def test_the_forests_title_gives_the_range_over_the_groups():
    words = texts(charts.forest(RESULTS, "strata"))
    inside = [one["auroc"]["ra"]["value"] for one in RESULTS["strata"]]
    assert f"ra: {min(inside):.2f} to {max(inside):.2f} by group" in words


@pytest.mark.parametrize(("moved", "said"), [(0, "every method keeps"), (3, "ra cannot keep")])
def test_a_promise_is_called_broken_where_more_normals_alarm_than_chance_allows(moved, said):
    table = TABLE.copy()
    table.loc[30:59, "ra"] = table["ra"][:30].to_numpy() + moved
    figure = charts.false_alarms(table, ["ra"], "label")
    first, *others = figure.get_suptitle().split("\n")
    assert first == f"{said} a promise of 5 % false alarms"
    assert others == (["more than chance allows at some promise: ra"] if moved else [])


def test_too_few_calibration_images_are_said_to_promise_nothing():
    few = TABLE.drop(index=range(20))
    assert charts.false_alarms(few, ["ra"], "label").get_suptitle() == "10 calibration images are too few for a promise"


def test_the_headline_claims_a_better_method_only_if_the_interval_excludes_zero():
    results = copy.deepcopy(RESULTS)
    [pair] = results["differences"]  # unet minus ra
    pair["auroc"] = {"value": -0.1, "low": -0.2, "high": -0.05}
    assert charts.headline(results) == "ra ranks better than unet: AUROC +0.10 [+0.05, +0.20]"
    pair["auroc"]["high"] = 0.05
    assert charts.headline(results) == "ra and unet not told apart: AUROC +0.10 [-0.05, +0.20]"


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: charts.curves(TABLE, ["pca"], "label", RESULTS), r"no column \['pca'\]"),
        (lambda: charts.score_distributions(TABLE, ["ra"], "strict_label", RESULTS), r"no column.*'strict_label'"),
        (lambda: charts.false_alarms(TABLE, ["pca"], "label"), r"no column \['pca'\]"),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
