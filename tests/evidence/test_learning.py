"""Learning curves: each point's AUROC against scikit-learn's, and what a point is compared with on which terms."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from lib.evidence.learning import SeedCurve, learning_curves
from lib.evidence.marks import MethodHealth, Point
from lib.evidence.seeds import CRITIC, FORMS

IDS = [f"image-{i}" for i in range(40)]
TEST = pd.DataFrame({"label": ["abnormal", "normal"] * 18 + ["other"] * 4, "patient": IDS}, index=IDS)
KNOWN = TEST[TEST["label"] != "other"].index
HEALTH = MethodHealth(residual=0.05, detail=0.5, copied=0.1, lacks=[])
SECONDS = {"ra": 10.0, "unet": 3.0}  # an epoch
EPOCHS = {"ra": [1, 2, 4], "unet": [1, 4, 16]}


def seed_curve(seed: int, methods: list[str]) -> SeedCurve:
    rng = np.random.default_rng(seed)
    abnormal = (TEST["label"] == "abnormal").to_numpy()
    columns = {
        f"{method}{after} @ {epochs}": rng.normal(size=len(IDS)) + abnormal * np.log2(1 + epochs) / 2
        for method in methods
        for epochs in EPOCHS[method]
        for after in FORMS.values()
    }
    points = {
        method: [
            Point(epochs=n, images_seen=100 * n, cpu_seconds=n * SECONDS[method] + seed, health=HEALTH)
            for n in (*EPOCHS[method], 99)  # health was also measured where no weights were kept
        ]
        for method in methods
    }
    return SeedCurve(pd.DataFrame(columns, index=IDS), points)


CURVES = {0: seed_curve(0, ["ra", "unet"]), 1: seed_curve(1, ["ra"])}
REFERENCES = {0: pd.DataFrame({"knn": np.arange(40.0), "view": np.nan}, index=IDS)}


@pytest.fixture(scope="module")
def found():
    return learning_curves(CURVES, REFERENCES, TEST, "label", "ra", resamples=200)


def auroc(scores: pd.Series) -> float:
    return roc_auc_score(TEST.loc[KNOWN, "label"] == "abnormal", scores[KNOWN])


def test_a_point_is_the_mean_over_the_seeds_that_have_the_method(found):
    assert {method: [point.epochs for point in points] for method, points in found.points.items()} == EPOCHS
    for method, points in found.points.items():
        seeds = [0, 1] if method == "ra" else [0]
        for point in points:
            assert point.images_seen == 100 * point.epochs
            assert point.cpu_seconds == pytest.approx(np.mean([point.epochs * SECONDS[method] + s for s in seeds]))
            for form, after in FORMS.items():
                name = f"{method}{after} @ {point.epochs}"
                expected = {seed: auroc(CURVES[seed].scores[name]) for seed in seeds}
                assert point.auroc[form].seeds == pytest.approx(expected, abs=1e-4)


def test_methods_are_compared_after_equal_images_after_equal_cpu_time_and_at_their_ends(found):
    pairs = {(one.terms, one.images_seen): one.auroc.seeds for one in found.differences if one.second == "unet"}
    at = {
        (one.terms, one.images_seen): one
        for one in found.differences
        if (one.second, one.form) == ("unet", "chosen score")
    }
    assert set(pairs) == {("images", 100), ("images", 400), *(("CPU time", n) for n in (100, 200, 400)), ("end", 400)}

    def expected(ra: int, unet: int) -> float:
        scores = CURVES[0].scores
        return auroc(scores[f"ra, chosen @ {ra}"]) - auroc(scores[f"unet, chosen @ {unet}"])

    for key, epochs in {
        ("images", 100): (1, 1),
        ("images", 400): (4, 4),
        ("CPU time", 100): (1, 1),  # 10.5 s: the U-Net's next point is after 12 s
        ("CPU time", 200): (2, 4),
        ("CPU time", 400): (4, 4),  # 40.5 s, and 48 for 16 epochs
        ("end", 400): (4, 16),
    }.items():
        assert at[key].auroc.seeds == pytest.approx({0: expected(*epochs)}, abs=1e-4), key


def test_the_kl_of_a_posterior_stands_beside_the_chosen_score_of_a_method_without_one():
    kl = pd.DataFrame(
        {f"ra, kl @ {n}": np.random.default_rng(n).normal(size=len(IDS)) for n in EPOCHS["ra"]}, index=IDS
    )
    curve = CURVES[0]._replace(scores=CURVES[0].scores.join(kl))
    found = learning_curves({0: curve, 1: CURVES[1]}, REFERENCES, TEST, "label", "ra", resamples=200)
    assert [CRITIC in point.auroc for point in found.points["ra"] + found.points["unet"]] == [True] * 3 + [False] * 3
    assert found.points["ra"][0].auroc[CRITIC].seeds == pytest.approx({0: auroc(kl["ra, kl @ 1"])}, abs=1e-4)
    ends = [one for one in found.differences if one.form == CRITIC and one.images_seen == 400]
    beside = {(one.second, one.terms): one.auroc.seeds[0] for one in ends}
    ra, unet = auroc(kl["ra, kl @ 4"]), auroc(curve.scores["unet, chosen @ 16"])
    assert beside["unet", "end"] == pytest.approx(ra - unet, abs=1e-4)
    assert beside["knn", "images"] == pytest.approx(ra - auroc(REFERENCES[0]["knn"]), abs=1e-4)


def test_references_do_not_train_and_those_with_gaps_are_left_out(found):
    knn = [one for one in found.differences if one.second == "knn"]
    assert {one.images_seen for one in knn} == {100, 200, 400} and {one.terms for one in knn} == {"images"}
    assert not [one for one in found.differences if one.second == "view"]
    last = next(one for one in knn if (one.images_seen, one.form) == (400, "mean residual"))
    expected = auroc(CURVES[0].scores["ra @ 4"]) - auroc(REFERENCES[0]["knn"])
    assert last.auroc.seeds == pytest.approx({0: expected}, abs=1e-4)


def test_health_is_kept_by_seed(found):
    assert found.health["ra"].keys() == {0, 1} and found.health["unet"].keys() == {0}
    assert [point.epochs for point in found.health["ra"][1]] == [1, 2, 4, 99]
