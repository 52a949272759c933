"""Scores of runs that can be compared -> one table, what is reported, what else explains it, what it may claim."""

import json
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import pandas as pd

from lib.audit import Score, audit
from lib.claims import claims, promise
from lib.dataset import Sides, Split
from lib.evaluation import evaluate_scores
from lib.localisation import lungs_template
from lib.method import Method
from lib.params import Params
from lib.report import tables
from lib.runs import Run, RunError
from lib.scoring import reconstruct, residuals


def comparable(run: Run) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a run's scores with those of finished runs beside it, and what was found, one row a run and method.

    A run beside it counts if it is finished and its split, image size and number of images seen are the same; in
    what else it differs is said. The run's own methods count first, and of several with one method the newest.
    """
    mine, table = run.results(), pd.read_parquet(run.folder / "scores.parquet")
    mine["columns"] = [column for column in mine["columns"] if column in table]
    entries = {name: entry for name, entry in mine["methods"].items() if entry["run"] == run.folder.name}
    found = [{"method": name, "run": run.folder.name, "used": True, "remark": ""} for name in entries]
    settings = run.params.training_settings() | run.params.model_dump(include={"backbone", "ra_map"})
    seen = {entry["budget"]["images_seen"] for entry in entries.values()} or None
    others = [file for file in run.folder.parent.glob("*/results.json") if file.parent != run.folder]
    for file in sorted(others, key=lambda file: file.stat().st_mtime, reverse=True):
        try:
            theirs, params, status = (
                json.loads((file.parent / f"{name}.json").read_text()) for name in ("results", "params", "status")
            )
            if any(theirs[key] != mine[key] for key in ("split", "image_size", "score")):
                continue
            own = {n: entry for n, entry in theirs["methods"].items() if entry["run"] == file.parent.name}
            own = {n: entry for n, entry in own.items() if not seen or entry["budget"]["images_seen"] in seen}
            used = [name for name in own if name not in entries and status["status"] == "ok"]
            columns = [column for column in theirs["columns"] if column.partition(",")[0] in used]
            beside = pd.read_parquet(file.parent / "scores.parquet", columns=["id", *columns])
            differs = [f"{key} {params.get(key)}" for key in settings if params.get(key) != settings[key]]
            remark = f"differs in {', '.join(differs)}" if differs else ""
            remark = remark if status["status"] == "ok" else f"its status is {status['status']}"
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            own, used = {"": {}}, []
            remark = f"cannot be read: {type(error).__name__}: {error}"
        found += [{"method": n, "run": file.parent.name, "used": n in used, "remark": remark} for n in own]
        for name in used:
            entries[name] = own[name]
            seen = seen or {own[name]["budget"]["images_seen"]}  # a run that trains nothing takes the newest's
        if used:
            table = table.merge(beside, on="id", how="left", validate="one_to_one")
            mine["columns"] = list(dict.fromkeys([*mine["columns"], *columns]))
    order = Params.model_fields["methods"].default  # so that a difference has the same sign whichever ran last
    mine["methods"] = {name: entries[name] for name in sorted(entries, key=lambda n: (*order, n).index(n))}
    run.write_results(mine)
    return table, pd.DataFrame(found, columns=["method", "run", "used", "remark"])


def evaluate(run: Run, table: pd.DataFrame) -> dict[str, Any]:
    """Evaluate every method of `table`, under each label column there is; write and return results.json.

    The column that the settings name is `results["evaluation"]`, others that hold both classes are in
    `results["other_labels"]`; `results["rows"]` holds all that was scored, references too, and how far the methods'
    chosen and combined scores lie from each other's and from frozen features'; `results["promise"]` what came of a
    promised false alarm rate (`lib.claims`).
    """
    results = run.results()
    if not results["methods"]:
        raise RunError(
            f"nothing to evaluate: {run.folder} trains no method (methods is empty), and no finished run in "
            f"{run.folder.parent} has the same split, image size and budget"
        )
    options: dict[str, Any] = {"resamples": run.params.resamples, "seed": run.params.seed}
    labelled = table[table["side"] == "test"]
    columns = [
        column
        for column in ("label", "strict_label")
        if column in table and column != run.params.label_column and {"normal", "abnormal"} <= set(labelled[column])
    ]
    methods = list(results["methods"])
    results["evaluation"] = evaluate_scores(table, methods, labels=run.params.label_column, **options)
    results["other_labels"] = [evaluate_scores(table, methods, labels=column, **options) for column in columns]
    rivals = [name for name in ("knn", "patchcore") if name in results["columns"]]
    pairs = [pair for what in ("chosen", "combined") for pair in combinations([f"{m}, {what}" for m in methods], 2)]
    pairs += [(f"{m}, {what}", rival) for m in methods for what in ("chosen", "combined") for rival in rivals]
    pairs = [pair for pair in pairs if set(pair) <= set(results["columns"])]
    results["rows"] = evaluate_scores(table, results["columns"], labels=run.params.label_column, pairs=pairs, **options)
    results["calibration_images"] = int((table["side"] == "validation").sum())
    results["promise"] = promise(results)
    run.write_results(results)
    for name, entry in results["evaluation"]["methods"].items():
        run.summarise({f"{name}/{metric}": entry[metric]["value"] for metric in ("auroc", "average_precision")})
    return results


def explain(
    run: Run, table: pd.DataFrame, trained: Mapping[str, Method], split: Split, images: Sides
) -> dict[str, Any]:
    """Audit the primary scores in `table`, say what may be claimed, and return the results with both.

    Films without border or lungs are scored by the `trained` methods, which are this run's own. Writes
    results.json, and every table of it as CSV.
    """
    test, results = table[table["side"] == "test"], run.results()

    def primary(method: Method) -> Score:
        return lambda films: residuals(films, reconstruct(method, films)).mean(axis=(1, 2), dtype=float)

    results["audit"] = audit(
        {"train": split.train, "validation": split.validation, "test": split.test},
        images.test,
        images.train[:].mean(axis=0),
        {name: test[name].to_numpy() for name in results["methods"]},
        manifest=split.manifest,
        rescore={name: primary(method) for name, method in trained.items()},
        lungs=lungs_template(run.params.image_size),
        labels=run.params.label_column,
        resamples=run.params.resamples,
        seed=run.params.seed,
    )
    used = test[test[run.params.label_column].isin(["normal", "abnormal"])]
    ages = pd.to_numeric(used["age"], errors="coerce").dropna() if "age" in used else pd.Series(dtype=float)
    results["test_images"] = {
        "sources": sorted(set(used["source"].dropna()) - {""}) if "source" in used else [],
        "ages": [float(ages.min()), float(ages.max())] if len(ages) else None,
    }
    results["claims"] = claims(results)
    run.write_results(results)
    for name, one in tables(results).items():
        run.save_table(one, name)
    return results
