"""The mean of a metric over runs with different seeds on the same test images, with its intervals."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from lib.evidence.record import Record
from lib.evidence.results import Estimate
from lib.evidence.uncertainty import Bootstrap, difference_interval, over_seeds

Metric = Literal["auroc", "average_precision"]
FORMS = {"mean residual": "", "chosen score": ", chosen", "combined score": ", combined"}
"""The three scores of a method, and what follows its name in theirs."""
CRITIC, CRITIC_SCORE = "KL of the posterior", ", kl"
"""A fourth score over training, of methods with a posterior: RA's critic tells images apart by it."""


class SeedMean(Record):
    """The mean over seeds of a metric, or of a difference of it, and where its variance comes from."""

    estimate: Estimate
    """The mean; its interval holds for other patients and these seeds."""
    drawn: tuple[float, float] | None
    """The interval that also takes the seeds as draws; None for a single seed."""
    sample_sd: float
    """Standard deviation of the mean, from the patients."""
    seed_sd: float | None
    """Standard deviation of the mean, from the seeds; None for a single seed."""
    seeds: dict[int, float]
    """Each seed's own value."""

    def over(self, seeds: Sequence[int]) -> float:
        """Return the mean over some of the seeds."""
        return float(np.mean([self.seeds[seed] for seed in seeds]))


def seed_mean(drawn: Mapping[int, Bootstrap], metric: Metric, minus: Mapping[int, Bootstrap] | None = None) -> SeedMean:
    """Return the mean over the seeds of a score's metric, or, with `minus`, of its difference from another score."""
    seeds = [seed for seed in drawn if minus is None or seed in minus]
    values = np.array([drawn[seed].values[metric][0] for seed in seeds])
    replicates = np.array([drawn[seed].replicates[metric][0] for seed in seeds])
    if minus is not None:
        values -= [minus[seed].values[metric][0] for seed in seeds]
        replicates -= [minus[seed].replicates[metric][0] for seed in seeds]
    patients, constant = drawn[seeds[0]].patients, all(drawn[seed].constant(0) for seed in seeds)
    split = over_seeds(values, replicates, patients, None if minus else metric, constant=constant)
    fixed, reach = split.fixed, split.drawn
    if minus is not None and not all((drawn[seed].ranks == minus[seed].ranks).all() for seed in seeds):
        first, second = (seed_mean({seed: of[seed] for seed in seeds}, metric).estimate for of in (drawn, minus))
        fixed = difference_interval(split.fixed, first, second, patients)
    if reach is not None and fixed != split.fixed:  # other seeds add to what is not known, and take nothing from it
        reach = Estimate(reach.value, min(reach.low, fixed.low), max(reach.high, fixed.high))
    return SeedMean(
        estimate=fixed,
        drawn=None if reach is None else (round(reach.low, 4), round(reach.high, 4)),
        sample_sd=split.sample_sd,
        seed_sd=split.seed_sd,
        seeds={seed: round(float(value), 4) for seed, value in zip(seeds, values, strict=True)},
    )
