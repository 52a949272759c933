# @title Set up: `%%embed` keeps this notebook's library in a private folder, in step with its cells
"""The notebook's setup cell, to the byte: `%%embed`, reloads after an edit, and errors that name a chapter's line."""

import ast
import hashlib
import importlib.util
import json
import linecache
import re
import sys
import tempfile
import traceback
from collections.abc import Container, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

CELLS = "research/cells.json"  # written by the builder: file -> line above each code cell of it -> `content_id`


def content_id(file: str, source: str, kind: str = "code") -> str:
    """Return 12 hexadecimal digits that name a cell by its file, its type and its text, wherever it stands.

    A chapter's number is a place too, and does not count.
    """
    unnumbered = re.sub(r"\b\d\d_", "", file)
    return hashlib.sha256("\0".join([unnumbered, kind, source.strip()]).encode()).hexdigest()[:12]


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
    notebook's names follow. Objects made before keep their old code, so a note says from which cell to run again. Below
    an error stands the line of the chapter, and of the library, that it comes from.
    """

    def __init__(self, shell) -> None:
        self.shell = shell  # an IPython InteractiveShell
        self.temporary = tempfile.TemporaryDirectory(prefix="imgae_dx_")
        self.folder = Path(self.temporary.name).resolve()
        self.stale: set[str] = set()  # modules that are, or import, something newer than what is in memory
        self.reloaded: list[str] = []  # of which no note has told yet
        self.cell, self.cell_id, self.last = "", "", ""  # what runs; where the last unchanged cell before it begins
        self.ids: dict[int, str] = {}  # number of an execution -> which cell it was, where that is told
        shell.register_magic_function(self.embed, "cell", "embed")
        shell.events.register("pre_run_cell", self.begin)
        shell.events.register("post_run_cell", self.end)
        self.show, shell._showtraceback = shell._showtraceback, self.show_with_place

    def embed(self, line: str, cell: str) -> None:
        """Write the text below the magic as file `line`; line n of the file is line n of the repository's."""
        name, text, state = line.strip(), cell.encode(), "unchanged"
        file = (self.folder / name).resolve()
        old = file.read_bytes() if file.is_file() else None
        if self.folder not in file.parents:
            raise ValueError(f"%%embed {name}: wanted a file inside the notebook's folder, such as lib/x.py")
        if file.suffix == ".py":
            compile(cell, str(file), "exec", dont_inherit=True)  # a SyntaxError leaves the old file as it is
            if old not in (None, text):
                self.graph({f"lib.{file.stem}".removesuffix(".__init__"): text})  # as does a circle of imports
            self.come_first()
        if old != text:
            state = "new"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(text)
            if file.suffix == ".py":  # Python takes bytecode of the same second and size for current
                Path(importlib.util.cache_from_source(str(file))).unlink(missing_ok=True)
                self.stale.add(f"lib.{file.stem}".removesuffix(".__init__"))
            importlib.invalidate_caches()
        self.reload()
        if told := self.reloaded:
            self.reloaded = []
            state = f"reloaded: {', '.join(told)}; objects made before keep their old code{self.rerun(told)}"
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

    def graph(self, newer: dict[str, bytes]) -> dict[str, set[str]]:
        """Return the library's modules in import order, each with those that it imports, as files and `newer` have them."""
        files = library_files(self.folder)
        texts = {name: file.read_bytes() for name, file in files.items()} | newer
        graph = {name: library_imports(ast.parse(text), texts) - {name} for name, text in texts.items()}
        try:
            return {name: graph[name] for name in TopologicalSorter(graph).static_order() if name in graph}
        except CycleError as error:
            raise ImportError(f"modules import each other in a circle: {' <- '.join(error.args[1])}") from None

    def reload(self) -> None:
        """Reload what is stale, in import order; a module that fails stays as it was, and stale, as do its dependents.

        A module's old names go first, so that one which is no longer defined is missing as it would be after a restart.
        """
        self.stale &= sys.modules.keys()  # the others are read at their import
        if not self.stale:
            return
        graph = self.graph({})
        for name, imported in graph.items():
            if self.stale & imported and name in sys.modules:
                self.stale.add(name)
        before: dict[str, dict[str, object]] = {}
        failed: dict[str, BaseException | None] = {}
        for name in [name for name in graph if name in self.stale]:
            if graph[name] & failed.keys():
                failed[name] = None
                continue
            values = vars(sys.modules[name])
            before[name] = dict(values)
            for key in before[name]:
                if not key.startswith("__") and f"{name}.{key}" not in sys.modules:
                    del values[key]
            try:
                importlib.reload(sys.modules[name])
                self.stale.discard(name)
            except BaseException as error:
                failed[name] = error
                for key in [key for key in values if f"{name}.{key}" not in sys.modules]:
                    del values[key]
                values.update(before.pop(name))
        self.reloaded += [name for name in before if name not in self.reloaded]
        self.rebind(before)
        if first := next(filter(None, failed.values()), None):
            raise first

    def rebind(self, before: dict[str, dict[str, object]]) -> None:
        """Point the notebook's names at the reloaded modules' new values, where they still hold the old ones.

        A function or class is known by identity. A constant is not (3 is 3 everywhere): it follows if an import
        statement of an earlier cell gave it its name. A name whose value is no longer defined stays.
        """
        names, links = self.shell.user_ns, []
        for module, values in before.items():
            own = {id(value): key for key, value in values.items() if getattr(value, "__module__", None) == module}
            links += [(name, module, own[id(value)]) for name, value in names.items() if id(value) in own]
        for _, tree in self.past():
            imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
            links += [(alias.asname or alias.name, node.module, alias.name) for node in imports for alias in node.names]
        for name, module, key in links:
            if name in names and key in before.get(module, ()) and names[name] is before[module][key]:
                names[name] = vars(sys.modules[module]).get(key, names[name])

    def past(self) -> Iterator[tuple[int, ast.Module]]:
        """Yield number and syntax tree of each cell that has run, but for those that are no Python."""
        for number, cell in enumerate(self.shell.history_manager.input_hist_parsed):
            raw = self.shell.history_manager.input_hist_raw[number]
            try:
                if re.match(r"%%(time|timeit|capture|prun)\b", raw):  # Python below
                    cell = self.shell.transform_cell(raw.partition("\n")[2])
                yield number, ast.parse(cell)
            except SyntaxError:  # that cell failed, so it named nothing
                continue

    def rerun(self, reloaded: list[str]) -> str:
        """Say which cell was the first to import one of these modules: nothing above it can hold old code."""
        files = library_files(self.folder)
        first = next((number for number, tree in self.past() if library_imports(tree, files) & {*reloaded}), None)
        if first is None:
            return ""
        raw, label = self.shell.history_manager.input_hist_raw, self.ids.get(first)
        again = [n for n in range(first, len(raw)) if label and self.ids.get(n) == label]
        places = self.places(raw[first])
        return f"; run again from In[{max(again, default=first)}] on{f', {places[0]}' if places else ''}"

    def begin(self, info) -> None:
        """Note which cell runs now; `info` is an IPython ExecutionInfo, which in Colab's version 7 has no `cell_id`."""
        self.last = next(iter(self.places(self.cell)), self.last)
        self.cell, self.cell_id = info.raw_cell, getattr(info, "cell_id", None) or ""

    def end(self, result) -> None:
        """Note the number that the page gives the cell which has run; `result` is an IPython ExecutionResult."""
        if result.info.store_history:
            self.ids[len(self.shell.history_manager.input_hist_raw) - 1] = self.cell_id

    def origins(self) -> Iterator[tuple[str, int, str]]:
        """Yield file, line above the first of its own, and `content_id` of each cell as the builder made it."""
        file = self.folder / CELLS
        for name, cells in json.loads(file.read_text() if file.is_file() else "{}").items():
            for line, label in cells.items():
                yield name, int(line), label

    def places(self, cell: str, line: int = 0) -> list[str]:
        """Return where line `line` of a cell comes from: nothing if it was edited, two places if two cells are equal."""
        return [f"{name}:{above + line}" for name, above, label in self.origins() if label == content_id(name, cell)]

    def where(self, error: BaseException) -> str:
        """Return the lines of chapter and library that an error comes from, or which cell was edited since."""
        steps = list(traceback.walk_tb(error.__traceback__))
        lines = [line for frame, line in steps if frame.f_locals is self.shell.user_ns]  # the cell's, in no function
        files = [(frame.f_code.co_filename, line) for frame, line in steps]
        if isinstance(error, SyntaxError):
            files.append((error.filename or "", error.lineno or 0))
        found = []
        if not self.cell.startswith("%%embed "):
            built = self.places(self.cell, lines[0] if lines else 0)
            edited = [f"{name}:{above}" for name, above, label in self.origins() if label == self.cell_id]
            if built:
                found.append(" or ".join(built))
            elif edited:
                found.append(f"an edited form of the cell at {edited[0]}")
            else:
                found.append(f"a cell that was edited or added{self.last and f', after the one at {self.last}'}")
        inside = [(Path(file), line) for file, line in files if self.folder in Path(file).parents]
        if inside:
            file, line = inside[-1]
            name, text = file.relative_to(self.folder).as_posix(), file.read_text(encoding="utf-8")
            whole = (name, 0, content_id(name, text)) in self.origins()
            found.append(f"{name}:{line}" + ("" if whole else ", a file that was edited"))
        return "at " + ", ".join(found) if found else ""

    def show_with_place(self, kind: type, error: BaseException, lines: list[str]) -> None:
        """Show an error as IPython does, with its places below."""
        try:
            place = self.where(error)
        except Exception as trouble:  # the error itself matters more
            place = f"(from where, could not be said: {trouble!r})"
        self.show(kind, error, [*lines, place] if place else lines)


if __name__ == "__main__" and "embed" not in get_ipython().magics_manager.magics["cell"]:
    # Run again, it keeps the folder and what is imported. It runs in names of its own, for a reader may import a `Path` too.
    _text = "".join(linecache.getlines(content_id.__code__.co_filename))
    exec(compile(_text, content_id.__code__.co_filename, "exec"), _own := {"__name__": "imgae_dx_setup"})
    _own["Library"](get_ipython())
