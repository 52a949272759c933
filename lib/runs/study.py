"""Combine runs with different seeds into a study, and write the page of all studies.

A kept run holds the scores of every image, its settings and its results. From these a study can be computed again
without images and without training. Runs of one seed count as one: each method is taken from the first run that has it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from statistics import mean
from typing import Any, TypeVar

import pandas as pd
from pydantic import ValidationError

from lib.evidence.ensembles import Ensemble, combined_members, ensembles
from lib.evidence.learning import LearningCurves, SeedCurve, learning_curves
from lib.evidence.marks import Point
from lib.evidence.results import Results, method_of
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
from lib.files import replacing
from lib.runs.archive import RunScores, StudyError, keep, opened, portable, read, read_curve
from lib.runs.freshness import IMAGES
from lib.runs.results_page import PRIMARY, check_studies, page
from lib.runs.run import Run
from lib.runs.sweep_table import sweep_table, write_table
from lib.runs.trials import write_trials

RESAMPLES = 2000
SCHEMA = ".schema.json"
WIDTH = 260  # of a line in a study's JSON file, in characters
T = TypeVar("T")


def check_together(tables: Mapping[str, pd.DataFrame]) -> None:
    """Raise StudyError unless the runs' test images are the same, with the same patients and labels."""
    try:
        check_same_images({name: table.query("side == 'test'").droplevel("side") for name, table in tables.items()})
    except ValueError as error:
        raise StudyError(str(error)) from None


def check_alike(by_seed: Iterable[Sequence[RunScores]]) -> None:
    """Raise StudyError if two seeds have a method or a reference of other settings: their mean would be of neither."""
    first: dict[str, RunScores] = {}
    for name, one in chain.from_iterable(owners(runs).items() for runs in by_seed):
        settings, others = (settings_behind(run, name) for run in (one.run, first.setdefault(name, one).run))
        if differing := [f"{key} ({others[key]}, {settings[key]})" for key in settings if settings[key] != others[key]]:
            found = f"{name}: {first[name].run.folder.name} and {one.run.folder.name} differ in {', '.join(differing)}"
            raise StudyError(f"{found}; a mean over seeds is of runs that differ in nothing else: combine them apart")


def owners(runs: Sequence[RunScores]) -> dict[str, RunScores]:
    """Return the first run that has each method or reference, by its name."""
    return first_of([dict.fromkeys(one.names, one) for one in runs])


def settings_behind(run: Run, name: str) -> dict[str, Any]:
    """Return the settings, but for the seed, that the scores of a method depend on, or those of a reference."""
    params = portable(run)
    shared = params.model_dump(include={*IMAGES, "source", "data_dir", "backbone"})
    if name not in params.methods:
        return shared
    own = params.training_settings() | params.model_dump(include={"epochs", "ra_map"})
    return {key: value for key, value in (shared | own).items() if key not in ("seed", "split_seed")}


def together(runs: Sequence[RunScores]) -> tuple[Results, SeedScores]:
    """Return the results and scores of the runs of one seed as of one: a method is that of the first run that has it.

    Of the results, only the split, `methods`, `choices` and `copied` are those of all these runs.
    """
    results = [one.results for one in runs]
    if len({one.split for one in results}) > 1:
        names = ", ".join(one.run.folder.name for one in runs)
        raise StudyError(f"{names} have one seed and different splits: train them on the same images")
    tables = [one.table.set_index(["id", "side"]) for one in runs]
    check_together({one.run.folder.name: of_run for one, of_run in zip(runs, tables, strict=True)})
    table = tables[0]
    for other in tables[1:]:
        table = table.join(other[other.columns.difference(table.columns)], validate="one_to_one")
    columns = list(dict.fromkeys(chain(*(one.columns for one in runs))))
    candidates = pd.concat([one.candidates.assign(run=place) for place, one in enumerate(runs)])
    candidates = candidates[candidates["run"] == candidates.groupby("method")["run"].transform("min")]
    merged = {field: first_of([getattr(one, field) for one in results]) for field in ("methods", "choices", "copied")}
    return results[0].model_copy(update=merged), SeedScores(table.reset_index(), columns, candidates)


def curves(
    by_seed: Mapping[int, Sequence[RunScores]], scores: Mapping[int, SeedScores], labels: str
) -> LearningCurves | None:
    """Return the learning curves of the runs that have kept scores of earlier epochs; None if there are none."""
    seeds, references = {}, {}
    for seed, runs in by_seed.items():
        owner, tables = owners(runs), []
        points: dict[str, list[Point]] = {}
        for one in [one for one in runs if (one.run.folder / "curve.parquet").is_file()]:
            curve, own = read_curve(one), [name for name in one.run.params.methods if owner[name] is one]
            tables.append(curve[[name for name in curve if method_of(name.partition(" @ ")[0]) in own]])
            points |= {name: one.results.points[name] for name in own}
        if points:
            seeds[seed] = SeedCurve(pd.concat(tables, axis=1), points)
            names = dict.fromkeys(chain(*(one.results.references for one in runs)))
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


