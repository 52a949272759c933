"""Files that exist whole or not at all, whatever is interrupted, and that one process at a time writes."""

import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd
from filelock import FileLock, Timeout


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a new file that replaces `path` once all of it is on the disk; an error leaves the old file as it was.

    It is written beside its target, because a rename across file systems is a copy, and not atomic. An OSError names
    `path`: one that comes while writing, such as a full disk, has no name of its own.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def remove_partial(folder: Path) -> None:
    """Remove what killed processes left half written below `folder`; no other process may write there now."""
    for partial in folder.rglob(".*.tmp"):
        with suppress(OSError):
            partial.unlink()


def write_json(path: Path, content: Any) -> None:
    """Write `content` as readable JSON; ValueError for NaN and infinity, which JSON cannot hold."""
    with replacing(path) as file:
        file.write((json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def write_csv(path: Path, table: pd.DataFrame, *, index: bool = True) -> None:
    """Write a table for people as CSV; a text that a spreadsheet would take for a formula gets a quote before it."""
    safe = without_formulas(table)
    with replacing(path) as file:
        safe.to_csv(file, index=index)


def without_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table for people in which a text that a spreadsheet would take for a formula has a quote before it."""
    return table.map(no_formula).rename(columns=no_formula, index=no_formula)


def no_formula(cell: Any) -> Any:
    """Return a cell as `without_formulas` writes it."""
    if not isinstance(cell, str):
        return cell
    cell = cell.replace("\r", " ")  # pandas does not quote it, and what follows would begin a row
    starts = cell.lstrip()[:1] in {"=", "+", "-", "@"}
    return f"'{cell}" if starts and not re.fullmatch(r"[-+\d.,eE\[\] ]+", cell) else cell


SEAL = b"imgae-dx sha256 "


def seal(content: bytes | memoryview) -> bytes:
    """Return the end of a file that holds `content`: its hash, by which `damage` finds what has changed since."""
    return SEAL + hashlib.sha256(content).hexdigest().encode()


def damage(sealed: bytes) -> str:
    """Return what is wrong with a file's bytes, or "" if they end in the `seal` of those before it."""
    end = len(sealed) - len(SEAL) - 64
    if end < 0 or not sealed.startswith(SEAL, end):
        return "does not end in a hash: it was cut short, an older version has written it, or it is another file"
    return "" if sealed[end:] == seal(memoryview(sealed)[:end]) else "is damaged: its hash is another"


def hash_of(content: str | bytes) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of a text, as UTF-8, or of bytes."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:16]


def digest(file: Path) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of a file's content."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()[:16]


@contextmanager
def locked(path: Path, work: str) -> Iterator[None]:
    """Hold the lock file `path`; if another process holds it, print "another process `work`", and wait."""
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
