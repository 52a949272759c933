"""Images, reconstructions and their residuals -> matplotlib `Figure`.

X-rays share one grey scale (0 black, 1 white), residuals one colour map whose limits are printed.
"""

import math
from collections.abc import Mapping, Sequence
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.data.source import ImageStack
from lib.figures.style import WIDTH, Drawing, look

RESIDUALS = "magma"


def greys(name: str, images: np.ndarray) -> np.ndarray:
    """Return `images` as (n, H, W) floats in [0, 1]; ValueError by `name` for another shape or range."""
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
    """Return `items`, or n empty texts for None; ValueError by `name` if there are not n."""
    if items is not None and len(items) != n:
        raise ValueError(f"{len(items)} {name} for {n} images, expected one for each image")
    return [""] * n if items is None else items


def show_xray(ax: Axes, image: np.ndarray, title: str = "") -> None:
    """Draw one (H, W) image on the grey scale that all X-rays share."""
    ax.imshow(image, cmap="gray", vmin=0, vmax=1)
    ax.set_title(title, fontsize=9)
    ax.set(xticks=[], yticks=[])


def image_grid(images: np.ndarray, titles: Sequence[str] | None = None, columns: int = 8) -> Figure:
    """Draw images, (n, H, W) or (n, 1, H, W), in [0, 1] or uint8, side by side, each under its title."""
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
    reconstructions: Mapping[str, np.ndarray],
    titles: Sequence[str] | None = None,
    lesions: Sequence[np.ndarray | None] | None = None,
) -> Figure:
    """Draw a row for each image: the input, then each method's reconstruction and residual |x - r|.

    All arrays are (n, H, W) or (n, 1, H, W). All residuals share the limits 0 to the 99.5th percentile of those that
    are shown. `lesions`, a mask (H, W) or None for each image, are outlined in the input.
    """
    images = greys("images", images)
    titles = check_count("titles", titles, len(images))
    outputs = {name: greys(f"reconstructions[{name!r}]", array) for name, array in reconstructions.items()}
    for name, array in outputs.items():
        if array.shape != images.shape:
            raise ValueError(f"reconstructions[{name!r}] has shape {array.shape}, the images {images.shape}")
    if not outputs:
        raise ValueError("reconstructions is empty, expected at least one method's")
    residuals = {name: np.abs(images - array) for name, array in outputs.items()}
    limit = float(np.percentile(list(residuals.values()), 99.5)) or 1.0  # all equal: any limit will do

    columns = 1 + 2 * len(outputs)
    cell = (WIDTH - 1.4) / max(columns, 4)  # the colour bar takes the rest
    size = (cell * columns + 1.4, (cell * images.shape[1] / images.shape[2] + 0.2) * len(images) + 0.4)
    figure = Drawing(figsize=size, layout="constrained")
    grid = figure.subplots(len(images), columns, squeeze=False)
    for i, row in enumerate(grid):
        show_xray(row[0], images[i], "input" if i == 0 else "")
        row[0].set_ylabel(titles[i], fontsize=9)
        if lesions is not None and lesions[i] is not None:
            row[0].contour(lesions[i], levels=[0.5], colors=["tab:red"], linewidths=1)
        for left, right, name in zip(row[1::2], row[2::2], outputs, strict=True):
            show_xray(left, outputs[name][i], name if i == 0 else "")
            left.title.set(color=look(name)[0], fontweight="bold")
            residual = right.imshow(residuals[name][i], cmap=RESIDUALS, vmin=0, vmax=limit)
            right.set(xticks=[], yticks=[])
            right.set_title("residual" if i == 0 else "", fontsize=9)
            right.set_xlabel(f"mean {residuals[name][i].mean():.3f}", fontsize=8)
    bar = figure.colorbar(residual, ax=grid, extend="max", fraction=0.03, aspect=30, shrink=min(1, 2 / len(images)))
    bar.set_label(f"|input − reconstruction|, 0 to {limit:.2g}\n(grey levels, white = 1)", fontsize=9)
    return figure


def overlays(pictures: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Draw a row for each image, by its name: pictures (H, W, 3) uint8, of any sizes, each under its title."""
    columns = max(map(len, pictures.values()))
    cell = WIDTH / max(columns, 4)
    figure = Drawing(figsize=(cell * columns, (cell + 0.25) * len(pictures)), layout="constrained")
    for row, (name, of_image) in zip(
        figure.subplots(len(pictures), columns, squeeze=False), pictures.items(), strict=True
    ):
        row[0].set_ylabel(fill(name, int(cell * 12)), fontsize=8)
        for ax, (title, picture) in zip(row, of_image.items(), strict=True):
            ax.imshow(picture)
            ax.set_title(title, fontsize=9)
            ax.set(xticks=[], yticks=[])
    return figure


def cases(
    images: ImageStack,
    reconstructed: Mapping[str, np.ndarray],
    test: pd.DataFrame,
    method: str,
    labels: str,
    lesions: Mapping[str, np.ndarray],
) -> Figure:
    """Draw the best and the worst of one method: abnormal images found and missed, normal ones passed and alarmed.

    `test` holds the rows of the test side in the order of `images` and of each method's `reconstructed`; `lesions` are
    masks by id. There are two images of each kind, by the score of `method`. The first two of the other methods are
    shown beside it.
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
    shown = {name: outputs[chosen] for name, outputs in reconstructed.items() if name in beside}
    return reconstructions(images[chosen], shown, titles, [lesions.get(test["id"][i]) for i in chosen])


def over_training(
    images: ImageStack, by_epochs: Mapping[int, np.ndarray], test: pd.DataFrame, method: str, labels: str
) -> Figure:
    """Draw how a method redraws four test images after some numbers of epochs, each a column.

    `test` and `by_epochs` are as in `cases`. Of the normal and of the abnormal images, those at the first and the third
    quarter of the scores of `method` are shown, which neither flatters nor hides.
    """
    rows = {kind: test[test[labels] == kind].sort_values(method).index for kind in ("normal", "abnormal")}
    chosen = {of_kind[len(of_kind) * part // 4]: kind for kind, of_kind in rows.items() for part in (1, 3)}
    shown, titles = [], []
    for i, kind in chosen.items():
        shown += [greys("images", images[[i]])[0], *(outputs[i] for outputs in by_epochs.values())]
        name = (test["finding"][i] if kind == "abnormal" else "") or kind  # a normal one may carry a mined finding
        titles += [name.split("|")[0], *(f"{epochs} epoch{'s' * (epochs > 1)}" for epochs in by_epochs)]
    return image_grid(np.stack(shown), titles, columns=1 + len(by_epochs))
