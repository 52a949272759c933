"""Many runs of one params file through joblib: on this machine, or on a Dask or Ray cluster that shares its disk.

Each run is a process of its own, so that one that fails, or is killed, ends no other. The sweep's folder holds a folder
and a params file for each run, what each has printed, and `sweep.json`: what has become of each, so that a second call
repeats none that is finished and resumes those that are not.
"""

import ctypes
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import yaml
from filelock import FileLock, Timeout
from tqdm import tqdm

from lib.environment import needing, secret
from lib.files import write_json
from lib.methods.training import choose_device
from lib.params import Params
from lib.privacy import VARIABLE, with_secrets
from lib.refusals import Refusal
from lib.runs.archive import StudyError
from lib.runs.command import result
from lib.runs.status import stoppable
from lib.runs.sweep_table import sweep_table, write_table

JOURNAL, TABLE = "sweep.json", "sweep.md"
DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)
REASON = 300  # characters


class SweepError(Refusal):
    """A sweep cannot start."""


class Task(NamedTuple):
    """One run of a sweep."""

    name: str
    params: Params
    file: Path
    """Its params file; what it prints is beside it, in `.log`."""

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.params.run_dir)

    @property
    def digest(self) -> str:
        """What identifies its settings; on how many threads it runs is none of them."""
        return hashlib.sha256(self.params.model_dump_json(exclude={"threads"}).encode()).hexdigest()


class Outcome(NamedTuple):
    """What has become of a run."""

    status: str
    """ok or failed."""
    why: str
    seconds: float


class Engine(NamedTuple):
    """Where runs are executed."""

    backend: str = "loky"
    """loky, dask or ray."""
    address: str = ""
    """Of the cluster; empty: one on this machine."""
    workers: int | None = None
    """Runs at a time; None: on this machine as many as its cores hold, or one if there is a card; on a cluster all."""


def sweep_over(runs: Mapping[str, Params], folder: Path, base: Path, engine: Engine, *, notebook: bool) -> int:
    """Execute these runs, by name, but for those that are finished; return how many have failed.

    Each works in `folder`, under its name; `base` is the project folder. SweepError if another sweep works there, or if
    the engine's package is missing.
    """
    engine, tasks = _tasks(runs, folder, engine)
    with claimed(folder), stoppable():
        journal = _journal(folder)
        due = [task for task in tasks if not finished(task, journal)]
        if len(due) < len(tasks):
            print(f"{len(tasks) - len(due)} of {len(tasks)} runs are finished already", file=sys.stderr)
        for task in due:
            task.file.parent.mkdir(parents=True, exist_ok=True)
            task.file.write_text(yaml.safe_dump(task.params.model_dump(), sort_keys=False), encoding="utf-8")
        with tqdm(total=len(due), desc="sweep", unit="run", leave=False) as progress:
            for task, outcome in _executed(due, base, engine, notebook):
                journal[task.name] = {"settings": task.digest, **outcome._asdict()}
                write_json(folder / JOURNAL, journal)
                progress.write(f"{task.name}: {_line(outcome)}", file=sys.stderr)
                progress.update()
    failed = [task for task in tasks if journal[task.name]["status"] != "ok"]
    for task in failed:
        again = f"imgae-run {task.file}" if notebook else f"imgae-train {task.file} && imgae-evaluate {task.folder}"
        print(
            f"\n{task.name} failed: {journal[task.name]['why']}\n  what it printed: {task.file.with_suffix('.log')}\n"
            f"  to repeat it alone: {again}",
            file=sys.stderr,
        )
    if scored := [task.folder for task in tasks if task not in failed]:
        compare(scored, folder / TABLE)
    result(f"{len(scored)} of {len(tasks)} runs are finished: {folder}")
    return len(failed)


def compare(runs: Sequence[Path], file: Path) -> None:
    """Print one table of all finished runs, and write it with the differences; or say why they do not make one."""
    try:
        table = sweep_table(runs)
    except StudyError as error:  # such as other test images: each run is whole all the same
        print(f"\nno table of all runs: {error}", file=sys.stderr)
        return
    write_table(table, file)
    result("", table.text().to_string(index=False), f"\nwith differences: {file}")


