"""A small run from start to end, and its test images as files: what tests of its results share."""

import shutil
from pathlib import Path

import pytest
import yaml

from lib.data.sources import open_source
from lib.params import Params
from lib.runs import cli
from lib.runs.run import Run

SETTINGS = {
    **{"phantom_images": 60, "image_size": 32, "widths": [4, 8], "latent_dim": 4, "epochs": 2, "choose_from": [1]},
    **{"methods": ["unet", "ra"], "ra_warmup_epochs": 0, "batch_size": 4, "resamples": 100, "precision": "float32"},
    **{"device": "cpu", "references": [], "backbone": "none", "measure_every": 0},
}


@pytest.fixture(scope="session")
def small_run(tmp_path_factory) -> Path:
    """A run that was trained and evaluated; its images and reconstructions are gone."""
    base = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMGAE_DX_CACHE", str(base / "cache"))
        (base / "small.yaml").write_text(yaml.safe_dump(SETTINGS))
        assert cli.train_command([str(base / "small.yaml")]) == 0
        assert cli.evaluate_command([str(base / "runs" / "small")]) == 0
        shutil.rmtree(base / "cache")
        shutil.rmtree(base / "runs" / "small" / "reconstructions")
    return base / "runs" / "small"


@pytest.fixture(scope="session")
def films(small_run, tmp_path_factory) -> Path:
    """The small run's test images as files."""
    folder, settings = tmp_path_factory.mktemp("films"), Params(**SETTINGS)
    source = open_source(settings, folder)
    tested = Run.open(small_run).scores().query("side == 'test'")["id"]
    for name, read in source.contents(list(tested)):
        (folder / f"{name}.pgm").write_bytes(read())
    return folder
