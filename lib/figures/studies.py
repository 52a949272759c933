"""Studies -> tables as text, one row a score, a method or a difference, for docs/RESULTS.md and chapter 7."""

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from lib.evidence.audit import MASKED
from lib.evidence.results import Audit, Check, Localisation
from lib.evidence.seeds import FORMS
from lib.evidence.study import MeanDifference, MeanEvaluation, Study
from lib.evidence.wording import GAP, estimate_text, percent

ORDER = {-1: "ranks below", 0: "is not told apart from", 1: "ranks above"}


def evaluations(studies: Mapping[str, Study]) -> dict[str, MeanEvaluation]:
    """Return every evaluation of the studies by its column's heading: set, labels, normal / abnormal images."""
    return {
        f"{name}, {one.labels}, {one.n_normal} / {one.n_abnormal}": one
        for name, study in studies.items()
        for one in study.evaluations
    }


def forms(methods: Iterable[str], which: Iterable[str] = FORMS) -> list[str]:
    """Return the names of these methods' scores, method by method."""
    which = list(which)
    return [f"{method}{FORMS[form]}" for method in methods for form in which]


def spread(values: Iterable[float], form: str = "{:.2f}") -> str:
    """Return the lowest and the highest value, as "0.62 to 0.79"; one number where they read alike."""
    texts = [form.format(value) for value in sorted(values)]
    return GAP if not texts else texts[0] if texts[0] == texts[-1] else f"{texts[0]} to {texts[-1]}"


def percents(shares: Iterable[float]) -> str:
    """Return the lowest and the highest of some shares, as "0 to 22 %"."""
    text = spread((round(100 * share) for share in shares), "{:d}")
    return text if text == GAP else f"{text} %"


def score_table(studies: Mapping[str, Study], names: Sequence[str]) -> pd.DataFrame:
    """Return the AUROC of these scores, one column an evaluation; a dash where a set has no such score."""
    columns = {
        title: [estimate_text(one.scores[name].auroc.estimate) if name in one.scores else GAP for name in names]
        for title, one in evaluations(studies).items()
    }
    return pd.DataFrame(columns, index=pd.Index(names, name="AUROC"))


