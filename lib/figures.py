"""Data -> matplotlib `Figure`; never shows, saves, or touches pyplot's state.

A method has the same colour in every figure, X-rays one grey scale (0 black, 1 white), residuals one colour map whose
limits are printed. Figures are made for the width of a notebook.
"""

import math
from collections.abc import Sequence
from io import BytesIO

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import roc_curve

from lib.evaluation import shown

WIDTH = 10  # inches
PALETTE = sns.color_palette("colorblind")
GREY, INK = "0.6", "0.15"
RESIDUALS = "magma"
COLOURS = {"unet": PALETTE[0], "ra": PALETTE[1]}  # others join when they are first drawn


class Drawing(Figure):
    """A figure that a notebook shows as a picture; matplotlib's own needs pyplot and `%matplotlib inline` for that."""

    def _repr_png_(self) -> bytes:
        png = BytesIO()
        self.savefig(png, format="png")
        return png.getvalue()


def colour(method: str) -> tuple[float, float, float]:
    """The colour of `method`: fixed for the two that are compared, the next free one for others, kept from then on."""
    return COLOURS.setdefault(method, PALETTE[len(COLOURS) % len(PALETTE)])


def greys(name: str, images: np.ndarray) -> np.ndarray:
    """`images` as (n, H, W) floats in [0, 1]; ValueError by `name` for another shape or range."""
    images = np.asarray(images)
    if images.dtype == np.uint8:
        images = images / 255
    shape = images.shape
    if images.ndim == 4 and shape[1] == 1:
        images = images[:, 0]
    if images.ndim != 3 or not images.size:
        raise ValueError(f"{name} has shape {shape}, expected (n, H, W) or (n, 1, H, W) with n > 0")
    if not (images.min() >= 0 and images.max() <= 1):
        raise ValueError(f"{name} lies in [{images.min()}, {images.max()}], expected [0, 1], or uint8: rescale it")
    return images


def check_count(name: str, items: Sequence | None, n: int) -> Sequence:
    """`items`, or n empty texts for None; ValueError by `name` if there are not n."""
    if items is not None and len(items) != n:
        raise ValueError(f"{len(items)} {name} for {n} images, expected one an image")
    return [""] * n if items is None else items


def show_xray(ax: Axes, image: np.ndarray, title: str = "") -> None:
    """Draw one (H, W) image on the grey scale that all X-rays share."""
    ax.imshow(image, cmap="gray", vmin=0, vmax=1)
    ax.set_title(title, fontsize=9)
    ax.set(xticks=[], yticks=[])


