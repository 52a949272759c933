"""Promises of `lib.scoring`: the same maps and scores for every method, each of one film and a reference alone."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from skimage.exposure import equalize_adapthist
from torch import nn

from lib.cache import Cache, Films, Preparation
from lib.decoding import encode
from lib.method import Method
from lib.ra import ReversedAutoencoder
from lib.scoring import (
    POOLS,
    PRIMARY,
    Distance,
    Moments,
    anomaly_maps,
    describe,
    feature_distance,
    own_scores,
    reconstruct,
    residual_map,
    residuals,
    score_films,
)
from lib.unet import UNetAutoencoder

METHODS = {"unet": lambda: UNetAutoencoder([4, 8]), "ra": lambda: ReversedAutoencoder(16, [4, 8], 8)}
MAPS = ["residual", "squared", "ssim", "clahe", "apart", "clahe x apart"]
SIZE = 16


APART = Distance(lambda images: images, lambda images, others: 2 * (images - others).abs().sqrt())
"""In the place of a distance in features."""


def maps_between(images: torch.Tensor, made: torch.Tensor, distances: dict[str, Distance]) -> dict[str, torch.Tensor]:
    return anomaly_maps(describe(images, distances), describe(made, distances), distances)


def scores_of(
    films: dict[str, np.ndarray], made: dict[str, np.ndarray], distances: dict[str, Distance], batch_size: int = 64
) -> dict[str, dict[str, np.ndarray]]:
    """The scores of one method's reconstructions."""
    return score_films(films, {"one": made}, distances, batch_size)["one"]


def drawn(count: int, seed: int, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(30, 226, (count, size, size)).astype(np.uint8)


@pytest.fixture(scope="module")
def films() -> dict[str, np.ndarray]:
    """Six or fewer films a side; those with lesions are the reference's with a square."""
    sides = {"reference": drawn(6, 1), "lesions": drawn(6, 1), "validation": drawn(2, 2), "test": drawn(5, 3)}
    sides["lesions"][:, 4:9, 5:10] = 250
    return sides


@pytest.fixture(scope="module")
def made(films) -> dict[str, np.ndarray]:
    """Reconstructions that are wrong everywhere, and not by as much."""
    random = np.random.default_rng(4)
    return {
        side: (some / 255 * random.uniform(0.6, 0.9, some.shape)).astype(np.float32) for side, some in films.items()
    }


@pytest.fixture(scope="module")
def scored(films, made) -> dict[str, dict[str, np.ndarray]]:
    return scores_of(films, made, {"apart": APART})


def maps_of(films: np.ndarray, made: np.ndarray) -> dict[str, np.ndarray]:
    """The maps of uint8 films, (n, height, width)."""
    images = torch.from_numpy(films)[:, None].float() / 255
    maps = maps_between(images, torch.from_numpy(made)[:, None], {"apart": APART})
    return {name: one[:, 0].numpy() for name, one in maps.items()}


def closely(found: dict, expected: dict, rtol: float = 1e-5) -> None:
    assert list(found) == list(expected)
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], rtol=rtol, atol=1e-7, err_msg=name)


# Maps


def test_the_residual_is_the_absolute_difference_and_the_squared_map_its_square(films, made):
    difference = films["test"] / 255 - made["test"]
    maps = maps_of(films["test"], made["test"])
    np.testing.assert_allclose(maps["residual"], np.abs(difference), atol=1e-6)
    np.testing.assert_allclose(maps["squared"], difference**2, atol=1e-6)


def test_dissimilarity_is_one_minus_ssim_in_a_window_of_seven(films, made):
    x, r = films["test"][4] / 255, made["test"][4].astype(float)
    window, other = x[5:12, 3:10].ravel(), r[5:12, 3:10].ravel()
    (xx, xr), (_, rr) = np.cov(window, other)
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * window.mean() * other.mean() + c1) * (2 * xr + c2)
    similarity /= (window.mean() ** 2 + other.mean() ** 2 + c1) * (xx + rr + c2)
    assert maps_of(films["test"], made["test"])["ssim"][4, 8, 6] == pytest.approx(1 - similarity, rel=1e-4)


