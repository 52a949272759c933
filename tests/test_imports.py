"""Promises of the map in `lib/__init__.py`: every module is on it, and imports only from those above it."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lib

ROOT = Path(__file__).resolve().parents[1]
FILES = {file.stem: file for file in (ROOT / "lib").glob("*.py") if file.stem != "__init__"}
LISTED = re.findall(r"^(\w+) {2,}\S", lib.__doc__, flags=re.MULTILINE)


def imported(module: str) -> set[str]:
    """Every module that the file imports, at its top or in a function, by its full name."""
    names = set()
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            whole = node.module in ("lib", "matplotlib")  # from lib import x: the module is lib.x
            names |= {f"{node.module}.{alias.name}" for alias in node.names} if whole else {node.module}
    return names


def test_the_map_lists_every_module_once():
    assert sorted(LISTED) == sorted(FILES)


@pytest.mark.parametrize("module", LISTED)
def test_a_module_imports_only_from_those_above_it(module):
    above = {f"lib.{name}" for name in LISTED[: LISTED.index(module)]}
    assert {name for name in imported(module) if name.startswith("lib.")} <= above


def test_evaluation_works_without_torch():
    code = "import sys, lib.evaluation; print([name for name in ('torch', 'matplotlib') if name in sys.modules])"
    made = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert made.stdout.strip() == "[]"


@pytest.mark.parametrize("module", sorted(FILES))
def test_only_figures_and_what_handles_them_draw_and_none_of_them_keeps_a_state(module):
    drawing = {name for name in imported(module) if name.split(".")[0] in ("matplotlib", "seaborn")}
    assert not drawing or module in {"figures", "charts", "runs", "cli"}
    assert "matplotlib.pyplot" not in drawing


def test_every_module_opens_by_saying_what_it_is_for():
    for module, file in FILES.items():
        first = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").split("\n")[0]
        assert 20 < len(first) <= 120, module


def lines() -> list[int]:
    return [len(file.read_text(encoding="utf-8").splitlines()) for file in FILES.values()]


@pytest.mark.xfail(
    strict=True,
    reason="3,000 lines are promised; getting at images took 1,270, references and choices 1,360, evidence 1,350",
)
def test_the_library_stays_thin():
    assert sum(lines()) < 3_000


def test_until_it_is_thin_again_the_library_only_shrinks():
    assert sum(lines()) < 7_700
    assert max(lines()) < 400
