"""Scoring: the same scores for every method, each from one image and the reference images alone."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
import pytest
import torch
from random_maps import APART, SIZE, closely, drawn, maps_of
from torch import nn

from lib.data.cache import Cache, CachedImages
from lib.data.decoding import encode
from lib.data.preparation import Preparation
from lib.methods.method import Method
from lib.methods.ra import ReversedAutoencoder
from lib.methods.unet import UNetAutoencoder
from lib.scores.maps import MAPS, POOLS, Distance
from lib.scores.scoring import PRIMARY, Moments, own_scores, reconstruct, reconstructed, residuals, score_images

METHODS = {"unet": lambda: UNetAutoencoder([4, 8]), "ra": lambda: ReversedAutoencoder(16, [4, 8], 8)}
KINDS = [*MAPS, "apart", "clahe x apart"]


def scores_of(
    images: dict[str, np.ndarray],
    reconstructions: dict[str, np.ndarray],
    distances: dict[str, Distance],
    batch_size: int = 64,
) -> dict[str, dict[str, np.ndarray]]:
    """The scores of one method's reconstructions."""
    return score_images(images, {"one": reconstructions}, distances, batch_size)["one"].scores


@pytest.fixture(scope="module")
def images() -> dict[str, np.ndarray]:
    """At most six images per side; those with lesions are the reference images with a square."""
    sides = {"reference": drawn(6, 1), "lesions": drawn(6, 1), "validation": drawn(2, 2), "test": drawn(5, 3)}
    sides["lesions"][:, 4:9, 5:10] = 250
    return sides


@pytest.fixture(scope="module")
def reconstructions(images) -> dict[str, np.ndarray]:
    """Reconstructions that are wrong everywhere, by different amounts."""
    random = np.random.default_rng(4)
    return {
        side: (stack / 255 * random.uniform(0.6, 0.9, stack.shape)).astype(np.float32) for side, stack in images.items()
    }


@pytest.fixture(scope="module")
def scored(images, reconstructions) -> dict[str, dict[str, np.ndarray]]:
    return scores_of(images, reconstructions, {"apart": APART})


# Standardised maps


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
    found = moments_of(reference).standard()(torch.from_numpy(new)[:, None])
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found[:, 0], standardised(new, reference), rtol=1e-5, atol=1e-6)


def test_where_all_reference_images_agree_a_change_is_divided_by_the_floor(reference):
    new = np.full((1, 6, 7), 0.35)
    floor = 0.1 * np.sqrt(reference.var(axis=0).mean())
    found = moments_of(reference).standard()(torch.from_numpy(new)[:, None])[0, 0, :2, :2]
    np.testing.assert_allclose(found, 0.1 / floor, rtol=1e-5)


def test_a_reference_image_and_its_copy_are_standardised_by_the_other_images(reference):
    copies, own = reference + 0.05, torch.from_numpy(reference)[:, None]
    moments = moments_of(reference)
    for maps in (reference, copies):
        expected = [standardised(maps[i], np.delete(reference, i, axis=0)) for i in range(len(maps))]
        found = moments.standard(own)(torch.from_numpy(maps)[:, None])
        np.testing.assert_allclose(found[:, 0], expected, rtol=1e-5, atol=1e-5)


def test_where_all_images_agree_everywhere_rounding_does_not_weight_the_pixels():
    agreed = np.random.default_rng(0).random((4, 4)).astype(np.float32)
    moments = moments_of(np.repeat(agreed[None], 99, axis=0))  # so many that the sums are rounded
    found = moments.standard()(torch.from_numpy(agreed + np.float32(0.125))[None, None])
    np.testing.assert_allclose(found / found.mean(), 1, rtol=1e-3)


# Scores of images


def test_every_map_and_pool_gives_a_plain_and_a_standardised_score_per_image(scored, images):
    names = [f"{kind}, {pool}{form}" for kind in KINDS for form in ("", " standardised") for pool in POOLS]
    assert PRIMARY in names
    assert list(scored) == list(images)
    for side, scores in scored.items():
        assert list(scores) == names
        for values in scores.values():
            assert values.shape == (len(images[side]),) and values.dtype == np.float64
            assert np.isfinite(values).all()


def test_maps_and_scores_equal_their_definition_in_numpy(scored, images, reconstructions):
    maps = {side: maps_of(stack, reconstructions[side]) for side, stack in images.items()}
    for kind in KINDS:
        known = maps["reference"][kind]
        of_test = maps["test"][kind]
        np.testing.assert_allclose(scored["test"][f"{kind}, mean"], of_test.mean(axis=(1, 2)), rtol=1e-5)
        expected = np.percentile(standardised(of_test, known).reshape(5, -1), 99, axis=1)
        np.testing.assert_allclose(scored["test"][f"{kind}, p99 standardised"], expected, rtol=1e-4)
        for side in ("reference", "lesions"):
            expected = [standardised(maps[side][kind][i], np.delete(known, i, axis=0)).mean() for i in range(6)]
            found = scored[side][f"{kind}, mean standardised"]
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5, err_msg=side)


