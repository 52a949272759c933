"""Results -> what a run may say and what it may not, by rule: each rule looks at numbers, never at a name.

The last chapter prints these sentences, and results.json holds them.
"""

from collections.abc import Iterator
from typing import NamedTuple

from lib.evidence.evaluation import FALSE_ALARM_RATE, UNKNOWN, why_no_auroc
from lib.evidence.results import Audit, Claim, Claims, Evaluation, Promise, Results, TestImages, required
from lib.evidence.uncertainty import FEWEST_PATIENTS
from lib.evidence.wording import difference_text, estimate_text, percent
from lib.scores.conformal import achieved_rate

WIDE = 0.1  # an AUROC with a wider interval is not known to its second decimal, nor are two in it known to agree
SLOWER = 1.5  # times the training seconds of the fastest method: more is worth a sentence
FROZEN = ("knn", "patchcore")  # references in frozen features, which have learnt from no chest X-ray


class Found(NamedTuple):
    """A run's results, and the parts of them that the rules need; none is missing."""

    results: Results
    evaluation: Evaluation
    all_scores: Evaluation
    audit: Audit
    test_images: TestImages

    @property
    def few(self) -> str | None:
        """Why the test patients are too few for any claim about how a score ranks their images, or None."""
        return why_no_auroc(self.evaluation.normal_patients, self.evaluation.abnormal_patients)


class Sentence(NamedTuple):
    """A claim, and whether the run may make it."""

    rule: str
    may: bool
    says: str


def promise(results: Results) -> Promise | None:
    """Return the promised false alarm rate, 5 %, the range that chance allows, and each score's rate on test normals.

    Return None for fewer than 19 calibration images, which cannot promise 5 %. Scores without a threshold are left
    out. Raises ValueError for results that have not been evaluated.
    """
    n = required(results.calibration_images, "number of calibration images")
    all_scores = required(results.all_scores, "evaluation of all scores")
    if FALSE_ALARM_RATE * (n + 1) < 1:
        return None
    chance = achieved_rate(n, FALSE_ALARM_RATE, all_scores.n_normal)
    rates = {
        name: round(1 - score.threshold.specificity.value, 9)
        for name, score in all_scores.methods.items()
        if score.threshold
    }
    return Promise(promised=FALSE_ALARM_RATE, low=chance.low, high=chance.high, rates=rates)


def _ranks(found: Found) -> Iterator[Sentence]:
    for name, method in found.evaluation.methods.items():
        area = method.auroc
        where, why = ("below" if area.high < 0.5 else "above"), f"AUROC {estimate_text(area)}"
        if area.contains(0.5):
            why += ", an interval that contains 0.5"
        may = not (area.contains(0.5) or found.few)
        yield Sentence("rank", may, f"{name} ranks abnormal images {where} normal ones: {why}")


def _works(found: Found) -> Iterator[Sentence]:
    if (health := found.results.health) is not None:
        for name, method in health.methods.items():
            why = "; ".join(method.lacks) or "it meets every mark that was set beforehand, on normal images alone"
            yield Sentence("health", not method.lacks, f"{name} does what it is meant to do with normal images: {why}")


def _differ(found: Found) -> Iterator[Sentence]:
    others = {(pair.first, pair.second): pair.auroc for pair in found.all_scores.differences}
    for pair in found.evaluation.differences:
        first, second, area = pair.first, pair.second, pair.auroc
        if area.contains(0) or found.few:
            says = f"there is a difference between {first} and {second}, or that there is none: {difference_text(pair)}"
            yield Sentence("difference", False, says)
            continue
        better, worse, sign = (first, second, 1) if area.value > 0 else (second, first, -1)
        yield Sentence("difference", True, f"{better} ranks these images better than {worse}: {difference_text(pair)}")
        lost = [
            f"{estimate_text(other, signed=True)} ({form})"
            for form in ("chosen", "combined")
            if (other := others.get((f"{first}, {form}", f"{second}, {form}")))
            and not min(sign * other.low, sign * other.high) > 0
        ]
        if lost:
            why = f"AUROC {first} − {second} under another score = {'; '.join(lost)}"
            yield Sentence("score", False, f"{better} ranks better than {worse} whichever score is used: {why}")


