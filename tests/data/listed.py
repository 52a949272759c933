"""A source of grey images in memory, its caches, and folders that cannot be written."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from lib.data.cache import Cache, CachedImages
from lib.data.decoding import encode
from lib.data.preparation import Preparation
from lib.data.source import SourceError


class Listed:
    """A source in memory that counts how often each image is read."""

    synthetic, about, problems = True, {}, []

    def __init__(self, images: dict[str, bytes], name: str = "listed-1") -> None:
        self.name, self.images = name, images
        self.records = pd.DataFrame({"id": list(images)})
        self.reads: list[str] = []

    def contents(self, ids: Sequence[str]) -> Iterator[tuple[str, Callable[[], bytes]]]:
        for image_id in ids:
            self.reads.append(image_id)
            yield image_id, lambda i=image_id: self.images[i]

    def mask(self, image_id: str) -> None:
        return None


def greys(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {f"i{i}": rng.integers(0, 256, (20 + i % 5, 30), dtype=np.uint8) for i in range(count)}


def listed(count: int, **columns) -> Listed:
    return Listed({name: encode(image) for name, image in greys(count).items()}, **columns)


def filled(source: Listed, folder: Path, size: int = 16) -> Cache:
    cache = Cache(source, Preparation(size), folder)
    cache.fill()
    return cache


def images(cache: Cache) -> np.ndarray:
    return np.asarray(CachedImages(cache, np.arange(len(cache.rows))))


def expected(count: int, size: int = 16) -> np.ndarray:
    return np.stack([Preparation(size).image(image) for image in greys(count).values()])


class Gated(Listed):
    """Image i arrives once `through` is greater than i."""

    def contents(self, ids: Sequence[str]) -> Iterator[tuple[str, Callable[[], bytes]]]:
        for item in super().contents(ids):
            while int(item[0][1:]) >= self.through:
                time.sleep(0.01)
            if self.through > 100:
                raise SourceError("the network is gone")
            yield item


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Let nothing be written below a folder; root, whom no permission stops, acts as another user meanwhile."""
    below, user = [folder, *folder.rglob("*")], os.geteuid()
    modes = {path: path.stat().st_mode for path in below}
    for path, mode in modes.items():
        path.chmod(mode & ~0o222 | 0o444)
    if user == 0:
        os.seteuid(65534)
    try:
        assert not os.access(folder, os.W_OK, effective_ids=True)
        yield
    finally:
        os.seteuid(user)
        for path, mode in modes.items():
            path.chmod(mode)
