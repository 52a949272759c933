"""Promises of `lib.evidence.wording`: the same number reads the same everywhere, and zero is named if it is inside."""

from example_results import difference

from lib.evidence.results import Estimate
from lib.evidence.wording import difference_text, estimate_text, percent


def test_a_rate_reads_the_same_whichever_way_it_was_computed():
    assert percent(3 / 120) == percent(1 - 117 / 120) == "2 %"


def test_an_estimate_is_its_value_and_interval_and_a_dash_stands_for_none():
    assert estimate_text(Estimate(0.7126, 0.61, 0.8)) == "0.713 [0.61, 0.80]"
    assert estimate_text(Estimate(0.01, -0.1, 0.1), signed=True) == "+0.010 [-0.10, +0.10]"
    assert estimate_text(None) == "–"


def test_a_difference_is_called_shown_only_if_its_interval_excludes_zero():
    shown = difference("unet", "ra", -0.2, -0.25, -0.15)
    assert difference_text(shown) == "AUROC unet − ra = -0.200 [-0.25, -0.15]: the interval excludes zero"
    for low, high in ((-0.25, 0.0), (-0.25, 0.1), (0.0, 0.1)):
        assert difference_text(difference("a", "b", 0.0, low, high)).endswith(": no difference shown")


def test_a_share_just_below_nothing_has_no_minus_sign():
    assert percent(-0.001) == "0 %" and percent(-0.02) == "-2 %"
