"""The figure and the table of learning curves show each point, and each difference on its terms."""

import pytest

from lib.evidence.learning import CurveDifference, CurvePoint, LearningCurves
from lib.evidence.marks import MethodHealth, Point
from lib.evidence.results import Estimate
from lib.evidence.seeds import FORMS, SeedMean
from lib.figures.progress import auroc_curves, curve_table, progress_table


def mean(value: float, *seeds: float) -> SeedMean:
    drawn = (value - 0.2, value + 0.2) if len(seeds) > 1 else None
    interval = Estimate(value, value - 0.1, value + 0.1)
    return SeedMean(estimate=interval, drawn=drawn, sample_sd=0.05, seed_sd=None, seeds=dict(enumerate(seeds)))


def point(epochs: int, value: float, seconds: float) -> CurvePoint:
    seen = {"epochs": epochs, "images_seen": 100 * epochs, "cpu_seconds": seconds}
    return CurvePoint(**seen, auroc={form: mean(value + 0.1 * i, value, value + 0.02) for i, form in enumerate(FORMS)})


def difference(second: str, terms: str, images: int, value: float, form: str = "mean residual") -> CurveDifference:
    ends = {"first": "ra", "second": second, "form": form, "terms": terms, "images_seen": images}
    return CurveDifference(**ends, auroc=mean(value, value, value))


def health(epochs: int, residual: float, lacks: list[str]) -> Point:
    measured = MethodHealth(residual=residual, detail=0.5, frechet=1200, copied=0.1, lacks=lacks)
    return Point(epochs=epochs, images_seen=100 * epochs, cpu_seconds=1, health=measured)


CURVES = LearningCurves(
    labels="strict_label",
    points={"ra": [point(1, 0.5, 60), point(4, 0.7, 240)], "unet": [point(1, 0.55, 30), point(4, 0.4, 120)]},
    health={
        "ra": {0: [health(1, 0.08, ["x"]), health(4, 0.06, [])], 1: [health(1, 0.09, ["x"]), health(4, 0.05, ["x"])]},
        "unet": {},
    },
    differences=[
        difference("unet", "images", 100, -0.05),
        difference("unet", "images", 400, 0.3),
        difference("unet", "end", 400, 0.3),
        difference("knn", "images", 400, -0.1),
        difference("knn", "images", 400, -0.2, "chosen score"),
    ],
)


def test_each_form_is_drawn_over_images_and_over_cpu_time():
    figure = auroc_curves(CURVES, {"knn": Estimate(0.8, 0.7, 0.9)})
    assert len(figure.axes) == 2 * len(FORMS)
    for place, (spent, form) in enumerate([(s, i) for s in ([100, 400], [1, 4]) for i in range(3)]):
        ra = next(line for line in figure.axes[place].lines if line.get_label() == "ra")
        assert list(ra.get_xdata()) == spent
        assert list(ra.get_ydata()) == pytest.approx([0.5 + 0.1 * form, 0.7 + 0.1 * form])
        assert any(text.get_text() == "knn" for text in figure.axes[place].texts)
    assert figure.get_suptitle() == "AUROC over training, by strict_label"
    assert [ax.get_title() for ax in figure.axes[: len(FORMS)]] == list(FORMS)


def test_the_table_has_the_last_point_of_each_of_the_terms():
    table = curve_table(CURVES, ["unet", "knn"])
    assert list(table.index) == ["ra − unet, equal images", "ra − unet, each at its end", "ra − knn, after 400 images"]
    first = "above: +0.300 [+0.20, +0.40]; seeds as draws [+0.10, +0.50]"
    assert table.loc["ra − unet, equal images"].tolist() == [first, "–", "–"]
    assert table.loc["ra − knn, after 400 images", "chosen score"].startswith("not told apart: -0.200")
    assert list(curve_table(CURVES, ["knn"]).index) == ["ra − knn, after 400 images"]


def test_each_point_of_a_method_has_its_scores_and_the_mean_of_its_health_over_the_seeds():
    table = progress_table(CURVES, "ra")
    assert list(table.index) == ["100", "400"]
    first, last = table.loc["100"], table.loc["400"]
    assert first["CPU minutes"] == "1" and last["combined score"] == "0.900 [0.80, 1.00]"
    assert (first["residual"], last["residual"], last["Fréchet distance"]) == ("0.0850", "0.0550", "1,200")
    assert last["KL generated / real"] == "–"  # without a posterior
    assert list(table["seeds that meet every mark"]) == ["0 of 2", "1 of 2"]
