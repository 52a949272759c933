"""The library of a running notebook: files in a private folder, in step with the cells that hold them.

Only relative imports lead from here: the setup cell loads this file under a name of its own, see `setup.py`.
"""

import ast
import difflib
import importlib.util
import sys
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from .cells import Cells
from .sources import digest, library_files, library_imports, module_name

ROOM = f"{__package__}."


class Library:
    """The notebook's files: `%embed` lists them, `%embed FILE` opens one in a cell, `%%embed FILE` writes a cell to it.

    When the text of an imported module changes, the module is reloaded, then every module that imports it, and the
    notebook's names follow. Objects made before keep their old code, so a note says from which cell to run again.
    """

    def __init__(self, shell: Any, folder: Path) -> None:
        self.shell = shell  # an IPython InteractiveShell
        self.folder = folder
        self.packed: dict[str, str] = {}  # file -> `digest` of it in the packed cell
        self.stale: set[str] = set()  # modules that are, or import, something newer than what is in memory
        self.reloaded: list[str] = []  # modules that no note has named yet
        self.cells = Cells(shell, folder, self.packed)
        shell.register_magic_function(self.embed, "line_cell", "embed")

    def unpack(self, files: Mapping[str, bytes]) -> None:
        """Write the files of the packed cell; a file that another cell has edited is restored, with a note."""
        self.packed |= {name: digest(text) for name, text in files.items()}
        self.come_first()
        restored = [name for name, text in files.items() if self.write(name, text) == "changed"]
        lines = sum(len(text.splitlines()) for text in files.values())
        print(f"{len(files)} files, {lines:,} lines: `%embed` lists them, `%embed lib/params.py` opens one in a cell")
        note = self.update()
        if restored:
            print(f"restored: {', '.join(restored)}; run again the cells that edited them\n{note}".rstrip())

    def embed(self, line: str, cell: str | None = None) -> None:
        """List the files, open file `line` in a cell, or write the text of a cell to that file."""
        name = line.strip()
        if cell is not None:
            self.replace(name, cell)
        elif name:
            self.open(name)
        else:
            for file, text in self.texts().items():
                edited = "" if self.packed.get(file) == digest(text) else "  edited"
                print(f"{file:40} {len(text.splitlines()):5} lines  {digest(text)}{edited}")

    def open(self, name: str) -> None:
        """Replace the cell that runs by `%%embed FILE` and the file's text; the name may lack its `lib/`."""
        texts = self.texts()
        file = next((file for file in (name, f"lib/{name}") if file in texts), None)
        if file is None:
            near = difflib.get_close_matches(f"lib/{name.removeprefix('lib/')}", texts, n=1, cutoff=0)
            raise ValueError(f"%embed {name}: there is no such file; did you mean {near[0]}? `%embed` lists them")
        self.shell.set_next_input(f"%%embed {file}\n{texts[file].decode()}", replace=True)
        print(f"{file} is now in this cell, or in a new one below: edit it and run that cell. If you see no text,")
        print(f"write `%%embed {file}` and paste below it what `!cat {self.folder / file}` prints.")

    def replace(self, name: str, cell: str) -> None:
        """Write the text of a cell to file `name`; line n of the text is line n of the file."""
        file, text = (self.folder / name).resolve(), cell.encode()
        if self.folder not in file.parents:
            raise ValueError(f"%%embed {name}: wanted a file inside the notebook's folder, such as lib/x.py")
        own = [getattr(module, "__file__", "") for key, module in sys.modules.items() if key.startswith(ROOM)]
        if str(file) in own:
            raise ValueError(f"%%embed {name}: this file keeps the notebook's files; change it in the repository")
        if file.suffix == ".py":
            compile(cell, str(file), "exec", dont_inherit=True)  # a SyntaxError leaves the old file as it is
            if file.is_file() and file.read_bytes() != text:
                self.graph({name: text})  # as does a circle of imports
            self.come_first()
        state = self.write(name, text)
        print(f"{name}  {len(cell.splitlines())} lines  {self.update() or state}")

    def texts(self) -> dict[str, bytes]:
        """Return the files as they are now, by name."""
        files = [file for file in sorted(self.folder.rglob("*")) if file.is_file() and file.suffix != ".pyc"]
        return {file.relative_to(self.folder).as_posix(): file.read_bytes() for file in files}

    def write(self, name: str, text: bytes) -> str:
        """Write a file, mark its module for a reload, and return "unchanged", "changed" or "new"."""
        file = self.folder / name
        old = file.read_bytes() if file.is_file() else None
        if old != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(text)
            if file.suffix == ".py":  # Python takes bytecode of the same second and size for current
                Path(importlib.util.cache_from_source(str(file))).unlink(missing_ok=True)
                self.stale.add(module_name(name))
            importlib.invalidate_caches()
        return "unchanged" if old == text else "new" if old is None else "changed"

    def update(self) -> str:
        """Reload what is stale; return a note on the modules reloaded since the last note, or ""."""
        self.reload()
        names, self.reloaded = self.reloaded, []
        note = f"reloaded: {', '.join(names)}; objects made before keep their old code"
        return note + self.cells.rerun(names) if names else ""

    def come_first(self) -> None:
        """Let `import lib` find this notebook's; another that is in memory already is forgotten, with a note."""
        here = str(self.folder)
        sys.path[:] = [here, *(path for path in sys.path if path != here)]
        files = {}
        for name, module in sys.modules.items():
            if name.partition(".")[0] == "lib":
                paths = [getattr(module, "__file__", None), *getattr(module, "__path__", [])]
                files[name] = next(filter(None, paths), "")
        if foreign := [name for name in files if self.folder not in Path(files[name]).parents]:
            print(f"set aside {', '.join(foreign)}, imported from {files[foreign[0]] or 'elsewhere'}: import anew")
            for name in foreign:
                del sys.modules[name]

    def graph(self, newer: Mapping[str, bytes]) -> dict[str, set[str]]:
        """Return the modules in import order, each with those that it imports, as the files and `newer` have them."""
        files = library_files(self.folder) | {module_name(name): name for name in newer}
        graph = {}
        for module, name in files.items():
            text = newer[name] if name in newer else (self.folder / name).read_bytes()
            graph[module] = library_imports(ast.parse(text), name, files) - {module}
        try:
            return {module: graph[module] for module in TopologicalSorter(graph).static_order() if module in graph}
        except CycleError as error:
            raise ImportError(f"modules import each other in a circle: {' <- '.join(error.args[1])}") from None

    def reload(self) -> None:
        """Reload what is stale, in import order; a module that fails, and its dependents, stay as they were, and stale.

        The names of a module are deleted first, so that a name it no longer defines is missing, as after a restart.
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
        for _, tree in self.cells.past():
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom):
                    links += [(alias.asname or alias.name, node.module or "", alias.name) for alias in node.names]
        for name, module, key in links:
            if name in names and key in before.get(module, ()) and names[name] is before[module][key]:
                names[name] = vars(sys.modules[module]).get(key, names[name])
