"""Patient, age, sex, view and side: one notation, whatever route they came by."""

import numpy as np
import pandas as pd
import pytest

from lib.data.metadata import age_in_years, normalise
from lib.data.source import Problem


@pytest.mark.parametrize(
    ("written", "years"),
    [
        *[("058Y", "58"), ("58", "58"), ("58.0", "58"), ("58,5", "58"), (" 58 ", "58"), ("58 years", "58")],
        *[("58y", "58"), ("12M", "1"), ("012M", "1"), ("011M", "0"), ("18 months", "1"), ("051W", "0"), ("053W", "1")],
        *[("364D", "0"), ("366D", "1"), ("000D", "0"), ("0", "0"), ("120", "120")],
        *[("121", ""), ("155", ""), ("414", ""), ("411Y", ""), ("-3", ""), ("9" * 400, ""), ("1." + "9" * 400, "")],
        *[("036M", "3"), ("45M", ""), ("045m", ""), ("45 months", "3")],
        *[("58 Male", ""), ("old", ""), ("", "")],
    ],
)
def test_an_age_is_in_whole_years_or_unknown(written, years):
    assert age_in_years(written) == years


def table(**columns) -> pd.DataFrame:
    count = len(next(iter(columns.values())))
    blank = {name: [""] * count for name in ("patient", "split", "age", "sex", "view")}
    return pd.DataFrame({"id": [f"{i}.png" for i in range(count)], **blank, **columns})


@pytest.mark.parametrize(
    ("column", "ways"),
    [
        ("age", {"58": ["058Y", "58.0", 58, 58.0, "58"]}),
        ("sex", {"M": ["Male", "M", "m", "MALE "], "F": ["female", "F", "f", "Woman"]}),
        ("view", {"PA": ["pa", "PA", "P-A", "Postero-anterior"], "AP": ["ap", "AP", "A.P.", "AP supine"]}),
        ("split", {"train": ["Training", "train_set", "TRAIN"], "val": ["validation", "valid", "Val"], "": ["NaN"]}),
        ("split", {"test": ["tests", "Testing", "test set", "test1"], "holdout": ["holdout"], "latest": ["latest"]}),
        ("view", {"lateral": ["LL", "RL", "Lateral", "lat"]}),
    ],
)
def test_ways_to_write_the_same_become_the_same(column, ways):
    for word, written in ways.items():
        records, problems = normalise(table(**{column: written}))
        assert set(records[column]) == {word}
        assert problems == []


def test_what_cannot_be_read_is_unknown_and_named(tmp_path):
    records, problems = normalise(table(age=["414", "7"], sex=["M", "Divers"], view=["PA", "oblique"]))
    assert records[["age", "sex", "view"]].to_numpy().tolist() == [["", "M", "PA"], ["7", "", ""]]
    assert problems == [
        Problem("0.png", "age is not an age of up to 120 years: '414'", "counted as unknown"),
        Problem("1.png", "sex is not M or F: 'Divers'", "counted as unknown"),
        Problem("1.png", "view is not PA, AP or lateral: 'oblique'", "counted as unknown"),
    ]


@pytest.mark.parametrize("word", ["", "nan", "NA", "unknown", "U", None, np.nan])
def test_words_for_unknown_are_no_problem(word):
    records, problems = normalise(table(age=[word], sex=[word], view=[word]))
    assert records[["age", "sex", "view"]].to_numpy().tolist() == [["", "", ""]]
    assert problems == []


@pytest.mark.parametrize(
    "other",
    ["p\u00e9 1 ", " p\u00e9 1", "pe\u0301 1", "p\u00e9  1", "p\u00e9\u00a01", "\ufeffp\u00e9 1", "p\u00e9 1\0"],
)
def test_a_patient_is_one_however_spaces_and_accents_are_written(other):
    records, problems = normalise(table(patient=["p\u00e9 1", other]))
    assert records["patient"].tolist() == ["p\u00e9 1", "p\u00e9 1"]
    assert problems == []


UNKNOWN = [
    "",
    " ",
    "unknown",
    "Unknown",
    "NaN",
    "nan",
    "NA",
    "N/A",
    "#N/A",
    "<NA>",
    "None",
    "null",
    "-",
    "--",
    "?",
    ".",
]


@pytest.mark.parametrize("word", [*UNKNOWN, "Missing", "not available", None, np.nan])
def test_a_word_for_unknown_is_no_patient(word):
    records, problems = normalise(table(patient=[word, "p1"]))
    assert records["patient"].tolist() == ["", "p1"]
    assert problems == []


@pytest.mark.parametrize(("one", "other"), [("P1", "p1"), ("007", "7"), ("12", "12.0"), ("p01", "p1"), ("0", "00")])
def test_patients_who_may_be_one_are_named_and_kept_apart(one, other):
    records, problems = normalise(table(patient=[one, other, "p3", "q3", ""]))
    assert records["patient"].tolist() == [one, other, "p3", "q3", ""]
    assert [problem.image for problem in problems] == ["0.png", "1.png"]
    assert all(repr(one) in text and repr(other) in text and "write" in what for _, text, what in problems)


@pytest.mark.parametrize(
    ("one", "other"), [("10", "1"), ("p10", "p1"), ("1.2.30", "1.2.3"), ("100", "1000"), ("a", "b")]
)
def test_patients_who_differ_in_more_are_no_problem(one, other):
    assert normalise(table(patient=[one, other]))[1] == []
