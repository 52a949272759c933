"""The last stage: scores and results -> the figures of the comparison."""

import numpy as np
from matplotlib.figure import Figure

from lib.evidence.curves import curve_bands, false_alarm_rates, score_groups
from lib.evidence.results import required
from lib.figures.charts import curves, false_alarms, forest, score_distributions
from lib.figures.images import cases, over_training
from lib.figures.normals import health_curves
from lib.runs.comparison import Comparison
from lib.runs.freshness import Record, map_hashes, results_hash, split_hashes
from lib.runs.prepare import Prepared
from lib.runs.run import Run
from lib.runs.score import Scored


def draw(
    run: Run, prepared: Prepared, scored: Scored, comparison: Comparison, *, again: bool = True
) -> dict[str, Figure]:
    """Draw and save the comparison's curves, distributions, false alarms, and each method's health and cases.

    A method whose weights were kept at several points is drawn over training too. Return the figures by name, or {} if
    the stage is skipped.
    """
    params, lesions, table, results = run.params, prepared.lesions, comparison.table, run.results()
    images = split_hashes(prepared.split) | map_hashes(run, lesions)
    record = Record(run, "draw", images, comparison.hashes(), results_hash(results, "evaluation", "health"))
    if not again and record.current():
        return {}
    evaluation, health = required(results.evaluation, "evaluation"), required(results.health, "health")
    roc, precision_recall = curves(evaluation, curve_bands(table, evaluation, params.seed))
    figures = {
        "roc": roc,
        "precision-recall": precision_recall,
        "scores": score_distributions(evaluation, score_groups(table, evaluation)),
        "findings": forest(evaluation, "findings"),
        "strata": forest(evaluation, "strata"),
        "false-alarms": false_alarms(false_alarm_rates(table, list(evaluation.methods), params.label_column)),
    }
    if health.methods:
        figures["health"] = health_curves({name: run.history(name) for name in health.methods}, health)
    test = table[table["side"] == "test"].reset_index(drop=True)
    for name in scored.reconstructed:
        figures[f"{name}-cases"] = cases(
            prepared.images.test, scored.reconstructed, test, name, params.label_column, lesions
        )
        kept = {
            n: run.folder / f"reconstructions/{name}.{n}.test.npy" for n in sorted({*params.choose_from, params.epochs})
        }
        if len(kept) > 1 and all(file.is_file() for file in kept.values()):
            by_epochs = {epochs: np.load(file, mmap_mode="r") for epochs, file in kept.items()}
            figures[f"{name}-over-training"] = over_training(
                prepared.images.test, by_epochs, test, name, params.label_column
            )
    for name, figure in figures.items():
        run.save_figure(figure, name)
    saved = sorted(run.folder.glob("figures/*.*"))
    record.close(results, *(f"figures/{file.name}" for file in saved if file.stem in figures))
    return figures
