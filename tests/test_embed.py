"""Promises of the notebook's setup cell: an edited module takes effect, an error names the line it comes from."""

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

from research.embed import CELLS, content_id

ROOT = Path(__file__).resolve().parents[1]
SETUP = (ROOT / "research/embed.py").read_text()
STRICT = ["-W", "error"] if IPython.version_info >= (8,) else []  # Colab's is older than the Python that it runs on


def put(root, name, content):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(content, encoding="utf-8", newline="")


def kernel(tmp_path, *cells, python=sys.executable):
    """Run the cells after the setup cell in IPython, in a process of its own; return what each of them printed.

    A cell is its text, or its text and the id that JupyterLab sends along.
    """
    program = (
        "import json, sys\nfrom IPython.core.interactiveshell import InteractiveShell\n"
        "shell = InteractiveShell.instance(colors='nocolor')\n"
        "for cell, label in json.load(sys.stdin):\n"
        "    shell.run_cell(cell, store_history=True, **({'cell_id': label} if label else {}))\n"
        "    print('\\0', end='')\n"
    )
    pairs = [(cell, "") if isinstance(cell, str) else cell for cell in (SETUP, *cells)]
    done = subprocess.run(
        [python, *STRICT, "-c", program],
        input=json.dumps(pairs), capture_output=True, text=True, cwd=tmp_path, check=True,
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
    assert again.endswith("objects made before keep their old code; run again from In[5] on\n")
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


def test_a_name_that_an_edit_removed_is_gone_as_after_a_restart_and_a_failed_edit_removes_nothing(tmp_path):
    use = "import lib.base as B\nprint(B.LIMIT)"
    without, failing = BASE.replace("LIMIT = 1\n", ""), BASE.replace("LIMIT = 1", "1 / 0")
    *_, failed, kept, _, after = kernel(tmp_path, INIT, BASE, use, failing, use, without, "print(hasattr(B, 'LIMIT'))")
    assert "ZeroDivisionError" in failed and kept == "1\n"
    assert after == "False\n"


FAILS = "import lib.base\n\nlib.base.value(1)"
DIVIDES = '"""Base."""\n\n\ndef value(x):\n    return x / 0\n'


def cells(**files):
    """Return the cell that holds the map, as the builder writes it."""
    known = {"research/01_a.py": {"4": content_id("research/01_a.py", FAILS)}, "research/02_b.py": {}, **files}
    return f"%%embed {CELLS}\n{json.dumps(known)}"


def last_line(said):
    return said.rstrip().splitlines()[-1]


def test_below_an_error_stand_the_lines_of_chapter_and_library_that_it_comes_from(tmp_path):
    known = cells(**{"lib/base.py": {"0": content_id("lib/base.py", DIVIDES)}})
    *_, said = kernel(tmp_path, known, f"%%embed lib/base.py\n{DIVIDES}", FAILS)
    assert "ZeroDivisionError: division by zero" in said
    assert last_line(said) == "at research/01_a.py:7, lib/base.py:5"


def test_an_edited_cell_names_no_line_but_says_after_which_one_or_which_it_was(tmp_path):
    good = "x = 1"
    known = cells(**{"research/02_b.py": {"9": content_id("research/02_b.py", good)}})
    edited, label = "x = 2\n1 / 0", content_id("research/02_b.py", good)
    *_, early, _, late, with_id = kernel(tmp_path, known, edited, good, edited, (edited, label))
    assert last_line(early) == "at a cell that was edited or added"
    assert last_line(late) == "at a cell that was edited or added, after the one at research/02_b.py:9"
    assert last_line(with_id) == "at an edited form of the cell at research/02_b.py:9"


def test_an_edited_module_says_so_beside_its_line(tmp_path):
    known = cells(**{"lib/base.py": {"0": content_id("lib/base.py", DIVIDES)}})
    *_, said, broken = kernel(tmp_path, known, f"%%embed lib/base.py\n# mine\n{DIVIDES}", FAILS, BASE + "x = (\n")
    assert last_line(said) == "at research/01_a.py:7, lib/base.py:6, a file that was edited"
    assert "SyntaxError" in broken and "edited or added" not in broken


def test_two_equal_cells_are_both_named(tmp_path):
    known = cells(**{"research/02_b.py": {"9": content_id("research/02_b.py", FAILS)}})
    *_, said = kernel(tmp_path, known, f"%%embed lib/base.py\n{DIVIDES}", FAILS)
    assert last_line(said).startswith("at research/01_a.py:7 or research/02_b.py:12, lib/base.py:5")


def test_the_note_after_an_edit_names_the_line_to_run_again_from(tmp_path):
    use = "import lib.base"
    known = cells(**{"research/02_b.py": {"9": content_id("research/02_b.py", use)}})
    *_, said = kernel(tmp_path, known, INIT, BASE, "y = 1", use, BASE.replace("1", "5"))
    assert last_line(said).endswith("; run again from In[6] on, research/02_b.py:9")


def test_a_name_that_the_reader_takes_for_something_else_stops_no_edit(tmp_path):
    use = "import lib.base"
    taken = "from matplotlib.path import Path\nCELLS = json = ast = sys = library_files = content_id = traceback = None"
    show = "print(lib.base.value())"
    *_, quiet, said, after = kernel(tmp_path, cells(), INIT, BASE, use, taken, BASE.replace("1", "5"), show)
    assert (quiet, after) == ("", "5\n")
    assert said.startswith("lib/base.py  10 lines  reloaded: lib.base")
    *_, said, after = kernel(tmp_path, INIT, BASE, "%reset -f", SETUP, use, BASE.replace("1", "5"), show)
    assert said.startswith("lib/base.py  10 lines  reloaded: lib.base") and after == "5\n"


def test_a_reload_that_failed_half_way_is_told_of_by_the_next_note(tmp_path):
    use, later = "from lib.base import Thing", "import lib.user"
    alone, renamed = INIT.replace("from .base import value\n", ""), BASE.replace("value", "other")
    follows = USER.replace("import value", "import other")
    *_, failed, healed = kernel(tmp_path, alone, BASE, USER, use, later, renamed, follows)
    assert "ImportError" in failed
    assert "reloaded: lib.base, lib.user;" in healed and healed.endswith("run again from In[5] on\n")


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
    *_, said, _, after = kernel(tmp_path, INIT, BASE, USER, "import lib.user", circle, edited, "print(lib.user.DOUBLE)")
    assert re.search(r"ImportError: modules import each other in a circle: lib\.\w+ <- lib\.\w+ <- lib\.\w+", said)
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
    *_, said, after = kernel(
        tmp_path, INIT, BASE, use, again, INIT, BASE, use, again, BASE.replace("1", "5"), "print(LIMIT)"
    )
    assert said.endswith("run again from In[8] on\n") and after == "5\n"
    *_, said = kernel(tmp_path, INIT, BASE, again, ("a = LIMIT", "c"), (again[0], "d"), BASE.replace("1", "5"))
    assert said.endswith("run again from In[4] on\n")


def notebook(*sources):
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in (SETUP, *sources)])


def printed(executed):
    return "".join(out.get("text", "") for cell in executed.cells for out in cell.outputs)


def test_in_a_kernel_workers_of_every_kind_see_an_edit_and_so_does_a_restarted_kernel(tmp_path):
    edited = BASE.replace("return 1", "return 7")
    pools = (
        "import multiprocessing as m\nfrom lib.base import value\n"
        "for kind in ('fork', 'spawn', 'forkserver'):\n"
        "    with m.get_context(kind).Pool(1) as pool:\n        print(kind, pool.apply(value))"
    )
    said = []
    manager, talk = start_new_kernel(cwd=str(tmp_path))
    try:
        for _ in range(2):
            for cell in (SETUP, INIT, BASE, pools, edited, pools):
                talk.execute_interactive(cell, output_hook=lambda m: said.append(m["content"].get("text", "")))
            manager.restart_kernel(now=True)
            talk.wait_for_ready()
    finally:
        talk.stop_channels()
        manager.shutdown_kernel(now=True)
    lines = [line for line in "".join(said).splitlines() if re.match("(fork|spawn)", line)]
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
