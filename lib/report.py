"""Results -> what a person reads: tables, the summary in plain text, the page of an executed notebook."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from lib.evaluation import difference_text, results_table
from lib.files import replacing

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


def summary(results: Mapping[str, Any]) -> str:
    """Return the result as plain text: what explains it, the table, the differences, and where it is no evidence."""
    evaluation, verdicts = results["evaluation"], results.get("audit", {}).get("verdicts", {})
    lines = [verdict["sentence"] for verdict in verdicts.values() if verdict["explained"]]
    lines += [results_table(evaluation).to_string()]
    lines += [difference_text(difference) for difference in evaluation["differences"]]
    if results["synthetic"]:
        lines.append(SYNTHETIC)
    return "\n".join(lines)


def write_report(notebook: Path, report: Path) -> None:
    """Write an executed notebook as one HTML page, without the library's cells."""
    import nbformat
    from nbconvert import HTMLExporter
    from traitlets.config import Config

    config = Config()
    config.TagRemovePreprocessor.remove_cell_tags = {"library"}
    config.HTMLExporter.preprocessors = ["nbconvert.preprocessors.TagRemovePreprocessor"]
    page, _ = HTMLExporter(config=config).from_notebook_node(nbformat.read(notebook, as_version=4))
    with replacing(report) as out:
        out.write(page.encode())
