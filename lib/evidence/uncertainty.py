"""The uncertainty of a metric: a bootstrap over patients, intervals, and the mean over several seeds.

The unit is the patient, not the image: two images of one chest are not two observations (Field & Welsh, J. R. Stat.
Soc. B 2007). A resample is a weight per image: how often its patient was drawn.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy import ndarray as Array
from scipy.special import comb, expit, logit
from scipy.stats import norm, rankdata, t
from tqdm import tqdm

from lib.evidence.metrics import METRICS, POINTS, numbered, rankings
from lib.evidence.results import Estimate

LEVEL = 0.95  # of every interval
TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)  # the quantiles between which it lies
NORMAL_QUANTILE = norm.ppf(TAILS[1])
FEWEST_PATIENTS = 10  # of either class: with fewer, what varies in the sample is too little, and nothing is claimed
NO_WIDTH = 1e-12  # an interval or a standard deviation up to this has none but for rounding
BATCH_ELEMENTS = 1_000_000  # weights held at a time; bounds the memory, whatever the number of images and resamples
MOST_WEIGHTS = 200_000_000  # drawn in all, for one bootstrap: 2,000 resamples of up to 100,000 images
ENOUGH = 200  # resamples, however many images: a standard deviation from them is within 10 % of that from all


def affordable(resamples: int, images: int) -> int:
    """Return how many of these resamples are drawn: all of up to 100,000 images, for 2,000, and fewer of more.

    A million images, whose 2,000 resamples would take hours, have 200. Raises ValueError for less than one resample.
    """
    if resamples < 1:
        raise ValueError(f"{resamples} resamples: expected at least 1, better 2,000")
    return min(resamples, max(MOST_WEIGHTS // max(images, 1), ENOUGH))


def patient_weights(is_abnormal: Array, patients: Array, resamples: int, seed: int) -> Iterator[Array]:
    """Draw patients with replacement; yield how often each image then occurs, as (n, r) arrays of bounded size.

    Patients with an abnormal image and patients without one are drawn separately, each group at its own size. Of very
    many images fewer resamples are drawn (`affordable`); what takes more than a few seconds shows its progress. Raises
    ValueError for a patient that is missing, or less than one resample.
    """
    patient, wanted = numbered(patients), resamples
    resamples = affordable(wanted, len(patient))
    has_abnormal = np.bincount(patient, weights=is_abnormal) > 0
    strata = [np.flatnonzero(has_abnormal), np.flatnonzero(~has_abnormal)]
    random, batch = np.random.default_rng(seed), max(1, BATCH_ELEMENTS // len(patient))
    fewer = f", not {wanted:,} times" if resamples < wanted else ""
    name = f"resample {len(patient):,} images {resamples:,} times{fewer}"
    with tqdm(total=resamples, desc=name, unit="resample", mininterval=1, leave=False, delay=5) as progress:
        for start in range(0, resamples, batch):
            columns = min(batch, resamples - start)
            counts = np.zeros((len(has_abnormal), columns))
            for members in filter(len, strata):
                drawn = random.integers(len(members), size=(len(members), columns))
                cells = (drawn * columns + np.arange(columns)).ravel()  # (patient, resample) as one number
                counts[members] = np.bincount(cells, minlength=counts[members].size).reshape(-1, columns)
            yield counts[patient]
            progress.update(columns)


def logit_interval(value: float, sd: float, patients: int, quantile: float = NORMAL_QUANTILE) -> Estimate:
    """Interval of a metric in [0, 1] with standard deviation `sd`: symmetric on the logit scale, hence within [0, 1].

    At 0 and 1, and where `sd` is 0, the sample does not show how the metric varies. There it is Wilson's interval (J.
    Am. Stat. Assoc. 1927) for the number of `patients` of the rarer class, which it also holds if they are fewer than
    10. An infinite `sd` gives [0, 1].
    """
    if not np.isfinite(sd):
        return Estimate(float(value), 0.0, 1.0)
    if min(varies := value * (1 - value), sd) < NO_WIDTH:
        return wilson_interval(value, patients, quantile)
    low, high = (float(expit(logit(value) + side * sd / varies)) for side in (-quantile, quantile))
    return with_few(Estimate(float(value), low, high), patients, quantile)


def wilson_interval(value: float, patients: int, quantile: float = NORMAL_QUANTILE) -> Estimate:
    """Return Wilson's interval (J. Am. Stat. Assoc. 1927) of a share `value` of so many `patients`."""
    reach = quantile**2 / (patients + quantile**2)
    shift, half = reach * (value - 0.5), np.sqrt(reach * (1 - reach) * max(value * (1 - value), 0) + reach**2 / 4)
    return Estimate(float(value), float(max(value - (shift + half), 0)), float(min(value - (shift - half), 1)))


