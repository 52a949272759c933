"""Stitch the chapters, the library and the tracked results into one notebook that runs alone in an empty folder.

    python build_notebook.py                write notebooks/Anomaly_Detection_Research_Colab.ipynb
    python build_notebook.py --check        say whether it is current; if not, what differs
    python build_notebook.py --chapter 04   write notebooks/04_*.ipynb: one chapter, and of the others what it needs

`research/[0-9][0-9]_*.py` are the chapters (Jupytext py:percent). A table of contents follows the first title. The
setup cell and one packed cell, which holds `lib/` and the results, stand in front of the first code. The header of a
chapter's title may list files of the library, as in `shows=["methods/unet.py"]`: they stand in front of the chapter,
each in a cell of its own. The parameters cell is generated from `lib.params.Params`. A rebuild is the same to the byte;
a cell keeps its id when others come or go.
"""

import argparse
import json
import re
import runpy
import sys
import tomllib
from pathlib import Path

OPTIONAL = (  # to nbformat and jupytext; no use here, and a third of the builder's time
    "isoduration",
    "jupyter_client",
    "jupyter_server",
    "markdown_it",
    "rfc3987_syntax",
    "tornado",
)
sys.modules |= {name: None for name in OPTIONAL if name not in sys.modules}  # type: ignore[misc]

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from lib.notebook.chapter import Chapter, identify, needed, read_all, with_parameters
from lib.notebook.differences import BUILDER, NOTEBOOK, difference, differences, text
from lib.notebook.imports import check_imports, purpose
from lib.notebook.links import link
from lib.notebook.packing import pack, packed_files
from lib.notebook.parameters import parameters_cell
from lib.notebook.setup import Packed
from lib.notebook.sources import CELLS, BuildError, check_code, content_id, parse, text_of

for name in [name for name in OPTIONAL if sys.modules[name] is None]:
    del sys.modules[name]  # whoever imports this module may want it

ROOT = Path(__file__).resolve().parent
SETUP = "lib/notebook/setup.py"
PARAMS = "lib/params.py"
COLAB = {"gpuType": "T4", "provenance": [], "toc_visible": True}
METADATA = {
    "accelerator": "GPU",
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"file_extension": ".py", "mimetype": "text/x-python", "name": "python"},
}
PACKED = """###### Set up

The packed cell below holds the library and the published results, {} files. Each of its lines begins with a file's
name, number of lines and hash; `%embed` lists them too. To change a file, add a cell here, write
`%embed lib/evidence/audit.py` and run it: the cell becomes that file. What you change there takes effect when you run
the cell, and again after a restart."""


def build(root: Path, number: str = "") -> NotebookNode:
    """Return the notebook of the project in `root`, and write nothing; BuildError says what stands in the way."""
    return stitch(root, read_chapters(root), number)


def read_chapters(root: Path) -> list[Chapter]:
    """Return the chapters in reading order, the parameters cell as generated from `lib.params.Params`."""
    chapters = read_all(root)
    if not chapters:
        raise BuildError("no chapters found: wanted files such as research/00_question.py")
    tagged = [(chapter, cell) for chapter in chapters for cell in chapter.tagged("parameters")]
    if len(tagged) != 1:
        places = ", ".join(cell.metadata.imgae_dx.source for _, cell in tagged) or "none"
        raise BuildError(f'wanted one cell tagged "parameters" in all chapters, as papermill sets one; found {places}')
    if not (root / PARAMS).is_file():
        raise BuildError(f"{PARAMS} is not there; the parameters cell is generated from its class Params")
    parse(PARAMS, text_of(root, PARAMS))
    try:
        cell = parameters_cell(runpy.run_path(str(root / PARAMS), run_name="lib.params")["Params"])
    except TypeError as error:
        raise BuildError(str(error)) from None
    return [with_parameters(chapter, cell) if chapter.tagged("parameters") else chapter for chapter in chapters]


def stitch(root: Path, chapters: list[Chapter], number: str = "") -> NotebookNode:
    """Return the notebook of all chapters, or of chapter `number` below what it needs of those before it."""
    check_imports(root, [chapter.name for chapter in chapters])
    identify(cell for chapter in chapters for cell in chapter.cells)
    kept = needed(chapters, number) if number else chapters
    link(root, chapters, kept)
    cells: list[NotebookNode] = []
    closed: list[str] = []
    waiting = [set_up(root, kept)]  # for the first code
    for chapter in kept:
        title, *rest = chapter.cells
        head, tail = ([], chapter.cells) if cells else ([title, contents(root, kept, number)], rest)
        sections = waiting if any(chapter.code()) else []
        waiting = waiting if not sections else []
        if chapter.shows:
            sections = [*sections, shown(root, chapter)]
        for n, section in enumerate(sections):
            following = [*sections[n + 1 :], tail][0][0]
            if following.cell_type == "markdown" and following.source.startswith("#"):  # where a closed section ends
                section[0].metadata["jp-MarkdownHeadingCollapsed"] = True  # JupyterLab; Colab has a list
                closed.append(section[0].metadata.id)
        cells += [*head, *(cell for section in sections for cell in section), *tail]
    name = f"{Path(kept[-1].name).stem}.ipynb" if number else Path(NOTEBOOK).name
    colab = {**COLAB, "collapsed_sections": closed, "name": name}
    notebook = new_notebook(cells=cells, metadata={**METADATA, "colab": colab})
    identify(cells)
    nbformat.validate(notebook)
    return notebook


