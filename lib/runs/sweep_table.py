"""Runs of several settings and seeds -> one table: how well each setting ranks over its seeds, and how settings differ.

What differs between the runs is found in their settings. Every run has scored the same test images.
"""

import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from lib.evidence.results import method_of
from lib.evidence.seeds import FORMS, SeedMean
from lib.evidence.study import MeanEvaluation, SeedScores, check_same_images, evaluate_seeds
from lib.figures.studies import seeds_table
from lib.files import replacing, write_csv
from lib.params import Params
from lib.runs.archive import RunScores, StudyError, opened, portable, read
from lib.runs.results_page import markdown, verdicts

RESAMPLES = 2000
NO_SETTING = {
    "preset",
    "methods",
    "references",
    "seed",
    "seeds",
    "split_seed",
    "run_dir",
    "compare_with",
    "keep_in",
    "tracking",
}
NO_SETTING |= {"threads", "device", "resamples", "measure_every"}
"""Parameters in which runs may differ without being of other settings."""


class Score(NamedTuple):
    """One score of a method under some settings."""

    method: str
    form: str
    settings: str
    """Those that differ between the runs, as "ra_beta_neg=64"; empty if none does."""

    def __str__(self) -> str:
        return f"{self.method}{self.form}{self.settings and f' ({self.settings})'}"


class SweepTable(NamedTuple):
    """What runs of several settings and seeds have found."""

    varied: list[str]
    """The settings that differ between the runs."""
    evaluation: MeanEvaluation
    scores: dict[str, Score]
    """By their name in the evaluation."""
    values: dict[str, dict[str, Any]]
    """The varied settings of each score, by its name."""

    def rows(self) -> pd.DataFrame:
        """Return a row for each score: method, score, settings, AUROC with its intervals, deviations, each seed."""
        forms = {form: name for name, form in FORMS.items()}
        rows = []
        for name, score in self.scores.items():
            auroc = self.evaluation.scores[name].auroc
            rows.append({"method": score.method, "score": forms[score.form], **self.values[name], **_numbers(auroc)})
        return pd.DataFrame(rows)

    def differences(self) -> pd.DataFrame:
        """Return a row for each pair of scores: the first's AUROC minus the second's on the same images."""
        found = [
            {"first": each.first, "second": each.second, **_numbers(each.auroc)} for each in self.evaluation.differences
        ]
        return pd.DataFrame(found, columns=None if found else ["first", "second"])

    def text(self) -> pd.DataFrame:
        """Return the rows as a table to read."""
        facts = self.rows()[["method", "score", *self.varied]].map(_text)
        return facts.join(seeds_table(self.evaluation, list(self.scores), []).reset_index(drop=True))


def sweep_table(folders: Sequence[Path]) -> SweepTable:
    """Evaluate these evaluated runs together.

    Settings of a method are compared with its first ones, and methods with each other under equal and first settings.
    StudyError or RunError names the runs that cannot stand together, and why.
    """
    runs = [read(run) for run in opened(folders)]
    label_column, *others = dict.fromkeys(one.run.params.label_column for one in runs)
    if others:
        raise StudyError(
            f"the runs are evaluated by different labels, {label_column} and {others[0]}: set `labels` alike"
        )
    tests = {one.run.folder.name: one.table[one.table["side"] == "test"].set_index("id") for one in runs}
    try:
        check_same_images(tests)
    except ValueError as error:
        raise StudyError(str(error)) from None
    settings = {one.run.folder.name: _settings(portable(one.run)) for one in runs}
    first = next(iter(settings.values()))
    varied = [name for name in first if any(own[name] != first[name] for own in settings.values())]
    scores, values, owners = {}, {}, dict[tuple[str, int], str]()
    by_seed: dict[int, list[tuple[RunScores, dict[str, str]]]] = {}
    for one in runs:
        folder, seed = one.run.folder.name, one.run.params.seed
        own = {name: settings[folder][name] for name in varied}
        label = ", ".join(f"{name}={_text(value)}" for name, value in own.items())
        renamed = {}
        for column in one.columns:
            method = method_of(column)
            if method not in one.run.params.methods or (form := column.removeprefix(method)) not in FORMS.values():
                continue
            score = Score(method, form, label)
            if other := owners.get((str(score), seed)):
                raise StudyError(
                    f"{other} and {folder} have the method {method}, settings and seed in common: give one"
                )
            owners[str(score), seed] = folder
            renamed[column], scores[str(score)], values[str(score)] = str(score), score, own
        by_seed.setdefault(seed, []).append((one, renamed))
    seeds = {seed: _joined(of_seed) for seed, of_seed in by_seed.items()}
    return SweepTable(varied, evaluate_seeds(seeds, label_column, _pairs(scores), RESAMPLES), scores, values)


