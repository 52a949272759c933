"""`fitted.safetensors`: what was fitted is read as it was written, and a damaged file is refused."""

import numpy as np
import pytest
import torch

from lib.runs.fitted import Fitted, read_fitted, write_fitted
from lib.runs.run import RunError
from lib.scores.likeness import Likeness
from lib.scores.scorer import Fit
from lib.scores.scoring import Standard

RNG = np.random.default_rng(0)
FIT = Fit(
    epoch=3,
    score="ssim, p99 standardised",
    combined=["ssim, p99 standardised", "clahe, mean"],
    members=RNG.random((5, 2)),
    standards={"ssim": Standard(torch.rand(1, 4, 4, dtype=torch.float64), torch.rand(1, 4, 4, dtype=torch.float64))},
    calibration={"primary": RNG.random(6), "chosen": RNG.random(6), "combined": RNG.random(6)},
    distances=[],
    ceiling=0.25,
)
LIKENESS = Likeness(11, 6, {"age": (1.0, 90.0)}, ["AP"], {"grey levels": 0.5}, RNG.random(32), np.empty((0, 0)), "")


def same(found: object, expected: object) -> None:
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for key, value in expected.items():
            same(found[key], value)
    elif isinstance(expected, tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            same(one, other)
    elif isinstance(expected, np.ndarray | torch.Tensor):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    else:
        assert found == expected


def test_what_is_read_is_what_was_written(tmp_path):
    written = Fitted({"ra": FIT, "unet": FIT._replace(epoch=7)}, LIKENESS, {"licence": "free"})
    write_fitted(written, tmp_path / "f")
    same(read_fitted(tmp_path / "f", ""), written)


@pytest.mark.parametrize("damage", ["missing", "cut", "other"])
def test_a_file_that_cannot_be_read_is_refused_with_what_to_do(tmp_path, damage):
    file = tmp_path / "f"
    if damage != "missing":
        write_fitted(Fitted({"ra": FIT}, LIKENESS, {}), file)
        file.write_bytes(file.read_bytes()[:-9] if damage == "cut" else b"no tensors")
    with pytest.raises(RunError, match="evaluate it again"):
        read_fitted(file, "evaluate it again")
