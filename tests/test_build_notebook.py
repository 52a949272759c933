"""The notebook builder: tiny projects are built, checked and run."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from build_notebook import NOTEBOOK, ROOT, SETUP, BuildError, build, check, main, text, write

PARAMS = '''"""The settings."""


class Params:
    """Stands in for the real model."""

    @classmethod
    def cell(cls) -> str:
        """Return the parameters cell."""
        return "# @title Parameters\\nepochs: int = 3  # passes"
'''

PROJECT = {
    "lib/__init__.py": '"""What chapters share."""\n',
    "lib/params.py": PARAMS,
    "lib/zero.py": '"""The first number.\n\nMore about it.\n"""\n\nZERO = "naught\\n {braces} é"\n',
    "lib/pair.py": '"""Two numbers."""\n\nfrom . import zero as origin\n\n\ndef pair():\n    return origin.ZERO, 1\n',
    "lib/cli.py": '"""For the command line only."""\n\nfrom lib.pair import pair\n',
    "research/00_question.py": "# %% [markdown]\n# # 0 The question\n#\n# It is run in [the first](01_run.py).\n",
    "research/01_run.py": (
        "# %% [markdown]\n# # 1 A run\n\n"
        '# %% tags=["parameters"]\n# @title Parameters\nepochs: int = 3  # passes\n\n'
        "# %%\n# !true\nfrom lib.params import Params\n\nprint(Params.__module__, epochs)\n"
    ),
    "research/02_look.py": (
        "# %% [markdown]\n# # 2 A look\n\n"
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


def put(root, name, content):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(content, encoding="utf-8", newline="")


def change(root, name, old, new):
    content = (root / name).read_text(encoding="utf-8")
    assert content.count(old) == 1
    put(root, name, content.replace(old, new))


def snapshot(root):
    return {file: file.read_bytes() for file in root.rglob("*") if file.is_file() and "__pycache__" not in file.parts}


def embedded(notebook):
    """Return the embedded files' text by name, taken out of the notebook again, in the order of the cells."""
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
    assert origins["why"] == "research/02_look.py:4"
    assert origins["02_look"] == "research/02_look.py:1"
    assert origins["embed-lib-zero-py"] == "lib/zero.py:1"


def test_a_cell_put_in_between_leaves_all_other_ids_alone(project):
    before = [cell.id for cell in build(project).cells]
    change(project, "research/01_run.py", "# %%\n# !true", "# %%\nextra = 1\n\n# %%\n# !true")
    after = [cell.id for cell in build(project).cells]
    assert len(after) == len(before) + 1
    assert [label for label in after if label in before] == before


def test_equal_cells_get_an_ordinal(project):
    put(project, "research/03_twice.py", "# %% [markdown]\n# # 3 Twice\n\n# %%\n1\n\n# %%\n1\n")
    first, second = (cell.id for cell in build(project).cells[-2:])
    assert second == f"{first}-2"


@pytest.mark.parametrize(
    ("label", "complaint"), [('"why"', "both have the id 'why'"), ('"a b"', "id='a b'"), ("3", "id=3")]
)
def test_an_id_that_is_taken_or_malformed_is_refused_with_its_place(project, label, complaint):
    put(project, "research/03_more.py", f"# %% [markdown]\n# # 3 More\n\n# %% id={label}\n1\n")
    with pytest.raises(BuildError, match=f"research/03_more.py:4.*{complaint}"):
        build(project)


def test_two_parameters_cells_or_none_are_refused_and_those_found_are_named(project):
    put(project, "research/03_more.py", '# %% [markdown]\n# # 3 More\n\n# %% tags=["parameters"]\nlr = 1\n')
    with pytest.raises(BuildError, match=r"found research/01_run.py:4, research/03_more.py:4"):
        build(project)
    (project / "research/03_more.py").unlink()
    change(project, "research/01_run.py", ' tags=["parameters"]', "")
    with pytest.raises(BuildError, match="found none"):
        build(project)


def test_the_parameters_cell_is_rewritten_from_the_model_and_nothing_else_is(project, capsys):
    assert main([], project) == 0
    before = snapshot(project)
    change(project, "research/01_run.py", "epochs: int = 3  # passes\n\n", "epochs: int = 99\nlr = 1\n\n\n")
    assert main(["--check"], project) == 1
    said = capsys.readouterr().out
    assert "research/01_run.py: the parameters cell differs" in said and "-epochs: int = 99" in said
    assert main([], project) == 0
    expected = before[project / "research/01_run.py"].replace(b"passes\n\n", b"passes\n\n\n")  # its blank lines stay
    after = snapshot(project)
    assert after.pop(project / "research/01_run.py") == expected
    assert {name for name in after if after[name] != before[name]} <= {project / NOTEBOOK}  # line numbers moved
    [cell] = [cell for cell in build(project).cells if "parameters" in cell.metadata.get("tags", [])]
    assert cell.source == "# @title Parameters\nepochs: int = 3  # passes"


