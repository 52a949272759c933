"""What every test stands on: no file outside the session's temporary folder, no network."""

import signal
from pathlib import Path

import numpy as np
import pytest
import torch

torch.set_num_threads(1)  # the nets of the tests are so small that threads would only wait for each other
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what it starts in the background


@pytest.fixture(scope="session", autouse=True)
def _nothing_in_the_users_home(tmp_path_factory: pytest.TempPathFactory):
    """Move the image cache and what wandb keeps; a test that wants another place sets its own."""
    base = tmp_path_factory.mktemp("home")
    places = ("IMGAE_DX_CACHE", "WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR")
    with pytest.MonkeyPatch.context() as patch:
        for name in places:
            patch.setenv(name, str(base / name.lower()))
        patch.setenv("OMP_NUM_THREADS", "1")  # of commands and kernels, which run beside other tests
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_SILENT", "true")
        patch.delenv("IMGAE_DX_ROOT", raising=False)
        yield


@pytest.fixture(scope="session")
def xrays() -> Path:
    """The real X-rays that may lie beside the checkout; most machines do not have them."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "cxr"
    if not folder.is_dir():
        pytest.skip("no real X-rays: shared/cxr is not beside the checkout")
    return folder


@pytest.fixture
def images() -> np.ndarray:
    """Nine noisy grey squares, (9, 16, 16) uint8: one more than two batches of four."""
    random = np.random.default_rng(0)
    return (random.integers(40, 160, (9, 1, 1)) + random.integers(0, 96, (9, 16, 16))).astype(np.uint8)
