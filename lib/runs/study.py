"""Keep a run's scores, combine runs with different seeds into a study, and write the page of all studies.

imgae-study research/results/published runs/adult-0 runs/adult-1 ...                      keeps these runs
imgae-study research/results/adult.json research/results/published/adult-{0,1,2,3,4} ...  combines them into a study
imgae-study docs/RESULTS.md research/results/*.json                                       writes the page of all studies
imgae-study docs/results.schema.json                                                      writes the files' JSON schema
imgae-study research/results/trials.csv runs/trial-0 runs/trial-1 ...                     adds trials to a table

A kept run holds the scores of every image, its settings and its results. From these a study can be computed again
without images and without training. Runs of one seed count as one: each method is taken from the first run that has it.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from statistics import mean
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from pydantic import ValidationError

from lib.evidence.ensembles import Ensemble, combined_members, ensembles
from lib.evidence.evaluation import check_table
from lib.evidence.learning import LearningCurves, SeedCurve, learning_curves
from lib.evidence.results import Results
from lib.evidence.seeds import FORMS
from lib.evidence.study import (
    SeedScores,
    Study,
    check_same_images,
    evaluate_seeds,
    false_alarms,
    mean_candidates,
    schema,
    selected,
)
from lib.evidence.uncertainty import affordable
from lib.files import replacing, write_json
from lib.params import ParameterError, Params
from lib.runs.candidates import read_candidates
from lib.runs.results_page import PRIMARY, TITLES, page
from lib.runs.run import Run, RunError
from lib.runs.trials import add_trials

RESAMPLES = 2000
WIDTH = 260  # of a line in a study's JSON file, in characters
T = TypeVar("T")


class StudyError(ValueError):
    """Runs that cannot be combined, or a file that is not a study."""


def candidates_of(run: Run, labels: pd.Series) -> pd.DataFrame:
    """Return one row per candidate score of a run, with its AUROC, which a kept run already holds."""
    kept = pd.read_csv(run.folder / "candidates.csv")
    found = kept if "auroc" in kept else read_candidates(run.folder, labels)
    if not np.isfinite(found[["separation", "auroc"]]).all(axis=None):
        raise StudyError(f"{run.folder.name}: candidates.csv holds a NaN or infinity; score the run again")
    return found


def scores_of(run: Run, results: Results) -> pd.DataFrame:
    """Return a run's scores; StudyError if a row, a patient or a score is not as an evaluation needs it."""
    table = run.scores()
    columns = [column for column in results.columns if column in table]
    try:
        check_table(table.assign(finding=""), columns, run.params.label_column)
    except ValueError as error:
        raise StudyError(f"{run.folder.name}: {error}") from None
    return table


def portable(run: Run) -> Params:
    """Return a run's settings without absolute paths."""
    return run.params.model_copy(
        update={"data_dir": Path(run.params.data_dir).name, "run_dir": run.folder.name, "keep_in": ""}
    )


def keep(run: Run, folder: Path) -> None:
    """Write to `folder` the files of a run that a study needs, with only the images and columns that it reads."""
    results, table = run.results(), run.scores()
    labels = [column for column in ("label", "strict_label") if column in table]
    columns = [column for column in results.columns if column in table]  # the others belong to runs beside it
    table = table.loc[table["side"] != "reference", ["id", "side", "patient", *labels, *columns]]
    test = table[table["side"] == "test"].set_index("id")
    with replacing(folder / "scores.parquet") as file:
        table.to_parquet(file, index=False)
    with replacing(folder / "candidates.csv") as file:
        candidates_of(run, test[run.params.label_column]).to_csv(file, index=False)
    if run.params.choose_from:  # or the curve is a point, which scores.parquet holds
        with replacing(folder / "curve.parquet") as file:
            run.curve().to_parquet(file, index=False)
    write_json(folder / "params.json", portable(run).model_dump())
    less = results.model_copy(update={"all_scores": None, "other_labels": []})  # a study computes them again
    write_json(folder / "results.json", less.model_dump(mode="json"))


def check_together(tables: Mapping[str, pd.DataFrame]) -> None:
    """Raise StudyError unless the runs' test images are the same, with the same patients and labels."""
    try:
        check_same_images({name: table.query("side == 'test'").droplevel("side") for name, table in tables.items()})
    except ValueError as error:
        raise StudyError(str(error)) from None


