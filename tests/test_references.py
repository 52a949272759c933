"""Promises of `lib.references`: each row equals its definition, sees training films alone, and no label at all."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.covariance import ledoit_wolf
from torch import nn

from lib.features import Backbone, FeaturesError
from lib.params import Params
from lib.references import CORESET, NEIGHBOURS, PatchCore, reference_rows

ROWS = ["mean-grey", "mean-image", "pca", "knn", "mahalanobis", "patchcore", "view"]
NO_BACKBONE = FeaturesError("there is none here")


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    """Five random stages, each of half the resolution: 128 px for films of 16."""
    torch.manual_seed(0)
    widths = [3, 4, 5, 6, 7, 8]
    stages = [nn.Sequential(nn.Conv2d(a, b, 2, 2), nn.Tanh()) for a, b in itertools.pairwise(widths)]
    return Backbone("random", stages, (0.5,) * 3, (0.2,) * 3)


@pytest.fixture(scope="module")
def drawn() -> np.ndarray:
    """Smooth films of 16 px; the last 6 have a bright square."""
    random = np.random.default_rng(0)
    ramp = np.linspace(60, 160, 16)
    made = (ramp * random.uniform(0.8, 1.2, (97, 1, 1)) + ramp[:, None] / 4 + random.normal(0, 4, (97, 16, 16))).round()
    films = made.clip(0, 255).astype(np.uint8)
    films[-6:, 3:9, 4:10] = 250
    return films


@pytest.fixture(scope="module")
def train(drawn) -> np.ndarray:
    return drawn[:60]


@pytest.fixture(scope="module")
def films(drawn) -> dict[str, np.ndarray]:
    """The sides; the last 6 of the test side have the square, and so has the side of lesions, without records."""
    return {"reference": drawn[60:67], "validation": drawn[67:81], "test": drawn[81:], "lesions": drawn[90:]}


@pytest.fixture(scope="module")
def records() -> dict[str, pd.DataFrame]:
    """The records, with no label to read."""
    views = {
        "reference": ["PA", "AP"] * 3 + ["PA"],
        "validation": ["PA"] * 10 + ["AP", "", "ap", "LL"],
        "test": ["AP"] * 4 + ["PA"] * 11 + ["ap"],
    }
    return {side: pd.DataFrame({"view": view}) for side, view in views.items()}


@pytest.fixture(scope="module")
def made(train, films, records, backbone):
    return reference_rows(ROWS, train, films, records, backbone, seed=0)


def seen(backbone, films) -> list[np.ndarray]:
    """What the backbone makes of uint8 films."""
    with torch.no_grad():
        return [stage.double().numpy() for stage in backbone(torch.from_numpy(films)[:, None].float() / 255)]


def pooled(backbone, films) -> np.ndarray:
    """The vectors of "knn" and "mahalanobis", from their definition."""
    return np.concatenate([stage.mean(axis=(2, 3)) for stage in seen(backbone, films)[1:4]], axis=1)


def test_the_rows_are_those_that_a_run_can_name():
    assert Params().references == ROWS


def test_every_row_gives_each_film_of_each_side_what_it_promises(made, films, records):
    assert set(made.scores) == set(ROWS) - {"mean-image", "pca", "view"} | {"ap-view"}
    assert set(made.fitted) == {"mean-image", "pca"}
    assert made.left_out == {}
    for scores in made.scores.values():
        assert set(records) <= set(scores) <= set(films)
        for side, values in scores.items():
            assert values.shape == (len(films[side]),) and values.dtype == np.float64
    for row in made.fitted.values():
        for some in films.values():
            images, own = row(some)
            assert images.shape == some.shape and images.dtype == np.float32 and images.flags.writeable
            assert images.min() >= 0 and images.max() <= 1
            assert own == {}


def test_nothing_but_the_view_is_read(records, train, films):
    read = []

    class Watched(pd.DataFrame):
        def __getitem__(self, key):
            read.append(key)
            return super().__getitem__(key)

    watched = {side: Watched(some.assign(label="normal", strict_label="")) for side, some in records.items()}
    reference_rows(["mean-grey", "mean-image", "pca", "view"], train, films, watched, NO_BACKBONE, seed=0)
    assert set(read) == {"view"}


def test_mean_grey_is_the_mean_of_the_film(made, films):
    for side, some in films.items():
        np.testing.assert_allclose(made.scores["mean-grey"][side], some.mean(axis=(1, 2)) / 255)


def test_the_mean_image_is_that_of_training_for_every_film(made, train, films):
    images, _ = made.fitted["mean-image"](films["test"])
    np.testing.assert_allclose(images, [train.mean(axis=0) / 255] * 16, rtol=1e-6)


def test_pca_is_the_best_approximation_by_sixteen_directions_of_training(made, train, films):
    train, test = train.reshape(60, -1) / 255, films["test"].reshape(16, -1) / 255
    axes = np.linalg.svd(train - train.mean(axis=0), full_matrices=False)[2][:16]
    expected = train.mean(axis=0) + (test - train.mean(axis=0)) @ axes.T @ axes
    got = made.fitted["pca"](films["test"])[0].reshape(16, -1)
    error, best = (np.square(test - one).sum() for one in (got, expected.clip(0, 1)))
    assert error == pytest.approx(best, rel=0.01)  # the last directions are noise, and close to one another


def test_pca_takes_fewer_components_than_sixteen_where_there_are_fewer_films(train, films, records):
    few = train[:5]
    pca = reference_rows(["pca"], few, films, records, NO_BACKBONE, seed=0).fitted["pca"]
    np.testing.assert_allclose(pca(few)[0], few / 255, atol=1e-5)  # five films span themselves


def test_reconstructions_of_more_films_than_a_batch_are_in_order(made, films):
    many = np.concatenate([films["test"]] * 20)
    for row in made.fitted.values():
        np.testing.assert_allclose(row(many)[0], np.concatenate([row(films["test"])[0]] * 20), atol=1e-6)


def test_knn_is_the_mean_cosine_distance_to_the_nearest_training_films(made, train, films, backbone):
    distances = cdist(pooled(backbone, films["test"]), pooled(backbone, train), "cosine")
    expected = np.sort(distances, axis=1)[:, :NEIGHBOURS].mean(axis=1)
    np.testing.assert_allclose(made.scores["knn"]["test"], expected, rtol=1e-3, atol=1e-7)


def test_mahalanobis_is_the_distance_from_the_shrunk_gaussian_of_training(made, train, films, backbone):
    train, test = pooled(backbone, train), pooled(backbone, films["test"])
    covariance, shrinkage = ledoit_wolf(train)
    assert 0 < shrinkage < 1
    expected = cdist(test, train.mean(axis=0)[None], "mahalanobis", VI=np.linalg.inv(covariance))[:, 0]
    np.testing.assert_allclose(made.scores["mahalanobis"]["test"], expected, rtol=1e-3)


def test_a_film_scores_the_same_whatever_films_are_beside_it(made, train, films, records, backbone):
    turned = films | {"validation": films["test"][::-1], "test": films["validation"]}
    other = reference_rows(ROWS[:-1], train, turned, records, backbone, seed=0)
    for row, scores in other.scores.items():
        right = made.scores[row]["test"][::-1]
        np.testing.assert_allclose(scores["validation"], right, rtol=1e-3, atol=1e-5, err_msg=row)
    for row, reconstructed in other.fitted.items():
        right = made.fitted[row](films["test"])[0][5:6]
        np.testing.assert_allclose(reconstructed(films["test"][5:6])[0], right, atol=1e-5, err_msg=row)


def test_the_same_seed_gives_the_same_rows(made, train, films, records, backbone):
    again = reference_rows(ROWS, train, films, records, backbone, seed=0)
    for row, scores in made.scores.items():
        np.testing.assert_array_equal(again.scores[row]["test"], scores["test"])
    first, second = (rows.fitted["pca"](films["test"])[0] for rows in (made, again))
    np.testing.assert_array_equal(first, second)


def test_patchcore_finds_the_bright_square(made):
    scores = made.scores["patchcore"]["test"]
    assert scores[-6:].min() > scores[:-6].max()


def test_patchcores_score_equals_equations_6_and_7():
    random = np.random.default_rng(1)
    bank, patches = random.normal(size=(30, 4)).astype(np.float32), random.normal(size=(2, 4, 3, 5)).astype(np.float32)
    core = PatchCore(bank, seed=0)  # smaller than the coreset's size: all of it is kept
    assert sorted(map(tuple, core.bank.numpy())) == sorted(map(tuple, bank))
    for film, score in zip(patches, core(torch.from_numpy(patches)), strict=True):
        distances = cdist(film.reshape(4, -1).T, bank)
        worst = distances.min(axis=1).argmax()
        match = distances[worst].argmin()
        around = cdist(bank[match, None], bank)[0].argsort()[:9]
        weight = 1 - np.exp(distances[worst, match]) / np.exp(distances[worst, around]).sum()
        assert score == pytest.approx(weight * distances[worst, match], rel=1e-4)


def test_the_coreset_leaves_no_patch_far_from_it():
    random = np.random.default_rng(2)
    patches = np.concatenate([random.normal(0, 0.01, (4 * CORESET, 3)), random.normal(9, 2, (20, 3))])
    core = PatchCore(random.permutation(patches).astype(np.float32), seed=0)
    assert len(core.bank) == CORESET
    rare = cdist(patches[-20:], core.bank.numpy()).min(axis=1)
    assert rare.max() < 1e-3  # a draw of a quarter would miss fifteen of the twenty
    assert cdist(patches, core.bank.numpy()).min(axis=1).max() < 0.01


def test_view_is_one_for_ap_and_unknown_on_a_side_where_a_film_has_none(made):
    np.testing.assert_array_equal(made.scores["ap-view"]["reference"], [0.0, 1] * 3 + [0])
    np.testing.assert_array_equal(made.scores["ap-view"]["validation"], [np.nan] * 14)
    np.testing.assert_array_equal(made.scores["ap-view"]["test"], [1.0] * 4 + [0] * 11 + [1])


def test_view_is_left_out_where_a_test_record_has_none(train, films, records):
    unknown = records | {"test": records["test"].assign(view=["AP"] * 15 + [""])}
    made = reference_rows(["view"], train, films, unknown, NO_BACKBONE, seed=0)
    assert made.scores == {} and made.left_out == {"view": "1 of 16 test records have no view"}


def test_without_a_backbone_its_rows_are_left_out_with_the_reason_and_the_others_made(train, films, records):
    made = reference_rows(ROWS, train, films, records, NO_BACKBONE, seed=0)
    assert made.left_out == dict.fromkeys(ROWS[3:6], "no backbone: there is none here")
    assert set(made.scores) == {"mean-grey", "ap-view"} and set(made.fitted) == {"mean-image", "pca"}


@pytest.mark.parametrize("row", ["knn", "mahalanobis", "patchcore"])
def test_a_row_alone_is_what_it_is_among_the_others(made, row, train, films, records, backbone):
    alone = reference_rows([row], train, films, records, backbone, seed=0)
    assert set(alone.scores) == {row}
    np.testing.assert_array_equal(alone.scores[row]["test"], made.scores[row]["test"])
