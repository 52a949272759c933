"""Losses, evaluations and curves -> matplotlib `Figure`: training, ROC with bands, scores, forests, false alarms.

Each method has a panel, its colour and its marker (`lib.figures.style.look`); titles say what was found. Grey is the
other methods, the normal images, chance.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from lib.evidence.curves import Band, CurveBands, FalseAlarms, ScoreGroups
from lib.evidence.evaluation import FALSE_ALARM_RATE
from lib.evidence.results import Estimate, Evaluation
from lib.evidence.wording import estimate_text, percent
from lib.figures.style import GREY, INK, PALETTE, WIDTH, Drawing, finish, look, panels

MOST_FINDINGS = 8  # that are drawn apart
FILLED = 300  # dots of a group; more are thinned


def headline(evaluation: Evaluation) -> str:
    """Return what the AUROCs say about the best method and the next best."""
    methods = evaluation.methods
    best, *others = sorted(methods, key=lambda name: methods[name].auroc.value, reverse=True)
    if not others:
        return f"{best}: AUROC {estimate_text(methods[best].auroc)}"
    pair = next(pair for pair in evaluation.differences if {pair.first, pair.second} == {best, others[0]})
    sign = 1 if pair.first == best else -1
    low, high = sorted((sign * pair.auroc.low, sign * pair.auroc.high))
    gain = f"AUROC {sign * pair.auroc.value:+.2f} [{low:+.2f}, {high:+.2f}]"
    if low > 0:
        return f"{best} ranks better than {others[0]}: {gain}"
    return f"no difference shown between {best} and {others[0]}: {gain}"


def counted(evaluation: Evaluation) -> str:
    """Return how many images a figure is of."""
    return f"{evaluation.n_normal} normal, {evaluation.n_abnormal} abnormal"


def curves(evaluation: Evaluation, bands: Mapping[str, CurveBands]) -> tuple[Figure, Figure]:
    """Draw the ROC and the precision-recall curves of the methods that have `bands` (`lib.evidence.curves`).

    A panel shows a method's curve, its pointwise band, the others' curves in grey, and a marker at the threshold that
    was chosen on validation normals.
    """
    title = f"{headline(evaluation)}\n{counted(evaluation)}; {percent(evaluation.level)} bands, pointwise"

    def draw(of_method: Mapping[str, Band], areas: Mapping[str, Estimate], chance: list[float]) -> Figure:
        figure, grid = panels(len(bands), 3.3, sharex=True, sharey=True)
        for ax, (method, band) in zip(grid, of_method.items(), strict=True):
            colour, marker = look(method)
            ax.plot([0, 1], chance, color=GREY, linestyle=":", linewidth=1)
            for other in of_method.values():
                ax.step(other.at, other.value, color="0.8", linewidth=0.8, where="post")
            ax.fill_between(band.at, band.low, band.high, color=colour, alpha=0.25, linewidth=0, step="post")
            ax.step(band.at, band.value, color=colour, linewidth=2, where="post")
            if band.mark:
                point = ax.plot(*band.mark, marker, color=colour, markeredgecolor=INK, markersize=7, zorder=3)
                point[0].set_clip_on(False)
            ax.set(xlim=(0, 1), ylim=(0, 1.02), aspect="equal", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
            finish(ax, f"{method}\n{estimate_text(areas[method])}")
        figure.suptitle(title, fontsize=10)
        return figure

    methods = evaluation.methods
    roc = draw({name: both.roc for name, both in bands.items()}, {name: methods[name].auroc for name in bands}, [0, 1])
    precision_recall = draw(
        {name: both.precision_recall for name, both in bands.items()},
        {name: methods[name].average_precision for name in bands},
        [evaluation.prevalence] * 2,
    )
    found = "share of abnormal images found"
    words = ("share of normal images called abnormal", found), (found, "share of those called that are abnormal")
    for figure, (across, up) in zip((roc, precision_recall), words, strict=True):
        figure.supxlabel(across, fontsize=9)
        figure.supylabel(up, fontsize=9)
    return roc, precision_recall


def score_distributions(evaluation: Evaluation, groups: Mapping[str, ScoreGroups]) -> Figure:
    """Draw the scores of each method that has `groups` (`lib.evidence.curves.score_groups`), a dot for each image.

    A bar marks the median, a dashed line the threshold from validation normals. Of a group of more than 300 images, 300
    are drawn, evenly by rank; of the findings, the largest eight.
    """
    sides, findings = next(iter(groups.values()))
    largest = sorted(findings, key=lambda name: -findings[name].images)[:MOST_FINDINGS]
    figure, grid = panels(len(groups), 1.4 + 0.24 * (len(sides) + len(largest)), most=3, sharey=True)
    random = np.random.default_rng(0)
    for ax, (method, every) in zip(grid, groups.items(), strict=True):
        shown = every.sides | {name: every.findings[name] for name in largest}
        for y, (name, group) in enumerate(shown.items()):
            if group.median is None:
                continue
            n = len(group.scores)
            few = group.scores[np.linspace(0, n - 1, min(n, FILLED)).astype(int)]
            colour = GREY if name.startswith("normal") else look(method)[0]
            ax.plot(few, y + random.uniform(-0.28, 0.28, len(few)), ".", color=colour, alpha=0.5, markersize=3)
            ax.plot(2 * [group.median], [y - 0.36, y + 0.36], color=INK, linewidth=2)
        ax.set_yticks(range(len(shown)), [f"{name} ({group.images})" for name, group in shown.items()])
        ax.set_ylim(len(shown) - 0.5, -0.5)
        rates = "no threshold"
        if threshold := evaluation.methods[method].threshold:
            ax.axvline(threshold.value, color=INK, linestyle="--", linewidth=1)
            alarms = percent(1 - threshold.specificity.value)
            rates = f"{percent(threshold.sensitivity.value)} found, {alarms} false alarms"
        ax.set_xlabel("anomaly score", fontsize=8)
        finish(ax, f"{method}\n{rates}")
    more = f"; the {len(largest)} largest of {len(findings)} groups" if len(findings) > len(largest) else ""
    figure.suptitle(f"Bars: medians; dashed: threshold for {percent(FALSE_ALARM_RATE)} false alarms{more}", fontsize=10)
    return figure


def forest(evaluation: Evaluation, by: Literal["findings", "strata"]) -> Figure:
    """Draw the AUROC and interval of every method: for all abnormal images, and by findings or by strata.

    A finding is compared with the same normals; a stratum (a view, a sex, an age band, a source) holds both classes.
    """
    methods = evaluation.methods
    overall: dict[str, Estimate | None] = {name: method.auroc for name, method in methods.items()}
    rows: list[tuple[str, dict[str, Estimate | None], str | None]] = [(f"all ({counted(evaluation)})", overall, None)]
    if by == "findings":
        findings = next(iter(methods.values())).findings
        for name, finding in sorted(findings.items(), key=lambda item: -item[1].n):
            areas = {method: evaluated.findings[name].auroc for method, evaluated in methods.items()}
            rows.append((f"{name} ({finding.n})", areas, finding.why))
    else:
        for stratum in evaluation.strata:
            name = f"{stratum.column}: {stratum.value} ({stratum.n_normal} / {stratum.n_abnormal})"
            rows.append((name, {**(stratum.auroc or {})}, stratum.why))
    room = [1.0 if any(areas.values()) else min(1, 3 / len(methods)) for _, areas, _ in rows]
    places = np.cumsum(room) - np.array(room) / 2
    figure = Drawing(figsize=(WIDTH * 0.85, 1.4 + sum(room) * max(0.3, 0.14 * len(methods))), layout="constrained")
    ax = figure.subplots()
    ax.axvline(0.5, color=GREY, linestyle=":")
    for i, method in enumerate(methods):
        colour, marker = look(method)
        beside = 0.7 * ((i + 0.5) / len(methods) - 0.5)
        at = {y + beside: area for y, (_, areas, _) in zip(places, rows, strict=True) if (area := areas.get(method))}
        ax.hlines(list(at), [area.low for area in at.values()], [area.high for area in at.values()], color=colour)
        ax.plot([area.value for area in at.values()], list(at), marker, color=colour, markersize=5, label=method)
    for y, (_, areas, why) in zip(places, rows, strict=True):
        if not any(areas.values()):
            ax.text(0.505, y, why or "", color=INK, fontsize=8, va="center", style="italic")
    ax.axhline(room[0], color=GREY, linewidth=0.5)
    ax.set_yticks(places, [name for name, *_ in rows])
    ax.set(ylim=(sum(room), 0), xlabel=f"AUROC; {percent(evaluation.level)} intervals, images in brackets")
    best = max(methods, key=lambda name: methods[name].auroc.value)
    inside = [area.value for _, areas, _ in rows[1:] if (area := areas.get(best))]
    spread = f"{best}: {min(inside):.2f} to {max(inside):.2f} by group" if inside else "no group has enough images"
    ax.set_title(f"{headline(evaluation)}\n{spread}", fontsize=10)
    ax.legend(loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False, fontsize=9)
    finish(ax)
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    return figure


def false_alarms(alarms: FalseAlarms) -> Figure:
    """Draw the false alarms of each method over the rate that was promised, and the range that chance allows."""
    at, promised = alarms.usual, alarms.promised
    figure, grid = panels(len(alarms.rates), 3.3, sharex=True, sharey=True)
    for ax, (method, rates) in zip(grid, alarms.rates.items(), strict=True):
        colour, marker = look(method)
        ax.fill_between(promised, alarms.low, alarms.high, color="0.85", linewidth=0)
        ax.plot([0, 0.5], [0, 0.5], color=GREY, linestyle=":")
        ax.step(promised, rates, color=colour, linewidth=2, where="post")
        if at is not None:
            ax.plot(promised[at], rates[at], marker, color=colour, markeredgecolor=INK, markersize=7, clip_on=False)
        ax.set(xlim=(0, 0.5), ylim=(0, 1), xticks=[0, 0.25, 0.5], yticks=[0, 0.5, 1])
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=0))
        finish(ax, method if at is None else f"{method}\n{percent(rates[at])} at {percent(promised[at])}")
    figure.supxlabel("promised false alarm rate; grey: what chance allows", fontsize=9)
    figure.supylabel(f"false alarms among {alarms.normal} normal test images", fontsize=9)
    if at is None:
        title = f"too few calibration images ({alarms.calibration}) for a promise"
    else:
        broken = [method for method, rates in alarms.rates.items() if rates[at] > alarms.high[at]]
        anywhere = [method for method, rates in alarms.rates.items() if (rates > alarms.high).any()]
        title = f"{', '.join(broken)} cannot keep" if broken else "every method keeps"
        title += f" a promise of {percent(FALSE_ALARM_RATE)} false alarms"
        title += f"\nmore than chance allows at some promise: {', '.join(anywhere)}" if anywhere else ""
    figure.suptitle(title, fontsize=10)
    return figure


def loss_curves(history: Sequence[dict]) -> Figure:
    """Draw a panel for each part, and one for its KLs, from rows such as {"epoch": 3, "encoder/total": 0.4, …}."""
    if not history or "epoch" not in history[0]:
        raise ValueError("history has no row with an 'epoch', expected one row for each epoch: train first")
    rows = pd.DataFrame(list(history))
    parts: dict[str, list[str]] = {}
    for key in rows.columns:
        if "/" in key and not key.startswith("health/"):  # measured at some epochs; `lib.figures.normals` draws them
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
