"""Promises of `lib.evidence.audit`.

Against pair counting, scikit-learn and images that are built so that the answer is known.
"""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from drawn import Drawn, bytes_an_image
from sklearn.metrics import roc_auc_score

from lib.evidence.audit import Cohort, audit, explained_by, masked_checks, on_two_sides
from lib.evidence.results import Audit, Check, Estimate
from lib.evidence.trivial import image_features, mean_image, strata_of
from lib.evidence.uncertainty import bootstrap

N, SIZE = 80, 20
LUNGS = np.zeros((SIZE, SIZE), dtype=bool)
LUNGS[6:14, 4:9] = LUNGS[6:14, 11:16] = True


def cohort(seed: int = 0, **scores: np.ndarray) -> Cohort:
    """80 images, two of a patient."""
    is_abnormal = np.random.default_rng(seed).random(N) < 0.5
    return Cohort(is_abnormal, (np.arange(N) // 2).astype(str), scores, resamples=200)


def records(is_abnormal: np.ndarray, **columns: object) -> dict[str, pd.DataFrame]:
    """Three sides; the tags are those of the test side."""
    base = {"age": "", "sex": "", "view": "", "finding": "", "split": ""}
    sides = {
        side: pd.DataFrame(
            {"id": [f"{side}{i}" for i in range(n)], "patient": [f"{side} {i}" for i in range(n)], **base}
        )
        for side, n in {"train": 30, "validation": 10, "test": len(is_abnormal)}.items()
    }
    sides = {side: rows.assign(digest=rows["id"], twin=rows["id"], label="normal") for side, rows in sides.items()}
    return sides | {"test": sides["test"].assign(label=np.where(is_abnormal, "abnormal", "normal"), **columns)}


def noise(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(80, 120, (N, SIZE, SIZE)).astype(np.uint8)


def whole_audit(sides: dict[str, pd.DataFrame], images: np.ndarray | None = None, **options: object) -> Audit:
    n = len(sides["test"])
    options = {"manifest": {}, "rescore": {}, "resamples": 100, "scores": {"ra": np.arange(n) % 7.0}} | options
    return audit(sides, noise()[:n] if images is None else images, np.full((SIZE, SIZE), 100.0), **options)


def found(audited: Audit, check: str) -> dict[str, Check]:
    return {line.what: line for line in audited.checks if line.check == check}


@pytest.mark.parametrize("copied", ["digest", "twin", "group"])
def test_a_copy_is_resampled_with_its_original_in_every_check(copied):
    is_abnormal, ages = np.arange(N) % 4 > 1, np.random.default_rng(0).integers(20, 80, N).astype(str)
    pairs = [min(f"test {i // 8 * 8 + i % 4 + other}" for other in (0, 4)) for i in range(N)]  # named as their group
    areas = []
    for columns in ({copied: pairs}, {"patient": pairs}, {}):
        checks = whole_audit(records(is_abnormal, age=ages, **columns)).checks
        areas.append([area for line in checks if (area := line.methods.get("ra"))])
    assert areas[0] == areas[1] != areas[2] and len(areas[0]) > 3


def test_within_strata_only_pairs_of_one_stratum_count():
    random = np.random.default_rng(2)
    scores, strata = random.integers(0, 6, N).astype(float), random.choice(["a", "b", "", "alone"], N).astype(object)
    one = cohort(ra=scores)
    one.is_abnormal[strata == "alone"] = True
    pairs = [
        (scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j])
        for i, j in product(np.flatnonzero(one.is_abnormal), np.flatnonzero(~one.is_abnormal))
        if strata[i] == strata[j] != ""
    ]
    row = one.check("stratum", "pooled", strata)
    assert row.methods["ra"].value == pytest.approx(np.mean(pairs), abs=1e-12)
    used = np.isin(strata, ["a", "b"])
    assert (row.normal, row.abnormal) == ((used & ~one.is_abnormal).sum(), (used & one.is_abnormal).sum())


def test_with_one_stratum_it_is_scikit_learns_auroc_with_the_bootstraps_interval():
    scores = np.random.default_rng(3).integers(0, 9, N).astype(float)
    one, rows = cohort(ra=scores), np.arange(N) >= 20
    expected = roc_auc_score(one.is_abnormal[rows], scores[rows])
    assert one.check("x", "y", rows).methods["ra"].value == pytest.approx(expected)
    whole = one.check("x", "y", np.ones(N, dtype=bool)).methods["ra"]
    drawn = bootstrap(scores[None], one.is_abnormal, one.patients, 200, 0, ["auroc"]).estimate("auroc", 0)
    assert whole.value == pytest.approx(drawn.value)
    assert [whole.low, whole.high] == pytest.approx([drawn.low, drawn.high], abs=0.02)


def test_a_score_that_is_only_the_stratum_is_a_coin_within_it():
    one = cohort()
    view = np.where(np.random.default_rng(0).random(N) < 0.2, ~one.is_abnormal, one.is_abnormal).astype(float)
    one = one._replace(scores={"ra": view})
    assert one.check("x", "whole", np.ones(N, dtype=bool)).methods["ra"].value > 0.7
    assert one.check("x", "pooled", strata_of(view)).methods["ra"].value == 0.5


def test_a_tag_that_decides_the_label_leaves_no_pair_within_its_strata():
    one = cohort(ra=np.arange(N, dtype=float))
    row = one.check("x", "pooled", strata_of(one.is_abnormal.astype(float)))
    assert row.methods == {"ra": None} and row.auroc is None


def test_fewer_than_ten_patients_of_either_class_get_their_number_and_no_figure():
    one = cohort(ra=np.arange(N, dtype=float))._replace(patients=np.arange(N).astype(str))
    for few, figure in ((9, False), (10, True)):
        rows = one.is_abnormal | (np.cumsum(~one.is_abnormal) <= few)
        row = one.check("x", "y", rows)
        assert (row.normal, row.methods["ra"] is not None) == (few, figure)
        patients = np.where(one.is_abnormal, one.patients, (np.cumsum(~one.is_abnormal) % few).astype(str))
        of_patients = one._replace(patients=patients).check("x", "y", np.ones(N, dtype=bool))
        assert (of_patients.methods["ra"] is not None) == figure


def test_one_class_and_an_empty_stratum_get_their_numbers_and_no_figure():
    one, everyone = cohort(ra=np.arange(N, dtype=float)), np.ones(N, dtype=bool)
    for ill in (everyone, ~everyone):
        row = one._replace(is_abnormal=ill).check("x", "y", everyone, np.arange(N, dtype=float))
        assert (row.normal, row.abnormal) == ((~ill).sum(), ill.sum())
        assert row.auroc is row.away is row.methods["ra"] is None
    row = one.check("x", "y", ~everyone, np.arange(N, dtype=float))
    assert (row.normal, row.abnormal, row.methods) == (0, 0, {"ra": None})
    assert row.remark == "unknown for all images"


def test_a_constant_score_is_a_coin_three_patients_tell_nothing_and_nan_is_refused():
    one, everyone = cohort(ra=np.ones(N)), np.ones(N, dtype=bool)
    assert one.check("x", "y", everyone).methods["ra"] == Estimate(0.5, 0.5, 0.5)
    patients = np.where(one.is_abnormal, "a", np.where(np.arange(N) % 2 == 0, "b", "c"))
    three = one._replace(patients=patients, scores={"ra": np.arange(N, dtype=float)})
    assert three.check("x", "y", everyone).methods["ra"] is None
    with pytest.raises(ValueError, match="1 of 80 scores are not finite, expected numbers"):
        one._replace(scores={"ra": np.where(np.arange(N) == 7, np.nan, 1.0)}).check("x", "y", everyone)


def test_a_marker_in_the_border_is_found_and_gone_when_the_border_is_replaced():
    one, images = cohort(), noise()
    images[one.is_abnormal, :2, :2] = 255
    brightest, mean = {"brightest": lambda version: version.max(axis=(1, 2))}, np.full((SIZE, SIZE), 100.0)

    def values() -> dict[str, float]:
        return {
            check.what: check.methods["brightest"].value for check in masked_checks(brightest, images, LUNGS, mean, one)
        }

    areas = values()
    assert areas["whole"] == areas["lungs replaced"] == areas["lungs black"] == 1
    assert abs(areas["border replaced"] - 0.5) < 0.25
    images[:] = noise()
    images[one.is_abnormal, 8, 6] = 255  # and a lesion within the lungs the other way round
    areas = values()
    assert areas["whole"] == areas["border replaced"] == 1
    assert max(abs(areas["lungs replaced"] - 0.5), abs(areas["lungs black"] - 0.5)) < 0.25


def test_one_image_more_is_audited_in_the_memory_of_its_scores():
    def work(n: int) -> None:
        ill, mean = np.arange(n) % 2 == 0, np.full((32, 32), 100.0)
        lungs = np.zeros((32, 32), dtype=bool)
        lungs[8:14, 8:14] = True
        one = Cohort(ill, np.arange(n).astype(str), {}, resamples=2)
        masked_checks({"mean": lambda batch: batch.mean(axis=(1, 2))}, Drawn(n), lungs, mean, one)
        image_features(Drawn(n), mean)
        mean_image(Drawn(n))

    assert bytes_an_image(work) < 1000  # an image has 1,024, and its four changed forms were held together


def test_patients_and_images_on_two_sides_are_counted_and_so_is_where_that_could_be_seen():
    sides = records(np.arange(N) % 2 == 0)
    sides["test"].loc[:2, "patient"] = ["train 1", "validation 2", ""]
    sides["test"].loc[5, "twin"] = "train0"
    shared = on_two_sides(sides, {"exact_duplicates": 3, "near_duplicates": 1})
    known = "known for 79 of 80 test images and 40 of 40 others"
    assert shared["a patient"] == f"shared by 2 test images; {known}"
    assert shared["an image"] == "shared by 1 test images; duplicates among all images: 3 exact, 1 near"
    assert shared["sources"] == "train: unknown; validation: unknown; test: unknown"
    for side in ("train", "validation"):
        sides[side]["patient"] = ""
    blind = {side: rows.drop(columns=["digest", "twin"]).assign(source=side) for side, rows in sides.items()}
    shared = on_two_sides(blind, {})
    assert shared["a patient"].startswith("cannot be checked; known for 79 of 80 test images and 0 of 40 others")
    assert shared["an image"] == "cannot be checked; duplicates among all images: unknown exact, unknown near"
    assert shared["sources"] == "train: train; validation: validation; test: test"


def test_the_verdict_names_what_does_as_well_and_compares_on_the_same_images():
    is_abnormal = np.arange(N) % 2 == 0
    random = np.random.default_rng(0)
    view = np.where(is_abnormal ^ (random.random(N) < 0.2), "AP", "PA")
    view[:20] = ""
    good, poor = is_abnormal + random.normal(size=N) * 0.1, random.normal(size=N)
    audited = whole_audit(records(is_abnormal, view=view), scores={"good": good, "poor": poor})
    tag = found(audited, "tag")["view is AP"]
    expected = roc_auc_score(is_abnormal[20:], view[20:] == "AP")
    assert (tag.normal, tag.abnormal, tag.auroc.value) == (30, 30, pytest.approx(expected))
    assert tag.away == pytest.approx(expected - 0.5)
    assert tag.methods["poor"].value == pytest.approx(roc_auc_score(is_abnormal[20:], poor[20:]))
    verdicts = audited.verdicts
    assert verdicts["poor"].explained is True and verdicts["poor"].by == "view is AP"
    assert verdicts["poor"].sentence.startswith("“view is AP” alone ranks better than poor: AUROC 0.")
    assert verdicts["good"].explained is False and verdicts["good"].by == "view is AP"
    assert "not even “view is AP”" in verdicts["good"].sentence
    assert all("picked with the test labels, which favours it" in verdict.sentence for verdict in verdicts.values())
    strata = found(audited, "stratum")
    assert {"view is AP: no", "view is AP: yes", "view is AP: pairs within strata"} <= strata.keys()


def test_a_tag_explains_in_either_direction():
    def age(area: Estimate) -> Check:
        method = Estimate(0.7, 0.6, 0.8)
        counts = {"check": "tag", "what": "age", "normal": 20, "abnormal": 20, "remark": ""}
        return Check(**counts, auroc=area, away=abs(area.value - 0.5), methods={"ra": method})

    verdict = explained_by([age(Estimate(0.35, 0.3, 0.4))], "ra")
    assert verdict.sentence.startswith("“age” (lower is more abnormal) alone ranks as well as ra: AUROC 0.650 against")
    assert explained_by([age(Estimate(0.45, 0.3, 0.6))], "ra").explained is False


def test_the_verdict_says_what_a_method_has_without_the_lungs_in_either_way():
    is_abnormal, images = np.arange(N) % 2 == 0, noise()
    images[is_abnormal, 0, 0] = 255
    score = lambda version: version[:, 0, 0].astype(float)  # noqa: E731
    options = {"scores": {"corner": score(images)}, "rescore": {"corner": score}, "lungs": LUNGS}
    sentence = whole_audit(records(is_abnormal), images, **options).verdicts["corner"].sentence
    assert "No tag could be checked." in sentence
    assert sentence.endswith(
        "With the lungs replaced, corner has AUROC 1.000 [0.91, 1.00]; with black lungs, 1.000 [0.91, 1.00]."
    )


def test_without_any_tag_the_features_are_compared_and_it_says_what_is_unknown():
    audited = whole_audit(records(np.arange(N) % 2 == 0, sex="M", age=["nan"] * N))
    tagged = found(audited, "tag")
    assert {name: check.remark for name, check in tagged.items()} == {
        "age": "unknown for all images",
        "sex is M": "the same for all images",
        "view": "unknown for all images",
    }
    assert all(check.auroc is None for check in tagged.values())
    assert "No tag could be checked." in audited.verdicts["ra"].sentence
    assert len(found(audited, "image")) == 5


def test_both_readings_stand_side_by_side_on_all_and_on_the_same_images():
    random = np.random.default_rng(5)
    is_abnormal = random.random(N) < 0.5
    strict = np.where(is_abnormal ^ (random.random(N) < 0.2), "abnormal", "normal").astype(object)
    strict[:10], strict[10:14] = "", "other_abnormal"
    score = random.normal(size=N)
    audited = whole_audit(records(is_abnormal, strict_label=strict), scores={"ra": score}, labels="strict_label")
    rows, both = found(audited, "reading"), np.isin(strict, ["normal", "abnormal"])
    expected = {
        "label": roc_auc_score(is_abnormal, score),
        "strict_label": roc_auc_score(strict[both] == "abnormal", score[both]),
        "label, on strict_label's images": roc_auc_score(is_abnormal[both], score[both]),
    }
    assert {what: row.methods["ra"].value for what, row in rows.items()} == pytest.approx(expected)
    again = strict[~is_abnormal & (strict != "")]
    assert rows["label"].remark.startswith(f"strict_label agrees on {(again == 'normal').sum()} of {len(again)} images")


def test_few_images_give_a_verdict_that_says_so():
    audited = whole_audit(records(np.arange(12) % 2 == 0))
    assert audited.verdicts["ra"].explained is None
    assert audited.verdicts["ra"].sentence == "There are too few patients to compare any trivial cue with ra."


def test_it_survives_json():
    options = {"rescore": {"ra": lambda version: version.mean(axis=(1, 2))}, "lungs": LUNGS}
    audited = whole_audit(records(np.arange(N) % 2 == 0, strict_label="normal"), **options)
    assert Audit.model_validate_json(audited.model_dump_json()) == audited


@pytest.mark.parametrize(
    ("is_abnormal", "options", "message"),
    [
        (np.ones(N, dtype=bool), {}, "'abnormal': 80.*expected both classes"),
        (np.arange(N) % 2 == 0, {"scores": {"ra": np.zeros(3)}}, r"80 test records .* scores \{'ra': 3\}"),
        (np.arange(N) % 2 == 0, {"scores": {"view": np.zeros(N)}}, "without scores"),
        (np.arange(N) % 2 == 0, {"scores": {"ra": np.full(N, np.nan)}}, "80 of 80 scores are not finite"),
        (np.arange(N) % 2 == 0, {"lungs": LUNGS[:10]}, r"the template is \(10, 20\).*expected \(20, 20\)"),
        (np.arange(N) % 2 == 0, {"lungs": LUNGS.astype(int)}, r"the template is \(20, 20\) int64.*expected .* bool"),
        (np.arange(N) % 2 == 0, {"resamples": 0}, "0 resamples: expected at least 1"),
        (np.arange(N) % 2 == 0, {"lungs": np.ones_like(LUNGS)}, "100% true; .* some of it false"),
    ],
)
def test_what_cannot_be_audited_is_refused_by_what_is_wrong(is_abnormal, options, message):
    with pytest.raises(ValueError, match=message):
        whole_audit(records(is_abnormal), **options)


def test_two_images_of_a_patient_are_no_two_observations_and_an_unknown_patient_is_one_each():
    random = np.random.default_rng(6)
    is_abnormal, score = np.repeat(random.random(40) < 0.5, 2), np.repeat(random.normal(size=40), 2)

    def width(patient: object) -> float:
        audited = whole_audit(records(is_abnormal, patient=patient), scores={"ra": score}, resamples=500)
        area = found(audited, "image")["contrast"].methods["ra"]
        return area.high - area.low

    assert width("") < 0.85 * width([f"patient {i // 2}" for i in range(N)])
