"""Where images come from. Each source gives a table of records and reads one image, or one lesion mask, at a time.

A record is one row an image: `id`, `label` ("normal", "abnormal", or another word that the evaluation counts apart),
perhaps `strict_label`, `finding` (several joined by "|"), `split` ("train", "val", "test", or "" where the data has no
official one), `patient` ("" if unknown), `age`, `sex`, `view`, and `digest`, equal for exact duplicates.
"""

import hashlib
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
from PIL import Image

import lib.phantom
from lib.params import Params
from lib.phantom import FINDINGS, Radiograph, radiograph, subject

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
OPTIONAL_COLUMNS = ("finding", "split", "patient", "age", "sex", "view")
NORMAL_FOLDERS = {"normal", "no finding", "no_finding"}
SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


class SourceError(ValueError):
    """The images or their table are not as a source needs them."""


class Source(Protocol):
    """What the data set needs from a source."""

    name: str
    """Names what `read` returns, for the cache: equal names mean equal images."""
    synthetic: bool
    records: pd.DataFrame

    def read(self, image_id: str) -> np.ndarray:
        """Return the grey image, (height, width), on any scale; white is dense."""

    def mask(self, image_id: str) -> np.ndarray | None:
        """Return the lesion, (height, width) bool, or None where none is marked."""


def open_source(params: Params, base: Path) -> Source:
    """Open the source that the settings name; a relative `data_dir` lies under `base`."""
    if params.source == "phantom":
        source = PhantomSource(params.phantom_images, params.image_size, params.seed)
    else:
        source = FolderSource((base / params.data_dir).resolve())
    if params.labels not in source.records:
        raise SourceError(f"labels={params.labels!r}, but the images have no such column; write labels: label")
    return source


