"""Learning curves: how well a method ranks after each point of its training, and beside others on three terms.

Two methods are compared after equally many images, after equally much CPU time, and each at its own end. Every AUROC is
a mean over seeds, with an interval from a bootstrap over patients and one that also takes the seeds as draws.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from lib.evidence.marks import Point
from lib.evidence.record import Record
from lib.evidence.seeds import CRITIC, CRITIC_SCORE, FORMS, SeedMean, seed_mean
from lib.evidence.uncertainty import Bootstrap, bootstrap

Terms = Literal["images", "CPU time", "end"]
SLACK = 1.02  # times the CPU time: two runs of one method differ by as much


class CurvePoint(Record):
    """How a method ranks after some epochs."""

    epochs: int
    images_seen: int
    cpu_seconds: float
    """The mean over the seeds."""
    auroc: dict[str, SeedMean]
    """By form of the score: `FORMS`, and `CRITIC` where it is known."""


class CurveDifference(Record):
    """AUROC of method `first` minus that of `second`, a method or a reference, at a point of the first's training."""

    first: str
    second: str
    form: str
    """In `CRITIC`, `second` stands with its own KL, or its chosen score if it has none."""
    terms: Terms
    images_seen: int
    """By the first."""
    auroc: SeedMean

    @property
    def order(self) -> int:
        """1 if the first ranks above, -1 if below, 0 if that is not told: by the interval that takes seeds as draws."""
        low, high = self.auroc.drawn or (self.auroc.estimate.low, self.auroc.estimate.high)
        return (low > 0) - (high < 0)


class LearningCurves(Record):
    """The curves of a study."""

    labels: str
    points: dict[str, list[CurvePoint]]
    """By method."""
    health: dict[str, dict[int, list[Point]]]
    """By method and seed; label-free."""
    differences: list[CurveDifference]


class SeedCurve(NamedTuple):
    """The curve of the runs of one seed: scores as "ra, chosen @ 20" by image id, and health by method."""

    scores: pd.DataFrame
    points: Mapping[str, Sequence[Point]]


class Place(NamedTuple):
    """A point of a curve, the mean over seeds."""

    epochs: int
    images_seen: int
    cpu_seconds: float


def learning_curves(
    seeds: Mapping[int, SeedCurve],
    references: Mapping[int, pd.DataFrame],
    test: pd.DataFrame,
    labels: str,
    first: str,
    resamples: int = 2000,
) -> LearningCurves:
    """Evaluate every point of every method, and compare the method `first` with the others and with the references.

    `references` hold scores by image id and name, `test` the labels and patients by image id; images that are neither
    "normal" nor "abnormal" by `labels` are left out.
    """
    known = test[test[labels].isin(["normal", "abnormal"])]
    is_abnormal, patients = (known[labels] == "abnormal").to_numpy(), known["patient"].to_numpy()

    def drawn(tables: Mapping[int, pd.DataFrame]) -> dict[str, dict[int, Bootstrap]]:
        found: dict[str, dict[int, Bootstrap]] = {}
        for seed, table in tables.items():
            for column in table:
                scores = table.loc[known.index, [column]].to_numpy(float).T
                if np.isfinite(scores).all():
                    boot = bootstrap(scores, is_abnormal, patients, resamples, metrics=["auroc"])
                    found.setdefault(column, {})[seed] = boot
        return found

    names = list(dict.fromkeys(name for table in references.values() for name in table))
    bootstraps = drawn({seed: curve.scores for seed, curve in seeds.items()}) | drawn(references)
    places = {method: list(_places(method, seeds)) for method in dict.fromkeys(_methods(seeds))}
    return LearningCurves(
        labels=labels,
        points={
            method: [
                CurvePoint(
                    **place._asdict(),
                    auroc={
                        form: seed_mean(bootstraps[name], "auroc")
                        for form, name in _names(method, place).items()
                        if name in bootstraps
                    },
                )
                for place in of_method
            ]
            for method, of_method in places.items()
        },
        health={
            method: {
                seed: [_shortened(point) for point in curve.points[method]]
                for seed, curve in seeds.items()
                if method in curve.points
            }
            for method in places
        },
        differences=list(_differences(first, places, bootstraps, names)),
    )


def _shortened(point: Point) -> Point:
    """Return a point whose measures have five digits; a study holds hundreds."""
    measures = point.health.model_dump(exclude_none=True, exclude={"lacks"})
    short = {name: float(f"{value:.5g}") for name, value in measures.items()}
    return point.model_copy(update={"health": point.health.model_copy(update=short)})


def _methods(seeds: Mapping[int, SeedCurve]) -> Iterator[str]:
    for curve in seeds.values():
        yield from (column.partition(" @ ")[0] for column in curve.scores if "," not in column)


def _names(method: str, place: Place) -> dict[str, str]:
    return {form: f"{method}{after} @ {place.epochs}" for form, after in (FORMS | {CRITIC: CRITIC_SCORE}).items()}


def _places(method: str, seeds: Mapping[int, SeedCurve]) -> Iterator[Place]:
    """Yield the points of a method that all its seeds have, with what training had spent."""
    of_method = [curve for curve in seeds.values() if any(column.startswith(f"{method} @ ") for column in curve.scores)]
    spent = [{point.epochs: point for point in curve.points[method]} for curve in of_method]
    for epochs in sorted(set.intersection(*({*one} for one in spent))):
        if all(f"{method} @ {epochs}" in curve.scores for curve in of_method):
            seconds = float(np.mean([one[epochs].cpu_seconds for one in spent]))
            yield Place(epochs, spent[0][epochs].images_seen, round(seconds, 1))


def _differences(
    first: str,
    places: Mapping[str, Sequence[Place]],
    bootstraps: Mapping[str, Mapping[int, Bootstrap]],
    references: Sequence[str],
) -> Iterator[CurveDifference]:
    if not places.get(first):
        return
    for place in places[first]:
        opponents: list[tuple[str, Terms, Place | None]] = []
        for other, of_other in places.items():
            if other != first and of_other:
                equal = [one for one in of_other if one.images_seen == place.images_seen]
                earlier = [one for one in of_other if one.cpu_seconds <= SLACK * place.cpu_seconds]
                opponents += [(other, "images", one) for one in equal]
                opponents += [(other, "CPU time", earlier[-1])] if earlier else []
                opponents += [(other, "end", of_other[-1])] if place == places[first][-1] else []
        opponents += [(name, "images", None) for name in references]
        for other, terms, at in opponents:
            for form, name in _names(first, place).items():
                second = other if at is None else _names(other, at)[form]
                if at and form == CRITIC and second not in bootstraps:
                    second = _names(other, at)["chosen score"]
                if bootstraps.get(name, {}).keys() & bootstraps.get(second, {}).keys():
                    yield CurveDifference(
                        first=first,
                        second=other,
                        form=form,
                        terms=terms,
                        images_seen=place.images_seen,
                        auroc=seed_mean(bootstraps[name], "auroc", bootstraps[second]),
                    )
