"""What networks carry and copy -> matplotlib `Figure`: numbers by layer, skips that are cut."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from lib.figures.images import image_grid
from lib.figures.style import GREY, Drawing, look


def carried_numbers(counts: Mapping[str, Sequence[int]], pixels: int) -> Figure:
    """Draw the numbers that carry an image at each layer (`lib.scores.copying.carried`), beside its pixels.

    Methods with the same numbers share a curve.
    """
    alike: dict[tuple[int, ...], list[str]] = {}
    for name, numbers in counts.items():
        alike.setdefault(tuple(numbers), []).append(name)
    figure = Drawing(figsize=(10, 3.6), layout="constrained")
    ax = figure.subplots()
    for curve, names in alike.items():
        colour, marker = look(names[0])
        label = "\n".join([*names, f"(at least {min(curve):,})"])
        ax.plot(np.linspace(0, 1, len(curve)), curve, color=colour, marker=marker, markersize=4, label=label)
    ax.axhline(pixels, color=GREY, linestyle=":")
    ax.set(yscale="log", ylabel="numbers that carry the image", xticks=[0, 1], xticklabels=["input", "reconstruction"])
    narrow = [f"{', '.join(names)} ({min(curve):,})" for curve, names in alike.items() if min(curve) < pixels]
    ax.set_title(f"Narrower than the image's {pixels:,} pixels: {'; '.join(narrow) or 'none'}", fontsize=10)
    if alike:
        ax.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def skips_cut(
    method: str, image: np.ndarray, reconstructed: Mapping[str, np.ndarray], off: Mapping[str, float]
) -> Figure:
    """Draw an image with a square and its reconstructions, (H, W), by a method whose skips are cut, by cut.

    `off` is the mean absolute difference inside the square (`lib.scores.copying.cut_skips`).
    """
    titles = [f"{method}: input", *(f"{cut}\nsquare off by {off[cut]:.2f}" for cut in reconstructed)]
    pictures = np.stack([image, *reconstructed.values()])
    return image_grid(pictures, titles, columns=len(pictures))


def copied_text(shares: Mapping[str, Mapping[str, float]], residuals: Mapping[str, float]) -> str:
    """Return what each method copies, as a Markdown list; `residuals` are the means on new normal images."""
    return "\n".join(
        f"- *{name}* copies {round(100 * share['square'])} % of a square and {round(100 * share['shuffle'])} % of a "
        f"shuffled patch; its mean residual on new normal images is {residuals[name]:.3f}."
        for name, share in shares.items()
    )
