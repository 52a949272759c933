"""The notebook builder: tiny projects are built, checked and run."""

import base64
import bz2
import hashlib
import json
import re
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml
from nbclient import NotebookClient

from build_notebook import NOTEBOOK, ROOT, BuildError, build, check, main, text, write
from lib.notebook.packing import MAGIC
from lib.notebook.parameters import parameters_cell
from lib.notebook.setup import Packed
from lib.notebook.sources import CELLS, text_of
from lib.params import Params

PARAMS = '''"""The settings."""

from pydantic import BaseModel, Field


class Params(BaseModel):
    """Stands in for the real model."""

    epochs: int = Field(3, description="passes")
'''
CELL = """# @title Parameters

# @markdown **What most runs change**
epochs: int = 3  # @param {"type":"integer"} # passes
"""

PROJECT = {
    "lib/__init__.py": '"""What chapters share."""\n',
    "lib/params.py": PARAMS,
    "lib/zero.py": '"""The first number.\n\nMore about it.\n"""\n\nZERO = "naught\\n {braces} é"\n',
    "lib/pair.py": '"""Two numbers."""\n\nfrom . import zero as origin\n\n\ndef pair():\n    return origin.ZERO, 1\n',
    "lib/runs/__init__.py": '"""A room."""\n',
    "lib/runs/cli.py": '"""For the command line only."""\n\nfrom ..pair import pair\n',
    "research/00_question.py": ("# %% [markdown]\n# # 0 Which one?\n#\n# It is run in [the first](01_run.py).\n"),
    "research/01_run.py": (
        "# %% [markdown]\n# # 1 Does it run?\n# Text.\n\n"
        f'# %% tags=["parameters"]\n{CELL}\n'
        "# %%\nfrom lib.params import Params\n\nprint(Params.__module__, epochs)\n"
    ),
    "research/02_look.py": (
        '# %% [markdown] shows=["zero.py", "pair.py"]\n# # 2 How does it look?\n# Text.\n\n'
        '# %% [markdown] id="why"\n# Because.\n\n'
        "# %%\nimport json\nfrom pathlib import Path\n\nimport lib.pair\n\n"
        'results = Path(lib.__file__).parents[1] / "research/results"\n'
        'print(lib.pair.pair(), json.loads((results / "a.json").read_text()))\n'
    ),
    "research/results/a.json": '{"auroc": 0.5}\n',
    "research/results/.gitkeep": "",
}


@pytest.fixture
def project(tmp_path):
    root = tmp_path / "project"
    for name, content in PROJECT.items():
        put(root, name, content)
    return root


FIGURE = "\n# %% [markdown]\n# ![an image](data:image/png;base64,AAAA)\n"


def put(root, name, content):
    """Write a file, and to a chapter a last figure."""
    content += FIGURE if re.match(r"research/\d\d_", name) and FIGURE not in content else ""
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(content, encoding="utf-8", newline="")


def change(root, name, old, new):
    content = (root / name).read_text(encoding="utf-8")
    assert content.count(old) == 1
    put(root, name, content.replace(old, new))


def snapshot(root):
    return {file: file.read_bytes() for file in root.rglob("*") if file.is_file() and "__pycache__" not in file.parts}


def cell_of(notebook, label):
    return next(cell for cell in notebook.cells if cell.id == label)


def packed(notebook):
    """Return the text of the packed files by name, taken out of the notebook again."""
    files = Packed.files(cell_of(notebook, "packed").source.removeprefix(MAGIC))
    return {name: content.decode() for name, content in files.items()}


def shown(notebook):
    """Return the text of the files that stand in cells of their own, by name, in the order of the cells."""
    sources = [cell.source for cell in notebook.cells if cell.source.startswith("%%embed ")]
    return {source.split("\n", 1)[0].split()[1]: source.split("\n", 1)[1] for source in sources}


def printed(notebook):
    return "".join(out.get("text", "") for cell in notebook.cells for out in cell.get("outputs", []))


