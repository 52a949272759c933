"""Where a command finds a model and leaves its files, before any library is loaded: a mistyped path is told at once."""

import os
from pathlib import Path

from lib.refusals import Refusal

WEIGHTS, FACTS, CARD = "model.safetensors", "model.json", "README.md"
"""The files of a model that was handed on."""
GRAPHS = "reconstruct-*.onnx"
"""Its ONNX files, one a method."""
SETTINGS = "params.json"
"""The file by which the folder of a run is known."""
HUB = "hf://"
MOST = 5  # folders that a refusal names


class PlaceError(Refusal):
    """A path does not lead to what a command wants there."""


def check_model(place: str) -> None:
    """Raise PlaceError for a place that is no folder of a run or of a model; one on the hub is not looked up."""
    if not place.startswith(HUB):
        _check(place, "model", "of a scored run, or one that imgae-export has written", FACTS, SETTINGS)


def check_run(place: Path) -> None:
    """Raise PlaceError for a place that is no run's folder."""
    _check(str(place), "run", "of an evaluated run", SETTINGS)


def check_folder(folder: Path) -> None:
    """Raise PlaceError for a folder that cannot be written, or made where there is none."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise PlaceError(f"{there} is a file, and a folder was wanted there: choose another place with --to")
    if not os.access(there, os.W_OK | os.X_OK):
        raise PlaceError(f"{there} cannot be written: make it writable, or choose another place with --to")


def check_export(folder: Path) -> None:
    """Raise PlaceError for a folder that holds anything but an older export, or cannot be written."""
    check_folder(folder)
    found = {*folder.iterdir()} - {*folder.glob(GRAPHS)} if folder.is_dir() else set()
    if others := sorted({file.name for file in found} - {WEIGHTS, FACTS, CARD}):
        raise PlaceError(f"{folder} holds other files ({', '.join(others[:3])}): choose a new folder")


def _check(place: str, kind: str, wanted: str, *known: str) -> None:
    """Refuse a folder without any of the files by which its `kind` is known, and name such folders in or beside it."""
    folder = Path(place).expanduser()
    if not _holds(folder, known):
        there, is_folder = folder.exists(), folder.is_dir()
        found = f"has no {' and no '.join(known)}" if is_folder else "is a file" if there else "does not exist"
        near = folder if is_folder else folder.parent
        others = [str(one) for one in sorted(near.iterdir()) if _holds(one, known)] if near.is_dir() else []
        such = f", such as {', '.join(others[:MOST])}" if others else ""
        raise PlaceError(f"{place} is no {kind}: it {found}; give the folder {wanted}{such}")


def _holds(folder: Path, names: tuple[str, ...]) -> bool:
    return any((folder / name).is_file() for name in names)
