"""Scores and what was evaluated of them -> matplotlib `Figure`: curves with bands, forests, promises kept or not.

Each method has a panel, its colour and its marker (`lib.figures.look`); titles say what was found. Grey is the other
methods, the normal films, chance.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lib.conformal import achieved_rate, p_values
from lib.evaluation import FALSE_ALARM_RATE, NO_LABEL, abnormal_groups, shown
from lib.figures import GREY, INK, WIDTH, Drawing, look, panels
from lib.uncertainty import curve_bands

MOST_FINDINGS = 8  # that are drawn apart
FILLED = 300  # dots of a group; more are thinned


def percent(share: float) -> str:
    """A share in [0, 1] as "95 %"."""
    return f"{100 * round(share, 9):.0f} %"  # 1 - 0.975 is more than 0.025


def headline(results: dict) -> str:
    """What the AUROCs of `results` say about the best method and the next best."""
    areas = {name: one["auroc"]["value"] for name, one in results["methods"].items()}
    best, *others = sorted(areas, key=areas.__getitem__, reverse=True)
    if not others:
        return f"{best}: AUROC {shown(results['methods'][best]['auroc'])}"
    pair = next(one for one in results["differences"] if {one["first"], one["second"]} == {best, others[0]})
    sign = 1 if pair["first"] == best else -1
    low, high = sorted((sign * pair["auroc"]["low"], sign * pair["auroc"]["high"]))
    gain = f"AUROC {sign * pair['auroc']['value']:+.2f} [{low:+.2f}, {high:+.2f}]"
    return (
        f"{best} ranks better than {others[0]}: {gain}" if low > 0 else f"{best} and {others[0]} not told apart: {gain}"
    )


def counted(results: dict) -> str:
    """How many images a figure is of."""
    return f"{results['n_normal']} normal, {results['n_abnormal']} abnormal"


def groups_of(table: pd.DataFrame, method: str, labels: str) -> dict[str, pd.DataFrame]:
    """Rows that have a score of `method`, by who the images are: validation, test normal, test abnormal."""
    if missing := {"side", labels, method} - set(table.columns):
        raise ValueError(f"no column {sorted(missing)} in the table; it has {list(table.columns)}")
    test = table["side"] == "test"
    rows = {"normal, validation": table["side"] == "validation"}
    rows |= {f"{kind}, test": test & (table[labels] == kind) for kind in ("normal", "abnormal")}
    return {name: table[chosen] for name, chosen in rows.items()}


def finish(ax: Axes, title: str = "") -> None:
    """What all charts share."""
    if title:
        ax.set_title(title, fontsize=9)
    ax.tick_params(labelsize=8)
    sns.despine(ax=ax)


def curves(table: pd.DataFrame, methods: Sequence[str], labels: str, results: dict, seed: int = 0) -> tuple:
    """ROC and precision-recall figure for what `evaluate_scores(table, methods, labels=labels)` gave: two figures.

    A panel a method: its curve, its pointwise band (`curve_bands`), the others' curves in grey, and a marker at the
    threshold that was chosen on validation normals.
    """
    bands, prevalence = {}, results["prevalence"]
    for method in methods:
        groups = groups_of(table, method, labels)
        both = pd.concat([groups["normal, test"], groups["abnormal, test"]])
        is_abnormal, patients = (both[labels] == "abnormal").to_numpy(), both["patient"].to_numpy()
        bands[method] = curve_bands(both[method].to_numpy(), is_abnormal, patients, results["resamples"], seed)

    def draw(kind: int, metric: str, chance: list[float], points: dict, words: tuple[str, str]) -> Figure:
        figure, grid = panels(len(methods), 3.3, sharex=True, sharey=True)
        for ax, method in zip(grid, methods, strict=True):
            colour, marker = look(method)
            ax.plot([0, 1], chance, color=GREY, linestyle=":", linewidth=1)
            for other in methods:
                ax.step(bands[other][kind].at, bands[other][kind].value, color="0.8", linewidth=0.8, where="post")
            at, value, low, high = bands[method][kind]
            ax.fill_between(at, low, high, color=colour, alpha=0.25, linewidth=0, step="post")
            ax.step(at, value, color=colour, linewidth=2, where="post")
            if results["methods"][method]["threshold"]:
                point = ax.plot(*points[method], marker, color=colour, markeredgecolor=INK, markersize=7, zorder=3)
                point[0].set_clip_on(False)
            ax.set(xlim=(0, 1), ylim=(0, 1.02), aspect="equal", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
            finish(ax, f"{method}\n{shown(results['methods'][method][metric])}")
        figure.supxlabel(words[0], fontsize=9)
        figure.supylabel(words[1], fontsize=9)
        title = f"{headline(results)}\n{counted(results)}; {percent(results['level'])} bands, pointwise"
        figure.suptitle(title, fontsize=10)
        return figure

    thresholds = {method: results["methods"][method]["threshold"] for method in methods}
    points = {m: (1 - one["specificity"], one["sensitivity"]) for m, one in thresholds.items() if one}
    called = {m: prevalence * found + (1 - prevalence) * alarms for m, (alarms, found) in points.items()}
    precise = {m: (found, prevalence * found / called[m] if called[m] else 1.0) for m, (_, found) in points.items()}
    share = "share of abnormal images found"
    return (
        draw(0, "auroc", [0, 1], points, ("share of normal images called abnormal", share)),
        draw(1, "average_precision", [prevalence] * 2, precise, (share, "share of those called that are abnormal")),
    )


def score_distributions(table: pd.DataFrame, methods: Sequence[str], labels: str, results: dict) -> Figure:
    """One panel a method: the scores of normal images, of the abnormal ones and of each finding, a dot an image.

    A bar marks the median, a dashed line the threshold from validation normals. Of more than 300 images of a group, 300
    are drawn, evenly by rank.
    """
    of_method = {method: groups_of(table, method, labels) for method in methods}
    test = table[table["side"] == "test"]
    found = abnormal_groups(test[labels].replace("", NO_LABEL).fillna(NO_LABEL), test["finding"])
    largest = sorted(found, key=lambda name: -found[name].sum())[:MOST_FINDINGS]
    figure, grid = panels(len(methods), 1.4 + 0.24 * (3 + len(largest)), most=3, sharey=True)
    random = np.random.default_rng(0)
    for ax, method in zip(grid, methods, strict=True):
        groups = of_method[method] | {name: test[found[name]] for name in largest}
        for y, (name, rows) in enumerate(groups.items()):
            scores = np.sort(rows[method].dropna().to_numpy(float))
            if not len(scores):
                continue
            few = scores[np.linspace(0, len(scores) - 1, min(len(scores), FILLED)).astype(int)]
            colour = GREY if name.startswith("normal") else look(method)[0]
            ax.plot(few, y + random.uniform(-0.28, 0.28, len(few)), ".", color=colour, alpha=0.5, markersize=3)
            ax.plot(2 * [np.median(scores)], [y - 0.36, y + 0.36], color=INK, linewidth=2)
        ax.set_yticks(range(len(groups)), [f"{name} ({len(rows)})" for name, rows in groups.items()])
        ax.set_ylim(len(groups) - 0.5, -0.5)
        threshold = results["methods"][method]["threshold"]
        said = "no threshold"
        if threshold:
            ax.axvline(threshold["value"], color=INK, linestyle="--", linewidth=1)
            said = f"{percent(threshold['sensitivity'])} found, {percent(1 - threshold['specificity'])} false alarms"
        ax.set_xlabel("anomaly score", fontsize=8)
        finish(ax, f"{method}\n{said}")
    more = f"; the {len(largest)} largest of {len(found)} groups" if len(found) > len(largest) else ""
    figure.suptitle(f"Bars: medians; dashed: threshold for {percent(FALSE_ALARM_RATE)} false alarms{more}", fontsize=10)
    return figure


def forest(results: dict, by: str) -> Figure:
    """AUROC and interval of every method: for all abnormal images, and by "findings" or by "strata".

    A finding is compared with the same normals; a stratum (a view, a sex, an age band, a source) holds both classes.
    """
    methods = results["methods"]
    rows = [(f"all ({counted(results)})", {name: one["auroc"] for name, one in methods.items()}, "")]
    if by == "findings":
        findings = next(iter(methods.values()))["findings"]
        for name in sorted(findings, key=lambda name: -findings[name]["n"]):
            estimates = {method: one["findings"][name]["auroc"] for method, one in methods.items()}
            rows.append((f"{name} ({findings[name]['n']})", estimates, findings[name]["why"]))
    else:
        for one in results["strata"]:
            name = f"{one['column']}: {one['value']} ({one['n_normal']} / {one['n_abnormal']})"
            rows.append((name, one["auroc"] or {}, one["why"]))
    room = [1.0 if any(estimates.values()) else min(1, 3 / len(methods)) for _, estimates, _ in rows]
    places = np.cumsum(room) - np.array(room) / 2
    figure = Drawing(figsize=(WIDTH * 0.85, 1.4 + sum(room) * max(0.3, 0.14 * len(methods))), layout="constrained")
    ax = figure.subplots()
    ax.axvline(0.5, color=GREY, linestyle=":")
    for i, method in enumerate(methods):
        colour, marker = look(method)
        beside = 0.7 * ((i + 0.5) / len(methods) - 0.5)
        there = {y + beside: of[method] for y, (_, of, _) in zip(places, rows, strict=True) if of.get(method)}
        ax.hlines(list(there), [e["low"] for e in there.values()], [e["high"] for e in there.values()], color=colour)
        ax.plot([e["value"] for e in there.values()], list(there), marker, color=colour, markersize=5, label=method)
    for y, (_, estimates, why) in zip(places, rows, strict=True):
        if not any(estimates.values()):
            ax.text(0.505, y, why, color=INK, fontsize=8, va="center", style="italic")
    ax.axhline(room[0], color=GREY, linewidth=0.5)
    ax.set_yticks(places, [name for name, *_ in rows])
    ax.set(ylim=(sum(room), 0), xlabel=f"AUROC; {percent(results['level'])} intervals, images in brackets")
    best = max(methods, key=lambda name: methods[name]["auroc"]["value"])
    inside = [of[best]["value"] for _, of, _ in rows[1:] if of.get(best)]
    spread = f"{best}: {min(inside):.2f} to {max(inside):.2f} by group" if inside else "no group has a figure"
    ax.set_title(f"{headline(results)}\n{spread}", fontsize=10)
    ax.legend(loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False, fontsize=9)
    finish(ax)
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    return figure


def false_alarms(table: pd.DataFrame, methods: Sequence[str], labels: str) -> Figure:
    """The share of normal test images with a conformal p-value up to alpha, over the alpha that was promised.

    The band holds, at each alpha, 95 % of what so many calibration images (validation) give for so many exchangeable
    test images (`achieved_rate`). ValueError for methods that have no score of the validation images.
    """
    groups = {method: groups_of(table, method, labels) for method in methods}
    calibration, normal = (len(groups[methods[0]][side]) for side in ("normal, validation", "normal, test"))
    levels = np.arange(1, math.floor(0.5 * (calibration + 1)) + 1) / (calibration + 1)
    low, high = np.array([achieved_rate(calibration, level, normal)[1:] for level in levels]).T
    at = int((levels <= FALSE_ALARM_RATE + 1e-9).sum()) - 1  # the highest level that is no more than the usual one
    figure, grid = panels(len(methods), 3.3, sharex=True, sharey=True)
    broken, anywhere = [], []
    for ax, method in zip(grid, methods, strict=True):
        known, new = (groups[method][side][method].to_numpy(float) for side in ("normal, validation", "normal, test"))
        rates = (p_values(known, new)[:, None] <= levels + 1e-9).mean(axis=0)
        colour, marker = look(method)
        ax.fill_between(levels, low, high, color="0.85", linewidth=0)
        ax.plot([0, 0.5], [0, 0.5], color=GREY, linestyle=":")
        ax.step(levels, rates, color=colour, linewidth=2, where="post")
        if (rates > high).any():
            anywhere.append(method)
        if at >= 0:
            if rates[at] > high[at]:
                broken.append(method)
            ax.plot(levels[at], rates[at], marker, color=colour, markeredgecolor=INK, markersize=7, clip_on=False)
        ax.set(xlim=(0, 0.5), ylim=(0, 1), xticks=[0, 0.25, 0.5], yticks=[0, 0.5, 1])
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=0))
        finish(ax, f"{method}\n{percent(rates[at])} at {percent(levels[at])}" if at >= 0 else method)
    figure.supxlabel("false alarms promised; grey: what may come of it by chance", fontsize=9)
    figure.supylabel(f"false alarms among {normal} normal test images", fontsize=9)
    said = f"{', '.join(broken)} cannot keep" if broken else "every method keeps"
    title = f"{said} a promise of {percent(FALSE_ALARM_RATE)} false alarms"
    title += f"\nmore than chance allows at some promise: {', '.join(anywhere)}" if anywhere else ""
    figure.suptitle(title if at >= 0 else f"{calibration} calibration images are too few for a promise", fontsize=10)
    return figure
