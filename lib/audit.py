"""What else could explain a result: tags, trivial features of the image, what lies outside the lungs, shared patients.

A score that ranks the ill above the well may have ranked beds above standing patients, or one clinic above another
(DeGrave et al., Nature Machine Intelligence 2021), and do so with the lungs blacked out (Maguolo & Nanni, Information
Fusion 2021). Each check is a row: a condition, its images, and every method's AUROC under it.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.ndimage import distance_transform_edt, gaussian_filter

from lib.evaluation import FEWEST_IMAGES, FilmStack, shown
from lib.uncertainty import interval, patient_weights, ranking, weighted_auroc

BORDER, FINE = 0.1, 1.0  # of each side's length; pixels: what a Gaussian of this deviation blurs away is fine
MOST_VALUES = 8  # of a tag that is a word: the most frequent ones have a row each
NO_TAGS = ["id", "label", "strict_label", "finding", "split", "patient", "digest", "twin", "arrival"]  # all else is one
Row = dict[str, Any]
"""A `check`, `what` was looked at, how many `normal` and `abnormal` images; the `auroc` of what was looked at, if it is
a score, and how far `away` from 0.5 that is; the AUROC of the `methods` on the same images; what is `said` of it."""

Score = Callable[[np.ndarray], np.ndarray]
"""uint8 films, (n, height, width) -> scores, (n,); higher is more anomalous."""


class Cohort(NamedTuple):
    """Labelled images: which are abnormal, (n,) bool, their patients, (n,), and the methods' scores, (n,) by name."""

    is_abnormal: np.ndarray
    patients: np.ndarray
    scores: Mapping[str, np.ndarray]
    resamples: int = 2000
    seed: int = 0

    def row(self, check: str, what: str, strata: np.ndarray, own: np.ndarray | None = None, said: str = "") -> Row:
        """Return a row of the audit. Each AUROC counts pairs within a stratum; None for fewer than 10 of either class.

        `strata`, (n,), are bool or words, False and "" none. A constant score of the row's `own`, (n,), has no AUROC.
        """
        ill, there = self.is_abnormal, strata.astype(bool)
        inside = [rows for one in set(strata[there]) if 0 < ill[rows := strata == one].mean() < 1]
        used = np.any(inside, axis=0) if inside else there
        n_normal, n_abnormal = int((used & ~ill).sum()), int((used & ill).sum())
        scores, found = dict(self.scores), dict[str, Any].fromkeys([*self.scores, ""])  # "" is the row's own
        if own is not None:
            scores |= {"": own} if (varies := len(set(own[used])) > 1) else {}
            said = "" if varies else "the same for all" if used.any() else "unknown for all"

        def within(weights: np.ndarray) -> np.ndarray:
            won, pairs = 0.0, 0.0
            for rows, of_scores in zip(inside, ranks, strict=True):
                here = weights[rows & ill].sum(axis=0) * weights[rows & ~ill].sum(axis=0)
                won += here * np.nan_to_num([weighted_auroc(rank, weights[rows]) for rank in of_scores])
                pairs += here
            return won / np.where(pairs > 0, pairs, np.nan)

        if scores and inside and min(n_normal, n_abnormal) >= FEWEST_IMAGES:
            ranks = [[ranking(one[rows], ill[rows]) for one in scores.values()] for rows in inside]
            drawn = map(within, patient_weights(ill, self.patients, self.resamples, self.seed))
            both = zip(scores, within(np.ones((len(ill), 1)))[:, 0], np.concatenate(list(drawn), axis=1), strict=True)
            rarer = min(len(set(self.patients[used & kind])) for kind in (ill, ~ill))
            found |= {name: interval(value, drawn, rarer, "auroc")._asdict() for name, value, drawn in both}
        row: Row = {"check": check, "what": what, "normal": n_normal, "abnormal": n_abnormal, "auroc": found.pop("")}
        return row | {"away": row["auroc"] and abs(row["auroc"]["value"] - 0.5), "methods": found, "said": said}


