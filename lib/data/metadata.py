"""Age, sex and view in one notation, whatever a table, a registered data set, a shard or a DICOM header writes."""

import re

import pandas as pd

from lib.data.source import Problem

UNKNOWN = {"", "nan", "none", "null", "na", "n/a", "<na>", "unknown", "unk", "u", "-", "?"}  # words for "not known"
OLDEST = 120  # years: a higher age is an error, such as NIH's 414
A_YEAR = {"y": 1.0, "m": 12.0, "w": 365.25 / 7, "d": 365.25}  # in units by their first letter
AGE = re.compile(
    r"(\d+)(?:[.,](\d+))?\s*(?:(y)(?:rs?|ears?)?|(m)(?:o|onths?)?|(w)(?:ks?|eeks?)?|(d)(?:ays?)?)?(?: old)?"
)
SEXES = {"F": {"f", "female", "woman", "girl"}, "M": {"m", "male", "man", "boy"}}
VIEWS = {
    "PA": {"pa", "posteroanterior", "posterioranterior"},
    "AP": {"ap", "anteroposterior", "anteriorposterior", "aperect", "apsupine", "aphorizontal", "apportable"},
    "lateral": {"l", "ll", "rl", "lat", "lateral", "leftlateral", "rightlateral", "llat", "rlat"},
}


def age_in_years(text: str) -> str:
    """Return an age of up to 120 years, such as "60", "58.0", "060Y" or "011M", as whole years; "" for other texts."""
    if not (age := AGE.fullmatch(text.strip().lower())):
        return ""
    unit = next(filter(None, age.groups()[2:]), "y")
    years = int(float(f"{age[1]}.{age[2] or 0}") / A_YEAR[unit])
    return str(years) if years <= OLDEST else ""


def normalise(records: pd.DataFrame) -> tuple[pd.DataFrame, list[Problem]]:
    """Return the records with `age` in whole years, `sex` M or F, `view` PA, AP or lateral, and "" where not known.

    What is written and cannot be read is unknown, too, and is listed among the problems.
    """
    problems: list[Problem] = []
    readers = {
        "age": (age_in_years, f"an age of up to {OLDEST} years"),
        "sex": (lambda text: _word(text, SEXES), "M or F"),
        "view": (lambda text: _word(re.sub(r"[\W_]", "", text), VIEWS), "PA, AP or lateral"),
    }
    for column, (read, wanted) in readers.items():
        texts = records[column].map(lambda value: "" if pd.isna(value) else str(value).strip())
        texts = texts.where(~texts.str.lower().isin(UNKNOWN), "")
        known = {text: read(text) for text in texts.unique()}
        found = texts.map(known)
        lost = (texts != "") & (found == "")
        for image, text in zip(records["id"][lost], texts[lost], strict=True):
            problems.append(Problem(image, f"{column} is not {wanted}: {text!r}", "counted as unknown"))
        records = records.assign(**{column: found})
    return records, problems


def _word(text: str, words: dict[str, set[str]]) -> str:
    return next((word for word, ways in words.items() if text.lower() in ways), "")
