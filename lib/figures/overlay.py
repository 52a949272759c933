"""A map of one image as pictures: colours over the image, and every value in 16 bits."""

from io import BytesIO

import matplotlib as mpl
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

COLOURS = np.round(mpl.colormaps["inferno"](np.arange(256))[:, :3] * 255)
MOST = 0.8  # of the colour; the image stays visible where the map is highest


def overlay(image: np.ndarray, values: np.ndarray, ceiling: float, box: tuple[float, float, float, float]) -> bytes:
    """Return a PNG of the image, (height, width) uint8, under colours; a colour's weight grows with the map's value.

    The image lies in the `box` of the map `values`: left, top, right, bottom, in pixels of the map. At `ceiling` and
    above, the colour is the brightest.
    """
    shares = Image.fromarray((values / ceiling).clip(0, 1).astype(np.float32))
    height, width = image.shape
    of_pixels = np.asarray(shares.resize((width, height), Image.Resampling.BILINEAR, box=box))
    weights, colours = MOST * of_pixels[..., None], COLOURS[np.round(of_pixels * 255).astype(int)]
    mixed = image[..., None] * (1 - weights) + colours * weights
    return _png(Image.fromarray(np.round(mixed).astype(np.uint8)))


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


def _png(image: Image.Image, **options: PngInfo) -> bytes:
    image.save(file := BytesIO(), "png", compress_level=1, **options)
    return file.getvalue()