def test_the_clahe_map_is_the_residual_after_both_were_equalised(films, made):
    pairs = zip(films["test"] / 255, made["test"], strict=True)
    expected = [np.abs(equalize_adapthist(x) - equalize_adapthist(r)) for x, r in pairs]
    np.testing.assert_allclose(maps_of(films["test"], made["test"])["clahe"], expected, atol=1e-4)


def smoothed(image: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian of four sigma, mirrored at the border: its weights written down and summed."""
    radius = int(4 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    padded = np.pad(image, radius, mode="symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * radius + 1, 2 * radius + 1))
    return np.einsum("ijkl,k,l", windows, weights, weights) / weights.sum() ** 2


def test_the_product_is_the_clahe_map_times_the_smoothed_distances_before_and_after_clahe():
    size = 64  # where sigma is a pixel
    film, made = drawn(1, 5, size)[0] / 255, drawn(1, 6, size)[0] / 255
    x, r = equalize_adapthist(film), equalize_adapthist(made)
    before, after = (2 * np.sqrt(np.abs(a - b)) for a, b in ((film, made), (x, r)))
    expected = np.abs(x - r) * smoothed(before, size / 64) * smoothed(after, size / 64)
    images = [torch.from_numpy(one).float()[None, None] for one in (film, made)]
    found = maps_between(*images, {"apart": APART})
    np.testing.assert_allclose(found["clahe x apart"][0, 0], expected, rtol=0.01, atol=1e-4)
    np.testing.assert_allclose(found["apart"][0, 0], before, rtol=1e-3, atol=1e-4)


def test_the_product_with_lpips_has_the_name_of_ras_own_score():
    images = torch.rand(2, 1, SIZE, SIZE)
    both = maps_between(images, images.flip(0), {"lpips": APART, "apart": APART})
    assert list(both) == ["residual", "squared", "ssim", "clahe", "lpips", "ra-map", "apart", "clahe x apart"]
    assert torch.equal(both["ra-map"], both["clahe x apart"])


def test_a_distance_in_features_is_the_same_for_a_film_alone_as_among_more_than_fit_a_pass():
    def features(images):
        return [torch.cat([images, images**2], dim=1), F.avg_pool2d(torch.cat([images, 1 - images], dim=1), 4)]

    a, b = torch.rand(2, 19, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    of = feature_distance(features, torch.device("cpu"))

    def distance(images, others):
        return of.between(of.features(images), of.features(others))

    together = distance(a, b)
    assert together.shape == a.shape and together.min() > 0
    torch.testing.assert_close(together, torch.cat([distance(a[i : i + 1], b[i : i + 1]) for i in range(19)]))


def test_darker_and_brighter_than_expected_count_the_same():
    images, made = torch.tensor([[[[0.25]]], [[[0.75]]]]), torch.full((2, 1, 1, 1), 0.5)
    assert residual_map(images, made).flatten().tolist() == [0.25, 0.25]


def test_a_painted_square_raises_every_map_there():
    size = 32
    clean = np.broadcast_to(np.linspace(60, 140, size), (3, size, size)).round().astype(np.uint8)
    clean[:, 0, :2] = 0, 255  # the greys' range is the same with the square, or CLAHE would stretch all others anew
    painted, square = clean.copy(), np.zeros(clean.shape, dtype=bool)
    square[:, 8:16, 20:28] = True
    painted[square] = 240
    for name, maps in maps_of(painted, (clean / 255).astype(np.float32)).items():
        assert maps[square].min() > 0, name
        assert maps[square].mean() > 2 * maps[~square].mean(), name


def test_residuals_of_a_file_of_reconstructions_are_their_definition(films, made, tmp_path):
    np.save(tmp_path / "made.npy", made["test"])
    found = residuals(films["test"], np.load(tmp_path / "made.npy", mmap_mode="r"))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.abs(films["test"] / 255 - made["test"]), atol=1e-6)


# Pools and standardised maps


def test_the_pools_are_the_mean_the_99th_percentile_and_the_mean_of_the_highest_five_percent():
    maps = np.random.default_rng(0).gamma(2, size=(5, 20, 30)).astype(np.float32)
    pixels = np.sort(maps.reshape(5, -1))
    expected = {
        "mean": pixels.mean(axis=1),
        "p99": np.percentile(pixels, 99, axis=1),
        "top 5 %": pixels[:, -30:].mean(axis=1),
    }
    closely({name: pool(torch.from_numpy(maps)[:, None]).numpy() for name, pool in POOLS.items()}, expected)


def standardised(maps: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The definition: minus the mean, over the standard deviation or a tenth of its root mean square, if that is more.

    `maps` are (n, height, width) or one, and `reference` (k, height, width).
    """
    deviation = reference.std(axis=0)
    return (maps - reference.mean(axis=0)) / np.maximum(deviation, 0.1 * np.sqrt(np.mean(deviation**2)))


@pytest.fixture
def reference() -> np.ndarray:
    """Maps, float64, with a corner where all agree."""
    maps = np.random.default_rng(0).gamma(2, 0.1, (11, 6, 7))
    maps[:, :2, :2] = 0.25
    return maps


def moments_of(maps: np.ndarray) -> Moments:
    moments = Moments()
    for start in range(0, len(maps), 4):
        moments.add(torch.from_numpy(maps[start : start + 4])[:, None])
    return moments


def test_standardised_is_minus_the_mean_over_the_standard_deviation_with_its_floor(reference):
    new = np.random.default_rng(1).gamma(2, 0.1, (3, 6, 7))
    found = moments_of(reference).standardise(torch.from_numpy(new)[:, None])
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found[:, 0], standardised(new, reference), rtol=1e-5, atol=1e-6)


