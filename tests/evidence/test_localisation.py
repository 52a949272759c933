"""Promises of `lib.evidence.localisation`.

Against scikit-learn on pooled pixels and brute force over every threshold.
"""

import numpy as np
import pandas as pd
import pytest
from drawn import Drawn, bytes_an_image
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from lib.data.lesions import load_masks
from lib.data.preparation import Preparation
from lib.data.sources import FolderSource
from lib.evidence.localisation import PRIOR, localise, replicates
from lib.evidence.masks import Lesions, LocationPrior, lungs_template, marked_and_normal
from lib.evidence.results import Estimate, Localisation, Located

SIZE = 12


def pairs(n: int = 8, seed: int = 0, levels: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Maps with ties, somewhat higher inside lesions, and masks of one or two boxes each, every fourth without."""
    random = np.random.default_rng(seed)
    masks = np.zeros((n, SIZE, SIZE), dtype=bool)
    for i, mask in enumerate(masks):
        for _ in range(random.integers(1, 3) if i % 4 else 0):
            y, x = random.integers(0, SIZE - 4, 2)
            mask[y : y + random.integers(2, 5), x : x + random.integers(2, 5)] = True
    return (random.integers(0, levels, masks.shape) + 8 * masks).astype(np.float32), masks


def images(n: int = 24, seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Two methods' maps, masks, and two images a patient."""
    random = np.random.default_rng(seed)
    maps, masks = pairs(n, seed)
    return {"a": maps, "b": random.random(masks.shape)}, masks, np.array([f"p{i // 2}" for i in range(n)])


def pixel_metrics(maps: np.ndarray, masks: np.ndarray, region: str = "whole image") -> Located:
    """The metrics of one map in a region; a single patient's have no margins."""
    return localise({"map": maps}, masks, ["p"] * len(masks), resamples=1).regions[region]["map"]


def brute_force(maps: np.ndarray, masks: np.ndarray) -> tuple[float, float]:
    """AUPRO by the trapezoid rule over the thresholds, clipped at 0.3, and the best Dice over them."""
    regions = []
    for i, mask in enumerate(masks):  # flood fill, corners connect
        left = {tuple(place) for place in np.argwhere(mask)}
        while left:
            region, edge = set(), [left.pop()]
            while edge:
                y, x = edge.pop()
                region.add((i, y, x))
                near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
                left -= near
                edge += near
            regions.append(tuple(np.array(sorted(region)).T))
    rates, overlaps, dice = [0.0], [0.0], []
    for threshold in np.unique(maps)[::-1]:
        called = maps >= threshold
        rates.append(called[~masks].mean())
        overlaps.append(np.mean([called[region].mean() for region in regions]))
        dice.append(2 * (called & masks).sum() / (called.sum() + masks.sum()))
    steps = zip(rates[:-1], rates[1:], overlaps[:-1], overlaps[1:], strict=True)
    area = 0.0
    for before, after, low, high in steps:
        if before < 0.3:
            end = min(after, 0.3)
            reached = low + (high - low) * (end - before) / (after - before) if after > before else high
            area += (end - before) * (low + reached) / 2
    return area / 0.3, max(dice)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("levels", [3, 40, 100_000])
def test_auroc_and_average_precision_are_scikit_learns_over_the_pooled_pixels(seed, levels):
    maps, masks = pairs(seed=seed, levels=levels)
    found = pixel_metrics(maps, masks)
    assert found.auroc == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-12)
    expected = average_precision_score(masks.ravel(), maps.ravel())
    assert found.average_precision == pytest.approx(expected, abs=1e-12)
    assert found.prevalence == masks.mean()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("levels", [3, 40, 100_000])
def test_region_overlap_and_the_best_dice_are_those_of_a_walk_over_every_threshold(seed, levels):
    maps, masks = pairs(seed=seed, levels=levels)
    found = pixel_metrics(maps, masks)
    assert (found.aupro, found.best_dice) == pytest.approx(brute_force(maps, masks), abs=1e-9)


def test_a_small_region_counts_as_much_as_a_large_one_and_regions_end_at_their_image():
    masks = np.zeros((2, SIZE, SIZE), dtype=bool)
    masks[0, :4, :4] = masks[0, 8, 8] = True
    found = np.zeros(masks.shape)
    found[0, :4, :4] = 1  # the large one alone; then every pixel at once
    assert pixel_metrics(found, masks).aupro == pytest.approx((1 + 0.15) / 2)
    masks[1, :4, :4] = True  # touches the first image's along the axis of the images, which is no neighbourhood
    assert pixel_metrics(found, masks).aupro == pytest.approx((1 + 2 * 0.15) / 3)


