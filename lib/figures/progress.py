"""How methods rank over their training -> matplotlib `Figure`, tables."""

from collections.abc import Iterable, Mapping
from statistics import fmean

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from lib.evidence.learning import CurveDifference, CurvePoint, LearningCurves
from lib.evidence.results import Estimate
from lib.evidence.seeds import CRITIC, FORMS
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
    ax.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:g}k" if x >= 1000 else f"{x:g}")


def auroc_curves(curves: LearningCurves, references: Mapping[str, Estimate]) -> Figure:
    """Draw the AUROC of each method over its training: a column for each form of score, a row for each budget.

    A line is the mean over the seeds, a band its interval over patients, a dot a seed. A `reference` is a grey line.
    """
    figure = Drawing(figsize=(WIDTH, 3 * len(BUDGETS)), layout="constrained")
    forms = _forms(curves)
    grid = figure.subplots(len(BUDGETS), len(forms), sharey=True)
    for row, (budget, spent) in zip(grid, BUDGETS.items(), strict=True):
        for ax, form in zip(row, forms, strict=True):
            for method, points in curves.points.items():
                _draw(ax, method, {spent(point): point for point in points if form in point.auroc}, form)
            for name, estimate in references.items():
                ax.axhline(estimate.value, color=GREY, linewidth=0.8)
                at_left = ax.get_yaxis_transform()
                ax.text(0.01, estimate.value, name, fontsize=7, va="bottom", transform=at_left)
            log_axis(ax)
            ax.set_xlabel(budget, fontsize=8)
            finish(ax, form if ax in grid[0] else "")
        row[0].set_ylabel("AUROC", fontsize=8)
    grid[0][0].legend(fontsize=7, frameon=False)
    figure.suptitle(f"AUROC over training, by {curves.labels}", fontsize=10)
    return figure


def _forms(curves: LearningCurves) -> list[str]:
    """Return the forms of score that the curves have."""
    known = {form for points in curves.points.values() for point in points for form in point.auroc}
    return [form for form in (*FORMS, CRITIC) if form in known]


def _draw(ax: Axes, method: str, points: Mapping[float, CurvePoint], form: str) -> None:
    colour, marker = look(method)
    means = [point.auroc[form] for point in points.values()]
    value, low, high = ([getattr(mean.estimate, end) for mean in means] for end in ("value", "low", "high"))
    ax.plot(list(points), value, color=colour, marker=marker, markersize=3, label=method)
    ax.fill_between(list(points), low, high, color=colour, alpha=0.1, linewidth=0)
    for at, mean in zip(points, means, strict=True):
        ax.plot([at] * len(mean.seeds), list(mean.seeds.values()), ".", color=colour, markersize=2)


def progress_table(curves: LearningCurves, method: str) -> pd.DataFrame:
    """Return a row for each point of a method's training: its AUROC, and its health, the mean over the seeds."""
    rows = {}
    for point in curves.points[method]:
        row = {"CPU minutes": f"{point.cpu_seconds / 60:.0f}"}
        row |= {form: estimate_text(mean.estimate) for form, mean in point.auroc.items()}
        measured = [
            at.health for of_seed in curves.health[method].values() for at in of_seed if at.epochs == point.epochs
        ]
        row["residual"] = _mean([one.residual for one in measured], ".4f")
        row["Fréchet distance"] = _mean([one.frechet for one in measured], ",.0f")
        row["KL generated / real"] = _mean([one.kl_gap for one in measured], ".2f")
        row["seeds that meet every mark"] = f"{sum(not one.lacks for one in measured)} of {len(measured)}"
        rows[f"{point.images_seen:,}"] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(f"{method}, images seen")


def _mean(values: Iterable[float | None], form: str) -> str:
    known = [value for value in values if value is not None]
    return format(fmean(known), form) if known else GAP


def curve_table(curves: LearningCurves, others: Iterable[str]) -> pd.DataFrame:
    """Return how the compared method differs from these others at its last point that each of the terms knows."""
    last: dict[tuple[str, str], dict[str, CurveDifference]] = {}
    for one in [one for one in curves.differences if one.second in set(others)]:
        last.setdefault((one.second, one.terms), {})[one.form] = one
    rows = {}
    for (second, terms), by_form in last.items():
        one = next(iter(by_form.values()))
        when = f"after {one.images_seen:,} images" if second not in curves.points else f"equal {terms}"
        name = f"{one.first} − {second}, {'each at its end' if terms == 'end' else when}"
        rows[name] = {form: difference_text(by_form[form]) if form in by_form else GAP for form in _forms(curves)}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("difference of AUROC")


def difference_text(difference: CurveDifference) -> str:
    """Return which ranks higher, the difference, its interval over patients, and that with seeds as draws."""
    mean, order = difference.auroc, {-1: "below", 0: "not told apart", 1: "above"}[difference.order]
    drawn = f"; seeds as draws [{mean.drawn[0]:+.2f}, {mean.drawn[1]:+.2f}]" if mean.drawn else ""
    return f"{order}: {estimate_text(mean.estimate, signed=True)}{drawn}"