def with_few(found: Estimate, patients: int, quantile: float = NORMAL_QUANTILE) -> Estimate:
    """Return the interval of a metric in [0, 1]; of fewer than 10 `patients` so wide that it holds Wilson's.

    A variance from so few is often far too small. Wilson's comes from A (1 - A) over the patients of the rarer class,
    which the variance of an AUROC A cannot exceed (Birnbaum & Klose, Ann. Math. Stat. 1957).
    """
    if patients >= FEWEST_PATIENTS:
        return found
    wilson = wilson_interval(found.value, patients, quantile)
    return Estimate(found.value, min(found.low, wilson.low), max(found.high, wilson.high))


def bootstrap_sd(replicates: Array, patients: int) -> float:
    """Return the standard deviation of `replicates`, NaN left out, its variance times n / (n - 1) for n `patients`."""
    return float(np.nanstd(replicates) * np.sqrt(patients / (patients - 1))) if patients > 1 else np.inf


# Coverage of the 95 % intervals of binormal scores at true AUROCs, by `pytest -m long -s tests/evidence`:
#             36 against 64: 0.60    0.80    0.95   200 each:  0.60    0.80    0.95
#   AUROC: percentile        .944    .942    .914               .952    .953    .953
#          BCa               .952    .952    .949               .952    .955    .958
#          logit, as here    .952    .953    .954               .957    .955    .958
#   average precision, logit .923    .919    .927               .957    .955    .945
#   FPR at 95 % TPR, perc.   .971    .950    .958               .964    .964    .960
#   TPR at 5 % FPR, perc.    .948    .930    .928               .973    .951    .961
#   difference, percentile   .951    .953    .940               .954    .940    .949
# With one to four images a patient (intraclass correlation 0.5), patients of each class counted as above:
#   AUROC: logit, as here    .943    .946    .939               .966    .959    .950
#          DeLong            .942    .947    .936               .967    .962    .947
#   logit, ignoring patients .841    .846    .857               .849    .843    .862
#   difference, percentile   .935    .934    .938               .943    .940    .947
def interval(
    value: float, replicates: Array, patients: int, metric: str | None = None, *, constant: bool = True
) -> Estimate:
    """Return the interval of a `metric` from its value, bootstrap replicates, (r,), and `patients` of the rarer class.

    AUROC and average precision have a `logit_interval`; points of the ROC curve, and differences (no `metric`), have
    percentiles of the replicates, NaN left out, those of points `with_few`. With one patient, or only NaN, it is the
    whole range. Replicates that do not vary give no width only if that is known beforehand: the score is `constant`, or
    it is a difference.
    """
    if patients < 2 or np.isnan(replicates).all():
        return Estimate(float(value), -1.0 if metric is None else 0.0, 1.0)
    if metric is None or metric in POINTS:
        low, high = np.nanquantile(replicates, TAILS)
        if metric is None or high - low > NO_WIDTH:
            found = Estimate(float(value), float(low), float(high))
            return found if metric is None else with_few(found, patients)
    sd = bootstrap_sd(replicates, patients)
    if constant and sd < NO_WIDTH < value < 1 - NO_WIDTH:
        return Estimate(float(value), float(value), float(value))
    return logit_interval(value, sd, patients)


def difference_interval(found: Estimate, first: Estimate, second: Estimate, patients: int) -> Estimate:
    """Return the interval of a difference, `found` by its own variance, of scores that do not rank alike.

    With fewer than 10 `patients` of a class, or if it has no width (one score separates perfectly, say, and the other
    is constant), it reaches between the farthest ends of the two scores' own intervals, whatever their correlation.
    """
    if patients >= FEWEST_PATIENTS and found.high - found.low > NO_WIDTH:
        return found
    return Estimate(found.value, first.low - second.high, first.high - second.low)


def least_p(abnormal: int, normal: int) -> float:
    """Return the least two-sided p-value that an exact test by permuted labels has with so many patients; at most 1."""
    return float(min(1, 2 / comb(abnormal + normal, abnormal)))


class Bootstrap(NamedTuple):
    """Each metric's value, (m,), and its replicates, (m, resamples), for m scores of the same images."""

    values: dict[str, Array]
    replicates: dict[str, Array]
    patients: int  # of the rarer class
    ranks: Array  # (m, images): equal rows rank alike, and a row of ones is a constant score
    least_p: float

    def constant(self, score: int) -> bool:
        """Return whether a score is the same for all images."""
        return bool((self.ranks[score] == 1).all())

    def estimate(self, metric: str, score: int, minus: int | None = None) -> Estimate:
        """Return the value and `interval` of one score, or of its difference from another."""
        value, drawn = self.values[metric][score], self.replicates[metric][score]
        if minus is None:
            return interval(value, drawn, self.patients, metric, constant=self.constant(score))
        found = interval(value - self.values[metric][minus], drawn - self.replicates[metric][minus], self.patients)
        if (self.ranks[score] == self.ranks[minus]).all():
            return found
        return difference_interval(found, self.estimate(metric, score), self.estimate(metric, minus), self.patients)

    def p_value(self, first: int, second: int) -> float:
        """Return the two-sided p-value of the difference of two scores' AUROCs, by paired resamples.

        Twice the share of resamples with a difference <= 0, or >= 0, whichever is rarer; one resample is added to both
        counts, so that it is never 0; at most 1, and at least that of an exact test (`least_p`).
        """
        drawn = self.replicates["auroc"][first] - self.replicates["auroc"][second]
        drawn = drawn[~np.isnan(drawn)]
        rarer = min((drawn <= 0).sum(), (drawn >= 0).sum())
        return float(max(min(1, 2 * (rarer + 1) / (len(drawn) + 1)), self.least_p))


