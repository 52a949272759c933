"""Promises of `lib.evidence.psychometric`.

The rest of the image stays, size and contrast are as stated, pairs are counted.
"""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from lib.data.phantom import FINDINGS, radiograph
from lib.data.preparation import Preparation
from lib.evidence import psychometric
from lib.evidence.psychometric import detected, detection, lesion_series

PREPARATION = Preparation(64)
PATIENTS = (900, 901, 905)
SEVERITIES, CONTRASTS = (0.1, 0.9), (0.02, 0.05, 0.1)


@pytest.mark.parametrize("finding", FINDINGS)
def test_outside_the_lesion_nothing_changes_and_inside_it_the_mean_change_is_the_contrast(finding):
    series = lesion_series(finding, SEVERITIES, CONTRASTS, PATIENTS, PREPARATION, seed=3)
    assert series.lesions.shape == (2, 3, 3, 64, 64) and series.lesions.dtype == series.images.dtype == np.uint8
    change = (series.lesions.astype(float) - series.images) / 255
    for i, severity in enumerate(SEVERITIES):
        for j, patient in enumerate(PATIENTS):
            mask = radiograph(patient, finding=finding, severity=severity, size=64, seed=3).mask
            assert not change[i, :, j][:, ~mask].any()
            for contrast, image, of in zip(CONTRASTS, series.lesions[i, :, j], change[i, :, j], strict=True):
                found, cut = np.abs(of[mask]).mean(), (image[mask] == 255).any()
                assert found == pytest.approx(contrast, abs=0.002) or (cut and 0.9 * contrast < found < contrast)


def test_the_normal_images_are_prepared_as_a_source_prepares_its_own():
    images = lesion_series("nodule", [0.5], [0.05], PATIENTS, PREPARATION).images
    for image, patient in zip(images, PATIENTS, strict=True):
        stored = np.round(radiograph(patient, size=64).image * 255).astype(np.uint8)
        np.testing.assert_array_equal(image, PREPARATION.image(stored))


@pytest.mark.parametrize("finding", FINDINGS)
def test_a_larger_severity_is_a_larger_diameter_that_contrast_does_not_change(finding):
    faint, dense = (
        lesion_series(finding, (0.1, 0.5, 1.0), [contrast], PATIENTS, PREPARATION) for contrast in (0.02, 0.1)
    )
    assert (np.diff(faint.diameters) > 0).all()
    assert (faint.diameters == dense.diameters).all()
    assert faint.diameters.min() > 0.02 and faint.diameters.max() < 0.6


def test_a_nodule_has_the_diameter_that_is_stated_in_mm():
    diameter = lesion_series("nodule", [1.0], [0.05], range(12), Preparation(128)).diameters[0]
    assert diameter * 380 == pytest.approx(36, rel=0.12)  # mm; patients' sizes and the unsharp edge differ


def test_the_same_arguments_give_the_same_bytes_and_another_seed_other_images():
    first, second, other = (
        lesion_series("opacity", [0.5], [0.05], PATIENTS, PREPARATION, seed=seed) for seed in (0, 0, 1)
    )
    assert first.images.tobytes() == second.images.tobytes() and first.lesions.tobytes() == second.lesions.tobytes()
    assert first.images.tobytes() != other.images.tobytes()


def test_detection_counts_pairs_of_one_image_and_pairs_of_all_images():
    random = np.random.default_rng(0)
    normal, lesion = random.integers(0, 9, 12), random.integers(0, 12, (2, 3, 12))
    share, area = detection(normal, lesion)
    for i in np.ndindex(2, 3):
        won = [(a > b) + 0.5 * (a == b) for a, b in zip(lesion[i], normal, strict=True)]
        assert share[i] == pytest.approx(np.mean(won))
        is_lesion = np.repeat([False, True], 12)
        assert area[i] == pytest.approx(roc_auc_score(is_lesion, np.concatenate([normal, lesion[i]])))
    assert detection(normal, normal + 0.0)[0] == 0.5
    assert [of.tolist() for of in detection(np.ones(3), np.ones((2, 3)))] == [[0.5, 0.5]] * 2  # a constant score


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"finding": "tumour"}, "'tumour'.*opacity"),
        ({"severities": [1.5]}, r"severity=1.5 is not in \(0, 1\]"),
        ({"contrasts": [0.1, 0.0]}, r"contrasts \[0.1, 0.0\]: expected .* in \(0, 1\]"),
        ({"contrasts": [float("nan")]}, r"contrasts \[nan\]"),
        ({"patients": []}, "0 patients"),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name(changes, message):
    arguments = {"finding": "nodule", "severities": [0.5], "contrasts": [0.1], "patients": [0]} | changes
    with pytest.raises(ValueError, match=message):
        lesion_series(**arguments, preparation=PREPARATION)


def test_scores_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match=r"scores \(3,\) and \(2, 4\)"):
        detection(np.zeros(3), np.zeros((2, 4)))
    with pytest.raises(ValueError, match=r"scores \(0,\) and \(2, 0\): expected"):
        detection(np.zeros(0), np.zeros((2, 0)))
    with pytest.raises(ValueError, match="3 of 6 scores are not finite, expected numbers"):
        detection(np.zeros(3), np.full(3, np.nan))


def test_every_finding_size_and_contrast_has_the_shares_of_its_own_series(monkeypatch):
    monkeypatch.setattr(psychometric, "PATIENTS", PATIENTS)
    table = detected({"grey": lambda images: images.mean(axis=(1, 2))}, PREPARATION, seed=3)
    assert len(table) == 2 * len(FINDINGS) * len(psychometric.SEVERITIES) * len(psychometric.CONTRASTS)
    series = lesion_series("nodule", psychometric.SEVERITIES, psychometric.CONTRASTS, PATIENTS, PREPARATION, seed=3)
    means = series.images.mean(axis=(1, 2)), series.lesions.mean(axis=(3, 4))
    for measure, shares in zip(("pairs", "AUROC"), detection(*means), strict=True):
        rows = table[(table["finding"] == "nodule") & (table["measure"] == measure)]
        np.testing.assert_allclose(rows.pivot(index="severity", columns="contrast", values="value"), shares)
        np.testing.assert_allclose(rows.groupby("severity")["size"].first(), series.diameters)