def image_grid(images: np.ndarray, titles: Sequence[str] | None = None, columns: int = 8) -> Figure:
    """Images (n, H, W) or (n, 1, H, W), in [0, 1] or uint8, side by side, each under its title."""
    images = greys("images", images)
    titles = check_count("titles", titles, len(images))
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    cell = WIDTH / max(columns, 4)
    room = 0.25 if any(titles) else 0  # inches above a row
    size = (cell * columns, (cell * images.shape[1] / images.shape[2] + room) * rows)
    figure = Drawing(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, image, title in zip(grid, images, titles, strict=False):
        show_xray(ax, image, title)
    for ax in grid[len(images) :]:
        ax.remove()
    return figure


def reconstructions(
    images: np.ndarray,
    reconstructions: dict[str, np.ndarray],
    titles: Sequence[str] | None = None,
    lesions: Sequence[np.ndarray | None] | None = None,
) -> Figure:
    """One row an image: the input, then each method's reconstruction and residual |x - r|, all arrays (n, [1,] H, W).

    All residuals share the limits 0 to the 99.5th percentile of all that are shown. `lesions`, one mask (H, W) or None
    an image, are outlined in the input.
    """
    images = greys("images", images)
    titles = check_count("titles", titles, len(images))
    made = {name: greys(f"reconstructions[{name!r}]", array) for name, array in reconstructions.items()}
    for name, array in made.items():
        if array.shape != images.shape:
            raise ValueError(f"reconstructions[{name!r}] has shape {array.shape}, the images {images.shape}")
    if not made:
        raise ValueError("reconstructions is empty, expected at least one method's")
    residuals = {name: np.abs(images - array) for name, array in made.items()}
    limit = float(np.percentile(list(residuals.values()), 99.5)) or 1.0  # all equal: any limit will do

    columns = 1 + 2 * len(made)
    cell = (WIDTH - 1.4) / max(columns, 4)  # the colour bar takes the rest
    size = (cell * columns + 1.4, (cell * images.shape[1] / images.shape[2] + 0.2) * len(images) + 0.4)
    figure = Drawing(figsize=size, layout="constrained")
    grid = figure.subplots(len(images), columns, squeeze=False)
    for i, row in enumerate(grid):
        show_xray(row[0], images[i], "input" if i == 0 else "")
        row[0].set_ylabel(titles[i], fontsize=9)
        if lesions is not None and lesions[i] is not None:
            row[0].contour(lesions[i], levels=[0.5], colors=["tab:red"], linewidths=1)
        for left, right, name in zip(row[1::2], row[2::2], made, strict=True):
            show_xray(left, made[name][i], name if i == 0 else "")
            left.title.set(color=colour(name), fontweight="bold")
            residual = right.imshow(residuals[name][i], cmap=RESIDUALS, vmin=0, vmax=limit)
            right.set(xticks=[], yticks=[])
            right.set_title("residual" if i == 0 else "", fontsize=9)
            right.set_xlabel(f"mean {residuals[name][i].mean():.3f}", fontsize=8)
    bar = figure.colorbar(residual, ax=grid, extend="max", fraction=0.03, aspect=30, shrink=min(1, 2 / len(images)))
    bar.set_label(f"|input − reconstruction|, 0 to {limit:.2g}\n(grey levels, white = 1)", fontsize=9)
    return figure


def cases(
    images: np.ndarray,
    reconstructed: dict[str, np.ndarray],
    test: pd.DataFrame,
    method: str,
    labels: str,
    lesions: dict[str, np.ndarray],
) -> Figure:
    """The best and the worst of one method: abnormal images found and missed, normal ones passed and falsely alarmed.

    `test` holds the rows of the test side in the order of `images` and of each method's `reconstructed`; `lesions` are
    masks by id. Two images a kind, by the score of `method`; the other methods are shown beside it.
    """
    rows = {kind: test[test[labels] == kind].sort_values(method).index for kind in ("normal", "abnormal")}
    kinds = {
        "found": rows["abnormal"][::-1][:2],
        "missed": rows["abnormal"][:2],
        "passed": rows["normal"][:2],
        "false alarm": rows["normal"][::-1][:2],
    }
    chosen = [i for indices in kinds.values() for i in indices]
    titles = [
        f"{kind}\n{(test['finding'][i] or test[labels][i]).split('|')[0]}\nscore {test[method][i]:.3f}"
        for kind, indices in kinds.items()
        for i in indices
    ]
    shown_methods = {name: made[chosen] for name, made in reconstructed.items()}
    return reconstructions(images[chosen], shown_methods, titles, [lesions.get(test["id"][i]) for i in chosen])


def loss_curves(history: Sequence[dict]) -> Figure:
    """One panel a part, and one for its KLs: from rows such as {"epoch": 3, "encoder/total": 0.4, …}."""
    if not history or "epoch" not in history[0]:
        raise ValueError("history has no row with an 'epoch', expected one row an epoch: train first")
    rows = pd.DataFrame(list(history))
    parts: dict[str, list[str]] = {}
    for key in rows.columns:
        if "/" in key:
            part, name = key.split("/", 1)
            parts.setdefault(f"{part}, KL in nats" if name.startswith("kl_") else part, []).append(key)
    if not parts:
        raise ValueError(f"history has {list(rows.columns)}, expected losses named part/loss, as in 'encoder/total'")

    columns = min(len(parts), 3)
    rows_of_panels = math.ceil(len(parts) / columns)
    figure = Drawing(figsize=(WIDTH if len(parts) > 1 else 6, 3.2 * rows_of_panels), layout="constrained")
    grid = figure.subplots(rows_of_panels, columns, squeeze=False).ravel()
    for ax in grid[len(parts) :]:
        ax.remove()
    for ax, (part, keys) in zip(grid, sorted(parts.items()), strict=False):
        for i, key in enumerate(keys):
            name = key.split("/", 1)[1]
            look = {"color": INK, "linewidth": 2} if name == "total" else {"color": PALETTE[(i + 2) % len(PALETTE)]}
            ax.plot(rows["epoch"], rows[key], label=name, marker="o" if len(rows) < 15 else "", markersize=3, **look)
        lead = next((key for key in keys if key.endswith("/total")), keys[0])
        known = rows[lead].dropna()
        ax.set_title(f"{part}: {lead.split('/', 1)[1]} {known.iloc[0]:.3g} → {known.iloc[-1]:.3g}", fontsize=10)
        low, high = rows[keys].min().min(), rows[keys].max().max()
        scale = "log" if 0 < 20 * low < high else "linear"
        ax.set(xlabel="epoch", ylabel=f"mean over the epoch, {scale} scale", yscale=scale)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        ax.legend(fontsize=8, frameon=False)
        sns.despine(ax=ax)
    return figure


def percent(share: float) -> str:
    """A share in [0, 1] as "95 %"."""
    return f"{100 * share:.0f} %"


def headline(results: dict) -> str:
    """What the AUROCs of `results` say about the best method and the next best."""
    areas = {name: one["auroc"]["value"] for name, one in results["methods"].items()}
    best, *others = sorted(areas, key=areas.get, reverse=True)
    if not others:
        return f"{best}: AUROC {shown(results['methods'][best]['auroc'])}"
    pair = next(one for one in results["differences"] if {one["first"], one["second"]} == {best, others[0]})
    sign = 1 if pair["first"] == best else -1
    low, high = sorted((sign * pair["auroc"]["low"], sign * pair["auroc"]["high"]))
    gain = f"AUROC {sign * pair['auroc']['value']:+.2f} [{low:+.2f}, {high:+.2f}]"
    return (
        f"{best} ranks better than {others[0]}: {gain}" if low > 0 else f"{best} and {others[0]} not told apart: {gain}"
    )


def groups_of(table: pd.DataFrame, method: str, labels: str) -> dict[str, np.ndarray]:
    """Scores of `method` by who the images are: validation, test normal, test abnormal."""
    if missing := {"side", labels, method} - set(table.columns):
        raise ValueError(f"no column {sorted(missing)} in the table; it has {list(table.columns)}")
    test = table["side"] == "test"
    rows = {"normal, validation": table["side"] == "validation"}
    rows |= {f"{kind}, test": test & (table[labels] == kind) for kind in ("normal", "abnormal")}
    return {name: table.loc[chosen, method].to_numpy(float) for name, chosen in rows.items()}


def roc_curves(table: pd.DataFrame, methods: Sequence[str], labels: str, results: dict) -> Figure:
    """Sensitivity over false alarms of each method, for what `evaluate_scores(table, methods, labels=labels)` gave.

    A dot marks the threshold that was chosen on validation normals.
    """
    figure = Drawing(figsize=(WIDTH * 0.8, 5), layout="constrained")
    ax = figure.subplots()
    ax.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="chance  0.50")
    for method in methods:
        groups = groups_of(table, method, labels)
        normal, abnormal = groups["normal, test"], groups["abnormal, test"]
        scores = np.concatenate([normal, abnormal])
        alarms, found, _ = roc_curve(np.arange(len(scores)) >= len(normal), scores, drop_intermediate=False)
        one = results["methods"][method]
        ax.plot(alarms, found, color=colour(method), linewidth=2, label=f"{method}  {shown(one['auroc'])}")
        point = 1 - one["threshold"]["specificity"], one["threshold"]["sensitivity"]
        ax.plot(*point, "o", color=colour(method), markeredgecolor="white", markersize=9, zorder=3, clip_on=False)
    rate = one["threshold"]["false_alarm_rate"]
    ax.plot([], [], "o", color=INK, markeredgecolor="white", markersize=9)
    ax.lines[-1].set_label(f"threshold for {percent(rate)} false\nalarms in validation")
    ax.set(xlabel="share of normal images called abnormal", ylabel="share of abnormal images found", aspect="equal")
    ax.set(xlim=(0, 1), ylim=(0, 1))
    ax.set_title(f"{headline(results)}\n{results['n_normal']} normal, {results['n_abnormal']} abnormal", fontsize=11)
    title = f"AUROC [{percent(results['level'])} interval]"
    legend = ax.legend(title=title, loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False, fontsize=9)
    legend.set_alignment("left")
    sns.despine(ax=ax)
    return figure


