"""Stitch the chapters, the library and the tracked results into one notebook that runs alone in an empty folder.

    python build_notebook.py            write notebooks/Anomaly_Detection_Research_Colab.ipynb
    python build_notebook.py --check    say whether it is current; if not, what differs

`research/[0-9][0-9]_*.py` are the chapters (Jupytext py:percent). Below the title of the first one with code comes the
setup cell, which defines `%%embed`; below each title come the modules of `lib/` that this chapter is the first to need,
and the files of `research/results` where a chapter's code is the first to name that folder. The parameters cell is
generated from `lib.params.Params`. A rebuild is identical to the byte; a cell keeps its id when others come or go.
"""

import argparse
import ast
import difflib
import hashlib
import importlib.util
import inspect
import itertools
import json
import re
import runpy
import sys
import tempfile
from collections import defaultdict
from collections.abc import Container, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from IPython.core.interactiveshell import InteractiveShell
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parent
NOTEBOOK = "notebooks/Anomaly_Detection_Research_Colab.ipynb"
RESULTS = "research/results"
RESULTS_LIMIT = 2_000_000  # bytes; GitHub and Colab show a larger notebook badly
HEADER = re.compile(r"^# %%(?: .*)?$", re.M)
METADATA = {
    "accelerator": "GPU",
    "colab": {"gpuType": "T4", "name": Path(NOTEBOOK).name, "provenance": [], "toc_visible": True},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"file_extension": ".py", "mimetype": "text/x-python", "name": "python"},
}
COLLAPSED = {"cellView": "form", "jupyter": {"source_hidden": True}, "tags": ["library"]}  # Colab, JupyterLab


class BuildError(ValueError):
    """The chapters or the library cannot become a notebook."""


# The next three definitions also make up the notebook's setup cell, so they use only what SETUP imports.


def library_files(root: Path) -> dict[str, Path]:
    """Return the files of the package `lib` in `root` by module name; `lib` itself is `lib/__init__.py`."""
    return {f"lib.{file.stem}".removesuffix(".__init__"): file for file in sorted(root.glob("lib/*.py"))}


