"""Metrics of a score, and how far each may be off: bootstrap over patients, DeLong's variance, several seeds.

The unit is the patient, not the image: two films of one chest are not two observations (Field & Welsh, J. R. Stat. Soc.
B 2007). A resample is a weight per image (how often its patient was drawn); the scores are sorted once. AUROC counts
pairs: the share of (abnormal, normal) pairs in which the abnormal image scores higher, ties counting half (Hanley &
McNeil, Radiology 1982). The other metrics call an image abnormal that scores as high as a threshold or higher, so that
images which tie are called together; nothing is interpolated.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy import ndarray as Array
from scipy.special import expit, logit
from scipy.stats import norm, rankdata, t

LEVEL = 0.95  # of every interval
NORMAL_QUANTILE = norm.ppf((1 + LEVEL) / 2)
SENSITIVITY, FALSE_ALARMS = 0.95, 0.05  # where the other is read off the ROC curve
BATCH_ELEMENTS = 1_000_000  # weights held at a time; bounds the memory, whatever the number of images and resamples


class Estimate(NamedTuple):
    """A number and its interval (95 % unless said otherwise)."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """The first score's metrics minus the second's, on the same images and the same resamples."""

    auroc: Estimate
    average_precision: Estimate
    p_value: float


class Ranking(NamedTuple):
    """One score, sorted once: what every weighting of the images needs."""

    abnormal: Array  # positions of the abnormal images, lowest score first
    normal: Array  # positions of the normal images, lowest score first
    below: Array  # per abnormal image: normal images that score lower
    up_to: Array  # per abnormal image: normal images that score lower or the same
    first_tied: Array  # per abnormal image: abnormal images that score lower


def ranking(scores: Array, is_abnormal: Array) -> Ranking:
    """Sort `scores`, shape (n,), by the labels `is_abnormal`, boolean of shape (n,).

    Raises ValueError for shapes that differ, labels that are not boolean, scores that are not finite, an empty class.
    """
    scores, is_abnormal = np.asarray(scores), np.asarray(is_abnormal)
    if scores.ndim != 1 or scores.shape != is_abnormal.shape:
        raise ValueError(f"scores {scores.shape} and labels {is_abnormal.shape}: expected two equally long lists")
    if is_abnormal.dtype != bool:
        raise ValueError(f"is_abnormal is {is_abnormal.dtype}, expected bool (write labels == 'abnormal')")
    if not np.isfinite(scores).all():
        bad = (~np.isfinite(scores)).sum()
        raise ValueError(f"{bad} of {len(scores)} scores are not finite, expected numbers: see how they were made")
    abnormal, normal = np.flatnonzero(is_abnormal), np.flatnonzero(~is_abnormal)
    if not len(abnormal) or not len(normal):
        found = f"{len(normal)} normal and {len(abnormal)} abnormal images"
        raise ValueError(f"{found}, expected at least one of each: there is no ranking without both")
    abnormal, normal = (of[np.argsort(scores[of], kind="stable")] for of in (abnormal, normal))
    high, low = scores[abnormal], scores[normal]
    places = np.searchsorted(low, high), np.searchsorted(low, high, "right"), np.searchsorted(high, high)
    return Ranking(abnormal, normal, *places)


def rankings(scores: Array, is_abnormal: Array, patients: Array) -> list[Ranking]:
    """`ranking` of each of m scores of n images, (m, n); ValueError too without a score or with patients missing."""
    if not len(scores) or len(patients) != len(is_abnormal):
        found = f"{len(scores)} scores of {len(is_abnormal)} images, {len(patients)} patients"
        raise ValueError(f"{found}: expected (scores, images), one or more scores, and one patient an image")
    return [ranking(row, is_abnormal) for row in scores]


def weight_up_to(weights: Array) -> Array:
    """Row k is the weight of the first k images: (n, r) -> (n + 1, r)."""
    sums = np.zeros((len(weights) + 1, weights.shape[1]))
    np.cumsum(weights, axis=0, out=sums[1:])
    return sums


def ratio(part: Array, whole: Array) -> Array:
    """`part` / `whole`, NaN where `whole` is 0: a resample without the class."""
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def called(rank: Ranking, weights: Array) -> tuple[Array, Array, Array, Array]:
    """What the thresholds call that lie at each abnormal image's score: two weights (abnormal, r), two totals (r,).

    First of the abnormal, then of the normal images; no row exceeds the one before; totals are 0 if either class's is.
    """
    found, alarms = weight_up_to(weights[rank.abnormal]), weight_up_to(weights[rank.normal])
    both = (found[-1] > 0) & (alarms[-1] > 0)
    return found[-1] - found[rank.first_tied], alarms[-1] - alarms[rank.below], found[-1] * both, alarms[-1] * both


def weighted_auroc(rank: Ranking, weights: Array) -> Array:
    """AUROC for each column of `weights` (n, r): r values in [0, 1], NaN where a class has no weight."""
    abnormal, normal = weights[rank.abnormal], weight_up_to(weights[rank.normal])
    won = np.einsum("ij,ij->j", abnormal, normal[rank.below]) + np.einsum("ij,ij->j", abnormal, normal[rank.up_to])
    return ratio(0.5 * won, abnormal.sum(axis=0) * normal[-1])


def weighted_average_precision(rank: Ranking, weights: Array) -> Array:
    """Average precision for each column of `weights` (n, r), without interpolation; else as `weighted_auroc`."""
    found, alarms, abnormal, _ = called(rank, weights)
    # Nothing called means that this image has no weight either, so its precision does not matter.
    precision = np.divide(found, found + alarms, out=np.zeros_like(found), where=found > 0)
    return ratio(np.einsum("ij,ij->j", weights[rank.abnormal], precision), abnormal)


def finding(share: float, found: Array, alarms: Array, abnormal: Array, normal: Array) -> tuple[Array, Array]:
    """What the highest threshold calls that finds `share` of the abnormal weight; (r,) each, from what `called` gave.

    The precision, and the false alarm rate: the highest and the lowest of such thresholds.
    """
    enough = np.maximum((found >= share * abnormal - 1e-9).sum(axis=0), 1)[None] - 1
    found, alarms = (np.take_along_axis(one, enough, axis=0)[0] for one in (found, alarms))
    return ratio(found, found + alarms), ratio(alarms, normal)


def alarming(share: float, found: Array, alarms: Array, abnormal: Array, normal: Array) -> Array:
    """Highest sensitivity, (r,), of the thresholds that call `share` of the normal weight at most; as `finding`."""
    over = (alarms > share * normal + 1e-9).sum(axis=0)
    found = np.append(found, np.zeros_like(found[:1]), axis=0)  # a threshold above all scores finds nothing
    return ratio(np.take_along_axis(found, over[None], axis=0)[0], abnormal)


def weighted_fpr_at_tpr(rank: Ranking, weights: Array) -> Array:
    """Lowest false alarm rate of the thresholds that find 95 % of the abnormal weight; else as `weighted_auroc`."""
    return finding(SENSITIVITY, *called(rank, weights))[1]


def weighted_tpr_at_fpr(rank: Ranking, weights: Array) -> Array:
    """Highest sensitivity of the thresholds that call 5 % of the normal weight at most; else as `weighted_auroc`."""
    return alarming(FALSE_ALARMS, *called(rank, weights))


METRICS: dict[str, Callable[[Ranking, Array], Array]] = {
    "auroc": weighted_auroc,
    "average_precision": weighted_average_precision,
    "fpr_at_95_tpr": weighted_fpr_at_tpr,
    "tpr_at_5_fpr": weighted_tpr_at_fpr,
}
ALL, POINTS = tuple(METRICS), ("fpr_at_95_tpr", "tpr_at_5_fpr")  # points of the ROC curve: see `interval`


def patient_weights(is_abnormal: Array, patients: Array, resamples: int, seed: int) -> Iterator[Array]:
    """Draw patients with replacement; yield how often each image then occurs, as (n, r) arrays of bounded size.

    Patients with any abnormal image and patients with none are drawn separately, each as many as there are.
    """
    patient = np.unique(np.asarray(patients, dtype=str), return_inverse=True)[1]
    has_abnormal = np.bincount(patient, weights=is_abnormal) > 0
    strata = [np.flatnonzero(has_abnormal), np.flatnonzero(~has_abnormal)]
    random, batch = np.random.default_rng(seed), max(1, BATCH_ELEMENTS // len(patient))
    for start in range(0, resamples, batch):
        columns = min(batch, resamples - start)
        counts = np.zeros((len(has_abnormal), columns))
        for members in filter(len, strata):
            drawn = random.integers(len(members), size=(len(members), columns))
            cells = (drawn * columns + np.arange(columns)).ravel()  # (patient, resample) as one number
            counts[members] = np.bincount(cells, minlength=counts[members].size).reshape(-1, columns)
        yield counts[patient]


def logit_interval(value: float, sd: float, patients: int, quantile: float = NORMAL_QUANTILE) -> Estimate:
    """Interval of a metric in [0, 1] with standard deviation `sd`: symmetric on the logit scale, hence within [0, 1].

    At 0 and 1, where `sd` says nothing, Wilson's interval (J. Am. Stat. Assoc. 1927) of as many images as the rarer
    class has `patients`. An `sd` of 0 elsewhere (a constant score) gives no width, an infinite one [0, 1].
    """
    if not np.isfinite(sd):
        return Estimate(float(value), 0.0, 1.0)
    if (varies := value * (1 - value)) < 1e-12:
        reach = quantile**2 / (patients + quantile**2)
        return Estimate(float(value), float(max(value - reach, 0)), float(min(value + reach, 1)))
    return Estimate(float(value), *(float(expit(logit(value) + side * sd / varies)) for side in (-quantile, quantile)))


def bootstrap_sd(replicates: Array, patients: int) -> float:
    """Their standard deviation, NaN left out, with the n / (n - 1) that a resample's variance lacks; n = `patients`."""
    return float(np.nanstd(replicates) * np.sqrt(patients / (patients - 1))) if patients > 1 else np.inf


