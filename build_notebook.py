"""Stitch the chapters, the library and the tracked results into one notebook that runs alone in an empty folder.

    python build_notebook.py                write notebooks/Anomaly_Detection_Research_Colab.ipynb
    python build_notebook.py --check        say whether it is current; if not, what differs
    python build_notebook.py --chapter 04   write notebooks/04_*.ipynb: one chapter, and of the others what it needs

`research/[0-9][0-9]_*.py` are the chapters (Jupytext py:percent). Below the first title comes a table of contents; in
front of the first code `research/embed.py`, which defines `%%embed`; in front of a chapter the modules of `lib/` that
it is the first to need, and the files of `research/results` where its code is the first to name them. The parameters
cell comes from `lib.params.Params`. A rebuild is the same to the byte; a cell keeps its id when others come or go.
"""

import argparse
import ast
import difflib
import json
import re
import runpy
import sys
import tomllib
from collections import defaultdict
from collections.abc import Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

OPTIONAL = ("jupyter_server", "rfc3987_syntax")  # to nbformat and jupytext; no use here, and a second at every start
sys.modules |= {name: None for name in OPTIONAL if name not in sys.modules}  # type: ignore[dict-item]

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from research.chapter import BuildError, Chapter, identify, link, needed, read_all, text_of, with_parameters
from research.embed import CELLS, content_id, library_files, library_imports

for name in [name for name in OPTIONAL if sys.modules[name] is None]:
    del sys.modules[name]  # whoever imports this module may want it

ROOT = Path(__file__).resolve().parent
NOTEBOOK = "notebooks/Anomaly_Detection_Research_Colab.ipynb"
SETUP = "research/embed.py"
BUILDER = "build_notebook.py"  # where what no single source holds comes from: contents, the map of cells to lines
RESULTS = "research/results"
ENVIRONMENT = "lib/environment.py"  # reads the versions
VERSIONS = {"pyproject.toml": "Needed at least: `pyproject.toml`", "constraints.txt": "Last tested: `constraints.txt`"}
DYNAMIC = ("import_module", "__import__")
RESULTS_LIMIT = 2_000_000  # bytes; GitHub and Colab show a larger notebook badly
METADATA = {
    "accelerator": "GPU",
    "colab": {"gpuType": "T4", "provenance": [], "toc_visible": True},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"file_extension": ".py", "mimetype": "text/x-python", "name": "python"},
}
COLLAPSED = {"cellView": "form", "jupyter": {"source_hidden": True}, "tags": ["library"]}  # Colab, JupyterLab


def text(notebook: NotebookNode) -> str:
    """Return the notebook as its file holds it: keys sorted, a newline at the end."""
    return nbformat.writes(notebook).rstrip("\n") + "\n"


def build(root: Path, number: str = "") -> NotebookNode:
    """Return the notebook of the project in `root`, and write nothing; BuildError says what stands in the way."""
    return stitch(root, read_chapters(root), number)


def read_chapters(root: Path) -> list[Chapter]:
    """Return the chapters in reading order, the parameters cell as `lib.params.Params` generates it."""
    chapters = read_all(root)
    if not chapters:
        raise BuildError("no chapters found: wanted files such as research/00_question.py")
    tagged = [(chapter, cell) for chapter in chapters for cell in chapter.tagged("parameters")]
    if len(tagged) != 1:
        places = ", ".join(cell.metadata.imgae_dx.source for _, cell in tagged) or "none"
        raise BuildError(f'wanted one cell tagged "parameters" in all chapters, as papermill sets one; found {places}')
    if not (root / "lib/params.py").is_file():
        raise BuildError("lib/params.py is not there; the parameters cell is generated from its class Params")
    parse("lib/params.py", text_of(root, "lib/params.py").encode())
    cell = runpy.run_path(str(root / "lib/params.py"), run_name="lib.params")["Params"].cell()
    return [with_parameters(chapter, cell) if chapter.tagged("parameters") else chapter for chapter in chapters]


