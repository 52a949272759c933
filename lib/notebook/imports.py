"""The imports of chapters and library, as the builder checks them: what it cannot follow is refused by line."""

import ast
import re
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from lib.notebook.sources import BuildError, library_files, library_imports, parse, text_of

DYNAMIC = ("import_module", "__import__")
SUSPECT = re.compile(r"import_module|__import__|research")  # without these words there is nothing to look for


def check_imports(root: Path, chapters: Iterable[str]) -> None:
    """Raise BuildError if chapters or library import what is not there, what cannot be followed, or in a circle."""
    library = library_files(root)
    if "lib" not in library:
        raise BuildError("lib/__init__.py is not there; without it any other package named lib is imported instead")
    graph = {module: sorted(imports_of(root, file, library) - {module}) for module, file in library.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise BuildError(f"modules import each other in a circle: {' <- '.join(error.args[1])}") from None
    for chapter in chapters:
        imports_of(root, chapter, library)


def imports_of(root: Path, file: str, library: Mapping[str, str]) -> set[str]:
    """Return the modules of `lib` that a chapter or module imports."""
    text = text_of(root, file)
    tree = parse(file, text)
    for node in ast.walk(tree) if SUSPECT.search(text) else ():
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in DYNAMIC:
            if re.search(r"""\(f?['"](\.|\d\d_|(lib|research)\b)""", ast.unparse(node)):
                raise BuildError(f"{file}:{node.lineno}: {ast.unparse(node)} cannot be followed; write an import")
        elif isinstance(node, ast.Import | ast.ImportFrom) and re.match(r"\w+ research\b", ast.unparse(node)):
            raise BuildError(f"{file}:{node.lineno}: {ast.unparse(node)}: chapters share the notebook's names")
    modules = library_imports(tree, file, library)
    if missing := sorted(modules - library.keys()):
        raise BuildError(f"{file} imports {missing[0]}, but there is no {missing[0].replace('.', '/')}.py")
    return modules


def purpose(root: Path, file: str) -> str:
    """Return the first line of a module's docstring, which says in the notebook what the file is for."""
    docstring = ast.get_docstring(parse(file, text_of(root, file)))
    if not docstring:
        raise BuildError(f"{file} has no docstring; its first line says in the notebook what it is for")
    return docstring.splitlines()[0]