def test_where_all_reference_films_agree_a_change_counts_by_the_floor(reference):
    new = np.full((1, 6, 7), 0.35)
    floor = 0.1 * np.sqrt(reference.var(axis=0).mean())
    found = moments_of(reference).standardise(torch.from_numpy(new)[:, None])[0, 0, :2, :2]
    np.testing.assert_allclose(found, 0.1 / floor, rtol=1e-5)


def test_a_film_of_the_reference_and_its_copy_are_standardised_by_the_others(reference):
    copies, own = reference + 0.05, torch.from_numpy(reference)[:, None]
    moments = moments_of(reference)
    for maps in (reference, copies):
        expected = [standardised(maps[i], np.delete(reference, i, axis=0)) for i in range(len(maps))]
        found = moments.standardise(torch.from_numpy(maps)[:, None], own)
        np.testing.assert_allclose(found[:, 0], expected, rtol=1e-5, atol=1e-5)


def test_where_all_films_agree_everywhere_rounding_does_not_weigh_the_pixels():
    agreed = np.random.default_rng(0).random((4, 4)).astype(np.float32)
    moments = moments_of(np.repeat(agreed[None], 99, axis=0))  # so many that the sums are rounded
    found = moments.standardise(torch.from_numpy(agreed + np.float32(0.125))[None, None])
    np.testing.assert_allclose(found / found.mean(), 1, rtol=1e-3)


# Scores of films


def test_a_score_is_a_map_a_pool_and_a_form_one_number_a_film(scored, films):
    names = [f"{kind}, {pool}{form}" for kind in MAPS for form in ("", " standardised") for pool in POOLS]
    assert PRIMARY in names
    assert list(scored) == list(films)
    for side, scores in scored.items():
        assert list(scores) == names
        for values in scores.values():
            assert values.shape == (len(films[side]),) and values.dtype == np.float64
            assert np.isfinite(values).all()


