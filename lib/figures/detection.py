"""Where maps point, what choosing a score costs, which lesions are detected -> matplotlib `Figure`."""

from collections.abc import Hashable, Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from lib.evidence.psychometric import CONTRAST, CONTRASTS, SEVERITY
from lib.evidence.results import Localisation
from lib.figures.style import GREY, WIDTH, Drawing, look, panels

DETECTED = 0.75  # AUROC below which the title calls a finding missed


def localisation_margins(localisation: Localisation, methods: Sequence[str]) -> Figure:
    """Draw how far each method's average precision lies above that of the location prior, a panel a region."""
    figure = Drawing(figsize=(WIDTH, 1.3 + 0.25 * len(methods)), layout="constrained")
    grid = figure.subplots(1, len(localisation.regions), sharex=True, sharey=True)
    for ax, (region, located) in zip(grid, localisation.regions.items(), strict=True):
        above = []
        for name in methods:
            margins = located[name].margins if located else None
            if margin := (margins or {}).get("average_precision"):
                colour, marker = look(name)
                ax.hlines(name, margin.low, margin.high, color=colour)
                ax.plot(margin.value, name, marker, color=colour)
                above += [name] if margin.low > 0 else []
        ax.axvline(0, color=GREY, linestyle=":")
        ax.margins(y=0.2)
        ax.set_title(f"{region}, better than the prior: {', '.join(above) or 'none'}")
        ax.set_xlabel("average precision minus the prior's, 95 % interval")
    return figure


def choices(candidates: pd.DataFrame, chosen: Mapping[str, Hashable]) -> Figure:
    """Draw every score that a method could choose by its separation of painted lesions and of the test images.

    `candidates` are rows of `lib.runs.candidates.read_candidates`. A black dot marks the epoch and score that each
    method has `chosen`, a line the oracle.
    """
    figure, grid = panels(len(chosen), 3.4, most=4, sharex=True, sharey=True)
    for ax, (name, choice) in zip(grid, chosen.items(), strict=True):
        own = candidates[(candidates["method"] == name) & candidates["own"]].set_index(["epoch", "score"])
        dot, oracle = own.loc[choice], own["auroc"].max()
        ax.plot(own["separation"], own["auroc"], ".", color=look(name)[0], alpha=0.5)
        ax.plot(dot["separation"], dot["auroc"], "o", color="black", label="chosen")
        ax.axhline(oracle, color="black", linestyle="--", linewidth=1, label="oracle")
        ax.set_title(f"{name}: {dot['auroc']:.2f} of {oracle:.2f}", fontsize=10)
    grid[0].legend(fontsize=8, frameon=False)
    figure.supxlabel("how well a score separates painted lesions (AUROC)", fontsize=10)
    figure.supylabel("how well it separates test images (AUROC)", fontsize=10)
    return figure


def psychometric(detected: pd.DataFrame) -> Figure:
    """Draw how surely each finding is detected over its size and over its contrast.

    `detected` is the table of `lib.evidence.psychometric.detected`.
    """
    findings, methods = detected["finding"].unique(), detected["method"].unique()
    figure = Drawing(figsize=(WIDTH, 5), layout="constrained")
    grid = figure.subplots(2, len(findings), sharey=True, squeeze=False)
    for column, finding in zip(grid.T, findings, strict=True):
        rows = detected[detected["finding"] == finding]
        by_size, by_contrast = rows[rows["contrast"] == CONTRAST], rows[rows["severity"] == SEVERITY]
        size = by_contrast["size"].iloc[0]
        at = {"size": f"at contrast {CONTRAST:.2f}", "contrast": f"at size {size:.2f}"}
        for ax, across, curve in zip(column, at, (by_size, by_contrast), strict=True):
            for name in methods:
                colour, marker = look(name)
                for measure, line in (("AUROC", "-"), ("pairs", "--")):
                    dots = curve[(curve["method"] == name) & (curve["measure"] == measure)]
                    legend = name if measure == "AUROC" else None
                    ax.plot(dots[across], dots["value"], line, color=colour, marker=marker, markersize=4, label=legend)
            ax.axhline(0.5, color=GREY, linestyle=":")
            ax.set_ylim(0, 1.03)
            ax.set_xlabel(f"{across}, {at[across]}", fontsize=8)
            ax.tick_params(labelsize=8)
        column[0].set_title(finding, fontsize=10)
    grid[0, 0].legend(fontsize=7, frameon=False)
    figure.supylabel("AUROC (solid), share of pairs that rise (dashed)", fontsize=9)
    densest = detected[(detected["measure"] == "AUROC") & (detected["contrast"] == CONTRASTS[-1])]
    surest = densest.loc[densest["value"].idxmax()]
    missed = [name for name in findings if densest.loc[densest["finding"] == name, "value"].max() < DETECTED]
    figure.suptitle(
        f"Best detected at contrast {CONTRASTS[-1]:.2g}: {surest['finding']} of size {surest['size']:.2f} by "
        f"{surest['method']}, AUROC {surest['value']:.2f};\nbelow {DETECTED} at every size: "
        f"{', '.join(missed) or 'none'}",
        fontsize=10,
    )
    return figure
