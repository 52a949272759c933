"""Beyond one run: scores of several seeds, and of several methods and references, joined without a label.

A score is standardised by the calibration normals of its own run, so that scores on any scale can be averaged: minus
their mean, divided by their standard deviation. An ensemble is the mean of standardised scores.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from lib.evidence.marks import COPIED
from lib.evidence.record import Record
from lib.evidence.results import Estimate
from lib.evidence.seeds import FORMS
from lib.evidence.uncertainty import bootstrap

COMBINATION, FORM = "combination", FORMS["combined score"]
FROZEN = ("knn", "mahalanobis", "patchcore")
"""The references that the combination holds: those in frozen features."""


class Ensemble(Record):
    """The mean of standardised scores, and how well it ranks the test images."""

    name: str
    members: list[str]
    """Scores, each a mean over its seeds."""
    seeds: int
    """The seeds of the member that has most."""
    auroc: Estimate
    average_precision: Estimate
    over_knn: Estimate | None
    """AUROC minus that of "knn" over its seeds; None if it is not there."""


def combined_members(methods: Iterable[str], copied: Mapping[str, float], scores: Iterable[str]) -> list[str]:
    """Return the members of the combination, a rule that was fixed before any ensemble was evaluated.

    They are the combined scores of the `methods` that give back at most half of a pasted square (`copied`, by method),
    and the references in frozen features, as far as they are among the `scores`.
    """
    kept = [f"{method}{FORM}" for method in methods if copied.get(method, 0) <= COPIED]
    return [name for name in [*kept, *FROZEN] if name in set(scores)]


def standardised(table: pd.DataFrame, score: str) -> pd.Series | None:
    """Return a score of the test images, by id, in units of the validation normals; None if these do not vary."""
    validation = table.loc[table["side"] == "validation", score]
    if not np.isfinite(validation).all() or not validation.std() > 0:
        return None
    test = table[table["side"] == "test"].set_index("id")[score]
    return (test - validation.mean()) / validation.std()


def ensembles(
    tables: Sequence[pd.DataFrame],
    scores: Sequence[str],
    members: Sequence[str],
    labels: str,
    resamples: int = 2000,
) -> list[Ensemble]:
    """Evaluate each score over its seeds, and the combination of `members`, by one column of labels.

    A table of one seed has a row for each image: id, side ("validation", "test"), patient, labels, scores. Scores that
    only one seed has are left out, but for the combination's members.
    """
    by_seed = {
        score: [one for table in tables if score in table and (one := standardised(table, score)) is not None]
        for score in dict.fromkeys([*scores, *members])
    }
    means = {score: pd.concat(ones, axis=1).mean(axis=1) for score, ones in by_seed.items() if ones}
    joined = [score for score in members if score in means]
    wanted = {score: [score] for score in scores if len(by_seed[score]) > 1}
    wanted |= {COMBINATION: joined} if len(joined) > 1 else {}
    if not wanted:
        return []
    test = tables[0][tables[0]["side"] == "test"].set_index("id")
    known = test[test[labels].isin(["normal", "abnormal"])]
    columns = {name: pd.concat([means[score] for score in of], axis=1).mean(axis=1) for name, of in wanted.items()}
    values = np.stack([column[known.index].to_numpy(float) for column in columns.values()])
    drawn = bootstrap(values, (known[labels] == "abnormal").to_numpy(), known["patient"].to_numpy(), resamples)
    knn = list(columns).index("knn") if "knn" in columns else None
    return [
        Ensemble(
            name=name,
            members=of,
            seeds=max(len(by_seed[score]) for score in of),
            auroc=drawn.estimate("auroc", place),
            average_precision=drawn.estimate("average_precision", place),
            over_knn=None if knn in (None, place) else drawn.estimate("auroc", place, minus=knn),
        )
        for place, (name, of) in enumerate(wanted.items())
    ]
