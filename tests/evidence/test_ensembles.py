"""Ensembles: standardised by normals alone, averaged, and evaluated as any other score."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from lib.evidence.ensembles import combined_members, ensembles, standardised


def table(seed: int, scale: float = 1.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    side = ["validation"] * 10 + ["test"] * 30
    label = ["normal"] * 10 + ["abnormal", "normal"] * 14 + ["other"] * 2
    ids = [f"v{seed}-{i}" for i in range(10)] + [f"t{i}" for i in range(30)]
    abnormal = np.array(label) == "abnormal"
    scores = {name: scale * (rng.normal(size=40) + abnormal) + 5 for name in ("ra", "ra, combined", "knn")}
    return pd.DataFrame({"id": ids, "side": side, "patient": ids, "label": label} | scores)


TABLES = [table(0), table(1, scale=100.0), table(2, scale=0.01)]


def by_hand(score: str) -> pd.Series:
    means = []
    for one in TABLES:
        validation = one.loc[one["side"] == "validation", score]
        test = one[one["side"] == "test"].set_index("id")[score]
        means.append((test - np.mean(validation)) / np.std(validation, ddof=1))
    return sum(means) / 3


def labels() -> tuple[pd.Index, pd.Series]:
    test = TABLES[0][TABLES[0]["side"] == "test"].set_index("id")
    known = test[test["label"] != "other"]
    return known.index, known["label"] == "abnormal"


def test_a_seed_ensemble_is_the_mean_of_standardised_scores_whatever_their_scale():
    found = {one.name: one for one in ensembles(TABLES, ["ra", "knn"], [], "label", resamples=100)}
    known, abnormal = labels()
    assert list(found) == ["ra", "knn"] and found["ra"].seeds == 3
    for name, one in found.items():
        assert one.auroc.value == pytest.approx(roc_auc_score(abnormal, by_hand(name)[known]))
        assert one.average_precision.value == pytest.approx(average_precision_score(abnormal, by_hand(name)[known]))
    difference = found["ra"].auroc.value - found["knn"].auroc.value
    assert found["ra"].over_knn.value == pytest.approx(difference) and found["knn"].over_knn is None


def test_the_combination_is_the_mean_of_its_members():
    found = ensembles(TABLES, ["ra"], ["ra, combined", "knn"], "label", resamples=100)[-1]
    known, abnormal = labels()
    assert (found.name, found.members) == ("combination", ["ra, combined", "knn"])
    mean = by_hand("ra, combined") + by_hand("knn")
    assert found.auroc.value == pytest.approx(roc_auc_score(abnormal, mean[known]))


def test_the_combination_holds_what_does_not_copy_and_frozen_features():
    scores = ["unet, combined", "ra, combined", "vae, combined", "knn", "patchcore", "pca"]
    copied = {"unet": 0.9, "ra": 0.2, "vae": 0.5}
    assert combined_members(["unet", "ra", "vae"], copied, scores) == [
        "ra, combined",
        "vae, combined",
        "knn",
        "patchcore",
    ]


def test_labels_of_the_test_side_do_not_change_a_standardised_score():
    turned = TABLES[0].assign(
        label=TABLES[0]["label"].map({"normal": "abnormal", "abnormal": "normal", "other": "other"})
    )
    pd.testing.assert_series_equal(standardised(turned, "ra"), standardised(TABLES[0], "ra"))


def test_a_score_that_does_not_vary_or_is_unknown_on_validation_normals_is_left_out():
    gaps = TABLES[0].assign(knn=np.where(TABLES[0]["side"] == "validation", np.nan, 1.0))
    assert standardised(gaps, "knn") is None
    assert standardised(TABLES[0].assign(knn=1.0), "knn") is None
    assert ensembles([gaps], ["ra", "knn"], ["knn"], "label", resamples=100) == []