def _tasks(runs: Mapping[str, Params], folder: Path, engine: Engine) -> tuple[Engine, list[Task]]:
    """Return the engine with its number of workers, and each run with its folder and its share of the cores."""
    cores, first = joblib.cpu_count(), next(iter(runs.values()))
    if engine.workers is None and engine.backend == "loky":
        alone = choose_device(first.device).type == "cuda"
        engine = engine._replace(workers=1 if alone else min(len(runs), max(1, cores // max(1, first.threads))))
    share = 1 if engine.workers is None else max(1, cores // engine.workers)
    own = {name: {"run_dir": str(folder / name), "threads": params.threads or share} for name, params in runs.items()}
    return engine, [
        Task(name, params.model_copy(update=own[name]), folder / "params" / f"{name}.yaml")
        for name, params in runs.items()
    ]


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keep other sweeps out of the folder; SweepError if one is at work there."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise SweepError(f"another sweep works in {folder}: wait until it ends, or choose another --to") from None
    try:
        yield
    finally:
        lock.release()


def finished(task: Task, journal: Mapping[str, Any]) -> bool:
    """Whether the run was finished under the same settings, and still has its results."""
    entry = journal.get(task.name, {})
    return (
        entry.get("status") == "ok"
        and entry.get("settings") == task.digest
        and (task.folder / "results.json").is_file()
    )


def _journal(folder: Path) -> dict[str, Any]:
    file = folder / JOURNAL
    try:
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError as error:
        raise SweepError(
            f"{file} is damaged ({error}): remove it; the next call then goes through every run, and trains none again"
        ) from None


def _executed(tasks: Sequence[Task], base: Path, engine: Engine, notebook: bool) -> Iterator[tuple[Task, Outcome]]:
    """Yield each run and what has become of it as soon as it ends, where the engine can say so."""
    if not tasks:
        return
    with _engine(engine):
        options: dict[str, Any] = {"n_jobs": engine.workers or -1, "batch_size": 1, "pre_dispatch": "all"}
        if engine.backend != "ray":  # whose joblib gives all outcomes at the end
            options["return_as"] = "generator_unordered"
        parallel = joblib.Parallel(**options)
        calls = [
            joblib.delayed(execute)(place, engine.backend == "loky", str(task.folder), *_call(task, base, notebook))
            for place, task in enumerate(tasks)
        ]
        for place, outcome in parallel(calls):
            yield tasks[place], Outcome(*outcome)


@contextmanager
def _engine(engine: Engine) -> Iterator[None]:
    started: AbstractContextManager = nullcontext()
    with needing(engine.backend, f"--backend {engine.backend}", SweepError):
        if engine.backend == "dask":
            from distributed import Client

            started = Client(engine.address or None)
        elif engine.backend == "ray":
            import ray
            from ray.util.joblib import register_ray

            register_ray()
            started = ray.init(engine.address or None)
    with started, joblib.parallel_config(engine.backend):
        yield


def _call(task: Task, base: Path, notebook: bool) -> tuple[list[list[str]], str, str, dict[str, str]]:
    """Return the commands of a run, the file that takes what they print, their folder, and their own environment."""
    python = [sys.executable, "-m", "lib.runs.cli"]
    steps = [["run", str(task.file)]] if notebook else [["train", str(task.file)], ["evaluate", str(task.folder)]]
    own = {"IMGAE_DX_ROOT": str(base)}
    if address := with_secrets(task.params.data_dir, secret(VARIABLE)):
        own[VARIABLE] = address
    if threads := task.params.threads:
        own["OMP_NUM_THREADS"] = str(threads)
    return [[*python, *step] for step in steps], str(task.file.with_suffix(".log")), str(base), own


def execute(
    place: int,
    own_worker: bool,
    run: str,
    commands: Sequence[Sequence[str]],
    log: str,
    folder: str,
    own: Mapping[str, str],
) -> tuple[int, tuple[str, str, float]]:
    """Execute a run's commands one after another, in a worker; return its place in the sweep and its outcome.

    The sweep's `own_worker` ends with it. `own` is what is added to the environment.
    """
    start = time.time()
    if own_worker:
        _die_with_parent()
    with open(log, "ab") as printed:
        for command in commands:
            printed.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(command)}\n".encode())
            printed.flush()
            before = printed.tell()
            process = subprocess.Popen(
                command, cwd=folder, env=os.environ | own, stdout=printed, stderr=printed, preexec_fn=_die_with_parent
            )
            try:
                code = process.wait()
            except BaseException:  # the worker is told to stop, and its run with it
                process.terminate()
                process.wait()
                raise
            if code:
                why = _written_reason(Path(run), start) or _last_words(Path(log), before)
                if code < 0:
                    why = f"killed by {signal.Signals(-code).name}"
                return place, ("failed", why[:REASON], time.time() - start)
    return place, ("ok", "", time.time() - start)


def _die_with_parent() -> None:
    """Let Linux kill this process with the one that started it, so that the next sweep finds no folder in use."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)


def _written_reason(run: Path, start: float) -> str:
    """Return why the run has failed, if its status says so and was written since `start`, in seconds since 1970."""
    file = run / "status.json"
    try:
        return json.loads(file.read_text(encoding="utf-8"))["why"] if file.stat().st_mtime >= start else ""
    except (OSError, ValueError, KeyError):
        return ""


def _last_words(log: Path, start: int) -> str:
    """Return the last line that was printed after this many bytes."""
    with log.open("rb") as file:
        file.seek(start)
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it printed nothing"


def _line(outcome: Outcome) -> str:
    minutes, seconds = divmod(round(outcome.seconds), 60)
    took = f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    return f"{outcome.status}, {took}" + (f", {outcome.why}" if outcome.why else "")
