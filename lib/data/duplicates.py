"""Which images are nearly the same: a perceptual hash nominates pairs, the correlation of their pixels decides.

The hash holds the low frequencies of the image's DCT, as in C. Zauner, Implementation and Benchmarking of Perceptual
Image Hash Functions (2010), but as numbers. Reduced to Zauner's 64 bits, it finds all of 260,000 altered copies of real
images only within a distance of 20 bits, where 13 % of all images lie, because chests look alike to it. As numbers it
misses none.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import dctn
from torchvision.transforms.v2 import functional as transforms
from tqdm import tqdm

from lib.data.source import ImageStack

SIZE = 64  # pixels per side at which images are compared
CORRELATION = 0.99  # above it, two images are the same; in 13 million pairs of different real images it reached 0.973
LOW = 9  # frequencies per side that the hash keeps: the zeroth, and Zauner's eight
ROWS = 128  # images that are compared with all others at once


def near_duplicates(images: ImageStack) -> NDArray[np.intp]:
    """Return the pairs of nearly equal images, (k, 2) indices, first < second, in order.

    `images`, (n, s, s) uint8, may be a memory map: they are read once, by slices. They are compared at 64 px, or at s
    if that is less. An image without contrast correlates with none.

    Raises:
        ValueError: The images are not square, not uint8, or smaller than the hash needs.

    """
    n, *shape = images.shape
    if (kind := images[:0].dtype) != np.uint8 or len(shape) != 2 or not LOW <= shape[0] == shape[1]:
        raise ValueError(f"images are {kind} {(n, *shape)}: expected prepared ones, uint8 (n, s, s), s at least {LOW}")
    size, starts = min(shape[0], SIZE), range(0, n, ROWS)
    small, hashes = np.empty((n, size, size), dtype=np.uint8), np.empty((n, LOW * LOW + 1), dtype=np.float32)
    for i in tqdm(starts, desc="hash images", unit="block", mininterval=1, leave=False, delay=1):
        rows = slice(i, i + ROWS)
        block = torch.from_numpy(images[rows].copy())[:, None]
        small[rows] = transforms.resize(block, [size, size], antialias=True).numpy()[:, 0]
        hashes[rows] = _hash(small[rows])
    found = [np.empty((0, 2), dtype=np.intp)]
    for i in tqdm(starts, desc="compare images", unit="block", mininterval=1, leave=False, delay=1):
        nominated = hashes[i : i + ROWS] @ hashes[i:].T > CORRELATION - 1e-5  # float32's rounding
        first, second = np.divmod(np.flatnonzero(nominated), n - i)
        pairs = i + np.column_stack([first, second])[first < second]
        for block_pairs in np.split(pairs, range(ROWS, len(pairs), ROWS)):
            a, b = (_standard(small[side]) for side in block_pairs.T)
            found.append(block_pairs[(a * b).sum(axis=(1, 2)) > CORRELATION])
    return np.concatenate(found)


def _standard(images: np.ndarray) -> NDArray[np.float32]:
    """Return images of mean 0 and norm 1, whose products are correlations; 0 for an image without contrast."""
    centred = images - images.mean(axis=(1, 2), keepdims=True, dtype=np.float32)
    return centred / np.maximum(np.linalg.norm(centred, axis=(1, 2), keepdims=True), 1e-3)


def _hash(images: np.ndarray) -> NDArray[np.float32]:
    """Return each image's lowest frequencies, and the norm of all others.

    By the Cauchy-Schwarz inequality no correlation exceeds the product of two hashes, so no pair is missed.
    """
    spectrum = dctn(_standard(images), axes=(1, 2), norm="ortho")
    low = spectrum[:, :LOW, :LOW].copy()
    spectrum[:, :LOW, :LOW] = 0
    return np.column_stack([low.reshape(len(low), -1), np.linalg.norm(spectrum, axis=(1, 2))])