def combine(folders: Sequence[Path], pairs: Iterable[tuple[str, str]] = ()) -> Study:
    """Evaluate the scores of all these runs together, also the difference of these pairs, and describe the runs.

    StudyError or RunError if a run cannot be read, or if their scores cannot stand together.
    """
    opened_runs = opened(folders)
    label_column, *others = dict.fromkeys(run.params.label_column for run in opened_runs)
    if others:
        raise StudyError(
            f"the runs are evaluated by different labels, {label_column} and {others[0]}: set `labels` alike"
        )
    runs = [read(run) for run in opened_runs]
    results = {one.run.folder.name: one.results for one in runs}
    by_seed: dict[int, Results] = {}
    scores: dict[int, SeedScores] = {}
    seeds = dict.fromkeys(one.run.params.seed for one in runs)
    runs_of = {seed: [one for one in runs if one.run.params.seed == seed] for seed in seeds}
    check_alike(runs_of.values())
    for seed, of_seed in runs_of.items():
        by_seed[seed], scores[seed] = together(of_seed)
    check_together({f"seed {seed}": one.table.set_index(["id", "side"]) for seed, one in scores.items()})
    settings = [portable(run) for run in opened_runs]
    differing = [one.model_dump(exclude={"data_dir", "run_dir", "seed"}) for one in settings]
    budgets = by_name({seed: one.budgets for seed, one in by_seed.items()})
    promises = {seed: false_alarms(one, label_column) for seed, one in scores.items()}
    copied = by_name({seed: one.copied for seed, one in by_seed.items()})
    methods = list(dict.fromkeys(method for one in settings for method in one.methods))
    first, test = runs[0].results, next(iter(scores.values())).test
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
            evaluate_seeds(scores, labels, list(dict.fromkeys([*compared(methods), *pairs])), RESAMPLES)
            for labels in dict.fromkeys((label_column, "strict_label", "label"))
            if labels in test and {"normal", "abnormal"} <= set(test[labels])
        ],
        candidates=mean_candidates(list(scores.values())),
        selection=by_name({seed: selected(scores[seed].candidates, one.choices) for seed, one in by_seed.items()}),
        copied=copied,
        false_alarms={seed: promise for seed, promise in promises.items() if promise},
        localisation={name: one.localisation for name, one in results.items() if one.localisation},
        curves=curves(runs_of, scores, label_column),
        ensembles=joined(scores, copied, label_column),
    )


def compared(methods: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of scores whose difference is reported: methods against RA and against nearest neighbours."""
    pairs = [("unet", "unet-denoising")]
    pairs += [(f"{method}{form}", f"ra{form}") for form in FORMS.values() for method in methods]
    pairs += [(f"{method}{form}", "knn") for form in FORMS.values() for method in methods]
    return [(first, second) for first, second in pairs if first != second]


def write_study(study: Study, path: Path) -> None:
    """Write a study's file."""
    with replacing(path) as file:
        file.write(f"{laid_out(study.model_dump(mode='json'))}\n".encode())


def read_study(path: Path) -> Study:
    """Read a study's file; raise StudyError if it is not a study, or has another version."""
    again = "compute it again with imgae-study"
    try:
        return Study.model_validate_json(path.read_bytes())
    except OSError as error:
        raise StudyError(f"{path} cannot be read as a study ({error.strerror}): {again}") from None
    except ValidationError as error:
        first, count = error.errors()[0], error.error_count()
        found = f"{count} errors, first {'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise StudyError(f"{path} is not a study of this version: {again} ({found})") from None


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


def page_of(files: Sequence[Path]) -> str:
    """Return the page of these studies, and of the results that are kept of the first run of each, beside them."""
    studies = {path.stem: read_study(path) for path in files}
    if len(studies) < len(files):
        raise StudyError(f"two of the {len(files)} studies have one name: give files of different names")
    check_studies(studies)
    kept = {path.stem: path.parent / "published" / next(iter(studies[path.stem].runs)) for path in files}
    return page(studies, {name: opened([folder])[0].results() for name, folder in kept.items()})


def make(target: Path, sources: Sequence[Path]) -> None:
    """Keep, combine, tabulate, or write a page or the schema, as the target's name says.

    Raises StudyError for a target of another name, and whatever the sources lack.
    """
    if target.suffix not in ("", ".json", ".csv", ".md"):
        raise StudyError(f"{target} ends in {target.suffix}: name FILE.json, .csv, .md, or a folder without a suffix")
    if target.suffix and target.is_dir():
        raise StudyError(f"{target} is a folder, and a {target.suffix} is a file: choose another name")
    if not target.suffix:
        keep(sources, target)
        return
    if target.suffix == ".csv":
        write_trials(target, opened(sources))
        return
    if target.suffix == ".json" and not target.name.endswith(SCHEMA):
        write_study(combine(sources), target)
        return
    if target.suffix == ".md" and any(source.is_dir() for source in sources):
        write_table(sweep_table(sources), target)
        return
    text = page_of(sources) if target.suffix == ".md" else f"{json.dumps(schema(), indent=1)}\n"
    with replacing(target) as file:
        file.write(text.encode())
