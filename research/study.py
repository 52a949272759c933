"""Runs of one set with different seeds -> one small file of results, which the README and chapter 7 read.

    python research/study.py research/published runs/adult-0 runs/adult-1 ... runs/adult-arms-0 ...
    python research/study.py research/results/adult.json research/published/adult-0 ... research/published/adult-arms-0 ...

The first keeps what a result is made of: each film's scores, and what a run says of itself. The second makes a result of
it, and so can anybody, without a film and without training. Runs of one seed count as one: a row is taken from the first of them that has it. The test films are the same in every
run, so a row's AUROC is the mean over the seeds that have it, its interval comes from one bootstrap over patients that
takes that mean in each resample, and the seeds' own values and their part of the variance stand beside it. A difference is that of the seeds that both
rows have.
"""

import argparse
import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lib.evaluation import threshold_at
from lib.files import replacing, write_json
from lib.judging import read_candidates
from lib.runs import Run
from lib.uncertainty import Bootstrap, bootstrap, over_seeds

RESAMPLES = 2000
WIDTH = 260  # characters of a line of results: twice a screen, for there are many
METRICS = ("auroc", "average_precision")
SCORES = ("", ", chosen", ", combined")


def mean_over_seeds(drawn: dict[int, Bootstrap], metric: str, minus: dict[int, Bootstrap] | None = None) -> dict:
    """Return the mean over the seeds, each seed's value, and its intervals: of a row, or of a difference.

    "low" and "high" are of the sample, with these seeds; "drawn" takes the seeds as draws too, where there are several.
    """
    seeds = [seed for seed in drawn if minus is None or seed in minus]
    values = np.array([drawn[seed].values[metric][0] for seed in seeds])
    replicates = np.array([drawn[seed].replicates[metric][0] for seed in seeds])
    if minus is not None:
        values -= [minus[seed].values[metric][0] for seed in seeds]
        replicates -= [minus[seed].replicates[metric][0] for seed in seeds]
    split = over_seeds(values, replicates, drawn[seeds[0]].patients, None if minus else metric)
    return {
        **split.fixed._asdict(),
        "drawn": split.drawn and [round(split.drawn.low, 4), round(split.drawn.high, 4)],
        "sd": {"sample": split.sample_sd, "seeds": split.seed_sd},
        "seeds": {str(seed): round(float(one), 4) for seed, one in zip(seeds, values, strict=True)},
    }


def candidates(run: Run, labels: pd.Series) -> pd.DataFrame:
    """Return every score that a run could have chosen, with its AUROC; where the run was kept, that was kept."""
    rows = pd.read_csv(run.folder / "candidates.csv")
    return rows if "auroc" in rows else read_candidates(run.folder, labels)


def keep(run: Run, folder: Path) -> None:
    """Write to the folder what `study` reads of a run, the scores of no more films and columns than it needs."""
    folder.mkdir(parents=True, exist_ok=True)
    results, table = run.results(), pd.read_parquet(run.folder / "scores.parquet")
    labels = [column for column in ("label", "strict_label") if column in table]
    columns = [column for column in results["columns"] if column in table]  # others: of a run that stood beside it
    table = table.loc[table["side"] != "reference", ["id", "side", "patient", *labels, *columns]]
    test = table[table["side"] == "test"].set_index("id")
    table.to_parquet(folder / "scores.parquet", index=False)
    candidates(run, test[run.params.label_column]).to_csv(folder / "candidates.csv", index=False)
    here = {"data_dir": Path(run.params.data_dir).name, "run_dir": run.folder.name}  # no path of one machine
    write_json(folder / "params.json", run.params.model_dump() | here)
    write_json(folder / "results.json", {k: v for k, v in results.items() if k not in ("rows", "other_labels")})


class Seed:
    """The runs of one seed, as if they were one: what the first of them has counts."""

    def __init__(self, runs: list[Run]) -> None:
        self.runs, self.results = runs, [run.results() for run in runs]
        if len({results["split"] for results in self.results}) > 1:
            raise SystemExit(
                f"{[run.folder.name for run in runs]} have one seed and different splits: train them on one"
            )
        tables = [pd.read_parquet(run.folder / "scores.parquet").set_index(["id", "side"]) for run in runs]
        self.table = tables[0]
        for table in tables[1:]:
            self.table = self.table.join(table[table.columns.difference(self.table.columns)], validate="one_to_one")
        self.table = self.table.reset_index("side")
        named = dict.fromkeys(column for results in self.results for column in results["columns"])
        self.columns = [column for column in named if column in self.table]  # others: of a run that stood beside it
        self.labels = runs[0].params.label_column
        self.test = self.table[self.table["side"] == "test"]
        found = [candidates(run, self.test[self.labels]) for run in runs]
        first = pd.concat(found, keys=range(len(runs)), names=["run"]).reset_index("run")
        self.candidates = first[first["run"] == first.groupby("method")["run"].transform("min")]

    def of_method(self, key: str) -> dict:
        """Return results[key] or results["methods"][name][key], by method."""
        made = {}
        for results in reversed(self.results):
            made |= results[key] if key in results else {n: one[key] for n, one in results["methods"].items()}
        return made

    def alarms(self, column: str) -> float | None:
        """Return how many of the normal test films exceed the threshold that promises 5 %."""
        validation = self.table[column][self.table["side"] == "validation"]
        normal = self.test[column][self.test[self.labels] == "normal"]
        return float((normal > threshold_at(validation)).mean()) if validation.notna().all() else None