def test_an_empty_parameters_cell_is_filled_and_stays_apart_from_the_next(project):
    whole = (project / "research/01_run.py").read_text()
    change(project, "research/01_run.py", "# @title Parameters\nepochs: int = 3  # passes\n", "")
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
        ("research/02_look.py", "Because.", "Because it is."),
        ("research/results/a.json", "0.5", "0.75"),
    ],
)
def test_check_names_the_file_that_differs_shows_the_lines_and_the_command(project, capsys, name, old, new):
    write(project)
    change(project, name, old, new)
    before = snapshot(project)
    assert main(["--check"], project) == 1
    said = capsys.readouterr().out
    assert re.findall(r"(\S+) differs", said) == [name]
    assert re.search(rf"^ +-.*{re.escape(old)}", said, re.M) and re.search(rf"^ +\+.*{re.escape(new)}", said, re.M)
    assert "python build_notebook.py" in said
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
        good.replace("\n", "\r\n"),
    ):
        put(project, NOTEBOOK, bad)
        assert check(project) != []


def test_embedded_files_equal_the_originals_and_unneeded_ones_are_left_out(project):
    files = embedded(nbformat.reads(text(build(project)), as_version=4))
    assert set(files) == {f"lib/{name}.py" for name in ("__init__", "params", "zero", "pair")} | {
        "research/results/a.json"
    }
    for name, content in files.items():
        assert content.encode() == (project / name).read_bytes()


def test_a_module_comes_with_its_imports_before_it_in_the_chapter_that_first_needs_it(project):
    put(
        project,
        "lib/aaa.py",
        '"""Needs zero, far down in the alphabet, inside a function."""\n\n\ndef f():\n    from lib import zero\n',
    )
    change(project, "lib/pair.py", "from . import zero as origin", "from lib import aaa, zero as origin")
    put(project, "research/03_again.py", "# %% [markdown]\n# # 3 Again\n\n# %%\nfrom lib.zero import ZERO\n")
    cells = build(project).cells
    places = [cell.source.split()[1] if cell.source.startswith("%%embed") else cell.id for cell in cells]
    wanted = ["00_question", "01_run", "setup", "lib/__init__.py", "lib/params.py", "parameters", "02_look"]
    wanted += ["lib/zero.py", "lib/aaa.py", "lib/pair.py", "research/results/a.json", "why", "03_again"]
    assert [place for place in places if place in wanted] == wanted
    [why] = [cell for cell in cells if cell.id == "about-lib-zero-py"]
    assert why.source == "Library: `lib/zero.py`. The first number."
    library = [cell for cell in cells if "library" in cell.metadata.get("tags", [])]
    assert (
        all(cell.metadata.cellView == "form" for cell in library) and len(library) == 1 + 2 * 6
    )  # setup; a line and a cell for each file


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
        ("lib/zero.py", None, "lib/pair.py imports lib, |lib/zero.py"),
        ("lib/pair.py", None, "research/02_look.py imports lib.pair, but there is no lib/pair.py"),
        ("lib/pair.py", "x = 1\n", "lib/pair.py has no docstring"),
        ("lib/pair.py", '"""Two."""\nx = = 1\n', "lib/pair.py:2: invalid syntax"),
        ("research/03_x.py", "# %%\nx = 1\n", "research/03_x.py has no title"),
        ("research/03_x.py", "# %% [markdown]\n# ## Too deep\n", "research/03_x.py has no title"),
        ("research/03_x.py", "x = 1\n\n# %%\ny = 1\n", "2 cells, but 1 lines"),
        ("research/03_x.py", "# %% [markdown]\n# # 3\n\n# %%\nx = '''\n# %%\n'''\n", "2 cells, but 3 lines"),
        (
            "research/03_x.py",
            "# %% [markdown]\n# # 3\n# See [there](09_no.py).\n",
            "research/03_x.py:1 links to 09_no.py",
        ),
        ("research/results/b.csv", "1" * 2_000_000, "holds 2,000,015 bytes.*b.csv"),
        ("research/results/b.csv", "", "b.csv is empty"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(project, name, content, complaint):
    if content is None:
        (project / name).unlink()
    else:
        put(project, name, content)
    if (name, content) == ("lib/zero.py", None):
        change(project, "lib/pair.py", "from . import zero as origin", "import lib.zero as origin")
    with pytest.raises(BuildError, match=complaint):
        build(project)


def test_a_binary_result_is_refused_by_name(project):
    (project / "research/results/b.bin").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BuildError, match=r"b\.bin is not text"):
        build(project)


