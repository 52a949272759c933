"""What methods do with normal images, over their training and at its end -> matplotlib `Figure`, table."""

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from lib.evidence.marks import Health, MethodHealth
from lib.evidence.wording import GAP, percent
from lib.figures.progress import log_axis
from lib.figures.style import GREY, INK, finish, look, panels

STYLES = {"real": "-", "reconstruction": "--", "sample": ":"}


def health_curves(histories: Mapping[str, Sequence[Mapping[str, float]]], health: Health) -> Figure:
    """Draw the measures of each method's health over the images that it has seen, beside principal components.

    A history has the measures as "health/residual" and so on, in those of its rows in which they were taken.
    """
    figure, (residual, frechet, kl, detail) = panels(4, 2.9, most=2)
    lines = [(residual, "residual", "-"), (detail, "detail", "-"), (frechet, "frechet", STYLES["reconstruction"])]
    lines += [
        (frechet, "frechet_sample", STYLES["sample"]),
        *((kl, f"kl_{kind}", line) for kind, line in STYLES.items()),
    ]
    for name, history in histories.items():
        rows = pd.DataFrame(list(history)).set_index("images_seen")
        colour, marker = look(name)
        for ax, measure, line in lines:
            if (column := f"health/{measure}") in rows:
                known, label = rows[column].dropna(), name if ax is residual else None
                ax.plot(known.index, known, line, color=colour, marker=marker, markersize=3, label=label)
    for place, (count, redrawn) in enumerate(health.components.items()):
        for ax, value in ((residual, redrawn.residual), (frechet, redrawn.frechet), (detail, redrawn.detail)):
            if value is not None:
                ax.axhline(value, color=GREY, linewidth=0.8)
                at_left = ax.get_yaxis_transform()
                ax.text(0.01 + 0.3 * place, value, f"{count} components", fontsize=7, va="bottom", transform=at_left)
    if health.floor is not None:
        frechet.axhline(health.floor, color=GREY, linestyle=":")
    for kind, line in STYLES.items():
        kl.plot([], [], line, color=INK, label=kind)
    titles = {
        residual: "mean residual",
        frechet: "Fréchet distance",
        kl: "mean KL, nats",
        detail: "share of fine detail that is kept",
    }
    for ax, title in titles.items():
        log_axis(ax)
        ax.set_xlabel("images seen", fontsize=8)
        finish(ax, title)
    for ax in (residual, kl):
        ax.legend(fontsize=7, frameon=False)
    working = [name for name, method in health.methods.items() if not method.lacks]
    figure.suptitle(f"On validation normals. Every mark is met by: {', '.join(working) or 'none'}", fontsize=10)
    return figure


def health_table(health: Health) -> pd.DataFrame:
    """Return one row for each method, and for the components that it is compared with."""

    def number(value: float | None, form: str) -> str:
        return GAP if value is None else format(value, form)

    def kl(method: MethodHealth) -> str:
        nats = (method.kl_real, method.kl_reconstruction, method.kl_sample)
        return " / ".join(number(value, ".0f") for value in nats) if method.kl_gap is not None else GAP

    rows = {
        name: {
            "residual": number(method.residual, ".4f"),
            "Fréchet distance": number(method.frechet, ",.0f"),
            "of samples": number(method.frechet_sample, ",.0f"),
            "detail kept": percent(method.detail),
            "KL real / redrawn / sampled": kl(method),
            "square copied": percent(method.copied),
        }
        for name, method in health.methods.items()
    }
    rows |= {
        f"{count} components": {
            "residual": number(redrawn.residual, ".4f"),
            "Fréchet distance": number(redrawn.frechet, ",.0f"),
            "detail kept": percent(redrawn.detail),
        }
        for count, redrawn in health.components.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").fillna(GAP).rename_axis("validation normals")
