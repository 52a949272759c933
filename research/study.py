"""Runs of one set with different seeds -> one small file of results, which the README and chapter 7 read.

    python research/study.py research/results/adult.json runs/adult-0 runs/adult-1 ...

The test films are the same in every run, so a row's AUROC is the mean over the seeds, its interval comes from one
bootstrap over patients that takes that mean in each resample, and the seeds' own values stand beside it.
"""

import argparse
import json
from datetime import date
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from lib.evaluation import LEVEL, Bootstrap, bootstrap, threshold_at
from lib.files import write_json
from lib.judging import read_candidates
from lib.runs import Run

RESAMPLES = 2000
METRICS = ("auroc", "average_precision")


def over_seeds(drawn: Bootstrap, metric: str, minus: Bootstrap | None = None) -> dict:
    """Return the mean over the seeds with its interval, and each seed's value: of a row, or of a difference."""
    value, replicates = drawn.values[metric], drawn.replicates[metric]
    if minus is not None:
        value, replicates = value - minus.values[metric], replicates - minus.replicates[metric]
    low, high = np.nanquantile(replicates.mean(axis=0), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {"value": float(value.mean()), "low": float(low), "high": float(high), "seeds": value.round(4).tolist()}


def study(folders: list[Path]) -> dict:
    """Evaluate what all these runs have scored, and say what they were."""
    runs = [Run.open(folder) for folder in folders]
    results = [run.results() for run in runs]
    tables = [pd.read_parquet(run.folder / "scores.parquet") for run in runs]
    tests = [table[table["side"] == "test"].set_index("id") for table in tables]
    if any(set(test.index) != set(tests[0].index) for test in tests):
        raise SystemExit("the runs have different test films: give runs on a set with an official test side")
    columns = [column for column in results[0]["columns"] if all(column in test for test in tests)]
    methods = list(results[0]["methods"])
    evaluations = []
    for labels in ("strict_label", "label"):
        if labels not in tests[0]:
            continue
        label = tests[0][labels]
        known = label[label.isin(["normal", "abnormal"])].index
        is_abnormal, patients = (label[known] == "abnormal").to_numpy(), tests[0].loc[known, "patient"].to_numpy()
        drawn = {
            column: bootstrap(np.stack([t.loc[known, column] for t in tests]), is_abnormal, patients, RESAMPLES)
            for column in columns
        }
        pairs = [
            pair for what in ("", ", chosen", ", combined") for pair in combinations([m + what for m in methods], 2)
        ]
        pairs += [(m + what, "knn") for m in methods for what in ("", ", chosen", ", combined")]
        evaluations.append(
            {
                "labels": labels,
                "n_normal": int((~is_abnormal).sum()),
                "n_abnormal": int(is_abnormal.sum()),
                "rows": {c: {metric: over_seeds(drawn[c], metric) for metric in METRICS} for c in columns},
                "differences": [
                    {"first": a, "second": b, **over_seeds(drawn[a], "auroc", drawn[b])}
                    for a, b in pairs
                    if {a, b} <= set(columns)
                ],
            }
        )
    candidates = pd.concat(
        [
            read_candidates(run.folder, test[run.params.label_column]).assign(seed=run.params.seed)
            for run, test in zip(runs, tests, strict=True)
        ]
    )
    last = candidates[candidates["epoch"] == candidates.groupby("method")["epoch"].transform("max")]
    alarms = {}
    for column in columns:
        rates = []
        for table, test, run in zip(tables, tests, runs, strict=True):
            validation = table[column][table["side"] == "validation"]
            normal = test[column][test[run.params.label_column] == "normal"]
            if validation.notna().all():
                rates.append(float((normal > threshold_at(validation)).mean()))
        alarms[column] = np.round(rates, 4).tolist()
    return {
        "made": date.today().isoformat(),
        "runs": [run.folder.name for run in runs],
        "params": runs[0].params.model_dump(exclude={"data_dir", "run_dir", "seed"}),
        "seeds": [run.params.seed for run in runs],
        "splits": [result["split"] for result in results],
        "resamples": RESAMPLES,
        "patient_separation": results[0]["patient_separation"],
        "budgets": {m: results[0]["methods"][m]["budget"] for m in methods},
        "pixels": {m: [result["methods"][m]["pixels"] for result in results] for m in methods},
        "copied": {m: [result["copied"][m] for result in results] for m in methods},
        "choices": {m: [result["choices"][m] for result in results] for m in results[0]["choices"]},
        "left_out": results[0]["left_out"],
        "evaluations": evaluations,
        "false_alarms_at_a_promised_0.05": alarms,
        "scores": [
            {"method": method, "score": score, **group[["separation", "auroc"]].mean().round(4).to_dict()}
            for (method, score), group in last.groupby(["method", "score"], sort=False)
        ],
        "oracle": {
            method: [round(float(one["auroc"].max()), 4) for _, one in group.groupby("seed")]
            for method, group in candidates.groupby("method", sort=False)
        },
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file", type=Path, help="the file of results to write")
    parser.add_argument("runs", type=Path, nargs="+", help="folders of scored runs that differ in their seed")
    given = parser.parse_args()
    write_json(given.file, study(given.runs))
    print(json.dumps(json.loads(given.file.read_text())["evaluations"][0]["rows"], indent=1)[:2000])