def test_a_rebuild_is_identical_to_the_byte_and_a_valid_notebook_without_outputs(project):
    assert main([], project) == 0
    first = (project / NOTEBOOK).read_bytes()
    again = subprocess.run(  # another process has another hash seed
        [sys.executable, "-c", "import sys; from build_notebook import *; write(Path(sys.argv[1]))", project], cwd=ROOT
    )
    assert again.returncode == 0
    assert (project / NOTEBOOK).read_bytes() == first
    assert (
        first.endswith(b"}\n")
        and first == (json.dumps(json.loads(first), indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
    )
    notebook = nbformat.reads(first.decode(), as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3" and notebook.metadata.accelerator == "GPU"
    assert notebook.metadata.colab == {
        "collapsed_sections": ["library", "library-02_look"],
        "gpuType": "T4",
        "name": Path(NOTEBOOK).name,
        "provenance": [],
        "toc_visible": True,
    }
    assert all(cell.get("outputs", []) == [] and cell.get("execution_count") is None for cell in notebook.cells)


def test_each_cell_has_one_id_in_both_places_and_names_the_line_it_comes_from(project):
    cells = build(project).cells
    assert all(cell.id == cell.metadata.id for cell in cells)
    assert len({cell.id for cell in cells}) == len(cells)
    origins = {cell.id: cell.metadata.imgae_dx.source for cell in cells}
    assert origins["why"] == "research/02_look.py:5"
    assert origins["02_look"] == "research/02_look.py:1"
    assert origins["embed-lib-zero-py"] == "lib/zero.py:1"


def test_a_cell_put_in_between_leaves_all_other_ids_alone(project):
    before = [cell.id for cell in build(project).cells]
    change(project, "research/01_run.py", "# %%\nfrom lib", "# %%\nextra = 1\n\n# %%\nfrom lib")
    after = [cell.id for cell in build(project).cells]
    assert len(after) == len(before) + 1
    assert [label for label in after if label in before] == before


def test_equal_cells_get_an_ordinal(project):
    put(project, "research/03_twice.py", "# %% [markdown]\n# # 3 Twice?\n# Text.\n\n# %%\n1\n\n# %%\n1\n")
    first, second = (cell.id for cell in build(project).cells[-3:-1])
    assert second == f"{first}-2"


@pytest.mark.parametrize(
    ("label", "complaint"),
    [
        ('"why"', "both have the id 'why'"),
        ('"contents"', "both have the id 'contents'"),
        ('"a b"', "id='a b'"),
        ("3", "id=3"),
    ],
)
def test_an_id_that_is_taken_or_malformed_is_refused_with_its_place(project, label, complaint):
    put(project, "research/03_more.py", f"# %% [markdown]\n# # 3 More?\n# Text.\n\n# %% id={label}\n1\n")
    with pytest.raises(BuildError, match=f"research/03_more.py:5.*{complaint}"):
        build(project)


def test_two_parameters_cells_or_none_are_refused_and_those_found_are_named(project):
    put(
        project,
        "research/03_more.py",
        '# %% [markdown]\n# # 3 More?\n# Text.\n\n# %% tags=["parameters"]\nlr = 1\n',
    )
    with pytest.raises(BuildError, match=r"found research/01_run.py:5, research/03_more.py:5"):
        build(project)
    (project / "research/03_more.py").unlink()
    change(project, "research/01_run.py", ' tags=["parameters"]', "")
    with pytest.raises(BuildError, match="found none"):
        build(project)


def test_the_parameters_cell_is_rewritten_from_the_model_and_nothing_else_is(project, capsys):
    assert main([], project) == 0
    before = snapshot(project)
    line = CELL.splitlines()[-1] + "\n"
    change(project, "research/01_run.py", f"{line}\n", "epochs: int = 99\nlr = 1\n\n\n")
    assert main(["--check"], project) == 1
    output = capsys.readouterr().out
    assert "research/01_run.py: the parameters cell differs" in output and "-epochs: int = 99" in output
    assert main([], project) == 0
    expected = before[project / "research/01_run.py"].replace(b"# passes\n\n", b"# passes\n\n\n")  # blank lines stay
    after = snapshot(project)
    assert after.pop(project / "research/01_run.py") == expected
    assert {name for name in after if after[name] != before[name]} <= {project / NOTEBOOK}  # line numbers moved
    [cell] = [cell for cell in build(project).cells if "parameters" in cell.metadata.get("tags", [])]
    assert cell.source == CELL.rstrip()


def test_an_empty_parameters_cell_is_filled_and_stays_apart_from_the_next(project):
    whole = (project / "research/01_run.py").read_text()
    change(project, "research/01_run.py", CELL, "")
    write(project)
    assert (project / "research/01_run.py").read_text() == whole


def test_check_is_one_line_when_current_and_writes_nothing(project, capsys):
    write(project)
    before = snapshot(project)
    assert main(["--check"], project) == 0
    assert capsys.readouterr().out == f"{NOTEBOOK} is current\n"
    assert snapshot(project) == before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("lib/zero.py", "naught", "nil"),
        ("lib/runs/cli.py", "only", "alone"),
        ("research/02_look.py", "Because.", "Because it is."),
        ("research/results/a.json", "0.5", "0.75"),
    ],
)
def test_check_names_the_file_that_differs_shows_the_lines_and_the_command(project, capsys, name, old, new):
    write(project)
    change(project, name, old, new)
    before = snapshot(project)
    assert main(["--check"], project) == 1
    output = capsys.readouterr().out
    assert re.findall(r"(\S+) differs", output) == [name]
    assert re.search(rf"^ +-.*{re.escape(old)}", output, re.M) and re.search(rf"^ +\+.*{re.escape(new)}", output, re.M)
    assert "python build_notebook.py" in output
    assert snapshot(project) == before


def test_check_reports_a_notebook_that_is_missing_damaged_or_edited_by_hand(project):
    assert check(project) == [f"{NOTEBOOK} is not there"]
    write(project)
    good = (project / NOTEBOOK).read_text()
    for bad in (
        good[:-20],
        '{"cells": [{"cell_type": "code"}]}',
        "{}",
        "[]",
        good.replace('"T4"', '"A100"'),
    ):
        put(project, NOTEBOOK, bad)
        assert check(project) != []
    put(project, NOTEBOOK, good.replace("\n", "\r\n"))
    assert check(project) == [f"{NOTEBOOK} differs\n    in line ends alone"]
    (project / NOTEBOOK).write_bytes(good.encode("utf-16"))
    assert "was damaged" in check(project)[0]


def test_check_shows_of_a_long_line_the_part_that_differs(project, capsys):
    help_text = " ".join(map(str, range(100)))
    change(project, "lib/zero.py", "The first number.", f"The first number. {help_text}")
    write(project)
    change(project, "lib/zero.py", " 99", " 99 new")
    assert main(["--check"], project) == 1
    output = capsys.readouterr().out
    assert re.search(r"^ +-.* 99$", output, re.M) and re.search(r"^ +\+.* 99 new$", output, re.M)


def test_another_compression_of_the_same_files_is_current_and_a_damaged_one_is_named(project, monkeypatch):
    with monkeypatch.context() as other:
        other.setattr("bz2.compress", lambda content, level=9, compress=bz2.compress: compress(content, 1))
        write(project)
    assert (project / NOTEBOOK).read_bytes() != text(build(project)).encode()
    assert check(project) == []
    content = (project / NOTEBOOK).read_text()
    [line] = [line for line in content.splitlines() if '"lib/zero.py ' in line]
    put(project, NOTEBOOK, content.replace(line, line[:-20] + '\\n",'))
    assert "lib/zero.py is damaged" in check(project)[0]


def test_a_file_that_was_edited_in_its_cell_alone_is_named_once(project, capsys):
    write(project)
    change(project, NOTEBOOK, "naught", "nil")
    assert main(["--check"], project) == 1
    output = capsys.readouterr().out
    assert re.findall(r"(\S+) differs", output) == ["lib/zero.py"] and "nil" in output


def test_a_renumbered_chapter_keeps_the_ids_of_its_cells(project):
    before = {cell.id for cell in build(project).cells}
    content = (project / "research/02_look.py").read_text().replace("# # 2 ", "# # 7 ")
    (project / "research/02_look.py").unlink()
    put(project, "research/07_look.py", content)
    after = {cell.id for cell in build(project).cells}
    assert before - after == {"02_look", "library-02_look"}


def test_packed_files_are_the_library_and_the_results_and_equal_the_originals(project):
    put(project, "research/results/published/a/large.csv", "1\n")
    put(project, "lib/data/schema.json", "{}\n")
    put(project, "lib/__pycache__/zero.pyc", "")
    files = packed(nbformat.reads(text(build(project)), as_version=4))
    own = {name for name in files if not name.startswith("lib/notebook/")} - {CELLS}
    assert own == {name for name in PROJECT if re.match("lib|research/results/a", name)} | {"lib/data/schema.json"}
    assert {name: (project / name).read_text() for name in own} == {name: files[name] for name in own}


def test_each_packed_line_begins_with_name_length_and_hash_of_its_file(project):
    _, columns, *lines = cell_of(build(project), "packed").source.splitlines()
    assert columns.startswith("# file, lines, SHA-256")
    rows = {line.split()[0]: line.split()[1:3] for line in lines}
    assert list(rows) == sorted(rows)
    content = (project / "lib/zero.py").read_bytes()
    assert rows["lib/zero.py"] == ["6", hashlib.sha256(content).hexdigest()[:12]]


def test_the_change_of_one_file_changes_one_packed_line(project):
    before = cell_of(build(project), "packed").source.splitlines()
    change(project, "lib/runs/cli.py", "only", "alone")
    after = cell_of(build(project), "packed").source.splitlines()
    assert [line.split()[0] for line in after if line not in before] == ["lib/runs/cli.py"]
    assert len(after) == len(before)


def test_a_chapter_shows_the_files_that_it_lists_in_front_of_it_and_packed_they_are_too(project):
    notebook = build(project)
    labels = [cell.id for cell in notebook.cells]
    wanted = ["00_question", "contents", "library", "setup", "packed", "01_run", "parameters"]
    wanted += ["library-02_look", "embed-lib-zero-py", "embed-lib-pair-py", "02_look", "why"]
    assert [label for label in labels if label in wanted] == wanted
    heading = cell_of(notebook, "library-02_look").source
    assert heading.endswith("\n- `lib/zero.py`: The first number.\n- `lib/pair.py`: Two numbers.")
    assert list(shown(notebook)) == ["lib/zero.py", "lib/pair.py"]
    assert shown(notebook).items() <= packed(notebook).items()
    library = [cell for cell in notebook.cells if "library" in cell.metadata.get("tags", [])]
    folded = [cell for cell in library if cell.metadata.get("cellView") == "form"]  # Colab's word; JupyterLab's below
    assert folded == [cell for cell in library if cell.metadata.get("jupyter") == {"source_hidden": True}]
    assert (len(library), folded) == (3 + 3, [cell for cell in library if cell.cell_type == "code"])
    assert "shows" not in cell_of(notebook, "02_look").metadata


@pytest.mark.parametrize(
    ("listed", "complaint"),
    [
        ('["no.py"]', "shows lib/no.py, which is not there"),
        ('["params.py", "zero.py"]', "research/03_x.py shows lib/zero.py, which research/02_look.py shows too"),
        ('"zero.py"', "research/03_x.py:1: shows='zero.py'; wanted a list"),
    ],
)
def test_a_list_of_files_that_cannot_be_shown_is_refused_by_chapter(project, listed, complaint):
    put(project, "research/03_x.py", f"# %% [markdown] shows={listed}\n# # 3 What?\n# Text.\n")
    with pytest.raises(BuildError, match=re.escape(complaint)):
        build(project)


def test_imports_that_make_a_circle_are_refused_by_name(project):
    put(project, "lib/zero.py", '"""First."""\n\nimport lib.pair as other\n')
    with pytest.raises(BuildError, match=r"lib\.pair <- lib\.zero <- lib\.pair|lib\.zero <- lib\.pair <- lib\.zero"):
        build(project)


@pytest.mark.parametrize(
    "statement",
    [
        'importlib.import_module("lib.zero")',
        'x = import_module(f"lib.{name}").ZERO',
        '__import__("lib.zero")',
        'importlib.import_module(".zero", "lib")',
        "from research import results",
        'importlib.import_module("02_look")',
    ],
)
@pytest.mark.parametrize("name", ["lib/pair.py", "research/02_look.py"])
def test_an_import_that_cannot_be_followed_is_refused_by_line(project, name, statement):
    content = (project / name).read_text()
    put(project, name, f"{content}\n{statement}\n")
    with pytest.raises(BuildError, match=f"{name}:{content.count(chr(10)) + 2}: .*"):
        build(project)


def test_import_module_of_anything_else_is_left_alone(project):
    change(project, "lib/zero.py", "ZERO", 'import importlib\n\njson = importlib.import_module("json")\nZERO')
    build(project)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("lib/__init__.py", None, "lib/__init__.py is not there"),
        ("lib/params.py", None, "lib/params.py is not there"),
        ("lib/zero.py", None, "research/02_look.py shows lib/zero.py, which is not there"),
        ("lib/pair.py", None, "research/02_look.py shows lib/pair.py, which is not there"),
        (
            "lib/runs/__init__.py",
            '"""x."""\nimport lib.no.where\n',
            "imports lib.no.where, but .* no lib/no/where.py",
        ),
        ("lib/runs/cli.py", "from .. import no\n\nno.more()\nfrom ..no import x\n", "cli.py imports lib.no, but"),
        ("lib/pair.py", "x = 1\n", "lib/pair.py has no docstring"),
        ("lib/pair.py", '"""Two."""\nx = = 1\n', "lib/pair.py:2: invalid syntax"),
        ("research/03_x.py", "# %%\nx = 1\n", "research/03_x.py:1: no title"),
        ("research/03_x.py", "# %% [markdown]\n# ## Too deep\n", "research/03_x.py:1: no title"),
        ("research/03_x.py", "# %% [markdown]\n# # 3 What?\n\n# %%\nx = = 1\n", "research/03_x.py:5: invalid syntax"),
        ("research/03_x.py", "# %% [markdown]\n# # 3 What?\n\nx = 1\n", "research/03_x.py:4: code in a cell of prose"),
        (
            "research/03_x.py",
            "# %% [markdown]\n# # 3 What?\n\n# %% [raw]\nx = 1\n",
            "research/03_x.py:5: code in a cell of",
        ),
        ("research/03_x.py", "# %% [markdown]\r\n# # 3 What?\r\n", "research/03_x.py has line ends of Windows"),
        ("research/03_x.py", "# %% [markdown]\n# # 4 What?\n", "research/03_x.py: `4 What.` has another number"),
        ("research/02_x.py", "# %% [markdown]\n# # 2 What?\n", "02_look.py and research/02_x.py have the same number"),
        (
            "research/03_x.py",
            "# %% [markdown]\n# # 2 How does it look?\n",
            "research/03_x.py have the same number or title",
        ),
        (
            "research/3-x.py",
            "# %% [markdown]\n# # 3 What?\n",
            "research/3-x.py holds cells, so it is a chapter; wanted",
        ),
        (
            "research/3_x.py",
            "# ---\n# jupyter: {}\n# ---\n\n# %% [markdown]\n# # 3 What?\n",
            "research/3_x.py holds cells",
        ),
        ("research/03_my x.py", "# %% [markdown]\n# # 3 What?\n", "research/03_my x.py holds cells"),
        ("lib/zero.py", '\ufeff"""The first number."""\n', "lib/zero.py has .* a byte order mark"),
        ("lib/params.py", "class Params:\n    x = = 1\n", "lib/params.py:2: invalid syntax"),
        ("research/03_x.py", "x = 1\n\n# %%\ny = 1\n", "3 cells, but 2 lines"),
        ("research/03_x.py", "# %% [markdown]\n# # 3\n\n# %%\nx = '''\n# %%\n'''\n", "3 cells, but 4 lines"),
        (
            "research/03_x.py",
            "# %% [markdown]\n# # 3 Where?\n# Text.\n# See [there](09_no.py).\n",
            "research/03_x.py:4 links to 09_no.py",
        ),
        ("research/03_x.py", "# %% [markdown]\n# # 3?\n\n# %%\nx = " + "-" * 20_000 + "1\n", "03_x.py:5: .*too deeply"),
        ("research/03_x.py", '# %% [markdown]\n# # 3?\n\n# %% tags="a"\nx = 1\n', "03_x.py:4: Jupytext cannot read"),
        (
            "research/03_x.py",
            "# ---\n# jupyter:\n#   kernelspec: {name: x}\n# ---\n\n# %% [markdown]\n# # 3?\n",
            "research/03_x.py:1: Jupytext cannot read this .'display_name' is a required property.; correct",
        ),
        (
            "research/03_x.py",
            "#!\n# -*- coding: latin-1 -*-\n# %%\n",
            "03_x.py:1: Jupytext .*Encodings other than utf-8",
        ),
        ("research/results/b.json", secrets.token_hex(800_000), "the packed cell holds .*the largest is .*b.json"),
        ("research/results/b c.json", "1", "b c.json has a space in its name"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(project, name, content, complaint):
    if content is None:
        (project / name).unlink()
    else:
        put(project, name, content)
    with pytest.raises(BuildError, match=complaint):
        build(project)


@pytest.mark.parametrize("name", ["research/results/b.json", "research/03_x.py"])
def test_what_is_not_text_is_refused_by_name(project, name):
    (project / name).write_bytes(b'"""Gr\xf6\xdfe."""\n')
    with pytest.raises(BuildError, match=rf"{name} is not text in UTF-8 \(.* at byte 5\)"):
        build(project)


def test_a_project_without_chapters_is_an_error_on_the_command_line(tmp_path, capsys):
    assert main([], tmp_path) == 1
    assert "no chapters found" in capsys.readouterr().err


def test_links_between_chapters_lead_to_the_title_cell(project):
    put(
        project,
        "research/03_x.py",
        '# %% [markdown] id="end"\n# # 3 The end?\n# Text.\n#\n# [a](01_run.py), [b](03_x.py), [c](https://x.org/a.py)\n',
    )
    sources = {cell.id: cell.source for cell in build(project).cells}
    assert "[the first](#scrollTo=01_run)" in sources["00_question"]
    assert sources["end"].endswith("[a](#scrollTo=01_run), [b](#scrollTo=end), [c](https://x.org/a.py)")
    assert sources["01_run"].startswith("# 1 Does it run?\n") and '<a id="scrollTo=01_run"></a>' in sources["01_run"]


COMMENTS = (
    "# copy of it",
    "# rm all.txt",
    "# ls",
    "# Why?",
    "# !true",
    "# %time",
    "# %%bash",
    "# n = !ls",
    "#!/bin/sh",
    "# # + more",
    "#cd",
    "x = 1  # mv x",
)


@pytest.mark.parametrize("header", ["# %%", '# %% [bash] language="bash"', '# %% active="ipynb"', "# %% a title"])
def test_a_code_cell_equals_its_lines_whatever_their_comments_look_like(project, header):
    code = "\n\n".join(["def f():", *(f"    {line}" for line in COMMENTS), "    return 1", *COMMENTS])
    put(project, "research/03_x.py", f"{chapter()}\n{header}\n\n{code}\n\n\n# %%\n# rm x\n")
    cells = {cell.metadata.imgae_dx.source: cell.source for cell in build(project).cells}
    assert cells["research/03_x.py:6"] == code
    assert cells[f"research/03_x.py:{10 + code.count(chr(10)) + 1}"] == "# rm x"


def test_a_cell_of_prose_equals_its_lines_without_their_hash(project):
    text = "# Why?\n# rm x\n%time is a magic\n!ls\n# + one\n\ncopy of it"
    put(project, "research/03_x.py", chapter(text=text.replace("\n", "\n# ").replace("# \n", "#\n")))
    assert any(cell.source.endswith(f"\n\n{text}") for cell in build(project).cells)


@pytest.mark.parametrize("number", [0x0, 0xB, 0xC, 0x1C, 0x1D, 0x1E, 0x85, 0x2028, 0x2029])
def test_a_character_that_ends_a_line_for_some_is_refused_by_line(project, number):
    for name in ("research/03_x.py", "lib/zero.py", "research/results/b.json"):
        put(project, name, f"{chapter(code='x = 1')}'one{chr(number)}two'\n")
        with pytest.raises(BuildError, match=rf"{name}:8: U\+{number:04X}.*\\u{number:04x}"):
            text_of(project, name)
    with pytest.raises(BuildError, match=rf":8: U\+{number:04X}"):
        build(project)


NO_CODE = ["return 1", "break", "def f(a, a): pass", "nonlocal x", "x: int; global x"]


@pytest.mark.parametrize(
    ("file", "line"), [("lib/zero.py", "break"), *(("research/03_x.py", line) for line in NO_CODE)]
)
def test_a_cell_that_does_not_compile_is_refused_by_line_even_if_it_parses(project, file, line):
    before = '"""A shown file."""\n\n\n\n\n' if file.startswith("lib") else f"{chapter()}\n# %%"
    put(project, file, f"{before}\n{line}\n")
    with pytest.raises(BuildError, match=rf"{file}:7: .+"):
        build(project)


def test_code_that_goes_on_in_the_next_cell_is_refused_by_line(project):
    put(project, "research/03_x.py", chapter(code="if True:") + "\n# %%\n    x = 1\n")
    with pytest.raises(BuildError, match=r"research/03_x.py:7: expected an indented block"):
        build(project)


def test_code_that_awaits_is_a_cell(project):
    put(project, "research/03_x.py", chapter(code="import asyncio\n\nawait asyncio.sleep(0)"))
    assert any("await" in cell.source for cell in build(project).cells)


@pytest.mark.parametrize(
    "code",
    [
        'f(\n    """\n>>> 1\n"""\n)',
        'f("""\n>>> 1\n""")',
        'x = """\n... 1\n"""',
        'x = """\n   ...: 1\n"""',
        'x = """\nIn [1]: y\n"""',
        'x = """\n[ins] In [1]: y\n"""',
        "    # aside\ndef f():\n    return 1",
        "x = 1\n...",
    ],
)
def test_what_ipython_takes_off_a_cell_before_it_runs_is_refused_by_line(project, code):
    put(project, "research/03_x.py", chapter(code=code))
    with pytest.raises(BuildError, match=r"research/03_x.py:\d: IPython takes '.+' off this line"):
        build(project)


def test_ipython_runs_the_code_cells_of_the_real_notebook_as_they_are():
    from IPython.core.inputtransformer2 import TransformerManager

    cells = [cell for cell in build(ROOT).cells if cell.cell_type == "code" and not cell.source.startswith("%%")]
    assert len(cells) > 30
    for cell in cells:
        assert TransformerManager().transform_cell(cell.source) == cell.source + "\n"


def chapter(title="3 What now?", text="Text.", code=""):
    return f"# %% [markdown]\n# # {title}\n#\n# {text}\n" + (f"\n# %%\n{code}\n" if code else "")


def test_the_table_of_contents_lists_every_question_and_each_of_its_links_has_a_target(project):
    cells = build(project).cells
    assert [cell.id for cell in cells[:2]] == ["00_question", "contents"]
    links = re.findall(r"^- \[(.+)\]\(#(.+)\)$", cells[1].source, re.M)
    assert [title for title, _ in links] == ["0 Which one?", "1 Does it run?", "2 How does it look?"]
    for title, anchor in links:
        [target] = [cell for cell in cells if cell.source.startswith(f"# {title}\n")]
        assert anchor == f"scrollTo={target.id}"  # Colab
        assert f'<a id="{anchor}"></a>' in target.source  # Jupyter, HTML, GitHub


def test_links_lead_to_any_markdown_cell_with_an_id_and_what_is_code_or_mathematics_is_no_link(project):
    text = "[a](#why) [b](02_look.py#why) `[c](nowhere)` $E[x](y)$ [![d](https://x.org/d.svg)](01_run.py)"
    put(project, "research/03_x.py", chapter(text=text))
    sources = {cell.id: cell.source for cell in build(project).cells}
    assert sources["03_x"].endswith(
        "[a](#scrollTo=why) [b](#scrollTo=why) `[c](nowhere)` $E[x](y)$ [![d](https://x.org/d.svg)](#scrollTo=01_run)"
    )
    assert sources["why"] == '<a id="scrollTo=why"></a>\n\nBecause.'


@pytest.mark.parametrize(
    "text",
    [
        '<img src="no.png">',
        '<A class="x" href="09_no.py">x</A>',
        "[1]: 09_no.py",
        "> [1]: <09_no.py> 'title'",
        "[x]()",
        "[a [b [c]] d](no.png)",
        "costs \\$5, see [x](09_no.py), or \\$6",
        "a ` and [x](09_no.py)\n#\n# and another `",
        "![x](attachment:a.png)",
        "![x](file:///a.png)",
        "![x](a(1).png)",
        "[x](\n# 09_no.py)",
        "[![x](no.png)](01_run.py)",
    ],
)
def test_a_link_or_an_image_in_a_form_that_could_go_nowhere_unseen_is_refused_by_line(project, text):
    put(project, "research/03_x.py", chapter() + f"\n# %% [markdown]\n# Text\n#\n# {text}\n")
    with pytest.raises(BuildError, match=r"research/03_x\.py:9[ :]"):
        build(project)


@pytest.mark.parametrize(
    "text",
    [
        '[a paper](https://x.org/1 "Author (2020)")',
        "[`a[1]`](https://x.org)",
        "[a \\] b](https://x.org)",
        "[see [1]](https://x.org/a_(b))",
        "[0, 1]: such values are floats",
        "an escaped \\[ and 5 < 6",
    ],
)
def test_a_link_to_elsewhere_stays_as_it_was_written(project, text):
    put(project, "research/03_x.py", chapter(text=text))
    [cell] = [cell for cell in build(project).cells if cell.id == "03_x"]
    assert cell.source.endswith(f"\n{text}")


def test_a_fence_of_tildes_holds_no_link_and_between_two_prices_there_is_one(project):
    put(project, "research/03_x.py", chapter(text="\\$5, [x](01_run.py), \\$6\n#\n# ~~~\n# [y](09_no.py)\n# ~~~"))
    [cell] = [cell for cell in build(project).cells if cell.id == "03_x"]
    assert "\\$5, [x](#scrollTo=01_run), \\$6\n\n~~~\n[y](09_no.py)\n~~~" in cell.source


@pytest.mark.parametrize("address", ["09_no.py", "#no", "02_look.py#no", "../README.md", "#parameters", "no.png"])
def test_a_link_to_nowhere_is_refused_by_line(project, address):
    put(project, "research/03_x.py", chapter() + f"\n# %% [markdown]\n# Text\n#\n# and [a link]({address}).\n")
    with pytest.raises(BuildError, match=re.escape(f"research/03_x.py:9 links to {address}, which is not in")):
        build(project)


def test_an_image_file_is_embedded_and_one_that_is_none_is_refused_by_line(project):
    picture = (ROOT / "docs/adult-cases.png").read_bytes()
    (project / "research/a.png").write_bytes(picture)
    put(project, "research/03_x.py", chapter(text="![two images](a.png)"))
    [address] = re.findall(r"!\[two images\]\((.*)\)", build(project).cells[-2].source)
    head, _, data = address.partition(",")
    assert head == "data:image/png;base64" and base64.b64decode(data) == picture
    for wrong in ("b.png", "02_look.py"):
        put(project, "research/03_x.py", chapter(text=f"![two images]({wrong})"))
        with pytest.raises(BuildError, match=f"research/03_x.py:4 shows {wrong}, which is no image file"):
            build(project)


def test_a_chapter_that_asks_nothing_or_does_not_end_with_a_figure_is_refused_by_line(project):
    put(project, "research/03_x.py", chapter(title="3 A statement"))
    with pytest.raises(BuildError, match=r"research/03_x\.py:1: `3 A statement` asks nothing"):
        build(project)
    file, draws = project / "research/03_x.py", 'run.save_figure(figure, "x")'
    file.write_text("")
    with pytest.raises(BuildError, match=r"research/03_x\.py:1: no title"):
        build(project)
    for code in ("print(1)", f"{draws}\n\n# %%\nprint(1)", f"# {draws}\n1", "import lib.figures.images"):
        file.write_text(chapter(code=code))
        line = 6 + 3 * code.count("# %%")
        with pytest.raises(BuildError, match=rf"research/03_x\.py:{line}: the chapter ends without a .*save_figure"):
            build(project)
    put(project, "lib/figures/images.py", '"""Figures."""\n')
    for code in (
        "from lib.figures.images import cases\n\ncases()",
        "from lib.figures.images import cases as c\n\n# %%\nlist(map(c, range(3)))",
        "import lib.figures.images\n\n# %%\nlib.figures.images.cases()",
        "from lib.figures import images as f\n\n# %%\nf.cases()",
        draws,
        'figures["roc"]',
        "print(1)\n" + FIGURE,
    ):
        file.write_text(chapter(code=code))
        build(project)


@pytest.mark.parametrize(
    "line", ["steps = epochs * 10", "steps: int = len(name)", "import os", "f(1)", "x: int", "epochs += 5", "a = b = 1"]
)
def test_what_is_no_plain_value_in_the_parameters_cell_is_refused_by_line_and_not_overwritten(project, line):
    change(project, "research/01_run.py", CELL, f"{CELL}{line}\n")
    before = (project / "research/01_run.py").read_bytes()
    with pytest.raises(BuildError, match=re.escape(f"research/01_run.py:10: `{line}` is no plain value")):
        write(project)
    assert (project / "research/01_run.py").read_bytes() == before


def test_a_cell_of_prose_is_no_parameters_cell(project):
    change(project, "research/01_run.py", ' tags=["parameters"]', "")
    change(project, "research/02_look.py", '[markdown] id="why"', '[markdown] tags=["parameters"]')
    with pytest.raises(
        BuildError, match=r'02_look.py:5: the tag "parameters" is not for a cell of this kind, .* delete'
    ):
        build(project)


@pytest.mark.parametrize("kind", ["", "[markdown] "])
@pytest.mark.parametrize("tag", ["library", "injected-parameters"])
def test_a_tag_that_would_hide_a_chapters_cell_is_refused_by_line(project, kind, tag):
    put(project, "research/03_x.py", chapter() + f'\n# %% {kind}tags=["mine", "{tag}"]\n# Text.\n')
    with pytest.raises(BuildError, match=rf'03_x.py:\d+: the tag "{tag}" is not for'):
        build(project)


@pytest.mark.parametrize("name", ["research/10_mine.py", "lib/mine.py"])
def test_a_folder_that_is_named_as_a_file_is_refused_by_name(project, name):
    (project / name).mkdir()
    with pytest.raises(BuildError, match=f"{name} cannot be read: Is a directory; wanted a file of text"):
        build(project)


def test_a_setting_that_has_no_form_field_is_refused_by_name(project):
    change(project, "lib/params.py", "epochs: int", "epochs: int | None")
    with pytest.raises(BuildError, match=r"Params\.epochs has no form field"):
        build(project)


def test_when_only_lines_have_moved_check_says_so_and_names_no_chapter(project, capsys):
    write(project)
    change(project, "research/02_look.py", "# Because.\n\n", "# Because.\n\n\n")
    assert main(["--check"], project) == 1
    output = capsys.readouterr().out
    assert re.findall(r"(\S+) differs", output) == ["build_notebook.py"] and "research/02_look.py" in output


LATER = {
    "research/03_more.py": chapter("3 What more?", "See [4](04_mine.py).", "more = {}\nprint(more)")
    + '\n# %% [markdown] id="three"\n# Text.\n',
    "research/04_mine.py": chapter(
        "4 Is it mine?",
        "**Reads** `more`. See [2](02_look.py), [3](#three) and [5](05_last.py).",
        "def mine(results):\n    return more, results\n\n\nprint('mine', mine(epochs))",
    ),
    "research/05_last.py": chapter("5 Is it the last?", code="more['x'] = mine"),
}


def test_one_chapter_comes_with_those_whose_names_it_reads_and_with_nothing_else(project, tmp_path, capsys):
    for name, content in LATER.items():
        put(project, name, content)
    assert main(["--chapter", "04"], project) == 0
    assert capsys.readouterr().out == "notebooks/04_mine.ipynb is written\n"
    assert not (project / NOTEBOOK).exists()
    notebook = nbformat.read(project / "notebooks/04_mine.ipynb", as_version=4)
    prose = [cell.source.split("\n")[0] for cell in notebook.cells if cell.cell_type == "markdown"]
    titles = [line for line in prose if line.startswith("# ")]
    assert titles == ["# 0 Which one?", "# 1 Does it run?", "# 3 What more?", "# 4 Is it mine?"]
    assert "See 2, 3 and 5." in notebook.cells[-3].source  # of what is not there, the text alone
    assert shown(notebook) == {} and "lib/zero.py" in packed(notebook)  # 2 shows it, and is not there
    assert notebook.metadata.colab.name == "04_mine.ipynb"
    (tmp_path / "empty").mkdir()
    assert "mine ({}, 3)" in printed(run_notebook(notebook, tmp_path / "empty"))


def test_a_chapter_also_comes_with_those_that_fill_what_it_reads(project):
    for name, content in LATER.items():
        put(project, name, content)
    put(project, "research/06_all.py", chapter("6 Is that all?", code="print(more)"))
    assert "# 5 Is it the last?" in text(build(project, "06"))
    assert "# 2 How does it look?" not in text(build(project, "06"))


@pytest.mark.parametrize("line", ["more = {**more, 1: 2}", "more |= {1: 2}", "more = 0\nmore = more + 1"])
def test_a_chapter_also_comes_with_what_it_takes_over_and_gives_another_value(project, line):
    for name, content in LATER.items():
        put(project, name, content)
    put(project, "research/06_all.py", chapter("6 Is that all?", code=line))
    assert ("# 3 What more?" in text(build(project, "06"))) == (line[:8] != "more = 0")


@pytest.mark.parametrize("line", ["global more\nmore = 2", "from __future__ import annotations"])
def test_what_a_cell_of_its_own_may_say_is_built_alone_too(project, line):
    put(project, "research/03_more.py", chapter(code=f"more = 1\n\n# %%\n{line}"))
    assert line in text(build(project, "03")).replace("\\n", "\n").replace('",\n    "', "")


@pytest.mark.parametrize("number", ["7", "0", "04_mine.py"])
def test_a_chapter_that_is_not_there_is_answered_with_those_that_are(project, capsys, number):
    assert main(["--chapter", number], project) == 1
    assert capsys.readouterr().err == f"no chapter {number}; there are 00_question, 01_run, 02_look\n"


def run_notebook(notebook, folder):
    return NotebookClient(
        notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": folder}}
    ).execute()


def test_the_notebook_runs_in_an_empty_folder_and_leaves_nothing_there(project, tmp_path):
    notebook = build(project)
    shutil.rmtree(project)
    (tmp_path / "empty").mkdir()
    output = printed(run_notebook(notebook, tmp_path / "empty"))
    assert "lib.params 3\n" in output
    assert "('naught\\n {braces} é', 1) {'auroc': 0.5}\n" in output
    assert re.search(r"^\d+ files, [\d,]+ lines: `%embed` lists them", output, re.M)
    assert "lib/zero.py  6 lines  unchanged\n" in output
    assert list((tmp_path / "empty").iterdir()) == []


def test_beside_a_checkout_the_notebook_uses_its_own_library_and_leaves_the_checkout_alone(project):
    notebook = build(project)
    for name in ("params", "pair", "zero"):
        put(project, f"lib/{name}.py", 'raise RuntimeError("the checkout was imported")\n')
    before = snapshot(project)
    check_cell = "import sys\nprint([m for m in sys.modules if m == 'lib'], 'imgae_dx_' in sys.modules['lib'].__file__)"
    notebook.cells.append(nbformat.v4.new_code_cell(check_cell))
    assert "['lib'] True" in printed(run_notebook(notebook, project))
    assert snapshot(project) == before


def test_an_error_in_papermill_ends_with_the_lines_of_the_sources_that_it_comes_from(project, tmp_path):
    change(project, "lib/zero.py", "ZERO =", "def fail():\n    return 1 / 0\n\n\nZERO =")
    change(project, "research/02_look.py", "import json\n", "\nimport json\nfrom lib.zero import fail\n\nfail()\n")
    assert (project / "research/02_look.py").read_text().splitlines()[12] == "fail()"
    nbformat.write(build(project), tmp_path / "in.ipynb")
    with pytest.raises(papermill.PapermillExecutionError) as error:
        papermill.execute_notebook(
            tmp_path / "in.ipynb", tmp_path / "out.ipynb", progress_bar=False, cwd=tmp_path, kernel_name="python3"
        )
    assert str(error.value).rstrip().splitlines()[-1] == "at research/02_look.py:13, lib/zero.py:7"


def other_python(version):
    """Return the path of another Python that has what the builder imports, or skip."""
    found = shutil.which(f"python{version}")
    probe = [found, "-c", "import jupytext, nbformat, pydantic, yaml"]
    if found is None or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip(f"no python{version} with jupytext and pydantic on the PATH")
    return found


@pytest.mark.long
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_another_python_builds_the_real_notebook_to_the_same_byte(version, tmp_path):
    code = "import sys; from build_notebook import *; sys.stdout.buffer.write(text(build(ROOT)).encode())"
    done = subprocess.run([other_python(version), "-c", code], cwd=ROOT, capture_output=True, check=True)
    assert done.stdout == text(build(ROOT)).encode()


def test_the_builder_needs_neither_torch_nor_a_kernel_and_is_short():
    unused = "{'torch', 'IPython', 'numpy', 'jupyter_client', 'tornado', 'asyncio', 'markdown_it', 'arrow'}"
    code = f"import sys, build_notebook as b; b.build(b.ROOT); print({unused} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
    assert len((ROOT / "build_notebook.py").read_text().splitlines()) < 300


@pytest.fixture
def joined(tmp_path):
    """A copy of this project to which someone has added a chapter before the last one, as the documents say."""
    for folder in ("lib", "research"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / file, tmp_path / file)
    last = max(tmp_path.glob("research/[0-9][0-9]_*.py"))
    place = int(last.name[:2])
    last.rename(last.with_name(f"{place + 1:02}{last.name[2:]}"))
    shutil.copy(tmp_path / "research/template.py", tmp_path / f"research/{place:02}_added.py")
    return tmp_path


def test_the_documents_say_how_to_put_a_chapter_before_the_last_one():
    [(last, name, later, same, mine)] = re.findall(
        r"^    git mv research/(\d\d)_(\w+)\.py research/(\d\d)_(\w+)\.py .*\n"
        r"    cp research/template\.py research/(\d\d)_mine\.py ",
        (ROOT / "docs/USAGE.md").read_text(),
        re.M,
    )
    assert (int(later), same, mine) == (int(last) + 1, name, last)
    assert max(CHAPTERS).stem.endswith(f"_{name}")


def test_a_new_chapter_stands_before_the_last_one_and_every_chapter_is_numbered_by_its_file(joined):
    notebook = build(joined)
    files = sorted(file.name for file in joined.glob("research/[0-9][0-9]_*.py"))
    titles = [line for line in notebook.cells[1].source.splitlines() if line.startswith("- [")]
    assert [int(re.match(r"- \[(\d+) ", title)[1]) for title in titles[1:]] == [int(name[:2]) for name in files[1:]]
    title = f"{len(files) - 2} Does a score see more than how bright an image is?"
    assert titles[-2] == f"- [{title}](#scrollTo={files[-2].removesuffix('.py')})"
    assert any(cell.source.startswith(f"# {title}\n") for cell in notebook.cells)
    assert titles[-1].endswith("(#scrollTo=report)")
    assert "finish(run, tracker, results)" in notebook.cells[-1].source  # the run is closed when all is drawn


def test_a_new_chapter_alone_brings_what_it_needs_of_the_others(joined):
    [mine] = joined.glob("research/*_added.py")
    alone = [cell.id for cell in build(joined, mine.name[:2]).cells]
    assert {"scores", mine.stem} <= {*alone} and not {"comparison", "what-matters", "limits", "report"} & {*alone}


def test_a_title_that_holds_another_number_than_its_file_is_told_to_leave_it_out(project):
    put(project, "research/03_x.py", "# %% [markdown]\n# # 4 What?\n")
    with pytest.raises(BuildError, match=r"03_x\.py: `4 What.` has another number than its file; leave it out"):
        build(project)


def test_a_title_without_a_number_gets_that_of_its_file_but_for_the_first(project):
    change(project, "research/00_question.py", "# # 0 Which", "# # Which")
    change(project, "research/02_look.py", "# # 2 How", "# # How")
    [first, _, *_] = (notebook := build(project)).cells
    assert first.source.startswith("# Which one?")
    assert cell_of(notebook, "02_look").source.startswith("# 2 How does it look?")


@pytest.mark.long
def test_a_chapter_made_from_the_template_runs_and_draws(joined, tmp_path, monkeypatch):
    monkeypatch.setenv("IMGAE_DX_ROOT", str(tmp_path))
    settings = yaml.safe_load((ROOT / "params/smoke.yaml").read_text())
    [mine] = joined.glob("research/*_added.py")
    file = joined / write(joined, mine.name[:2])
    done = papermill.execute_notebook(
        file, tmp_path / "out.ipynb", {**settings, "backbone": "none"}, progress_bar=False, kernel_name="python3"
    )
    assert "image/png" in str(done.cells[-2].outputs)
    assert (tmp_path / "runs/smoke/figures/brightness.png").is_file()


CHAPTERS = sorted((ROOT / "research").glob("[0-9][0-9]_*.py"))


@pytest.mark.skipif(not CHAPTERS, reason="research/ has no chapters yet")
def test_the_real_notebook_has_no_undefined_names_and_holds_the_library_to_the_byte():
    notebook = build(ROOT)
    ruff = [sys.executable, "-m", "ruff", "check", "--no-cache", "--select", "F,E9", "--stdin-filename", NOTEBOOK, "-"]
    checked = subprocess.run(ruff, input=text(notebook), capture_output=True, text=True, cwd=ROOT)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    files = packed(notebook)
    assert json.loads(files.pop(CELLS)).keys() >= {"research/00_question.py", "research/01_parameters.py"}
    for name, content in (files | shown(notebook)).items():
        assert content.encode() == (ROOT / name).read_bytes()
    [cell] = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert cell.source == parameters_cell(Params)


def test_the_real_notebook_reads_as_a_document():
    """Its lines, cells and bytes; of the library the methods and the maps stand in cells, and nothing else does."""
    notebook = build(ROOT)
    content = text(notebook)
    lines = {cell["id"]: len(cell["source"]) for cell in json.loads(content)["cells"]}
    library = [cell.id for cell in notebook.cells if "library" in cell.metadata.get("tags", [])]
    assert sum(lines.values()) <= 550 * len(CHAPTERS) and len(lines) <= 13 * len(CHAPTERS)
    assert len(content.encode()) < 1_000_000
    assert sum(lines[label] for label in library) <= sum(lines.values()) / 2
    methods = {f"lib/methods/{file.name}" for file in (ROOT / "lib/methods").glob("*.py")} - {"lib/methods/__init__.py"}
    assert methods <= shown(notebook).keys() and all(
        re.match("lib/(methods|scores)/", name) for name in shown(notebook)
    )


def test_the_notebook_holds_the_versions_needed_and_tested(project):
    put(project, "pyproject.toml", '[project]\nurls = {Repository = "https://github.com/a/b"}\n')
    put(project, "constraints.txt", "# tested\nx==1\n")
    files = packed(build(project))
    for name in ("pyproject.toml", "constraints.txt"):
        assert files[name] == (project / name).read_text()


def test_below_the_contents_stands_where_colab_has_the_notebook(project):
    put(project, "pyproject.toml", '[project]\nurls = {Repository = "https://github.com/a/b"}\n')
    link = f"[Open in Colab](https://colab.research.google.com/github/a/b/blob/main/{NOTEBOOK})"
    assert build(project).cells[1].source.endswith(f"\n\n{link}")
    assert "Colab" not in build(project, "02").cells[1].source


def test_a_section_that_is_closed_hides_the_library_and_nothing_else(project):
    title = "# %% [markdown]\n# # 0 Which one?\n# Text.\n"
    put(project, "research/00_question.py", f"{title}\n# %%\nimport lib.zero\n")
    notebook = build(project)  # its code stands right below the library, so that section stays open
    assert notebook.metadata.colab.collapsed_sections == ["library-02_look"]
    jupyterlab = [cell.id for cell in notebook.cells if cell.metadata.get("jp-MarkdownHeadingCollapsed")]
    assert jupyterlab == ["library-02_look"]
    start = next(n for n, cell in enumerate(notebook.cells) if cell.id == "library-02_look") + 1
    end = next(n for n, cell in enumerate(notebook.cells) if n >= start and cell.source.startswith("# "))
    assert end > start and all("library" in cell.metadata.tags for cell in notebook.cells[start:end])