def test_a_project_without_chapters_is_an_error_on_the_command_line(tmp_path, capsys):
    assert main([], tmp_path) == 1
    assert "no chapters found" in capsys.readouterr().err


def test_links_between_chapters_lead_to_the_title_cell(project):
    put(
        project,
        "research/03_x.py",
        '# %% [markdown] id="end"\n# # 3 The end\n#\n# [a](01_run.py), [b](03_x.py), [c](https://x.org/a.py)\n',
    )
    sources = {cell.id: cell.source for cell in build(project).cells}
    assert "[the first](#scrollTo=01_run)" in sources["00_question"]
    assert sources["end"].endswith("[a](#scrollTo=01_run), [b](#scrollTo=end), [c](https://x.org/a.py)")
    assert sources["01_run"].startswith("# 1 A run\n") and '<a name="scrollTo=01_run"></a>' in sources["01_run"]


def test_shell_lines_come_out_as_magics(project):
    assert any("\n!true\n" in "\n" + cell.source for cell in build(project).cells)


def run_notebook(notebook, folder):
    return NotebookClient(
        notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": folder}}
    ).execute()


def test_the_notebook_runs_in_an_empty_folder_and_leaves_nothing_there(project, tmp_path):
    notebook = build(project)
    shutil.rmtree(project)
    (tmp_path / "empty").mkdir()
    said = printed(run_notebook(notebook, tmp_path / "empty"))
    assert "lib.params 3\n" in said
    assert "('naught\\n {braces} é', 1) {'auroc': 0.5}\n" in said
    assert re.findall(r"^(\S+)  (\d+) lines  new$", said, re.M)[0] == ("lib/__init__.py", "1")
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


def kernel(tmp_path, *cells):
    """Run the cells after the setup cell in IPython, in a process of its own; return what each of them printed."""
    program = (
        "import json, sys\nfrom IPython.core.interactiveshell import InteractiveShell\n"
        "shell = InteractiveShell.instance(colors='nocolor')\n"
        "for cell in json.load(sys.stdin):\n    shell.run_cell(cell, store_history=True)\n    print('\\0', end='')\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        input=json.dumps([SETUP, *cells]), capture_output=True, text=True, cwd=tmp_path, check=True,
        env={**os.environ, "IPYTHONDIR": str(tmp_path / "ipython")},
    )  # fmt: skip
    return done.stdout.split("\0")[1:-1]


INIT = '%%embed lib/__init__.py\n"""The library."""\nfrom .base import value\n'
BASE = '%%embed lib/base.py\n"""Base."""\nLIMIT = 1\n\n\nclass Thing:\n    size = 1\n\n\ndef value():\n    return 1\n'
USER = '%%embed lib/user.py\n"""User."""\nfrom lib.base import value as v\n\nDOUBLE = 2 * v()\n'


def test_an_edited_module_takes_effect_with_its_dependents_and_the_names_taken_from_it(tmp_path):
    use = (
        "import lib, lib.base as B, lib.user\nfrom lib import value as top\nfrom lib.user import DOUBLE\n"
        "from lib.base import LIMIT, LIMIT as limit, Thing, value as alias\n"
        "mine, copy, one = 'kept', Thing, 1\nprint('ok')"
    )
    show = (
        "print(B.value(), lib.value(), lib.user.DOUBLE, top(), LIMIT, limit, Thing.size, alias(), DOUBLE, copy.size,"
        " mine, one)"
    )
    edited = BASE.replace("1", "5")
    *_, first, shown, same, again, after = kernel(tmp_path, INIT, BASE, USER, use, show, BASE, edited, show)
    assert (first, shown) == ("ok\n", "1 1 2 1 1 1 1 1 2 1 kept 1\n")
    assert same == "lib/base.py  10 lines  unchanged\n"
    assert re.fullmatch(r"lib/base.py  10 lines  reloaded: lib\.base, (lib, lib\.user|lib\.user, lib); .*\n", again)
    assert after == "5 5 10 5 5 5 5 5 10 5 kept 1\n"