def _explained(found: Found) -> Iterator[Sentence]:
    for name, verdict in found.audit.verdicts.items():
        clear = verdict.explained is False
        says = f"{name} detects {'more than the trivial cues that were checked' if clear else 'disease'}"
        reason = verdict.sentence.partition(". ")[0].removesuffix(".")
        yield Sentence("confound", clear, f"{says}: {reason[:1].lower()}{reason[1:]}")


def _frozen(found: Found) -> Iterator[Sentence]:
    behind = []
    for rival in FROZEN:
        pairs = [pair for pair in found.all_scores.differences if pair.second == rival]
        if above := [pair.first for pair in pairs if pair.auroc.low > 0 and not found.few]:
            says = (
                f"{len(above)} of {len(pairs)} scores of trained methods rank better than {rival}: {'; '.join(above)}"
            )
            yield Sentence("frozen features", True, says)
        elif pairs:
            best = difference_text(max(pairs, key=lambda pair: pair.auroc.value))
            behind.append(f"none of {len(pairs)} scores of trained methods ranks better than {rival} (at best, {best})")
        elif rival in found.all_scores.methods:
            area = estimate_text(found.all_scores.methods[rival].auroc)
            behind.append(f"{rival}, in frozen features, has AUROC {area} on the same images")
    if behind:
        yield Sentence("frozen features", False, f"training on chest X-rays helps: {'; '.join(behind)}")


def _promises(found: Found) -> Iterator[Sentence]:
    promised = found.results.promise
    if promised is None:
        why = f"too few calibration images ({found.results.calibration_images}) to promise it"
        yield Sentence("false alarms", False, f"a false alarm rate of {percent(FALSE_ALARM_RATE)} is kept: {why}")
        return
    high, n = promised.high, found.all_scores.n_normal
    few = why_no_auroc(found.evaluation.normal_patients, FEWEST_PATIENTS)
    for name in found.evaluation.methods:
        if (rate := promised.rates.get(name)) is not None:
            kept = f"{name} keeps to the promised false alarm rate of {percent(promised.promised)}"
            called = f"{round(rate * n)} of {n} normal test images abnormal ({percent(rate)})"
            why = f"it calls {called}, and chance allows up to {percent(high)}"
            yield Sentence("false alarms", rate <= high and not few, f"{kept}: {few or why}")


def _places(found: Found) -> Iterator[Sentence]:
    if not (localisation := found.results.localisation):
        yield Sentence("localisation", False, "a map shows where a lesion is: no lesion is marked in these images")
        return
    regions = {region: located for region, located in localisation.regions.items() if located}
    maps = next(iter(regions.values()), {})  # of the same methods in every region
    for name in [name for name in maps if name in found.evaluation.methods]:
        every = {region: located[name].margins for region, located in regions.items()}
        known = {region: margins["average_precision"] for region, margins in every.items() if margins}
        values = "; ".join(f"{estimate_text(margin, signed=True)} ({region})" for region, margin in known.items())
        why = f"difference in average precision {values}" if known else "too few patients with a lesion for such a map"
        beats = bool(known) and all(margin.low > 0 for margin in known.values())
        says = f"{name} locates lesions better than a map of where other patients have theirs: {why}"
        yield Sentence("localisation", beats, says)


def _readings(found: Found) -> Iterator[Sentence]:
    labels, methods = found.evaluation.labels, found.evaluation.methods
    for other in found.results.other_labels:
        for name, method in other.methods.items():
            area, own = method.auroc, methods[name].auroc
            span = max(own.high, area.high) - min(own.low, area.low)
            why = f"AUROC {estimate_text(own)} by {labels}, {estimate_text(area)} by {other.labels}"
            why += f", intervals that together span {span:.2f}"
            says = f"{name} ranks as well under other labels, to {WIDE:g}: {why}"
            yield Sentence("labels", span <= WIDE, says)


