"""Synthetic lesions painted into normal images, which a score must find to be chosen by model selection.

Precedent: model selection by synthetic anomalies (Fung, Qiu, Li & Rudolph, arXiv 2310.10461).
"""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import gaussian_filter

KINDS = ("opacity", "foreign", "blurred")
"""The kinds of lesion; by default, image i of `with_lesions` gets `KINDS[i % 3]`."""

# Ranges, chosen by looking at real images of 64 and 128 pixels: from hardly visible to obvious. Lengths are shares of a
# side. All but the place are drawn uniformly on a logarithmic scale, so that small and faint lesions are more frequent.
DOWN, ASIDE = (0.3, 0.65), (0.08, 0.2)  # the centre: below the upper border, to one side of the midline, in the lungs
RADIUS = (0.08, 0.2)  # of each half axis; the boxes in RSNA's images cover a median of 9 % of the image
IRREGULARITY = 0.2  # of the outline, as a share of the radius: a region ends within 0.25 of its centre
DENSE, OPACITY = 230, (0.15, 0.7)  # the grey of soft tissue, and how far an opacity goes towards it
WEIGHT = (0.3, 1.0)  # of the other image's patch
BLUR = (0.012, 0.05)  # standard deviation


def with_lesions(images: np.ndarray, seed: int = 0, kinds: Sequence[str] = KINDS) -> tuple[np.ndarray, np.ndarray]:
    """Return copies of normal images, (n, h, w) uint8, with one synthetic lesion each, and the lesions' masks, bool.

    The kinds take turns: "opacity", denser, as a consolidation is; "foreign", blended with a patch of the next image
    (foreign patch interpolation: Tan et al., MELBA 2022, arXiv 2011.04197); "blurred", without its fine texture. All
    have irregular outlines and soft edges. Outside its mask an image is unchanged.

    Raises:
        ValueError: The images are not (n, h, w) uint8, or fewer than two.

    """
    images = np.asarray(images)
    if images.ndim != 3 or images.dtype != np.uint8 or len(images) < 2:
        raise ValueError(f"images are {images.shape} {images.dtype}: expected at least two, (n, height, width) uint8")
    random = np.random.default_rng(seed)
    painted, masks = images.copy(), np.empty(images.shape, dtype=bool)
    for i, image in enumerate(images):
        weight, cloud = _region(image.shape, random)
        kind, grey = kinds[i % len(kinds)], image.astype(np.float32)
        if kind == "opacity":
            # A share of the way to soft tissue, not a fixed amount, so that dense regions do not become white discs.
            grey += _log_uniform(OPACITY, random) * weight * (1 + 0.4 * cloud) * (DENSE - grey).clip(0)
        elif kind == "foreign":
            grey += _log_uniform(WEIGHT, random) * weight * (images[(i + 1) % len(images)] - grey)
        else:
            grey += weight * (gaussian_filter(grey, _log_uniform(BLUR, random) * max(image.shape)) - grey)
        masks[i] = weight > 0
        painted[i] = np.round(grey)  # always within [0, 255]: a weighted mean of greys
    return painted, masks


def _log_uniform(limits: tuple[float, float], random: np.random.Generator) -> float:
    return float(np.exp(random.uniform(*np.log(limits))))


def _region(shape: tuple[int, int], random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return an irregular region's weight in [0, 1], 0 outside it, and smooth noise in [-1, 1], both (h, w) float32."""
    noise = gaussian_filter(random.standard_normal(shape, dtype=np.float32), 0.05 * max(shape), mode="wrap")
    noise /= np.abs(noise).max()
    y, x, turn = random.uniform(*DOWN), 0.5 + random.choice([-1, 1]) * random.uniform(*ASIDE), random.uniform(0, np.pi)
    down, right = (np.arange(shape[0])[:, None] + 0.5) / shape[0] - y, (np.arange(shape[1]) + 0.5) / shape[1] - x
    along, across = right * np.cos(turn) + down * np.sin(turn), down * np.cos(turn) - right * np.sin(turn)
    distance = np.hypot(along / _log_uniform(RADIUS, random), across / _log_uniform(RADIUS, random))
    inside = (2 - 2 * distance * (1 + IRREGULARITY * noise)).clip(0, 1).astype(np.float32)
    return inside**2 * (3 - 2 * inside), noise  # smoothstep: its slope is 0 at both edges
