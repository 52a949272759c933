"""Results -> tables to read: numbers as text, a dash where there is none."""

from collections.abc import Mapping, Sequence

import pandas as pd
from pandas.io.formats.style import Styler

from lib.evidence.results import Audit, Budget, Evaluation, Localisation, Results, required
from lib.evidence.seeds import FORMS
from lib.evidence.wording import GAP, estimate_text, percent


def results_table(evaluation: Evaluation) -> pd.DataFrame:
    """Return one row for each method: its metrics, and what its threshold does."""
    interval = f"[{percent(evaluation.level)} interval]"
    rows = {}
    for name, method in evaluation.methods.items():
        threshold = method.threshold
        rows[name] = {
            f"AUROC {interval}": estimate_text(method.auroc),
            f"average precision {interval}": estimate_text(method.average_precision),
            "FPR at 95 % TPR": f"{method.fpr_at_95_tpr.value:.2f}",
            "TPR at 5 % FPR": f"{method.tpr_at_5_fpr.value:.2f}",
            "sensitivity": f"{threshold.sensitivity.value:.2f}" if threshold else GAP,
            "specificity": f"{threshold.specificity.value:.2f}" if threshold else GAP,
            "normal / abnormal": f"{evaluation.n_normal} / {evaluation.n_abnormal}",
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def findings_table(evaluation: Evaluation, areas: Mapping[str, float] | None = None) -> pd.DataFrame:
    """Return one row for each finding: its images, and each method's AUROC against the same normals.

    With `areas`, the share of an image that the lesions of a finding cover, these are shown too.
    """
    methods = {name: method.findings for name, method in evaluation.methods.items()}
    images = {name: finding.n for name, finding in next(iter(methods.values())).items()}
    aurocs = {
        method: {name: estimate_text(finding.auroc) for name, finding in findings.items()}
        for method, findings in methods.items()
    }
    columns: dict[str, Mapping[str, object]] = {"images": images}
    if areas:
        columns["area"] = {name: percent(areas[name]) if name in areas else GAP for name in images}
    return pd.DataFrame({**columns, **aurocs}).rename_axis("finding")


def strata_table(evaluation: Evaluation) -> pd.DataFrame:
    """Return one row for each stratum: its images of either class, each method's AUROC, and why there is none."""
    rows = {
        (stratum.column, stratum.value): {
            "normal": stratum.n_normal,
            "abnormal": stratum.n_abnormal,
            **{method: estimate_text((stratum.auroc or {}).get(method)) for method in evaluation.methods},
            "remark": stratum.why or "",
        }
        for stratum in evaluation.strata
    }
    columns = ["normal", "abnormal", *evaluation.methods, "remark"]
    index = pd.MultiIndex.from_tuples(rows, names=["column", "value"])
    return pd.DataFrame(list(rows.values()), index=index, columns=columns)


def differences_table(*evaluations: Evaluation) -> pd.DataFrame:
    """Return one row for each difference of scores, every field of it a column of numbers."""
    return pd.json_normalize([pair.model_dump() for evaluation in evaluations for pair in evaluation.differences])


def budget_table(budgets: Mapping[str, Budget]) -> pd.DataFrame:
    """Return one row for each method: its budget."""
    rows = {
        name: {
            "parameters": f"{budget.parameters:,}",
            "images seen": f"{budget.images_seen:,}",
            "optimizer steps": f"{budget.steps:,}",
            "multiply-adds": f"{budget.multiply_adds:.2e}",
            "seconds": f"{budget.seconds:,.0f}",
        }
        for name, budget in budgets.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def promise_table(results: Results) -> pd.DataFrame:
    """Return one row for each score: what came of the promised false alarm rate; none if it cannot be promised."""
    alarms, kept = "false alarms on test normals", "within chance"
    rows = {}
    if promised := results.promise:
        for name, rate in promised.rates.items():
            rows[name] = {alarms: percent(rate), kept: "yes" if rate <= promised.high else "no"}
    return pd.DataFrame.from_dict(rows, orient="index", columns=[alarms, kept]).rename_axis("score")


def localisation_table(localisation: Localisation, region: str) -> pd.DataFrame:
    """Return one row for the prior and for each method: how well its map localises in one of the regions."""
    rows = {}
    for name, located in (localisation.regions[region] or {}).items():
        margins = located.margins or {}
        rows[name] = {
            "average precision over the prior": estimate_text(margins.get("average_precision"), signed=True),
            "AUROC over the prior": estimate_text(margins.get("auroc"), signed=True),
            "AUROC": f"{located.auroc:.3f}",
            "average precision": f"{located.average_precision:.3f}",
            "AUPRO": f"{located.aupro:.3f}",
            "pointing game": f"{located.pointing:.3f}",
            "best Dice (oracle)": f"{located.best_dice:.3f}",
            "prevalence": f"{located.prevalence:.3f}",
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(region)


def audit_table(audit: Audit) -> pd.DataFrame:
    """Return one row for each check of the audit."""
    rows = {
        (check.check, check.what): {
            "normal / abnormal": f"{check.normal} / {check.abnormal}" if check.normal + check.abnormal else GAP,
            "AUROC": estimate_text(check.auroc),
            "away from 0.5": GAP if check.away is None else f"{check.away:.3f}",
            **{method: estimate_text(check.methods.get(method)) for method in audit.verdicts},
            "remark": check.remark,
        }
        for check in audit.checks
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["check", "what"])


def shaded(aurocs: pd.DataFrame) -> Styler:
    """Return a table of AUROCs in which higher values are darker, and a gap is a dash."""
    style = aurocs.style.format("{:.2f}", na_rep=GAP, escape="html").format_index(escape="html", axis=0)
    style = style.background_gradient("Greys", vmin=0.4, vmax=1.0, text_color_threshold=0.179)  # equal contrast there
    return style.highlight_null(props="background-color: white; color: black")


def scored_images(table: pd.DataFrame, methods: Sequence[str]) -> pd.DataFrame:
    """Return new images' scores to read, a row per image and method: its primary score, and the p-value of each form.

    `table` is that of `lib.runs.new_images`; what an image is unlike in stands in its first row.
    """
    rows = []
    for row in table.to_dict("records"):
        for method in methods:
            first = method == methods[0]
            values = {form: row.get(f"{method}{suffix}, p") for form, suffix in FORMS.items()}
            rows.append(
                {"image": row["image"] if first else "", "method": method}
                | {"score": f"{row[method]:.4f}", "threshold": f"{row[f'{method}, threshold']:.4f}"}
                | {f"p, {form}": f"{value:.3f}" for form, value in values.items() if value is not None}
                | {"abnormal": row[f"{method}, abnormal"], "unlike": row["unlike"] if first else ""}
            )
    return pd.DataFrame(rows)


def tables(results: Results) -> dict[str, pd.DataFrame]:
    """Return all tables of a run by a name that a file can have; ValueError if it is not evaluated and audited."""
    evaluation = required(results.evaluation, "evaluation")
    all_scores = required(results.all_scores, "evaluation of all scores")
    localised = {}
    if localisation := results.localisation:
        for region in localisation.regions:
            localised[f"localisation-{region.replace(' ', '-')}"] = localisation_table(localisation, region)
    return {
        "results": results_table(evaluation),
        "findings": findings_table(evaluation),
        "strata": strata_table(evaluation),
        **{f"results-by-{other.labels}": results_table(other) for other in results.other_labels},
        "all-scores": results_table(all_scores),
        "differences": differences_table(evaluation, all_scores),
        "promise": promise_table(results),
        "budget": budget_table(results.budgets),
        **localised,
        "audit": audit_table(required(results.audit, "audit")),
    }
