"""What else could explain a result: tags, trivial image features, what lies outside the lungs, shared patients.

A score that ranks sick patients above healthy ones may in fact rank bedside radiographs above standing ones, or one
clinic above another (DeGrave et al., Nature Machine Intelligence 2021), and may still do so with the lungs blacked out
(Maguolo & Nanni, Information Fusion 2021). Each check names a condition, its images, and every method's AUROC under it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from lib.data.groups import groups
from lib.data.source import ImageStack, Subset
from lib.evidence.masks import batches
from lib.evidence.metrics import ranking, weighted_auroc
from lib.evidence.results import Audit, Check, Estimate, Verdict
from lib.evidence.trivial import border, image_features, replaced, strata_of, tags
from lib.evidence.uncertainty import FEWEST_PATIENTS, interval, patient_weights
from lib.evidence.wording import estimate_text

MASKED = "masked image"  # the check of images without border or lungs

Score = Callable[[np.ndarray], np.ndarray]
"""uint8 images, (n, height, width) -> scores, (n,); higher is more anomalous."""


class Cohort(NamedTuple):
    """Labelled images: which are abnormal, (n,) bool, their patients, (n,), and the methods' scores, (n,) by name."""

    is_abnormal: np.ndarray
    patients: np.ndarray
    scores: Mapping[str, np.ndarray]
    resamples: int = 2000
    seed: int = 0

    def check(
        self, check: str, what: str, strata: np.ndarray, trivial: np.ndarray | None = None, remark: str = ""
    ) -> Check:
        """Return a check. An AUROC counts pairs within a stratum; for fewer than 10 patients of a class it is None.

        `strata`, (n,), are bool or words; images with False or "" are left out. `trivial`, (n,), are the scores of the
        cue itself, higher for the more abnormal; if they are all the same, the cue has no AUROC.
        """
        ill, known = self.is_abnormal, strata.astype(bool)
        inside = [rows for value in dict.fromkeys(strata[known]) if 0 < ill[rows := strata == value].mean() < 1]
        used = np.any(inside, axis=0) if inside else known
        n_normal, n_abnormal = int((used & ~ill).sum()), int((used & ill).sum())
        rarer = min(len(set(self.patients[used & kind])) for kind in (ill, ~ill))
        scores = dict(self.scores)
        if trivial is not None:
            scores |= {"": trivial} if (varies := len(set(trivial[used])) > 1) else {}  # no method has an empty name
            remark = "" if varies else "the same for all images" if used.any() else "unknown for all images"

        def within(weights: np.ndarray) -> np.ndarray:
            won, pairs = 0.0, 0.0
            for rows, stratum in zip(inside, ranks, strict=True):
                here = weights[rows & ill].sum(axis=0) * weights[rows & ~ill].sum(axis=0)
                won += here * np.nan_to_num([weighted_auroc(rank, weights[rows]) for rank in stratum])
                pairs += here
            return won / np.where(pairs > 0, pairs, np.nan)

        areas: dict[str, Estimate] = {}
        if scores and inside and rarer >= FEWEST_PATIENTS:
            ranks = [[ranking(score[rows], ill[rows]) for score in scores.values()] for rows in inside]
            values = within(np.ones((len(ill), 1)))[:, 0]
            weights = patient_weights(ill, self.patients, self.resamples, self.seed)
            replicates = np.concatenate([within(drawn) for drawn in weights], axis=1)
            areas = {
                name: interval(value, drawn, rarer, "auroc", constant=bool(np.ptp(score[used]) == 0))
                for (name, score), value, drawn in zip(scores.items(), values, replicates, strict=True)
            }
        own = areas.get("")
        return Check(
            check=check,
            what=what,
            normal=n_normal,
            abnormal=n_abnormal,
            auroc=own,
            away=abs(own.value - 0.5) if own else None,
            methods={name: areas.get(name) for name in self.scores},
            remark=remark,
        )


