"""Promises of `lib.data.groups`: the groups are the connected parts that a search from image to image finds."""

import numpy as np
import pandas as pd
import pytest

from lib.data.groups import groups


def random_records(seed: int, n: int = 40) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    patient = [f"p{i}" if i % 3 else "" for i in random.integers(0, n, n)]
    columns = {name: [f"{name}{i}" for i in random.integers(0, 2 * n, n)] for name in ("digest", "twin")}
    return pd.DataFrame({"id": [f"i{i}" for i in range(n)], "patient": patient, **columns})


def searched(records: pd.DataFrame) -> list[set[str]]:
    """The ids of each group, by following shared patients, files and pictures from one image to the next."""
    found: list[set[str]] = []
    for start in records["id"]:
        if any(start in group for group in found):
            continue
        group, size = records["id"] == start, 0
        while size < group.sum():
            size = group.sum()
            for column in ("patient", "digest", "twin"):
                group |= records[column].isin(set(records[column][group]) - {""})
        found.append(set(records["id"][group]))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_images_are_one_group_if_they_are_linked_also_through_others_and_it_has_the_name_of_one_of_its_patients(seed):
    records = random_records(seed).sample(frac=1, random_state=seed)  # the order of the rows is no matter
    names = groups(records)
    found = [set(records["id"][names == name]) for name in names.unique()]
    assert sorted(map(sorted, found)) == sorted(map(sorted, searched(records)))
    for name, group in records.groupby(names):
        assert name == min(group["patient"].where(group["patient"] != "", "image " + group["id"]))


def test_a_group_of_one_patient_keeps_the_patients_name():
    records = random_records(0).assign(digest=lambda table: table["id"], twin=lambda table: table["id"])
    known = records["patient"] != ""
    assert (groups(records)[known] == records["patient"][known]).all()
