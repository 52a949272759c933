"""Promises of `lib.figures.records`: the records of a split are counted by side, settings that count are shown."""

from pathlib import Path

import pandas as pd

from lib.data.dataset import split_records
from lib.figures.records import counts_table, manifest_table, settings_table, split_table
from lib.params import Params


def divided():
    """80 images, each of its own patient but two; a quarter abnormal."""
    names = [f"image-{i}" for i in range(80)]
    kind = ["abnormal" if i % 4 == 3 else "normal" for i in range(80)]
    table = {"id": names, "label": kind, "finding": "", "split": "", "patient": ["", "", *names[2:]], "digest": names}
    table |= {"twin": names, "age": ["40"] * 40 + [""] * 40}
    return split_records(pd.DataFrame(table), validation_fraction=0.2, seed=0)


def test_every_value_is_counted_on_the_side_where_it_is():
    split = divided()
    table = counts_table(split, ["label", "age"])
    assert table.loc[("label", "abnormal")].to_dict() == {
        "train": 0,
        "validation": 0,
        "test": (split.test["label"] == "abnormal").sum(),
    }
    assert table.loc["age"].sum().to_dict() == {
        side: len(records)
        for side, records in (("train", split.train), ("validation", split.validation), ("test", split.test))
    }
    assert set(table.loc["age"].index) == {"40", "not known"}


def test_a_side_has_its_images_and_the_ages_that_are_known():
    split = divided()
    table = split_table(split)
    known = (split.train["age"] == "40").sum()
    assert table.loc["age: 5 % – median – 95 % (images)", "train"] == f"40 – 40 – 40 ({known:,})"
    assert table.loc["images"].to_list() == [str(len(side)) for side in (split.train, split.validation, split.test)]
    assert split.hash in manifest_table(split).loc["hash", "value"]


def test_settings_that_are_given_and_those_of_the_preset_are_shown_beside_the_main_ones_with_who_set_them():
    params = Params(preset="standard", seed=3, batch_size=8)
    table = settings_table(params, ["methods"], {"run folder": "runs/x"}, Path("/project"))
    preset = {name: str(value) for name, value in Params.defaults("standard").items()}
    by = dict.fromkeys(preset, "preset standard") | {"seed": "given", "batch_size": "given", "preset": "given"}
    expected = preset | {"run folder": "runs/x", "seed": "3", "batch_size": "8", "methods": "['unet', 'ra']"}
    assert table["value"].drop("preset", errors="ignore").to_dict() == expected
    by |= {"run folder": "the machine", "methods": "default"}
    assert table["set by"].to_dict() == {name: by[name] for name in table.index}
