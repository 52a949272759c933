"""The references: each equals its definition, and is fitted on training images without labels."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.covariance import ledoit_wolf
from torch import nn

from lib.params import Params
from lib.scores.features import Backbone, FeaturesError
from lib.scores.references import CORESET, NEIGHBOURS, REFERENCES, PatchCore, reference_scores
from lib.scores.scoring import Version

NAMES = list(REFERENCES)
OF_IMAGES = [name for name in NAMES if name not in ("view", "file-size")]
NO_BACKBONE = FeaturesError("there is none here")


def redrawn(fitted: Version, images: np.ndarray) -> np.ndarray:
    """All reconstructions of a reference, whose batches are one after the other."""
    return np.concatenate(list(fitted(images)[0]))


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    """Five random stages, each of half the resolution: 128 px for images of 16."""
    torch.manual_seed(0)
    widths = [3, 4, 5, 6, 7, 8]
    stages = [nn.Sequential(nn.Conv2d(a, b, 2, 2), nn.Tanh()) for a, b in itertools.pairwise(widths)]
    return Backbone("random", stages, (0.5,) * 3, (0.2,) * 3)


@pytest.fixture(scope="module")
def drawn() -> np.ndarray:
    """Smooth images of 16 px; the last 6 have a bright square."""
    random = np.random.default_rng(0)
    ramp = np.linspace(60, 160, 16)
    references = (
        ramp * random.uniform(0.8, 1.2, (97, 1, 1)) + ramp[:, None] / 4 + random.normal(0, 4, (97, 16, 16))
    ).round()
    images = references.clip(0, 255).astype(np.uint8)
    images[-6:, 3:9, 4:10] = 250
    return images


@pytest.fixture(scope="module")
def train(drawn) -> np.ndarray:
    return drawn[:60]


@pytest.fixture(scope="module")
def images(drawn) -> dict[str, np.ndarray]:
    """The sides; the last 6 of the test side have the square, and so has the side of lesions, without records."""
    return {"reference": drawn[60:67], "validation": drawn[67:81], "test": drawn[81:], "lesions": drawn[90:]}


@pytest.fixture(scope="module")
def records() -> dict[str, pd.DataFrame]:
    """The records, with no label to read; one file of the reference side has no known size."""
    sizes = {"reference": [900.0] * 6 + [np.nan], "validation": [*range(500, 514)], "test": [*range(400, 416)]}
    views = {
        "reference": ["PA", "AP"] * 3 + ["PA"],
        "validation": ["PA"] * 10 + ["AP", "", "ap", "LL"],
        "test": ["AP"] * 4 + ["PA"] * 11 + ["ap"],
    }
    return {side: pd.DataFrame({"view": view, "file size": sizes[side]}) for side, view in views.items()}


@pytest.fixture(scope="module")
def references(train, images, records, backbone):
    return reference_scores(NAMES, train, images, records, backbone, seed=0)


def seen(backbone, images) -> list[np.ndarray]:
    """What the backbone makes of uint8 images."""
    with torch.no_grad():
        return [stage.double().numpy() for stage in backbone(torch.from_numpy(images)[:, None].float() / 255)]


def pooled(backbone, images) -> np.ndarray:
    """The vectors of "knn" and "mahalanobis", from their definition."""
    return np.concatenate([stage.mean(axis=(2, 3)) for stage in seen(backbone, images)[1:4]], axis=1)


def test_the_references_are_those_that_a_run_can_name():
    assert Params.model_json_schema()["properties"]["references"]["items"]["enum"] == NAMES


def test_every_reference_gives_scores_or_reconstructions_for_every_image(references, images, records):
    assert {"mean-image", "pca"} <= set(references.fitted)
    assert {*references.scores, *references.fitted} == {*NAMES} - {"view"} | {"ap-view"}
    assert references.left_out == {}
    for scores in references.scores.values():
        assert set(records) <= set(scores) <= set(images)
        for side, values in scores.items():
            assert values.shape == (len(images[side]),) and values.dtype == np.float64
    for fitted in references.fitted.values():
        for stack in images.values():
            restored = redrawn(fitted, stack)
            assert restored.shape == stack.shape and restored.dtype == np.float32
            assert restored.min() >= 0 and restored.max() <= 1
            assert fitted(stack)[1] == {}


def test_nothing_but_the_view_and_the_file_size_is_read(records, train, images):
    read = []

    class Watched(pd.DataFrame):
        def __getitem__(self, key):
            read.append(key)
            return super().__getitem__(key)

    watched = {side: Watched(table.assign(label="normal", strict_label="")) for side, table in records.items()}
    names = ["mean-grey", "mean-image", "pca", "view", "file-size"]
    reference_scores(names, train, images, watched, NO_BACKBONE, seed=0)
    assert set(read) == {"view", "file size"}


def test_mean_grey_is_the_mean_of_the_image(references, images):
    for side, stack in images.items():
        np.testing.assert_allclose(references.scores["mean-grey"][side], stack.mean(axis=(1, 2)) / 255)


def test_the_mean_image_of_training_is_the_reconstruction_of_every_image(references, train, images):
    restored = redrawn(references.fitted["mean-image"], images["test"])
    np.testing.assert_allclose(restored, [train.mean(axis=0) / 255] * 16, rtol=1e-6)


def test_pca_is_the_best_approximation_by_sixteen_directions_of_training(references, train, images):
    train, test = train.reshape(60, -1) / 255, images["test"].reshape(16, -1) / 255
    axes = np.linalg.svd(train - train.mean(axis=0), full_matrices=False)[2][:16]
    expected = train.mean(axis=0) + (test - train.mean(axis=0)) @ axes.T @ axes
    got = redrawn(references.fitted["pca"], images["test"]).reshape(16, -1)
    error, best = (np.square(test - approximation).sum() for approximation in (got, expected.clip(0, 1)))
    assert error == pytest.approx(best, rel=0.01)  # the last directions are noise, and close to one another


def test_pca_takes_fewer_components_than_sixteen_where_there_are_fewer_images(train, images, records):
    few = train[:5]
    pca = reference_scores(["pca"], few, images, records, NO_BACKBONE, seed=0).fitted["pca"]
    np.testing.assert_allclose(redrawn(pca, few), few / 255, atol=1e-5)  # five images span themselves


def test_reconstructions_of_more_images_than_a_batch_are_in_order(references, images):
    many = np.concatenate([images["test"]] * 20)
    for fitted in references.fitted.values():
        np.testing.assert_allclose(
            redrawn(fitted, many), np.tile(redrawn(fitted, images["test"]), (20, 1, 1)), atol=1e-6
        )


def test_knn_is_the_mean_cosine_distance_to_the_nearest_training_images(references, train, images, backbone):
    distances = cdist(pooled(backbone, images["test"]), pooled(backbone, train), "cosine")
    expected = np.sort(distances, axis=1)[:, :NEIGHBOURS].mean(axis=1)
    np.testing.assert_allclose(references.scores["knn"]["test"], expected, rtol=1e-3, atol=1e-7)


def test_mahalanobis_is_the_distance_from_the_shrunk_gaussian_of_training(references, train, images, backbone):
    train, test = pooled(backbone, train), pooled(backbone, images["test"])
    covariance, shrinkage = ledoit_wolf(train)
    assert 0 < shrinkage < 1
    expected = cdist(test, train.mean(axis=0)[None], "mahalanobis", VI=np.linalg.inv(covariance))[:, 0]
    np.testing.assert_allclose(references.scores["mahalanobis"]["test"], expected, rtol=1e-3)


def test_a_score_does_not_depend_on_the_images_beside_it(references, train, images, records, backbone):
    turned = images | {"validation": images["test"][::-1], "test": images["validation"]}
    other = reference_scores(OF_IMAGES, train, turned, records, backbone, seed=0)
    for name, scores in other.scores.items():
        right = references.scores[name]["test"][::-1]
        np.testing.assert_allclose(scores["validation"], right, rtol=1e-3, atol=1e-5, err_msg=name)
    for name, reconstructed in other.fitted.items():
        right = redrawn(references.fitted[name], images["test"])[5:6]
        np.testing.assert_allclose(redrawn(reconstructed, images["test"][5:6]), right, atol=1e-5, err_msg=name)


def test_the_same_seed_gives_the_same_references(references, train, images, records, backbone):
    again = reference_scores(NAMES, train, images, records, backbone, seed=0)
    for name, scores in references.scores.items():
        np.testing.assert_array_equal(again.scores[name]["test"], scores["test"])
    first, second = (redrawn(fits.fitted["pca"], images["test"]) for fits in (references, again))
    np.testing.assert_array_equal(first, second)


def test_patchcore_finds_the_bright_square(references):
    scores = references.scores["patchcore"]["test"]
    assert scores[-6:].min() > scores[:-6].max()


def test_patchcores_score_equals_equations_6_and_7():
    random = np.random.default_rng(1)
    bank, patches = random.normal(size=(30, 4)).astype(np.float32), random.normal(size=(2, 4, 3, 5)).astype(np.float32)
    core = PatchCore(bank, seed=0)  # smaller than the coreset's size: all of it is kept
    assert sorted(map(tuple, core.bank.numpy())) == sorted(map(tuple, bank))
    for image, score in zip(patches, core(torch.from_numpy(patches)), strict=True):
        distances = cdist(image.reshape(4, -1).T, bank)
        worst = distances.min(axis=1).argmax()
        match = distances[worst].argmin()
        around = cdist(bank[match, None], bank)[0].argsort()[:9]
        weight = 1 - np.exp(distances[worst, match]) / np.exp(distances[worst, around]).sum()
        assert score == pytest.approx(weight * distances[worst, match], rel=1e-4)


def test_no_patch_lies_far_from_the_coreset():
    random = np.random.default_rng(2)
    patches = np.concatenate([random.normal(0, 0.01, (4 * CORESET, 3)), random.normal(9, 2, (20, 3))])
    core = PatchCore(random.permutation(patches).astype(np.float32), seed=0)
    assert len(core.bank) == CORESET == len(np.unique(core.bank.numpy(), axis=0))  # none is chosen twice
    rare = cdist(patches[-20:], core.bank.numpy()).min(axis=1)
    assert rare.max() < 1e-3  # a draw of a quarter would miss fifteen of the twenty
    assert cdist(patches, core.bank.numpy()).min(axis=1).max() < 0.01


def test_view_is_1_for_ap_and_nan_on_a_side_with_an_unknown_view(references):
    np.testing.assert_array_equal(references.scores["ap-view"]["reference"], [0.0, 1] * 3 + [0])
    np.testing.assert_array_equal(references.scores["ap-view"]["validation"], [np.nan] * 14)
    np.testing.assert_array_equal(references.scores["ap-view"]["test"], [1.0] * 4 + [0] * 11 + [1])


def test_a_smaller_file_counts_as_more_anomalous_and_a_side_with_an_unknown_size_has_no_score(references, records):
    size = references.scores["file-size"]
    assert size["test"].argsort().tolist() == [*range(15, -1, -1)] and size["test"][0] == -400
    np.testing.assert_array_equal(size["reference"], [np.nan] * 7)


@pytest.mark.parametrize(("name", "column", "blank"), [("view", "view", ""), ("file-size", "file size", np.nan)])
def test_what_is_read_of_the_records_is_left_out_where_a_test_record_has_none(
    name, column, blank, train, images, records
):
    known = records["test"][column].tolist()[:15]
    unknown = records | {"test": records["test"].assign(**{column: [*known, blank]})}
    references = reference_scores([name], train, images, unknown, NO_BACKBONE, seed=0)
    assert references.scores == {} and references.left_out == {name: f"1 of 16 test records have no {name}"}


def test_without_a_backbone_the_references_that_need_it_are_left_out_with_the_reason(train, images, records):
    references = reference_scores(NAMES, train, images, records, NO_BACKBONE, seed=0)
    left_out = ("knn", "mahalanobis", "patchcore")
    assert references.left_out == dict.fromkeys(left_out, "no backbone: there is none here")
    kept = {*references.scores, *references.fitted} - {"ap-view"} | {"view"}
    assert kept == {*NAMES} - {*left_out}


@pytest.mark.parametrize("name", ["knn", "mahalanobis", "patchcore"])
def test_a_reference_alone_equals_itself_among_the_others(references, name, train, images, records, backbone):
    alone = reference_scores([name], train, images, records, backbone, seed=0)
    assert set(alone.scores) == {name}
    np.testing.assert_array_equal(alone.scores[name]["test"], references.scores[name]["test"])