def test_the_primary_score_is_the_mean_absolute_residual(scored, images, reconstructions):
    for side, stack in images.items():
        expected = np.abs(stack / 255 - reconstructions[side]).mean(axis=(1, 2))
        np.testing.assert_allclose(scored[side][PRIMARY], expected, rtol=1e-5)


def test_a_perfect_reconstruction_scores_zero_by_every_map(images):
    perfect = {side: stack.astype(np.float32) / 255 for side, stack in images.items()}
    for scores in scores_of(images, perfect, {"apart": APART}).values():
        for name, values in scores.items():
            assert not values.any(), name  # the standardised ones too: no other image is better


def test_the_worst_reconstruction_scores_one():
    white, black = np.full((2, 8, 8), 255, np.uint8), np.zeros((2, 8, 8), np.float32)
    assert scores_of({"reference": white}, {"reference": black}, {})["reference"][PRIMARY].tolist() == [1, 1]


def test_a_painted_square_raises_the_score_of_its_image_alone(images, reconstructions, scored):
    painted = images["test"].copy()
    painted[2, 4:8, 9:12] = 255
    after = scores_of(images | {"test": painted}, reconstructions, {"apart": APART})["test"]
    for name, values in after.items():
        np.testing.assert_array_equal(np.delete(values, 2), np.delete(scored["test"][name], 2))
    assert after[PRIMARY][2] > scored["test"][PRIMARY][2]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_scores_do_not_depend_on_the_batch_size_with_an_uneven_last_batch(images, reconstructions, scored, batch_size):
    found = scores_of(images, reconstructions, {"apart": APART}, batch_size)
    for side in images:
        closely(found[side], scored[side])


def test_an_images_scores_do_not_depend_on_the_images_beside_it(images, reconstructions, scored):
    sides = {"reference": images["reference"], "alone": images["test"][3:4], "turned": images["test"][::-1]}
    theirs = {
        "reference": reconstructions["reference"],
        "alone": reconstructions["test"][3:4],
        "turned": reconstructions["test"][::-1].copy(),
    }
    found = scores_of(sides, theirs, {"apart": APART})
    closely(found["alone"], {name: values[3:4] for name, values in scored["test"].items()})
    closely(found["turned"], {name: values[::-1] for name, values in scored["test"].items()})


def test_methods_scored_together_have_the_scores_of_each_alone_and_an_image_is_described_once(images, reconstructions):
    seen = []
    counting = Distance(lambda images: seen.extend(images.amax(dim=(1, 2, 3))) or images, APART.between)
    darker = {side: stack / 2 for side, stack in reconstructions.items()}
    both = score_images(images, {"a": reconstructions, ("b", 3): darker}, {"apart": counting})
    assert list(both) == ["a", ("b", 3)]
    for key, of in zip(both, (reconstructions, darker), strict=True):
        for side, expected in scores_of(images, of, {"apart": APART}).items():
            closely(both[key].scores[side], expected, rtol=0)
    count = sum(len(stack) for stack in images.values()) + len(images["reference"])  # it is passed twice
    assert len(seen) == 2 * 3 * count  # before and after CLAHE: once the image, once each reconstruction


def test_a_reference_image_counts_in_the_standard_of_the_others_but_not_in_its_own(images):
    def by(shift: float) -> np.ndarray:
        reconstructions = (
            images["reference"] / 255 + np.random.default_rng(0).uniform(0.05, 0.1, (6, SIZE, SIZE))
        ).astype("f4")
        reconstructions[0] += shift
        sides = {"reference": images["reference"]}
        return scores_of(sides, {"reference": reconstructions}, {})["reference"]["residual, mean standardised"]

    none, once, twice = by(0), by(0.5), by(1)
    assert once[0] - none[0] > 10  # ten standard deviations of the others; of all six, it could not exceed 2.24
    assert twice[0] - once[0] == pytest.approx(once[0] - none[0], rel=1e-3)
    assert (np.abs(once - none)[1:] > 0.01).all()


def test_fewer_than_two_reference_images_are_refused(images, reconstructions):
    sides = {side: stack[:1] for side, stack in images.items()}
    with pytest.raises(ValueError, match=r"'reference': 1, .*at least 2 of reference.*more patients"):
        scores_of(sides, reconstructions, {})
    with pytest.raises(ValueError, match="at least 2 of reference"):
        scores_of({"test": images["test"]}, reconstructions, {})


def test_two_reference_images_suffice_and_a_lesion_raises_the_score():
    clean, lesions = np.full((2, SIZE, SIZE), 100, np.uint8), np.full((2, SIZE, SIZE), 100, np.uint8)
    lesions[:, 4:9, 5:10] = 250
    reconstructions = np.stack([np.full((SIZE, SIZE), grey, np.float32) for grey in (0.31, 0.33)])
    found = scores_of(
        {"reference": clean, "lesions": lesions}, {"reference": reconstructions, "lesions": reconstructions}, {}
    )
    assert all(np.isfinite(values).all() for scores in found.values() for values in scores.values())
    name = "residual, mean standardised"
    assert (found["lesions"][name] > found["reference"][name]).all()


