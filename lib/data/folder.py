"""Images in files on a disk: those of any table, or those of a folder with class folders or a labels.csv."""

import os
import posixpath
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lib import strict_yaml
from lib.data.classes import CLASSES, names_a_finding, names_a_side, names_no_class
from lib.data.decoding import decode, is_image
from lib.data.labels import plain, read_labels
from lib.data.source import (
    LEFT_OUT,
    NORMAL_WORDS,
    OPTIONAL,
    Problem,
    SourceError,
    boxes_by_image,
    label_problems,
    read_table,
    read_text,
    side_of,
)
from lib.files import hash_of

BOX = ("x", "y", "w", "h")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".dcm", ".dicom")  # others are known by content


def files_below(folder: Path) -> tuple[list[Path], list[tuple[str, str]]]:
    """Return a folder's files in order, and what was not followed: (name, why).

    Links are followed after the folders, and no folder is read twice, so that a link to one that was read, or round in
    a circle, gives no image a second place.

    Raises:
        SourceError: A folder cannot be read.

    """
    files, odd, read, links, todo = [], [], set[str](), deque[Path](), deque([folder])
    while todo or links:
        here = todo.popleft() if todo else links.popleft()
        name = here.relative_to(folder).as_posix()
        real = os.path.realpath(here)
        if real in read or (here != folder and folder.resolve().is_relative_to(real)):
            odd.append((name, "leads to a folder that is read already"))
            continue
        read.add(real)
        try:
            entries = sorted(here.iterdir())
        except OSError as error:
            raise SourceError(f"{here} cannot be read ({error.strerror}): allow this user to read it") from error
        for entry in entries:
            if entry.is_dir():
                (links if entry.is_symlink() else todo).append(entry)
            elif entry.is_file():
                files.append(entry)
            else:
                odd.append((entry.relative_to(folder).as_posix(), "link to nothing, or no file"))
    return sorted(files), odd


