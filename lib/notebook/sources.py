"""Sources and their names: what the builder and the running notebook call a cell and a module. Python alone."""

import ast
import hashlib
import re
from bisect import bisect_left
from collections.abc import Container, Iterator
from functools import cache
from pathlib import Path, PurePath

CELLS = "research/cells.json"  # written by the builder: chapter -> line above each of its code cells -> `content_id`

ENDS = re.compile("[\0\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")  # where `str.splitlines` ends a line and Python does not

TOO_DEEP = "an expression is nested too deeply for Python; write it in several steps"


class BuildError(ValueError):
    """The chapters or the library cannot become a notebook."""


def digest(content: bytes) -> str:
    """Return the first 12 hexadecimal digits of the SHA-256."""
    return hashlib.sha256(content).hexdigest()[:12]


def content_id(file: str, source: str, kind: str = "code") -> str:
    """Return 12 hexadecimal digits that name a cell by its file, its type and its text, wherever it stands.

    The number in a chapter's name does not count, so that a renumbered chapter keeps its cells.
    """
    unnumbered = re.sub(r"\b\d\d_", "", file)
    return digest("\0".join([unnumbered, kind, source.strip()]).encode())


def module_name(file: str) -> str:
    """Return the module that a file holds: `lib.room.file` for `lib/room/file.py`, `lib.room` for its `__init__.py`."""
    return ".".join(PurePath(file).with_suffix("").parts).removesuffix(".__init__")


def library_files(root: Path) -> dict[str, str]:
    """Return the files of the package `lib` in `root`, such as `lib/room/file.py`, by module name."""
    names = [file.relative_to(root).as_posix() for file in sorted(root.glob("lib/**/*.py"))]
    return {module_name(name): name for name in names}


def library_imports(tree: ast.AST, file: str, known: Container[str]) -> set[str]:
    """Return the modules of `lib` that the code of `file` imports, anywhere in it.

    `from lib.room import name` means the module `lib.room.name` if that is known, else `lib.room`.
    """
    folders = PurePath(file).parent.parts
    found = set()
    for node in statements(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = folders[: len(folders) + 1 - node.level] if node.level else ()
            base = ".".join([*parents, *filter(None, [node.module])])
            found |= {name if (name := f"{base}.{alias.name}") in known else base for alias in node.names}
    return {name for name in found if name.partition(".")[0] == "lib"}


def statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield all statements of a syntax tree, also those inside others, without descending into expressions."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.stmt | ast.excepthandler | ast.match_case):
            yield node
            yield from statements(node)


def text_of(root: Path, name: str) -> str:
    """Return a source file's text; BuildError if a notebook could not hold it to the byte and run."""
    try:
        text = (root / name).read_bytes().decode()
    except OSError as error:
        raise BuildError(f"{name} cannot be read: {error.strerror}; wanted a file of text, or nothing there") from None
    except UnicodeDecodeError as error:
        raise BuildError(
            f"{name} is not text in UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from None
    if "\r" in text or text.startswith("\ufeff"):
        raise BuildError(f"{name} has line ends of Windows or a byte order mark; save it as plain UTF-8 with ends \\n")
    if found := ENDS.search(text):
        line, number = text.count("\n", 0, found.start()) + 1, f"{ord(found[0]):04X}"
        raise BuildError(
            f"{name}:{line}: U+{number}, which ends a line or the text for some programs; delete it, or write it as "
            f"\\u{number.lower()}"
        )
    return text


@cache
def parse(name: str, text: str) -> ast.Module:
    """Return a source file's syntax tree; BuildError names the line where it is no Python."""
    try:
        return ast.parse(text, name)
    except SyntaxError as error:
        raise BuildError(f"{name}:{error.lineno}: {error.msg}") from None
    except (MemoryError, RecursionError):
        lines = text.split("\n")
        line = bisect_left(range(len(lines)), True, key=lambda last: _is_too_deep("\n".join(lines[: last + 1]))) + 1
        raise BuildError(f"{name}:{line}: {TOO_DEEP}") from None


def _is_too_deep(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    except (MemoryError, RecursionError):
        return True
    return False


def check_code(name: str, code: str, above: int = 0) -> None:
    """Compile the text of a cell, which begins below line `above` of a file; BuildError names the file's line."""
    try:
        compile(code, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    except SyntaxError as error:
        raise BuildError(f"{name}:{above + (error.lineno or 0)}: {error.msg}") from None
    except (MemoryError, RecursionError):
        raise BuildError(f"{name}:{above + 1}: in the code from here on {TOO_DEEP}") from None