def together(runs: Sequence[Run], results: Sequence[Results]) -> tuple[Results, SeedScores]:
    """Return the results and scores of the runs of one seed as of one: a method is that of the first run that has it.

    Of the results, only the split, `methods`, `choices` and `copied` are those of all these runs.
    """
    if len({one.split for one in results}) > 1:
        names = ", ".join(run.folder.name for run in runs)
        raise StudyError(f"{names} have one seed and different splits: train them on the same images")
    tables = [scores_of(run, one).set_index(["id", "side"]) for run, one in zip(runs, results, strict=True)]
    check_together({run.folder.name: of_run for run, of_run in zip(runs, tables, strict=True)})
    table = tables[0]
    for other in tables[1:]:
        table = table.join(other[other.columns.difference(table.columns)], validate="one_to_one")
    table = table.reset_index()
    columns = [column for column in dict.fromkeys(chain(*(one.columns for one in results))) if column in table]
    labels = table[table["side"] == "test"].set_index("id")[runs[0].params.label_column]
    candidates = pd.concat([candidates_of(run, labels).assign(run=place) for place, run in enumerate(runs)])
    candidates = candidates[candidates["run"] == candidates.groupby("method")["run"].transform("min")]
    merged = {field: first_of([getattr(one, field) for one in results]) for field in ("methods", "choices", "copied")}
    return results[0].model_copy(update=merged), SeedScores(table, columns, candidates)


def curves(
    by_seed: Mapping[int, Sequence[Run]], results: Mapping[str, Results], scores: Mapping[int, SeedScores], labels: str
) -> LearningCurves | None:
    """Return the learning curves of the runs that have kept scores of earlier epochs; None if there are none."""
    seeds, references = {}, {}
    for seed, runs in by_seed.items():
        with_curve = [run for run in runs if (run.folder / "curve.parquet").is_file()]
        if with_curve:
            tables = [run.curve().set_index("id") for run in with_curve]
            if any(table.index.duplicated().any() or not np.isfinite(table).all(axis=None) for table in tables):
                found = ", ".join(run.folder.name for run in with_curve)
                raise StudyError(f"{found}: curve.parquet has an image twice, or a NaN or infinity; score again")
            points = first_of([results[run.folder.name].points for run in with_curve])
            seeds[seed] = SeedCurve(pd.concat(tables, axis=1, join="inner"), points)
            names = dict.fromkeys(chain(*(results[run.folder.name].references for run in runs)))
            references[seed] = scores[seed].test[[name for name in names if name in scores[seed].columns]]
    if not seeds:
        return None
    return learning_curves(seeds, references, next(iter(scores.values())).test, labels, PRIMARY[3], RESAMPLES)


def joined(
    scores: Mapping[int, SeedScores], copied: Mapping[str, Mapping[int, Mapping[str, float]]], labels: str
) -> list[Ensemble]:
    """Return the ensembles over seeds, and the combination of the methods that every seed has with references."""
    columns = list(dict.fromkeys(chain(*(of_seed.columns for of_seed in scores.values()))))
    complete = [method for method, by_seed in copied.items() if set(by_seed) == set(scores)]
    squares = {method: mean(of["square"] for of in by_seed.values()) for method, by_seed in copied.items()}
    members = combined_members(complete, squares, columns)
    return ensembles([of_seed.table for of_seed in scores.values()], columns, members, labels, RESAMPLES)


def first_of(mappings: Sequence[Mapping[str, T]]) -> dict[str, T]:
    """Merge mappings; where several have a key, the first counts."""
    return {key: next(of[key] for of in mappings if key in of) for key in dict.fromkeys(chain(*mappings))}


def by_name(by_seed: Mapping[int, Mapping[str, T]]) -> dict[str, dict[int, T]]:
    """Turn entries by seed and name into entries by name and seed."""
    names = dict.fromkeys(chain(*by_seed.values()))
    return {name: {seed: of[name] for seed, of in by_seed.items() if name in of} for name in names}


