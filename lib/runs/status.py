"""`status.json`, and the lock of the one process that works in a run's folder: it alone decides what the status says.

The status is running, ok or failed. A process that ends without a word, killed or without power, cannot write it, but
its lock ends with it: a run that says running, and whose lock nobody holds, is read as cut.
"""

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from weakref import WeakMethod

from filelock import FileLock, Timeout

from lib.files import remove_partial, write_json
from lib.params import project_root
from lib.privacy import masked, public
from lib.refusals import Refusal

RUNNER = "IMGAE_DX_RUN"
"""The environment variable in which `imgae-run` tells its kernel the folder that both work in, under one lock."""


class RunError(Refusal):
    """A run folder is not what it should be."""


class Status:
    """The status of one run's folder."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._file = folder, folder / "status.json"
        self._lock_file = folder / ".lock"
        self._lock = FileLock(self._lock_file, thread_local=False, is_singleton=True)  # one for a process and folder
        self.claimed = False

    def claim(self) -> None:
        """Create the folder and lock it until `release`, the end of this object, or the end of the process.

        What a killed process left half written is removed. RunError if another process holds the lock, or if the folder
        cannot be used. The kernel of `imgae-run` claims nothing: it works under the runner's lock.
        """
        if self.claimed or os.environ.get(RUNNER) == str(self._folder):
            return
        held = self._lock.is_locked
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=1)  # a reader that asks whether it is held holds it for a moment
        except Timeout:
            raise RunError(
                f"another process works in {self._folder}: wait until it ends, end it, or choose another run_dir"
            ) from None
        except OSError as error:
            raise RunError(
                f"{self._folder} cannot be a run's folder ({error.strerror or error}): "
                "choose a run_dir that can be written"
            ) from None
        self.claimed = True
        if not held:
            remove_partial(self._folder)
            if self._said() == "running":
                print(f"{self._folder} was cut: its process ended without a word; what it finished is used")

    def release(self) -> None:
        """Let other processes work in the folder."""
        if self.claimed:
            self.claimed = False
            self._lock.release()

    def mark(self, status: str, why: str = "") -> None:
        """Write the status, and why, if this process holds the lock; if not, its owner will."""
        if self.claimed:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            why = public(why, project_root(self._folder.parent))
            write_json(self._file, {"status": status, "why": why, "at": now})

    def read(self) -> str:
        """Return running, ok, failed or cut; "unknown" if the file is missing or damaged."""
        return "cut" if (status := self._said()) == "running" and not self._held() else status

    def _said(self) -> str:
        try:
            return str(json.loads(self._file.read_text(encoding="utf-8"))["status"])
        except (OSError, ValueError, KeyError, TypeError):
            return "unknown"

    def _held(self) -> bool:
        if self._lock.is_locked or not self._lock_file.exists():
            return self._lock.is_locked
        try:
            with self._lock.acquire(timeout=0):
                return False
        except (Timeout, OSError):  # an OSError: the lock is another user's, so the file is believed
            return True


def reason(error: BaseException) -> str:
    """Return why a run has failed, for its status."""
    if isinstance(error, KeyboardInterrupt):
        return f"stopped by {error if str(error) else 'SIGINT'}"
    return f"{type(error).__name__}: {masked(str(error))[-2000:]}"  # the end, of which no address is cut


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP interrupt the work as SIGINT, Ctrl-C, does: by a KeyboardInterrupt with their name."""

    def stop(number: int, _: object) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP
                before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def after_each_cell(failed: Callable[[BaseException], None]) -> None:
    """In a notebook, call a run's method with the error of each cell that fails, as long as the run exists.

    Errors are shown without the secrets of an address from then on.
    """
    ipython = sys.modules.get("IPython")
    if not ipython or not (shell := ipython.get_ipython()):
        return
    if (show := shell._showtraceback).__name__ != "show_masked":

        def show_masked(kind: type, error: BaseException, lines: list[str]) -> None:
            show(kind, error, [masked(line) for line in lines])

        shell._showtraceback = show_masked
    method = WeakMethod(failed)

    def tell(result: object) -> None:
        error = getattr(result, "error_in_exec", None) or getattr(result, "error_before_exec", None)
        if error and (call := method()):
            call(error)

    shell.events.register("post_run_cell", tell)