def study(folders: list[Path]) -> dict:
    """Evaluate what all these runs have scored, and say what they were."""
    runs = [Run.open(folder) for folder in folders]
    by_seed = {run.params.seed: Seed([other for other in runs if other.params.seed == run.params.seed]) for run in runs}
    first = next(iter(by_seed.values()))
    if any(set(one.test.index) != set(first.test.index) for one in by_seed.values()):
        raise SystemExit("the runs have different test films: give runs on a set with an official test side")
    columns = list(dict.fromkeys(column for one in by_seed.values() for column in one.columns))
    methods = list(dict.fromkeys(method for run in runs for method in run.params.methods))
    pairs = [("unet", "unet-denoising")]
    pairs += [(m + what, "ra" + what) for what in SCORES for m in methods if m != "ra"]
    pairs += [(m + what, "knn") for what in SCORES for m in methods]
    evaluations = []
    for labels in ("strict_label", "label"):
        if labels not in first.test:
            continue
        label = first.test[labels]
        known = label[label.isin(["normal", "abnormal"])].index
        is_abnormal, patients = (label[known] == "abnormal").to_numpy(), first.test.loc[known, "patient"].to_numpy()
        drawn: dict[str, dict[int, Bootstrap]] = {
            column: {
                seed: bootstrap(one.test.loc[known, [column]].to_numpy(float).T, is_abnormal, patients, RESAMPLES)
                for seed, one in by_seed.items()
                if column in one.columns
            }
            for column in columns
        }
        evaluations.append(
            {
                "labels": labels,
                "n_normal": int((~is_abnormal).sum()),
                "n_abnormal": int(is_abnormal.sum()),
                "rows": {c: {metric: mean_over_seeds(drawn[c], metric) for metric in METRICS} for c in columns},
                "differences": [
                    {"first": a, "second": b, **mean_over_seeds(drawn[a], "auroc", drawn[b])}
                    for a, b in pairs
                    if {a, b} <= set(columns) and set(drawn[a]) & set(drawn[b])
                ],
            }
        )
    candidates = pd.concat([one.candidates.assign(seed=seed) for seed, one in by_seed.items()])
    last = candidates[candidates["epoch"] == candidates.groupby(["method", "run"])["epoch"].transform("max")]
    own = candidates[candidates["own"]].groupby(["method", "seed"], sort=False)
    oracle, agrees = own["auroc"].max(), own.apply(lambda of: of["separation"].corr(of["auroc"], method="spearman"))

    def by(key: str) -> dict:
        found = {seed: one.of_method(key) for seed, one in by_seed.items()}
        names = dict.fromkeys(name for of_seed in found.values() for name in of_seed)
        return {name: {str(seed): of[name] for seed, of in found.items() if name in of} for name in names}

    settings = [run.params.model_dump(exclude={"data_dir", "run_dir", "seed"}) for run in runs]
    return {
        "made": date.today().isoformat(),
        "runs": {
            run.folder.name: {key: value for key, value in one.items() if value != settings[0][key]}
            for run, one in zip(runs, settings, strict=True)
        },
        "params": settings[0],
        "seeds": list(by_seed),
        "splits": {str(seed): one.results[0]["split"] for seed, one in by_seed.items()},
        "resamples": RESAMPLES,
        "patient_separation": first.results[0]["patient_separation"],
        "budgets": {  # of the seed that took the fewest seconds: the others shared the machine with more
            method: min(by("budget")[method].values(), key=lambda budget: budget["seconds"]) for method in methods
        },
        "localisation": {
            str(seed): [results.get("localisation") for results in one.results] for seed, one in by_seed.items()
        },
        "copied": by("copied"),
        "choices": by("choices"),
        "left_out": first.results[0]["left_out"],
        "evaluations": evaluations,
        "false_alarms_at_a_promised_0.05": {
            column: {str(seed): one.alarms(column) for seed, one in by_seed.items() if column in one.columns}
            for column in columns
        },
        "scores": {
            method: of.groupby("score", sort=False)["auroc"].mean().round(4).to_dict()
            for method, of in last.groupby("method", sort=False)
        },
        "oracle": {
            method: {str(seed): round(value, 4) for seed, value in oracle[method].items()}
            for method in oracle.index.unique("method")
        },
        "criterion_agrees_with_auroc_spearman": {
            method: {str(seed): round(value, 4) for seed, value in agrees[method].items()}
            for method in oracle.index.unique("method")
        },
    }


def laid_out(content: Any, indent: str = "") -> str:
    """Return content as JSON in which a line holds all that has room in it, for the notebook shows these files."""
    line = json.dumps(content, allow_nan=False)
    if len(indent + line) <= WIDTH or not isinstance(content, dict | list):
        return line
    deeper, named = f"{indent} ", isinstance(content, dict)
    entries = content.items() if named else [(None, value) for value in content]
    lines = [f"{deeper}{json.dumps(key) + ': ' if named else ''}{laid_out(value, deeper)}" for key, value in entries]
    return f"{line[0]}\n{f',{chr(10)}'.join(lines)}\n{indent}{line[-1]}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("to", type=Path, help="the file of results to write, .json; or the folder to keep the runs in")
    parser.add_argument("runs", type=Path, nargs="+", help="folders of scored runs of one set, or as they were kept")
    given = parser.parse_args()
    if given.to.suffix == ".json":
        with replacing(given.to) as file:
            file.write(f"{laid_out(study(given.runs))}\n".encode())
    else:
        for folder in given.runs:
            keep(Run.open(folder), given.to / folder.name)
