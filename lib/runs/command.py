"""What every command line has in common: an error that its user can correct is a message, and not a traceback."""

import errno
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import wraps

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

Main = Callable[[Sequence[str] | None], int]


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
