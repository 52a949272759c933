"""A run of several seeds: the run itself has the first, and each of the others is a run of its own in its folder.

All have the same images on the same sides. Together they are a study, in `seeds.json`.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations

from lib.evidence.study import Study
from lib.methods.method import Method
from lib.params import Params
from lib.runs.comparison import comparable
from lib.runs.evaluate import evaluate
from lib.runs.prepare import Prepared
from lib.runs.run import Run
from lib.runs.score import score
from lib.runs.study import combine, write_study
from lib.runs.tracking import Tracker
from lib.runs.train import load, train

STUDY = "seeds.json"


def other_seeds(run: Run) -> Iterator[Params]:
    """Yield the settings of the run of each seed but the first; a tracker gets the first seed alone."""
    for seed in run.params.seeds[1:]:
        folder = run.folder / "seeds" / f"{run.folder.name}-{seed}"
        own = {"seed": seed, "seeds": [], "run_dir": str(folder), "compare_with": [], "tracking": "off"}
        yield run.params.model_copy(update=own)


def train_seeds(run: Run, prepared: Prepared) -> None:
    """Train the run's methods with each of its other seeds; what is trained already is not trained again."""
    for params in other_seeds(run):
        with Run.start(params, run.folder) as other:
            print(f"seed {params.seed}: {other.folder}")
            for name in params.methods:
                train(other, name, replace(prepared, params=other.params), Tracker())
            other.finish()


def evaluate_seeds(run: Run, prepared: Prepared, *, again: bool = True) -> Study | None:
    """Score and evaluate the runs of the other seeds, which are trained, and combine them with the run, in `STUDY`.

    None for a run of one seed. The run itself is evaluated; its settings and those of the others differ in the seed.
    """
    folders = [run.folder]
    for params in other_seeds(run):
        with Run.start(params, run.folder) as other:
            own = replace(prepared, params=other.params)
            trained: dict[str, Method] = {name: load(other, name, own.split).method for name in params.methods}
            score(other, own, trained, again=again)
            evaluate(other, comparable(other), again=again)
            other.finish()
        folders.append(other.folder)
    if not folders[1:]:
        return None
    study = combine(folders, combinations(run.params.methods, 2))
    write_study(study, run.folder / STUDY)
    return study
