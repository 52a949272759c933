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
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Polygon
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import roc_curve

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
    limit: float | None = None,
) -> Figure:
    """One row an image: the input, then each method's reconstruction and residual |x - r|, all arrays (n, [1,] H, W).

    All residuals share the limits 0 to `limit`, by default the 99.5th percentile of all that are shown.
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
    limit = limit or float(np.percentile(list(residuals.values()), 99.5)) or 1.0  # all equal: any limit will do

    columns = 1 + 2 * len(made)
    cell = (WIDTH - 1.4) / max(columns, 4)  # the colour bar takes the rest
    size = (cell * columns + 1.4, (cell * images.shape[1] / images.shape[2] + 0.2) * len(images) + 0.4)
    figure = Drawing(figsize=size, layout="constrained")
    grid = figure.subplots(len(images), columns, squeeze=False)
    for i, row in enumerate(grid):
        show_xray(row[0], images[i], "input" if i == 0 else "")
        row[0].set_ylabel(titles[i], fontsize=9)
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


def loss_curves(history: Sequence[dict]) -> Figure:
    """One panel a part: its losses over the epochs, from rows such as {"epoch": 3, "encoder/total": 0.4, …}."""
    if not history or "epoch" not in history[0]:
        raise ValueError("history has no row with an 'epoch', expected one row an epoch: train first")
    rows = pd.DataFrame(list(history))
    parts: dict[str, list[str]] = {}
    for key in rows.columns:
        if "/" in key:
            parts.setdefault(key.split("/")[0], []).append(key)
    if not parts:
        raise ValueError(f"history has {list(rows.columns)}, expected losses named part/loss, as in 'encoder/total'")

    figure = Drawing(figsize=(WIDTH if len(parts) > 1 else 6, 3.4), layout="constrained")
    for ax, (part, keys) in zip(figure.subplots(1, len(parts), squeeze=False)[0], parts.items(), strict=True):
        for i, key in enumerate(keys):
            name = key.split("/", 1)[1]
            look = {"color": INK, "linewidth": 2} if name == "total" else {"color": PALETTE[(i + 2) % len(PALETTE)]}
            ax.plot(rows["epoch"], rows[key], label=name, marker="o" if len(rows) < 15 else "", markersize=3, **look)
        lead = f"{part}/total" if f"{part}/total" in keys else keys[0]
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


def shown(estimate: dict) -> str:
    """An estimate of `results` as "0.71 [0.61, 0.80]"."""
    return f"{estimate['value']:.2f} [{estimate['low']:.2f}, {estimate['high']:.2f}]"


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


def sketched_chest(spot: bool) -> np.ndarray:
    """A child's drawing of a chest film, (128, 128) in [0, 1]: two dark lungs, a heart, and perhaps a white spot."""
    y, x = np.mgrid[-1:1:128j, -1:1:128j]

    def ellipse(across: float, down: float, width: float, height: float) -> np.ndarray:
        radius = ((x - across) / width) ** 2 + ((y - down) / height) ** 2
        return 0.5 - 0.5 * np.tanh(6 * (radius - 1))  # a soft edge

    lungs = np.maximum(ellipse(-0.42, 0, 0.32, 0.7), ellipse(0.42, 0, 0.32, 0.7))
    image = 0.75 * ellipse(0, 0.2, 0.95, 1.2) - 0.55 * lungs * (1 - ellipse(0.15, 0.35, 0.3, 0.3))
    return np.clip(image + (0.5 * ellipse(-0.45, 0.1, 0.13, 0.13) if spot else 0), 0, 1)


def reconstruct_and_compare(image: np.ndarray | None = None, reconstruction: np.ndarray | None = None) -> Figure:
    """The idea in one drawing: an image and its reconstruction, both (H, W) in [0, 1] or uint8, or else sketches."""
    if (image is None) != (reconstruction is None):
        raise ValueError("one of image and reconstruction is missing, expected both, or neither for a sketch")
    if image is None or reconstruction is None:
        image, reconstruction = sketched_chest(spot=True), sketched_chest(spot=False)
    if np.shape(image) != np.shape(reconstruction) or np.ndim(image) != 2:
        raise ValueError(
            f"image {np.shape(image)}, reconstruction {np.shape(reconstruction)}: expected the same (H, W)"
        )
    given = {"image": image, "reconstruction": reconstruction}
    image, reconstruction = (greys(name, np.asarray(one)[None])[0] for name, one in given.items())
    residual = np.abs(image - reconstruction)
    limit = float(np.percentile(residual, 99.5)) or 1.0

    figure = Drawing(figsize=(WIDTH, 2.9))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, WIDTH), ylim=(0, 2.9))
    low, high = 0.75, 2.35  # inches, bottom and top of the pictures
    middle = (low + high) / 2
    pictures = {
        "input": (0.15, image, {"cmap": "gray", "vmin": 0, "vmax": 1}),
        "reconstruction": (4.35, reconstruction, {"cmap": "gray", "vmin": 0, "vmax": 1}),
        f"|difference|, 0 to {limit:.2f}": (6.5, residual, {"cmap": RESIDUALS, "vmin": 0, "vmax": limit}),
    }
    for name, (left, picture, look) in pictures.items():
        ax.imshow(picture, extent=(left, left + high - low, low, high), aspect="auto", **look)
        ax.text(left + (high - low) / 2, high + 0.1, name, ha="center", va="bottom", fontsize=10, color=INK)
    for x in (2.3, 3.7):  # two halves that meet in a narrow waist
        outer, inner = (x - 0.1, 3.0) if x < 3 else (x, 3.0)
        corners = [(outer, low + 0.1), (outer, high - 0.1), (inner, middle + 0.22), (inner, middle - 0.22)]
        ax.add_patch(Polygon(corners, facecolor="0.92", edgecolor=INK, linewidth=1))
    ax.text(2.95, high + 0.1, "model", ha="center", va="bottom", fontsize=10, color=INK)
    ax.text(2.95, low - 0.1, "has seen only\nnormal chests", ha="center", va="top", fontsize=9, color=INK)
    score = FancyBboxPatch((8.6, middle - 0.35), 1.2, 0.7, boxstyle="round,pad=0.05", facecolor="0.92", edgecolor=INK)
    ax.add_patch(score)
    ax.text(9.2, middle, f"score = mean\n= {residual.mean():.3f}", ha="center", va="center", fontsize=10, color=INK)
    for start, stop in ((1.8, 2.15), (3.75, 4.3), (6.0, 6.45), (8.15, 8.5)):
        ax.add_patch(FancyArrowPatch((start, middle), (stop, middle), arrowstyle="-|>", mutation_scale=12, color=INK))
    ax.plot([0.95, 0.95, 7.3], [low - 0.05, 0.2, 0.2], color=INK, linewidth=1)  # the input is also compared
    ax.add_patch(FancyArrowPatch((7.3, 0.2), (7.3, low - 0.02), arrowstyle="-|>", mutation_scale=12, color=INK))
    ax.set_axis_off()
    return figure