def score_histograms(table: pd.DataFrame, methods: Sequence[str], labels: str, results: dict) -> Figure:
    """One panel a method: where normal and abnormal images score, and the threshold from validation normals."""
    columns = min(len(methods), 3)
    rows = math.ceil(len(methods) / columns)
    figure = Drawing(figsize=(max(WIDTH * columns / 3, 5), 3.4 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, method in zip(grid, methods, strict=False):
        groups, threshold = groups_of(table, method, labels), results["methods"][method]["threshold"]
        edges = np.histogram_bin_edges(np.concatenate(list(groups.values())), bins=25)
        looks = (
            {"histtype": "step", "color": INK, "linewidth": 1.2},
            {"color": GREY, "alpha": 0.6},
            {"color": colour(method), "alpha": 0.6},
        )
        for (name, scores), look in zip(groups.items(), looks, strict=True):
            shares = np.full(len(scores), 100 / max(len(scores), 1))
            ax.hist(scores, edges, weights=shares, label=f"{name} ({len(scores)})", **look)
        line = {"color": INK, "linestyle": "--", "linewidth": 1, "label": f"threshold {threshold['value']:.3g}"}
        ax.axvline(threshold["value"], ymax=1 / 1.45, **line)
        found, alarms = threshold["sensitivity"], 1 - threshold["specificity"]
        ax.set_title(f"{method}\n{percent(found)} found, {percent(alarms)} false alarms", fontsize=10)
        ax.set(xlabel="anomaly score", ylabel="images of the group per bin, %")
        ax.set_ylim(0, ax.get_ylim()[1] * 1.45)  # room for the legend
        ax.legend(fontsize=8, frameon=False, loc="upper right")
        sns.despine(ax=ax)
    for ax in grid[len(methods) :]:
        ax.remove()
    return figure


def findings_forest(results: dict) -> Figure:
    """AUROC and interval of every method, for all abnormal images and for each finding, against the same normals."""
    methods = results["methods"]
    findings = next(iter(methods.values()))["findings"]
    names = sorted(findings, key=lambda name: -findings[name]["n"])
    labels = [f"all abnormal ({results['n_abnormal']})", *(f"{name} ({findings[name]['n']})" for name in names)]
    step = 0.7 / len(methods)
    height = 1.4 + len(labels) * max(0.3, 0.16 * len(methods))
    figure = Drawing(figsize=(WIDTH * 0.85, height), layout="constrained")
    ax = figure.subplots()
    ax.axvline(0.5, color=GREY, linestyle=":")
    for i, (method, one) in enumerate(methods.items()):
        rows = [one["auroc"], *(one["findings"][name]["auroc"] for name in names)]
        drawn = [(y + (i - (len(methods) - 1) / 2) * step, row) for y, row in enumerate(rows) if row]
        ys, values = [y for y, _ in drawn], [row["value"] for _, row in drawn]
        ax.hlines(ys, [row["low"] for _, row in drawn], [row["high"] for _, row in drawn], color=colour(method))
        ax.plot(values, ys, "o", color=colour(method), markersize=5, label=method)
    for y, name in enumerate(names, start=1):
        if findings[name]["n"] and all(one["findings"][name]["auroc"] is None for one in methods.values()):
            ax.text(0.505, y, "too few images", color=INK, fontsize=8, va="center", style="italic")
    ax.axhline(0.5, color=GREY, linewidth=0.5)
    ax.set_yticks(range(len(labels)), labels)
    ax.set(ylim=(len(labels) - 0.5, -0.5), xlabel=f"AUROC against {results['n_normal']} normal images")
    ax.set_title(
        f"{headline(results)}\n{percent(results['level'])} intervals, number of images in brackets", fontsize=11
    )
    ax.legend(loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False, fontsize=9)
    sns.despine(ax=ax, left=True)
    ax.tick_params(axis="y", length=0)
    return figure
