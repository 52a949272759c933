"""What decoding gives: one grey image, or the reason why the bytes are none; for every format alike."""

import zlib
from typing import NamedTuple

import numpy as np

SHORTEST, LONGEST = 16, 10_000  # pixels per side; radiographs are below 5,000, and more may be a decompression bomb
INFLATED = 2**27  # bytes that a file may hold when it is unpacked: 8,000 x 8,000 pixels of 16 bits
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green and blue: ITU-R BT.601, as in Pillow


class ImageError(ValueError):
    """These bytes are not a usable image; equal reasons have equal messages, up to the details after ": "."""


class Decoded(NamedTuple):
    """One grey image; of a DICOM file, `header` has `patient`, `age`, `sex` and `view` as written, or ""."""

    pixels: np.ndarray  # (height, width) uint8, uint16 or float32 on any scale, perhaps read-only; white is dense
    header: dict[str, str]  # {} for other files
    padding: np.ndarray | None = None  # (height, width) bool: where nothing was recorded; black in `pixels`


def check_size(width: int, height: int, images: int) -> None:
    """Raise ImageError unless there is one image, of a usable size in pixels."""
    if min(width, height) < SHORTEST:
        raise ImageError(f"is too small to be an image: {width} x {height} pixels")
    if max(width, height) > LONGEST:
        raise ImageError(f"is too large to be an image: {width} x {height} pixels")
    if images > 1:
        raise ImageError(f"holds several images: {images}")


def check_inflated(deflated: bytes, window: int) -> None:
    """Raise ImageError if a zlib stream (`window` as in zlib) holds more than a large image, without keeping it."""
    unpack, size = zlib.decompressobj(window), 0
    while deflated and not unpack.eof:
        size += len(unpack.decompress(deflated, 2**24))
        deflated = unpack.unconsumed_tail
        if size > INFLATED:
            raise ImageError(f"is too large when it is unpacked: more than {INFLATED:,} bytes")