def difference_table(studies: Mapping[str, Study], pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """Return the differences of AUROC of these pairs of scores, one column an evaluation."""
    columns = {
        title: {f"{d.first} − {d.second}": estimate_text(d.auroc.estimate, signed=True) for d in one.among(pairs)}
        for title, one in evaluations(studies).items()
    }
    index = pd.Index([f"{first} − {second}" for first, second in pairs], name="difference of AUROC")
    return pd.DataFrame(columns, index=index).dropna(how="all").astype(object).fillna(GAP)


def verdict(difference: MeanDifference) -> str:
    """Return what a difference says, by its interval, as one sentence of Markdown."""
    mean = difference.auroc
    drawn = f"; with seeds as draws [{mean.drawn[0]:+.2f}, {mean.drawn[1]:+.2f}]" if mean.drawn else ""
    value, seeds = estimate_text(mean.estimate, signed=True), ", ".join(map(str, mean.seeds))
    return f"*{difference.first}* {ORDER[difference.order]} *{difference.second}*: {value}, seeds {seeds}{drawn}."


def seeds_table(evaluation: MeanEvaluation, names: Sequence[str], pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """Return what seeds and patients each add to the uncertainty of these scores and differences."""
    means = {name: (evaluation.scores[name].auroc, "") for name in names}
    means |= {f"{d.first} − {d.second}": (d.auroc, "+") for d in evaluation.among(pairs)}
    rows = {
        name: {
            "mean [interval, these seeds]": estimate_text(mean.estimate, signed=bool(sign)),
            "each seed": " ".join(f"{value:{sign}.2f}" for value in mean.seeds.values()),
            "interval, seeds as draws": "[{:{s}.2f}, {:{s}.2f}]".format(*mean.drawn, s=sign) if mean.drawn else GAP,
            "SD from patients": f"{mean.sample_sd:.3f}",
            "SD from seeds": GAP if mean.seed_sd is None else f"{mean.seed_sd:.3f}",
        }
        for name, (mean, sign) in means.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("AUROC")


def size_table(study: Study, other: Study, names: Sequence[str]) -> pd.DataFrame:
    """Return the AUROC of scores that two studies have, over the seeds of the first, side by side, by image size."""
    columns = {
        f"{one.settings.image_size} px": [
            f"{one.evaluation.scores[name].auroc.over(study.seeds):.3f}" for name in names
        ]
        for one in (study, other)
    }
    return pd.DataFrame(columns, index=pd.Index(names, name="AUROC"))


def map_table(grid: pd.DataFrame, methods: Sequence[str]) -> pd.DataFrame:
    """Return the AUROCs of `auroc_by_map` as text, of the maps that any of these methods has."""
    grid = grid[grid[list(methods)].notna().any(axis=1)]
    return grid.map(lambda value: GAP if pd.isna(value) else f"{value:.2f}").rename_axis("map")


def selection_table(study: Study) -> pd.DataFrame:
    """Return what choosing a score without labels costs each method, the mean over its seeds."""
    scores, rows = study.evaluation.scores, {}
    for method, by_seed in study.selection.items():
        oracle = study.oracle(method)
        primary, chosen = (scores[f"{method}{form}"].auroc.estimate.value for form in ("", ", chosen"))
        agreements = [one.agreement for one in by_seed.values() if one.agreement is not None]
        rows[method] = {
            "mean residual": f"{primary:.3f}",
            "chosen without labels": f"{chosen:.3f}",
            "best that labels could pick": f"{oracle:.3f}",
            "cost of choosing": f"{oracle - chosen:.3f}",
            "agreement with AUROC (Spearman)": spread(agreements),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("AUROC")


def copied_table(studies: Mapping[str, Study]) -> pd.DataFrame:
    """Return the share of a pasted change that each method gives back, lowest to highest seed, in percent."""
    columns: dict[str, dict[str, str]] = {}
    for name, study in studies.items():
        for method, by_seed in study.copied.items():
            for kind in next(iter(by_seed.values())):
                shares = percents(one[kind] for one in by_seed.values())
                columns.setdefault(f"{name}, {kind}", {})[method] = shares
    return pd.DataFrame(columns).fillna(GAP).rename_axis("share given back")


def ensemble_table(studies: Mapping[str, Study], names: Sequence[str]) -> pd.DataFrame:
    """Return the AUROC of these ensembles, one column a set; those that no set has are left out."""
    columns: dict[str, dict[str, str]] = {}
    for name, study in studies.items():
        found = {one.name: estimate_text(one.auroc) for one in study.ensembles}
        columns[f"{name}, {study.evaluation.labels}"] = {one: found.get(one, GAP) for one in names}
    table = pd.DataFrame(columns, index=pd.Index(names, name="AUROC of the mean over seeds"))
    return table[(table != GAP).any(axis=1)]


def false_alarm_table(studies: Mapping[str, Study], names: Sequence[str]) -> pd.DataFrame:
    """Return how many of the normal test images raise an alarm at the threshold that promises 5 %, over the seeds."""
    columns: dict[str, list[str]] = {}
    for title, study in studies.items():
        promises = list(study.false_alarms.values())
        allowed = percent(max((promise.high for promise in promises), default=1))
        columns[f"{title} (chance allows up to {allowed})"] = [
            percents(promise.rates[name] for promise in promises if name in promise.rates) for name in names
        ]
    return pd.DataFrame(columns, index=pd.Index(names, name="false alarms"))


def audit_extract(audit: Audit, each: int = 2) -> pd.DataFrame:
    """Return the main lines of an audit: the strongest tags and features, alike images, images without lungs or border.

    Of the tags and of the features that need no network the `each` strongest. A dash stands for too few images.
    """

    def telling(check: Check) -> bool:
        alike = check.check == "stratum" and check.what.endswith((": no", ": yes", ": pairs within strata"))
        return any(check.methods.values()) and (alike or check.check == MASKED)

    trivial = {kind: [one for one in audit.checks if one.check == kind and one.auroc] for kind in ("tag", "image")}
    rows = {
        f"{check.check}: {check.what}": {
            "normal / abnormal": f"{check.normal} / {check.abnormal}",
            "its AUROC": estimate_text(check.auroc),
            **{name: estimate_text(estimate) for name, estimate in check.methods.items()},
        }
        for check in [*trivial["tag"][:each], *trivial["image"][:each], *filter(telling, audit.checks)]
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("AUROC")


def margins_table(localisation: Localisation) -> pd.DataFrame:
    """Return how far each method's maps point at lesions better than a map of where lesions are in other patients."""
    columns = {
        f"{region}, {title}": {
            name: estimate_text(located.margins[metric], signed=True)
            for name, located in by_method.items()
            if located.margins
        }
        for region, by_method in localisation.regions.items()
        if by_method
        for metric, title in {"average_precision": "average precision", "auroc": "AUROC"}.items()
    }
    return pd.DataFrame(columns).fillna(GAP).rename_axis("over the location prior")