def write_table(table: SweepTable, file: Path) -> None:
    """Write the table as a page in Markdown; beside it as numbers, `NAME.csv`, and the differences, likewise."""
    evaluation = table.evaluation
    settings = ", ".join(f"`{name}`" for name in table.varied) or "nothing but the seed"
    lines = [
        f"# {file.stem}\n",
        f"{evaluation.n_normal} normal and {evaluation.n_abnormal} abnormal test images, by `{evaluation.labels}`. The "
        f"runs differ in {settings}. AUROC is the mean over the seeds; the first interval holds for other patients and "
        f"these seeds, the second for other seeds, too.\n",
        markdown(table.text().set_index("method")),
    ]
    if evaluation.differences:
        lines += [
            "## Differences\n",
            "The first minus the second, on the same images.\n",
            verdicts(evaluation.differences),
        ]
    with replacing(file) as out:
        out.write("\n".join(lines).encode())
    write_csv(file.with_suffix(".csv"), table.rows(), index=False)
    write_csv(file.with_name(f"{file.stem}-differences.csv"), table.differences(), index=False)


def _settings(params: Params) -> dict[str, Any]:
    return params.model_dump(exclude=NO_SETTING)


def _joined(runs: Sequence[tuple[RunScores, Mapping[str, str]]]) -> SeedScores:
    """Return the scores of the runs of one seed in one table, by their new names."""
    tables = [one.table.set_index(["id", "side"]) for one, _ in runs]
    facts = tables[0].drop(columns=runs[0][0].columns)
    own = [table[list(names)].rename(columns=names) for table, (_, names) in zip(tables, runs, strict=True)]
    table = facts.join(own, how="inner").reset_index()
    return SeedScores(table, [name for _, names in runs for name in names.values()], pd.DataFrame())


def _pairs(scores: Mapping[str, Score]) -> list[tuple[str, str]]:
    """Return the pairs that are compared, within each form of score.

    They are the settings of a method with its first ones, the methods under equal settings, and under their first ones.
    """
    firsts: dict[tuple[str, str], str] = {}
    for name, score in scores.items():
        firsts.setdefault((score.method, score.form), name)
    own = [(name, first) for name, one in scores.items() if (first := firsts[one.method, one.form]) != name]
    between = [
        (name, other)
        for (name, a), (other, b) in combinations(scores.items(), 2)
        if a.form == b.form
        and a.method != b.method
        and (a.settings == b.settings or {name, other} <= {*firsts.values()})
    ]
    return [*own, *between]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _numbers(mean: SeedMean) -> dict[str, Any]:
    low, high = mean.drawn or (None, None)
    estimate = {"auroc": mean.estimate.value, "low": mean.estimate.low, "high": mean.estimate.high}
    deviation = {
        "drawn_low": low,
        "drawn_high": high,
        "sd_from_patients": mean.sample_sd,
        "sd_from_seeds": mean.seed_sd,
    }
    return estimate | deviation | {f"seed {seed}": value for seed, value in sorted(mean.seeds.items())}
