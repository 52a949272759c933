"""Phantoms per second on one core, and their cost relative to a Gaussian filter of the image's size.

python -m benchmarks.phantom
"""

import time
from collections.abc import Callable

import numpy as np
from scipy.ndimage import gaussian_filter
from threadpoolctl import threadpool_limits

from lib.data.phantom import FINDINGS, radiograph


def seconds(*calls: Callable[[int], object], laps: int = 40) -> list[float]:
    """Return the seconds of each call's fastest lap; calls take turns, because others may share the machine."""
    best = [float("inf")] * len(calls)
    for lap in range(laps):
        for i, call in enumerate(calls):
            start = time.perf_counter()
            call(lap)
            best[i] = min(best[i], time.perf_counter() - start)
    return best


def main() -> None:
    print(f"{'size':>5} {'finding':<13} {'images/s':>9} {'cost / gaussian_filter(sigma=4)':>32}")
    for size in (64, 128, 256):
        noise = np.random.default_rng(0).random((size, size), dtype=np.float32)
        for finding in ("", *FINDINGS):
            drawing, reference = seconds(
                lambda lap, finding=finding, size=size: radiograph(lap, finding=finding, size=size),
                lambda _, noise=noise: gaussian_filter(noise, 4.0),
            )
            print(f"{size:5} {finding or 'normal':<13} {1 / drawing:9.0f} {drawing / reference:32.1f}")


if __name__ == "__main__":
    with threadpool_limits(limits=1):
        main()
