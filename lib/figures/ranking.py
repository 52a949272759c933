"""All scores of studies, or of a run -> matplotlib `Figure`: the AUROC of every method under its three scores."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.evidence.results import Check, Estimate, Evaluation
from lib.evidence.seeds import FORMS
from lib.evidence.study import Study
from lib.figures.style import GREY, WIDTH, Drawing, look

MARKERS = dict(zip(FORMS.items(), "os^", strict=True))


def study_ranking(studies: Mapping[str, Study]) -> Figure:
    """Draw the scores of each study in a panel: their means over the seeds, with intervals, and the seeds as dots."""
    most = max((_rows(study.evaluation.scores) for study in studies.values()), default=1)
    figure = _figure(most)
    grid = np.ravel(figure.subplots(1, max(1, len(studies))))
    for ax, (name, study) in zip(grid, studies.items(), strict=False):
        scores = study.evaluation.scores
        areas = {score: mean.auroc.estimate for score, mean in scores.items()}
        highest = _draw(ax, areas, {score: list(mean.auroc.seeds.values()) for score, mean in scores.items()})
        title = f"{name}, {study.evaluation.labels}: highest\n{highest}, {areas[highest].value:.2f}"
        ax.set_title(title, fontsize=10)
    return figure


def run_ranking(evaluation: Evaluation, images: str, strongest: Check | None) -> Figure:
    """Draw all scores of a run; a dashed line marks the `strongest` tag or feature, in the direction that separates.

    `images` says in the title what the images are.
    """
    areas = {score: method.auroc for score, method in evaluation.methods.items()}
    figure = _figure(_rows(areas))
    ax = figure.subplots()
    highest = _draw(ax, areas, {})
    title = f"{images}. Highest: {highest}, AUROC {areas[highest].value:.2f}"
    if strongest and strongest.away is not None:
        ax.axvline(0.5 + strongest.away, color="black", linestyle="--", linewidth=1)
        title += f"\nWithout any network: {strongest.what}, {0.5 + strongest.away:.2f}"
    ax.set_title(title, fontsize=10)
    return figure


def _rows(scores: Mapping[str, object]) -> int:
    return sum("," not in name for name in scores)


def _figure(rows: int) -> Figure:
    return Drawing(figsize=(WIDTH, 1.2 + 0.36 * rows), layout="constrained")


def _draw(ax: Axes, areas: Mapping[str, Estimate], seeds: Mapping[str, Sequence[float]]) -> str:
    """Draw a row for each method, from the lowest to the highest by its best score; return the highest score."""

    def best(name: str) -> float:
        return max(areas[name + form].value for form in FORMS.values() if name + form in areas)

    names = sorted((name for name in areas if "," not in name), key=best)
    for y, name in enumerate(names):
        colour = look(name)[0]
        for shift, ((_, form), marker) in zip((0.2, 0, -0.2), MARKERS.items(), strict=True):
            if area := areas.get(name + form):
                dots = seeds.get(name + form, [])
                ax.hlines(y + shift, area.low, area.high, color=colour, linewidth=1)
                ax.plot(dots, [y + shift] * len(dots), ".", color=colour, markersize=2)
                ax.plot(area.value, y + shift, marker, color=colour, markersize=5)
    ax.axvline(0.5, color=GREY, linestyle=":")
    ax.set_yticks(range(len(names)), names, fontsize=8)
    ax.set(xlabel="AUROC")
    for (title, _), marker in MARKERS.items():
        ax.plot([], [], marker, color="0.4", linestyle="", label=title)
    ax.legend(fontsize=8, frameon=False, loc="lower right")
    return max(areas, key=lambda name: areas[name].value)
