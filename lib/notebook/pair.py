"""An .ipynb beside each chapter, for those who would rather edit there; the .py stays the only source.

    python -m lib.notebook.pair research/03_unet.py ...

Outputs are kept. An .ipynb that was edited since it was written here is named, and left as it is.
"""

import sys
from pathlib import Path

import nbformat
from jupytext.combine import combine_inputs_with_outputs
from nbformat.v4 import new_notebook

from lib.notebook.chapter import cut
from lib.notebook.sources import BuildError, digest, text_of

PAIRED = "imgae_dx_paired"  # in the metadata of an .ipynb: `fingerprint` of what was written here


def fingerprint(book: nbformat.NotebookNode) -> str:
    """Return a hash of the cells' kinds and texts."""
    return digest("\0".join(f"{cell.cell_type}\0{cell.source}" for cell in book.cells).encode())


def pair(chapter: Path) -> str:
    """Bring the .ipynb beside a chapter up to date; return what is in the way, or nothing."""
    file = chapter.with_suffix(".ipynb")
    try:
        book = new_notebook(cells=cut(chapter.name, text_of(chapter.parent, chapter.name))[0])
    except BuildError as error:
        return str(error)
    if file.is_file():
        old = nbformat.read(file, as_version=4)
        if fingerprint(old) not in (old.metadata.get(PAIRED), fingerprint(book)):
            return f"{file} was edited: put what you want to keep into {chapter.name}, then delete the .ipynb"
        book = combine_inputs_with_outputs(book, old)
    book.metadata |= {
        PAIRED: fingerprint(book),
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    }
    nbformat.write(book, file)
    return ""


if __name__ == "__main__":
    sys.exit("\n".join(filter(None, [pair(Path(chapter)) for chapter in sys.argv[1:]])) or None)