# Coverage of the 95 % intervals of binormal scores, by `pytest -m long -s tests/test_uncertainty.py`, at true AUROCs of
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
def interval(value: float, replicates: Array, patients: int, metric: str | None = None) -> Estimate:
    """Interval of a `metric` with this value, these bootstrap replicates, (r,), and `patients` of the rarer class.

    AUROC and average precision: `logit_interval`. Points of the ROC curve, and differences (no `metric`): percentiles
    of the replicates, NaN left out. Of a class with one patient, or if all are NaN, nothing is known: the whole range.
    """
    if patients < 2 or np.isnan(replicates).all():
        return Estimate(float(value), -1.0 if metric is None else 0.0, 1.0)
    if metric is not None and (metric not in POINTS or np.nanstd(replicates) == 0):
        return logit_interval(value, bootstrap_sd(replicates, patients), patients)
    low, high = np.nanquantile(replicates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(value), float(low), float(high))


class Bootstrap(NamedTuple):
    """Each metric's value, (m,), and its replicates, (m, resamples), for m scores of the same images."""

    values: dict[str, Array]
    replicates: dict[str, Array]
    patients: int  # of the rarer class

    def estimate(self, metric: str, score: int, minus: int | None = None) -> Estimate:
        """Value and interval of one score, or of its difference from another, as `interval` makes them."""
        value, drawn = self.values[metric][score], self.replicates[metric][score]
        if minus is None:
            return interval(value, drawn, self.patients, metric)
        return interval(value - self.values[metric][minus], drawn - self.replicates[metric][minus], self.patients)

    def difference(self, first: int, second: int) -> Difference:
        """Score `first` minus score `second`, by paired resamples.

        The two-sided p-value is the AUROC's: twice the share of resamples with a difference <= 0, or >= 0, whichever is
        rarer; one resample is added to both counts, so that it is never 0; at most 1.
        """
        drawn = self.replicates["auroc"][first] - self.replicates["auroc"][second]
        drawn = drawn[~np.isnan(drawn)]
        rarer = min((drawn <= 0).sum(), (drawn >= 0).sum())
        area, precision = (self.estimate(metric, first, second) for metric in ("auroc", "average_precision"))
        return Difference(area, precision, p_value=float(min(1, 2 * (rarer + 1) / (len(drawn) + 1))))