def bootstrap(
    scores: Array,
    is_abnormal: Array,
    patients: Array,
    resamples: int = 2000,
    seed: int = 0,
    metrics: Sequence[str] = tuple(METRICS),
) -> Bootstrap:
    """Evaluate m scores of n images, (m, n), on the same resamples of the patients, so that they can be subtracted.

    Of very many images fewer resamples are drawn (`affordable`). A resample without one of the classes (possible only
    if every patient has an abnormal image) is NaN.
    """
    ordered, once = rankings(scores, is_abnormal, patients), np.ones((len(is_abnormal), 1))
    values = {name: np.array([METRICS[name](rank, once)[0] for rank in ordered]) for name in metrics}
    batches = [
        [[METRICS[name](rank, weights) for rank in ordered] for name in metrics]
        for weights in patient_weights(is_abnormal, patients, resamples, seed)
    ]
    replicates = dict(zip(metrics, np.concatenate(batches, axis=-1), strict=True))
    patient = numbered(patients)
    abnormal, normal = (len(np.unique(patient[rows])) for rows in (ordered[0].abnormal, ordered[0].normal))
    ranks = rankdata(scores, "dense", axis=1)
    return Bootstrap(values, replicates, min(abnormal, normal), ranks, least_p(abnormal, normal))


class Seeds(NamedTuple):
    """Mean of a metric, or of a difference, over k seeds on one test set, and where its variance comes from."""

    fixed: Estimate  # what these very seeds would give on other patients
    drawn: Estimate | None  # what other seeds would give on other patients; None for one seed
    sample_sd: float  # of the mean, from the patients
    seed_sd: float | None  # of the mean, from the seeds; None for one seed


def over_seeds(
    values: Array, replicates: Array, patients: int, metric: str | None = None, *, constant: bool = True
) -> Seeds:
    """Split the variance of the mean of `values`, (k,), whose `replicates`, (k, r), are of the same resamples.

    Seed s on this sample gives A_s = mean + u_s + e + d_s: its own gain u_s, the sample's e, shared by all seeds, and
    d_s, how this sample suits this seed. The variance of A over the seeds, S², holds u and d; that of the replicates
    about their own value within a resample, averaged over the resamples, D², holds d alone. So the mean varies with

        sample: the variance over resamples of the replicates' mean = var e + D² / k
        seeds:  max(S² - D², 0) / k = var u / k

    "fixed" holds the seeds fixed and uses the first; "drawn" takes them as draws and uses the sum, with Student's t at
    Satterthwaite's (k - 1) (sum / (S² / k))² degrees of freedom (1946). The other arguments are as in `interval`.
    """
    values, replicates = np.asarray(values, dtype=float), np.asarray(replicates, dtype=float)
    if replicates.ndim != 2 or values.shape != replicates.shape[:1] or not np.isfinite(values).all() or not len(values):
        found = f"values {values.shape}, {np.isfinite(values).sum()} finite, and replicates {replicates.shape}"
        raise ValueError(f"{found}: expected numbers (seeds,) and (seeds, resamples); leave out a seed without a value")
    mean, of_mean, k = float(values.mean()), replicates.mean(axis=0), len(values)
    fixed = interval(mean, of_mean, patients, metric, constant=constant)
    sample_sd = bootstrap_sd(of_mean, patients)
    if k == 1:
        return Seeds(fixed, None, sample_sd, None)
    between = values.var(ddof=1)
    inside = np.nanmean((replicates - values[:, None]).var(axis=0, ddof=1))
    seeds = max(between - inside, 0) / k
    total = sample_sd**2 + seeds
    quantile = t.ppf(TAILS[1], (k - 1) * (total * k / between) ** 2) if between > 0 else NORMAL_QUANTILE
    low, high = (float(np.clip(mean + side * np.sqrt(total), -1, 1)) for side in (-quantile, quantile))
    drawn = logit_interval(mean, np.sqrt(total), patients, quantile) if metric else Estimate(mean, low, high)
    drawn = drawn if total > 0 else fixed
    return Seeds(fixed, drawn, sample_sd, float(np.sqrt(seeds)))
