"""What a kernel has of what the notebook needs: versions beside the tested ones; what is missing is installed.

It stands on Python alone, as it runs before anything else is known to be there. The lowest versions are those of
`pyproject.toml`, the newest that were tested those of `constraints.txt`; the notebook holds both files.
"""

import importlib
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

KEPT = ("torch", "numpy", "pandas")  # what else a machine holds was built for these
# those that build, run or show the notebook
TOOLS = {"ipykernel", "ipywidgets", "jupytext", "latex2mathml", "nbconvert", "papermill"}


class EnvironmentProblem(RuntimeError):
    """A package that the notebook needs is not there and cannot be installed."""


class Package(NamedTuple):
    """A package that is needed."""

    name: str
    least: str  # version
    tested: str  # newest version that was tested
    found: str  # version, or "" if it is not there

    @property
    def missing(self) -> bool:
        """Whether it has to be installed: it is not there, or too old."""
        return not self.found or _number(self.found) < _number(self.least)

    @property
    def remark(self) -> str:
        """How it stands to the tested range."""
        if self.missing:
            return "older than wanted" if self.found else "missing"
        return "newer than tested" if _number(self.found) > _number(self.tested) else ""


def needed(extra: str = "") -> list[Package]:
    """Return what a kernel needs, or what it needs more for an `extra` of pyproject.toml, such as "dicom"."""
    folder = Path(__file__).parents[1]
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (folder / "constraints.txt").read_text(encoding="utf-8").splitlines()
    tested = dict(line.split("==") for line in lines if "==" in line)
    texts = project["optional-dependencies"][extra] if extra else project["dependencies"]
    pairs = [text.split(">=") for text in texts]
    return [Package(name, least, tested[name], _found(name)) for name, least in pairs if name not in TOOLS]


def prepare() -> None:
    """Print the versions that are not those last tested, install what is missing, say what hardware there is."""
    before = needed()
    install(before)
    packages = needed()
    differing = [package for package in packages if package.found != package.tested]
    print(f"Python {sys.version.split()[0]}; {len(packages)} packages, {len(packages) - len(differing)} as last tested")
    rows = [("", "found", "wanted", "tested up to", "")] if differing else []
    rows += [(one.name, one.found, f">={one.least}", one.tested, one.remark) for one in differing]
    for row in rows:
        print("{:14}{:16}{:10}{:14}{}".format(*row).rstrip())
    print(hardware())


def prepare_for(extras: Iterable[str]) -> None:
    """Install what is missing of these extras of pyproject.toml."""
    install([package for extra in extras for package in needed(extra)])


def install(packages: Iterable[Package]) -> None:
    """Install those that are missing, without a change to torch, numpy and pandas; print what came.

    Raises:
        EnvironmentProblem: One of those three is missing, another needs other versions of them, or pip cannot get it.

    """
    missing = [package for package in packages if package.missing]
    if absent := [package.name for package in missing if package.name in KEPT and not package.found]:
        raise EnvironmentProblem(
            f"missing: {', '.join(absent)}, and this notebook does not install torch, numpy or pandas: on Colab take a "
            f"standard runtime, elsewhere run `pip install {' '.join(absent)}` and start anew"
        )
    missing = [package for package in missing if package.name not in KEPT]
    if not missing:
        return
    names = ", ".join(package.name for package in missing)
    kept = {name: _found(name) for name in KEPT if _found(name)}
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder) / "constraints.txt"
        pins.write_text("".join(f"{name}=={found}\n" for name, found in kept.items()), encoding="utf-8")
        ranges = [f"{one.name}>={one.least},<={one.tested}" for one in missing]
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--constraint", str(pins), *ranges]
        done = subprocess.run(command, capture_output=True, text=True)
    importlib.invalidate_caches()
    if done.returncode:
        shown = ", ".join(f"{name} {found}" for name, found in kept.items())
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr.strip()]
        if re.search(r"ResolutionImpossible|conflict", done.stderr):
            raise EnvironmentProblem(
                f"{names} cannot be installed: other versions of {shown} would be needed, and those stay as they are, "
                f"since all else here was built for them; take a newer runtime, or settings that do without ({said[0]})"
            )
        raise EnvironmentProblem(
            f"{names} cannot be installed ({said[0]}): connect to the internet and run again, or run "
            f"`pip install {' '.join(package.name for package in missing)}` where there is one"
        )
    print("installed " + ", ".join(f"{package.name} {_found(package.name)}" for package in missing))


def hardware() -> str:
    """Return what there is to train on, and what may be expected of it."""
    import torch  # here: where it is missing, that is said first

    later = "chapter 2 says how long training takes"
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        return f"GPU: {card.name}, {card.total_memory / 2**30:.0f} GiB; {later}"
    advice = "; for a GPU choose Runtime > Change runtime type" if on_colab() else ""
    return f"CPU, {torch.get_num_threads()} threads, no GPU: {later}, and which settings suit{advice}"


def on_colab() -> bool:
    """Whether this process belongs to a kernel of Google Colab."""
    return "google.colab" in sys.modules


def secret(name: str) -> str:
    """Return a secret of the environment, else of Colab, else nothing; whoever asks must not print it.

    kagglehub and huggingface_hub look in the same places for theirs.
    """
    if (value := os.environ.get(name, "")) or not on_colab():
        return value
    from google.colab import userdata

    try:
        return userdata.get(name) or ""
    except Exception:  # there is none, the reader has refused it, or nobody is there to ask
        return ""


def _found(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _number(text: str) -> list[int]:
    """Return a version's numbers: [2, 11] of 2.11.0+cu128, so that 2.11 and 2.11.0 are the same."""
    numbers = [int(part) for part in re.split(r"[^\d.]", text)[0].split(".") if part]
    while numbers and not numbers[-1]:
        numbers.pop()
    return numbers
