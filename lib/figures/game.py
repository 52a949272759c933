"""A variational autoencoder, its game and its reversal -> matplotlib `Figure`."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib.figures.images import image_grid
from lib.figures.style import GREY, INK, Drawing, look


def variational(columns: Mapping[str, np.ndarray], notes: Mapping[str, str]) -> Figure:
    """Draw two images and what a VAE makes of them: a row an image, a column each of `columns`, (n, 1, H, W).

    `notes` stand above the second row, by column.
    """
    pictures = np.stack([stack[row] for row in range(2) for stack in columns.values()])
    titles = [*columns, *(notes.get(name, "") for name in columns)]
    return image_grid(pictures.clip(0, 1), titles, columns=len(columns))


def players(
    method: str,
    history: Sequence[Mapping[str, float]],
    kl: Mapping[str, np.ndarray],
    medians: Mapping[str, float],
    rejection: float,
    plateau: float,
) -> Figure:
    """Draw the game between encoder and decoder.

    Left the mean KL in training, in the middle the `kl`, (n,) in nats, of "real", "reconstruction" and "sample" images
    that are new, right the error and the critic's term. `medians` are those of `kl`, `rejection` is the mean of the
    exponential over the samples, `plateau` the KL in nats at which the critic's push and pull are equal.
    """
    shades = {"real": INK, "reconstruction": look(method)[0], "sample": "0.65"}
    figure = Drawing(figsize=(10, 3.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    rows = pd.DataFrame(list(history))
    for kind, marker in zip(shades, "os^", strict=True):
        style = {"color": shades[kind], "marker": marker, "markersize": 3}
        if (column := f"encoder/kl_{kind}") in rows:
            left.plot(rows["epoch"], rows[column], label=kind, **style)
        middle.plot(np.sort(kl[kind]), np.linspace(0, 1, len(kl[kind])), **style)
    if np.isfinite(plateau):
        left.axhline(plateau, color=GREY, linestyle=":", label="plateau")
    left.set(xlabel="epoch", ylabel="mean KL, nats", title="in training")
    left.legend(fontsize=8, frameon=False)
    middle.set(xlabel="KL, nats", ylabel="share of images with a lower KL", title="on new images")
    if "decoder/reconstruction" in rows:
        right.plot(rows["epoch"], rows["decoder/reconstruction"], ".-", color=INK, label="reconstruction error")
    if "encoder/rejection" in rows:
        right.plot(rows["epoch"], rows["encoder/rejection"], ".--", color=shades["reconstruction"], label="rejection")
    right.set(xlabel="epoch", ylabel="mean over the epoch, log scale", yscale="log", title="error and rejection")
    right.legend(fontsize=8, frameon=False)
    played = [] if "encoder/rejection" not in rows else rows["epoch"][rows["encoder/rejection"].notna()]
    for ax in (left, right):
        ax.axvspan(rows["epoch"].min(), min(played, default=rows["epoch"].max()), color="0.93", zorder=0)
    figure.suptitle(
        f"{method}: median KL of real images {medians['real']:.0f} nats, of their reconstructions "
        f"{medians['reconstruction']:.0f}, of samples {medians['sample']:.0f}; mean exp(…) of the samples "
        f"{rejection:.2g}",
        fontsize=10,
    )
    return figure


def embedding_levels(
    image: np.ndarray, reconstruction: np.ndarray, distances: Sequence[float], maps: Sequence[np.ndarray]
) -> Figure:
    """Draw where an image and its reconstruction, (H, W), disagree to the encoder: a map, (h, w), for each level.

    Each map is enlarged to the image and drawn up to its own maximum, under its part of the embedding loss.
    """
    pictures, titles = [image, reconstruction], ["image", "reconstruction"]
    for level, (distance, disagreement) in enumerate(zip(distances, maps, strict=True), 1):
        times = image.shape[0] // disagreement.shape[0]
        pictures.append(np.kron(disagreement, np.ones((times, times))) / (disagreement.max() or 1))
        titles.append(f"level {level}: {distance:.2f}\n{disagreement.shape[1]} px")
    return image_grid(np.stack(pictures).clip(0, 1), titles, columns=len(pictures))
