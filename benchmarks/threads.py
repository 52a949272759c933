"""What a training gains with all threads of the machine, and what one with a single thread keeps beside another."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import torch

from benchmarks.measuring import Figure, compared, in_turns
from benchmarks.step import METHODS, SETTINGS, Setting, ours, params_of

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


def gain(name: str, setting: Setting, laps: int) -> Figure:
    """Return the images a second of a method with all threads, beside its speed with one."""
    params, threads = params_of(setting), torch.get_num_threads()
    step = ours(name, params, torch.float32, torch.device("cpu"))

    def steps(count: int) -> None:
        torch.set_num_threads(count)
        step()
        step()

    calls = {"one thread": lambda: steps(1), "all": lambda: steps(threads)}
    sizes = f"{setting.image_size} px, {'-'.join(map(str, setting.widths))}, batch {setting.batch_size}"
    what = f"{name}, {sizes}, {threads} threads"
    seconds, amount = in_turns(calls, laps, what), 2 * setting.batch_size
    torch.set_num_threads(threads)
    return compared("threads", what, seconds, own="all", reference="one thread", amount=amount, unit="images/s")


def figures(quick: bool) -> Iterator[Figure]:
    """Yield the gain of each method and size, then the share that is kept, alone and in pairs by turns."""
    for setting in [SETTINGS[0]] if quick else [SETTINGS[0], SETTINGS[1]]:
        yield from (gain(name, setting, 2 if quick else 3) for name in METHODS)
    seconds, laps = (5, 1) if quick else (6, 3)
    kept = []
    for _ in range(laps):
        (alone,) = steps(1, seconds)
        kept += [alone / one for one in steps(2, seconds)]
    what = "RA, 64 px, one thread, beside another"
    yield Figure("threads", what, 100 * median(kept), "% kept", "alone", median(kept), min(kept), max(kept))
