"""The share of its speed that a training with one thread keeps when a second one runs beside it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks.measuring import Figure

ROOT = Path(__file__).parents[1]
WORK = """
import json, sys, time
import torch
torch.set_num_threads(1)
from benchmarks.step import SETTINGS, ours, params_of
step = ours("ra", params_of(SETTINGS[0]), torch.float32, torch.device("cpu"))
step()
print("ready", flush=True)
sys.stdin.readline()
ends = time.perf_counter() + float(sys.argv[1])
steps = []
while (start := time.perf_counter()) < ends:
    step()
    steps.append(time.perf_counter() - start)
print(json.dumps(steps), flush=True)
"""


def steps(processes: int, seconds: float) -> list[float]:
    """Return the median seconds of a step of each of some processes that run at the same time."""
    command = [sys.executable, "-c", WORK, str(seconds)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    started = [subprocess.Popen(command, **pipes) for _ in range(processes)]
    for one in started:
        one.stdout.readline()
    for one in started:
        one.stdin.write("go\n")
        one.stdin.flush()
    return [median(json.loads(one.communicate()[0])) for one in started]


def figures(quick: bool) -> Iterator[Figure]:
    """Yield the share, alone and in pairs by turns."""
    seconds, laps = (5, 1) if quick else (20, 3)
    kept = []
    for _ in range(laps):
        (alone,) = steps(1, seconds)
        kept += [alone / one for one in steps(2, seconds)]
    what = "RA, 64 px, one thread, beside another"
    yield Figure("side by side", what, 100 * median(kept), "% kept", "alone", median(kept), min(kept), max(kept))
