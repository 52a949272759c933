"""Images per second into and out of the uint8 cache, relative to torchvision's ImageFolder with a DataLoader.

    python -m benchmarks.cache

5,000 grey JPEG files of 256 px (500 phantoms, ten files each) are prepared at 128 px, in batches of 64, all in one
process. Each figure is the best of three passes; the files are in the page cache throughout.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2
from tqdm import tqdm

from lib.data.cache import Cache, CachedImages, Preparation
from lib.data.phantom import radiograph
from lib.data.sources import FolderSource
from lib.methods.method import to_unit

IMAGES, COPIES, IMAGE, SIZE, BATCH = 500, 10, 256, 128, 64


def write_images(folder: Path) -> None:
    for label in ("normal", "abnormal"):
        (folder / label).mkdir(parents=True)
    for i in tqdm(range(IMAGES), desc="draw images", mininterval=1):
        image = np.round(radiograph(i, size=IMAGE).image * 255).astype(np.uint8)
        for copy in range(COPIES):
            Image.fromarray(image).save(
                folder / ("abnormal" if i % 4 == 3 else "normal") / f"{i}-{copy}.jpg", quality=90
            )


def rate(read: Callable[[int], None]) -> float:
    """Return the images per second of the best of three passes; `read` receives the number of the pass."""
    seconds = []
    for number in range(3):
        start = time.perf_counter()
        read(number)
        seconds.append(time.perf_counter() - start)
    return IMAGES * COPIES / min(seconds)


def image_folder(folder: Path, workers: int) -> DataLoader:
    steps = [v2.Grayscale(), v2.Resize(SIZE, antialias=True), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    return DataLoader(ImageFolder(folder, v2.Compose(steps)), BATCH, shuffle=True, num_workers=workers)


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "images"
        write_images(folder)
        source = FolderSource(folder)
        rates = {}
        for workers in (0, 2):
            loader = image_folder(folder, workers)
            rates[f"ImageFolder, DataLoader with {workers} workers"] = rate(
                lambda _, loader=loader: all(len(b) for b in loader)
            )
        rates["into the cache"] = rate(
            lambda n: Cache(source, Preparation(SIZE), Path(temporary) / f"cache-{n}").fill()
        )
        cache = Cache(source, Preparation(SIZE), Path(temporary) / "cache-0")
        cache.fill()
        images = CachedImages(cache, np.arange(IMAGES * COPIES))
        batches = np.random.default_rng(0).permutation(len(images))[: len(images) // BATCH * BATCH].reshape(-1, BATCH)
        rates["out of the cache, uint8"] = rate(lambda _: [images[batch] for batch in batches] and None)
        cpu = torch.device("cpu")
        rates["out of the cache, float32 tensors"] = rate(
            lambda _: [to_unit(images[batch], cpu) for batch in batches] and None
        )
    reference = max(value for name, value in rates.items() if name.startswith("ImageFolder"))
    print(f"\n{torch.get_num_threads()} threads")
    for name, value in rates.items():
        print(f"{name:45} {value:10,.0f} images/s {value / reference:8.2f} x the faster ImageFolder")


if __name__ == "__main__":
    main()
