"""Copies of a run's files in a folder that outlives the machine, such as one on Google Drive, and their way back.

A checkpoint is kept under a name that ends in the hash of its content, beside the one before it. A copy that was cut
short does not match its name and is never restored. Results keep their names; no run resumes from them.
"""

import errno
import json
import re
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from lib.environment import on_colab
from lib.files import damage, digest, remove_partial, replacing, write_json
from lib.params import Params, project_root
from lib.privacy import public
from lib.refusals import Refusal

GENERATIONS = 2  # of each checkpoint: the newest may still be uploading when the machine is taken away
DRIVES = ("MyDrive", "Shareddrives")  # what Colab shows below the folder where Google Drive is mounted
HASH = re.compile(r"\.[0-9a-f]{16}")  # any other suffix is a reader's own copy
SETTINGS = "params.json"
STAYS = ("reconstructions", "wandb")  # not kept: the first can be computed again, the second is the tracker's


class KeepingError(Refusal):
    """The folder that should keep a run's files cannot be used."""


class Cut(OSError):
    """A copy does not have the content that its name says."""


class Keeper:
    """The kept copies of one run. Once open, a full or missing disk is reported on stderr and stops nothing."""

    def __init__(self, keep_in: Path, run: Path) -> None:
        """Open the folder `keep_in`/<the run's name>, and mount Google Drive if the path leads there.

        Raises KeepingError if the folder cannot be written, or if it is the run's own.
        """
        self.run, self.folder = run, keep_in / run.name
        self._known: dict[Path, tuple[int, int]] = {}  # size and time of each file when it was kept
        self._trouble = ""
        if self.folder.is_relative_to(run) or run.is_relative_to(self.folder):
            raise KeepingError(
                f"keep_in={str(keep_in)!r} leads to the run's own folder {run}: name a folder on another disk"
            )
        try:
            _mount(keep_in)
            with replacing(self.folder / "run.txt") as file:
                text = f"Copies of the run {run.name}: to resume from them, run with the same settings and keep_in.\n"
                file.write(text.encode())
        except Exception as error:  # Colab's mount raises many kinds of errors
            raise KeepingError(
                f"keep_in={str(keep_in)!r} cannot be used ({error}): let Colab mount Google Drive when it asks, name a "
                "folder that can be written, or leave keep_in empty"
            ) from error

    def take(self) -> None:
        """Restore the checkpoints that the run's folder lacks or has damaged, each from its newest whole copy."""
        taken = []
        remove_partial(self.folder)
        cut = set()
        for name in sorted({file.stem for file in self._generations("[!.]*.pt")}):  # unet.10.pt before unet.pt
            target, copies = self.run / "checkpoints" / name, self._generations(name)
            if name.partition(".")[0] in cut:  # the older copy does not rely on the weights that are lost
                copies = copies[1:] + copies[:1]
            whole = target.is_file() and not damage(target.read_bytes())
            for file in [] if whole else copies:
                try:
                    _copy(file, target, file.suffix[1:])
                except Cut:
                    print(f"{file} was cut short and has been deleted", file=sys.stderr)
                    file.unlink()
                    cut.add(name.partition(".")[0])
                except OSError as error:
                    print(f"{file} cannot be read ({error.strerror})", file=sys.stderr)
                else:
                    taken.append(name)
                    break
        if taken:
            print(f"restored from {self.folder}: {', '.join(taken)}")

    def keep_checkpoints(self) -> None:
        """Copy the checkpoints that are new, and delete the copies that they supersede."""
        self._keep(
            self.run.glob("checkpoints/*.pt"), "training continues, and the copy is tried again after each epoch"
        )

    def keep_all(self) -> None:
        """Copy everything that is new, and print where it is."""
        files = [file for file in self.run.rglob("*") if file.is_file() and not file.name.startswith(".")]
        files = [file for file in files if file.relative_to(self.run).parts[0] not in STAYS]
        self._keep(files, f"copy {self.run} yourself before this machine is taken away")
        if not self._trouble:
            wait = "; the upload to Google Drive may take minutes: leave the runtime on"
            print(f"kept in {self.folder}{wait if _on_drive(self.folder) else ''}")

    def _keep(self, files: Iterable[Path], consequence: str) -> None:
        """Keep each file that has changed since it was kept; report a new problem once, with its `consequence`."""
        lost, without, why = [], set(), ""
        for file in sorted(files):  # unet.10.pt before unet.pt: a run that resumes from unet.pt relies on unet.10.pt
            stat, method = file.stat(), (file.parent, file.name.partition(".")[0])
            state = (stat.st_size, stat.st_mtime_ns)
            if self._known.get(file) == state:
                continue
            if file.suffix == ".pt" and method in without:  # it would rely on weights that are not there
                lost.append(file)
                continue
            try:
                if not self.folder.is_dir():  # an unmounted Drive: its folders must not be created on this disk
                    raise FileNotFoundError(errno.ENOENT, "the folder is gone")
                self._copy_of(file)
            except OSError as error:
                without.add(method)
                why = error.strerror or str(error)
                lost.append(file)
            else:
                self._known[file] = state
        lost.sort(key=lambda file: file.parent.name != "checkpoints")  # what cannot be computed again comes first
        names = ", ".join(file.name for file in lost[:4]) + (f" and {len(lost) - 4} more" if len(lost) > 4 else "")
        trouble = f"{names} cannot be kept in {self.folder} ({why}): {consequence}" if lost else ""
        if trouble and trouble != self._trouble:
            print(trouble, file=sys.stderr)
        self._trouble = trouble

    def _copy_of(self, file: Path) -> None:
        """Keep one file; a checkpoint under a new name, beside the copy before it."""
        kept, content = self.folder / file.relative_to(self.run), digest(file)
        if file == self.run / SETTINGS:  # others may see the copy; the run itself needs its paths
            settings = json.loads(file.read_text(encoding="utf-8"))
            return write_json(kept, public(settings, project_root(self.run.parent), Params(**settings).places))
        if file.parent != self.run / "checkpoints":
            return _copy(file, kept, content)
        kept = kept.with_name(f"{file.name}.{content}")
        if not kept.is_file() or digest(kept) != content:
            _copy(file, kept, content)
        for old in [old for old in self._generations(file.name) if old != kept][GENERATIONS - 1 :]:
            old.unlink()

    def _generations(self, name: str) -> list[Path]:
        """Return the kept copies of a checkpoint, newest first."""
        files = [file for file in self.folder.glob(f"checkpoints/{name}.*") if HASH.fullmatch(file.suffix)]
        return sorted(files, key=lambda file: (file.stat().st_mtime_ns, file.name), reverse=True)


def _copy(source: Path, target: Path, content: str) -> None:
    """Copy a file, which gets its name once it is whole; Cut if what is read back has another hash than `content`."""
    with replacing(target) as out, source.open("rb") as opened:
        shutil.copyfileobj(opened, out)
        out.flush()
        if digest(Path(out.name)) != content:
            raise Cut("the copy differs from its source")


def _on_drive(folder: Path) -> bool:
    return on_colab() and any(part in DRIVES for part in folder.parts)


def _mount(folder: Path) -> None:
    """On Colab, mount Google Drive where the folder's path says."""
    if _on_drive(folder):
        from google.colab import drive

        place = next(parent for parent in folder.parents if folder.relative_to(parent).parts[0] in DRIVES)
        drive.mount(str(place))
