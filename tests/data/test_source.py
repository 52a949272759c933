"""Promises of `lib.data.source`: what is said of the ages of records."""

from pathlib import Path

import pandas as pd

from lib.data.source import age_quantiles, cache_folder


def test_the_quantiles_of_the_ages_are_those_of_the_known_ones():
    ages = pd.DataFrame({"age": ["", *map(str, range(1, 102))]})
    assert age_quantiles(ages) == (6.0, 51.0, 96.0, 101)
    assert age_quantiles(pd.DataFrame({"age": ["", ""]})) is None


def test_the_caches_lie_where_the_variable_says_and_an_empty_one_says_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("IMGAE_DX_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv("IMGAE_DX_CACHE", "")
    assert cache_folder() == Path.home() / ".cache" / "imgae-dx"