class PhantomSource:
    """Synthetic radiographs; a quarter abnormal, each finding as often. A smoke test, not evidence."""

    synthetic = True

    def __init__(self, count: int, size: int, seed: int = 0) -> None:
        recipe = hashlib.sha256(Path(lib.phantom.__file__).read_bytes()).hexdigest()[:8]  # other formulas, other films
        self.name = f"phantom-{recipe}-{count}-{size}-{seed}"
        self._size, self._seed = size, seed
        abnormal = np.arange(count) % 4 == 3
        findings = [FINDINGS[i // 4 % len(FINDINGS)] if odd else "" for i, odd in enumerate(abnormal)]
        patients = [i // 4 * 2 + (i % 4 == 2) if i % 4 < 3 else count + i for i in range(count)]  # two images, then one
        subjects = [subject(patient, i, seed=seed) for i, patient in enumerate(patients)]
        self.records = pd.DataFrame(
            {
                "id": [f"phantom-{i:06d}" for i in range(count)],
                "label": np.where(abnormal, "abnormal", "normal"),
                "finding": findings,
                "split": "",
                "patient": [f"phantom-patient-{p:06d}" for p in patients],
                **{key: [one[key] for one in subjects] for key in ("age", "sex", "view")},
                "digest": [f"{self.name}-{i}" for i in range(count)],
            }
        )
        self._arguments = {
            row: (p, i, f) for i, (row, p, f) in enumerate(zip(self.records["id"], patients, findings, strict=True))
        }

    def _film(self, image_id: str) -> Radiograph:
        patient, exposure, finding = self._arguments[image_id]
        return radiograph(patient, exposure, finding=finding, size=self._size, seed=self._seed)

    def read(self, image_id: str) -> np.ndarray:
        """Return the phantom at the run's image size."""
        return np.round(self._film(image_id).image * 255).astype(np.uint8)

    def mask(self, image_id: str) -> np.ndarray | None:
        """Return the exact lesion, or None in a normal image."""
        return self._film(image_id).mask if self._arguments[image_id][2] else None


class FolderSource:
    """A folder with `images/` and `labels.csv`, or with one folder a class, perhaps below `train/`, `val/`, `test/`.

    `labels.csv` needs `filename` and `label`; `strict_label`, `finding`, `split`, `patient_id`, `age`, `sex` and `view`
    are read where they are. `boxes.csv` (`filename`, `x`, `y`, `w`, `h`; pixels, upper left corner) marks lesions.
    """

    synthetic = False

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise SourceError(f"data_dir {folder} is not a folder that is there: give the path of the images' folder")
        self.folder = folder
        table = folder / "labels.csv"
        records = self._from_table(table) if table.is_file() else self._from_class_folders()
        self._files = dict(zip(records["id"], records.pop("file"), strict=True))
        missing = [name for name, file in self._files.items() if not file.is_file()]
        if missing:
            raise SourceError(
                f"{len(missing)} of {len(records)} images that {table} names are not in {folder / 'images'}, "
                f"first {missing[0]}: bring the files, or take their rows out"
            )
        records["digest"] = [hashlib.sha256(file.read_bytes()).hexdigest() for file in self._files.values()]
        self.records = records
        content = "\n".join(
            sorted(f"{name} {digest}" for name, digest in zip(records["id"], records["digest"], strict=True))
        )
        self.name = f"folder-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
        self._boxes = self._read_boxes(folder / "boxes.csv")

    def _read_boxes(self, file: Path) -> dict[str, np.ndarray]:
        """Return each marked image's boxes, (boxes, 4) of x, y, w, h in pixels."""
        if not file.is_file():
            return {}
        sides = ["x", "y", "w", "h"]
        table = _read_csv(file, ("filename", *sides))
        numbers = table[sides].apply(pd.to_numeric, errors="coerce")
        if (bad := numbers.isna().any(axis=1)).any():
            row = int(bad.idxmax())
            raise SourceError(f"{file}, row {row + 2}: {table.loc[row].to_dict()}; wanted numbers for x, y, w and h")
        return {name: rows.to_numpy() for name, rows in numbers.groupby(table["filename"])}

    def _from_table(self, table: Path) -> pd.DataFrame:
        rows = _read_csv(table, ("filename", "label"))
        if repeated := rows["filename"][rows["filename"].duplicated()].tolist():
            raise SourceError(f"{table} names {repeated[0]} twice ({len(repeated)} such rows): one row an image")
        ours = {"filename": "id", "label": "label", "strict_label": "strict_label"}
        ours |= {"patient_id" if column == "patient" else column: column for column in OPTIONAL_COLUMNS}
        rows = rows[[name for name in ours if name in rows]].rename(columns=ours)
        for column in OPTIONAL_COLUMNS:
            if column not in rows:
                rows[column] = ""
        rows["file"] = [self.folder / "images" / name for name in rows["id"]]
        return rows

    def _from_class_folders(self) -> pd.DataFrame:
        files = sorted(
            file
            for file in self.folder.rglob("*")
            if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")
        )
        rows = []
        for file in files:
            *above, name = ["", *file.relative_to(self.folder).parts[:-1]]
            split = next((SPLIT_FOLDERS[part.lower()] for part in above if part.lower() in SPLIT_FOLDERS), "")
            if not name or name.lower() in SPLIT_FOLDERS or NORMAL_FOLDERS & {part.lower() for part in above}:
                raise SourceError(f"{file} is not directly in the folder of a class: move it there, or take it out")
            normal = name.lower() in NORMAL_FOLDERS
            rows.append(
                {
                    "id": str(file.relative_to(self.folder)),
                    "label": "normal" if normal else "abnormal",
                    "finding": "" if normal else name,
                    "split": split,
                    "file": file,
                }
            )
        classes = sorted({row["finding"] or "normal" for row in rows})
        if "normal" not in classes or len(classes) < 2:
            raise SourceError(
                f"{self.folder} has neither labels.csv nor a folder `normal` beside one or more of abnormal images; "
                f"found {len(files)} images in folders {classes}"
            )
        return pd.DataFrame(rows).assign(**dict.fromkeys(("patient", "age", "sex", "view"), ""))

    def read(self, image_id: str) -> np.ndarray:
        """Return the decoded file, grey."""
        file = self._files[image_id]
        try:
            with Image.open(file) as image:
                deep = image.mode[0] in "IF"  # 16 bits or fractions, which `convert` would clip
                return np.asarray(image) if deep else np.asarray(image.convert("L"))
        except (OSError, SyntaxError, ValueError) as error:
            raise SourceError(
                f"{file} ({file.stat().st_size} bytes) cannot be read as an image: {str(error).splitlines()[0]}. "
                "Replace the file, or take it out of the data"
            ) from error

    def mask(self, image_id: str) -> np.ndarray | None:
        """Return the union of the image's boxes, or None where it has none."""
        if image_id not in self._boxes:
            return None
        mask = np.zeros(self.read(image_id).shape, dtype=bool)
        for x, y, w, h in self._boxes[image_id]:
            mask[max(round(y), 0) : max(round(y + h), 0), max(round(x), 0) : max(round(x + w), 0)] = True
        return mask


def _read_csv(file: Path, wanted: tuple[str, ...]) -> pd.DataFrame:
    """Read a table as text, empty where nothing is given."""
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
    except ValueError as error:  # pandas' own are of this kind
        raise SourceError(f"{file} cannot be read as a table: {error}") from error
    if absent := [column for column in wanted if column not in table]:
        raise SourceError(f"{file} has no column {', '.join(absent)}; found {', '.join(table.columns)}")
    return table
