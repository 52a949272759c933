"""Phantoms a second on one core, relative to a Gaussian filter of the image's size."""

from collections.abc import Iterator

import numpy as np
from scipy.ndimage import gaussian_filter
from threadpoolctl import threadpool_limits

from benchmarks.measuring import Figure, compared, in_turns
from lib.data.phantom import FINDINGS, radiograph

IMAGES = 20


def figures(quick: bool) -> Iterator[Figure]:
    """Yield the rate at each size, of normal phantoms and of each finding at the smallest size."""
    for size in (64,) if quick else (64, 128, 256):
        noise = np.random.default_rng(0).random((size, size), dtype=np.float32)
        findings = ("", *FINDINGS) if size == 64 else ("",)

        def drawn(finding: str, size: int = size) -> None:
            for i in range(IMAGES):
                radiograph(i, finding=finding, size=size)

        calls = {finding or "normal": lambda finding=finding, drawn=drawn: drawn(finding) for finding in findings}
        calls["gaussian_filter"] = lambda noise=noise: [gaussian_filter(noise, 4.0) for _ in range(IMAGES)]
        with threadpool_limits(limits=1):
            seconds = in_turns(calls, 2 if quick else 10, f"phantoms of {size} px")
        for finding in list(calls)[:-1]:
            what = f"{finding}, {size} px"
            about = {"own": finding, "reference": "gaussian_filter", "amount": IMAGES, "unit": "images/s"}
            yield compared("phantom", what, seconds, **about)
