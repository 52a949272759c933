"""Words -> the settings of each run of a sweep."""

import itertools

import numpy as np
import pytest

from lib.runs.grid import GridError, grid, names, read_grid


def test_every_value_of_one_setting_meets_every_value_of_the_others():
    found = grid({"seed": "0..2", "ra_beta_neg": "64,128", "epochs": "5"})
    assert [tuple(one.values()) for one in found] == list(itertools.product("012", ["64", "128"], ["5"]))
    assert {tuple(one) for one in found} == {("seed", "ra_beta_neg", "epochs")}


def test_lists_are_told_apart_by_their_brackets_and_a_path_keeps_its_commas():
    found = grid({"methods": "[unet, ra],[vae]", "data_dir": "/films, old/x"})
    assert [one["methods"] for one in found] == ["[unet, ra]", "[vae]"]
    assert {one["data_dir"] for one in found} == {"/films, old/x"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linear:0:0.1:5", [0, 0.025, 0.05, 0.075, 0.1]),
        ("log:1e-4:1e-2:5", [1e-4, 10**-3.5, 1e-3, 10**-2.5, 1e-2]),
    ],
)
def test_numbers_between_two_bounds_have_equal_steps_or_equal_factors(text, expected):
    found = [float(one["learning_rate"]) for one in grid({"learning_rate": text})]
    assert found == pytest.approx(expected, rel=1e-3)


def test_a_whole_number_is_given_to_a_setting_that_wants_one():
    assert [one["batch_size"] for one in grid({"batch_size": "log:4:64:3"})] == ["4", "16", "64"]


def test_draws_are_uniform_or_so_in_their_logarithm_and_equal_for_equal_seeds():
    words = {"augmentation": "uniform:0:0.5", "learning_rate": "loguniform:1e-4:1e-2"}
    found = grid(words, draws=2000, draw_seed=1)
    assert found == grid(words, draws=2000, draw_seed=1) != grid(words, draws=2000, draw_seed=2)
    uniform = np.array([float(one["augmentation"]) for one in found])
    logarithm = np.log10([float(one["learning_rate"]) for one in found])
    for values, low, high in ((uniform, 0, 0.5), (logarithm, -4, -2)):
        assert low <= values.min() and values.max() <= high
        assert np.mean(values) == pytest.approx((low + high) / 2, abs=0.02 * (high - low))


def test_each_draw_meets_every_value_of_the_rest():
    found = grid({"seed": "0..2", "learning_rate": "loguniform:1e-4:1e-2"}, draws=4)
    assert len(found) == 12 and len({one["learning_rate"] for one in found}) == 4


@pytest.mark.parametrize(
    ("words", "draws", "says"),
    [
        ({"seed": "4..0"}, 0, "the lowest first"),
        ({"seed": "0,1,0"}, 0, "twice"),
        ({"learning_rate": "log:0:1:3"}, 0, "above 0"),
        ({"learning_rate": "log:1e-2:1e-4:3"}, 0, "FIRST:LAST:COUNT"),
        ({"learning_rate": "linear:0:1"}, 0, "FIRST:LAST:COUNT"),
        ({"learning_rate": "linear:0:1:2.5"}, 0, "COUNT is 2.5"),
        ({"learning_rate": "uniform:a:b"}, 3, "LOWEST:HIGHEST"),
        ({"learning_rate": "uniform:0:1"}, 0, "--draws"),
        ({"seed": "0..3"}, 5, "nothing to draw"),
        ({"seed": "0..999", "epochs": "1..999"}, 0, "999,000 runs"),
        ({"batch_size": "linear:4:5:4"}, 0, "twice"),
    ],
)
def test_what_names_no_runs_is_refused_with_what_was_wanted(words, draws, says):
    with pytest.raises(GridError, match=says):
        grid(words, draws)


def test_a_grid_file_gives_the_same_runs_as_the_words(tmp_path):
    file = tmp_path / "grid.yaml"
    file.write_text("seed: 0..2\nmethods: [[unet], [ra]]\nlearning_rate: log:1e-4:1e-2:3\nepochs: 5\n")
    words = {"seed": "0..2", "methods": '["unet"],["ra"]', "learning_rate": "log:1e-4:1e-2:3", "epochs": "5"}
    assert grid(read_grid(file)) == grid(words)


@pytest.mark.parametrize(
    ("text", "says"),
    [("", "no settings"), ("seed: []", "no values"), ("seed: [0\n", "grid.yaml:"), ("- 1", "expected")],
)
def test_a_grid_file_without_settings_is_refused(tmp_path, text, says):
    file = tmp_path / "grid.yaml"
    file.write_text(text)
    with pytest.raises(GridError, match=says):
        read_grid(file)


def test_runs_have_different_names_that_are_folders_and_say_what_differs():
    runs = grid({"seed": "0..1", "methods": "[unet, ra],[vae]", "epochs": "5"})
    assert names(runs)[0] == "seed=0,methods=unet-ra"
    long = grid({"widths": ",".join(f"[{', '.join(['8'] * n)}]" for n in range(1, 60))})
    found = names([*runs, *({"seed": "0", "methods": one["widths"], "epochs": "5"} for one in long)])
    assert len(set(found)) == len(found)
    assert all(len(name) <= 100 and "/" not in name and " " not in name for name in found)


def test_names_that_would_be_equal_are_told_apart():
    found = names(grid({"data_dir": "/a/b"}) + grid({"data_dir": "/a-b"}))
    assert len(set(found)) == 2
