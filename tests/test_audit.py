"""Promises of `lib.audit`, against pair counting, scikit-learn and films that are built so that the answer is known."""

import json
from itertools import product

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from lib.audit import (
    Cohort,
    audit,
    audit_table,
    border,
    explained_by,
    film_rows,
    image_features,
    on_two_sides,
    replaced,
    strata_of,
    tags,
)
from lib.uncertainty import bootstrap

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
    sides = {side: some.assign(digest=some["id"], twin=some["id"], label="normal") for side, some in sides.items()}
    return sides | {"test": sides["test"].assign(label=np.where(is_abnormal, "abnormal", "normal"), **columns)}


def noise(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(80, 120, (N, SIZE, SIZE)).astype(np.uint8)


def whole_audit(sides: dict[str, pd.DataFrame], films: np.ndarray | None = None, **options: object) -> dict:
    n = len(sides["test"])
    options = {"manifest": {}, "rescore": {}, "resamples": 100, "scores": {"ra": np.arange(n) % 7.0}} | options
    return audit(sides, noise()[:n] if films is None else films, np.full((SIZE, SIZE), 100.0), **options)


def found(audited: dict, check: str) -> dict[str, dict]:
    return {row["what"]: row for row in audited["rows"] if row["check"] == check}


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
    row = one.row("stratum", "pooled", strata)
    assert row["methods"]["ra"]["value"] == pytest.approx(np.mean(pairs), abs=1e-12)
    used = np.isin(strata, ["a", "b"])
    assert (row["normal"], row["abnormal"]) == ((used & ~one.is_abnormal).sum(), (used & one.is_abnormal).sum())


def test_with_one_stratum_it_is_scikit_learns_auroc_with_the_bootstraps_interval():
    scores = np.random.default_rng(3).integers(0, 9, N).astype(float)
    one, rows = cohort(ra=scores), np.arange(N) >= 20
    expected = roc_auc_score(one.is_abnormal[rows], scores[rows])
    assert one.row("x", "y", rows)["methods"]["ra"]["value"] == pytest.approx(expected)
    whole = one.row("x", "y", np.ones(N, dtype=bool))["methods"]["ra"]
    drawn = bootstrap(scores[None], one.is_abnormal, one.patients, 200, 0, ["auroc"]).estimate("auroc", 0)
    assert whole == pytest.approx({"value": drawn.value} | {"low": whole["low"], "high": whole["high"]})
    assert [whole["low"], whole["high"]] == pytest.approx([drawn.low, drawn.high], abs=0.02)


def test_a_score_that_is_only_the_stratum_is_a_coin_within_it():
    one = cohort()
    view = np.where(np.random.default_rng(0).random(N) < 0.2, ~one.is_abnormal, one.is_abnormal).astype(float)
    one = one._replace(scores={"ra": view})
    assert one.row("x", "whole", np.ones(N, dtype=bool))["methods"]["ra"]["value"] > 0.7
    assert one.row("x", "pooled", strata_of(view))["methods"]["ra"]["value"] == 0.5


def test_a_tag_that_decides_the_label_leaves_no_pair_within_its_strata():
    one = cohort(ra=np.arange(N, dtype=float))
    row = one.row("x", "pooled", strata_of(one.is_abnormal.astype(float)))
    assert row["methods"] == {"ra": None} and row["auroc"] is None


def test_fewer_than_ten_of_either_class_get_their_number_and_no_figure():
    one = cohort(ra=np.arange(N, dtype=float))
    for few, figure in ((9, False), (10, True)):
        rows = one.is_abnormal | (np.cumsum(~one.is_abnormal) <= few)
        row = one.row("x", "y", rows)
        assert (row["normal"], row["methods"]["ra"] is not None) == (few, figure)


def test_one_class_and_an_empty_stratum_get_their_numbers_and_no_figure():
    one, everyone = cohort(ra=np.arange(N, dtype=float)), np.ones(N, dtype=bool)
    for ill in (everyone, ~everyone):
        row = one._replace(is_abnormal=ill).row("x", "y", everyone, np.arange(N, dtype=float))
        assert (row["normal"], row["abnormal"]) == ((~ill).sum(), ill.sum())
        assert row["auroc"] is row["away"] is row["methods"]["ra"] is None
    row = one.row("x", "y", ~everyone, np.arange(N, dtype=float))
    assert (row["normal"], row["abnormal"], row["methods"], row["said"]) == (0, 0, {"ra": None}, "unknown for all")


def test_a_constant_score_is_a_coin_three_patients_tell_nothing_and_nan_is_refused():
    one, everyone = cohort(ra=np.ones(N)), np.ones(N, dtype=bool)
    assert one.row("x", "y", everyone)["methods"]["ra"] == {"value": 0.5, "low": 0.5, "high": 0.5}
    patients = np.where(one.is_abnormal, "a", np.where(np.arange(N) % 2 == 0, "b", "c"))
    three = one._replace(patients=patients, scores={"ra": np.arange(N, dtype=float)})
    row = three.row("x", "y", everyone)["methods"]["ra"]
    assert (row["low"], row["high"]) == (0, 1)
    with pytest.raises(ValueError, match="1 of 80 scores are not finite, expected numbers"):
        one._replace(scores={"ra": np.where(np.arange(N) == 7, np.nan, 1.0)}).row("x", "y", everyone)


def test_tags_are_numbers_words_and_whether_they_are_known():
    made = tags(
        pd.DataFrame(
            {
                "id": list("abcd"),
                "label": ["normal", "abnormal"] * 2,
                "strict_label": "normal",
                "finding": ["", "Mass"] * 2,
                "patient": ["1", "2"] * 2,
                "age": ["60", "nan", None, "7"],
                "view": ["PA", "AP", "", "PA"],
                "source": ["x", "y", "z", "z"],
                "sex": "",
                "width": [100, 200, "", 300],
                "height": ["50", "100", "100", "100"],
            }
        )
    )
    nan = np.nan
    expected = {
        "age": [60, nan, nan, 7],
        "age is known": [1, 0, 0, 1],
        "view is AP": [0, 1, nan, 0],
        "view is known": [1, 1, 0, 1],
        "source is x": [1, 0, 0, 0],
        "source is y": [0, 1, 0, 0],
        "source is z": [0, 0, 1, 1],
        "sex": [nan] * 4,
        "width": [100, 200, nan, 300],
        "width is known": [1, 1, 0, 1],
        "height": [50, 100, 100, 100],
        "aspect": [2, 2, nan, 3],
    }
    assert made.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(made[name], values, err_msg=name)


def test_image_features_are_what_their_names_say():
    films, mean = noise()[:5], np.full((SIZE, SIZE), 90.0)
    made = image_features(films, mean)
    ring = [(y, x) for y in range(SIZE) for x in range(SIZE) if min(y, x, SIZE - 1 - y, SIZE - 1 - x) < 2]
    assert sorted(zip(*np.nonzero(border((SIZE, SIZE))), strict=True)) == sorted(ring)
    assert made["mean grey"] == pytest.approx(films.mean(axis=(1, 2)))
    assert made["contrast"] == pytest.approx(films.std(axis=(1, 2)))
    assert made["border brightness"] == pytest.approx([np.mean([film[at] for at in ring]) for film in films])
    assert made["distance to the mean training film"] == pytest.approx(np.abs(films - mean).mean(axis=(1, 2)))
    ramp = np.tile(np.arange(SIZE) * 10, (SIZE, 1)).astype(np.uint8)
    stripes = np.tile([0, 190], (SIZE, SIZE // 2)).astype(np.uint8)
    smooth, sharp = image_features(np.stack([ramp, stripes]), mean)["high-frequency energy"]
    assert sharp > 100 * smooth


def test_what_is_replaced_depends_on_nothing_that_was_there_and_has_no_edge():
    mean = np.add.outer(np.arange(SIZE), np.arange(SIZE)) * 3.0 + 20
    films, other = (np.clip(mean + shift, 0, 255).astype(np.uint8)[None] for shift in (0, 40))
    for where in (LUNGS, border((SIZE, SIZE))):
        marked = other.copy()
        marked[:, where] = 255
        made = replaced(marked, where, mean)
        np.testing.assert_array_equal(made, other)  # the mean film at this film's own brightness: the seam is nowhere
        np.testing.assert_array_equal(replaced(films, where, mean), films)
        assert (marked[:, where] == 255).all() and made.dtype == np.uint8


def test_a_marker_in_the_border_is_found_and_gone_when_the_border_is_replaced():
    one, films = cohort(), noise()
    films[one.is_abnormal, :2, :2] = 255
    brightest = {"brightest": lambda some: some.max(axis=(1, 2))}
    rows = {row["what"]: row for row in film_rows(brightest, films, LUNGS, np.full((SIZE, SIZE), 100.0), one)}
    values = {what: row["methods"]["brightest"]["value"] for what, row in rows.items()}
    assert values["whole"] == values["lungs replaced"] == values["lungs black"] == 1
    assert abs(values["border replaced"] - 0.5) < 0.25
    films[:] = noise()
    films[one.is_abnormal, 8, 6] = 255  # and a lesion within the lungs the other way round
    rows = {row["what"]: row for row in film_rows(brightest, films, LUNGS, np.full((SIZE, SIZE), 100.0), one)}
    values = {what: row["methods"]["brightest"]["value"] for what, row in rows.items()}
    assert values["whole"] == values["border replaced"] == 1
    assert max(abs(values["lungs replaced"] - 0.5), abs(values["lungs black"] - 0.5)) < 0.25


def test_strata_are_the_two_values_or_quarters_and_the_unknown_is_in_none():
    assert list(strata_of(np.array([0, 1, np.nan, 1]))) == ["no", "yes", "", "yes"]
    assert list(strata_of(np.full(3, np.nan))) == [""] * 3
    assert list(strata_of(np.full(3, 5.0))) == ["5 to 5"] * 3
    values = np.random.default_rng(0).permutation(np.arange(40.0))
    made = strata_of(values)
    assert {name: (made == name).sum() for name in made} == dict.fromkeys(
        ("0 to 9", "10 to 19", "20 to 29", "30 to 39"), 10
    )
    assert all(
        low <= value <= high
        for value, (low, high) in zip(values, (map(float, m.split(" to ")) for m in made), strict=True)
    )


def test_patients_and_films_on_two_sides_are_counted_and_so_is_where_that_could_be_seen():
    sides = records(np.arange(N) % 2 == 0)
    sides["test"].loc[:2, "patient"] = ["train 1", "validation 2", ""]
    sides["test"].loc[5, "twin"] = "train0"
    said = on_two_sides(sides, {"exact_duplicates": 3, "near_duplicates": 1})
    assert said["a patient"] == "2; 79 of 80 test images and 40 of 40 others have a patient"
    assert said["a film"] == "1; duplicates in all images: 3 exact, 1 near"
    assert said["sources"] == "train: unknown; validation: unknown; test: unknown"
    for side in ("train", "validation"):
        sides[side]["patient"] = ""
    blind = {side: some.drop(columns=["digest", "twin"]).assign(source=side) for side, some in sides.items()}
    said = on_two_sides(blind, {})
    assert said["a patient"].startswith("cannot be checked; 79 of 80 test images and 0 of 40 others")
    assert said["a film"] == "cannot be checked; duplicates in all images: unknown exact, unknown near"
    assert said["sources"] == "train: train; validation: validation; test: test"


def test_the_verdict_names_what_does_as_well_and_compares_on_the_same_images():
    is_abnormal = np.arange(N) % 2 == 0
    random = np.random.default_rng(0)
    view = np.where(is_abnormal ^ (random.random(N) < 0.2), "AP", "PA")
    view[:20] = ""
    good, poor = is_abnormal + random.normal(size=N) * 0.1, random.normal(size=N)
    audited = whole_audit(records(is_abnormal, view=view), scores={"good": good, "poor": poor})
    row = found(audited, "tag")["view is AP"]
    expected = roc_auc_score(is_abnormal[20:], view[20:] == "AP")
    assert (row["normal"], row["abnormal"], row["auroc"]["value"]) == (30, 30, pytest.approx(expected))
    assert row["away"] == pytest.approx(expected - 0.5)
    assert row["methods"]["poor"]["value"] == pytest.approx(roc_auc_score(is_abnormal[20:], poor[20:]))
    verdicts = audited["verdicts"]
    assert verdicts["poor"]["explained"] is True and verdicts["poor"]["by"] == "view is AP"
    assert verdicts["poor"]["sentence"].startswith("“view is AP” alone does better than poor: AUROC 0.")
    assert verdicts["good"]["explained"] is False and verdicts["good"]["by"] == "view is AP"
    assert "not even “view is AP”" in verdicts["good"]["sentence"]
    assert all("chosen with the test labels, in its favour" in one["sentence"] for one in verdicts.values())
    strata = found(audited, "stratum")
    assert {"view is AP: no", "view is AP: yes", "view is AP: pairs within strata"} <= strata.keys()


def test_a_tag_explains_in_either_direction():
    rows = [
        {
            "check": "tag",
            "what": "age",
            "normal": 20,
            "abnormal": 20,
            "methods": {"ra": {"value": 0.7, "low": 0.6, "high": 0.8}},
        }
    ]
    rows[0] |= {"auroc": {"value": 0.35, "low": 0.3, "high": 0.4}, "away": 0.15}
    assert explained_by(rows, "ra")["sentence"].startswith(
        "“age” (the lower the more abnormal) alone does as well as ra"
    )
    rows[0] |= {"auroc": {"value": 0.45, "low": 0.3, "high": 0.6}, "away": 0.05}
    assert explained_by(rows, "ra")["explained"] is False


def test_the_verdict_says_what_a_method_has_without_the_lungs_in_either_way():
    is_abnormal, films = np.arange(N) % 2 == 0, noise()
    films[is_abnormal, 0, 0] = 255
    score = lambda some: some[:, 0, 0].astype(float)  # noqa: E731
    options = {"scores": {"corner": score(films)}, "rescore": {"corner": score}, "lungs": LUNGS}
    sentence = whole_audit(records(is_abnormal), films, **options)["verdicts"]["corner"]["sentence"]
    assert "No tag could be checked." in sentence
    assert sentence.endswith("Without the lungs it has 1.000 [0.91, 1.00], black 1.000 [0.91, 1.00].")


def test_without_any_tag_the_features_are_compared_and_the_table_says_what_is_unknown():
    audited = whole_audit(records(np.arange(N) % 2 == 0, sex="M", age=["nan"] * N))
    tagged = found(audited, "tag")
    assert {name: row["said"] for name, row in tagged.items()} == {
        "age": "unknown for all",
        "sex is M": "the same for all",
        "view": "unknown for all",
    }
    assert all(row["auroc"] is None for row in tagged.values())
    assert "No tag could be checked." in audited["verdicts"]["ra"]["sentence"]
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
    assert {what: row["methods"]["ra"]["value"] for what, row in rows.items()} == pytest.approx(expected)
    again = strict[~is_abnormal & (strict != "")]
    assert (
        f"of {len(again)} images" in rows["label"]["said"]
        and f"with {(again == 'normal').sum()}" in rows["label"]["said"]
    )


def test_few_images_give_a_verdict_that_says_so():
    audited = whole_audit(records(np.arange(12) % 2 == 0))
    assert audited["verdicts"]["ra"]["explained"] is None
    assert audited["verdicts"]["ra"]["sentence"] == "Too few images to hold anything trivial against ra."


def test_it_survives_json_and_the_table_has_a_line_for_each_row():
    options = {"rescore": {"ra": lambda some: some.mean(axis=(1, 2))}, "lungs": LUNGS}
    audited = whole_audit(records(np.arange(N) % 2 == 0, strict_label="normal"), **options)
    assert json.loads(json.dumps(audited, allow_nan=False)) == audited
    table = audit_table(audited)
    assert list(table.columns) == ["normal / abnormal", "AUROC", "away from 0.5", "ra", "said"]
    assert len(table) == len(audited["rows"])
    assert table.loc[("film", "whole"), "normal / abnormal"] == "40 / 40"
    assert table.loc[("on two sides", "a patient"), "ra"] == "–"


@pytest.mark.parametrize(
    ("is_abnormal", "options", "message"),
    [
        (np.ones(N, dtype=bool), {}, "'abnormal': 80.*wanted both classes"),
        (np.arange(N) % 2 == 0, {"scores": {"ra": np.zeros(3)}}, r"80 test records .* scores \{'ra': 3\}"),
        (np.arange(N) % 2 == 0, {"scores": {"view": np.zeros(N)}}, "without scores"),
        (np.arange(N) % 2 == 0, {"scores": {"ra": np.full(N, np.nan)}}, "80 of 80 scores are not finite"),
        (np.arange(N) % 2 == 0, {"lungs": LUNGS[:10]}, r"the template is \(10, 20\).*wanted \(20, 20\)"),
        (np.arange(N) % 2 == 0, {"lungs": np.ones_like(LUNGS)}, "100% true; .* some of it false"),
    ],
)
def test_what_cannot_be_audited_is_refused_by_what_is_wrong(is_abnormal, options, message):
    with pytest.raises(ValueError, match=message):
        whole_audit(records(is_abnormal), **options)


def test_two_films_of_a_patient_are_no_two_observations_and_an_unknown_patient_is_one_each():
    random = np.random.default_rng(6)
    is_abnormal, score = np.repeat(random.random(40) < 0.5, 2), np.repeat(random.normal(size=40), 2)

    def width(patient: object) -> float:
        audited = whole_audit(records(is_abnormal, patient=patient), scores={"ra": score}, resamples=500)
        one = found(audited, "image")["contrast"]["methods"]["ra"]
        return one["high"] - one["low"]

    assert width("") < 0.85 * width([f"patient {i // 2}" for i in range(N)])
