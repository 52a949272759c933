"""The sources of a run: phantoms, a folder, Kaggle, shards; each gives a table of records and the images' bytes.

The table has one row per image: `id`, `label` ("normal", "abnormal", or another word that the evaluation counts
separately), `finding` (several joined by "|"), `split` ("train", "val", "test", or "" if the data has no official one),
`patient`, `age`, `sex` and `view` ("" if unknown), and in some data `strict_label`, a second and better reading. What a
DICOM header says of the last four is filled in when the images are read.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from lib.data import anatomy, phantom
from lib.data.decoding import decode
from lib.data.kaggle import fetch
from lib.data.phantom import FINDINGS, Radiograph, radiograph, subject
from lib.data.registry import REGISTRY
from lib.data.source import (
    LEFT_OUT,
    NORMAL_WORDS,
    OPTIONAL,
    SPLIT_WORDS,
    Problem,
    Source,
    SourceError,
    boxes_by_image,
    label_problems,
    read_table,
)
from lib.data.stream import StreamSource
from lib.files import hash_of
from lib.params import Params

BOX = ("x", "y", "w", "h")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".dcm", ".dicom")


class PhantomSource:
    """Synthetic radiographs: a quarter are abnormal, all findings equally often. A smoke test, not evidence."""

    synthetic = True

    def __init__(self, count: int, size: int, seed: int = 0) -> None:
        # Every file that draws is part of the name, so that other formulas never read a cache of these images.
        formulas = b"".join(Path(str(module.__file__)).read_bytes() for module in (anatomy, phantom))
        self.name = f"phantom-{hash_of(formulas)[:8]}-{count}-{size}-{seed}"
        self.about = {
            "from": f"drawn by formulas (lib/data/phantom.py), seed {seed}",
            "licence": "that of this project",
            "labels": "exact: the finding is drawn, or it is not",
        }
        self.problems: list[Problem] = []
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
                **{key: [person[key] for person in subjects] for key in ("age", "sex", "view")},
            }
        )
        self._arguments = dict(zip(self.records["id"], zip(patients, range(count), findings, strict=True), strict=True))

    def image(self, image_id: str) -> Radiograph:
        """Draw one image at the run's image size."""
        patient, exposure, finding = self._arguments[image_id]
        return radiograph(patient, exposure, finding=finding, size=self._size, seed=self._seed)

    def contents(self, ids: Sequence[str]) -> Iterator[tuple[str, Callable[[], bytes]]]:
        """Yield each image's id with a function that draws it as an 8-bit PGM file."""
        header = f"P5 {self._size} {self._size} 255\n".encode()

        def draw(image_id: str) -> bytes:
            return header + np.round(self.image(image_id).image * 255).astype(np.uint8).tobytes()

        for image_id in ids:
            yield image_id, partial(draw, image_id)

    def mask(self, image_id: str) -> np.ndarray | None:
        """Return the exact lesion, or None for a normal image."""
        return self.image(image_id).mask if self._arguments[image_id][2] else None


