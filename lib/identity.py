"""The identity test: how much of a change that no chest contains does a method give back? It takes no abnormal film."""

from typing import NamedTuple

import numpy as np

from lib.cache import Films
from lib.method import Method
from lib.scoring import reconstruct

KINDS = ("square", "shuffle")


class Copied(NamedTuple):
    """The share that was given back, and the films with what was pasted, uint8, beside their reconstructions."""

    share: float
    pasted: np.ndarray
    reconstructed: np.ndarray


def copied_share(method: Method, films: np.ndarray | Films, kind: str = "square") -> Copied:
    r"""Change a patch of each film and return which share of the change comes back: 1 if copied whole, 0 if taken out.

    A sixth of the film wide, the patch is painted white ("square": coarse), or its own pixels are put in random order
    ("shuffle": fine; the grey values stay). With the change $d$ of the films, (n, height, width) uint8, and the change
    $r$ of their reconstructions, the share is that of $d$'s projection, $\langle r, d \rangle / \langle d, d \rangle$.

    Raises:
        ValueError: The patch is white, or flat, in every film: nothing would be changed; or `kind` is none of `KINDS`.

    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r} is none of {', '.join(KINDS)}")
    films = np.array(films)
    side = films.shape[-1] // 6
    there = (slice(None), slice(2 * side, 3 * side), slice(side, 2 * side))
    pasted, patch = films.copy(), films[there]
    if kind == "square":
        pasted[there] = 255
    else:
        pasted[there] = np.random.default_rng(0).permuted(patch.reshape(len(films), -1), axis=1).reshape(patch.shape)
    change = (pasted.astype(np.float64) - films) / 255
    if not change.any():
        raise ValueError(f"a {kind} changes none of the {len(films)} films: their patches are flat; give other films")
    before, after = (reconstruct(method, images, name=kind).astype(np.float64) for images in (films, pasted))
    return Copied(float(((after - before) * change).sum() / (change**2).sum()), pasted, after.astype(np.float32))
