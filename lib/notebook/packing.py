"""The packed cell: the library and the tracked results, one file a line.

A line begins with the file's name, its number of lines and the start of its SHA-256; its text follows, compressed. The
cell is thus its own table of contents, and a change of one file changes one line. Every Python writes the same bytes,
because bz2 has one encoder; `--check` compares the texts in any case.
"""

import base64
import bz2
from collections.abc import Mapping
from pathlib import Path

from lib.notebook.sources import BuildError, digest, text_of

PACKED = ("lib/**/*", "research/results/*.json", "pyproject.toml", "constraints.txt")
"""What the notebook carries: no tables that no chapter reads; `lib/environment.py` reads the last two."""
LIMIT = 700_000  # characters; GitHub shows no notebook well that is much above 1 MB
MAGIC = "%%unpack the library and the published results\n"  # all that a folded cell shows
COLUMNS = "# file, lines, SHA-256 (first 12 digits), text (bz2 in base 85)\n"


def packed_files(root: Path) -> dict[str, str]:
    """Return the text of each file of `root` that the notebook carries, by name."""
    found = {file for pattern in PACKED for file in root.glob(pattern) if file.is_file()}
    names = [file.relative_to(root) for file in found if not file.name.startswith(".")]
    return {
        name.as_posix(): text_of(root, name.as_posix()) for name in sorted(names) if "__pycache__" not in name.parts
    }


def pack(files: Mapping[str, str]) -> str:
    """Return the packed cell of these files; `lib.notebook.setup.Packed` is the inverse."""
    width = max(map(len, files))
    lines = {}
    for name, text in files.items():
        content = text.encode()
        packed = base64.b85encode(bz2.compress(content)).decode()
        lines[name] = f"{name:{width}} {len(text.splitlines()):5} {digest(content)} {packed}\n"
    if spaced := [name for name in files if " " in name]:
        raise BuildError(f"{spaced[0]} has a space in its name, which the packed cell cannot hold; rename it")
    if (size := sum(map(len, lines.values()))) > LIMIT:
        largest = max(lines, key=lambda name: len(lines[name]))
        raise BuildError(
            f"the packed cell holds {size:,} characters, wanted at most {LIMIT:,}; the largest is {largest}"
        )
    return MAGIC + COLUMNS + "".join(lines.values())
