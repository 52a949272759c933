"""Images, maps and marked lesions in few bytes: what a page of many images shows."""

from io import BytesIO

import numpy as np
from PIL import Image
from skimage.measure import find_contours

from lib.figures.overlay import COLOURS

STEPS = 32  # of the colours of a map; a browser interpolates between them


def picture(grey: np.ndarray, quality: int) -> bytes:
    """Return a grey image, (height, width) uint8, as lossy WebP; `quality` is at most 100."""
    Image.fromarray(grey).save(file := BytesIO(), "webp", quality=quality, method=4)
    return file.getvalue()


def shares(values: np.ndarray, ceiling: float) -> np.ndarray:
    """Return a map, (height, width), as grey levels, uint8: 255 at `ceiling` and above."""
    return np.round(255 * (values / ceiling).clip(0, 1)).astype(np.uint8)


def outline(mask: np.ndarray) -> str:
    """Return the outlines of a mask, (height, width) bool, as an SVG path in pixels; "" if no pixel is set."""
    closed = np.pad(mask.astype(float), 1)  # a region at the border has an outline there too
    lines = [contour[:, ::-1] - 0.5 for contour in find_contours(closed, 0.5)]  # a pixel's centre is half a pixel in
    return "".join(f"M{' '.join(f'{x:.1f},{y:.1f}' for x, y in line[:-1])}Z" for line in lines)


def colour_tables() -> dict[str, str]:
    """Return the colours of grey levels 0 to 255 as SVG's `tableValues`, by channel."""
    some = COLOURS[np.linspace(0, 255, STEPS + 1).round().astype(int)] / 255
    return {channel: " ".join(f"{value:.3f}" for value in some[:, i]) for i, channel in enumerate("RGB")}
