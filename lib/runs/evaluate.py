"""Scores, maps and labels -> results: how well scores rank, whether maps locate lesions, what else explains it."""

from collections.abc import Mapping
from functools import partial
from itertools import combinations

import numpy as np
import pandas as pd

from lib.evidence import audit as evidence
from lib.evidence.claims import FROZEN, claims, promise
from lib.evidence.evaluation import evaluate_scores
from lib.evidence.localisation import localise
from lib.evidence.masks import lungs_template, marked_and_normal
from lib.evidence.results import Results, TestImages
from lib.evidence.trivial import mean_image
from lib.figures.tables import tables
from lib.methods.method import Method
from lib.runs.comparison import Comparison
from lib.runs.freshness import STAGES, Record, map_hashes, results_hash, split_hashes, weight_hashes
from lib.runs.prepare import Prepared
from lib.runs.run import Run, RunError
from lib.runs.score import Scored
from lib.scores.scoring import Residuals, reconstruct, residuals

EARLIER = tuple(field for field in Results.model_fields if field not in STAGES["audit"].fields)


def locate(run: Run, prepared: Prepared, scored: Scored, *, again: bool = True) -> Results:
    """Measure how well the residual maps locate the marked lesions; `localisation` is None if none is marked."""
    params, lesions = run.params, prepared.lesions
    record = Record(run, "locate", map_hashes(run, lesions), split_hashes(prepared.split))
    if not again and record.current():
        return run.results()
    test = scored.table[scored.table["side"] == "test"].reset_index(drop=True)
    marked, masks, left_out = marked_and_normal(list(test["id"]), test[params.label_column], lesions)
    images, sampling = prepared.images.test, {"resamples": params.resamples, "seed": params.seed}
    maps = {name: Residuals(images, reconstructed, marked) for name, reconstructed in scored.reconstructed.items()}
    found = localise(maps, masks, test["patient"][marked], **sampling, left_out=left_out)
    return record.close(run.results().model_copy(update={"localisation": found}))


def evaluate(run: Run, comparison: Comparison, *, again: bool = True) -> Results:
    """Evaluate every method of the comparison under every column of labels.

    `all_scores` holds every score, references included, and the differences of the methods' chosen and combined scores
    from each other and from the references in frozen features. Raises RunError if there is no method to evaluate.
    """
    record = Record(run, "evaluate", comparison.hashes())
    if not comparison.methods:
        raise RunError(
            f"nothing to evaluate: {run.folder} trains no method (methods is empty), and compare_with names no "
            "finished run of the same split, image size and budget"
        )
    if not again and record.current():
        return run.results()
    params, table, names = run.params, comparison.table, list(comparison.methods)
    test = table[table["side"] == "test"]
    others = [
        column
        for column in ("label", "strict_label")
        if column in table and column != params.label_column and {"normal", "abnormal"} <= set(test[column])
    ]
    forms = ("chosen", "combined")
    pairs = [pair for form in forms for pair in combinations([f"{name}, {form}" for name in names], 2)]
    pairs += [(f"{name}, {form}", rival) for name in names for form in forms for rival in FROZEN]
    pairs = [pair for pair in pairs if set(pair) <= set(comparison.columns)]
    evaluated = partial(evaluate_scores, table, resamples=params.resamples, seed=params.seed)
    results = run.results().model_copy(
        update={
            "methods": comparison.methods,
            "columns": comparison.columns,
            "evaluation": evaluated(names, labels=params.label_column),
            "other_labels": [evaluated(names, labels=column) for column in others],
            "all_scores": evaluated(comparison.columns, labels=params.label_column, pairs=pairs),
            "calibration_images": int((table["side"] == "validation").sum()),
        }
    )
    return record.close(results.model_copy(update={"promise": promise(results)}))


def audit(
    run: Run, prepared: Prepared, comparison: Comparison, trained: Mapping[str, Method], *, again: bool = True
) -> Results:
    """Check what else could explain the primary scores, derive what may be claimed, and write all tables as CSV.

    The `trained` methods, this run's own, also score images whose border or lungs are replaced.
    """
    params, split, images, results = run.params, prepared.split, prepared.images, run.results()
    record = Record(
        run, "audit", weight_hashes(run), split_hashes(split), comparison.hashes(), results_hash(results, *EARLIER)
    )
    if not again and record.current():
        return results
    test = comparison.table[comparison.table["side"] == "test"]

    audited = evidence.audit(
        split.grouped,
        images.test,
        mean_image(images.train),
        {name: test[name].to_numpy() for name in comparison.methods},
        manifest=split.manifest,
        rescore={name: primary_score(method) for name, method in trained.items()},
        lungs=lungs_template(params.image_size),
        labels=params.label_column,
        resamples=params.resamples,
        seed=params.seed,
    )
    results = results.model_copy(
        update={"audit": audited, "test_images": describe(test, params.label_column, prepared.lesions)}
    )
    results = results.model_copy(update={"claims": claims(results)})
    files = tables(results)
    for name, table in files.items():
        run.save_table(table, name)
    return record.close(results, *(f"tables/{name}.csv" for name in files))


def primary_score(method: Method) -> evidence.Score:
    """Return a function from uint8 images, (n, height, width), to a method's mean absolute residuals, (n,)."""
    return lambda images: residuals(images, reconstruct(method, images)).mean(axis=(1, 2), dtype=float)


def describe(test: pd.DataFrame, labels: str, lesions: Mapping[str, np.ndarray]) -> TestImages:
    """Return the sources, ages and sizes of `lesions`, masks by id, of the test images that are normal or abnormal."""
    used = test[test[labels].isin(["normal", "abnormal"])]
    ages = pd.to_numeric(used["age"], errors="coerce").dropna() if "age" in used else pd.Series(dtype=float)
    shares = [float(mask.mean()) for name in used["id"] if (mask := lesions.get(name)) is not None and mask.any()]
    return TestImages(
        sources=sorted(set(used["source"].dropna()) - {""}) if "source" in used else [],
        ages=(float(ages.min()), float(ages.max())) if len(ages) else None,
        lesions=tuple(np.quantile(shares, [0.05, 0.5, 0.95]).round(4)) if shares else None,
    )
