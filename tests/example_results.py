"""Typed results that tests start from: a run that may claim nearly everything, and its parts."""

from typing import Any

from lib.evidence.results import (
    Audit,
    Budget,
    Check,
    DeLongTest,
    Difference,
    Estimate,
    Evaluated,
    Evaluation,
    Finding,
    Localisation,
    Located,
    Results,
    Stratum,
    TestImages,
    Threshold,
    Trained,
    Verdict,
)

METHODS = {"unet": Estimate(0.6, 0.56, 0.64), "ra": Estimate(0.8, 0.76, 0.84)}
BUDGET = Budget(parameters=1_234_567, images_seen=48_800, steps=400, multiply_adds=73_000_000, seconds=100.0)


def exactly(value: float) -> Estimate:
    """A value without an interval to speak of."""
    return Estimate(value, value, value)


def evaluated(auroc: Estimate, specificity: float = 0.95) -> Evaluated:
    """One score, with one finding that is too small."""
    threshold = Threshold(value=0.1, false_alarm_rate=0.05, sensitivity=exactly(0.4), specificity=exactly(specificity))
    return Evaluated(
        auroc=auroc,
        average_precision=auroc,
        fpr_at_95_tpr=exactly(0.7),
        tpr_at_5_fpr=exactly(0.3),
        threshold=threshold,
        findings={"hernia": Finding(n=5, why="5 abnormal: fewer than 10 patients", auroc=None)},
    )


def difference(first: str, second: str, value: float, low: float, high: float) -> Difference:
    """One score minus another."""
    exact = DeLongTest(value=value, low=low, high=high, p_value=0.01)
    area = Estimate(value, low, high)
    return Difference(first=first, second=second, auroc=area, average_precision=area, p_value=0.01, delong=exact)


def evaluation(methods: dict[str, Evaluated], differences: list[Difference], **changes: Any) -> Evaluation:
    """400 normal and 500 abnormal images; one stratum is large enough, one unknown."""
    areas = {name: method.auroc for name, method in methods.items()}
    bedside = Stratum(column="view", value="AP", n_normal=90, n_abnormal=300, why=None, auroc=areas)
    unknown = Stratum(column="sex", value="unknown", n_normal=9, n_abnormal=9, why="sex not known", auroc=None)
    fields = {
        "labels": "label",
        "n_normal": 400,
        "n_abnormal": 500,
        "prevalence": 5 / 9,
        "left_out": {},
        "patients": 700,
        "normal_patients": 320,
        "abnormal_patients": 400,
        "level": 0.95,
        "resamples": 2000,
        "methods": methods,
        "differences": differences,
        "strata": [bedside, unknown],
    }
    return Evaluation(**(fields | changes))


def located(margin: Estimate | None) -> Located:
    """One map, with this margin over the prior by average precision and AUROC."""
    margins = margin and {"average_precision": margin, "auroc": margin}
    return Located(
        auroc=0.7, average_precision=0.2, aupro=0.4, pointing=0.3, best_dice=0.3, prevalence=0.05, margins=margins
    )


def results() -> Results:
    """A run that may claim nearly all there is: narrow intervals, several sources, every age, nothing trivial."""
    methods = {name: evaluated(area) for name, area in METHODS.items()}
    region = {"location prior": located(None), **{name: located(Estimate(0.1, 0.05, 0.15)) for name in METHODS}}
    pairs = [
        difference("unet, chosen", "ra, chosen", -0.1, -0.2, -0.05),
        difference("ra, chosen", "knn", 0.1, 0.05, 0.15),
        difference("unet, chosen", "knn", 0.0, -0.05, 0.05),
    ]
    sentence = (
        "No tag and no trivial feature ranks as well as {}, not even “age”: AUROC 0.55. It is the strongest of 9."
    )
    verdicts = {name: Verdict(explained=False, by="age", sentence=sentence.format(name)) for name in METHODS}
    age = Check(
        check="tag",
        what="age",
        normal=400,
        abnormal=500,
        auroc=Estimate(0.55, 0.5, 0.6),
        away=0.05,
        methods=dict(METHODS),
        remark="",
    )
    return Results(
        split="0123456789abcdef",
        image_size=64,
        synthetic=False,
        score="mean absolute residual",
        patient_separation="verified",
        problems={},
        columns=["unet", "ra", "ra, chosen", "knn"],
        methods={name: Trained(run="a run", budget=BUDGET) for name in METHODS},
        references=["knn"],
        left_out={},
        localisation=Localisation(
            marked=200, normal=400, patients_marked=150, regions={"whole image": region, "lungs": region}, left_out={}
        ),
        choices={},
        copied={},
        evaluation=evaluation(methods, [difference("unet", "ra", -0.2, -0.25, -0.15)]),
        other_labels=[evaluation(methods, [], labels="strict_label")],
        all_scores=evaluation(methods | {"ra, chosen": evaluated(Estimate(0.8, 0.7, 0.9))}, pairs),
        calibration_images=199,
        audit=Audit(labels="label", checks=[age], verdicts=verdicts),
        test_images=TestImages(sources=["nih", "rsna"], ages=(3.0, 90.0)),
    )


def changed(before: Results, path: str, value: Any) -> Results:
    """The results with one entry replaced; `path` as "evaluation.strata.0.why"."""
    fields = before.model_dump()
    at: Any = fields
    *parents, last = path.split(".")
    for name in parents:
        at = at[int(name)] if isinstance(at, list) else at[name]
    assert isinstance(at, list) or last in at, path
    at[int(last) if isinstance(at, list) else last] = value
    return Results.model_validate(fields)
