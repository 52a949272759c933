"""Promises of `lib.figures.ranking`: every score has its dot and its interval, the highest is named."""

from example_results import evaluated, evaluation
from published import study

from lib.evidence.results import Check, Estimate
from lib.figures.ranking import run_ranking, study_ranking


def dots(ax) -> list[float]:
    """The values that are drawn by a single marker."""
    return [float(line.get_xdata()[0]) for line in ax.lines if len(line.get_xdata()) == 1]


def test_a_panel_holds_every_score_of_its_study_and_names_the_highest():
    adult = study("adult")
    figure = study_ranking({"adult": adult})
    means = {name: score.auroc.estimate.value for name, score in adult.evaluation.scores.items()}
    assert set(means.values()) <= set(dots(figure.axes[0]))
    highest = max(means, key=means.__getitem__)
    assert figure.axes[0].get_title() == f"adult, strict_label: highest\n{highest}, {means[highest]:.2f}"


def test_a_run_is_drawn_beside_the_strongest_feature_in_the_direction_that_separates():
    areas = {"unet": Estimate(0.6, 0.5, 0.7), "ra": Estimate(0.7, 0.6, 0.8), "ra, chosen": Estimate(0.8, 0.7, 0.9)}
    scores = evaluation({name: evaluated(area) for name, area in areas.items()}, [])
    low = Estimate(0.2, 0.1, 0.3)
    check = Check(check="image", what="mean grey", normal=9, abnormal=9, auroc=low, away=0.3, methods={}, remark="")
    [ax] = run_ranking(scores, "phantoms", check).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["unet", "ra"]  # by the best score of each
    assert set(dots(ax)) >= {0.6, 0.7, 0.8}
    assert [0.8, 0.8] in [list(line.get_xdata()) for line in ax.lines]
    assert ax.get_title() == "phantoms. Highest: ra, chosen, AUROC 0.80\nWithout any network: mean grey, 0.80"


def test_without_a_feature_that_separates_no_line_is_drawn():
    [ax] = run_ranking(evaluation({"ra": evaluated(Estimate(0.7, 0.6, 0.8))}, []), "phantoms", None).axes
    assert ax.get_title() == "phantoms. Highest: ra, AUROC 0.70"


def test_no_study_gives_an_empty_figure():
    assert not study_ranking({}).axes[0].lines