def bootstrap(
    scores: Array, is_abnormal: Array, patients: Array, resamples: int = 2000, seed: int = 0, metrics: Sequence = ALL
) -> Bootstrap:
    """Evaluate m scores of n images, (m, n), on the same resamples of the patients, so that they can be subtracted.

    A resample that leaves a class empty (possible only if every normal image's patient has an abnormal one too) is NaN.
    """
    if resamples < 1:
        raise ValueError(f"{resamples} resamples: expected at least 1, better 2,000")
    ranks, once = rankings(scores, is_abnormal, patients), np.ones((len(is_abnormal), 1))
    values = {name: np.array([METRICS[name](rank, once)[0] for rank in ranks]) for name in metrics}
    batches = [
        [[METRICS[name](rank, weights) for rank in ranks] for name in metrics]
        for weights in patient_weights(is_abnormal, patients, resamples, seed)
    ]
    replicates = dict(zip(metrics, np.concatenate(batches, axis=-1), strict=True))
    rarer = min(len(set(np.asarray(patients)[rows])) for rows in (ranks[0].abnormal, ranks[0].normal))
    return Bootstrap(values, replicates, rarer)


class Band(NamedTuple):
    """A curve and its pointwise interval; four lists of one length."""

    at: Array
    value: Array
    low: Array
    high: Array


