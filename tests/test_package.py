"""Installed from a wheel, without its checkout and its extras, the commands work or say what to do."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
SETTINGS = {"phantom_images": 40, "image_size": 32, "widths": [4, 8], "epochs": 1, "batch_size": 4, "resamples": 100}
SETTINGS |= {"methods": ["unet"], "backbone": "none", "precision": "float32", "device": "cpu", "run_dir": "run"}
ALONE = """
import json, sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in hidden else self.finder.find_spec(name, path, target)

hidden = set(json.load(open("hidden.json")))
sys.meta_path[:] = map(Without, sys.meta_path)
from lib.runs import cli
print(cli.__file__)
for call in json.load(open("calls.json")):
    print(call[0], getattr(cli, call[0] + "_command")(call[1:]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that pip builds of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "lib", folder / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    subprocess.run([sys.executable, "-c", BUILD, "."], cwd=folder, check=True, capture_output=True)
    [file] = folder.glob("*.whl")
    return file


def test_the_wheel_holds_every_file_of_the_library_and_every_command(wheel):
    with zipfile.ZipFile(wheel) as file:
        found = set(file.namelist())
        [entries] = [file.read(name).decode() for name in found if name.endswith("entry_points.txt")]
    wanted = {path.relative_to(ROOT).as_posix() for path in (ROOT / "lib").rglob("*") if path.is_file()}
    assert {name for name in wanted if "__pycache__" not in name} == {name for name in found if name.startswith("lib/")}
    lines = [line for line in entries.splitlines() if "=" in line]
    assert sorted(lines) == sorted(f"{name} = {place}" for name, place in PROJECT["scripts"].items())


def required() -> set[str]:
    """The distributions that are installed with this one, without its extras."""
    found, waiting = set(), [Requirement(text) for text in PROJECT["dependencies"]]
    for one in waiting:  # grows
        extras = {"", *one.extras}
        if (key := (canonicalize_name(one.name), *sorted(extras))) in found:
            continue
        found.add(key)
        try:
            texts = requires(one.name) or []
        except PackageNotFoundError:  # of another system
            continue
        for more in map(Requirement, texts):
            if more.marker is None or any(more.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(more)
    return {name for name, *_ in found}


def test_outside_a_checkout_and_without_extras_the_commands_work_and_the_notebook_is_asked_for(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as file:
        file.extractall(tmp_path / "site")
    here = tmp_path / "here"
    here.mkdir()
    kept = required()
    hidden = [
        module
        for module, names in packages_distributions().items()
        if module != "lib" and not {canonicalize_name(name) for name in names} & kept
    ]
    assert {"wandb", "kagglehub", "papermill", "jupytext", "requests", "IPython"} <= {*hidden}
    (here / "mine.yaml").write_text(yaml.safe_dump(SETTINGS))
    calls = [["train", "mine.yaml"], ["evaluate", "run"], ["gallery", "run"], ["export", "run", "--to", "model"]]
    calls += [["score", "model", "run/figures/roc.png", "--to", "scores"], ["cache", "list"], ["run", "mine.yaml"]]
    (here / "calls.json").write_text(json.dumps(calls))
    (here / "hidden.json").write_text(json.dumps(hidden))
    places = {"PYTHONPATH": str(tmp_path / "site"), "IMGAE_DX_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", ALONE], cwd=here, env=os.environ | places, capture_output=True, text=True
    )
    words = done.stdout.splitlines()
    assert words[0].startswith(str(tmp_path / "site")), done.stderr
    statuses = {call[0]: int(line.split()[1]) for call in calls for line in words if line.startswith(f"{call[0]} ")}
    assert statuses == dict.fromkeys(statuses, 0) | {"run": 2}, done.stdout + done.stderr
    assert list(statuses) == [call[0] for call in calls]
    assert "notebook, which is not installed with imgae-dx: clone the repository" in done.stderr
    assert (here / "run/gallery.html").is_file() and (here / "scores/scores.csv").is_file()
