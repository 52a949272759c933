"""The phantom: images are reproducible, and a finding changes the pixels of its mask and nothing else."""

from functools import cache

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, label

from lib.data import anatomy, phantom
from lib.data.anatomy import half_chord
from lib.data.phantom import FINDINGS, Radiograph, radiograph

SIZES = (32, 33, 64, 100, 128, 200, 256)
PATIENTS = range(12)


@cache
def image(patient: int, finding: str = "", severity: float | None = None, size: int = 64) -> Radiograph:
    return radiograph(patient, finding=finding, severity=severity, size=size)


def landmarks(patient: int, size: int = 64):
    """The chest of `image`, x and y of its pixels in cm of the standard patient, and half the depth of lung there."""
    body = anatomy.draw_patient(np.random.default_rng([0, patient, 0]))
    chest = anatomy.position(body, np.random.default_rng([0, patient, 1, 0]))
    x, y = anatomy.rays(chest, size)
    return chest, x, y, half_chord(np.abs(x), y, *chest.lung)


@pytest.mark.parametrize("finding", ["", *FINDINGS])
def test_the_same_arguments_give_the_same_bytes(finding):
    first, second = (radiograph(3, 1, finding=finding, size=64, seed=2) for _ in range(2))
    assert first.image.tobytes() == second.image.tobytes()
    assert first.mask.tobytes() == second.mask.tobytes()
    assert first[2:] == second[2:]


def test_another_exposure_shows_the_same_person_in_another_image():
    images = [radiograph(5, exposure, size=64) for exposure in range(4)]
    assert len({(f.sex, f.age) for f in images}) == 1
    assert len({f.image.tobytes() for f in images}) == 4


def test_another_patient_or_seed_gives_another_image():
    images = [radiograph(patient, seed=seed, size=64).image for patient in range(3) for seed in range(3)]
    assert len({image.tobytes() for image in images}) == 9


@pytest.mark.parametrize("size", SIZES)
def test_an_image_is_finite_float32_within_0_and_1_at_any_size(size):
    for patient, finding in enumerate(("", *FINDINGS)):
        image, mask, *_ = radiograph(patient, finding=finding, size=size)
        assert image.shape == mask.shape == (size, size)
        assert (image.dtype, mask.dtype) == (np.float32, np.bool_)
        assert np.isfinite(image).all() and image.min() >= 0 and image.max() <= 1
        assert image.std() > 0.1


@pytest.mark.parametrize("size", (32, 64, 100))
def test_the_mask_is_empty_if_and_only_if_the_image_is_normal(size):
    for patient in PATIENTS:
        assert not radiograph(patient, size=size).mask.any()
        for finding in FINDINGS:
            assert radiograph(patient, finding=finding, severity=0.01, size=size).mask.any(), (patient, finding)


def test_a_normal_image_has_severity_0_and_a_drawn_severity_is_in_0_to_1():
    assert (image(0).finding, image(0).severity) == ("", 0.0)
    drawn = [image(patient, finding).severity for patient in PATIENTS for finding in FINDINGS]
    assert min(drawn) > 0 and max(drawn) <= 1 and len(set(drawn)) == len(drawn)


@pytest.mark.parametrize("finding", FINDINGS)
def test_passing_a_drawn_severity_gives_the_same_image(finding):
    drawn = image(1, finding)
    assert image(1, finding, drawn.severity).image.tobytes() == drawn.image.tobytes()


@pytest.mark.parametrize("finding", FINDINGS)
def test_a_finding_changes_nothing_outside_its_mask_and_almost_every_pixel_inside(finding):
    for patient in PATIENTS:
        normal, abnormal = image(patient), image(patient, finding)
        np.testing.assert_array_equal(normal.image[~abnormal.mask], abnormal.image[~abnormal.mask])
        unclipped = abnormal.mask & (normal.image < 1)
        assert (normal.image != abnormal.image)[unclipped].mean() > 0.98
        assert (abnormal.view, abnormal.sex, abnormal.age) == (normal.view, normal.sex, normal.age)


@pytest.mark.parametrize("finding", FINDINGS)
def test_findings_brighten_their_mask_but_pneumothorax_darkens_it(finding):
    for patient in PATIENTS:
        normal, abnormal = image(patient, "", None, 128), image(patient, finding, 0.6, 128)
        change = float((abnormal.image - normal.image)[abnormal.mask].mean())
        assert change < 0 if finding == "pneumothorax" else change > 0, (patient, change)


@pytest.mark.parametrize("finding", FINDINGS)
def test_a_larger_severity_changes_more_pixels_and_more_light(finding):
    for patient in PATIENTS:
        graded = [image(patient, finding, severity) for severity in (0.1, 0.4, 0.7, 1.0)]
        areas = [int(one.mask.sum()) for one in graded]
        changes = [float(np.abs(one.image - image(patient).image).sum()) for one in graded]
        assert areas == sorted(areas) and areas[0] < areas[-1], (patient, areas)
        assert changes == sorted(changes), (patient, changes)


@pytest.mark.parametrize("finding", FINDINGS)
def test_more_lesions_keep_the_first_one_and_never_show_less(finding):
    for patient in PATIENTS:
        one, three = (radiograph(patient, finding=finding, severity=0.7, lesions=count, size=64) for count in (1, 3))
        assert not (one.mask & ~three.mask).any(), patient
        stronger = np.abs(three.image - image(patient).image) >= np.abs(one.image - image(patient).image) - 1e-6
        assert stronger.all(), patient


def test_several_nodules_lie_apart_and_one_heart_is_one():
    grown = [radiograph(0, finding="cardiomegaly", severity=0.7, lesions=count, size=64) for count in (1, 3)]
    assert grown[0].image.tobytes() == grown[1].image.tobytes()
    counts = [
        label(radiograph(patient, finding="nodule", severity=0.3, lesions=3, size=128).mask)[1] for patient in PATIENTS
    ]
    assert max(counts) == 3


