"""How time and memory grow with the number of images: the exponent of a power law, fitted to three sizes.

An exponent of 1 is proportional. Phantoms are drawn once and repeated; scores are drawn at random.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.measuring import Figure, highest
from lib.data.cache import Cache, CachedImages
from lib.data.decoding import encode
from lib.data.phantom import radiograph
from lib.data.preparation import Preparation

ROOT = Path(__file__).parents[1]
SIZE = 64


class Repeated:
    """A source of as many images as wanted, of which 100 differ."""

    synthetic, problems = True, ()

    def __init__(self, images: int) -> None:
        self.name, self.about = f"repeated-{images}", {"from": "formulas"}
        drawn = [np.round(radiograph(i, size=SIZE).image * 255).astype(np.uint8) for i in range(100)]
        self.files = [encode(image) for image in drawn]
        ids = [f"{i}.png" for i in range(images)]
        label = ["abnormal" if i % 4 == 3 else "normal" for i in range(images)]
        empty = dict.fromkeys(("finding", "split", "age", "sex", "view"), "")
        self.records = pd.DataFrame({"id": ids, "label": label, "patient": ids, **empty})

    def contents(self, ids: list[str]) -> Iterator[tuple[str, Callable[[], bytes]]]:
        for image in ids:
            yield image, lambda image=image: self.files[int(image.split(".")[0]) % 100]

    def mask(self, image_id: str) -> None:
        return None


def prepared(images: int, folder: Path) -> CachedImages:
    """Return the images, prepared in the folder."""
    filled = Cache(Repeated(images), Preparation(SIZE), folder)
    filled.fill()
    return CachedImages(filled, np.arange(images))


def cache(images: int, folder: Path) -> float:
    """Return the seconds of preparing the images."""
    filled = Cache(Repeated(images), Preparation(SIZE), folder)
    start = time.perf_counter()
    filled.fill()
    return time.perf_counter() - start


def epoch(images: int, folder: Path) -> float:
    """Return the seconds of reading every image of an epoch once, in random order."""
    cached = prepared(images, folder)
    start = time.perf_counter()
    for batch in np.random.default_rng(0).permutation(images).reshape(-1, 10):
        cached[batch]
    return time.perf_counter() - start


def scoring(images: int, folder: Path) -> float:
    """Return the seconds of the primary score by an untrained U-Net."""
    from lib.methods.variants import VARIANTS
    from lib.params import Params
    from lib.scores.scoring import reconstructed, residuals

    method = VARIANTS["unet"](Params(image_size=SIZE, widths=[4, 8]))
    cached = prepared(images, folder)
    start = time.perf_counter()
    for place, batch in enumerate(reconstructed(method, cached)):
        residuals(cached[64 * place : 64 * place + len(batch)], batch).mean(axis=(1, 2))
    return time.perf_counter() - start


def evaluation(images: int, folder: Path) -> float:
    """Return the seconds of a bootstrap of one score, with 200 resamples."""
    from lib.evidence.uncertainty import bootstrap

    random, is_abnormal = np.random.default_rng(0), np.arange(images) % 4 == 3
    scores = random.normal(size=images) + is_abnormal
    start = time.perf_counter()
    bootstrap(scores[None], is_abnormal, np.arange(images), 200)
    return time.perf_counter() - start


STAGES = {stage.__name__: stage for stage in (cache, epoch, scoring, evaluation)}


def figures(quick: bool) -> Iterator[Figure]:
    """Yield the exponents of each stage; every size runs in a process of its own."""
    sizes = [100, 1000] if quick else [1000, 10_000, 100_000]
    for stage in STAGES:
        found = []
        for images in sizes:
            command = [sys.executable, "-m", "benchmarks.growth", stage, str(images)]
            output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
            found.append([float(number) for number in output.split()[-2:]])
        seconds, memory = np.transpose(found)
        for what, values, unit in (("time", seconds, "s"), ("memory", memory, "MiB")):
            exponent = float(np.polyfit(np.log(sizes), np.log(values), 1)[0])
            at = f"{stage}: {what} of {sizes[-1]:,} images"
            yield Figure("growth", at, float(values[-1]), unit)
            yield Figure("growth", f"{stage}: exponent of {what}", exponent, "")


if __name__ == "__main__":
    before = highest()
    with tempfile.TemporaryDirectory() as temporary:
        spent = STAGES[sys.argv[1]](int(sys.argv[2]), Path(temporary) / "cache")
    print(spent, max(highest() - before, 1))
