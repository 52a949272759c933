"""What all figures share: their size, the look of a method, the text that stands for a figure.

A method has the same colour and marker in every figure of every run. Figures are made for the width of a notebook;
nothing here shows, saves, or touches pyplot's state.
"""

import math
import sys
from io import BytesIO, IOBase
from typing import Any

import matplotlib as mpl
import matplotlib.style
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.mathtext import MathTextParser
from matplotlib.text import Text

from lib.evidence.results import method_of

WIDTH = 10  # inches
PALETTE = sns.color_palette("colorblind")
GREY, INK = "0.6", "0.15"
LOOKS = {  # the methods of `lib.methods.variants`
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


mpl.style.use("default")  # a figure does not depend on a user's matplotlibrc, which may ask for LaTeX (`text.usetex`)


class Drawing(Figure):
    """A figure that a notebook shows as a picture; for matplotlib's own it needs pyplot and `%matplotlib inline`."""

    def savefig(self, fname: Any, **options: Any) -> None:
        """Save the figure; a text whose `$…$` is no formula, as the name of a finding may be, stands as it is."""
        try:
            super().savefig(fname, **options)
        except ValueError:
            texts = [text for text in self.findobj(Text) if text.get_parse_math() and not _is_formula(text.get_text())]
            if not texts:
                raise
            for text in texts:
                text.set_parse_math(False)
            if isinstance(fname, IOBase):  # of which a part may be written
                fname.seek(0)
                fname.truncate()
            self.savefig(fname, **options)

    def _repr_png_(self) -> tuple[bytes, dict[str, str]]:
        png = BytesIO()
        self.savefig(png, format="png")
        return png.getvalue(), {"alt": self.alt(), "figure": str(self.get_label())}

    def __repr__(self) -> str:
        return self.alt() or super().__repr__()  # a notebook keeps it beside the picture, and VS Code reads it out

    def alt(self) -> str:
        """Return in words what the figure shows, from its titles, axes and legends: the text that stands for it."""
        pictures = [ax for ax in self.axes if ax.images]
        sentences = [self.get_suptitle()]
        if pictures:
            words = [ax.get_title() for ax in pictures] + [ax.get_ylabel() for ax in pictures]
            named = "; ".join(dict.fromkeys(filter(None, words))) or str(self.get_label())
            sentences.append(": ".join(filter(None, (f"{len(pictures)} pictures", named))))
        for ax in [ax for ax in self.axes if not ax.images]:
            axes = " over ".join(filter(None, (ax.get_ylabel(), ax.get_xlabel())))
            sentences.append(": ".join(filter(None, (ax.get_title(), axes, _entries(ax.get_legend())))))
        sentences += [_entries(legend) for legend in self.legends]
        return ". ".join(" ".join(sentence.split()) for sentence in sentences if sentence)


def _is_formula(text: str) -> bool:
    try:
        MathTextParser("path").parse(text)
    except ValueError:
        return False
    return True


def _entries(legend: Legend | None) -> str:
    return "; ".join(text.get_text() for text in legend.get_texts()) if legend else ""


if shell := getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)():
    shell.display_formatter.formatters["image/png"].for_type(Drawing, Drawing._repr_png_)  # or pyplot's for any Figure


def look(name: str) -> tuple[str, str]:
    """Return the colour of a method or of one of its scores ("ra, chosen"), and a marker for the colour-blind."""
    return LOOKS.get(method_of(name), (GREY, "."))


def panels(
    n: int, height: float, most: int = 5, sharex: bool = False, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """Return a figure of n panels of this height, in inches, in rows of up to `most`, and the panels."""
    rows = math.ceil(n / most)
    columns = math.ceil(n / rows)
    width = WIDTH * min(1, max(columns, 1.5) / 3)
    figure = Drawing(figsize=(width, height * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey).ravel()
    for ax in grid[n:]:
        ax.remove()
    return figure, list(grid[:n])


def finish(ax: Axes, title: str = "") -> None:
    """Give a chart's axes the look that all share."""
    if title:
        ax.set_title(title, fontsize=9)
    ax.tick_params(labelsize=8)
    sns.despine(ax=ax)