def stitch(root: Path, chapters: list[Chapter], number: str = "") -> NotebookNode:
    """Return the notebook of all chapters, or of chapter `number` below what it needs of those before it."""
    identify(cell for chapter in chapters for cell in chapter.cells)
    kept = needed(chapters, number) if number else chapters
    link(root, chapters, kept)
    modules, embedded, cells, closed = import_order(root), {}, [], []
    for chapter in kept:
        title, *rest = chapter.cells
        files, library = modules_for(root, chapter.name, modules), []
        if ENVIRONMENT in files:
            files |= VERSIONS
        if any(RESULTS in code for _, code in chapter.code()):
            files |= results(root)
        for file, purpose in files.items():
            if file not in embedded:
                embedded[file] = text_of(root, file)
                library += embed(file, embedded[file], purpose, file)
        if any(chapter.code()) and not any(cell.metadata.get("id") == "setup" for cell in cells):
            library.insert(0, folded(new_code_cell((ROOT / SETUP).read_bytes().decode().rstrip()), "setup", SETUP))
        head, tail = ([], chapter.cells) if cells else ([title, contents(root, kept, number)], rest)
        if library:
            text = f"###### Library, as far as it is new in “{chapter.heading}”"
            library.insert(0, folded(new_markdown_cell(text), f"library-{Path(chapter.name).stem}", BUILDER))
            if tail[0].cell_type == "markdown" and tail[0].source.startswith("#"):  # where Colab ends what it closes
                closed.append(library[0].metadata.id)
        cells += [*head, *library, *tail]
    lines = {chapter.name: {n: content_id(chapter.name, code) for n, code in chapter.code()} for chapter in kept}
    lines |= {file: {0: content_id(file, content)} for file, content in embedded.items() if file.endswith(".py")}
    known = ",\n".join(f"{json.dumps(file)}: {json.dumps(of_file)}" for file, of_file in lines.items())
    for place in [n for n, cell in enumerate(cells, 1) if cell.metadata.get("id") == "setup"]:
        purpose = "Where each cell comes from, so that an error can name the line of its chapter."
        cells[place:place] = embed(CELLS, f"{{\n{known}\n}}\n", purpose, BUILDER)
    name = f"{Path(kept[-1].name).stem}.ipynb" if number else Path(NOTEBOOK).name
    colab = {**METADATA["colab"], "collapsed_sections": closed, "name": name}
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
    cell = new_markdown_cell("\n".join(["## Contents", "", *lines]))
    cell.metadata = {"id": "contents", "imgae_dx": {"source": BUILDER}}
    return cell


def embed(file: str, content: str, purpose: str, origin: str) -> list[NotebookNode]:
    """Return two folded cells: what a file is for, and the `%%embed` that writes it."""
    label = re.sub(r"\W+", "-", file)
    return [
        folded(new_markdown_cell(purpose), f"about-{label}", origin),
        folded(new_code_cell(f"%%embed {file}\n{content}"), f"embed-{label}", origin),
    ]


def folded(cell: NotebookNode, label: str, origin: str) -> NotebookNode:
    """Mark a cell that no chapter holds: folded, and with an id that does not depend on its text."""
    cell.metadata = {**COLLAPSED, "id": label, "imgae_dx": {"source": f"{origin}:1"}}
    return cell


def import_order(root: Path) -> dict[str, set[str]]:
    """Return the modules of `lib`, each after those that it imports itself, with these; `lib` comes first of all."""
    files = library_files(root)
    if "lib" not in files:
        raise BuildError("lib/__init__.py is not there; without it any other package named lib is imported instead")
    graph = {module: sorted(imports_of(file, files) - {module}) for module, file in files.items()}
    try:
        order = sorted(TopologicalSorter(graph).static_order(), key=lambda name: name != "lib")
    except CycleError as error:
        raise BuildError(f"modules import each other in a circle: {' <- '.join(error.args[1])}") from None
    return {module: set(graph[module]) for module in order}


def modules_for(root: Path, chapter: str, graph: Mapping[str, set[str]]) -> dict[str, str]:
    """Return the files of `lib` that a chapter needs, in import order, with their purpose."""
    files, purposes = library_files(root), {}
    if wanted := imports_of(root / chapter, files):
        wanted |= {"lib"} | graph["lib"]
    for module in reversed(graph):
        wanted |= graph[module] if module in wanted else set()
    for file in (files[module] for module in graph if module in wanted):
        docstring = ast.get_docstring(parse(f"lib/{file.name}", file.read_bytes()))
        if not docstring:
            raise BuildError(f"lib/{file.name} has no docstring; its first line says in the notebook what it is for")
        purposes[f"lib/{file.name}"] = f"Library: `lib/{file.name}`. {docstring.splitlines()[0]}"
    return purposes