def tags(records: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return what the records say beside names and labels, as numbers, (n,) float64, NaN where unknown.

    A column of numbers (age, width) is itself; of a column of words each value is 1 and the others 0. Where a tag is
    known for some images only, that it is known is a tag too. `width` and `height` make `aspect`.
    """
    columns, found = records.drop(columns=NO_TAGS, errors="ignore"), {}
    for name, column in columns.items():
        text = column.astype(object).where(column.notna(), "").astype(str).str.strip().replace("nan", "").to_numpy()
        known, numbers = text != "", pd.to_numeric(pd.Series(text), errors="coerce").to_numpy(float)
        if 2 * np.isfinite(numbers).sum() >= known.sum():  # else it is words, whatever some of them look like
            known = np.isfinite(numbers)
            found[name] = np.where(known, numbers, np.nan)
        else:
            values = list(pd.Series(text[known]).value_counts().index[:MOST_VALUES])
            for value in sorted(values)[: 1 if len(values) == 2 else None]:  # the second of two mirrors the first
                found[f"{name} is {value}"] = np.where(known, text == value, np.nan)
        if 0 < known.sum() < len(known):
            found[f"{name} is known"] = known.astype(float)
    return found | ({"aspect": found["width"] / found["height"]} if {"width", "height"} <= set(found) else {})


def border(shape: tuple[int, ...]) -> np.ndarray:
    """Return where a film's outer 10 % are, (height, width) bool."""
    down, right = (np.minimum(np.arange(n), np.arange(n)[::-1]) < max(1, round(BORDER * n)) for n in shape)
    return down[:, None] | right


def image_features(films: np.ndarray, mean: np.ndarray) -> dict[str, np.ndarray]:
    """Return what needs no network, (n,) float64 by name, of uint8 films and the mean training film, (h, w)."""
    edge = border(mean.shape)
    kinds: dict[str, Callable[[np.ndarray], np.floating]] = {
        "mean grey": np.mean,
        "contrast": np.std,
        "high-frequency energy": lambda film: np.square(film - gaussian_filter(film, FINE)).mean(),
        "border brightness": lambda film: film[edge].mean(),
        "distance to the mean training film": lambda film: np.abs(film - mean).mean(),
    }
    values = np.array([[of(film.astype(float)) for of in kinds.values()] for film in films])
    return dict(zip(kinds, values.T, strict=True))


def replaced(films: np.ndarray, where: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return the films, (n, h, w) uint8, with nothing of their own inside `where`, (h, w) bool.

    There stands the mean training film, (h, w), shifted to the film's brightness at the nearest pixel that stays: no
    new edge. It is scored too, so it must not look odd: RA's mean score of adult normals, 0.067, becomes 0.068 without
    the border (plain mean film: 0.081, black: 0.118) and 0.072 without the lungs (0.075, 0.151).
    """
    if where.shape != films.shape[1:] or where.all():
        found = f"the template is {where.shape}, {where.mean():.0%} true"
        raise ValueError(f"{found}; wanted {films.shape[1:]}, some of it false")
    near = distance_transform_edt(where, return_distances=False, return_indices=True)[:, where]
    made = films.copy()
    made[:, where] = np.round(films[:, *near] + (mean[where] - mean[*near]).astype(np.float32)).clip(0, 255)
    return made


def film_rows(
    score: Mapping[str, Score], films: np.ndarray, lungs: np.ndarray | None, mean: np.ndarray, cohort: Cohort
) -> list[Row]:
    """Return the methods' AUROC on films, (n, h, w) uint8: whole, without the border, without the lungs' template.

    The lungs, (h, w) bool, are `replaced`, and black, as is usual. The fill decides much, so neither is proof alone.
    """
    changed = {"whole": films, "border replaced": replaced(films, border(mean.shape), mean)}
    if lungs is not None:
        changed |= {"lungs replaced": replaced(films, lungs, mean), "lungs black": np.where(lungs, np.uint8(0), films)}
    scored = {what: {name: np.asarray(of(some), float) for name, of in score.items()} for what, some in changed.items()}
    everyone = np.ones(len(films), dtype=bool)
    return [cohort._replace(scores=scores).row("film", what, everyone) for what, scores in scored.items()]


def strata_of(values: np.ndarray) -> np.ndarray:
    """Return which of (n,) values are alike: "no" and "yes" for 0 and 1, else the ends of a quarter; "" for NaN."""
    known = np.isfinite(values)
    if set(values[known]) == {0, 1}:
        return np.where(known, np.where(values == 1, "yes", "no"), "").astype(object)
    edges = np.unique(np.quantile(values[known], [0.25, 0.5, 0.75])) if known.any() else np.empty(0)
    quarter = np.where(known, np.searchsorted(edges, values, side="right"), -1)
    words = {i: f"{min(values[quarter == i]):.4g} to {max(values[quarter == i]):.4g}" for i in set(quarter) - {-1}}
    return np.array([words.get(i, "") for i in quarter], dtype=object)


def on_two_sides(records: Mapping[str, pd.DataFrame], manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return in words what a split's test side shares with its others, and on how many images that could be seen."""
    test, others = records["test"], pd.concat([records["train"], records["validation"]])
    ours, theirs = (side["patient"].replace("", None).dropna() for side in (test, others))
    known = f"{len(ours)} of {len(test)} test images and {len(theirs)} of {len(others)} others have a patient"
    films = [test[name].isin(others[name]) for name in ("digest", "twin") if name in test and name in others]
    twice = ", ".join(f"{manifest.get(f'{kind}_duplicates', 'unknown')} {kind}" for kind in ("exact", "near"))
    official = manifest.get("test_images_sharing_a_patient_or_film_with_the_official_training_side", {})
    sources = {side: sorted({*some.get("source", ())} - {"", None}) or ["unknown"] for side, some in records.items()}
    return {
        "a patient": f"{ours.isin(theirs).sum() if len(ours) and len(theirs) else 'cannot be checked'}; {known}",
        "a film": f"{np.any(films, axis=0).sum() if films else 'cannot be checked'}; duplicates in all images: {twice}",
        **{f"official training side, {kind}": f"{n}: a patient or a film" for kind, n in official.items()},
        "sources": "; ".join(f"{side}: {', '.join(names)}" for side, names in sources.items()),
    }


def explained_by(rows: list[Row], method: str) -> dict[str, Any]:
    """Return whether a tag or a trivial feature does as well as the method on the same images, and a sentence.

    It does if its AUROC, or 1 minus that, reaches the method's interval. The strongest is taken, with the test labels
    and so in its favour; the method's own direction is not chosen.
    """
    trivial = [row for row in rows if row["auroc"] and row["methods"][method]]
    if not trivial:
        return {"explained": None, "by": None, "sentence": f"Too few images to hold anything trivial against {method}."}
    reaching = [row for row in trivial if 0.5 + row["away"] >= row["methods"][method]["low"]]
    best = max(reaching or trivial, key=lambda row: row["away"])
    strength, own, normal, abnormal = 0.5 + best["away"], best["methods"][method], best["normal"], best["abnormal"]
    name = f"“{best['what']}”" + (" (the lower the more abnormal)" if best["auroc"]["value"] < 0.5 else "")
    does = f"{name} alone does {'better than' if strength > own['high'] else 'as well as'} {method}"
    sentence = does if reaching else f"No tag and no trivial feature does as well as {method}, not even {name}"
    sentence += f": AUROC {strength:.3f} against {shown(own)} on the same {normal} normal, {abnormal} abnormal images. "
    sentence += f"It is the strongest of {len(trivial)}, chosen with the test labels, in its favour."
    if all(row["check"] != "tag" for row in trivial):
        sentence += " No tag could be checked."
    film = {row["what"]: row["methods"].get(method) for row in rows if row["check"] == "film"}
    if film.get("lungs replaced"):
        sentence += f" Without the lungs it has {shown(film['lungs replaced'])}, black {shown(film['lungs black'])}."
    return {"explained": bool(reaching), "by": best["what"], "sentence": sentence}


def audit(
    records: Mapping[str, pd.DataFrame],
    films: FilmStack,
    mean: np.ndarray,
    scores: Mapping[str, np.ndarray],
    *,
    manifest: Mapping[str, Any],
    rescore: Mapping[str, Score],
    lungs: np.ndarray | None = None,
    labels: str = "label",
    **resampling: int,
) -> dict[str, Any]:
    """Return every check's `rows` (`Row`) and, by method, the `verdicts` (`explained_by`): plain, as JSON takes it.

    `records` are the split's three sides, without scores; `films` the test side's, `mean`, (h, w), the mean training
    film; `scores`, (n,), are higher for the more abnormal, `rescore` makes those of changed films; `resampling` is a
    `Cohort`'s. Raises ValueError for one class only, lengths that differ, and scores among the records' columns.
    """
    cases, lengths = records["test"].reset_index(drop=True), {name: len(one) for name, one in scores.items()}
    if {films.shape[0], *lengths.values()} != {len(cases)} or set(scores) & set(cases):
        there = f"{len(cases)} test records with columns {list(cases)}, {films.shape[0]} films, scores {lengths}"
        raise ValueError(f"{there}: give the split's records, without scores, and as many films and scores")
    patients = cases["patient"].replace("", None).fillna("image " + cases["id"]).to_numpy()

    def cohort_of(label: pd.Series) -> Cohort:
        used = label.isin(["normal", "abnormal"]).to_numpy()
        of_used = {name: np.asarray(one, dtype=float)[used] for name, one in scores.items()}
        return Cohort((label[used] == "abnormal").to_numpy(), patients[used], of_used, **resampling)

    cohort, used = cohort_of(cases[labels]), cases[labels].isin(["normal", "abnormal"]).to_numpy()
    if not 0 < cohort.is_abnormal.sum() < used.sum():
        there = f"test images by {labels!r}: {cases[labels].value_counts().to_dict()}"
        raise ValueError(f"{there}; wanted both classes: ask another column")
    seen, rows = films[np.flatnonzero(used)], list[Row]()
    for check, trivial in {"tag": tags(cases[used]), "image": image_features(seen, mean)}.items():
        found = [cohort.row(check, what, np.isfinite(one), one) for what, one in trivial.items()]
        rows += (found := sorted(found, key=lambda row: -(row["away"] or 0)))
        if found and found[0]["auroc"]:
            values, strata = trivial[what := found[0]["what"]], strata_of(trivial[what])
            each = {name: strata == name for name in dict.fromkeys(strata[np.argsort(values)]) if name}
            each["pairs within strata"] = strata
            rows += [cohort.row("stratum", f"{what}: {name}", stratum) for name, stratum in each.items()]
    rows += film_rows(rescore, seen, lungs, mean, cohort)
    if "strict_label" in cases:
        strict, label = cases["strict_label"], cases["label"]
        again = strict[(label == "normal") & (strict != "")]
        said = f"of {len(again)} images that label calls normal strict_label does so with {(again == 'normal').sum()}"
        same = {"label, on strict_label's images": label.where(strict.isin(["normal", "abnormal"]))}
        for what, reading in {"label": label, "strict_label": strict, **same}.items():
            rows.append((one := cohort_of(reading)).row("reading", what, np.ones_like(one.is_abnormal), said=said))
    for what, said in on_two_sides(records, manifest).items():
        rows.append(cohort.row("on two sides", what, np.zeros_like(cohort.is_abnormal), said=said))
    return {"labels": labels, "rows": rows, "verdicts": {name: explained_by(rows, name) for name in scores}}


def audit_table(audited: Mapping[str, Any]) -> pd.DataFrame:
    """Return what `audit` has found as text, a line a row, for the page and for CSV; a dash where there is nothing."""
    rows = pd.DataFrame(audited["rows"]).set_index(["check", "what"])
    count = [f"{n} / {a}" if n + a else "–" for n, a in zip(rows["normal"], rows["abnormal"], strict=True)]
    away = [f"{one['away']:.3f}" if one["auroc"] else "–" for one in audited["rows"]]
    methods = {name: [shown(of.get(name)) for of in rows["methods"]] for name in audited["verdicts"]}
    columns = {"normal / abnormal": count, "AUROC": rows["auroc"].map(shown), "away from 0.5": away, **methods}
    return rows[[]].assign(**columns, said=rows["said"])
