"""Which films are nearly the same: a perceptual hash nominates pairs, the correlation of their pixels decides.

The hash is the low frequencies of the film's DCT, as in C. Zauner, Implementation and Benchmarking of Perceptual Image
Hash Functions (2010), kept as numbers. Cut down to Zauner's 64 bits it found all of 260,000 altered copies of real
films at a distance of 20 bits only, within which 13 % of all films lie: chests look alike to it. As numbers it misses
none.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import dctn
from torchvision.transforms.v2 import functional as transforms
from tqdm import tqdm

from lib.cache import Films

SIZE = 64  # pixels a side at which films are compared
CORRELATION = 0.99  # above it, two films are one; in 13 million pairs of different real films it reached 0.973
LOW = 9  # frequencies a side that the hash keeps: the zeroth, and Zauner's eight
ROWS = 128  # films that are compared with all others at once


def near_duplicates(images: np.ndarray | Films) -> NDArray[np.intp]:
    """Return the pairs of nearly equal images, (k, 2) rows, first < second, in order.

    `images`, (n, s, s) uint8, may be a memory map: it is read once, by slices of rows. They are compared at 64 px,
    or at s if that is less. A film without contrast correlates with none.

    Raises:
        ValueError: The images are not square, not uint8, or smaller than the hash needs.

    """
    n, *shape = images.shape
    if (kind := images[:0].dtype) != np.uint8 or len(shape) != 2 or not LOW <= shape[0] == shape[1]:
        raise ValueError(f"images are {kind} {(n, *shape)}: give prepared ones, uint8 (n, s, s) of {LOW} px or more")
    size, starts = min(shape[0], SIZE), range(0, n, ROWS)
    films, hashes = np.empty((n, size, size), dtype=np.uint8), np.empty((n, LOW * LOW + 1), dtype=np.float32)
    for i in tqdm(starts, desc="hash images", unit="block", mininterval=1, delay=1):
        rows = slice(i, i + ROWS)
        block = torch.from_numpy(images[rows].copy())[:, None]
        films[rows] = transforms.resize(block, [size, size], antialias=True).numpy()[:, 0]
        hashes[rows] = _hash(films[rows])
    found = [np.empty((0, 2), dtype=np.intp)]
    for i in tqdm(starts, desc="compare images", unit="block", mininterval=1, delay=1):
        nominated = hashes[i : i + ROWS] @ hashes[i:].T > CORRELATION - 1e-5  # float32's rounding
        first, second = np.divmod(np.flatnonzero(nominated), n - i)
        pairs = i + np.column_stack([first, second])[first < second]
        for some in np.split(pairs, range(ROWS, len(pairs), ROWS)):
            one, other = (_standard(films[side]) for side in some.T)
            found.append(some[(one * other).sum(axis=(1, 2)) > CORRELATION])
    return np.concatenate(found)


def _standard(films: np.ndarray) -> NDArray[np.float32]:
    """Return films of mean 0 and norm 1, whose products are correlations; 0 where there is no contrast."""
    centred = films - films.mean(axis=(1, 2), keepdims=True, dtype=np.float32)
    return centred / np.maximum(np.linalg.norm(centred, axis=(1, 2), keepdims=True), 1e-3)


def _hash(films: np.ndarray) -> NDArray[np.float32]:
    """Return each film's lowest frequencies, and the norm of all others.

    By Cauchy and Schwarz no correlation exceeds the product of two hashes: a pair that this refutes is none.
    """
    spectrum = dctn(_standard(films), axes=(1, 2), norm="ortho")
    low = spectrum[:, :LOW, :LOW].copy()
    spectrum[:, :LOW, :LOW] = 0
    return np.column_stack([low.reshape(len(low), -1), np.linalg.norm(spectrum, axis=(1, 2))])
