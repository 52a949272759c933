"""The figure and the table of learning curves show each point, and each difference on its terms."""

import pytest

from lib.evidence.learning import CurveDifference, CurvePoint, LearningCurves
from lib.evidence.results import Estimate
from lib.evidence.seeds import FORMS, SeedMean
from lib.figures.progress import auroc_curves, curve_table


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


CURVES = LearningCurves(
    labels="strict_label",
    points={"ra": [point(1, 0.5, 60), point(4, 0.7, 240)], "unet": [point(1, 0.55, 30), point(4, 0.4, 120)]},
    health={},
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
    assert figure.get_suptitle().endswith("by strict_label: ra 0.70, unet 0.40")


def test_the_table_has_the_last_point_of_each_of_the_terms():
    table = curve_table(CURVES)
    assert list(table.index) == ["ra − unet, equal images", "ra − unet, each at its end", "ra − knn, after 400 images"]
    first = "+0.300 [+0.20, +0.40]; seeds as draws [+0.10, +0.50]"
    assert table.loc["ra − unet, equal images"].tolist() == [first, "–", "–"]
    assert table.loc["ra − knn, after 400 images", "chosen score"].startswith("-0.200")