def library_imports(tree: ast.AST, known: Container[str]) -> set[str]:
    """Return the modules of `lib` that code imports; `from lib import x` means `lib.x` if that is known, else `lib`."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(filter(None, ("lib" if node.level else "", node.module)))
            found |= {name if (name := f"{base}.{alias.name}") in known else base for alias in node.names}
    return {name for name in found if name.partition(".")[0] == "lib"}


class Library:
    """The notebook's files, in a folder that lives as long as the kernel; `%%embed FILE` writes one of them.

    A module that is imported already is reloaded when its text has changed, then every module that imports it, and the
    notebook's names follow. Objects made before keep their old code.
    """

    def __init__(self, shell: InteractiveShell) -> None:
        self.shell = shell
        self.temporary = tempfile.TemporaryDirectory(prefix="imgae_dx_")
        self.folder = Path(self.temporary.name).resolve()
        self.stale: set[str] = set()  # modules that are, or import, something newer than what is in memory
        shell.register_magic_function(self.embed, "cell", "embed")

    def embed(self, line: str, cell: str) -> None:
        """Write the text below the magic as file `line`; line n of the file is line n of the repository's."""
        name, text, state = line.strip(), cell.encode(), "unchanged"
        file = (self.folder / name).resolve()
        if self.folder not in file.parents:
            raise ValueError(f"%%embed {name}: wanted a file inside the notebook's folder, such as lib/x.py")
        if file.suffix == ".py":
            compile(cell, str(file), "exec", dont_inherit=True)  # a SyntaxError leaves the old file as it is
            self.come_first()
        if not file.is_file() or file.read_bytes() != text:
            state = "new"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(text)
            if file.suffix == ".py":  # Python takes bytecode of the same second and size for current
                Path(importlib.util.cache_from_source(str(file))).unlink(missing_ok=True)
                self.stale.add(f"lib.{file.stem}".removesuffix(".__init__"))
            importlib.invalidate_caches()
        if reloaded := self.reload():
            state = f"reloaded: {', '.join(reloaded)}; objects made before keep their old code"
        print(f"{name}  {len(cell.splitlines())} lines  {state}")

    def come_first(self) -> None:
        """Let `import lib` find this notebook's; another that is in memory already is forgotten, with a note."""
        here = str(self.folder)
        sys.path[:] = [here, *(path for path in sys.path if path != here)]
        known = [name for name in sys.modules if name.partition(".")[0] == "lib"]
        origins = {name: getattr(sys.modules[name], "__file__", None) or "" for name in known}
        if foreign := [name for name in origins if self.folder not in Path(origins[name]).parents]:
            print(f"set aside {', '.join(foreign)}, imported from {origins[foreign[0]] or 'elsewhere'}: import anew")
            for name in foreign:
                del sys.modules[name]

    def reload(self) -> list[str]:
        """Reload what is stale, in import order, and return its names; a module that fails stays stale."""
        if not self.stale:
            return []
        files = library_files(self.folder)
        graph = {name: library_imports(ast.parse(file.read_bytes()), files) - {name} for name, file in files.items()}
        order = [name for name in TopologicalSorter(graph).static_order() if name in files]
        for name in order:
            if self.stale & graph[name]:
                self.stale.add(name)
        self.stale &= sys.modules.keys()  # the others are read at their import
        before = {}
        try:
            for name in [name for name in order if name in self.stale]:
                before[name] = dict(vars(sys.modules[name]))
                importlib.reload(sys.modules[name])
                self.stale.discard(name)
        finally:
            self.rebind(before)
        return list(before)

    def rebind(self, before: dict[str, dict[str, object]]) -> None:
        """Point the notebook's names at the reloaded modules' new values, where they still hold the old ones.

        A function or class is known by identity. A constant is not (3 is 3 everywhere): it follows if an import
        statement of an earlier cell gave it its name.
        """
        names, links = self.shell.user_ns, []
        for module, values in before.items():
            own = {id(value): key for key, value in values.items() if getattr(value, "__module__", None) == module}
            links += [(name, module, own[id(value)]) for name, value in names.items() if id(value) in own]
        for cell in names.get("In", ()):
            try:
                imports = [node for node in ast.walk(ast.parse(cell)) if isinstance(node, ast.ImportFrom)]
            except SyntaxError:  # that cell failed, so it named nothing
                continue
            links += [(alias.asname or alias.name, node.module, alias.name) for node in imports for alias in node.names]
        for name, module, key in links:
            if name in names and key in before.get(module, ()) and names[name] is before[module][key]:
                names[name] = vars(sys.modules[module])[key]


SETUP = f"""\
# @title Set up: `%%embed` keeps this notebook's library in a private folder, in step with its cells
import ast
import importlib.util
import sys
import tempfile
from collections.abc import Container
from graphlib import TopologicalSorter
from pathlib import Path

from IPython.core.interactiveshell import InteractiveShell


{inspect.getsource(library_files)}

{inspect.getsource(library_imports)}

{inspect.getsource(Library)}

if "_library" not in globals():  # run again, this cell keeps the folder and what was imported from it
    _library = Library(get_ipython())"""


def text(notebook: nbformat.NotebookNode) -> str:
    """Return the notebook as its file holds it: keys sorted, a newline at the end."""
    return nbformat.writes(notebook).rstrip("\n") + "\n"


