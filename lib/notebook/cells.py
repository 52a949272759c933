"""The cells of a running notebook: which have run, and which line of which file an error comes from.

Only relative imports lead from here: the setup cell loads this file under a name of its own, see `setup.py`.
"""

import ast
import json
import re
import traceback
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .sources import CELLS, content_id, digest, library_files, library_imports


class Cells:
    """Follows the cells as they run, and shows below an error the lines of chapter and library where it arose."""

    def __init__(self, shell: Any, folder: Path, packed: Mapping[str, str]) -> None:
        self.shell = shell  # an IPython InteractiveShell
        self.folder = folder  # of the library's files
        self.packed = packed  # file -> `digest` of it in the packed cell
        self.running, self.running_id = "", ""  # text of the cell that runs, and its id where the page tells it
        self.last = ""  # where the last unchanged cell before it begins
        self.ids: dict[int, str] = {}  # number of an execution -> id of the cell, where the page tells it
        shell.events.register("pre_run_cell", self.begin)
        shell.events.register("post_run_cell", self.end)
        self.show, shell._showtraceback = shell._showtraceback, self.show_with_place

    def begin(self, info: Any) -> None:
        """Note which cell runs now; `info` is an IPython ExecutionInfo, which in Colab's version 7 has no `cell_id`."""
        self.last = next(iter(self.places(self.running)), self.last)
        self.running, self.running_id = info.raw_cell, getattr(info, "cell_id", None) or ""

    def end(self, result: Any) -> None:
        """Note the number that the page gives the cell which has run; `result` is an IPython ExecutionResult."""
        if result.info.store_history:
            self.ids[len(self.shell.history_manager.input_hist_raw) - 1] = self.running_id

    def past(self) -> Iterator[tuple[int, ast.Module]]:
        """Yield number and syntax tree of each cell that has run and holds Python."""
        for number, cell in enumerate(self.shell.history_manager.input_hist_parsed):
            raw = self.shell.history_manager.input_hist_raw[number]
            try:
                if re.match(r"%%(time|timeit|capture|prun)\b", raw):  # Python below
                    cell = self.shell.transform_cell(raw.partition("\n")[2])
                yield number, ast.parse(cell)
            except SyntaxError:  # that cell failed, so it named nothing
                continue

    def rerun(self, modules: Iterable[str]) -> str:
        """Say which cell was the first to import one of these modules: nothing above it can hold old code."""
        files = library_files(self.folder)
        first = next((n for n, tree in self.past() if library_imports(tree, "", files) & set(modules)), None)
        if first is None:
            return ""
        raw, label = self.shell.history_manager.input_hist_raw, self.ids.get(first)
        again = [n for n in range(first, len(raw)) if label and self.ids.get(n) == label]
        places = self.places(raw[first])
        return f"; run again from In[{max(again, default=first)}] on{f', {places[0]}' if places else ''}"

    def origins(self) -> Iterator[tuple[str, int, str]]:
        """Yield chapter, line above the first of its own and `content_id` of each code cell, as built."""
        file = self.folder / CELLS
        for name, cells in json.loads(file.read_text() if file.is_file() else "{}").items():
            for line, label in cells.items():
                yield name, int(line), label

    def places(self, cell: str, line: int = 0) -> list[str]:
        """Return where line `line` of a cell comes from: nothing if it was edited, two places for two equal cells."""
        return [f"{name}:{above + line}" for name, above, label in self.origins() if label == content_id(name, cell)]

    def where(self, error: BaseException) -> str:
        """Return the lines of chapter and library that an error comes from, or which cell was edited since."""
        steps = [
            (frame, line)
            for frame, line in traceback.walk_tb(error.__traceback__)
            if frame.f_globals.get("__package__") != __package__
        ]
        lines = [line for frame, line in steps if frame.f_locals is self.shell.user_ns]  # the cell's, in no function
        files = [(frame.f_code.co_filename, line) for frame, line in steps]
        if isinstance(error, SyntaxError):
            files.append((error.filename or "", error.lineno or 0))
        found = []
        if not self.running.startswith(("%%embed ", "%%unpack")):
            built = self.places(self.running, lines[0] if lines else 0)
            edited = [f"{name}:{above}" for name, above, label in self.origins() if label == self.running_id]
            if built:
                found.append(" or ".join(built))
            elif edited:
                found.append(f"an edited form of the cell at {edited[0]}")
            else:
                found.append(f"a cell that was edited or added{self.last and f', after the one at {self.last}'}")
        inside = [(Path(file), line) for file, line in files if self.folder in Path(file).parents]
        if inside:
            file, line = inside[-1]
            name = file.relative_to(self.folder).as_posix()
            whole = self.packed.get(name) == digest(file.read_bytes())
            found.append(f"{name}:{line}" + ("" if whole else ", a file that was edited"))
        return "at " + ", ".join(found) if found else ""

    def show_with_place(self, kind: type, error: BaseException, lines: list[str]) -> None:
        """Show an error as IPython does, with its places below."""
        try:
            place = self.where(error)
        except Exception as trouble:  # the error itself matters more
            place = f"(its place is not known: {trouble!r})"
        self.show(kind, error, [*lines, place] if place else lines)
