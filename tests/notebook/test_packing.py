"""Promises of the packed cell: the same bytes from every Python, and all of each file out of it again."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lib.notebook.packing import COLUMNS, MAGIC, pack, packed_files
from lib.notebook.setup import Packed

ROOT = Path(__file__).resolve().parents[2]


def others() -> list[str]:
    """The Pythons of this machine that the notebook has to be built on, on the path or pyenv's."""
    names = [shutil.which(f"python3.{minor}") for minor in (11, 12, 13)]
    found = [*filter(None, names), *map(str, Path.home().glob(".pyenv/versions/3.1[123].*/bin/python"))]
    return [name for name in found if subprocess.run([name, "-c", ""], capture_output=True).returncode == 0]


@pytest.mark.parametrize("text", ["", "\n", "no line end", "é 😀 {braces} %s\n", '"""Quotes\\n"""\n' * 5000])
def test_a_file_comes_out_of_the_cell_as_it_went_in(text):
    cell = pack({"lib/a.py": text, "research/results/b.json": "1\n"})
    assert cell.startswith(MAGIC + COLUMNS) and len(cell.splitlines()) == 4
    assert Packed.files(cell.removeprefix(MAGIC)) == {"lib/a.py": text.encode(), "research/results/b.json": b"1\n"}


@pytest.mark.parametrize("python", others())
def test_another_python_packs_this_repository_to_the_same_byte(python):
    files = packed_files(ROOT)
    code = "import json, sys; from lib.notebook.packing import pack; sys.stdout.write(pack(json.load(sys.stdin)))"
    done = subprocess.run(
        [python, "-I", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}"],
        input=json.dumps(files), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == pack(files)


def test_the_cell_holds_nothing_that_a_page_or_a_magic_could_take_for_something_else():
    body = pack({"lib/a.py": "x = 1\n" * 100}).removeprefix(MAGIC)
    assert body.isascii() and not {'"', "\\", "'"} & set(body)
    assert sys.getsizeof(body) < 1000
