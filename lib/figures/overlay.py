"""An image and its map as pictures: colours over the image, every value in 16 bits, the image as it is."""

from io import BytesIO

import matplotlib as mpl
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

COLOURS = np.round(mpl.colormaps["inferno"](np.arange(256))[:, :3] * 255).astype(np.uint8)
MOST = 0.8  # of the colour; the image stays visible where the map is highest
QUALITY = 92  # of JPEG, which takes a tenth of the time of PNG


def overlay(image: np.ndarray, values: np.ndarray, ceiling: float, box: tuple[float, float, float, float]) -> bytes:
    """Return the `coloured` image as a JPEG."""
    coloured(image, values, ceiling, box).save(file := BytesIO(), "jpeg", quality=QUALITY)
    return file.getvalue()


def coloured(
    image: np.ndarray, values: np.ndarray, ceiling: float, box: tuple[float, float, float, float]
) -> Image.Image:
    """Return the image, (height, width) uint8, under colours, whose weight grows with the map's value.

    The image lies in the `box` of the map `values`: left, top, right, bottom, in pixels of the map. At `ceiling` and
    above, the colour is the brightest.
    """
    levels = Image.fromarray(np.round((values / ceiling).clip(0, 1) * 255).astype(np.uint8))
    levels = levels.resize(image.shape[::-1], Image.Resampling.BILINEAR, box=box)
    weights = levels.point([round(MOST * level) for level in range(256)])
    colours = Image.fromarray(np.asarray(levels), "P")
    colours.putpalette(COLOURS.tobytes())
    return Image.composite(colours.convert("RGB"), Image.fromarray(image).convert("RGB"), weights)


def sixteen_bits(values: np.ndarray, low: float, high: float) -> bytes:
    """Return a map, (height, width) in [low, high], as a grey PNG of 16 bits: low + grey / 65535 (high - low).

    The file's text entries "low" and "high" say the range. ValueError if a value is outside.
    """
    if not (low <= values.min() and values.max() <= high):
        raise ValueError(f"the map lies in [{values.min()}, {values.max()}], expected [{low}, {high}]: widen the range")
    text = PngInfo()
    for name, value in (("low", low), ("high", high)):
        text.add_text(name, repr(float(value)))
    grey = np.round((values - low) * (65535 / (high - low))).astype(np.uint16)
    return _png(Image.fromarray(grey), pnginfo=text)


def eight_bits(image: np.ndarray) -> bytes:
    """Return an image, (height, width) uint8, as a grey PNG."""
    return _png(Image.fromarray(image))


def _png(image: Image.Image, **options: PngInfo) -> bytes:
    image.save(file := BytesIO(), "png", compress_level=1, **options)
    return file.getvalue()
