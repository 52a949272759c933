"""How methods rank over their training -> matplotlib `Figure`, tables."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from lib.evidence.learning import CurveDifference, CurvePoint, LearningCurves
from lib.evidence.results import Estimate
from lib.evidence.seeds import FORMS
from lib.evidence.wording import GAP, estimate_text
from lib.figures.style import GREY, WIDTH, Drawing, finish, look

BUDGETS = {
    "images seen": lambda point: point.images_seen,
    "CPU minutes, one thread": lambda point: point.cpu_seconds / 60,
}


def log_axis(ax: Axes) -> None:
    """Give a chart a logarithmic horizontal axis with round numbers."""
    ax.set(xscale="log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter("{x:,g}")


def auroc_curves(curves: LearningCurves, references: Mapping[str, Estimate]) -> Figure:
    """Draw the AUROC of each method over its training: a column for each form of score, a row for each budget.

    A line is the mean over the seeds, a band its interval over patients, a dot a seed. A `reference` is a grey line.
    """
    figure = Drawing(figsize=(WIDTH, 3 * len(BUDGETS)), layout="constrained")
    grid = figure.subplots(len(BUDGETS), len(FORMS), sharey=True)
    for row, (budget, spent) in zip(grid, BUDGETS.items(), strict=True):
        for ax, form in zip(row, FORMS, strict=True):
            for method, points in curves.points.items():
                _draw(ax, method, {spent(point): point for point in points}, form)
            for name, estimate in references.items():
                ax.axhline(estimate.value, color=GREY, linewidth=0.8)
                at_left = ax.get_yaxis_transform()
                ax.text(0.01, estimate.value, name, fontsize=7, va="bottom", transform=at_left)
            log_axis(ax)
            ax.set_xlabel(budget, fontsize=8)
            finish(ax, form if ax in grid[0] else "")
        row[0].set_ylabel("AUROC", fontsize=8)
    grid[0][0].legend(fontsize=7, frameon=False)
    ends = {method: points[-1].auroc["mean residual"].estimate.value for method, points in curves.points.items()}
    listed = ", ".join(f"{method} {value:.2f}" for method, value in sorted(ends.items(), key=lambda end: -end[1]))
    figure.suptitle(f"Mean residual at the end of training, by {curves.labels}: {listed}", fontsize=10)
    return figure


def _draw(ax: Axes, method: str, points: Mapping[float, CurvePoint], form: str) -> None:
    colour, marker = look(method)
    means = [point.auroc[form] for point in points.values()]
    value, low, high = ([getattr(mean.estimate, end) for mean in means] for end in ("value", "low", "high"))
    ax.plot(list(points), value, color=colour, marker=marker, markersize=3, label=method)
    ax.fill_between(list(points), low, high, color=colour, alpha=0.1, linewidth=0)
    for at, mean in zip(points, means, strict=True):
        ax.plot([at] * len(mean.seeds), list(mean.seeds.values()), ".", color=colour, markersize=2)


def curve_table(curves: LearningCurves) -> pd.DataFrame:
    """Return how the compared method differs from the others at its last point that each of the terms knows."""
    last: dict[tuple[str, str], dict[str, CurveDifference]] = {}
    for one in curves.differences:
        last.setdefault((one.second, one.terms), {})[one.form] = one
    rows = {}
    for (second, terms), by_form in last.items():
        one = next(iter(by_form.values()))
        when = f"after {one.images_seen:,} images" if second not in curves.points else f"equal {terms}"
        name = f"{one.first} − {second}, {'each at its end' if terms == 'end' else when}"
        rows[name] = {form: difference_text(by_form[form]) if form in by_form else GAP for form in FORMS}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("difference of AUROC")


def difference_text(difference: CurveDifference) -> str:
    """Return a difference with its interval over patients, and the one that takes the seeds as draws too."""
    mean = difference.auroc
    drawn = f"; seeds as draws [{mean.drawn[0]:+.2f}, {mean.drawn[1]:+.2f}]" if mean.drawn else ""
    return estimate_text(mean.estimate, signed=True) + drawn