def combine(folders: Sequence[Path]) -> Study:
    """Evaluate the scores of all these runs together, and describe the runs."""
    runs = [Run.open(folder) for folder in folders]
    results = {run.folder.name: run.results() for run in runs}
    by_seed: dict[int, Results] = {}
    scores: dict[int, SeedScores] = {}
    runs_of: dict[int, list[Run]] = {}
    for seed in dict.fromkeys(run.params.seed for run in runs):
        runs_of[seed] = of_seed = [run for run in runs if run.params.seed == seed]
        by_seed[seed], scores[seed] = together(of_seed, [results[run.folder.name] for run in of_seed])
    check_together({f"seed {seed}": one.table.set_index(["id", "side"]) for seed, one in scores.items()})
    settings, (label_column, *others) = [portable(run) for run in runs], {run.params.label_column: 0 for run in runs}
    if others:
        raise StudyError(
            f"the runs are evaluated by different labels, {label_column} and {others[0]}: set `labels` alike"
        )
    differing = [one.model_dump(exclude={"data_dir", "run_dir", "seed"}) for one in settings]
    budgets = by_name({seed: one.budgets for seed, one in by_seed.items()})
    promises = {seed: false_alarms(one, label_column) for seed, one in scores.items()}
    copied = by_name({seed: one.copied for seed, one in by_seed.items()})
    methods = list(dict.fromkeys(method for one in settings for method in one.methods))
    first, test = results[runs[0].folder.name], next(iter(scores.values())).test
    return Study(
        settings=settings[0],
        runs={
            name: {key: value for key, value in own.items() if value != differing[0][key]}
            for name, own in zip(results, differing, strict=True)
        },
        seeds=list(by_seed),
        splits={seed: one.split for seed, one in by_seed.items()},
        resamples=affordable(RESAMPLES, test[label_column].isin(["normal", "abnormal"]).sum()),
        patient_separation=first.patient_separation,
        budgets={name: min(budgets[name].values(), key=lambda budget: budget.seconds) for name in methods},
        left_out=first.left_out,
        evaluations=[
            evaluate_seeds(scores, labels, compared(methods), RESAMPLES)
            for labels in ("strict_label", "label")
            if labels in test
        ],
        candidates=mean_candidates(list(scores.values())),
        selection=by_name({seed: selected(scores[seed].candidates, one.choices) for seed, one in by_seed.items()}),
        copied=copied,
        false_alarms={seed: promise for seed, promise in promises.items() if promise},
        localisation={name: one.localisation for name, one in results.items() if one.localisation},
        curves=curves(runs_of, results, scores, label_column),
        ensembles=joined(scores, copied, label_column),
    )


def compared(methods: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of scores whose difference is reported: methods against RA and against nearest neighbours."""
    pairs = [("unet", "unet-denoising")]
    pairs += [(f"{method}{form}", f"ra{form}") for form in FORMS.values() for method in methods]
    pairs += [(f"{method}{form}", "knn") for form in FORMS.values() for method in methods]
    return [(first, second) for first, second in pairs if first != second]


def read_study(path: Path) -> Study:
    """Read a study's file; raise StudyError if it is not a study, or has another version."""
    try:
        return Study.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first, count = error.errors()[0], error.error_count()
        found = f"{count} errors, first {'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise StudyError(
            f"{path} is not a study of this version: compute it again with imgae-study ({found})"
        ) from None


def laid_out(content: Any, indent: str = "") -> str:
    """Return content as JSON with lines as long as `WIDTH` allows, so that a diff of two versions is readable."""
    try:
        line = json.dumps(content, allow_nan=False)
    except ValueError:
        raise StudyError("a number of the study is NaN or infinite: score and evaluate the runs again") from None
    if len(indent + line) <= WIDTH or not isinstance(content, dict | list):
        return line
    deeper = f"{indent} "
    if isinstance(content, dict):
        entries = [f"{deeper}{json.dumps(key)}: {laid_out(value, deeper)}" for key, value in content.items()]
    else:
        entries = [f"{deeper}{laid_out(value, deeper)}" for value in content]
    return f"{line[0]}\n{f',{chr(10)}'.join(entries)}\n{indent}{line[-1]}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Keep, combine, or write a page or the schema, as the target's name says; errors are printed as a message."""
    parser = argparse.ArgumentParser("imgae-study", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("target", type=Path, help="a folder or FILE.json, .csv, .md, .schema.json, see above")
    parser.add_argument("sources", type=Path, nargs="*", help="folders of evaluated or kept runs; for a page, studies")
    options = parser.parse_args(arguments)
    target: Path = options.target
    if bool(options.sources) == target.name.endswith(".schema.json"):
        parser.error(
            f"{target}: a schema takes no sources; a folder or a study takes run folders, a page takes studies"
        )
    try:
        if target.name.endswith(".schema.json"):
            text = f"{json.dumps(schema(), indent=1)}\n"
        elif target.suffix == ".json":
            text = f"{laid_out(combine(options.sources).model_dump(mode='json'))}\n"
        elif target.suffix == ".csv":
            table = add_trials(target, [Run.open(folder) for folder in options.sources])
            text = table.to_csv(index=False, float_format="%.6g")
        elif target.suffix == ".md":
            studies = {path.stem: read_study(path) for path in options.sources}
            if PRIMARY[0] not in studies:
                raise StudyError(f"{PRIMARY[0]} is not among the studies: the page begins with its primary comparison")
            if unknown := [name for name in studies if name.partition("-")[2] not in TITLES]:
                raise StudyError(f"the page has no title for {unknown}: name the files SET{' or SET-'.join(TITLES)}")
            kept = {
                path.stem: path.parent / "published" / next(iter(studies[path.stem].runs)) for path in options.sources
            }
            text = page(studies, {name: Run.open(folder).results() for name, folder in kept.items()})
        else:
            for folder in options.sources:
                keep(Run.open(folder), target / folder.name)
            return 0
    except (StudyError, RunError, ParameterError) as error:
        print(error, file=sys.stderr)
        return 2
    with replacing(target) as file:
        file.write(text.encode())
    return 0