def test_a_name_that_the_reader_has_replaced_stays(tmp_path):
    use = "from lib.base import LIMIT, value\nLIMIT = 'mine'\nvalue = len"
    *_, after = kernel(tmp_path, INIT, BASE, use, BASE.replace("1", "5"), "print(LIMIT, value)")
    assert after == "mine <built-in function len>\n"


def test_an_edit_of_the_package_itself_is_seen(tmp_path):
    use = "import lib\nfrom lib import value\nprint(value())"
    edited = INIT.replace("from .base import value", "value = lambda: 7")
    *_, first, said, after = kernel(tmp_path, INIT, BASE, use, edited, "print(value(), lib.value())")
    assert (first, after) == ("1\n", "7 7\n")
    assert "reloaded: lib;" in said


def test_a_syntax_error_leaves_the_old_file_and_names_the_line_of_the_module(tmp_path):
    use = "import lib.base, inspect\nfrom pathlib import Path\nfile = Path(lib.base.__file__)"
    broken = BASE.replace("return 1", "return (")
    *_, said, after, again = kernel(
        tmp_path, INIT, BASE, use, broken, "print(file.read_text(), lib.base.value())", BASE
    )
    assert "SyntaxError" in said and re.search(r"base\.py\D+10\b", said)
    assert after == BASE.split("\n", 1)[1] + " 1\n"
    assert again == "lib/base.py  10 lines  unchanged\n"


def test_a_reload_that_fails_is_tried_again_when_the_next_cell_is_run(tmp_path):
    needs = BASE.replace("LIMIT = 1", "from lib.other import LIMIT")
    other = '%%embed lib/other.py\n"""Other."""\nLIMIT = 9\n'
    *_, failed, healed, after = kernel(
        tmp_path,
        INIT,
        BASE,
        USER,
        "import lib.user\nfrom lib.base import LIMIT",
        needs,
        other,
        "print(LIMIT, lib.base.LIMIT)",
    )
    assert "ModuleNotFoundError" in failed
    assert "reloaded: lib.base" in healed and "lib.user" in healed
    assert after == "9 9\n"


def test_a_foreign_lib_is_set_aside_with_a_note(tmp_path):
    put(tmp_path, "lib/__init__.py", "")
    put(tmp_path, "lib/base.py", "value = 'foreign'\n")
    foreign = "import sys\nsys.path.insert(0, '.')\nimport lib.base\nprint(lib.base.value)"
    first, note, _, after = kernel(tmp_path, foreign, INIT, BASE, "import lib.base\nprint(lib.base.value())")
    assert first == "foreign\n"
    assert re.match(r"set aside lib, lib\.base, imported from .*__init__\.py", note)
    assert after == "1\n"


def test_the_library_survives_a_second_run_of_the_setup_cell(tmp_path):
    *_, after = kernel(
        tmp_path, INIT, BASE, SETUP, "import lib.base, os\nprint(lib.base.value(), os.path.exists(lib.base.__file__))"
    )
    assert after == "1 True\n"


def test_a_file_outside_the_private_folder_is_refused(tmp_path):
    [said] = kernel(tmp_path, "%%embed ../x.txt\nno\n")
    assert "wanted a file inside" in said


def test_classes_reach_spawned_processes_and_show_their_source(tmp_path):
    use = (
        "import inspect, pickle, sys\nfrom subprocess import check_output\nfrom lib.base import Thing\n"
        "code = 'import pickle, sys; sys.path[:0] = sys.argv[1:]; print(pickle.load(sys.stdin.buffer).__module__)'\n"
        "said = check_output([sys.executable, '-c', code, sys.path[0]], input=pickle.dumps(Thing())).decode().strip()\n"
        "lines, first = inspect.getsourcelines(Thing)\nprint(said, lines[0].strip(), first)"
    )
    *_, after = kernel(tmp_path, INIT, BASE, use)
    assert after == "lib.base class Thing: 5\n"


CHAPTERS = sorted((ROOT / "research").glob("[0-9][0-9]_*.py"))


@pytest.mark.skipif(not CHAPTERS, reason="research/ has no chapters yet")
def test_the_real_notebook_has_no_undefined_names_and_holds_the_library_to_the_byte():
    notebook = build(ROOT)
    ruff = [sys.executable, "-m", "ruff", "check", "--no-cache", "--select", "F,E9", "--stdin-filename", NOTEBOOK, "-"]
    checked = subprocess.run(ruff, input=text(notebook), capture_output=True, text=True, cwd=ROOT)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    for name, content in embedded(notebook).items():
        assert content.encode() == (ROOT / name).read_bytes()
    [cell] = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    from lib.params import Params

    assert cell.source == Params.cell()
