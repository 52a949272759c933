"""Images and losses -> matplotlib `Figure`; never shows, saves, or touches pyplot's state.

A method has the same colour and marker in every figure of every run, X-rays one grey scale (0 black, 1 white),
residuals one colour map whose limits are printed. Figures are made for the width of a notebook.
"""

import math
import sys
from collections.abc import Sequence
from io import BytesIO
from textwrap import fill

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lib.evaluation import FilmStack

WIDTH = 10  # inches
PALETTE = sns.color_palette("colorblind")
GREY, INK = "0.6", "0.15"
RESIDUALS = "magma"
LOOKS = {  # the methods of `lib.arms`
    "unet": ("#0173b2", "o"),
    "ra": ("#de8f05", "s"),
    "unet-denoising": ("#029e73", "^"),
    "unet-no-skips": ("#56b4e9", "v"),
    "unet-noisy-skips": ("#6a51a3", "D"),
    "unet-masked": ("#cc78bc", "<"),
    "si-vae": ("#d55e00", ">"),
    "vae": ("#8c510a", "p"),
    "ae-16": ("#4d4d4d", "P"),
    "ae-4": ("#b3a100", "X"),
}


class Drawing(Figure):
    """A figure that a notebook shows as a picture; matplotlib's own needs pyplot and `%matplotlib inline` for that."""

    def _repr_png_(self) -> tuple[bytes, dict[str, str]]:
        png = BytesIO()
        self.savefig(png, format="png")
        return png.getvalue(), {"alt": self.alt(), "figure": str(self.get_label())}

    def __repr__(self) -> str:
        return self.alt() or super().__repr__()  # a notebook keeps it beside the picture, and VS Code reads it out

    def alt(self) -> str:
        """Return in words what the figure shows, from its titles, axes and legends: the text that stands for it."""
        films = [ax for ax in self.axes if ax.images]
        said = [self.get_suptitle()]
        if films:
            words = [ax.get_title() for ax in films] + [ax.get_ylabel() for ax in films]
            named = "; ".join(dict.fromkeys(filter(None, words))) or str(self.get_label())
            said.append(": ".join(filter(None, (f"{len(films)} pictures", named))))
        for ax in [ax for ax in self.axes if not ax.images]:
            legend = ax.get_legend()
            axes = " over ".join(filter(None, (ax.get_ylabel(), ax.get_xlabel())))
            entries = "; ".join(text.get_text() for text in legend.get_texts()) if legend else ""
            said.append(": ".join(filter(None, (ax.get_title(), axes, entries))))
        said += ["; ".join(text.get_text() for text in legend.get_texts()) for legend in self.legends]
        return ". ".join(" ".join(words.split()) for words in said if words)


if shell := getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)():
    shell.display_formatter.formatters["image/png"].for_type(Drawing, Drawing._repr_png_)  # or pyplot's for any Figure


def look(row: str) -> tuple[str, str]:
    """The colour of a method, or of one of its scores ("ra, chosen"), and a marker for those who see no colours."""
    return LOOKS.get(row.partition(",")[0], (GREY, "."))


def panels(
    n: int, height: float, most: int = 5, sharex: bool = False, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure of n panels of this height, inches, in rows of up to `most`, as equal as can be."""
    rows = math.ceil(n / most)
    columns = math.ceil(n / rows)
    width = WIDTH * min(1, max(columns, 1.5) / 3)
    figure = Drawing(figsize=(width, height * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey).ravel()
    for ax in grid[n:]:
        ax.remove()
    return figure, list(grid[:n])


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
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    cell = WIDTH / max(columns, 4)
    titles = check_count("titles", titles, len(images))
    titles = ["\n".join(fill(line, int(cell * 12)) for line in title.split("\n")) for title in titles]
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
            left.title.set(color=look(name)[0], fontweight="bold")
            residual = right.imshow(residuals[name][i], cmap=RESIDUALS, vmin=0, vmax=limit)
            right.set(xticks=[], yticks=[])
            right.set_title("residual" if i == 0 else "", fontsize=9)
            right.set_xlabel(f"mean {residuals[name][i].mean():.3f}", fontsize=8)
    bar = figure.colorbar(residual, ax=grid, extend="max", fraction=0.03, aspect=30, shrink=min(1, 2 / len(images)))
    bar.set_label(f"|input − reconstruction|, 0 to {limit:.2g}\n(grey levels, white = 1)", fontsize=9)
    return figure


def cases(
    images: FilmStack,
    reconstructed: dict[str, np.ndarray],
    test: pd.DataFrame,
    method: str,
    labels: str,
    lesions: dict[str, np.ndarray],
) -> Figure:
    """The best and the worst of one method: abnormal images found and missed, normal ones passed and falsely alarmed.

    `test` holds the rows of the test side in the order of `images` and of each method's `reconstructed`; `lesions` are
    masks by id. Two images a kind, by the score of `method`; the first two of the other methods are shown beside it.
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
    beside = [method, *(name for name in reconstructed if name != method)][:3]
    shown_methods = {name: made[chosen] for name, made in reconstructed.items() if name in beside}
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

    figure, grid = panels(len(parts), 3.2, most=3)
    for ax, (part, keys) in zip(grid, sorted(parts.items()), strict=True):
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
