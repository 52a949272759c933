"""The third stage: images and trained methods -> scores without a label, the chosen scores, and the training budget."""

import copy
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from lib.data.dataset import Split
from lib.data.groups import groups
from lib.data.source import problem_counts
from lib.evidence.marks import Health, assess, has_critic, points
from lib.evidence.results import Budget, Choice, Results, Trained
from lib.methods.checkpoint import History, kept, load_checkpoint
from lib.methods.method import Method
from lib.methods.training import choose_device
from lib.params import project_root
from lib.privacy import public
from lib.runs.candidates import write_candidates
from lib.runs.fitted import FITTED, Fitted, write_fitted
from lib.runs.freshness import Record, split_hashes, weight_hashes
from lib.runs.prepare import Prepared
from lib.runs.run import Run, RunError
from lib.runs.train import trained_under
from lib.scores.copying import KINDS, copied_share
from lib.scores.features import Backbone
from lib.scores.lesions import with_lesions
from lib.scores.likeness import likeness
from lib.scores.references import reference_scores
from lib.scores.scorer import Fit
from lib.scores.scoring import Version
from lib.scores.selection import BySide, Selection, feature_distances, select, version

LESIONS = ("opacity",)  # what is painted for model selection: the finding of the primary comparison


class Scored(NamedTuple):
    """The scores and reconstructions of a run's images."""

    table: pd.DataFrame
    """One row per image of the two validation halves and the test side: its record and its scores."""
    reconstructed: dict[str, np.ndarray]
    """The test side by method, (n, size, size) float32 in [0, 1]."""
    results: Results


def score(run: Run, prepared: Prepared, trained: Mapping[str, Method], *, again: bool = True) -> Scored:
    """Score the images by every trained method and every reference, without a label; write the scores as files.

    A method, or a reference that reconstructs, has three scores: the primary one, the one chosen among all kept epochs
    and scores, and the combined one (`lib.scores.selection`). Other references have one.
    """
    params, split, folder = run.params, prepared.split, run.folder / "reconstructions"
    if clashing := sorted({*trained} & {*params.references, *split.test.columns}):
        raise RunError(f"the methods {clashing} have the names of references or columns of the records: rename them")
    files = {name: folder / f"{name}.{params.epochs}.test.npy" for name in trained}
    record = Record(run, "score", weight_hashes(run), split_hashes(split), {"run": run.folder.name})
    if not again and record.current():
        return Scored(run.scores(), _opened(files), run.results())
    run.write_split(split)
    device = choose_device(params.device)
    images, records = prepared.by_side()
    images["lesions"] = with_lesions(images["reference"][:], params.seed, LESIONS)[0]
    backbone, distances = feature_distances(params, trained, device)
    references = reference_scores(params.references, prepared.images.train, images, records, backbone, params.seed)
    versions = {name: _versions(run, name, method, split) for name, method in trained.items()}
    versions |= {name: {0: fitted} for name, fitted in references.fitted.items()}
    selected = select(versions, images, distances, folder)
    columns = {
        name if form == "primary" else f"{name}, {form}": by_side
        for name, selection in selected.items()
        for form, by_side in selection.columns.items()
    }
    table = score_table(records, columns | references.scores)
    results = Results(
        split=split.hash,
        image_size=params.image_size,
        synthetic=prepared.source.synthetic,
        score="mean absolute residual",
        patient_separation=split.manifest["patient_separation"],
        problems=problem_counts(split.problems),
        columns=[*columns, *references.scores],
        methods={n: Trained(run=run.folder.name, budget=budget(m, run.history(n))) for n, m in trained.items()},
        references=[*references.fitted, *references.scores],
        left_out=public(references.left_out, project_root(run.folder.parent)),
        localisation=None,
        choices={name: Choice(**selection.choice) for name, selection in selected.items()},
        copied={
            name: {kind: copied_share(method, images["reference"][:32], kind).share for kind in KINDS}
            for name, method in trained.items()
        },
        health=measure_health(run, prepared, trained),
        points={name: points(run.history(name), prepared.yardstick) for name in trained},
    )
    fits = {name: Fit.of(selected[name]) for name in trained}
    known = likeness(images, records, backbone if isinstance(backbone, Backbone) else None)
    write_fitted(Fitted(fits, known, prepared.source.about), run.folder / FITTED)
    run.write_scores(table)
    write_candidates(selected, table, list(records), run.folder)
    run.write_curve(curve_table(records["test"], selected))
    names = ["scores.parquet", "candidates.parquet", "candidates.csv", "curve.parquet", FITTED]
    results = record.close(results, *names, *(str(file.relative_to(run.folder)) for file in files.values()))
    return Scored(table, _opened(files), results)