def test_lesions_in_other_than_the_reference_images_are_refused(images, reconstructions):
    for lesions in (images["lesions"][:5], images["lesions"][:1]):
        with pytest.raises(ValueError, match=f"'lesions': {len(lesions)}.*as many lesions"):
            scores_of(images | {"lesions": lesions}, reconstructions, {})


def test_a_side_without_images_is_refused(images, reconstructions):
    with pytest.raises(ValueError, match=r"'validation': 0, .*expected some on each"):
        scores_of(images | {"validation": images["validation"][:0]}, reconstructions, {})


def test_residuals_of_memory_mapped_reconstructions_equal_their_definition(images, reconstructions, tmp_path):
    np.save(tmp_path / "reconstructions.npy", reconstructions["test"])
    found = residuals(images["test"], np.load(tmp_path / "reconstructions.npy", mmap_mode="r"))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.abs(images["test"] / 255 - reconstructions["test"]), atol=1e-6)


# Images of a cache


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


def test_cached_images_are_scored_like_arrays(tmp_path, reconstructions):
    cache = Cache(Listed(drawn(11, 7)), Preparation(SIZE), tmp_path)
    cache.fill()
    reconstructions = {side: reconstructions[side] for side in ("reference", "test")}
    sides = {
        "reference": CachedImages(cache, np.arange(10, 4, -1)),
        "test": CachedImages(cache, np.array([3, 0, 1, 2, 4])),
    }
    arrays = {side: np.asarray(stack) for side, stack in sides.items()}
    found, expected = (scores_of(stack, reconstructions, {"apart": APART}, batch_size=4) for stack in (sides, arrays))
    for side in sides:
        closely(found[side], expected[side], rtol=0)
    method = Stated()
    np.testing.assert_array_equal(reconstruct(method, sides["test"], 4), reconstruct(method, arrays["test"], 4))
    closely(own_scores(method, sides["test"], 4), own_scores(method, arrays["test"], 4), rtol=0)
    np.testing.assert_array_equal(
        residuals(sides["test"], reconstructions["test"]), residuals(arrays["test"], reconstructions["test"])
    )


# Methods


class Stated(Method):
    """Reconstructs half of each grey, scores brightness, and remembers its batches and their mode."""

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
def test_reconstructions_do_not_depend_on_the_batch_size(images, name):
    torch.manual_seed(0)
    method, reference = METHODS[name](), images["reference"]
    list(method.moves(torch.rand(4, 1, SIZE, SIZE)))  # running statistics that are not those of a new network
    together = reconstruct(method, reference, batch_size=64)
    assert together.dtype == np.float32 and together.shape == reference.shape
    assert together.min() >= 0 and together.max() <= 1
    for batch_size in (1, 4, 6):
        np.testing.assert_allclose(reconstruct(method, reference, batch_size), together, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_reconstruct_enters_evaluation_mode_and_changes_nothing_else(images, name):
    torch.manual_seed(0)
    method = METHODS[name]().train()
    before = {key: value.clone() for key, value in method.state_dict().items()}
    first = reconstruct(method, images["test"])
    assert not any(module.training for module in method.modules())
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())
    np.testing.assert_array_equal(reconstruct(method, images["test"]), first)


def test_every_image_is_seen_once_in_order_without_gradients(images):
    method, reference = Stated().train(), images["reference"]
    np.testing.assert_allclose(reconstruct(method, reference, batch_size=4), reference / 510, atol=1e-7)
    assert method.saw == [(4, False, False), (2, False, False)]


def test_a_method_that_draws_repeats_itself_and_leaves_torchs_generator_unchanged(images):
    method, reference = Drawing(), images["reference"]
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = reconstruct(method, reference, batch_size=4)
    assert torch.equal(torch.get_rng_state(), before)
    next(batches := reconstructed(method, reference, batch_size=4))
    assert torch.equal(torch.get_rng_state(), before)  # while more batches are to come
    batches.close()
    torch.manual_seed(6)
    np.testing.assert_array_equal(reconstruct(method, reference, batch_size=4), first)
    assert not np.array_equal(first[:2], first[4:])  # the second batch has a draw of its own


def test_own_scores_are_the_methods_by_name_one_number_per_image(images):
    method, reference = Stated().train(), images["reference"]
    found = own_scores(method, reference, batch_size=4)
    closely(found, {"mean": reference.mean(axis=(1, 2)) / 255, "highest": reference.max(axis=(1, 2)) / 255})
    assert all(values.dtype == np.float64 for values in found.values())
    assert method.saw == [(4, False, False), (2, False, False)]


def test_a_method_without_own_scores_has_none(images):
    assert own_scores(UNetAutoencoder([4, 8]), images["test"]) == {}


def test_ras_own_scores_are_finite_and_do_not_depend_on_the_batch_size(images):
    torch.manual_seed(0)
    method = METHODS["ra"]()
    found = own_scores(method, images["reference"])
    assert list(found) == ["kl", "embedding"] and all(np.isfinite(values).all() for values in found.values())
    closely(own_scores(method, images["reference"], 4), found, rtol=1e-4)