def masked_checks(
    score: Mapping[str, Score], images: ImageStack, lungs: np.ndarray | None, mean: np.ndarray, cohort: Cohort
) -> list[Check]:
    """Return each method's AUROC on images, (n, h, w) uint8: whole, without the border, and without the lungs.

    The lungs, (h, w) bool, are removed twice: once `replaced`, once painted black, as is usual. The result depends much
    on the fill, so neither is proof alone. Without `lungs`, those two checks are left out.
    """
    changes: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "whole": lambda batch: batch,
        "border replaced": lambda batch: replaced(batch, border(mean.shape), mean),
    }
    if lungs is not None:
        changes |= {
            "lungs replaced": lambda batch: replaced(batch, lungs, mean),
            "lungs black": lambda batch: np.where(lungs, np.uint8(0), batch),
        }
    for change in changes.values():
        change(images[:0])  # a wrong template is refused before any image is scored
    found: dict[str, dict[str, list[np.ndarray]]] = {what: {name: [] for name in score} for what in changes}
    for rows in tqdm(
        batches(images), desc="scores of changed images", unit="batch", mininterval=1, leave=False, delay=5
    ):
        for what, change in changes.items():
            for name, method in score.items():
                found[what][name].append(np.asarray(method(change(images[rows])), float))
    everyone, checks = np.ones(len(images), dtype=bool), []
    for what, by_name in found.items():
        scores = {name: np.concatenate(values) for name, values in by_name.items()}
        checks.append(cohort._replace(scores=scores).check(MASKED, what, everyone))
    return checks


