"""The lesions that a source marks: their sizes by finding."""

import numpy as np
import pandas as pd
import pytest

from lib.data.lesions import LesionMasks, areas_by_finding


def mask(pixels: int) -> np.ndarray:
    return (np.arange(100) < pixels).reshape(10, 10)


def test_the_area_of_a_finding_is_the_median_of_its_marked_images_and_unmarked_ones_do_not_count():
    lesions = LesionMasks([("a", mask(10)), ("b", mask(30)), ("c", mask(32)), ("d", mask(50)), ("e", mask(0))])
    records = pd.DataFrame({"id": list("abcdefg"), "finding": ["mass"] * 3 + ["fluid"] * 2 + ["mass", ""]})
    assert areas_by_finding(lesions, records) == pytest.approx({"mass": 0.3, "fluid": 0.5})


def test_without_marked_lesions_no_finding_has_an_area():
    assert areas_by_finding(LesionMasks([]), pd.DataFrame({"id": ["a"], "finding": ["mass"]})) == {}
