"""Images a second from JPEG files to scores.csv and maps, by `imgae-score` with the primary score alone.

Phantoms of 1,024 px are scored at 64 and 128 px by an untrained U-Net; the reference is Pillow, which decodes the same
files and makes them small, on one thread.
"""

import itertools
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.files import jpeg
from benchmarks.measuring import Figure, compared, in_turns
from lib.data.phantom import radiograph
from lib.methods.method import to_device
from lib.methods.variants import VARIANTS
from lib.params import Params
from lib.runs.fitted import Fitted
from lib.runs.model import Model
from lib.runs.new_images import Asked, write_scores
from lib.scores.likeness import Likeness
from lib.scores.scorer import Fit

PIXELS, DRAWN = 1024, 8


def untrained(size: int) -> Model:
    """Return a model of that image size, calibrated on nothing."""
    params = Params(methods=["unet"], image_size=size, widths=[8, 16, 32, 64], backbone="none", device="cpu")
    torch.manual_seed(0)
    calibration = dict.fromkeys(("primary", "chosen", "combined"), np.linspace(0, 1, 99))
    fit = Fit(1, "residual, mean", ["residual, mean"], np.zeros((2, 1)), {}, calibration, [], 0.2)
    likeness = Likeness(198, 99, {}, [], {"grey levels": 1.0}, np.full(32, 1 / 32), np.empty((0, 0), np.float32), "")
    to_device(method := VARIANTS["unet"](params), torch.device("cpu"))  # as those that are opened
    return Model("untrained", params, {"unet": {1: method}}, Fitted({"unet": fit}, likeness, {}), "")


def figures(quick: bool) -> Iterator[Figure]:
    """Yield the rate at each image size, with and without maps."""
    images, laps = (64, 1) if quick else (256, 3)
    with tempfile.TemporaryDirectory() as temporary:
        base, runs = Path(temporary), itertools.count()
        files = base / "films"
        files.mkdir()
        drawn = [np.round(radiograph(i, size=PIXELS).image * 255).astype(np.uint8) for i in range(DRAWN)]
        for i in range(images):
            (files / f"{i}.jpg").write_bytes(jpeg(drawn[i % DRAWN] // (1 + i // DRAWN % 2)))

        def decode() -> None:
            for file in files.iterdir():
                with Image.open(file) as image:
                    image.convert("L").resize((128, 128), Image.Resampling.BILINEAR)

        def score(model: Model, maps: bool) -> None:
            write_scores(model, [str(files)], Asked(primary_only=True, maps=maps), base / f"out-{next(runs)}")

        calls: dict[str, Callable[[], object]] = {"Pillow alone, one thread": decode}
        for size, maps in itertools.product((64, 128), (True, False)):
            name = f"to scores at {size} px{' and maps' if maps else ''}"
            calls[name] = partial(score, untrained(size), maps)
        seconds = in_turns(calls, laps, "new images")
    reference, *others = calls
    for name in others:
        yield compared("new_images", name, seconds, own=name, reference=reference, amount=images, unit="images/s")