def on_two_sides(records: Mapping[str, pd.DataFrame], manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return in words what the test side shares with training and validation, and for how many images this is known."""
    test, others = records["test"], pd.concat([records["train"], records["validation"]])
    ours, theirs = (side["patient"].replace("", None).dropna() for side in (test, others))
    known = f"known for {len(ours)} of {len(test)} test images and {len(theirs)} of {len(others)} others"
    shared = f"shared by {ours.isin(theirs).sum()} test images" if len(ours) and len(theirs) else "cannot be checked"
    same = [test[name].isin(others[name]) for name in ("digest", "twin") if name in test and name in others]
    copies = f"shared by {np.any(same, axis=0).sum()} test images" if same else "cannot be checked"
    duplicates = ", ".join(f"{manifest.get(f'{kind}_duplicates', 'unknown')} {kind}" for kind in ("exact", "near"))
    official = manifest.get("test_images_sharing_a_patient_or_image_with_the_official_training_side", {})
    sources = {side: sorted({*rows.get("source", ())} - {"", None}) or ["unknown"] for side, rows in records.items()}
    return {
        "a patient": f"{shared}; {known}",
        "an image": f"{copies}; duplicates among all images: {duplicates}",
        **{
            f"official training side, {kind}": f"{n} test images share a patient or an image with it"
            for kind, n in official.items()
        },
        "sources": "; ".join(f"{side}: {', '.join(names)}" for side, names in sources.items()),
    }


def explained_by(checks: Sequence[Check], method: str) -> Verdict:
    """Return whether a tag or a trivial feature ranks as well as the method on the same images, and a sentence.

    It does if its AUROC, or 1 minus its AUROC, is not below the method's interval; the strongest one is reported. It
    and its direction are picked with the test labels, which favours it; the method's direction is fixed.
    """
    trivial = [
        (check, area, own, 0.5 + check.away)
        for check in checks
        if (area := check.auroc) and check.away is not None and (own := check.methods[method])
    ]
    if not trivial:
        sentence = f"There are too few patients to compare any trivial cue with {method}."
        return Verdict(explained=None, by=None, sentence=sentence)
    reaching = [entry for entry in trivial if entry[3] >= entry[2].low]
    best, area, own, strength = max(reaching or trivial, key=lambda entry: entry[3])
    name = f"“{best.what}”" + (" (lower is more abnormal)" if area.value < 0.5 else "")
    if reaching:
        sentence = f"{name} alone ranks {'better than' if strength > own.high else 'as well as'} {method}"
    else:
        sentence = f"No tag and no trivial feature ranks as well as {method}, not even {name}"
    images = f"the same {best.normal} normal and {best.abnormal} abnormal images"
    sentence += f": AUROC {strength:.3f} against {estimate_text(own)} on {images}. "
    sentence += f"It is the strongest of {len(trivial)} trivial cues, picked with the test labels, which favours it."
    if all(check.check != "tag" for check, *_ in trivial):
        sentence += " No tag could be checked."
    changed = {check.what: check.methods.get(method) for check in checks if check.check == MASKED}
    if filled := changed.get("lungs replaced"):
        black = estimate_text(changed["lungs black"])
        sentence += f" With the lungs replaced, {method} has AUROC {estimate_text(filled)}; with black lungs, {black}."
    return Verdict(explained=bool(reaching), by=best.what, sentence=sentence)


def trivial_checks(check: str, trivial: Mapping[str, np.ndarray], cohort: Cohort) -> list[Check]:
    """Return a check of each trivial score, the strongest first, then the methods' AUROC within its strata."""
    checks = [cohort.check(check, what, np.isfinite(values), values) for what, values in trivial.items()]
    checks.sort(key=lambda found: -(found.away or 0))
    if checks and checks[0].auroc:
        what = checks[0].what
        strata = strata_of(trivial[what])
        each = {name: strata == name for name in dict.fromkeys(strata[np.argsort(trivial[what])]) if name}
        each["pairs within strata"] = strata
        checks += [cohort.check("stratum", f"{what}: {name}", stratum) for name, stratum in each.items()]
    return checks


def audit(
    records: Mapping[str, pd.DataFrame],
    images: ImageStack,
    mean: np.ndarray,
    scores: Mapping[str, np.ndarray],
    *,
    manifest: Mapping[str, Any],
    rescore: Mapping[str, Score],
    lungs: np.ndarray | None = None,
    labels: str = "label",
    **resampling: int,
) -> Audit:
    """Return all checks and, by method, the verdict (`explained_by`).

    `records` are the split's three sides, "train", "validation" and "test", without scores; `images` are those of the
    test side, and `mean`, (h, w), is the mean training image. `scores`, (n,) by method, are higher for the more
    abnormal; `rescore` computes them again for changed images. `resampling` is passed on to `Cohort`.

    Raises:
        ValueError: The test side has one class only, lengths differ, or scores are among the records' columns.

    """
    cases, lengths = records["test"].reset_index(drop=True), {name: len(values) for name, values in scores.items()}
    if {images.shape[0], *lengths.values()} != {len(cases)} or set(scores) & set(cases):
        found = f"{len(cases)} test records with columns {list(cases)}, {images.shape[0]} images, scores {lengths}"
        raise ValueError(f"{found}: give the split's records, without scores, and as many images and scores")
    patients = groups(cases).to_numpy()

    def cohort_by(label: pd.Series) -> Cohort:
        rows = label.isin(["normal", "abnormal"]).to_numpy()
        known = {name: np.asarray(values, dtype=float)[rows] for name, values in scores.items()}
        return Cohort((label[rows] == "abnormal").to_numpy(), patients[rows], known, **resampling)

    cohort, used = cohort_by(cases[labels]), cases[labels].isin(["normal", "abnormal"]).to_numpy()
    if not 0 < cohort.is_abnormal.sum() < used.sum():
        found = f"test images by {labels!r}: {cases[labels].value_counts().to_dict()}"
        raise ValueError(f"{found}; expected both classes: choose another column")
    seen = Subset(images, np.flatnonzero(used))
    checks = trivial_checks("tag", tags(cases[used]), cohort)
    checks += trivial_checks("image", image_features(seen, mean), cohort)
    checks += masked_checks(rescore, seen, lungs, mean, cohort)
    if "strict_label" in cases:
        checks += reading_checks(cases, cohort_by)
    nobody = np.zeros_like(cohort.is_abnormal)
    checks += [
        cohort.check("on two sides", what, nobody, remark=remark)
        for what, remark in on_two_sides(records, manifest).items()
    ]
    return Audit(labels=labels, checks=checks, verdicts={name: explained_by(checks, name) for name in scores})


def reading_checks(cases: pd.DataFrame, cohort_by: Callable[[pd.Series], Cohort]) -> list[Check]:
    """Return the methods' AUROC by `label`, by `strict_label`, and by `label` where `strict_label` decides."""
    strict, label = cases["strict_label"], cases["label"]
    again = strict[(label == "normal") & (strict != "")]
    remark = f"strict_label agrees on {(again == 'normal').sum()} of {len(again)} images that label calls normal"
    same = label.where(strict.isin(["normal", "abnormal"]))
    checks = []
    for what, reading in {"label": label, "strict_label": strict, "label, on strict_label's images": same}.items():
        cohort = cohort_by(reading)
        checks.append(cohort.check("reading", what, np.ones_like(cohort.is_abnormal), remark=remark))
    return checks
