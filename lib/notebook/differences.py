"""What differs between a built notebook and its sources, file by file."""

import difflib
import json
import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import nbformat
from nbformat import NotebookNode

from lib.notebook.packing import MAGIC
from lib.notebook.setup import Packed
from lib.notebook.sources import CELLS

NOTEBOOK = "notebooks/Anomaly_Detection_Research_Colab.ipynb"
BUILDER = "build_notebook.py"  # where what no single source holds comes from: contents, headings, the map of cells


def text(notebook: NotebookNode) -> str:
    """Return the notebook as its file holds it: keys sorted, a newline at the end."""
    return nbformat.writes(notebook).rstrip("\n") + "\n"


def differences(content: bytes, new: NotebookNode) -> list[str]:
    """Return one passage for each source whose part of a notebook file differs from `new`; empty if none does.

    Files in the packed cell are compared by their text, for another compression of it is no difference.
    """
    if content == text(new).encode():
        return []
    try:
        file = content.decode()
        old = json.loads(file)
        parts, wanted = by_source(old), by_source(new)
    except (KeyError, TypeError, ValueError) as error:
        return [f"{NOTEBOOK} was not written by this builder, or was damaged: {error}"]
    changed = [name for name in {**wanted, **parts} if parts.get(name) != wanted.get(name)]
    if not changed and file == text(repacked(new, old)):
        return []
    if changed != [BUILDER]:
        changed = [name for name in changed if name != BUILDER]  # contents and lines follow from the others
    pairs = {name: (parts.get(name, ""), wanted.get(name, "")) for name in changed} or {NOTEBOOK: (file, text(new))}
    return [f"{name} differs\n{difference(*pair) or '    in line ends alone'}" for name, pair in pairs.items()]


def by_source(notebook: Mapping[str, Any]) -> dict[str, str]:
    """Return the notebook's text by the source file that it comes from; what is packed and shown counts once."""
    parts: dict[str, list[str]] = defaultdict(list)
    for cell in notebook["cells"]:
        name = cell["metadata"]["imgae_dx"]["source"].partition(":")[0]
        source = "".join(cell["source"])  # a text, or in the file a list of lines
        if source.startswith(MAGIC):
            for file, packed in Packed.files(source.removeprefix(MAGIC)).items():
                parts[BUILDER if file == CELLS else file].append(packed.decode())
        elif not source.startswith("%%embed "):
            parts[name].append(source)
        elif (shown := source.partition("\n")[2]) not in parts[name]:
            parts[name].append(shown)
    return {name: "\n".join(texts) for name, texts in parts.items()}


def repacked(notebook: NotebookNode, old: Mapping[str, Any]) -> NotebookNode:
    """Return the notebook with the packed cell of an old one."""
    packed = next(("".join(cell["source"]) for cell in old["cells"] if cell["metadata"]["id"] == "packed"), "")
    cells = [NotebookNode({**cell, "source": packed}) if cell.id == "packed" else cell for cell in notebook.cells]
    return NotebookNode({**notebook, "cells": cells})


def difference(old: str, new: str, most: int = 12) -> str:
    """Return the first lines of a unified diff, indented; a line that is longer than a screen counts as several."""
    before, after = (
        [part for line in text.splitlines() for part in re.findall(".{1,150}", line) or [""]] for text in (old, new)
    )
    lines = list(difflib.unified_diff(before, after, lineterm="", n=0))[2:]
    more = [f"... and {len(lines) - most} more lines"] if len(lines) > most else []
    return "\n".join(f"    {line}" for line in lines[:most] + more)
