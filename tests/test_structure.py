"""The shape of `lib`: the order of its rooms and files, what a room may not do, and how large a file may become."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from lib.methods.variants import VARIANTS

ROOT = Path(__file__).resolve().parents[1]
LIB = ROOT / "lib"


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def docstring(file: Path) -> str:
    return ast.get_docstring(tree(file)) or ""


def listed(package: Path) -> list[str]:
    """The names that a package's docstring lists, in its order."""
    return re.findall(r"^(\w+) {2,}\S", docstring(package / "__init__.py"), flags=re.MULTILINE)


ROOMS = [name for name in listed(LIB) if (LIB / name).is_dir()]


def ordered() -> dict[str, Path]:
    """Every module of `lib` by its full name, from top to bottom: each may import only from those above it."""
    modules = {"lib": LIB / "__init__.py"}
    for name in listed(LIB):
        if name in ROOMS:
            modules[f"lib.{name}"] = LIB / name / "__init__.py"
            modules |= {f"lib.{name}.{file}": LIB / name / f"{file}.py" for file in listed(LIB / name)}
        else:
            modules[f"lib.{name}"] = LIB / f"{name}.py"
    return modules


MODULES = ordered()


def of(*rooms: str) -> list[str]:
    """The modules of these rooms."""
    return [name for name, file in MODULES.items() if file.parent.name in rooms]


@cache
def imported(module: str) -> frozenset[str]:
    """What a module imports anywhere in its file: modules of `lib` and names of other packages, by their full name."""
    names = set()
    for node in ast.walk(tree(MODULES[module])):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".")[: -node.level or None] if node.level else []
            base = ".".join([*package, *([node.module] if node.module else [])])
            whole = {f"{base}.{alias.name}" for alias in node.names}
            names |= {name if name in MODULES or not name.startswith("lib.") else base for name in whole}
    return frozenset(names)


def imports_any(module: str, *packages: str) -> set[str]:
    return {name for name in imported(module) for package in packages if f"{name}.".startswith(f"{package}.")}


def strings(module: str) -> set[str]:
    """The string constants of a module, also the pieces of its f-strings."""
    constants = (node.value for node in ast.walk(tree(MODULES[module])) if isinstance(node, ast.Constant))
    return {value for value in constants if isinstance(value, str)}


def attributes(module: str) -> set[str]:
    return {node.attr for node in ast.walk(tree(MODULES[module])) if isinstance(node, ast.Attribute)}


def words(module: str) -> set[str]:
    """The names that a module uses: variables, parameters, attributes, and the words of its strings but docstrings."""
    names, prose = set(), set()
    for node in ast.walk(tree(MODULES[module])):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            prose |= {id(one.value) for one in node.body if isinstance(one, ast.Expr)}
        elif isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.Attribute):
            names.add(node.attr)
        elif isinstance(node, ast.arg | ast.keyword):
            names.add(node.arg or "")
    for node in ast.walk(tree(MODULES[module])):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            names |= set(re.findall(r"\w+", node.value))
    return names


LABELS = {"label", "labels", "strict_label"}
FILE_ACCESS = {"open", "memmap", "open_memmap", "fromfile", "tofile", "read_text", "write_text", "read_bytes"}
FILE_ACCESS |= {"write_bytes", "savefig", "glob", "rglob", "read_csv", "to_csv", "read_parquet", "to_parquet"}


def file_accesses(module: str) -> set[str]:
    """The calls in a module that read or write files."""
    calls = [node.func for node in ast.walk(tree(MODULES[module])) if isinstance(node, ast.Call)]
    names = {call.id if isinstance(call, ast.Name) else getattr(call, "attr", "") for call in calls} & FILE_ACCESS
    return names | {
        ast.unparse(call) for call in calls if re.fullmatch(r"(np|torch)\.(load|save\w*)", ast.unparse(call))
    }


# --- the order --------------------------------------------------------------------------------------------------------


def test_every_file_of_lib_is_listed_once():
    assert sorted(MODULES.values()) == sorted(LIB.rglob("*.py"))
    for package in (LIB, *(LIB / room for room in ROOMS)):
        assert len(set(listed(package))) == len(listed(package)), package.name


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_those_above_it(module):
    above = set(list(MODULES)[: list(MODULES).index(module)])
    assert {name for name in imported(module) if name.split(".")[0] == "lib"} <= above


# --- what a room may not do -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", MODULES)
def test_only_figures_and_runs_draw_and_nothing_uses_pyplot(module):
    drawing = imports_any(module, "matplotlib", "seaborn")
    assert not drawing or module in of("figures", "runs")
    assert not imports_any(module, "matplotlib.pyplot", "pylab")