def test_maps_and_scores_equal_their_definition_in_numpy(scored, films, made):
    maps = {side: maps_of(some, made[side]) for side, some in films.items()}
    for kind in MAPS:
        known = maps["reference"][kind]
        of_test = maps["test"][kind]
        np.testing.assert_allclose(scored["test"][f"{kind}, mean"], of_test.mean(axis=(1, 2)), rtol=1e-5)
        expected = np.percentile(standardised(of_test, known).reshape(5, -1), 99, axis=1)
        np.testing.assert_allclose(scored["test"][f"{kind}, p99 standardised"], expected, rtol=1e-4)
        for side in ("reference", "lesions"):
            expected = [standardised(maps[side][kind][i], np.delete(known, i, axis=0)).mean() for i in range(6)]
            found = scored[side][f"{kind}, mean standardised"]
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5, err_msg=side)


def test_the_primary_score_is_the_mean_absolute_residual(scored, films, made):
    for side, some in films.items():
        expected = np.abs(some / 255 - made[side]).mean(axis=(1, 2))
        np.testing.assert_allclose(scored[side][PRIMARY], expected, rtol=1e-5)


def test_a_perfect_reconstruction_scores_zero_by_every_map(films):
    perfect = {side: some.astype(np.float32) / 255 for side, some in films.items()}
    for scores in scores_of(films, perfect, {"apart": APART}).values():
        for name, values in scores.items():
            assert not values.any(), name  # the standardised ones too: no other film is better


def test_the_worst_reconstruction_scores_one():
    white, black = np.full((2, 8, 8), 255, np.uint8), np.zeros((2, 8, 8), np.float32)
    assert scores_of({"reference": white}, {"reference": black}, {})["reference"][PRIMARY].tolist() == [1, 1]


def test_a_painted_square_raises_the_score_of_its_film_alone(films, made, scored):
    painted = films["test"].copy()
    painted[2, 4:8, 9:12] = 255
    after = scores_of(films | {"test": painted}, made, {"apart": APART})["test"]
    for name, values in after.items():
        np.testing.assert_array_equal(np.delete(values, 2), np.delete(scored["test"][name], 2))
    assert after[PRIMARY][2] > scored["test"][PRIMARY][2]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_scores_do_not_depend_on_the_batch_size_with_an_uneven_last_batch(films, made, scored, batch_size):
    found = scores_of(films, made, {"apart": APART}, batch_size)
    for side in films:
        closely(found[side], scored[side])


def test_a_films_scores_do_not_depend_on_the_films_beside_it(films, made, scored):
    sides = {"reference": films["reference"], "alone": films["test"][3:4], "turned": films["test"][::-1]}
    theirs = {"reference": made["reference"], "alone": made["test"][3:4], "turned": made["test"][::-1].copy()}
    found = scores_of(sides, theirs, {"apart": APART})
    closely(found["alone"], {name: values[3:4] for name, values in scored["test"].items()})
    closely(found["turned"], {name: values[::-1] for name, values in scored["test"].items()})


def test_several_methods_scored_at_once_have_the_scores_that_each_has_alone_and_a_film_is_described_once(films, made):
    seen = []
    counting = Distance(lambda images: seen.extend(images.amax(dim=(1, 2, 3))) or images, APART.between)
    darker = {side: some / 2 for side, some in made.items()}
    both = score_films(films, {"a": made, ("b", 3): darker}, {"apart": counting})
    assert list(both) == ["a", ("b", 3)]
    for key, of in zip(both, (made, darker), strict=True):
        for side, expected in scores_of(films, of, {"apart": APART}).items():
            closely(both[key][side], expected, rtol=0)
    count = sum(len(some) for some in films.values()) + len(films["reference"])  # it is passed twice
    assert len(seen) == 2 * 3 * count  # before and after CLAHE: once the film, once each reconstruction


