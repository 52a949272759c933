"""The packages that the notebook needs: compare the installed versions with the tested ones, install missing packages.

It imports only the standard library, because it runs before anything else is known to be installed. `pyproject.toml`
has the lowest versions, `constraints.txt` the newest tested ones; the notebook carries both files.
"""

import importlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import Any, NamedTuple

from lib.network import refused_certificate
from lib.refusals import Refusal

NAME = "imgae-dx"  # this project's, as pip knows it
KEPT = ("torch", "numpy", "pandas")  # never installed: the other packages of a machine were built for these


class EnvironmentProblem(RuntimeError):
    """A package that the notebook needs is missing and cannot be installed."""


class MissingExtra(Refusal):
    """A package of an extra of pyproject.toml is not installed; the message names both."""


@contextmanager
def needing(extra: str, what: str, refusal: type[Refusal] = MissingExtra) -> Iterator[None]:
    """Refuse in one sentence if a package that is imported in this context is missing: `what` needs this extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        names = " ".join(re.split(r"[^\w-]", text)[0] for text in _texts(extra))
        raise refusal(
            f"{what} needs {package}, which the extra {extra} brings: run `pip install '.[{extra}]'` in a checkout of "
            f"the project, or `pip install {names}`"
        ) from error


class Package(NamedTuple):
    """A package that is needed."""

    name: str
    least: str  # version
    tested: str  # newest version that was tested
    found: str  # version, or "" if it is not installed

    @property
    def missing(self) -> bool:
        """Whether it has to be installed: it is absent, or too old."""
        return not self.found or _number(self.found) < _number(self.least)

    @property
    def remark(self) -> str:
        """How its version compares with the tested range."""
        if self.missing:
            return "older than wanted" if self.found else "missing"
        return "newer than tested" if _number(self.found) > _number(self.tested) else ""


def needed(extra: str = "") -> list[Package]:
    """Return the packages that the notebook needs, or those of an `extra` of pyproject.toml, such as "dicom"."""
    lines = (Path(__file__).parents[1] / "constraints.txt").read_text(encoding="utf-8").splitlines()
    tested = dict(line.split("==") for line in lines if "==" in line)
    pairs = [text.split(">=") for text in _texts(extra)]
    return [Package(name, least, tested[name], _found(name)) for name, least in pairs]


def own_version() -> str:
    """Return this project's version: by its pyproject.toml, or, installed without a checkout, by its metadata."""
    project = _project()
    return str(project["version"]) if project else version(NAME)


def repository() -> str:
    """Return the address of this project's repository, from the same places."""
    project = _project()
    return str(project["urls"]["Repository"]) if project else metadata(NAME)["Project-URL"].partition(", ")[2]


def revision() -> str:
    """Return the commit of the checkout that this runs from, with -dirty if files of it have changed; "" elsewhere."""
    root = Path(__file__).parents[1]
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    if not (root / ".git").exists() or not shutil.which("git"):
        return ""
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def prepare() -> None:
    """Install missing packages; print the versions that differ from the tested ones, and the hardware."""
    before = needed()
    install(before)
    packages = needed()
    differing = [package for package in packages if package.found != package.tested]
    print(f"Python {sys.version.split()[0]}; {len(packages)} packages, {len(packages) - len(differing)} as last tested")
    rows = [("", "found", "wanted", "tested up to", "")] if differing else []
    rows += [
        (package.name, package.found, f">={package.least}", package.tested, package.remark) for package in differing
    ]
    for row in rows:
        print("{:14}{:16}{:10}{:14}{}".format(*row).rstrip())
    print(hardware())


def prepare_for(extras: Iterable[str]) -> None:
    """Install the missing packages of these extras of pyproject.toml."""
    install([package for extra in extras for package in needed(extra)])


def install(packages: Iterable[Package]) -> None:
    """Install the missing packages, and print which; torch, numpy and pandas keep their versions.

    Raises:
        EnvironmentProblem: One of those three is missing, a package needs another version of them, or pip fails.

    """
    missing = [package for package in packages if package.missing]
    if absent := [package.name for package in missing if package.name in KEPT and not package.found]:
        raise EnvironmentProblem(
            f"missing: {', '.join(absent)}, and this notebook does not install torch, numpy or pandas: on Colab choose "
            f"a standard runtime, elsewhere run `pip install {' '.join(absent)}` and restart the kernel"
        )
    missing = [package for package in missing if package.name not in KEPT]
    if not missing:
        return
    names = ", ".join(package.name for package in missing)
    kept = {name: _found(name) for name in KEPT if _found(name)}
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder) / "constraints.txt"
        pins.write_text("".join(f"{name}=={found}\n" for name, found in kept.items()), encoding="utf-8")
        ranges = [f"{package.name}>={package.least},<={package.tested}" for package in missing]
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--constraint", str(pins), *ranges]
        done = subprocess.run(command, capture_output=True, text=True)
    importlib.invalidate_caches()
    if done.returncode:
        shown = ", ".join(f"{name} {found}" for name, found in kept.items())
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr.strip()]
        if re.search(r"ResolutionImpossible|conflict", done.stderr):
            raise EnvironmentProblem(
                f"{names} cannot be installed without other versions of {shown}, which must not change, because all "
                f"other packages were built for them: use a newer runtime, or settings that do without ({errors[0]})"
            )
        reach = refused_certificate(done.stderr) or "connect to the internet and run again"
        raise EnvironmentProblem(
            f"{names} cannot be installed ({errors[0]}): {reach}, or run "
            f"`pip install {' '.join(package.name for package in missing)}` yourself"
        )
    print("installed " + ", ".join(f"{package.name} {_found(package.name)}" for package in missing))


def hardware() -> str:
    """Return a line on the GPU or the CPU that a run would train on."""
    import torch  # here, because `install` reports a missing torch first

    later = "chapter 2 estimates the time of training"
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        return f"GPU: {card.name}, {card.total_memory / 2**30:.0f} GiB; {later}"
    advice = "; for a GPU choose Runtime > Change runtime type" if on_colab() else ""
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' * (threads > 1)}, no GPU; {later} and suggests settings{advice}"


def on_colab() -> bool:
    """Whether this process belongs to a kernel of Google Colab."""
    return "google.colab" in sys.modules


def secret(name: str) -> str:
    """Return a secret from the environment or from Colab, or "" if there is none; never print it.

    kagglehub and huggingface_hub look for their own in the same places.
    """
    if (value := os.environ.get(name, "")) or not on_colab():
        return value
    from google.colab import userdata

    try:
        return userdata.get(name) or ""
    except Exception:  # there is none, access was refused, or the request timed out
        return ""


def _project() -> dict[str, Any]:
    """Return what pyproject.toml says of the project; nothing where the package is installed without its checkout."""
    file = Path(__file__).parents[1] / "pyproject.toml"
    return tomllib.loads(file.read_text(encoding="utf-8"))["project"] if file.is_file() else {}


def _texts(extra: str = "") -> list[str]:
    """Return the dependencies with their ranges, or those of an extra."""
    if project := _project():
        return project["optional-dependencies"][extra] if extra else project["dependencies"]
    return [text for text in requires(NAME) or [] if ("extra ==" in text) == bool(extra) and extra in text]


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
