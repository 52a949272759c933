"""The chapters outside the notebook: type-checked as one script, run by cells as an IDE does, paired with .ipynb."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest
import yaml
from nbclient import NotebookClient
from traitlets.config import Config

from lib.notebook.pair import pair
from lib.notebook.parameters import INJECTED_TITLE

ROOT = Path(__file__).parents[2]
CHAPTERS = sorted(ROOT.glob("research/[0-9][0-9]_*.py"))
SMOKE = yaml.safe_load((ROOT / "params/smoke.yaml").read_text())
CHECKER = [sys.executable, "-m", "mypy", "--allow-redefinition-new", "--local-partial-types", "--allow-untyped-defs"]
CHECKER += ["--disable-error-code=operator"]  # what a torch module calls its own may be a tensor, to the checker
BUILTIN = ["from typing import Any", "from IPython.display import display", "def get_ipython() -> Any: ..."]


def cells(chapter: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in jupytext.read(chapter, fmt="py:percent").cells if cell.cell_type == "code"]


def checked(script: Path, code: str) -> str:
    """What the type checker says of the chapters' code, by their lines, or "" if nothing."""
    lines = list(BUILTIN)
    places = ["IPython"] * len(lines)
    for chapter in CHAPTERS:
        text = chapter.read_text() + (code if chapter == CHAPTERS[-1] else "")
        for number, line in enumerate(text.splitlines(), start=1):
            lines.append(line)
            places.append(f"{chapter.name}:{number}")
    script.write_text("\n".join(lines) + "\n")
    done = subprocess.run([*CHECKER, str(script)], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode in (0, 1), done.stderr
    found = [line for line in done.stdout.splitlines() if ": error:" in line]
    return "\n".join(re.sub(r"^.*?:(\d+)", lambda n: places[int(n[1]) - 1], line) for line in found)


def test_the_type_checker_passes_the_chapters_as_one_script(tmp_path):
    assert checked(tmp_path / "chapters.py", "") == ""


def test_a_name_that_no_chapter_defines_is_found_with_its_line(tmp_path):
    last = len(CHAPTERS[-1].read_text().splitlines())
    assert f"{CHAPTERS[-1].name}:{last + 1}: error" in checked(tmp_path / "chapters.py", "print(evaluatoin)\n")


def test_pairing_leaves_the_chapter_alone_keeps_outputs_and_overwrites_no_edit(tmp_path):
    chapter, paired = tmp_path / "03_unet.py", tmp_path / "03_unet.ipynb"
    text = (ROOT / "research/03_unet.py").read_text() + "\n# %%\n# rm is no command here\n"
    chapter.write_text(text)
    assert pair(chapter) == ""
    first = nbformat.read(paired, as_version=4)
    output = nbformat.v4.new_output("stream", text="kept")
    next(cell for cell in first.cells if cell.cell_type == "code").outputs = [output]
    nbformat.write(first, paired)
    changed = text.replace("## Its best chance", "## Its chance")
    chapter.write_text(changed)
    assert pair(chapter) == ""
    second = nbformat.read(paired, as_version=4)
    nbformat.validate(second)
    plain = {"extension": ".py", "format_name": "percent", "comment_magics": False}
    assert [cell.source for cell in second.cells] == [cell.source for cell in jupytext.reads(changed, plain).cells]
    assert next(cell for cell in second.cells if cell.cell_type == "code").outputs == [output]
    second.cells[0].source = "# edited in the wrong place"
    nbformat.write(second, paired)
    chapter.write_text(text)
    assert "03_unet.ipynb was edited: put what you want to keep into 03_unet.py" in pair(chapter)
    assert nbformat.read(paired, as_version=4).cells[0].source == "# edited in the wrong place"
    assert chapter.read_text() == text
    chapter.write_text(jupytext.writes(second, plain))  # what was edited has been put into the chapter
    assert pair(chapter) == ""


def test_git_and_the_notebook_know_nothing_of_a_paired_file():
    ignored = subprocess.run(["git", "check-ignore", "-q", "research/03_unet.ipynb"], cwd=ROOT, timeout=60)
    assert ignored.returncode == 0


def test_before_a_commit_and_a_push_runs_what_ci_runs():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    commands = {hook["stages"][0]: hook["entry"] for repo in hooks for hook in repo["hooks"]}
    assert commands == {"pre-commit": "make --silent check", "pre-push": "make --silent test"}
    assert (ROOT / ".ci/run").read_text().rstrip().endswith("make test")
    assert re.search(r"^test: check$", (ROOT / "Makefile").read_text(), re.M)


@pytest.mark.long
def test_an_ide_runs_the_cells_of_all_chapters_on_the_library_beside_them(tmp_path):
    """One kernel at the repository's root, as VS Code's and PyCharm's cells have, and no embedded library."""
    settings = SMOKE | {"backbone": "none", "run_dir": str(tmp_path / "run")}
    injected = "\n".join([INJECTED_TITLE, *(f"{name} = {value!r}" for name, value in settings.items())])
    code = []
    for cell in [cell for chapter in CHAPTERS for cell in cells(chapter)]:
        code.append(cell)
        if "parameters" in cell.metadata.get("tags", []):
            code.append(nbformat.v4.new_code_cell(injected))
    code.append(nbformat.v4.new_code_cell("print(lib.__file__)"))
    book = nbformat.v4.new_notebook(cells=code)
    quiet = Config({"KernelManager": {"transport_encryption": "auto"}})
    NotebookClient(book, timeout=600, config=quiet, resources={"metadata": {"path": str(ROOT)}}).execute()
    assert book.cells[-1].outputs[0].text.strip() == str(ROOT / "lib/__init__.py")
    assert json.loads((tmp_path / "run/status.json").read_text())["status"] == "ok"