def build(root: Path) -> nbformat.NotebookNode:
    """Return the notebook of the project in `root`, and write nothing; BuildError says what stands in the way."""
    chapters = {name: split(name, source) for name, source in read_chapters(root).items()}
    cells, embedded = [], set()
    for name, (title, *rest) in chapters.items():
        if title.cell_type != "markdown" or not title.source.startswith("# "):
            raise BuildError(f"{name} has no title: its first cell must be markdown that starts with `# `")
        title.metadata.setdefault("id", Path(name).stem)  # so that links survive a reworded title
        cells.append(title)
        code = [cell.source for cell in rest if cell.cell_type == "code"]
        if code and "setup" not in embedded:
            embedded.add("setup")
            cells.append(collapsed(new_code_cell(SETUP), "setup", "build_notebook.py"))
        needed = modules_for(root, name)
        if any(RESULTS in source for source in code):
            needed |= results(root)
        for file, purpose in needed.items():
            if file not in embedded:
                embedded.add(file)
                content, label = (root / file).read_bytes().decode(), re.sub(r"\W+", "-", file)
                cells.append(collapsed(new_markdown_cell(purpose), f"about-{label}", f"{file}:1"))
                cells.append(collapsed(new_code_cell(f"%%embed {file}\n{content}"), f"embed-{label}", f"{file}:1"))
        cells += rest
    identify(cells)
    link({Path(name).name: title for name, (title, *_) in chapters.items()}, cells)
    notebook = new_notebook(cells=cells, metadata=METADATA)
    nbformat.validate(notebook)
    return notebook


def collapsed(cell: nbformat.NotebookNode, label: str, origin: str) -> nbformat.NotebookNode:
    """Mark a cell that no chapter holds: folded, and with an id that does not depend on its text."""
    cell.metadata = {**COLLAPSED, "id": label, "imgae_dx": {"source": origin}}
    return cell


def read_chapters(root: Path) -> dict[str, str]:
    """Return the text of each chapter by its path, the parameters cell as `lib.params.Params` generates it."""
    files = sorted(root.glob("research/[0-9][0-9]_*.py"))
    if not files:
        raise BuildError("no chapters found: wanted files such as research/00_question.py")
    sources = {file.relative_to(root).as_posix(): file.read_bytes().decode() for file in files}
    tagged = [
        (name, index, cell.metadata.imgae_dx.source)
        for name, source in sources.items()
        for index, cell in enumerate(split(name, source))
        if "parameters" in cell.metadata.get("tags", [])
    ]
    if len(tagged) != 1:
        places = ", ".join(place for *_, place in tagged) or "none"
        raise BuildError(f'wanted one cell tagged "parameters" in all chapters, as papermill sets one; found {places}')
    if not (root / "lib/params.py").is_file():
        raise BuildError("lib/params.py is not there; the parameters cell is generated from its class Params")
    [(name, index, _)] = tagged
    source = sources[name]
    start = list(HEADER.finditer(source))[index].end() + 1
    following = HEADER.search(source, start)
    body = source[start : following.start() if following else len(source)]
    cell = runpy.run_path(str(root / "lib/params.py"), run_name="lib.params")["Params"].cell().strip("\n")
    gap = body[len(body.rstrip()) :] if body.strip() else "\n\n" if following else "\n"
    sources[name] = source[:start] + cell + gap + source[start + len(body) :]
    return sources


def split(name: str, source: str) -> list[nbformat.NotebookNode]:
    """Return a chapter's cells; the metadata of each name the chapter's line where it starts."""
    cells = jupytext.reads(source, fmt="py:percent").cells
    starts = [source.count("\n", 0, header.start()) + 1 for header in HEADER.finditer(source)]
    if len(cells) != len(starts):
        raise BuildError(
            f"{name} has {len(cells)} cells, but {len(starts)} lines `# %%`; wanted one at the start of each cell, "
            "and none inside a string"
        )
    for cell, line in zip(cells, starts, strict=True):
        cell.metadata.pop("lines_to_next_cell", None)  # jupytext's note to itself
        cell.metadata["imgae_dx"] = {"source": f"{name}:{line}"}
        if "parameters" in cell.metadata.get("tags", []):
            cell.metadata.setdefault("id", "parameters")  # its text is generated, so an id made from it would change
    return cells