def test_corners_connect_a_region():
    masks = np.eye(SIZE, dtype=bool)[None]
    half = masks & (np.arange(SIZE) < SIZE // 2)
    assert pixel_metrics(half, masks).aupro == pytest.approx(0.5 + 0.5 * 0.15)


def test_a_map_equal_to_the_mask_reaches_1_in_all_and_a_constant_map_has_the_values_promised():
    _, masks = pairs()
    found = pixel_metrics(masks, masks).model_dump(exclude={"margins"})
    assert found == pytest.approx(dict.fromkeys(found, 1.0) | {"prevalence": masks.mean()}, abs=1e-12)
    share = masks.mean()
    area = masks[masks.any(axis=(1, 2))].mean()
    constant = pixel_metrics(np.full(masks.shape, 0.25), masks)
    assert constant.model_dump(exclude={"margins"}) == pytest.approx(
        {
            "auroc": 0.5,
            "average_precision": share,
            "aupro": 0.15,
            "pointing": area,
            "best_dice": 2 * share / (1 + share),
            "prevalence": share,
        }
    )


def test_a_constant_map_is_behind_the_prior_by_all_that_the_prior_knows():
    _, masks, patients = images()
    results = localise({"constant": np.full(masks.shape, 0.25)}, masks, patients, resamples=50)
    for region in results.regions.values():
        margins = region["constant"].margins
        assert margins["auroc"].value == 0.5 - region[PRIOR].auroc
        assert all(margin.contains(margin.value) for margin in margins.values())


def test_three_patients_have_figures_and_no_margin():
    maps, masks, _ = images()
    results = localise({"a": maps["a"][:6]}, masks[:6], list("aabbcc"), resamples=50)
    assert results.patients_marked == 3 and set(results.regions["whole image"]) == {"a"}
    assert results.regions["whole image"]["a"].margins is None


def test_the_pointing_game_is_about_images_with_a_lesion_and_tied_peaks_share():
    maps, masks = np.zeros((4, SIZE, SIZE)), np.zeros((4, SIZE, SIZE), dtype=bool)
    masks[:3, 2:4, 2:4] = True
    maps[0, 2, 2] = maps[1, 9, 9] = maps[3, 5, 5] = 1  # hit, miss, normal
    maps[2, 3, 3] = maps[2, 9, 9] = 1  # one of two peaks
    assert pixel_metrics(maps, masks).pointing == pytest.approx((1 + 0 + 0.5) / 3)


def test_inside_a_template_only_its_pixels_exist():
    maps, masks = pairs(40)
    inside = lungs_template(SIZE)
    found = pixel_metrics(maps, masks, "lungs")
    assert found.auroc == pytest.approx(roc_auc_score(masks[:, inside].ravel(), maps[:, inside].ravel()))
    elsewhere = np.where(inside, maps, np.random.default_rng(5).random(maps.shape) * 100)
    assert pixel_metrics(elsewhere, masks, "lungs") == found


def test_normal_images_count_as_false_alarms_and_nowhere_else():
    maps, masks = pairs()
    loud = np.concatenate([maps, np.full((2, SIZE, SIZE), maps.max() + 1)])
    found = pixel_metrics(maps, masks)
    noisy = pixel_metrics(loud, np.concatenate([masks, np.zeros((2, SIZE, SIZE), dtype=bool)]))
    assert noisy.pointing == found.pointing
    for name in ("auroc", "average_precision", "aupro", "best_dice"):
        assert getattr(noisy, name) < getattr(found, name)


@pytest.mark.parametrize("size", [32, 33, 64, 128])
def test_the_template_is_two_ellipses_that_mirror_each_other(size):
    template = lungs_template(size)
    assert template.shape == (size, size) and template.dtype == bool
    assert (template == template[:, ::-1]).all()
    assert template.mean() == pytest.approx(2 * np.pi * 0.15 * 0.32, rel=0.03)
    down, across = np.nonzero(template[:, : size // 2])
    assert ((across.mean() + 0.5) / size, (down.mean() + 0.5) / size) == pytest.approx((0.31, 0.46), abs=0.01)


def test_the_template_holds_most_of_what_is_boxed_in_real_lungs(xrays):
    source = FolderSource(xrays / "adult")
    masks = np.stack(list(load_masks(source, list(source.records["id"]), Preparation(64)).values()))
    assert 0.75 < (masks & lungs_template(64)).sum() / masks.sum() < 0.9


def test_the_prior_is_the_mean_of_the_other_patients_lesions():
    _, masks = pairs(10)
    patients = np.array(list("aabbccddee"))
    prior = LocationPrior(masks, patients)
    for i, patient in enumerate(patients):
        others = [mask for mask, of in zip(masks, patients, strict=True) if of != patient and mask.any()]
        np.testing.assert_allclose(prior[i], np.mean(others, axis=0), atol=1e-6)
    assert prior[:].dtype == np.float32


def test_the_prior_given_as_a_map_has_margin_0_and_the_same_figures():
    _, masks, patients = images()
    results = localise({"same": LocationPrior(masks, patients)}, masks, patients, resamples=100)
    for region in results.regions.values():
        assert region["same"].model_copy(update={"margins": None}) == region[PRIOR]
        assert set(region["same"].margins.values()) == {Estimate(0.0, 0.0, 0.0)}


def test_a_margin_is_the_difference_and_its_interval_is_of_patients_drawn_again():
    maps, masks, patients = images()
    results = localise(maps, masks, patients, resamples=1000)
    prior, inside = LocationPrior(masks, patients), lungs_template(SIZE)
    names = np.unique(patients)
    kinds = [[name for name in names if masks[patients == name].any() == marked] for marked in (True, False)]
    random, drawn = np.random.default_rng(9), []
    for _ in range(120):
        chosen = [name for kind in kinds if kind for name in random.choice(kind, len(kind))]
        rows = np.concatenate([np.flatnonzero(patients == name) for name in chosen])
        lesion = masks[rows][:, inside].ravel()
        drawn.append(
            [
                metric(lesion, maps["a"][rows][:, inside].ravel()) - metric(lesion, prior[rows][:, inside].ravel())
                for metric in (average_precision_score, roc_auc_score)
            ]
        )
    found = results.regions["lungs"]
    for i, metric in enumerate(("average_precision", "auroc")):
        margin = found["a"].margins[metric]
        assert margin.value == getattr(found["a"], metric) - getattr(found[PRIOR], metric)
        low, high = np.quantile(np.array(drawn)[:, i], [0.025, 0.975])
        assert (margin.low, margin.high) == pytest.approx((low, high), abs=0.3 * (high - low))


@pytest.mark.parametrize("levels", [40, 100_000])
def test_resamples_by_counts_equal_scikit_learn_with_weights(levels):
    maps, masks = pairs(40, levels=levels)
    patient, weights = np.arange(40) // 2, np.random.default_rng(3).integers(0, 4, (5, 20)).astype(float)
    flat, lesion = maps.reshape(40, -1), masks.reshape(40, -1)
    found = replicates(maps, Lesions(masks, None), patient, weights.T)
    for i, weight in enumerate(weights):
        each = np.repeat(weight[patient], flat.shape[1])
        expected = roc_auc_score(lesion.ravel(), flat.ravel(), sample_weight=each)
        assert found["auroc"][i] == pytest.approx(expected, abs=1e-12 if levels == 40 else 1e-3)
        expected = average_precision_score(lesion.ravel(), flat.ravel(), sample_weight=each)
        assert found["average_precision"][i] == pytest.approx(expected, abs=1e-12 if levels == 40 else 3e-3)


def test_results_repeat_survive_json_and_say_how_many_images_they_are_of():
    maps, masks, patients = images()
    first, second = (localise(maps, masks, patients, resamples=50, seed=4, left_out={"why": 3}) for _ in range(2))
    assert first == second == Localisation.model_validate_json(first.model_dump_json())
    assert (first.marked, first.normal, first.patients_marked, first.left_out) == (18, 6, 12, {"why": 3})
    assert list(first.regions["lungs"]) == [PRIOR, "a", "b"]


def test_from_few_patients_there_is_no_prior_but_the_figures_stay():
    maps, masks, patients = images()
    results = localise(maps, masks, np.array(["p"] * 12 + list(patients[12:])))
    assert PRIOR not in results.regions["lungs"] and results.patients_marked < 10
    assert results.regions["whole image"]["a"] == pixel_metrics(maps["a"], masks)
    one = localise({"a": maps["a"][1:2]}, masks[1:2], ["p"])
    assert one.regions["whole image"]["a"].margins is None
    with pytest.raises(ValueError, match=r"1 patients with a lesion.*two or more"):
        LocationPrior(masks[1:2], ["p"])


def test_a_template_without_a_lesion_pixel_has_no_figures():
    masks = np.zeros((12, SIZE, SIZE), dtype=bool)
    masks[:, 0, 0] = True
    results = localise({"a": masks * 1.0}, masks, np.arange(12).astype(str), resamples=20)
    assert results.regions["lungs"] is None
    assert results.regions["whole image"]["a"].auroc == 1


def test_nothing_marked_is_no_result():
    maps, masks, patients = images()
    assert localise(maps, np.zeros_like(masks), patients) is None
    assert localise(maps, np.zeros((len(masks), 0, 0), dtype=bool), patients) is None  # no image has a mask
    everywhere = localise(maps, np.ones_like(masks), patients)
    assert set(everywhere.regions.values()) == {None}  # nor where nothing else is left


def test_bad_maps_and_masks_are_refused_with_what_was_found():
    maps, masks = pairs()
    with pytest.raises(ValueError, match=r"maps \(8, 12, 12\) and masks \(8, 9, 9\)"):
        pixel_metrics(maps, masks[:, :9, :9])
    with pytest.raises(ValueError, match=r"maps \(12, 12\)"):
        pixel_metrics(maps[1], masks[1])
    maps[3, 1, 1] = np.nan
    with pytest.raises(ValueError, match="1 of 8 maps hold a NaN or infinity, first map 3"):
        localise({"a": maps}, masks, np.arange(8).astype(str))
    with pytest.raises(ValueError, match="7 patients, 0 of them '', for 8 masks"):
        LocationPrior(masks, list("abcdefg"))
    with pytest.raises(ValueError, match="8 patients, 2 of them '', for 8 masks"):
        localise({}, masks, [*"abcdef", "", ""])  # unknown patients are not one patient


def test_integer_maps_are_maps():
    maps, masks, patients = images()
    grey = maps["a"].astype(np.uint8)
    assert localise({"a": grey}, masks, patients, 20) == localise({"a": grey.astype(float)}, masks, patients, 20)


def test_boxed_abnormal_and_unmarked_normal_images_are_used_and_the_others_counted():
    lesion = np.eye(4, dtype=bool)
    ids, labels = list("abcdefg"), ["normal", "abnormal", "abnormal", "normal", "", "other", "abnormal"]
    lesions = {"b": lesion, "d": lesion, "f": lesion, "g": ~lesion & lesion}
    rows, masks, left_out = marked_and_normal(ids, labels, lesions)
    assert rows.tolist() == [0, 1, 5]
    assert [mask.sum() for mask in masks] == [0, 4, 4]
    assert left_out == {
        "not normal, and nothing marked": 2,
        "called normal, and a lesion marked": 1,
        "marked where the image has no pixel": 1,
    }
    assert marked_and_normal(ids, labels, {})[0].tolist() == [0, 3]
    with pytest.raises(ValueError, match="7 images and 6 labels: expected a label for each"):
        marked_and_normal(ids, labels[:6], lesions)


def test_normal_images_alone_are_all_used_and_give_no_result():
    rows, masks, left_out = marked_and_normal(list("abc"), ["normal"] * 3, {})
    assert (rows.tolist(), masks.shape, left_out) == ([0, 1, 2], (3, 0, 0), {})
    assert localise({"a": np.zeros((3, SIZE, SIZE))}, masks, list("abc")) is None


def test_a_box_outside_its_image_is_left_out_and_one_across_the_border_cut(tmp_path):
    (tmp_path / "images").mkdir()
    names, random = ["in.png", "across.png", "out.png", "normal.png"], np.random.default_rng(0)
    for name in names:
        Image.fromarray(random.integers(0, 256, (16, 16), dtype=np.uint8)).save(tmp_path / "images" / name)
    kinds = ["abnormal"] * 3 + ["normal"]
    pd.DataFrame({"filename": names, "label": kinds}).to_csv(tmp_path / "labels.csv", index=False)
    sides = {"x": [2, -4, 20], "y": [2, 12, -30], "w": [4, 8, 5], "h": [4, 8, 9]}
    boxes = pd.DataFrame({"filename": names[:3]} | sides)
    boxes.to_csv(tmp_path / "boxes.csv", index=False)
    lesions = load_masks(FolderSource(tmp_path), names, Preparation(16))
    rows, masks, left_out = marked_and_normal(names, kinds, lesions)
    assert rows.tolist() == [0, 1, 3]
    assert masks[:].sum(axis=(1, 2)).tolist() == [16, 16, 0]
    assert left_out == {"marked where the image has no pixel": 1}


def test_one_image_more_takes_the_memory_of_its_lesion_pixels_and_resamples_alone():
    lesion = np.zeros((32, 32), dtype=bool)
    lesion[8:14, 8:14] = True

    def work(n: int) -> None:
        ids, labels = np.arange(n).astype(str), np.where(np.arange(n) % 2, "abnormal", "normal")
        rows, masks, _ = marked_and_normal(ids, labels, dict.fromkeys(ids[1::2], lesion))
        localise({"a": Drawn(n, np.float32)}, masks, ids[rows], resamples=200)

    assert bytes_an_image(work) < 200 + 36 / 2 * 150  # a map has 4,096; half of the images have a lesion of 36 pixels