def _sizes(found: Found) -> Iterator[Sentence]:
    evaluation = found.evaluation
    if found.few:
        yield Sentence("precision", False, f"anything about how well a score ranks test images: {found.few}")
    widest = max(method.auroc.high - method.auroc.low for method in evaluation.methods.values())
    if widest > WIDE:
        n = f"{evaluation.n_normal} normal and {evaluation.n_abnormal} abnormal images"
        says = f"the second decimal of an AUROC means anything: with {n}, the widest interval spans {widest:.2f}"
        yield Sentence("precision", False, says)
    few = [
        f"{stratum.column} {stratum.value} ({stratum.why})"
        for stratum in evaluation.strata
        if stratum.why and stratum.value != UNKNOWN
    ]
    if few:
        yield Sentence("groups", False, f"any of this holds in these groups, which are too small: {'; '.join(few)}")


def _training(found: Found) -> Iterator[Sentence]:
    budgets = found.results.budgets
    seen = {budget.images_seen for budget in budgets.values()}
    seconds = {name: budget.seconds for name, budget in budgets.items()}
    slow, fast = (extreme(seconds, key=seconds.__getitem__) for extreme in (max, min))
    if len(budgets) > 1 and len(seen) == 1:
        yield Sentence("budget", True, f"the methods are compared at an equal budget: each saw {seen.pop():,} images")
    if seconds[slow] > SLOWER * seconds[fast] > 0:  # they are rounded to tenths, so those of a tiny run may be 0
        times = f"{slow} trained {seconds[slow] / seconds[fast]:.1f} times as long as {fast}"
        yield Sentence("budget", False, f"the methods would rank in the same order after equal training time: {times}")
    yield Sentence(
        "seeds", False, "training again with another seed would give the same result: each method was trained once"
    )


def _whose(found: Found) -> Iterator[Sentence]:
    sources, ages = found.test_images.sources, found.test_images.ages
    if found.results.synthetic:
        yield Sentence("synthetic", False, "any of this holds for patients: the images are synthetic")
    elif not ages:
        yield Sentence("ages", False, "this holds at any age: the ages of the test patients are not known")
    elif ages[1] < 18 or ages[0] >= 18:
        who, whom = ("children", "adults") if ages[1] < 18 else ("adults", "children")
        why = f"the test patients whose age is known are {who}, {ages[0]:g} to {ages[1]:g} years old"
        yield Sentence("ages", False, f"this holds for {whom}: {why}")
    if found.results.patient_separation != "verified":
        why = f"patient separation is {found.results.patient_separation}"
        yield Sentence("patients", False, f"no patient is in both training and test: {why}")
    if len(sources) < 2:
        source = sources[0] if sources else "a source without a name"
        yield Sentence("elsewhere", False, f"this holds in another hospital: all test images come from {source}")
    yield Sentence("device", False, "anybody should be diagnosed or treated with it: it is not a medical device")


RULES = (_works, _ranks, _differ, _explained, _frozen, _promises, _places, _readings, _sizes, _training, _whose)


def claims(results: Results) -> Claims:
    """Return what a run's results allow it to say and what they do not, by rule.

    Raises ValueError for results that have not been evaluated and audited.
    """
    found = Found(
        results,
        required(results.evaluation, "evaluation"),
        required(results.all_scores, "evaluation of all scores"),
        required(results.audit, "audit"),
        required(results.test_images, "test images"),
    )
    claimed: dict[bool, list[Claim]] = {True: [], False: []}
    for rule, may, says in (sentence for rule_of in RULES for sentence in rule_of(found)):
        claimed[may].append(Claim(rule=rule, says=says))
    return Claims(may=claimed[True], may_not=claimed[False])
