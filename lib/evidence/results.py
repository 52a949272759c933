"""The contents of `results.json`, as types: code reads attributes, so that mypy finds a misspelt one.

`Results` holds what one run has found, `Study` what runs with different seeds have found together. Their JSON schema is
`docs/results.schema.json`.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeVar

from pydantic import ConfigDict, Field

from lib.evidence.marks import Health, Point
from lib.evidence.record import Record

VERSION = 2
"""The schema's version. `imgae-evaluate RUN` writes older results again, and `imgae-study` older studies."""

Part = TypeVar("Part")


@dataclass(frozen=True)
class Estimate:
    """A value and the ends of its 95 % interval."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    value: float
    low: float
    high: float

    def contains(self, value: float) -> bool:
        """Return whether `value` lies in the interval."""
        return self.low <= value <= self.high


class Budget(Record):
    """What training a method has spent, from its first epoch on."""

    parameters: int
    images_seen: int
    steps: int
    """Optimizer steps, of all parts together."""
    multiply_adds: int
    seconds: float


class Trained(Record):
    """A trained method: the folder's name of the run that trained it, and the budget."""

    run: str
    budget: Budget


class Choice(Record):
    """What model selection chose for a method: an epoch, a score, and the scores that are combined."""

    epoch: int
    score: str
    combined: list[str]


class Threshold(Record):
    """The score above which an image is called abnormal, from validation normals, and its effect on the test images."""

    value: float
    false_alarm_rate: float
    """The promised rate."""
    sensitivity: Estimate
    specificity: Estimate


class Finding(Record):
    """Abnormal images with one finding against all normal ones; `why` is the reason if there is no AUROC."""

    n: int
    why: str | None
    auroc: Estimate | None


class Evaluated(Record):
    """Everything that is reported of one score."""

    auroc: Estimate
    average_precision: Estimate
    fpr_at_95_tpr: Estimate
    tpr_at_5_fpr: Estimate
    threshold: Threshold | None
    """None for a score that validation images do not have."""
    findings: dict[str, Finding]


class DeLongTest(Record):
    """A difference of AUROCs by DeLong's method."""

    value: float
    low: float
    high: float
    p_value: float


class Difference(Record):
    """Score `first` minus score `second`, on the same resamples of the same patients."""

    first: str
    second: str
    auroc: Estimate
    average_precision: Estimate
    p_value: float
    """Of the difference of AUROCs, two-sided, by the bootstrap."""
    delong: DeLongTest | None


class Stratum(Record):
    """The test images with one value of a column; `auroc` by score, or None, with the reason in `why`."""

    column: str
    value: str
    n_normal: int
    n_abnormal: int
    why: str | None
    auroc: dict[str, Estimate] | None


class Evaluation(Record):
    """Everything that is reported of some scores under one column of labels."""

    labels: str
    n_normal: int
    n_abnormal: int
    prevalence: float
    left_out: dict[str, int]
    """Images that are neither normal nor abnormal by these labels, by what they are."""
    patients: int
    normal_patients: int
    """With a normal image, and `abnormal_patients` with an abnormal one; a patient may be among both."""
    abnormal_patients: int
    level: float
    """The level of every interval."""
    resamples: int
    methods: dict[str, Evaluated]
    """By the score's name: a method's for its primary score, "ra, chosen", "ra, combined", a reference's."""
    differences: list[Difference]
    strata: list[Stratum]


class Located(Record):
    """How well maps find marked lesions; `margins` over the location prior by metric, None if patients are too few."""

    auroc: float
    average_precision: float
    aupro: float
    pointing: float
    best_dice: float
    """At the threshold that is best by the marks: an oracle."""
    prevalence: float
    margins: dict[str, Estimate] | None


class Localisation(Record):
    """Localisation by region and method; a region without lesion pixels is None."""

    marked: int
    normal: int
    patients_marked: int
    regions: dict[str, dict[str, Located] | None]
    left_out: dict[str, int]


class Check(Record):
    """One line of the audit: a cue or condition, and the AUROCs of the cue and of the methods on the same images."""

    check: str
    what: str
    normal: int
    abnormal: int
    auroc: Estimate | None
    """Of the cue, if it is a score."""
    away: float | None
    """The distance of that AUROC from 0.5."""
    methods: dict[str, Estimate | None]
    remark: str


class Verdict(Record):
    """Whether a trivial cue explains a method's ranking; None if too few images could be compared."""

    explained: bool | None
    by: str | None
    sentence: str


class Audit(Record):
    """What else could explain a result."""

    labels: str
    checks: list[Check]
    verdicts: dict[str, Verdict]


class Promise(Record):
    """A promised false alarm rate, the range that chance allows, and the rate of each score."""

    promised: float
    low: float
    high: float
    rates: dict[str, float]


class TestImages(Record):
    """The sources of the test images, the lowest and highest known age in years, and how large lesions are."""

    sources: list[str]
    ages: tuple[float, float] | None
    lesions: tuple[float, float, float] | None = None
    """What share of an image its marked lesions cover: the 5th, 50th and 95th percentile of the images with any."""


class Claim(Record):
    """A sentence that a run may or may not say, by a `rule`; `says` continues "This run may (not) say that"."""

    rule: str
    says: str


class Claims(Record):
    """What a run may say and what it may not."""

    may: list[Claim]
    may_not: list[Claim]


class Results(Record):
    """What one run has found. The stages fill it from top to bottom: score, evaluate, audit."""

    version: Literal[2] = 2
    split: str
    """The split's hash."""
    image_size: int
    synthetic: bool
    score: str
    """The primary score."""
    patient_separation: str
    problems: dict[str, int]
    columns: list[str]
    """The columns of scores.parquet that are scores."""
    methods: dict[str, Trained]
    references: list[str]
    left_out: dict[str, str]
    """What could not be scored, and why."""
    localisation: Localisation | None
    choices: dict[str, Choice]
    copied: dict[str, dict[str, float]]
    """The share of a pasted change that is reconstructed, by method and kind of change."""
    health: Health | None = None
    """Of the methods that this run has trained; None if an older version has scored it."""
    points: dict[str, list[Point]] = Field(default_factory=dict)
    """The health of each method during its training."""
    evaluation: Evaluation | None = None
    """Of the methods' primary scores, by the labels that the settings name."""
    other_labels: list[Evaluation] = Field(default_factory=list)
    """The same by the other columns of labels."""
    all_scores: Evaluation | None = None
    """Of all scores, references included."""
    calibration_images: int | None = None
    promise: Promise | None = None
    """None if the calibration images are too few to promise anything."""
    audit: Audit | None = None
    test_images: TestImages | None = None
    claims: Claims | None = None

    @property
    def budgets(self) -> dict[str, Budget]:
        """What training each method has spent."""
        return {name: trained.budget for name, trained in self.methods.items()}


def required(part: Part | None, name: str) -> Part:
    """Return a part of the results; ValueError with its `name` if no stage has filled it yet."""
    if part is None:
        raise ValueError(
            f"the results have no {name} yet: score, evaluate and audit the run first (imgae-evaluate RUN)"
        )
    return part


def method_of(score: str) -> str:
    """Return the method, or the reference, that a score's name begins with: "ra" of "ra, chosen" and of "ra"."""
    return score.partition(",")[0]
