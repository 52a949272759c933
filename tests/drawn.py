"""Stacks of images that take no memory, to measure what the work on them takes."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np


class Drawn:
    """Noise, (n, 32, 32), drawn as it is read."""

    def __init__(self, n: int, dtype: type = np.uint8) -> None:
        self.shape, self._dtype = (n, 32, 32), dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        rows = np.arange(len(self))[key]
        noise = np.random.default_rng(0).random((*np.shape(rows), 32, 32), dtype=np.float32)
        return noise if self._dtype is np.float32 else (noise * 255).astype(self._dtype)


def bytes_an_image(work: Callable[[int], object], few: int = 100, many: int = 500) -> float:
    """Return by how much the peak of Python's memory rises with each image that `work` is done on."""

    def peak(n: int) -> int:
        tracemalloc.start()
        try:
            work(n)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(few)  # imports and caches, once
    return (peak(many) - peak(few)) / (many - few)