def test_a_reference_film_is_no_part_of_its_own_standard_but_of_the_others(films):
    def by(shift: float) -> np.ndarray:
        made = (films["reference"] / 255 + np.random.default_rng(0).uniform(0.05, 0.1, (6, SIZE, SIZE))).astype("f4")
        made[0] += shift
        sides = {"reference": films["reference"]}
        return scores_of(sides, {"reference": made}, {})["reference"]["residual, mean standardised"]

    none, once, twice = by(0), by(0.5), by(1)
    assert once[0] - none[0] > 10  # ten standard deviations of the others; of all six, it could not exceed 2.24
    assert twice[0] - once[0] == pytest.approx(once[0] - none[0], rel=1e-3)
    assert (np.abs(once - none)[1:] > 0.01).all()


def test_one_film_gives_no_standard_and_the_error_says_what_is_wanted(films, made):
    sides = {side: some[:1] for side, some in films.items()}
    with pytest.raises(ValueError, match=r"'reference': 1, .*at least 2 of reference.*more patients"):
        scores_of(sides, made, {})
    with pytest.raises(ValueError, match="at least 2 of reference"):
        scores_of({"test": films["test"]}, made, {})


def test_two_reference_films_give_finite_scores_and_a_film_with_a_lesion_a_higher_one():
    clean, lesions = np.full((2, SIZE, SIZE), 100, np.uint8), np.full((2, SIZE, SIZE), 100, np.uint8)
    lesions[:, 4:9, 5:10] = 250
    made = np.stack([np.full((SIZE, SIZE), grey, np.float32) for grey in (0.31, 0.33)])
    found = scores_of({"reference": clean, "lesions": lesions}, {"reference": made, "lesions": made}, {})
    assert all(np.isfinite(values).all() for scores in found.values() for values in scores.values())
    name = "residual, mean standardised"
    assert (found["lesions"][name] > found["reference"][name]).all()


def test_lesions_in_other_than_the_reference_films_are_refused(films, made):
    for lesions in (films["lesions"][:5], films["lesions"][:1]):
        with pytest.raises(ValueError, match=f"'lesions': {len(lesions)}.*as many lesions"):
            scores_of(films | {"lesions": lesions}, made, {})


def test_a_side_without_films_is_refused(films, made):
    with pytest.raises(ValueError, match=r"'validation': 0, .*expected some on each"):
        scores_of(films | {"validation": films["validation"][:0]}, made, {})


# Films of a cache


class Listed:
    """A source in memory."""

    synthetic, about, problems, name = True, {}, [], "listed-1"

    def __init__(self, images: Sequence[np.ndarray]) -> None:
        self.images = {f"i{i}": encode(image) for i, image in enumerate(images)}
        self.records = pd.DataFrame({"id": list(self.images)})

    def contents(self, ids: Sequence[str]) -> Iterator[tuple[str, Callable[[], bytes]]]:
        for image_id in ids:
            yield image_id, lambda i=image_id: self.images[i]

    def mask(self, image_id: str) -> None:
        return None


def test_films_of_a_cache_are_scored_like_an_array_of_them(tmp_path, made):
    cache = Cache(Listed(drawn(11, 7)), Preparation(SIZE), tmp_path)
    cache.fill()
    made = {side: made[side] for side in ("reference", "test")}
    sides = {"reference": Films(cache, np.arange(10, 4, -1)), "test": Films(cache, np.array([3, 0, 1, 2, 4]))}
    arrays = {side: np.asarray(some) for side, some in sides.items()}
    found, expected = (scores_of(some, made, {"apart": APART}, batch_size=4) for some in (sides, arrays))
    for side in sides:
        closely(found[side], expected[side], rtol=0)
    method = Stated()
    np.testing.assert_array_equal(reconstruct(method, sides["test"], 4), reconstruct(method, arrays["test"], 4))
    closely(own_scores(method, sides["test"], 4), own_scores(method, arrays["test"], 4), rtol=0)
    np.testing.assert_array_equal(residuals(sides["test"], made["test"]), residuals(arrays["test"], made["test"]))


