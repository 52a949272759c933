"""Patient, age, sex, view and side in one notation, whatever a table, a registered set, a shard or a header writes."""

import re
import unicodedata
from typing import Any

import pandas as pd

from lib.data.source import Problem, side_of

UNKNOWN = {"", "nan", "none", "nil", "null", "na", "u", "unk", "unknown", "missing"}
UNKNOWN |= {"unknownpatient", "notknown", "notavailable"}
"""Words for "not known", in small letters without marks."""
SPACE = re.compile(r"[\s\0\u200b-\u200d\u2060\ufeff]+")  # also what no eye can see
ZEROS = re.compile(r"(?<!\d)0+(?=\d)|\.0+$")  # what a spreadsheet adds to a number, or takes from it
OLDEST = 120  # years: a higher age is an error, such as NIH's 414
MONTHS = 36  # of an age written with M; a higher one may be of a man, in years
A_YEAR = {"y": 1.0, "m": 12.0, "w": 365.25 / 7, "d": 365.25}  # in units by their first letter
AGE = re.compile(
    r"(\d{1,9})(?:[.,](\d{1,9}))?\s*(?:(y)(?:rs?|ears?)?|(m)(?:o|onths?)?|(w)(?:ks?|eeks?)?|(d)(?:ays?)?)?(?: old)?"
)
SEXES = {"F": {"f", "female", "woman", "girl"}, "M": {"m", "male", "man", "boy"}}
VIEWS = {
    "PA": {"pa", "posteroanterior", "posterioranterior"},
    "AP": {"ap", "anteroposterior", "anteriorposterior", "aperect", "apsupine", "aphorizontal", "apportable"},
    "lateral": {"l", "ll", "rl", "lat", "lateral", "leftlateral", "rightlateral", "llat", "rlat"},
}


def age_in_years(text: str) -> str:
    """Return an age of up to 120 years, such as "60", "58.0", "060Y" or "011M", as whole years; "" for other texts.

    "45M" is one of them: it is rather a man of 45 years than a child of 45 months.
    """
    if not (age := AGE.fullmatch(text.strip().lower())):
        return ""
    unit = next(filter(None, age.groups()[2:]), "y")
    if unit == "m" and text.strip()[-1] in "mM" and int(age[1]) > MONTHS:
        return ""
    years = int(float(f"{age[1]}.{age[2] or 0}") / A_YEAR[unit])
    return str(years) if years <= OLDEST else ""


def known(values: pd.Series) -> pd.Series:
    """Return texts in Unicode's form NFC with single spaces; "" for words for "not known", and where nothing is.

    Two ways to write the same letters would otherwise be two patients, and "unknown" a patient of many images.
    """

    def read(value: Any) -> str:
        text = "" if pd.isna(value) else SPACE.sub(" ", unicodedata.normalize("NFC", str(value))).strip()
        return "" if re.sub(r"[\W_]", "", text.casefold()) in UNKNOWN else text

    return values.map({value: read(value) for value in values.unique()}).astype(object)


def normalise(records: pd.DataFrame) -> tuple[pd.DataFrame, list[Problem]]:
    """Return the records with `patient`, `age` in whole years, `sex` M or F, `view` PA, AP or lateral; "" if not known.

    Words of `split` that name a side become train, val or test; others stay, and no side has their images.
    What is written and cannot be read is unknown and listed among the problems, and so are patients who may be one.
    """
    problems: list[Problem] = []
    readers = {
        "age": (age_in_years, f"an age of up to {OLDEST} years"),
        "sex": (lambda text: _word(text, SEXES), "M or F"),
        "view": (lambda text: _word(re.sub(r"[\W_]", "", text), VIEWS), "PA, AP or lateral"),
    }
    for column, (read, wanted) in readers.items():
        texts = known(records[column])
        found = texts.map({text: read(text) for text in texts.unique()})
        lost = (texts != "") & (found == "")
        for image, text in zip(records["id"][lost], texts[lost], strict=True):
            problems.append(Problem(image, f"{column} is not {wanted}: {text!r}", "counted as unknown"))
        records = records.assign(**{column: found})
    split = known(records["split"]).map(lambda word: side_of(word) or word)
    records = records.assign(patient=known(records["patient"]), split=split)
    return records, problems + _alike(records)


def _alike(records: pd.DataFrame) -> list[Problem]:
    """Return the images of patients whose ids differ only in capitals, leading zeros or a final ".0"."""
    ids = records["patient"][records["patient"] != ""]
    ways = pd.Series({patient: ZEROS.sub("", patient.casefold()) for patient in ids.unique()}, dtype=str)
    several = ways[ways.duplicated(keep=False)]
    words = {way: " and ".join(map(repr, sorted(group.index))) for way, group in several.groupby(several)}
    what, consequence = "patient may be one whose id is also written otherwise", "counted apart; write one id alike"
    return [
        Problem(records["id"][row], f"{what}: {words[ways[patient]]}", consequence)
        for row, patient in ids[ids.isin(several.index)].items()
    ]


def _word(text: str, words: dict[str, set[str]]) -> str:
    return next((word for word, ways in words.items() if text.lower() in ways), "")