class FileSource:
    """Images in files: one row of `records` per image, with its path in the column `file`.

    `boxes` holds the boxes of each marked image, (k, 4) of x, y, width, height in pixels of the file. A row whose file
    is missing is left out and listed among the problems; a path that leads out of the folder `root` is refused.
    `OPTIONAL` columns may be missing.
    """

    synthetic = False

    def __init__(
        self,
        name: str,
        records: pd.DataFrame,
        boxes: dict[str, np.ndarray],
        about: dict[str, str],
        problems: Iterable[Problem] = (),
        *,
        root: Path,
    ) -> None:
        top = os.path.abspath(root)
        paths = records["file"].map(os.path.abspath)  # by the names alone: a link may lead elsewhere
        if (outside := ~paths.map(lambda path: Path(path).is_relative_to(top)).astype(bool)).any():
            name = records["id"][outside].iloc[0]
            raise SourceError(f"the image {name!r} leads out of {root}: give its path from there, without .. or a root")
        exists = records["file"].map(os.path.isfile).astype(bool)  # False also without permission to look
        missing = [Problem(name, "no file for this row", LEFT_OUT) for name in records["id"][~exists]]
        if not exists.any():
            first = f" (the first would be {records['file'].iloc[0]})" if len(exists) else ""
            raise SourceError(f"none of the {len(exists)} images in the table exists{first}: add the files")
        records = records[exists].reset_index(drop=True)
        records = records.assign(**{column: "" for column in OPTIONAL if column not in records})
        self._files = dict(zip(records["id"], records["file"], strict=True))
        self.records, self._boxes, self.about = records.drop(columns="file"), boxes, about
        self.problems = [*problems, *missing, *label_problems(self.records)]
        stats = {image_id: file.stat() for image_id, file in self._files.items()}
        # By inode and time of change, which no program sets: equal names, sizes and mtimes may hide other pixels.
        states = [(k, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for k, s in sorted(stats.items())]
        self.name = f"{name}-{hash_of(repr(states))}"

    def contents(self, ids: Sequence[str]) -> Iterator[tuple[str, Callable[[], bytes]]]:
        """Yield each image's id with a function that reads its file."""
        for image_id in ids:
            yield image_id, self._files[image_id].read_bytes

    def mask(self, image_id: str) -> np.ndarray | None:
        """Return the union of the image's boxes, or None if it has none."""
        if image_id not in self._boxes:
            return None
        mask = np.zeros(decode(self._files[image_id].read_bytes()).pixels.shape, dtype=bool)
        for x, y, w, h in self._boxes[image_id]:
            mask[max(round(y), 0) : max(round(y + h), 0), max(round(x), 0) : max(round(x + w), 0)] = True
        return mask


class FolderSource(FileSource):
    """A folder with `images/` and `labels.csv`, or with one folder per class, perhaps below `train/`, `val/`, `test/`.

    `labels.csv` needs `filename` and `label`; `strict_label`, `finding`, `split`, `patient_id`, `age`, `sex` and `view`
    are optional. `boxes.csv` (`filename`, `x`, `y`, `w`, `h`; pixels, upper left corner) marks lesions. `about.yaml`
    says where the images are from and what their licence is; its `classes` says of folders whether their images are
    normal, abnormal, or to be ignored.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise SourceError(f"data_dir {folder} is not an existing folder: give the path of the folder of images")
        self._problems: list[Problem] = []
        about: dict[str, Any] = {"from": f"folder {folder.name}"}
        about |= dict.fromkeys(("licence", "labels"), "not stated: an about.yaml in the folder can say it")
        about |= _read_about(folder / "about.yaml")
        classes = about.pop("classes", {})
        table = folder / "labels.csv"
        root = folder / "images" if table.is_file() else folder
        records = self._from_table(root, table) if table.is_file() else self._from_class_folders(folder, classes)
        boxes: dict[str, np.ndarray] = {}
        if (file := folder / "boxes.csv").is_file():
            rows = read_table(file, ("filename", *BOX))
            boxes = boxes_by_image(file, rows.assign(filename=rows["filename"].map(plain)), "filename", BOX)
        self._note(sorted(boxes.keys() - set(records["id"])), "boxes of an image without a row", "not used")
        super().__init__("folder", records, boxes, {k: str(v) for k, v in about.items()}, self._problems, root=root)

    def _files_of(self, folder: Path) -> dict[str, Path]:
        """Return the files below a folder by their path from there; what cannot be named is left out."""
        files, odd = files_below(folder) if folder.is_dir() else ([], [])
        self._problems += [Problem(shown(name), why, "not followed") for name, why in odd]
        named = {file.relative_to(folder).as_posix(): file for file in files}
        strange = [name for name in named if shown(name) != name]
        self._note(map(shown, strange), "a file name that is not UTF-8; rename it", LEFT_OUT)
        return {name: file for name, file in named.items() if name not in strange}

    def _from_table(self, images: Path, table: Path) -> pd.DataFrame:
        rows, problems = read_labels(table)
        self._problems += problems
        named = {*rows["id"], *(problem.image for problem in problems)}
        found = {plain(name): file for name, file in self._files_of(images).items()}
        rows["file"] = [found.get(name, images / name) for name in rows["id"]]
        self._note(sorted(found.keys() - named), f"file without a row in {table.name}", "not used")
        return rows

    def _from_class_folders(self, folder: Path, classes: dict[str, str]) -> pd.DataFrame:
        rows, others, met = [], [], set[str]()
        for name, file in self._files_of(folder).items():
            path = Path(name)
            folders = [part for part in path.parts[:-1] if not side_of(part)]
            keys = ["/".join(path.parts[:end]).lower() for end in range(1, len(path.parts))]
            known = {key: classes[key] for key in (*keys, *map(str.lower, folders)) if key in classes}
            met |= known.keys()
            if "ignore" in known.values() or is_hidden(path) or not looks_like_image(file):
                others.append((name, "ignore" in known.values()))
                continue
            if not folders or folders[-1] != path.parts[-2]:
                raise SourceError(f"{file} is not directly in the folder of a class: move it there, or remove it")
            *outer, inner = folders
            kind = "normal" if inner.lower() in NORMAL_WORDS else "abnormal"
            if known:
                key, kind = list(known.items())[-1]  # the innermost that is listed
                inner = next((part for part in folders if part.lower() == posixpath.basename(key)), inner)
            elif kind == "abnormal" and NORMAL_WORDS & {part.lower() for part in outer}:
                raise SourceError(f"{file} is not directly in the folder of a class: move it there, or remove it")
            split = next(filter(None, map(side_of, path.parts[:-1])), "")
            if not split and not known and (unclear := [part for part in folders if names_a_side(part)]):
                raise SourceError(
                    f"{folder} has a folder {unclear[0]!r} that may be a side of an official split: call it train, val "
                    "or test, above the folders of the classes; or give it a name without these words"
                )
            rows.append(
                {
                    "id": name,
                    "label": kind,
                    "finding": "" if kind == "normal" else inner,
                    "split": split,
                    "file": file,
                    "odd": "" if known else next(filter(names_no_class, folders), ""),
                    "new": not known and kind == "abnormal" and not names_a_finding(inner),
                }
            )
        table = pd.DataFrame(rows, columns=["id", "label", "finding", "split", "file", "odd", "new"])
        where = f"{folder / 'about.yaml'} under `classes`"
        if unmet := sorted(classes.keys() - met):
            raise SourceError(f"{where} names {', '.join(unmet)}, where no file is: expected names of folders")
        if odd := sorted(set(table["odd"]) - {""}):
            lines = ", ".join(f"{name}: ignore" for name in odd)
            raise SourceError(
                f"{folder} has folders that do not look like classes: {', '.join(odd)}. Say in {where} what they are: "
                f"normal, abnormal or ignore, for example `classes: {{{lines}}}`; or move them away"
            )
        for name, images in table[table["new"].astype(bool)].groupby("finding")["id"]:
            self._note(images, f"folder {name!r} is taken for a finding by its name alone", "counted as abnormal")
        self._note([name for name, ignored in others if ignored], "ignored by about.yaml", "not used")
        plain = [name for name, ignored in others if not ignored and name != "about.yaml"]
        self._note(plain, "not an image by its name and content", "not used")
        kinds = sorted(set(table["finding"].where(table["label"] == "abnormal", "normal")))
        if {"normal", "abnormal"} - set(table["label"]):
            raise SourceError(
                f"{folder} has {len(rows)} images in folders {kinds}: expected labels.csv, or a folder `normal` and "
                "at least one folder of abnormal images"
            )
        return table.drop(columns=["odd", "new"])

    def _note(self, images: Iterable[str], problem: str, consequence: str) -> None:
        self._problems += [Problem(image, problem, consequence) for image in images]


def _read_about(file: Path) -> dict[str, Any]:
    """Return what about.yaml says, {} without one; its `classes` as kinds by the folder's name in small letters."""
    if not file.is_file():
        return {}
    no_lines = f"{file} is not YAML with lines `name: text`: correct or remove it"
    try:
        read = strict_yaml.load(read_text(file))
    except strict_yaml.Misread as error:
        raise SourceError(f"{file}, line {error.line}: {error}; correct or remove it") from None
    except UnicodeError as error:
        raise SourceError(f"{file} is not in UTF-8: save it as such") from error
    except ValueError as error:
        raise SourceError(no_lines) from error
    if not isinstance(read, dict):
        raise SourceError(f"{file} says nothing: write lines `name: text`, or remove it" if read is None else no_lines)
    about = {str(k): v for k, v in read.items()}
    if isinstance(classes := about.get("classes", {}), dict) and all(kind in CLASSES for kind in classes.values()):
        return about | ({"classes": {str(k).strip("/").lower(): v for k, v in classes.items()}} if classes else {})
    raise SourceError(f"{file} has classes {classes!r}: expected lines `folder: {' | '.join(CLASSES)}`")


def shown(name: str) -> str:
    """Return a file's name as a text; bytes that are not UTF-8 become the replacement character."""
    return os.fsencode(name).decode("utf-8", "replace")


def is_hidden(path: Path) -> bool:
    """Return whether a file, by its path from the folder of images, is hidden, or lists other files."""
    return any(part.startswith(".") for part in path.parts) or path.name.upper() == "DICOMDIR"


def looks_like_image(file: Path) -> bool:
    """Return whether a file is an image by its suffix, or by its first bytes."""
    if file.suffix.lower() in IMAGE_SUFFIXES:
        return True
    try:
        with file.open("rb") as opened:
            return is_image(opened.read(132))
    except OSError:  # it is named when it is decoded
        return True
