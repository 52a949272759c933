"""The phantom's patients: line integrals through the solids agree with brute force."""

import numpy as np
import pytest

from lib.data import anatomy
from lib.data.anatomy import half_chord


@pytest.mark.parametrize(("tilt", "power"), [(0.0, 2.0), (0.5, 2.0), (-0.3, 4.0), (0.2, 2.2)])
def test_absorption_in_a_solid_equals_a_sum_along_the_ray(tilt, power):
    (x0, y0), (a, b, c), mu, step = (0.7, -1.1), (3.0, 5.0, 2.0), 0.2, 1e-3
    x, y = np.meshgrid(np.linspace(-4, 5, 19), np.linspace(-7, 5, 25))
    z = np.arange(-2.5, 2.5, step)[:, None, None] + step / 2
    turn = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])
    u, v = np.tensordot(turn, np.stack([x - x0, y - y0]), 1)
    inside = (u / a) ** 2 + np.abs(v / b) ** power + (z / c) ** 2 <= 1
    transmitted = np.exp(-mu * 2 * half_chord(x, y, (x0, y0), (a, b, c), tilt, power))
    np.testing.assert_allclose(transmitted, np.exp(-mu * step * inside.sum(0)), atol=2 * mu * step)


def test_the_lung_beside_heart_and_block_equals_a_count_along_the_ray():
    rng = np.random.default_rng(0)
    lung, block, heart = rng.uniform(0, 9, (3, 500)) * (rng.random((3, 500)) < 0.8)  # a fifth of the rays miss each
    near, far, step = -2.6 - heart, -2.6 + heart, 1e-3
    z = np.arange(-10, 10, step)[:, None] + step / 2
    left = (np.abs(z) < lung) & ~(np.abs(z) < block) & ~((z > near) & (z < far))
    np.testing.assert_allclose(anatomy._lung_left(lung, block, near, far), left.sum(0) * step, atol=6 * step)


def test_projected_vessels_keep_their_volume():
    patient = anatomy.draw_patient(np.random.default_rng([0, 0, 0]))
    chest = anatomy.position(patient, np.random.default_rng([0, 0, 1, 0]))
    for size in (64, 128):
        pixel = anatomy.FIELD / size / chest.scale  # cm of the standard patient
        seen = anatomy.vessels_seen(chest, size).sum(dtype=float) * pixel**2
        assert seen == pytest.approx(chest.vessels[:, 2].sum(), rel=0.01)  # a few tips leave the detector
