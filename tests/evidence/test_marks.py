"""The rule that says whether a method works: each mark alone is missed, and said."""

import pytest

from lib.evidence.marks import Redrawn, Yardstick, assess, has_critic, sentence

YARDSTICK = Yardstick(floor=140.0, components={16: Redrawn(residual=0.060, detail=0.3, frechet=1400.0)})
NOTHING = Yardstick(floor=None, components={})
GOOD = {
    **{"residual": 0.055, "detail": 0.5, "frechet": 900.0, "frechet_sample": 1000.0, "copied": 0.2},
    **{"kl_real": 100.0, "kl_reconstruction": 150.0, "kl_sample": 160.0},
}
MISSED = {
    "worse than 16 principal components": {"residual": 0.061},
    "less like radiographs": {"frechet": 1400.0},
    "hardly tells generated": {"kl_sample": 149.0},
    "it copies: 51 %": {"copied": 0.51},
}


def test_a_method_that_meets_every_mark_works():
    health = assess(GOOD, YARDSTICK, has_critic=True)
    assert (health.lacks, sentence("ra", health)) == ([], "ra meets every mark.")


@pytest.mark.parametrize("mark", MISSED)
def test_a_missed_mark_is_said(mark):
    (lack,) = assess(GOOD | MISSED[mark], YARDSTICK, has_critic=True).lacks
    assert mark in lack


def test_a_method_without_a_game_needs_no_critic():
    assert not assess(GOOD | {"kl_sample": 90.0}, YARDSTICK, has_critic=False).lacks


def test_without_a_backbone_or_components_the_other_marks_are_held():
    plain = {name: GOOD[name] for name in ("residual", "detail", "copied")}
    assert not assess(plain, NOTHING, has_critic=False).lacks
    assert len(assess(plain | {"residual": 0.07, "copied": 0.9}, YARDSTICK, has_critic=False).lacks) == 2


def test_a_method_has_a_critic_if_it_has_rejected_anything():
    assert has_critic({"encoder/total": 1.0, "encoder/rejection": 0.1})
    assert not has_critic({"encoder/total": 1.0, "encoder/kl_real": 3.0})


def test_a_critic_whose_posterior_has_collapsed_tells_nothing_apart():
    collapsed = {"kl_real": 0.0, "kl_reconstruction": 0.0, "kl_sample": 0.0}
    health = assess(GOOD | collapsed, YARDSTICK, has_critic=True)
    assert health.kl_gap == 1 and "hardly tells" in health.lacks[0]
