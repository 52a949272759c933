"""The journal of a cache: a line per finished row, which counts only while the row's pixels are as they were."""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

KINDS: dict[str, Any] = {"row": int, "crc32": int, "digest": str, "problem": str, "header": dict}
KINDS |= dict.fromkeys(("bytes", "width", "height"), int | None)


def line_of(row: int, pixels: bytes, facts: dict[str, Any]) -> dict[str, Any]:
    """Return the line of a row: its place, the CRC-32 of its prepared pixels, and the facts about its image."""
    return {"row": row, "crc32": zlib.crc32(pixels), **facts}


def finished(journal: Path, pixels: np.ndarray) -> tuple[list[dict[str, Any]], bytes]:
    """Return the lines of the rows whose pixels, (n, size, size) uint8, are intact, and the end of a line that was cut.

    Other lines, whatever has damaged them or their pixels, are as if they had never been written.
    """
    *texts, cut = journal.read_bytes().split(b"\n") if journal.is_file() else [b""]
    return [line for text in texts if (line := _read(text, pixels))], cut


def _read(text: bytes, pixels: np.ndarray) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
        whole = all(isinstance(line[key], kind) for key, kind in KINDS.items()) and 0 <= line["row"] < len(pixels)
        whole = whole and all(isinstance(value, str) for value in line["header"].values())
        return line if whole and zlib.crc32(pixels[line["row"]]) == line["crc32"] else None
    except (ValueError, TypeError, KeyError):
        return None
