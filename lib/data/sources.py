"""The sources of a run: phantoms, a folder, Kaggle, shards; each gives a table of records and the images' bytes.

The table has one row per image: `id`, `label` ("normal", "abnormal", or another word that the evaluation counts
separately), `finding` (several joined by "|"), `split` ("train", "val", "test", or "" if the data has no official one),
`patient`, `age`, `sex` and `view` ("" if unknown), and in some data `strict_label`, a second and better reading. What a
DICOM header says of the last four is filled in when the images are read.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from lib.data import anatomy, phantom
from lib.data.folder import FileSource, FolderSource
from lib.data.phantom import FINDINGS, Radiograph, radiograph, subject
from lib.data.registry import REGISTRY
from lib.data.source import Problem, Source, SourceError
from lib.data.stream import StreamSource
from lib.environment import needing, secret
from lib.files import hash_of
from lib.params import Params
from lib.privacy import VARIABLE, with_secrets


class PhantomSource:
    """Synthetic radiographs: a quarter are abnormal, all findings equally often. A smoke test, not evidence.

    An abnormal image has so many `lesions` of its finding, all of one severity, drawn evenly from the range.
    """

    synthetic = True

    def __init__(
        self, count: int, size: int, seed: int = 0, severity: tuple[float, float] = (0, 1), lesions: int = 1
    ) -> None:
        # Every file that draws is part of the name, so that other formulas never read a cache of these images.
        formulas = b"".join(Path(str(module.__file__)).read_bytes() for module in (anatomy, phantom))
        low, high = severity
        self.name = f"phantom-{hash_of(formulas)[:8]}-{count}-{size}-{seed}-{low:g}-{high:g}-{lesions}"
        self.about = {
            "from": f"drawn by formulas (lib/data/phantom.py), seed {seed}",
            "lesions": f"{lesions} an abnormal image, of severity {low:g} to {high:g}",
            "licence": "that of this project",
            "labels": "exact: the finding is drawn, or it is not",
        }
        self.problems: list[Problem] = []
        self._size, self._seed, self._lesions = size, seed, lesions
        severities = high - (high - low) * np.random.default_rng([seed, count]).random(count)
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
        arguments = zip(patients, range(count), findings, severities.tolist(), strict=True)
        self._arguments = dict(zip(self.records["id"], arguments, strict=True))

    def image(self, image_id: str) -> Radiograph:
        """Draw one image at the run's image size."""
        patient, exposure, finding, severity = self._arguments[image_id]
        drawn = {"severity": severity, "lesions": self._lesions} if finding else {}
        return radiograph(patient, exposure, finding=finding, **drawn, size=self._size, seed=self._seed)

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


def _fetch(source: str, handle: str) -> Path:
    with needing("kaggle", f"source: {source} without data_dir", SourceError):
        from lib.data.kaggle import fetch  # here: kagglehub is an extra
    return fetch(handle)


def open_source(params: Params, base: Path) -> Source:
    """Open the source that the settings name; a relative `data_dir` lies under `base`.

    Raises:
        SourceError: It does not exist or cannot be used; the message says what to do.

    """
    params = params.with_paths_under(base)
    if params.source == "phantom":
        source: Source = PhantomSource(
            params.phantom_images,
            params.image_size,
            params.split_seed,
            (params.phantom_severity[0], params.phantom_severity[1]),
            params.phantom_lesions,
        )
    elif params.source == "stream":
        if not (address := with_secrets(params.data_dir, secret(VARIABLE))):
            raise SourceError(
                f"data_dir={params.data_dir} lacks its secrets, which no file of a run holds: set the environment "
                f"variable {VARIABLE} to the whole address"
            )
        source = StreamSource(address)
    elif params.source == "folder":
        source = FolderSource(Path(params.data_dir))
    else:
        entry = REGISTRY[params.source]
        root = Path(params.data_dir) if params.data_dir else _fetch(params.source, entry.handle)
        records = entry.records(root)
        counts = records["label"].value_counts()
        wrong_counts = [
            Problem(params.source, f"unexpected number of images: {counts.get(word, 0):,} {word}, not {n:,}", "used")
            for word, n in entry.expected.items()
            if counts.get(word, 0) != n
        ]
        source = FileSource(params.source, records, entry.boxes(root), entry.about(), wrong_counts, root=root)
    if params.label_column not in source.records:
        raise SourceError("labels='strict', but the images have one reading only: write labels: given")
    return source
