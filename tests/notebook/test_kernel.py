"""Promises of a running notebook's library: an edited file takes effect, an error names the line it comes from."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import IPython
import nbformat
import pytest
from jupyter_client.manager import start_new_kernel
from nbclient import NotebookClient

from lib.notebook.packing import pack
from lib.notebook.setup import Packed
from lib.notebook.sources import CELLS, content_id

ROOT = Path(__file__).resolve().parents[2]
SETUP = (ROOT / "lib/notebook/setup.py").read_text()
STRICT = ["-W", "error"] if IPython.version_info >= (8,) else []  # Colab's is older than the Python that it runs on


def put(root, name, content):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(content, encoding="utf-8", newline="")


def packed(files=()):
    """Return the packed cell of these files and of what keeps them."""
    return pack({name: (ROOT / name).read_text() for name in Packed.KERNEL} | dict(files))


def kernel(tmp_path, *cells, files=()):
    """Run setup cell, packed cell and these in IPython, in a process of its own; return what each of these printed.

    A cell is its text, or its text and the id that JupyterLab sends along.
    """
    program = (
        "import json, sys\nfrom IPython.core.interactiveshell import InteractiveShell\n"
        "shell = InteractiveShell.instance(colors='nocolor')\n"
        "for cell, label in json.load(sys.stdin):\n"
        "    shell.run_cell(cell, store_history=True, **({'cell_id': label} if label else {}))\n"
        "    print('\\0', end='')\n"
    )
    pairs = [(cell, "") if isinstance(cell, str) else cell for cell in (SETUP, packed(files), *cells)]
    # IPython warns where another environment than its own is active
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    done = subprocess.run(
        [sys.executable, *STRICT, "-c", program],
        input=json.dumps(pairs), capture_output=True, text=True, cwd=tmp_path, check=True,
        env={**environment, "IPYTHONDIR": str(tmp_path / "ipython")},
    )  # fmt: skip
    return done.stdout.split("\0")[2:-1]


INIT = '%%embed lib/__init__.py\n"""The library."""\nfrom .base import value\n'
BASE = '%%embed lib/base.py\n"""Base."""\nLIMIT = 1\n\n\nclass Thing:\n    size = 1\n\n\ndef value():\n    return 1\n'
USER = '%%embed lib/user.py\n"""User."""\nfrom lib.base import value as v\n\nDOUBLE = 2 * v()\n'
FILES = {cell.split("\n")[0].split()[1]: cell.partition("\n")[2] for cell in (INIT, BASE, USER)}


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
    assert again.endswith("objects made before keep their old code; run again from In[6] on\n")
    assert after == "5 5 10 5 5 5 5 5 10 5 kept 1\n"


def test_a_name_that_the_reader_has_replaced_stays(tmp_path):
    use = "from lib.base import LIMIT, value\nLIMIT = 'mine'\nvalue = len"
    *_, after = kernel(tmp_path, INIT, BASE, use, BASE.replace("1", "5"), "print(LIMIT, value)")
    assert after == "mine <built-in function len>\n"


def test_an_edit_of_the_package_itself_is_seen(tmp_path):
    use = "import lib\nfrom lib import value\nprint(value())"
    edited = INIT.replace("from .base import value", "value = lambda: 7")
    *_, first, output, after = kernel(tmp_path, INIT, BASE, use, edited, "print(value(), lib.value())")
    assert (first, after) == ("1\n", "7 7\n")
    assert "reloaded: lib;" in output


def test_a_syntax_error_leaves_the_old_file_and_names_the_line_of_the_module(tmp_path):
    use = "import lib.base, inspect\nfrom pathlib import Path\nfile = Path(lib.base.__file__)"
    broken = BASE.replace("return 1", "return (")
    *_, output, after, again = kernel(
        tmp_path, INIT, BASE, use, broken, "print(file.read_text(), lib.base.value())", BASE
    )
    assert "SyntaxError" in output and re.search(r"base\.py\D+10\b", output)
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
    [output] = kernel(tmp_path, "%%embed ../x.txt\nno\n")
    assert "wanted a file inside" in output


def test_classes_reach_spawned_processes_and_show_their_source(tmp_path):
    use = (
        "import inspect, pickle, sys\nfrom subprocess import check_output\nfrom lib.base import Thing\n"
        "code = 'import pickle, sys; sys.path[:0] = sys.argv[1:]; print(pickle.load(sys.stdin.buffer).__module__)'\n"
        "name = check_output([sys.executable, '-c', code, sys.path[0]], input=pickle.dumps(Thing())).decode().strip()\n"
        "lines, first = inspect.getsourcelines(Thing)\nprint(name, lines[0].strip(), first)"
    )
    *_, after = kernel(tmp_path, INIT, BASE, use)
    assert after == "lib.base class Thing: 5\n"


def test_a_name_that_an_edit_removed_is_gone_as_after_a_restart_and_a_failed_edit_removes_nothing(tmp_path):
    use = "import lib.base as B\nprint(B.LIMIT)"
    without, failing = BASE.replace("LIMIT = 1\n", ""), BASE.replace("LIMIT = 1", "1 / 0")
    *_, failed, kept, _, after = kernel(tmp_path, INIT, BASE, use, failing, use, without, "print(hasattr(B, 'LIMIT'))")
    assert "ZeroDivisionError" in failed and kept == "1\n"
    assert after == "False\n"


FAILS = "import lib.base\n\nlib.base.value(1)"
DIVIDES = '"""Base."""\n\n\ndef value(x):\n    return x / 0\n'


def chapters(**more):
    """Return the map of cells as the builder writes it, as a file of the packed cell."""
    known = {"research/01_a.py": {"4": content_id("research/01_a.py", FAILS)}, "research/02_b.py": {}, **more}
    return {"lib/__init__.py": '"""The library."""\n', CELLS: json.dumps(known)}


def last_line(output):
    return output.rstrip().splitlines()[-1]


def test_below_an_error_stand_the_lines_of_chapter_and_library_that_it_comes_from(tmp_path):
    [output] = kernel(tmp_path, FAILS, files=chapters() | {"lib/base.py": DIVIDES})
    assert "ZeroDivisionError: division by zero" in output
    assert last_line(output) == "at research/01_a.py:7, lib/base.py:5"


def test_an_edited_cell_names_no_line_but_says_after_which_one_or_which_it_was(tmp_path):
    good = "x = 1"
    files = chapters(**{"research/02_b.py": {"9": content_id("research/02_b.py", good)}})
    edited, label = "x = 2\n1 / 0", content_id("research/02_b.py", good)
    early, _, late, with_id = kernel(tmp_path, edited, good, edited, (edited, label), files=files)
    assert last_line(early) == "at a cell that was edited or added"
    assert last_line(late) == "at a cell that was edited or added, after the one at research/02_b.py:9"
    assert last_line(with_id) == "at an edited form of the cell at research/02_b.py:9"


def test_an_edited_module_says_so_beside_its_line(tmp_path):
    files = chapters() | {"lib/base.py": DIVIDES}
    *_, output, broken = kernel(
        tmp_path, f"%%embed lib/base.py\n# mine\n{DIVIDES}", FAILS, BASE + "x = (\n", files=files
    )
    assert last_line(output) == "at research/01_a.py:7, lib/base.py:6, a file that was edited"
    assert "SyntaxError" in broken and "edited or added" not in broken


def test_two_equal_cells_are_both_named(tmp_path):
    files = chapters(**{"research/02_b.py": {"9": content_id("research/02_b.py", FAILS)}})
    *_, output = kernel(tmp_path, f"%%embed lib/base.py\n{DIVIDES}", FAILS, files=files)
    assert last_line(output).startswith("at research/01_a.py:7 or research/02_b.py:12, lib/base.py:5")


def test_the_note_after_an_edit_names_the_line_to_run_again_from(tmp_path):
    use = "import lib.base"
    files = chapters(**{"research/02_b.py": {"9": content_id("research/02_b.py", use)}})
    *_, output = kernel(tmp_path, INIT, BASE, "y = 1", use, BASE.replace("1", "5"), files=files)
    assert last_line(output).endswith("; run again from In[6] on, research/02_b.py:9")


def test_a_name_that_the_reader_takes_for_something_else_stops_no_edit(tmp_path):
    use = "import lib.base"
    taken = "from matplotlib.path import Path\nPacked = json = ast = sys = importlib = traceback = None"
    show = "print(lib.base.value())"
    *_, quiet, output, after = kernel(tmp_path, INIT, BASE, use, taken, BASE.replace("1", "5"), show)
    assert (quiet, after) == ("", "5\n")
    assert output.startswith("lib/base.py  10 lines  reloaded: lib.base")
    *_, output, after = kernel(tmp_path, INIT, BASE, "%reset -f", SETUP, use, BASE.replace("1", "5"), show)
    assert output.startswith("lib/base.py  10 lines  reloaded: lib.base") and after == "5\n"


def test_a_reload_that_failed_half_way_is_told_of_by_the_next_note(tmp_path):
    use, later = "from lib.base import Thing", "import lib.user"
    alone, renamed = INIT.replace("from .base import value\n", ""), BASE.replace("value", "other")
    follows = USER.replace("import value", "import other")
    *_, failed, healed = kernel(tmp_path, alone, BASE, USER, use, later, renamed, follows)
    assert "ImportError" in failed
    assert "reloaded: lib.base, lib.user;" in healed and healed.endswith("run again from In[6] on\n")


def test_while_one_module_is_broken_another_still_takes_an_edit(tmp_path):
    other = '%%embed lib/other.py\n"""Other."""\nLIMIT = 9\n'
    use = "import lib.user, lib.other\nfrom lib.other import LIMIT"
    *_, still, after = kernel(
        tmp_path,
        INIT,
        BASE,
        USER,
        other,
        use,
        BASE.replace("LIMIT = 1", "1 / 0"),
        other.replace("9", "8"),
        "print(LIMIT)",
    )
    assert "ZeroDivisionError" in still and after == "8\n"


def test_a_circle_of_imports_is_refused_by_name_and_leaves_the_old_file(tmp_path):
    circle = BASE.replace("    return 1", "    import lib.user\n\n    return 1")
    edited = BASE.replace("return 1", "return 7")
    *_, output, _, after = kernel(
        tmp_path, INIT, BASE, USER, "import lib.user", circle, edited, "print(lib.user.DOUBLE)"
    )
    assert re.search(r"ImportError: modules import each other in a circle: lib\.\w+ <- lib\.\w+ <- lib\.\w+", output)
    assert after == "14\n"


def test_a_cell_in_another_language_is_passed_over_when_names_follow_an_edit(tmp_path):
    others = "%%html\n<div>\n    <p>\n  </p>\n</div>", "%%writefile s.py\nfrom lib.other import LIMIT"
    *_, after = kernel(
        tmp_path, INIT, BASE, "from lib.base import LIMIT", *others, BASE.replace("1", "5"), "print(LIMIT)"
    )
    assert after == "5\n"


def test_a_failed_edit_of_the_package_keeps_what_was_imported_from_it(tmp_path):
    other = '%%embed lib/other.py\n"""Other."""\nLIMIT = 9\n'
    failing = INIT + "import lib.other\n1 / 0\n"
    *_, after = kernel(tmp_path, INIT, BASE, other, "import lib", failing, "import lib.other\nprint(lib.other.LIMIT)")
    assert after == "9\n"


def test_the_note_sees_an_import_below_a_magic_and_counts_cells_as_the_page_does(tmp_path):
    use, again = ("%%time\nfrom lib.base import LIMIT", "a"), ("from lib.base import LIMIT", "b")
    *_, output, after = kernel(
        tmp_path, INIT, BASE, use, again, INIT, BASE, use, again, BASE.replace("1", "5"), "print(LIMIT)"
    )
    assert output.endswith("run again from In[9] on\n") and after == "5\n"
    *_, output = kernel(tmp_path, INIT, BASE, again, ("a = LIMIT", "c"), (again[0], "d"), BASE.replace("1", "5"))
    assert output.endswith("run again from In[5] on\n")


ROOMS = {
    "lib/__init__.py": '"""The library."""\n',
    "lib/files.py": '"""Files."""\n\nLIMIT = 1\n',
    "lib/data/__init__.py": '"""A room."""\n\nfrom .cache import size\n',
    "lib/data/cache.py": '"""Looks up."""\n\nfrom ..files import LIMIT\n\n\ndef size():\n    return LIMIT\n',
    "lib/runs/run.py": '"""No __init__ beside."""\n\nfrom lib.data import cache\n\nTWICE = 2 * cache.size()\n',
}


def test_an_edit_reaches_through_rooms_relative_imports_and_packages(tmp_path):
    use = "from lib.data import size\nfrom lib.runs import run\nprint(size(), run.TWICE)"
    edited = f"%%embed lib/files.py\n{ROOMS['lib/files.py']}".replace("1", "5")
    before, output, after = kernel(tmp_path, use, edited, "print(size(), run.TWICE)", files=ROOMS)
    assert (before, after) == ("1 2\n", "5 10\n")
    reloaded = re.search("reloaded: (.*?);", output)[1].split(", ")
    assert reloaded[:2] == ["lib.files", "lib.data.cache"] and {*reloaded[2:]} == {"lib.data", "lib.runs.run"}


def test_unpacked_files_equal_the_packed_ones_and_can_be_imported_at_once(tmp_path):
    use = "import lib.user, pathlib\nfolder = pathlib.Path(lib.__file__).parents[1]\n"
    show = f"print(lib.user.DOUBLE, all((folder / name).read_text() == text for name, text in {FILES!r}.items()))"
    assert kernel(tmp_path, use + show, files=FILES) == ["2 True\n"]


def test_the_list_names_lines_and_hash_of_each_file_and_marks_what_was_edited(tmp_path):
    before, _, after = kernel(tmp_path, "%embed", BASE.replace("1", "5"), "%embed", files=FILES)
    rows = {line.split()[0]: line.split()[1:] for line in before.splitlines()}
    assert rows.keys() == FILES.keys() | set(Packed.KERNEL)
    text = FILES["lib/base.py"]
    assert rows["lib/base.py"] == ["10", "lines", hashlib.sha256(text.encode()).hexdigest()[:12]]
    assert [line.split()[0] for line in after.splitlines() if line.endswith("edited")] == ["lib/base.py"]


@pytest.mark.parametrize("name", ["lib/base.py", "base.py"])
def test_a_line_brings_a_file_into_its_cell_as_it_is_now(tmp_path, name):
    show = "print(get_ipython().rl_next_input)"
    output, packed, _, _, edited = kernel(
        tmp_path, f"%embed {name}", show, BASE.replace("1", "5"), f"%embed {name}", show, files=FILES
    )
    assert packed == BASE + "\n" and edited == BASE.replace("1", "5") + "\n"
    assert "edit it and run that cell" in output and re.search("`!cat .*/lib/base.py`", output)


def test_a_file_that_is_not_there_is_answered_with_the_nearest_one(tmp_path):
    [output] = kernel(tmp_path, "%embed lib/bse.py", files=FILES)
    assert "there is no such file; did you mean lib/base.py?" in output


def test_the_packed_cell_run_again_restores_what_a_cell_edited_and_says_so(tmp_path):
    use, edited = "from lib.user import DOUBLE", BASE.replace("return 1", "return 7")
    _, _, again, restored, *_, after = kernel(
        tmp_path, use, edited, packed(FILES), "print(DOUBLE)", edited, "print(DOUBLE)", files=FILES
    )
    assert "restored: lib/base.py; run again the cells that edited them" in again
    assert "reloaded: lib.base, " in again and "lib.user" in again
    assert (restored, after) == ("2\n", "14\n")


def test_a_damaged_packed_cell_is_refused_by_file_and_changes_nothing(tmp_path):
    other = packed(FILES | {"lib/base.py": FILES["lib/base.py"] + "# more\n"})
    lines = other.splitlines(keepends=True)
    at = next(n for n, line in enumerate(lines) if line.startswith("lib/base.py"))
    for damaged in (lines[at][:-20] + "\n", lines[at].replace(lines[at].split()[2], "0" * 12)):
        output, after = kernel(
            tmp_path, "".join([*lines[:at], damaged]), "import lib.base\nprint(lib.base.LIMIT)", files=FILES
        )
        assert "lib/base.py is damaged in the packed cell" in output and after == "1\n"


def test_what_keeps_the_files_cannot_be_edited_in_the_notebook(tmp_path):
    [output] = kernel(tmp_path, "%%embed lib/notebook/kernel.py\n1 / 0\n")
    assert "this file keeps the notebook's files; change it in the repository" in output


def test_setting_up_puts_one_name_into_the_notebook_and_no_module_of_the_library(tmp_path):
    show = "import sys\nprint([name for name in sys.modules if name.split('.')[0] == 'lib'])\n%who"
    [output] = kernel(tmp_path, show, files=FILES)
    assert output.split() == ["[]", "Packed", "get_ipython", "sys"] or output.split() == ["[]", "Packed", "sys"]


def notebook(*sources):
    cells = [nbformat.v4.new_code_cell(source) for source in (SETUP, packed(), *sources)]
    return nbformat.v4.new_notebook(cells=cells)


def printed(executed):
    return "".join(out.get("text", "") for cell in executed.cells for out in cell.outputs)


def test_in_a_kernel_workers_of_every_kind_see_an_edit_and_so_does_a_restarted_kernel(tmp_path):
    edited = BASE.replace("return 1", "return 7")
    pools = (
        "import multiprocessing as m\nfrom lib.base import value\n"
        "for kind in ('fork', 'spawn', 'forkserver'):\n"
        "    with m.get_context(kind).Pool(1) as pool:\n        print(kind, pool.apply(value))"
    )
    output = []
    manager, talk = start_new_kernel(cwd=str(tmp_path))
    try:
        for _ in range(2):
            for cell in (SETUP, packed(FILES), pools, edited, pools):
                talk.execute_interactive(cell, output_hook=lambda m: output.append(m["content"].get("text", "")))
            manager.restart_kernel(now=True)
            talk.wait_for_ready()
    finally:
        talk.stop_channels()
        manager.shutdown_kernel(now=True)
    lines = [line for line in "".join(output).splitlines() if re.match("(fork|spawn)", line)]
    assert lines == [f"{kind} {n}" for n in (1, 7) for kind in ("fork", "spawn", "forkserver")] * 2


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler, which torch.compile wants on a CPU")
def test_in_a_kernel_torch_compile_compiles_an_embedded_module_and_its_edit(tmp_path):
    net = '%%embed lib/net.py\n"""Net."""\n\n\ndef twice(x):\n    return 2 * x + 1\n'
    use = "import torch\nfrom lib.net import twice\nprint('is', torch.compile(twice)(torch.ones(3)).tolist())"
    init = INIT.replace(".base import value", ".net import twice")
    book = notebook(init, net, use, net.replace("2 *", "4 *"), use)
    executed = NotebookClient(book, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    assert re.findall(r"is \[([\d.]+)", printed(executed)) == ["3.0", "5.0"]
