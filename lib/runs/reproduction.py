"""Studies -> the params files and seeds that they are made of, and the commands that make them again."""

from collections.abc import Iterator, Mapping

from lib.evidence.study import Study

COMMANDS = """\
## How to reproduce them

The loops train and evaluate each run and keep the scores of every image. The last command of a set computes its file
from the kept scores, without images and without training.
"""

LOOP = """\
    for seed in {seeds}; do
        imgae-train params/{file}.yaml --set data_dir=PATH seed=$seed{split} run_dir=runs/{file}-$seed
        imgae-evaluate runs/{file}-$seed
        imgae-study research/results/published runs/{file}-$seed
    done"""


def runs(study: Study) -> dict[str, list[str]]:
    """Return the seeds of a study's runs by the params file that they are of."""
    found: dict[str, list[str]] = {}
    for run in study.runs:
        found.setdefault(run.rpartition("-")[0], []).append(run.rpartition("-")[2])
    return found


def described(studies: Mapping[str, Study]) -> str:
    """Return a list of what was run, by set."""
    lines = ""
    for name, study in studies.items():
        files = (f"`params/{file}.yaml` (seeds {', '.join(seeds)})" for file, seeds in runs(study).items())
        lines += f"- *{name}*: {study.settings.image_size} px, {', '.join(files)}. "
        lines += f"Patient separation: {study.patient_separation}.\n"
    return lines


def commands(studies: Mapping[str, Study]) -> Iterator[str]:
    """Yield the commands that make each study again."""
    yield COMMANDS
    trained: set[str] = set()
    for name, study in studies.items():
        split = " split_seed=$seed" if any("split_seed" in differing for differing in study.runs.values()) else ""
        yield f"### Commands, {name}\n"
        kept = []
        for file, seeds in runs(study).items():
            which = seeds[0] if len(seeds) == 1 else f"{{{','.join(seeds)}}}"
            kept.append(f"research/results/published/{file}-{which}")
            if file not in trained:
                yield LOOP.format(seeds=" ".join(seeds), file=file, split=split)
            trained.add(file)
        yield f"    imgae-study research/results/{name}.json {' '.join(kept)}\n"
