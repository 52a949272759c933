"""The caches of prepared images on this machine: how large each is, when it was last used, and removing it.

A process that uses a cache holds a lock on it (`lib.data.cache`), so that none is removed under its hands. Whatever
else lies in the folder of caches is neither listed nor touched.
"""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

NAME = re.compile(r"images-[0-9a-f]{16}")
FILES = ("rows.jsonl", "pixels.npy", "near-duplicates.npy", "problems.csv", "lock")  # in the order of their removal
PARTIAL = re.compile(rf"\.({'|'.join(map(re.escape, FILES))})\.\d+\.tmp")  # what a killed process leaves of them


class StoredCache(NamedTuple):
    """A cache as it lies on the disk."""

    folder: Path
    images: int
    """0 if its pixels are missing or damaged."""
    side: int
    """Of an image, in pixels."""
    bytes: int
    """That it takes on the disk."""
    used: datetime
    """When it was last used."""
    in_use: bool
    """Whether a process uses or fills it now."""


def caches(folder: Path) -> list[StoredCache]:
    """Return the caches in the folder of caches, the longest unused first."""
    found = [_stored(one) for one in folder.iterdir() if _is_ours(one)] if folder.is_dir() else []
    return sorted(found, key=lambda cache: cache.used)


def remove(folder: Path) -> bool:
    """Remove a cache; return whether it is gone: one that is in use stays, and so does what is no cache.

    The journal goes first, so that no line of it outlives the pixels that it vouches for, whatever interrupts.
    """
    if not _is_ours(folder):
        return False
    with _unused(folder) as unused:
        if unused:
            for file in sorted(folder.iterdir(), key=lambda file: FILES.index(file.name) if file.name in FILES else -1):
                file.unlink()
            folder.rmdir()
        return unused


def _is_ours(folder: Path) -> bool:
    """Return whether this is a folder with the name of a cache that holds a cache's files and nothing else."""
    readable = not folder.is_symlink() and folder.is_dir() and os.access(folder, os.R_OK | os.X_OK)
    if not NAME.fullmatch(folder.name) or not readable:
        return False
    files = list(folder.iterdir())
    known = all(file.name in FILES or PARTIAL.fullmatch(file.name) for file in files)
    return known and all(file.is_file() and not file.is_symlink() for file in files)


def _stored(folder: Path) -> StoredCache:
    images, side = 0, 0
    with suppress(OSError, ValueError, EOFError):
        images, side, _ = np.load(folder / "pixels.npy", mmap_mode="r").shape
    states = [file.stat() for file in folder.iterdir()]
    used = max(state.st_mtime for state in [folder.stat(), *states])
    taken = sum(512 * state.st_blocks for state in states)  # a file that is not filled yet has holes
    with _unused(folder) as unused:
        return StoredCache(folder, images, side, taken, datetime.fromtimestamp(used), not unused)


@contextmanager
def _unused(folder: Path) -> Iterator[bool]:
    """Hold both locks of a cache, whoever fills it and whoever reads it; False if another process holds one."""
    with ExitStack() as opened:
        for name in ("lock", "pixels.npy"):
            try:
                file = opened.enter_context((folder / name).open("rb"))
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except FileNotFoundError:
                continue
            except OSError:  # held, or on a file system that cannot tell
                yield False
                return
        yield True
