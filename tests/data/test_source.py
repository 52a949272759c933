"""Promises of `lib.data.source`: what is said of the ages of records."""

import pandas as pd

from lib.data.source import age_quantiles


def test_the_quantiles_of_the_ages_are_those_of_the_known_ones():
    ages = pd.DataFrame({"age": ["", *map(str, range(1, 102))]})
    assert age_quantiles(ages) == (6.0, 51.0, 96.0, 101)
    assert age_quantiles(pd.DataFrame({"age": ["", ""]})) is None