def measure_health(run: Run, prepared: Prepared, trained: Mapping[str, Method]) -> Health:
    """Return how well each method redraws the validation normals, and what it lacks; the history names its losses."""
    check, yardstick = prepared.health_check, prepared.yardstick
    methods = {
        name: assess(check(method), yardstick, has_critic=has_critic(run.history(name)[-1]))
        for name, method in trained.items()
    }
    return Health(floor=yardstick.floor, components=yardstick.components, methods=methods)


def curve_table(test: pd.DataFrame, selected: Mapping[str, Selection]) -> pd.DataFrame:
    """Return the test images' scores after each number of epochs whose weights were kept, as "ra, chosen @ 20".

    Those of a method with a posterior include its KL, as "ra, kl @ 20".
    """
    columns = {
        f"{name if form == 'primary' else f'{name}, {form}'} @ {epochs}": by_side["test"].astype(np.float32)
        for name, selection in selected.items()
        for epochs, at in selection.curve.items()
        if epochs  # references do not train
        for form, by_side in [*at.items(), ("kl", selection.candidates.get((epochs, "kl")))]
        if by_side is not None
    }
    return pd.DataFrame({"id": test["id"].to_numpy(), **columns})


def budget(method: Method, history: History) -> Budget:
    """Return what training the method has spent."""
    last = history[-1]
    return Budget(
        parameters=sum(weight.numel() for weight in method.parameters()),
        images_seen=int(last["images_seen"]),
        steps=int(last["steps"]),
        multiply_adds=int(last["multiply_adds"]),
        seconds=round(last["seconds"], 1),
    )


def score_table(records: Mapping[str, pd.DataFrame], columns: Mapping[str, BySide]) -> pd.DataFrame:
    """Return one row per record with its scores, one side after the other.

    Its `patient` is the image's group: whatever resamples or separates patients counts a copy with its original.
    """
    table = pd.concat([of_side.assign(side=side) for side, of_side in records.items()], ignore_index=True)
    table = table.assign(patient=groups(table)).drop(columns="group", errors="ignore")
    if taken := sorted(set(columns) & set(table)):
        raise RunError(f"the scores {taken} have the names of columns of the records: rename those columns")
    return table.assign(**{n: np.concatenate([by_side[side] for side in records]) for n, by_side in columns.items()})


def _opened(files: Mapping[str, Path]) -> dict[str, np.ndarray]:
    return {name: np.load(file, mmap_mode="r") for name, file in files.items()}


def _versions(run: Run, name: str, method: Method, split: Split) -> dict[int, Version]:
    """Return the method after each number of epochs whose weights were kept; only those last used are in memory."""
    settings, device = trained_under(run.params, name, split.hash), choose_device(run.params.device)
    files = kept(run.checkpoint(name), run.params.epochs, run.params.choose_from)

    @lru_cache(maxsize=1)
    def loaded(epochs: int) -> Version:
        earlier = copy.deepcopy(method)
        load_checkpoint(files[epochs], earlier, device, settings, epochs)
        return version(earlier, f"{name}: epoch {epochs}")

    def after(epochs: int) -> Version:
        return lambda images: loaded(epochs)(images)

    return {epochs: after(epochs) for epochs in files}
