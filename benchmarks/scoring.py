"""Seconds to score images with an untrained U-Net, relative to the network's forward passes alone.

The primary score; every map, pool and form of them, with distances in frozen features where their weights are
installed; and the references.
"""

from collections.abc import Iterator

import numpy as np
import torch

from benchmarks.measuring import Figure, compared, in_turns
from lib.data.phantom import radiograph
from lib.methods.method import to_unit
from lib.methods.training import choose_device
from lib.methods.variants import VARIANTS
from lib.params import Params
from lib.scores.scoring import reconstruct, residuals, score_images
from lib.scores.selection import feature_distances


def figures(quick: bool) -> Iterator[Figure]:
    """Yield the cost of the primary score and of all scores."""
    count, laps = (200, 1) if quick else (1000, 1)
    params, device = Params(preset="standard", image_size=64, widths=[8, 16, 32, 64]), choose_device()
    drawn = np.stack([np.round(radiograph(i, size=64).image * 255).astype(np.uint8) for i in range(200)])
    images = np.tile(drawn, (count // 200, 1, 1))
    torch.manual_seed(0)
    method = VARIANTS["unet"](params).to(device).eval()
    _, distances = feature_distances(params, {"unet": method}, device)

    def forward() -> None:
        with torch.no_grad():
            for start in range(0, count, 64):
                method.reconstruct(to_unit(images[start : start + 64], device))

    def primary() -> np.ndarray:
        return residuals(images, reconstruct(method, images)).mean(axis=(1, 2))

    def every(among: dict) -> None:
        sides = {"reference": images[: count // 2], "test": images[count // 2 :]}
        found = {side: reconstruct(method, of_side) for side, of_side in sides.items()}
        score_images(sides, {"unet": found}, among)

    calls = {
        "the network alone": forward,
        "the primary score": primary,
        "all scores of residual maps": lambda: every({}),
        f"all scores, with {', '.join(distances) or 'no features'}": lambda: every(distances),
    }
    seconds = in_turns(calls, laps, f"scores of {count} images")
    for name in list(calls)[1:]:
        yield compared("scoring", name, seconds, own=name, reference="the network alone", amount=count, unit="images/s")