# Methods


class Stated(Method):
    """Gives back half of what it sees, says how bright it was, and remembers the batches and in which mode."""

    def __init__(self) -> None:
        super().__init__()
        self.grey, self.saw = nn.Conv2d(1, 1, 1, bias=False), []
        nn.init.constant_(self.grey.weight, 0.5)

    def moves(self, images, epoch=0):
        return iter(())  # it is never trained

    def reconstruct(self, images):
        self.saw.append((len(images), self.training, torch.is_grad_enabled()))
        return self.grey(images)

    def own_scores(self, images):
        self.saw.append((len(images), self.training, torch.is_grad_enabled()))
        return {"mean": images.mean(dim=(1, 2, 3)), "highest": images.amax(dim=(1, 2, 3))}


class Drawing(Stated):
    """Breaks the contract: its reconstruction is drawn."""

    def reconstruct(self, images):
        return torch.rand_like(images)


@pytest.mark.parametrize("name", METHODS)
def test_reconstructions_do_not_depend_on_the_batch_size(films, name):
    torch.manual_seed(0)
    method, images = METHODS[name](), films["reference"]
    list(method.moves(torch.rand(4, 1, SIZE, SIZE)))  # running statistics that are not those of a new network
    together = reconstruct(method, images, batch_size=64)
    assert together.dtype == np.float32 and together.shape == images.shape
    assert together.min() >= 0 and together.max() <= 1
    for batch_size in (1, 4, 6):
        np.testing.assert_allclose(reconstruct(method, images, batch_size), together, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_reconstruct_puts_the_method_in_evaluation_mode_and_leaves_it_as_it_was_otherwise(films, name):
    torch.manual_seed(0)
    method = METHODS[name]().train()
    before = {key: value.clone() for key, value in method.state_dict().items()}
    first = reconstruct(method, films["test"])
    assert not any(module.training for module in method.modules())
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())
    np.testing.assert_array_equal(reconstruct(method, films["test"]), first)


def test_every_image_is_seen_once_in_order_without_gradients(films):
    method, images = Stated().train(), films["reference"]
    np.testing.assert_allclose(reconstruct(method, images, batch_size=4), images / 510, atol=1e-7)
    assert method.saw == [(4, False, False), (2, False, False)]


def test_a_method_that_draws_gives_the_same_again_and_leaves_torchs_generator_alone(films):
    method, images = Drawing(), films["reference"]
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = reconstruct(method, images, batch_size=4)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    np.testing.assert_array_equal(reconstruct(method, images, batch_size=4), first)
    assert not np.array_equal(first[:2], first[4:])  # the second batch has a draw of its own


def test_own_scores_are_the_methods_by_name_one_number_a_film(films):
    method, images = Stated().train(), films["reference"]
    found = own_scores(method, images, batch_size=4)
    closely(found, {"mean": images.mean(axis=(1, 2)) / 255, "highest": images.max(axis=(1, 2)) / 255})
    assert all(values.dtype == np.float64 for values in found.values())
    assert method.saw == [(4, False, False), (2, False, False)]


def test_a_method_that_has_nothing_of_its_own_to_say_has_no_own_scores(films):
    assert own_scores(UNetAutoencoder([4, 8]), films["test"]) == {}


def test_ras_own_scores_are_finite_and_do_not_depend_on_the_batch_size(films):
    torch.manual_seed(0)
    method = METHODS["ra"]()
    found = own_scores(method, films["reference"])
    assert list(found) == ["kl", "embedding"] and all(np.isfinite(values).all() for values in found.values())
    closely(own_scores(method, films["reference"], 4), found, rtol=1e-4)