@pytest.mark.parametrize("finding", FINDINGS)
def test_masks_lie_within_the_lungs(finding):
    for patient in PATIENTS:
        *_, lung = landmarks(patient)
        mask = image(patient, finding, 0.8).mask
        assert (mask & (lung > 0)).sum() >= 0.93 * mask.sum(), patient  # the rest: pixels that the edge runs through


@pytest.mark.parametrize("finding", ("opacity", "nodule", "effusion", "pneumothorax"))
def test_a_finding_of_one_lung_stays_on_its_side_of_the_midline(finding):
    sides = set()
    for patient in PATIENTS:
        _, x, _, _ = landmarks(patient)
        places = x[image(patient, finding, 0.5).mask]
        assert (places > -0.6).all() or (places < 0.6).all(), patient
        sides.add(bool(places.mean() > 0))
    assert sides == {True, False}


def test_an_effusion_lies_low_and_reaches_the_diaphragm():
    for patient in PATIENTS:
        chest, _, y, _ = landmarks(patient)
        places = y[image(patient, "effusion", 0.3).mask]
        assert places.mean() > (chest.top + chest.dome) / 2
        assert places.max() > chest.dome


def test_a_pneumothorax_reaches_the_apex_and_the_lateral_wall():
    for patient in PATIENTS:
        chest, x, y, _ = landmarks(patient)
        mask = image(patient, "pneumothorax", 0.5).mask
        assert y[mask].min() < chest.top + 2
        assert np.abs(x[mask]).max() > 11


def test_a_pneumothorax_shows_no_vessels():
    chest, *_ = landmarks(0, 128)
    rays = anatomy.rays(chest, 128)
    vessels = anatomy.vessels_seen(chest, 128)
    normal, aerated, blood = anatomy.line_integral(chest, *rays, vessels)
    bare, empty, _ = anatomy.line_integral(chest, *rays, np.zeros_like(vessels))
    change = phantom._lesion("pneumothorax", 1.0, chest, np.random.default_rng(0), *rays, aerated, blood)
    without = phantom._lesion("pneumothorax", 1.0, chest, np.random.default_rng(0), *rays, empty, 0 * blood)
    gas = without < -0.9 * chest.build * anatomy.MU_LUNG * empty  # nine tenths of the ray's lung gone
    seen = gas & (empty > 5) & (blood > 0.1)
    assert seen.sum() > 50
    before = (normal - bare)[seen]
    assert np.abs((normal + change - bare - without)[seen] / before).max() < 0.3


def test_cardiomegaly_widens_the_heart_to_both_sides_with_severity():
    for patient in PATIENTS:
        spans = []
        for severity in (0.1, 0.5, 1.0):
            columns = np.flatnonzero(image(patient, "cardiomegaly", severity, 128).mask.any(0))
            spans.append((int(columns[0]), int(columns[-1])))
        (left, right), (wider_left, wider_right), (widest_left, widest_right) = spans
        assert left > wider_left > widest_left and right < wider_right < widest_right, (patient, spans)


def test_the_heart_lies_to_the_right_of_the_image():
    for patient in PATIENTS:
        chest, x, y, _ = landmarks(patient)
        beside = (np.abs(x) > 2.5) & (np.abs(x) < 8) & (y > chest.dome - 5) & (y < chest.dome - 1)
        pixels = image(patient).image
        assert pixels[beside & (x > 0)].mean() > pixels[beside & (x < 0)].mean() + 0.02, patient


def test_lungs_are_darker_than_mediastinum_and_abdomen():
    for patient in PATIENTS:
        chest, x, y, lung = landmarks(patient)
        pixels = image(patient).image
        lungs = pixels[(lung > 6) & (np.abs(x) > 6) & (y < chest.dome - 3)].mean()
        assert lungs + 0.15 < pixels[(np.abs(x) < 1.5) & (np.abs(y) < 5)].mean(), patient
        assert lungs + 0.15 < pixels[(np.abs(x) < 8) & (y > chest.dome + 4)].mean(), patient


def test_most_images_are_pa_and_both_sexes_and_views_occur():
    images = [radiograph(patient, size=32, seed=1) for patient in range(100)]
    assert 0.5 < np.mean([one.view == "PA" for one in images]) < 0.9
    assert 0.3 < np.mean([one.sex == "F" for one in images]) < 0.7
    assert all(18 <= one.age <= 90 for one in images)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"finding": "tumour"}, "'tumour'.*opacity, nodule, effusion, cardiomegaly, pneumothorax"),
        ({"finding": "nodule", "severity": 0.0}, r"severity=0.0 is not in \(0, 1\]"),
        ({"finding": "nodule", "severity": 1.5}, r"severity=1.5 is not in \(0, 1\]"),
        ({"finding": "nodule", "severity": float("nan")}, r"severity=nan is not in \(0, 1\]"),
        ({"severity": 0.5}, "severity=0.5 without a finding.*opacity"),
        ({"size": 31}, "size=31.*32 or more"),
        ({"seed": -1}, "seed=-1.*0 or more"),
        ({"exposure": -2}, "exposure=-2.*0 or more"),
    ],
)
def test_bad_arguments_are_refused_by_name_with_what_is_allowed(arguments, message):
    with pytest.raises(ValueError, match=message):
        radiograph(0, **arguments)


def test_scatter_blur_equals_a_gaussian_with_mirrored_edges():
    source = np.random.default_rng(0).random((50, 50))
    np.testing.assert_allclose(phantom._spread(source, 4.0), gaussian_filter(source, 4.0, truncate=8), atol=1e-3)