def imports_of(file: Path, library: Mapping[str, Path]) -> set[str]:
    """Return the modules of `lib` that a chapter or module imports; refuse an import that cannot be followed."""
    name = f"{file.parent.name}/{file.name}"
    tree = parse(name, file.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in DYNAMIC:
            if re.search(r"""\(f?['"](\.|\d\d_|(lib|research)\b)""", ast.unparse(node)):
                raise BuildError(f"{name}:{node.lineno}: {ast.unparse(node)} cannot be followed; write an import")
        elif isinstance(node, ast.Import | ast.ImportFrom) and re.match(r"\w+ research\b", ast.unparse(node)):
            raise BuildError(f"{name}:{node.lineno}: {ast.unparse(node)}: chapters share the notebook's names")
    modules = library_imports(tree, library)
    if missing := sorted(modules - library.keys()):
        raise BuildError(f"{name} imports {missing[0]}, but there is no {missing[0].replace('.', '/')}.py")
    return modules


@cache
def parse(name: str, content: bytes) -> ast.Module:
    """Return a file's syntax tree."""
    try:
        return ast.parse(content, name)
    except SyntaxError as error:
        raise BuildError(f"{name}:{error.lineno}: {error.msg}") from None


def results(root: Path) -> dict[str, str]:
    """Return the tracked results of published runs, with their purpose."""
    files = [file for file in sorted((root / RESULTS).rglob("*")) if file.is_file() and not file.name.startswith(".")]
    size = sum(file.stat().st_size for file in files)
    if size > RESULTS_LIMIT:
        largest = max(files, key=lambda file: file.stat().st_size).relative_to(root)
        raise BuildError(f"{RESULTS} holds {size:,} bytes, wanted at most {RESULTS_LIMIT:,}; the largest is {largest}")
    names = [file.relative_to(root).as_posix() for file in files]
    if empty := [name for name in names if not text_of(root, name)]:
        raise BuildError(f"{empty[0]} is empty, and so would be its cell, which IPython refuses; fill or remove it")
    return {name: f"Results of published runs: `{name}`" for name in names}


def write(root: Path, number: str = "") -> str:
    """Write the notebook, and the parameters cell where it is out of date; return the notebook's path."""
    chapters = read_chapters(root)
    notebook = stitch(root, chapters, number)
    for name, source in ((chapter.name, chapter.source) for chapter in chapters):
        if (root / name).read_bytes() != source.encode():
            (root / name).write_bytes(source.encode())
            print(f"{name}: parameters cell rewritten from lib/params.py")
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
            found.append(f"{name}: the parameters cell differs from lib/params.py\n{difference(old, source)}")
    new = stitch(root, chapters)
    if not (root / NOTEBOOK).is_file():
        return [*found, f"{NOTEBOOK} is not there"]
    content = (root / NOTEBOOK).read_bytes()
    if content == text(new).encode():
        return found
    try:
        old = content.decode()
        parts, wanted = by_source(json.loads(old)), by_source(new)
    except (KeyError, TypeError, ValueError):
        return [*found, f"{NOTEBOOK} was not written by this builder, or was damaged"]
    changed = [name for name in {**wanted, **parts} if parts.get(name) != wanted.get(name)]
    if changed != [BUILDER]:
        changed = [name for name in changed if name != BUILDER]  # contents and lines follow from the others
    differing = [(name, parts.get(name, ""), wanted.get(name, "")) for name in changed] or [(NOTEBOOK, old, text(new))]
    return found + [f"{name} differs\n{difference(*pair) or '    in line ends alone'}" for name, *pair in differing]


def by_source(notebook: Mapping[str, Any]) -> dict[str, str]:
    """Return the notebook's text by the source file that it comes from."""
    parts = defaultdict(str)
    for cell in notebook["cells"]:
        name = cell["metadata"]["imgae_dx"]["source"].partition(":")[0]
        parts[name] += "".join(cell["source"]) + "\n"  # a text, or in the file a list of lines
    return parts


def difference(old: str, new: str, most: int = 12) -> str:
    """Return the first lines of a unified diff, indented; a line that is longer than a screen counts as several."""
    screens = (
        [part for line in text.splitlines() for part in re.findall(".{1,150}", line) or [""]] for text in (old, new)
    )
    lines = list(difflib.unified_diff(*screens, lineterm="", n=0))[2:]
    more = [f"... and {len(lines) - most} more lines"] if len(lines) > most else []
    return "\n".join(f"    {line}" for line in lines[:most] + more)


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