@pytest.mark.parametrize("module", of("data"))
def test_data_trains_nothing(module):
    assert not imports_any(module, "torch.nn", "torch.optim", "torch.autograd")
    assert not {"nn", "optim", "backward"} & attributes(module)


@pytest.mark.parametrize(
    "file", ["anatomy", "phantom", "picture", "dicom", "decoding", "journal", "cache", "duplicates"]
)
def test_pixels_are_prepared_without_labels(file):
    assert not LABELS & words(f"lib.data.{file}")


@pytest.mark.parametrize("module", of("methods"))
def test_methods_know_no_label_and_no_methods_name(module):
    assert not LABELS & words(module)
    assert module == "lib.methods.variants" or not VARIANTS.keys() & strings(module)


@pytest.mark.parametrize("module", of("methods"))
def test_methods_know_no_file_but_the_checkpoint(module):
    if module != "lib.methods.checkpoint":
        assert not file_accesses(module)
        assert not imports_any(module, "lib.files", "os", "io", "pyarrow", "pandas", "PIL")
    if module not in ("lib.methods.checkpoint", "lib.methods.training"):  # the loop is told where the checkpoint is
        assert not imports_any(module, "pathlib")


@pytest.mark.parametrize("module", of("scores"))
def test_scores_read_no_label(module):
    assert not {*LABELS, "label_column", "finding"} & words(module)


@pytest.mark.parametrize("module", of("evidence"))
def test_evidence_needs_no_torch_and_touches_no_file(module):
    assert not imports_any(module, "torch", "torchvision", "lib.methods")
    assert not imports_any(module, "lib.files", "pathlib", "os", "io", "shutil", "pyarrow")
    assert not file_accesses(module)


def test_evidence_loads_neither_torch_nor_matplotlib():
    code = f"import sys, {', '.join(of('evidence'))}; print(sorted({{'torch', 'matplotlib'}} & sys.modules.keys()))"
    fresh = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert fresh.stdout.strip() == "[]"


@pytest.mark.parametrize("module", of("figures"))
def test_figures_compute_no_statistic(module):
    assert not imports_any(module, "scipy.stats", "sklearn", "lib.scores")
    for node in ast.walk(tree(MODULES[module])):
        # A percentile may limit a colour scale; other summaries are computed before they are drawn.
        called = getattr(node.func, "attr", "") if isinstance(node, ast.Call) else ""
        assert called not in ("median", "quantile", "std", "var", "corr")
        assert not (isinstance(node, ast.ImportFrom) and node.module == "lib.evidence")
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lib.evidence."):
            source = importlib.import_module(node.module)
            functions = {alias.name for alias in node.names if inspect.isfunction(getattr(source, alias.name))}
            # Functions of evidence compute; but those of `results` read it, and those of `wording` write it out.
            assert not functions or node.module in ("lib.evidence.results", "lib.evidence.wording"), functions


@pytest.mark.parametrize("module", of("runs"))
def test_runs_hold_no_mathematics(module):
    assert not imports_any(module, "scipy", "sklearn")


@pytest.mark.parametrize("module", of("notebook"))
def test_the_notebook_is_built_without_the_rooms_that_its_chapters_are_about(module):
    ours = {name for name in imported(module) if name.split(".")[0] == "lib"}
    assert ours <= {"lib.params", "lib.privacy", "lib.refusals", "lib.strict_yaml", *of("notebook")}


@pytest.mark.parametrize("module", of("data", "methods", "scores", "evidence", "figures"))
def test_no_room_imports_by_a_computed_name(module):
    assert not imports_any(module, "importlib.import_module")
    names = {node.id for node in ast.walk(tree(MODULES[module])) if isinstance(node, ast.Name)}
    assert not {"__import__", "import_module"} & (names | attributes(module))


# --- what a reader is told --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", MODULES)
def test_the_first_line_of_a_file_says_what_it_is_for(module):
    assert 20 <= len(docstring(MODULES[module]).split("\n")[0]) <= 120


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_comes_in_what_goes_out_and_which_file_to_open_first(room):
    text = docstring(LIB / room / "__init__.py")
    first = re.search(r"Open `(\w+)\.py` first", text)
    assert first and first[1] in listed(LIB / room)
    assert re.search(r"\b[Ii]n comes?\b", text)
    assert re.search(r"\b[Oo]ut (come|go)(es|s)?\b", text)


# --- how large it is --------------------------------------------------------------------------------------------------


def lines(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


def test_the_heart_is_thin():
    assert sum(map(lines, [*(LIB / "methods").glob("*.py"), LIB / "scores" / "maps.py"])) < 1_300


@pytest.mark.parametrize("module", MODULES)
def test_no_file_of_lib_is_longer_than_300_lines(module):
    assert lines(MODULES[module]) <= 300