def contents(root: Path, kept: list[Chapter], number: str) -> NotebookNode:
    """Return the table of contents: the chapters' questions, each a link; of the whole notebook also one to Colab."""
    lines = [f"- [{chapter.heading}](#scrollTo={chapter.title.metadata.id})" for chapter in kept]
    if not number and (project := root / "pyproject.toml").is_file():
        address = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
        path = f"{address.removeprefix('https://github.com/')}/blob/main/{NOTEBOOK}"
        lines += ["", f"[Open in Colab](https://colab.research.google.com/github/{path})"]
    metadata = {"id": "contents", "tags": ["contents"], "imgae_dx": {"source": BUILDER}}
    return new_markdown_cell("\n".join(["## Contents", "", *lines]), metadata=metadata)


def set_up(root: Path, kept: list[Chapter]) -> list[NotebookNode]:
    """Return what stands in front of the first code: the setup cell, and the packed cell with the map of cells."""
    lines = {chapter.name: {n: content_id(chapter.name, code) for n, code in chapter.code()} for chapter in kept}
    known = ",\n".join(f"{json.dumps(file)}: {json.dumps(cells)}" for file, cells in lines.items())
    kernel = {name: text_of(ROOT, name) for name in Packed.KERNEL}
    files = kernel | packed_files(root) | {CELLS: f"{{\n{known}\n}}\n"}
    setup = (ROOT / SETUP).read_text(encoding="utf-8").rstrip()
    return [
        labelled(new_markdown_cell(PACKED.format(len(files))), "library", BUILDER),
        folded(new_code_cell(setup), "setup", SETUP),
        folded(new_code_cell(pack(dict(sorted(files.items())))), "packed", BUILDER),
    ]


def shown(root: Path, chapter: Chapter) -> list[NotebookNode]:
    """Return the files of the library that are read with a chapter, each in a cell that writes it."""
    lines = ["###### Code for the next chapter", "", *(f"- `{file}`: {purpose(root, file)}" for file in chapter.shows)]
    files = {file: f"%%embed {file}\n{text_of(root, file)}" for file in chapter.shows}
    labels = {file: re.sub(r"\W+", "-", f"embed {file}") for file in files}
    for file in files:
        check_code(file, text_of(root, file))
    cells = [folded(new_code_cell(source), labels[file], file) for file, source in files.items()]
    return [labelled(new_markdown_cell("\n".join(lines)), f"library-{Path(chapter.name).stem}", BUILDER), *cells]


def labelled(cell: NotebookNode, label: str, origin: str) -> NotebookNode:
    """Mark a cell of the library, which no chapter holds; its id does not depend on its text."""
    cell.metadata = {"tags": ["library"], "id": label, "imgae_dx": {"source": f"{origin}:1"}}
    return cell


def folded(cell: NotebookNode, label: str, origin: str) -> NotebookNode:
    """Mark a code cell of the library, and fold it in Colab and in JupyterLab."""
    labelled(cell, label, origin).metadata |= {"cellView": "form", "jupyter": {"source_hidden": True}}
    return cell


def write(root: Path, number: str = "") -> str:
    """Write the notebook, and the parameters cell where it is out of date; return the notebook's path."""
    chapters = read_chapters(root)
    notebook = stitch(root, chapters, number)
    for name, source in ((chapter.name, chapter.source) for chapter in chapters):
        if (root / name).read_bytes() != source.encode():
            (root / name).write_bytes(source.encode())
            print(f"{name}: parameters cell rewritten from {PARAMS}")
    file = root / "notebooks" / notebook.metadata.colab.name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(text(notebook).encode())
    return file.relative_to(root).as_posix()


def check(root: Path) -> list[str]:
    """Return one passage for each source file whose part of the notebook is out of date; empty if all is current."""
    chapters, found = read_chapters(root), []
    for name, source in ((chapter.name, chapter.source) for chapter in chapters):
        old = (root / name).read_bytes().decode()
        if old != source:
            found.append(f"{name}: the parameters cell differs from {PARAMS}\n{difference(old, source)}")
    new = stitch(root, chapters)
    if not (root / NOTEBOOK).is_file():
        return [*found, f"{NOTEBOOK} is not there"]
    return found + differences((root / NOTEBOOK).read_bytes(), new)


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Build or check the project in `root`; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="write nothing; exit 1 if the notebook is out of date")
    what.add_argument("--chapter", default="", metavar="04", help="build this chapter alone, with what it needs")
    options = parser.parse_args(arguments)
    try:
        if not options.check:
            print(f"{write(root, options.chapter)} is written")
        elif found := check(root):
            print("\n".join([*found, "To bring it up to date: python build_notebook.py"]))
            return 1
        else:
            print(f"{NOTEBOOK} is current")
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
