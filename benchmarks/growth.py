"""How time grows with the number of images, as the exponent of a power law that is fitted to three sizes; and memory.

An exponent of 1 is proportional. Memory is the process's own: the cache is mapped from its file, and how much of that
stays in memory is up to the system. Phantoms are drawn once and repeated; scores are drawn at random.
"""

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from benchmarks.measuring import Figure, memory
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


Work = Callable[[], object]


def cache(images: int, folder: Path) -> Work:
    """Return the preparation of the images, which leaves them in the folder."""
    return Cache(Repeated(images), Preparation(SIZE), folder).fill


def prepared(images: int, folder: Path) -> CachedImages:
    """Return the images that `cache` has left in the folder."""
    filled = Cache(Repeated(images), Preparation(SIZE), folder)
    filled.fill()
    return CachedImages(filled, np.arange(images))


def epoch(images: int, folder: Path) -> Work:
    """Return what an epoch does before its steps: each image once, in random order, as float32; with one thread."""
    from lib.methods.method import to_unit

    cached, cpu = prepared(images, folder), torch.device("cpu")

    torch.set_num_threads(1)

    def read() -> None:
        for batch in np.random.default_rng(0).permutation(images).reshape(-1, 10):
            to_unit(cached[batch], cpu)

    return read


def scoring(images: int, folder: Path) -> Work:
    """Return the primary score by an untrained U-Net."""
    from lib.methods.variants import VARIANTS
    from lib.params import Params
    from lib.scores.scoring import reconstructed, residuals

    method = VARIANTS["unet"](Params(image_size=SIZE, widths=[4, 8]))
    cached = prepared(images, folder)

    def score() -> None:
        for place, batch in enumerate(reconstructed(method, cached)):
            residuals(cached[64 * place : 64 * place + len(batch)], batch).mean(axis=(1, 2))

    return score


def evaluation(images: int, folder: Path) -> Work:
    """Return a bootstrap of one score, with 200 resamples."""
    from lib.evidence.uncertainty import bootstrap

    random, is_abnormal = np.random.default_rng(0), np.arange(images) % 4 == 3
    scores = random.normal(size=images) + is_abnormal
    return lambda: bootstrap(scores[None], is_abnormal, np.arange(images), 200)


STAGES = {stage.__name__: stage for stage in (cache, epoch, scoring, evaluation)}


def spent(work: Work) -> tuple[float, float]:
    """Return the seconds of some work, and by how many MiB it raises the memory at most, looked at every 5 ms."""
    before, held, done = memory("RssAnon"), [0.0], threading.Event()

    def look() -> None:
        while not done.wait(0.005):
            held.append(memory("RssAnon") - before)

    looking = threading.Thread(target=look)
    looking.start()
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    done.set()
    looking.join()
    return seconds, max(held)


def figures(quick: bool) -> Iterator[Figure]:
    """Yield the time's exponent of each stage, and the memory; every size runs in a process of its own."""
    sizes = [100, 1000] if quick else [1000, 10_000, 100_000]
    with tempfile.TemporaryDirectory() as temporary:
        for stage in tqdm(STAGES, desc="growth", leave=False):
            found = []
            for images in sizes:
                command = [sys.executable, "-m", "benchmarks.growth", stage, str(images), f"{temporary}/{images}"]
                output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
                found.append([float(number) for number in output.split()[-2:]])
            seconds, raised = np.transpose(found)
            exponent = float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])
            yield Figure("growth", f"{stage}: time of {sizes[-1]:,} images", float(seconds[-1]), "s")
            yield Figure("growth", f"{stage}: exponent of time", exponent, "")
            for images, held in zip(sizes, raised, strict=True):
                yield Figure("growth", f"{stage}: memory of {images:,} images", float(held), "MiB")


if __name__ == "__main__":
    print(*spent(STAGES[sys.argv[1]](int(sys.argv[2]), Path(sys.argv[3]))))
