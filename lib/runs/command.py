"""What every command line has in common.

`--version` and `--quiet`, and that an error which its user can correct is a message, and not a traceback.
"""

import argparse
import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import wraps
from typing import Any, TextIO, cast

from lib.privacy import Masked
from lib.refusals import Refusal

DISK = {
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "make room within your quota",
    errno.EFBIG: "raise the limit on the size of files",
    errno.EROFS: "make it writable, or choose another place",
    errno.EACCES: "make it accessible, or choose another place",
    errno.EISDIR: "a file was wanted there: remove the folder, or choose another place",
    errno.ENOTDIR: "a folder was wanted there: remove the file, or choose another place",
    errno.EEXIST: "a folder was wanted there: remove the file, or choose another place",
}
"""Errors of the disk that a user can mend, and how."""

QUIET = {"TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "WANDB_SILENT": "true"}
"""The environment in which libraries, also those of a notebook's kernel, draw no progress bars; some read it once."""

Main = Callable[[Sequence[str] | None], int]


class Parser(argparse.ArgumentParser):
    """A parser that knows --version and, of a command that takes long, --quiet."""

    def __init__(self, prog: str, *, long: bool = False, **options: Any) -> None:
        super().__init__(prog, **options)
        self.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
        if long:
            words = "print warnings, errors and the result alone, without progress bars"
            self.add_argument("--quiet", action=_Quiet, nargs=0, help=words)


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from lib.environment import NAME, own_version, revision  # here: help should start at once

        commit = revision()
        print(f"{parser.prog} of {NAME} {own_version()}{commit and f', revision {commit}'}")
        parser.exit()


class _Quiet(argparse.Action):
    def __call__(self, *_: object) -> None:
        os.environ |= QUIET
        if not isinstance(sys.stdout, Hushed):
            sys.stdout = cast(TextIO, Hushed(sys.stdout))


class Hushed:
    """A text stream that drops what is written to it; only `result` still writes to the stream below."""

    def __init__(self, stream: TextIO) -> None:
        self.below = stream

    def write(self, text: str) -> int:
        """Drop the text; return its length."""
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.below, name)


def result(*lines: object) -> None:
    """Print what a command was called for, one object a line, also under --quiet."""
    print(*lines, sep="\n", file=sys.stdout.below if isinstance(sys.stdout, Hushed) else sys.stdout)


def command(function: Main) -> Callable[..., int]:
    """Return a command that prints an error which its user can correct as a message, without a traceback.

    It takes the words of the command line, by default those of this process, and returns the exit status. Whatever is
    printed, also by libraries, is without the secrets of an address.
    """

    @wraps(function)
    def masking(arguments: Sequence[str] | None = None) -> int:
        with redirect_stdout(Masked(sys.stdout)), redirect_stderr(Masked(sys.stderr)):
            return explained(arguments)

    def explained(arguments: Sequence[str] | None) -> int:
        try:
            return function(arguments)
        except Refusal as error:
            print(error, file=sys.stderr)
            return 2
        except OSError as error:
            if error.errno not in DISK:
                traceback.print_exc()
                return 1
            place = f"{error.filename}: " if error.filename else ""
            print(f"{place}{error.strerror}: {DISK[error.errno]}; then start the same command again", file=sys.stderr)
            return 2
        except KeyboardInterrupt as stop:
            from lib.runs.status import reason  # here: help should start at once

            print(f"{reason(stop)}: the same command goes on from what is finished", file=sys.stderr)
            return 128 + signal.Signals[str(stop) or "SIGINT"]
        except Exception:
            traceback.print_exc()
            return 1

    return masking