def modules_for(root: Path, chapter: str) -> dict[str, str]:
    """Return the files of `lib` that a chapter needs, with their purpose, each after those that it imports itself."""
    library, graph = library_files(root), {}
    if "lib" not in library:
        raise BuildError("lib/__init__.py is not there; without it any other package named lib is imported instead")
    waiting = sorted(imports_of(root / chapter, library))
    while waiting:
        module = waiting.pop()
        if module not in graph:
            graph[module] = sorted(imports_of(library[module], library) - {module})
            waiting += [*graph[module], "lib"]
    try:
        order = sorted(TopologicalSorter(dict(sorted(graph.items()))).static_order(), key=lambda name: name != "lib")
    except CycleError as error:
        raise BuildError(f"modules import each other in a circle: {' <- '.join(error.args[1])}") from None
    purposes = {}
    for file in (library[module] for module in order):
        docstring = ast.get_docstring(ast.parse(file.read_bytes()))
        if not docstring:
            raise BuildError(f"lib/{file.name} has no docstring; its first line says in the notebook what it is for")
        purposes[f"lib/{file.name}"] = f"Library: `lib/{file.name}`. {docstring.splitlines()[0]}"
    return purposes


def imports_of(file: Path, library: dict[str, Path]) -> set[str]:
    """Return the modules of `lib` that a chapter or module imports; refuse an import that cannot be followed."""
    name = f"{file.parent.name}/{file.name}"
    try:
        tree = ast.parse(file.read_bytes(), name)  # magics are comments in a chapter, so it is Python
    except SyntaxError as error:
        raise BuildError(f"{name}:{error.lineno}: {error.msg}") from None
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom, ast.Call)):
            statement = ast.unparse(node)
            if re.match(r"""(importlib\.)?(import_module|__import__)\(f?['"](\.|\d\d_|(lib|research)\b)""", statement):
                raise BuildError(f"{name}:{node.lineno}: {statement} cannot be followed; write an import statement")
            if re.match(r"(import|from) research\b", statement):
                raise BuildError(f"{name}:{node.lineno}: {statement}: chapters share the notebook's names")
    modules = library_imports(tree, library)
    if missing := sorted(modules - library.keys()):
        raise BuildError(f"{name} imports {missing[0]}, but there is no {missing[0].replace('.', '/')}.py")
    return modules


def results(root: Path) -> dict[str, str]:
    """Return the tracked results of published runs, with their purpose."""
    files = [file for file in sorted((root / RESULTS).rglob("*")) if file.is_file() and not file.name.startswith(".")]
    size = sum(file.stat().st_size for file in files)
    if size > RESULTS_LIMIT:
        largest = max(files, key=lambda file: file.stat().st_size).relative_to(root)
        raise BuildError(f"{RESULTS} holds {size:,} bytes, wanted at most {RESULTS_LIMIT:,}; the largest is {largest}")
    names = [file.relative_to(root).as_posix() for file in files]
    for name, file in zip(names, files, strict=True):
        try:
            empty = not file.read_bytes().decode()
        except UnicodeDecodeError:
            raise BuildError(f"{name} is not text; the notebook takes text only, such as JSON and CSV") from None
        if empty:
            raise BuildError(f"{name} is empty, and so would be its cell, which IPython refuses; fill or remove it")
    return {name: f"Results of published runs: `{name}`" for name in names}


def identify(cells: list[nbformat.NotebookNode]) -> None:
    """Give each cell its id: its own if it has one, else one made from its chapter, type and text."""
    taken = {}
    for cell in cells:
        place = cell.metadata.imgae_dx.source
        label = cell.metadata.get("id")
        if label is None:
            content = "\0".join([place.partition(":")[0], cell.cell_type, cell.source])
            digest = hashlib.sha256(content.encode()).hexdigest()[:12]
            ordinals = itertools.chain([digest], (f"{digest}-{n}" for n in itertools.count(2)))
            label = next(label for label in ordinals if label not in taken)
        if not isinstance(label, str) or not re.fullmatch(r"[\w-]{1,64}", label, re.A):
            raise BuildError(f"{place}: id={label!r}; wanted 1 to 64 letters, digits, - or _ in quotes")
        if label in taken:
            raise BuildError(f"{place} and {taken[label]} both have the id {label!r}; change one")
        taken[label] = place
        cell["id"] = cell.metadata["id"] = label


