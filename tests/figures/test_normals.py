"""The figure and the table of methods' health show what was measured, and nothing where nothing was."""

import numpy as np
import pytest

from lib.evidence.marks import Health, MethodHealth, Redrawn
from lib.figures.normals import health_curves, health_table

RA = MethodHealth(
    **{"residual": 0.0551, "detail": 0.5, "frechet": 1234.5, "frechet_sample": 1500.0, "copied": 0.25, "lacks": []},
    **{"kl_real": 100.0, "kl_reconstruction": 150.0, "kl_sample": 160.0},
)
UNET = MethodHealth(residual=0.01, detail=0.9, copied=0.8, lacks=["it copies"])
HEALTH = Health(floor=140.0, components={16: Redrawn(residual=0.06, detail=0.3)}, methods={"ra": RA, "unet": UNET})
HISTORIES = {
    "ra": [
        {"images_seen": 10, "health/residual": 0.08, "health/kl_real": 20.0, "health/kl_sample": 30.0},
        {"images_seen": 20},
        {"images_seen": 30, "health/residual": 0.06, "health/kl_real": 40.0, "health/kl_sample": 50.0},
    ],
    "unet": [{"images_seen": 10, "health/residual": 0.02}],
}


def drawn(ax) -> list[tuple[list, list]]:
    return [
        tuple(np.asarray(values).tolist() for values in line.get_data()) for line in ax.lines if len(line.get_xdata())
    ]


def test_curves_are_the_measures_at_the_epochs_that_have_them():
    residual, frechet, kl, _ = health_curves(HISTORIES, HEALTH).axes
    assert drawn(residual)[:2] == [([10, 30], [0.08, 0.06]), ([10], [0.02])]
    assert [values for _, values in drawn(residual)[2:]] == [[0.06, 0.06]]  # 16 components
    assert [values for _, values in drawn(frechet)] == [[140, 140]]  # the floor alone
    assert drawn(kl) == [([10, 30], [20, 40]), ([10, 30], [30, 50])]


def test_the_title_names_the_methods_that_meet_every_mark():
    assert health_curves(HISTORIES, HEALTH).get_suptitle().endswith("met by: ra")


@pytest.mark.parametrize(
    ("row", "cells"),
    [
        ("ra", ["0.0551", "1,234", "1,500", "50 %", "100 / 150 / 160", "25 %"]),
        ("unet", ["0.0100", "–", "–", "90 %", "–", "80 %"]),
        ("16 components", ["0.0600", "–", "–", "30 %", "–", "–"]),
    ],
)
def test_a_row_of_the_table_holds_what_was_measured(row, cells):
    assert health_table(HEALTH).loc[row].tolist() == cells
