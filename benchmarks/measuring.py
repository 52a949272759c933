"""How a figure is measured: calls take turns in one process, and each lap gives a ratio to the reference."""

import gc
import importlib.metadata
import os
import platform
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from tqdm import tqdm


class Figure(NamedTuple):
    """What was measured, and how it compares with a reference that was measured in turns with it."""

    part: str
    what: str
    value: float
    unit: str
    reference: str = ""
    ratio: float | None = None
    """Times as fast as the reference, the median over the laps; None: a figure without a reference."""
    least: float | None = None
    most: float | None = None


def in_turns(calls: Mapping[str, Callable[[], object]], laps: int, title: str) -> dict[str, list[float]]:
    """Return the seconds of each call in each lap, in turns (A B A B); a first lap is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for lap in tqdm(range(laps + 1), desc=title, leave=False):
        for name, call in calls.items():
            gc.collect()
            start = time.perf_counter()
            call()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if lap:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def compared(
    part: str, what: str, seconds: Mapping[str, list[float]], *, own: str, reference: str, amount: float, unit: str
) -> Figure:
    """Return `amount` a second by the call `own`, beside its speed relative to the call `reference` in each lap."""
    ratios = [theirs / ours for ours, theirs in zip(seconds[own], seconds[reference], strict=True)]
    rate = amount / median(seconds[own])
    return Figure(part, what, rate, unit, reference, median(ratios), min(ratios), max(ratios))


def memory(field: str) -> float:
    """Return the memory of this process in MiB: VmHWM is its highest, RssAnon what it now holds without mapped files.

    getrusage would count the highest of its parent, too.
    """
    [kibibytes] = re.findall(rf"^{field}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.M)
    return int(kibibytes) / 1024


def machine() -> dict[str, str]:
    """Return what the figures depend on: processor, instructions, threads and versions."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": str(os.cpu_count()),
        "instructions": " ".join([torch.backends.cpu.get_cpu_capability(), *(f for f in flags if "bf16" in f)]),
        "card": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in ("torch", "numpy", "scikit-learn", "pandas")},
    }
