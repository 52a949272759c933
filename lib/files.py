"""A file is there whole or not at all, whatever is interrupted; and one process at a time makes it."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a new file that takes `path`'s place once all of it is on the disk; an error leaves the old one as it was.

    It is written beside its target: a rename across file systems is a copy, and not atomic.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write `content` as readable JSON; NaN and infinity, which JSON has no word for, are refused."""
    with replacing(path) as file:
        file.write((json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


@contextmanager
def locked(path: Path, work: str) -> Iterator[None]:
    """Hold the lock file `path`; where another process holds it, say that it does this `work`, and wait."""
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"another process {work}: waiting for it", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