def curve_bands(
    scores: Array, is_abnormal: Array, patients: Array, resamples: int = 2000, seed: int = 0, points: int = 101
) -> tuple[Band, Band]:
    """Return the sensitivity over the false alarm rate, and the precision over the sensitivity, of one score, (n,).

    At `points` abscissae from 0 to 1, percentiles of a bootstrap over patients (vertical averaging: Fawcett, Pattern
    Recognit. Lett. 2006). A band holds at a place named beforehand; a whole curve leaves it more often.
    """
    rank, at = ranking(scores, is_abnormal), np.linspace(0, 1, points)

    def curves(weights: Array) -> tuple[list[Array], list[Array]]:
        calls = called(rank, weights)
        return [alarming(share, *calls) for share in at], [finding(share, *calls)[0] for share in at]

    values = np.array(curves(np.ones((len(is_abnormal), 1))))[..., 0]
    drawn = [np.array(curves(weights)) for weights in patient_weights(is_abnormal, patients, resamples, seed)]
    edges = np.nanquantile(np.concatenate(drawn, axis=-1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=-1)
    roc, precision_recall = (Band(at, values[i], *edges[:, i]) for i in range(2))
    return roc, precision_recall


class DeLong(NamedTuple):
    """AUROCs of m scores, (m,), their covariance, (m, m), without resamples, and the patients of the rarer class."""

    values: Array
    covariance: Array
    patients: int

    def estimate(self, score: int) -> Estimate:
        """AUROC of one score, `logit_interval` at DeLong's standard deviation."""
        return logit_interval(self.values[score], np.sqrt(max(self.covariance[score, score], 0)), self.patients)

    def difference(self, first: int, second: int) -> tuple[Estimate, float]:
        """AUROC of `first` minus that of `second`, normal interval, and the two-sided p-value of the z-test.

        Without variance (both scores are constant, or separate perfectly) p is 1 for equal AUROCs and else 0.
        """
        value, c = float(self.values[first] - self.values[second]), self.covariance
        sd = float(np.sqrt(max(c[first, first] + c[second, second] - 2 * c[first, second], 0)))
        p_value = 2 * norm.sf(abs(value) / sd) if sd > 0 else float(abs(value) < 1e-12)
        return Estimate(value, value - NORMAL_QUANTILE * sd, value + NORMAL_QUANTILE * sd), float(p_value)


def delong(scores: Array, is_abnormal: Array, patients: Array) -> DeLong:
    """AUROCs of m scores of n images, (m, n), with DeLong's covariance (Biometrics 1988), images of a patient together.

    The placements come from midranks (Sun & Xu, IEEE Signal Process. Lett. 2014); each patient's are summed
    (Obuchowski, Biometrics 1997), which for one image a patient is DeLong's own formula. Raises ValueError
    for a class of fewer than two patients, whose variance cannot be known, and as `rankings`.
    """
    scores = np.asarray(scores, dtype=float)
    abnormal, normal, *_ = rankings(scores, is_abnormal, patients)[0]  # every row is checked
    patient = np.unique(np.asarray(patients, dtype=str), return_inverse=True)[1]
    n, n_abnormal, n_normal = (len(np.unique(patient[rows])) for rows in (slice(None), abnormal, normal))
    if min(n_abnormal, n_normal) < 2:
        found = f"{n_normal} patients with normal and {n_abnormal} with abnormal images"
        raise ValueError(f"{found}: DeLong's variance needs two of each; use more images, or the bootstrap")
    ranks = rankdata(scores, axis=1)
    beaten = (ranks[:, abnormal] - rankdata(scores[:, abnormal], axis=1)) / len(normal)
    passed = 1 - (ranks[:, normal] - rankdata(scores[:, normal], axis=1)) / len(abnormal)
    values = beaten.mean(axis=1)

    def by_patient(placements: Array, rows: Array) -> Array:
        beyond = (placements - values[:, None]) / len(rows)
        return np.stack([np.bincount(patient[rows], weights=row, minlength=n) for row in beyond])

    high, low = by_patient(beaten, abnormal), by_patient(passed, normal)
    covariance = n_abnormal / (n_abnormal - 1) * high @ high.T + n_normal / (n_normal - 1) * low @ low.T
    covariance += n / (n - 1) * (high @ low.T + low @ high.T)
    return DeLong(values, covariance, min(n_abnormal, n_normal))


class Seeds(NamedTuple):
    """Mean of a metric, or of a difference, over k seeds on one test set, and where its variance comes from."""

    fixed: Estimate  # what these very seeds would give on other patients
    drawn: Estimate | None  # what other seeds would give on other patients; None for one seed
    sample_sd: float  # of the mean, from the patients
    seed_sd: float | None  # of the mean, from the seeds; None for one seed


def over_seeds(values: Array, replicates: Array, patients: int, metric: str | None = None) -> Seeds:
    """Split the variance of the mean of `values`, (k,), whose `replicates`, (k, r), are of the same resamples.

    Seed s on this sample gives A_s = mean + u_s + e + d_s: its own gain u_s, the sample's e, shared by all seeds, and
    d_s, how this sample suits this seed. The variance of A over the seeds, S², holds u and d; that of the replicates
    about their own value within a resample, averaged over the resamples, D², holds d alone. So the mean varies with

        sample: the variance over resamples of the replicates' mean = var e + D² / k
        seeds:  max(S² - D², 0) / k = var u / k

    "fixed" holds the seeds fixed and uses the first; "drawn" takes seeds as draws and uses the sum, with Student's t at
    Satterthwaite's (k - 1) (sum / (S² / k))² degrees of freedom (1946). `patients` and `metric` are as in `interval`.
    """
    values, replicates = np.asarray(values, dtype=float), np.asarray(replicates, dtype=float)
    if replicates.ndim != 2 or values.shape != replicates.shape[:1] or not np.isfinite(values).all() or not len(values):
        found = f"values {values.shape}, {np.isfinite(values).sum()} finite, and replicates {replicates.shape}"
        raise ValueError(f"{found}: expected numbers (seeds,) and (seeds, resamples); leave out a seed without a value")
    mean, of_mean, k = float(values.mean()), replicates.mean(axis=0), len(values)
    fixed, sample_sd = interval(mean, of_mean, patients, metric), bootstrap_sd(of_mean, patients)
    if k == 1:
        return Seeds(fixed, None, sample_sd, None)
    between = values.var(ddof=1)
    inside = np.nanmean((replicates - values[:, None]).var(axis=0, ddof=1))
    seeds = max(between - inside, 0) / k
    total = sample_sd**2 + seeds
    quantile = t.ppf((1 + LEVEL) / 2, (k - 1) * (total * k / between) ** 2) if between > 0 else NORMAL_QUANTILE
    low, high = (float(np.clip(mean + side * np.sqrt(total), -1, 1)) for side in (-quantile, quantile))
    drawn = logit_interval(mean, np.sqrt(total), patients, quantile) if metric else Estimate(mean, low, high)
    return Seeds(fixed, drawn, sample_sd, float(np.sqrt(seeds)))
