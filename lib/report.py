"""Results -> what a person reads: tables, the summary in plain text."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from lib.audit import audit_table
from lib.evaluation import difference_text, findings_table, results_table, strata_table
from lib.localisation import localisation_table

SYNTHETIC = "synthetic images: a smoke test, not evidence"


def budget_table(results: Mapping[str, Any]) -> pd.DataFrame:
    """Return what each method has spent, one row a method."""
    rows = {name: entry["budget"] for name, entry in results["methods"].items()}
    return pd.DataFrame(
        {
            name: {
                "parameters": f"{b['parameters']:,}",
                "images seen": f"{b['images_seen']:,}",
                "optimizer steps": f"{b['steps']:,}",
                "multiply-adds": f"{b['multiply_adds']:.2e}",
                "seconds": f"{b['seconds']:,.0f}",
            }
            for name, b in rows.items()
        }
    ).T.rename_axis("method")


def promise_table(results: Mapping[str, Any]) -> pd.DataFrame:
    """Return what came of the promised false alarm rate, one row a score; no rows where none can be promised."""
    made = results["promise"] or {"rows": {}}
    kept = {True: "yes", False: "no"}
    return pd.DataFrame(
        {
            name: {"false alarms on test normals": f"{100 * rate:.0f} %", "within chance": kept[rate <= made["high"]]}
            for name, rate in made["rows"].items()
        },
        index=["false alarms on test normals", "within chance"],
    ).T.rename_axis("row")


def tables(results: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Return all tables of a run that is evaluated and audited, by a name that a file can have."""
    regions = (results.get("localisation") or {"regions": {}})["regions"]
    return {
        "results": results_table(results["evaluation"]),
        "findings": findings_table(results["evaluation"]),
        "strata": strata_table(results["evaluation"]),
        **{f"results-by-{other['labels']}": results_table(other) for other in results["other_labels"]},
        "rows": results_table(results["rows"]),
        "differences": pd.json_normalize(results["evaluation"]["differences"] + results["rows"]["differences"]),
        "promise": promise_table(results),
        "budget": budget_table(results),
        **{
            f"localisation-{name.replace(' ', '-')}": localisation_table(results["localisation"], name)
            for name in regions
        },
        "audit": audit_table(results["audit"]),
    }


def claimed(results: Mapping[str, Any], kind: str) -> str:
    """Return what the run "may" or "may_not" say, one line a claim, as Markdown."""
    return "\n".join(f"- … {claim['says']}." for claim in results["claims"][kind])


def summary(results: Mapping[str, Any]) -> str:
    """Return the result as plain text: what explains it, the table, the differences, what may be claimed of it."""
    evaluation, verdicts = results["evaluation"], results.get("audit", {}).get("verdicts", {})
    lines = [verdict["sentence"] for verdict in verdicts.values() if verdict["explained"]]
    lines += [results_table(evaluation).to_string()]
    lines += [difference_text(difference) for difference in evaluation["differences"]]
    if "claims" in results:
        lines += ["This run may say that", claimed(results, "may"), "and may not say that", claimed(results, "may_not")]
    if results["synthetic"]:
        lines.append(SYNTHETIC)
    return "\n".join(lines)