def link(titles: dict[str, nbformat.NotebookNode], cells: list[nbformat.NotebookNode]) -> None:
    """Turn links to chapter files into links to their title cells, and give those the target outside Colab as well."""
    for cell in cells:
        if cell.cell_type == "markdown":
            for file in re.findall(r"\]\(([^\s()/#]+\.py)\)", cell.source):
                if file not in titles:
                    place = cell.metadata.imgae_dx.source
                    raise BuildError(f"{place} links to {file}, which is no chapter; there are {', '.join(titles)}")
                cell.source = cell.source.replace(f"]({file})", f"](#scrollTo={titles[file].id})")
    for title in titles.values():
        heading, *rest = title.source.split("\n", 1)
        title.source = "\n".join([heading, "", f'<a name="scrollTo={title.id}"></a>', *rest])


def write(root: Path) -> None:
    """Write the notebook, and the parameters cell into its chapter where it is out of date."""
    notebook = text(build(root))
    for name, source in read_chapters(root).items():
        if (root / name).read_bytes() != source.encode():
            (root / name).write_bytes(source.encode())
            print(f"{name}: parameters cell rewritten from lib/params.py")
    (root / NOTEBOOK).parent.mkdir(exist_ok=True)
    (root / NOTEBOOK).write_bytes(notebook.encode())


def check(root: Path) -> list[str]:
    """Return one passage for each source file whose part of the notebook is out of date; empty if all is current."""
    found = []
    for name, source in read_chapters(root).items():
        old = (root / name).read_bytes().decode()
        if old != source:
            found.append(f"{name}: the parameters cell differs from lib/params.py\n{difference(old, source)}")
    new = build(root)
    if not (root / NOTEBOOK).is_file():
        return [*found, f"{NOTEBOOK} is not there"]
    old = (root / NOTEBOOK).read_bytes().decode()
    if old == text(new):
        return found
    try:
        parts, wanted = by_source(json.loads(old)), by_source(new)
    except (KeyError, TypeError, ValueError):
        return [*found, f"{NOTEBOOK} was not written by this builder, or was damaged"]
    changed = [name for name in {**wanted, **parts} if parts.get(name) != wanted.get(name)]
    differing = [(name, parts.get(name, ""), wanted.get(name, "")) for name in changed] or [(NOTEBOOK, old, text(new))]
    return found + [f"{name} differs\n{difference(*pair)}" for name, *pair in differing]


def by_source(notebook: Mapping[str, Any]) -> dict[str, str]:
    """Return the notebook's text by the source file that it comes from."""
    parts = defaultdict(str)
    for cell in notebook["cells"]:
        name = cell["metadata"]["imgae_dx"]["source"].partition(":")[0]
        parts[name] += "".join(cell["source"]) + "\n"  # a text, or in the file a list of lines
    return parts


def difference(old: str, new: str, most: int = 12) -> str:
    """Return the first lines of a unified diff, indented."""
    lines = list(difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=0))[2:]
    more = [f"... and {len(lines) - most} more lines"] if len(lines) > most else []
    return "\n".join(f"    {line}" for line in lines[:most] + more)


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Build or check the project in `root`; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the notebook is out of date")
    options = parser.parse_args(arguments)
    try:
        if not options.check:
            write(root)
        elif found := check(root):
            print("\n".join([*found, "To bring it up to date: python build_notebook.py"]))
            return 1
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{NOTEBOOK} is {'current' if options.check else 'written'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
