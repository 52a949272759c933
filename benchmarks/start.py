"""CPU seconds until something happens, relative to a bare `import torch` of the same interpreter.

The help of a command, every module of a room, the first loss on phantoms whose images are prepared already, and
building the notebook.
"""

import os
import resource
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from tqdm import tqdm

from benchmarks.measuring import Figure

ROOT = Path(__file__).parents[1]
EVERY = """
import importlib, pkgutil, {room}
for module in pkgutil.iter_modules({room}.__path__):
    importlib.import_module("{room}." + module.name)
"""
ROOMS = ("lib", "lib.data", "lib.methods", "lib.scores", "lib.evidence", "lib.figures", "lib.runs", "lib.notebook")
FIRST_LOSS = """
import sys
from lib.methods import training
from lib.runs.cli import train_command
step = training.train_step
def first(*arguments):
    print(step(*arguments).keys())
    raise SystemExit
training.train_step = first
sys.exit(train_command(sys.argv[1:]))
"""


def cpu_seconds(arguments: list[str], cache: str) -> float:
    """Return the CPU seconds, of the user and of the system, that a Python process takes with this cache of images."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"IMGAE_DX_CACHE": cache}
    subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def figures(quick: bool) -> Iterator[Figure]:
    """Yield the CPU seconds of each start."""
    bin_folder = Path(sys.executable).parent
    with tempfile.TemporaryDirectory() as temporary:
        train = ["-c", FIRST_LOSS, "params/demo.yaml", "--set", f"run_dir={temporary}/run"]
        calls = {"import torch": ["-c", "import torch"]}
        calls |= {f"every module of {room}": ["-c", EVERY.format(room=room)] for room in ROOMS}
        calls |= {
            f"{name} --help": [str(bin_folder / name), "--help"]
            for name in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
        }
        calls["the first loss on a warm cache"] = train
        calls["build the notebook"] = ["build_notebook.py", "--check"]
        laps = range(2 if quick else 4)
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        for lap in tqdm(laps, desc="starts", leave=False):
            for name, arguments in calls.items():
                taken = cpu_seconds(arguments, f"{temporary}/cache")
                if lap:
                    seconds[name].append(taken)
    for name in list(calls)[1:]:
        ratios = [theirs / ours for ours, theirs in zip(seconds[name], seconds["import torch"], strict=True)]
        figure = Figure("start", name, median(seconds[name]), "CPU s", "import torch")
        yield figure._replace(ratio=median(ratios), least=min(ratios), most=max(ratios))
