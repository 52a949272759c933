"""Training with small settings, for the tests of the loop and of checkpoints."""

import numpy as np
import pytest
import torch
from toys import CPU

from lib.methods.method import Method
from lib.methods.training import train


@pytest.fixture
def fit(tmp_path, images):
    """Train with settings that a test can override by name; the checkpoint is `here.pt` in the test's folder."""

    def fit(method: Method, training_images: np.ndarray = images, **overrides):
        defaults = {
            "epochs": 2,
            "batch_size": 4,
            "learning_rate": 1e-3,
            "seed": 0,
            "checkpoint": tmp_path / "here.pt",
            "settings": {"seed": 0, "widths": [4, 6]},
            "device": CPU,
            "precision": torch.float32,
        }
        return train(method, training_images, images[:5], **(defaults | overrides))

    return fit
