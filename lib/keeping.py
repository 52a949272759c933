"""Copies of a run's files in a folder that outlives the machine, such as one on Google Drive; and back at a new start.

A checkpoint is kept under a name that ends in the hash of its content, and the one before it stays: whatever cuts a
copy short, it is not what its name says, and is never taken. Results keep their names; nothing is resumed from them.
"""

import errno
import hashlib
import re
import shutil
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from lib.environment import on_colab
from lib.files import replacing

GENERATIONS = 2  # of each checkpoint: the newest may be on its way to the cloud when a machine is taken away
DRIVES = ("MyDrive", "Shareddrives")  # what Colab shows below the folder where Google Drive is mounted
HASH = re.compile(r"\.[0-9a-f]{16}")  # another suffix is a reader's own copy
STAYS = ("reconstructions", "wandb")  # made anew; the tracker's own


class KeepingError(ValueError):
    """The folder that is to keep a run's files cannot be used."""


class Cut(OSError):
    """A copy is not what it should be."""


class Keeper:
    """The kept copies of one run. Once it is open, a disk that is full or gone is named on stderr and ends nothing."""

    def __init__(self, keep_in: Path, run: Path) -> None:
        """Open the folder `keep_in`/<the run's name>, mounting Google Drive where it lies there.

        Raises KeepingError if it cannot be written, or is the run's own.
        """
        self.run, self.folder = run, keep_in / run.name
        self._known: dict[Path, tuple[int, int]] = {}  # size and time of what was kept, by file
        self._trouble = ""
        if self.folder.is_relative_to(run) or run.is_relative_to(self.folder):
            raise KeepingError(f"keep_in={str(keep_in)!r} leads to the run's own folder {run}: name another disk's")
        try:
            _mount(keep_in)
            with replacing(self.folder / "run.txt") as file:
                file.write(f"Copies of {run}: to go on from them, run with the same settings and keep_in.\n".encode())
        except Exception as error:  # Colab's mount raises many kinds
            raise KeepingError(
                f"keep_in={str(keep_in)!r} cannot be used ({error}): let Colab mount Google Drive when it asks, name a "
                "folder that can be written, or leave keep_in empty"
            ) from error

    def take(self) -> None:
        """Copy the kept checkpoints that the run's folder lacks back into it, of each the newest that is whole."""
        taken = []
        for rest in self.folder.rglob(".*.tmp"):  # of a copy whose machine was taken away
            with suppress(OSError):
                rest.unlink()
        cut = set()
        for name in sorted({file.stem for file in self._generations("[!.]*.pt")}):  # unet.10.pt before unet.pt
            target, copies = self.run / "checkpoints" / name, self._generations(name)
            if name.partition(".")[0] in cut:  # the copy before may not count on it
                copies = copies[1:] + copies[:1]
            for file in [] if target.exists() else copies:
                try:
                    _copy(file, target, file.suffix[1:])
                except Cut:
                    print(f"{file} had been cut short, and is deleted", file=sys.stderr)
                    file.unlink()
                    cut.add(name.partition(".")[0])
                except OSError as error:
                    print(f"{file} cannot be read ({error.strerror})", file=sys.stderr)
                else:
                    taken.append(name)
                    break
        if taken:
            print(f"taken from {self.folder}: {', '.join(taken)}")

    def keep_checkpoints(self) -> None:
        """Copy the checkpoints that are new, and delete the copies that they supersede."""
        self._keep(self.run.glob("checkpoints/*.pt"), "training goes on, and after the next epoch it is tried again")

    def keep_all(self) -> None:
        """Copy all that is new, and say where it is."""
        files = [file for file in self.run.rglob("*") if file.is_file() and not file.name.startswith(".")]
        files = [file for file in files if file.relative_to(self.run).parts[0] not in STAYS]
        self._keep(files, f"fetch what is in {self.run} before this machine is taken away")
        if not self._trouble:
            wait = "; its upload to Google Drive may take minutes: leave the runtime on"
            print(f"kept in {self.folder}{wait if _on_drive(self.folder) else ''}")

    def _keep(self, files: Iterable[Path], then: str) -> None:
        """Keep each file that has changed since it was kept; say what is in the way, and `then`, once."""
        trouble, without = "", set()
        for file in sorted(files):  # unet.10.pt before unet.pt, which is resumed from and counts on it
            stat, method = file.stat(), (file.parent, file.name.partition(".")[0])
            state = (stat.st_size, stat.st_mtime_ns)
            if self._known.get(file) == state or (file.suffix == ".pt" and method in without):
                continue
            try:
                if not self.folder.is_dir():  # as of an unmounted Drive: its folders must not be made on this disk
                    raise FileNotFoundError(errno.ENOENT, "the folder is gone")
                self._copy_of(file)
            except OSError as error:
                without.add(method)
                trouble = f"{file.name} cannot be kept in {self.folder} ({error.strerror or error}): {then}"
            else:
                self._known[file] = state
        if trouble and trouble != self._trouble:
            print(trouble, file=sys.stderr)
        self._trouble = trouble

    def _copy_of(self, file: Path) -> None:
        """Keep one file; of a checkpoint, under its new name, and the copy before it."""
        kept, digest = self.folder / file.relative_to(self.run), _digest(file)
        if file.parent != self.run / "checkpoints":
            return _copy(file, kept, digest)
        kept = kept.with_name(f"{file.name}.{digest}")
        if not kept.is_file() or _digest(kept) != digest:
            _copy(file, kept, digest)
        for old in [old for old in self._generations(file.name) if old != kept][GENERATIONS - 1 :]:
            old.unlink()

    def _generations(self, name: str) -> list[Path]:
        """Return the kept copies of a checkpoint, newest first."""
        files = [file for file in self.folder.glob(f"checkpoints/{name}.*") if HASH.fullmatch(file.suffix)]
        return sorted(files, key=lambda file: (file.stat().st_mtime_ns, file.name), reverse=True)


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()[:16]


def _copy(source: Path, target: Path, digest: str) -> None:
    """Copy a file under a name that it gets when it is whole; Cut if what is read back has another hash."""
    with replacing(target) as out, source.open("rb") as opened:
        shutil.copyfileobj(opened, out)
        out.flush()
        if _digest(Path(out.name)) != digest:
            raise Cut("the copy differs from what was copied")


def _on_drive(folder: Path) -> bool:
    return on_colab() and any(part in DRIVES for part in folder.parts)


def _mount(folder: Path) -> None:
    """Mount Google Drive where the folder's path says, on Colab."""
    if _on_drive(folder):
        from google.colab import drive

        place = next(parent for parent in folder.parents if folder.relative_to(parent).parts[0] in DRIVES)
        drive.mount(str(place))