class FileSource:
    """Images in files: one row of `records` per image, with its path in the column `file`.

    `boxes` holds the boxes of each marked image, (k, 4) of x, y, width, height in pixels of the file. A row whose file
    is missing is left out and listed among the problems. `OPTIONAL` columns may be missing.
    """

    synthetic = False

    def __init__(
        self,
        name: str,
        records: pd.DataFrame,
        boxes: dict[str, np.ndarray],
        about: dict[str, str],
        problems: Iterable[Problem] = (),
    ) -> None:
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
        listing = "\n".join(sorted(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats.items()))
        self.name = f"{name}-{hash_of(listing)}"

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
    says where the images are from and what their licence is.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise SourceError(f"data_dir {folder} is not an existing folder: give the path of the folder of images")
        self._problems: list[Problem] = []
        table = folder / "labels.csv"
        records = self._from_table(folder, table) if table.is_file() else self._from_class_folders(folder)
        about = {"from": f"folder {folder.name}"}
        about |= dict.fromkeys(("licence", "labels"), "not stated: an about.yaml in the folder can say it")
        if (file := folder / "about.yaml").is_file():
            try:
                about |= {str(k): str(v) for k, v in yaml.safe_load(file.read_text(encoding="utf-8")).items()}
            except (AttributeError, ValueError, yaml.YAMLError) as error:
                raise SourceError(f"{file} is not YAML with lines `name: text`: correct or remove it") from error
        boxes: dict[str, np.ndarray] = {}
        if (file := folder / "boxes.csv").is_file():
            boxes = boxes_by_image(file, read_table(file, ("filename", *BOX)), "filename", BOX)
        self._note(sorted(boxes.keys() - set(records["id"])), "boxes of an image without a row", "not used")
        super().__init__("folder", records, boxes, about, self._problems)

    def _from_table(self, folder: Path, table: Path) -> pd.DataFrame:
        rows = read_table(table, ("filename", "label"))
        ours = {"filename": "id", "label": "label", "strict_label": "strict_label", "patient_id": "patient"}
        ours |= {column: column for column in OPTIONAL if column != "patient"}
        rows = rows[[name for name in ours if name in rows]].rename(columns=ours)
        repeated = rows.drop_duplicates()["id"].duplicated(keep=False).reindex(rows.index, fill_value=False)
        contradicted = rows["id"].isin(rows["id"][repeated])
        self._note(rows["id"][contradicted].unique(), f"rows of {table.name} contradict each other", LEFT_OUT)
        self._note(rows["id"][~contradicted & rows.duplicated()].unique(), f"row twice in {table.name}", "used once")
        images, named = folder / "images", set(rows["id"])
        rows = rows[~contradicted].drop_duplicates(ignore_index=True)
        rows["file"] = [images / name for name in rows["id"]]
        found = {file.relative_to(images).as_posix() for file in images.rglob("*") if file.is_file()}
        self._note(sorted(found - named), f"file without a row in {table.name}", "not used")
        return rows

    def _from_class_folders(self, folder: Path) -> pd.DataFrame:
        rows, others = [], []
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            path = file.relative_to(folder)
            if path.suffix.lower() not in IMAGE_SUFFIXES or any(part.startswith(".") for part in path.parts):
                others.append(path)
                continue
            *above, name = ["", *path.parts[:-1]]
            split = next((SPLIT_WORDS[part.lower()] for part in above if part.lower() in SPLIT_WORDS), "")
            if not name or name.lower() in SPLIT_WORDS or NORMAL_WORDS & {part.lower() for part in above}:
                raise SourceError(f"{file} is not directly in the folder of a class: move it there, or remove it")
            normal = name.lower() in NORMAL_WORDS
            rows.append(
                {
                    "id": path.as_posix(),
                    "label": "normal" if normal else "abnormal",
                    "finding": "" if normal else name,
                    "split": split,
                    "file": file,
                }
            )
        named = [path.as_posix() for path in others if path.name != "about.yaml"]
        self._note(named, "not an image by its name", "not used")
        classes = sorted({row["finding"] or "normal" for row in rows})
        if "normal" not in classes or len(classes) < 2:
            raise SourceError(
                f"{folder} has {len(rows)} images in folders {classes}: expected labels.csv, or a folder `normal` and "
                "at least one folder of abnormal images"
            )
        return pd.DataFrame(rows)

    def _note(self, images: Iterable[str], problem: str, consequence: str) -> None:
        self._problems += [Problem(image, problem, consequence) for image in images]


def open_source(params: Params, base: Path) -> Source:
    """Open the source that the settings name; a relative `data_dir` lies under `base`.

    Raises:
        SourceError: It does not exist or cannot be used; the message says what to do.

    """
    params = params.with_paths_under(base)
    if params.source == "phantom":
        source: Source = PhantomSource(params.phantom_images, params.image_size, params.seed)
    elif params.source == "stream":
        source = StreamSource(params.data_dir)
    elif params.source == "folder":
        source = FolderSource(Path(params.data_dir))
    else:
        entry = REGISTRY[params.source]
        root = Path(params.data_dir) if params.data_dir else fetch(entry.handle)
        records = entry.records(root)
        counts = records["label"].value_counts()
        wrong_counts = [
            Problem(params.source, f"unexpected number of images: {counts.get(word, 0):,} {word}, not {n:,}", "used")
            for word, n in entry.expected.items()
            if counts.get(word, 0) != n
        ]
        source = FileSource(params.source, records, entry.boxes(root), entry.about(), wrong_counts)
    if params.label_column not in source.records:
        raise SourceError("labels='strict', but the images have one reading only: write labels: given")
    return source
