"""Benchmarks measure in turns, and their references compute what they stand for."""

import numpy as np
import pytest

from benchmarks import __main__ as benchmarks
from benchmarks.evidence import aupro
from benchmarks.measuring import Figure, compared, in_turns
from benchmarks.step import EPOCH, SETTINGS, params_of
from lib.evidence.localisation import pixel_metrics
from lib.evidence.masks import Lesions
from lib.methods.variants import VARIANTS


def test_calls_take_turns_and_the_first_lap_is_not_counted():
    called = []
    seconds = in_turns({name: lambda name=name: called.append(name) for name in "AB"}, 3, "")
    assert called == ["A", "B"] * 4
    assert {name: len(laps) for name, laps in seconds.items()} == {"A": 3, "B": 3}


def test_a_figure_is_an_amount_a_second_and_its_ratio_the_median_over_the_laps():
    seconds = {"ours": [1.0, 2.0, 4.0], "theirs": [3.0, 4.0, 4.0]}
    figure = compared("part", "what", seconds, own="ours", reference="theirs", amount=10, unit="images/s")
    assert figure == Figure("part", "what", 5.0, "images/s", "theirs", 2.0, 1.0, 3.0)
    assert "2.00 [1.00, 3.00]" in benchmarks.table([figure])


def test_the_step_that_is_timed_is_of_the_game_for_ra_and_before_it_for_a_vae():
    params = params_of(SETTINGS[0])
    warmup = {name: VARIANTS[name](params).weights.warmup for name in ("ra", "vae")}
    assert warmup["ra"] <= EPOCH < warmup["vae"]


def test_the_loop_over_thresholds_finds_the_overlap_of_regions_that_ranks_give():
    random = np.random.default_rng(0)
    masks = np.zeros((8, 32, 32), dtype=bool)
    masks[0, 2:8, 2:8] = masks[1, 20:30, 3:9] = masks[1, 4:6, 20:30] = masks[2, 10:20, 10:20] = True
    maps = random.normal(size=masks.shape).astype(np.float32) + masks
    ranks = pixel_metrics(maps, Lesions(masks, None))
    assert aupro(maps, masks, 2000) == pytest.approx(ranks.aupro, abs=0.005)
