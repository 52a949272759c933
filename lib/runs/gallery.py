"""A run, or scored images -> one HTML page to look through, sort and filter them, which opens without network."""

import base64
import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lib.figures.compact import colour_tables, outline, picture
from lib.files import replacing
from lib.runs.command import result
from lib.runs.layout import ABOUT, PROBLEMS, SCORES
from lib.runs.places import FACTS
from lib.runs.shown import Shown
from lib.runs.status import RunError

GALLERY = "gallery.html"  # in the folder whose images it shows
MOST = 400  # images in one file
LARGEST = 15_000_000  # bytes of one file
QUALITIES = (90, 75, 50)  # of WebP; a lower one is taken where the page would be larger
TAKEN = ("title", "warnings", "remarks", "sentences", "labelled", "ceilings")  # as they are

Keep = Callable[[str, bytes], str]
"""Keeps a picture under a name; returns the address by which the page finds it."""


def make(folder: Path, to: Path | None = None, labels: Path | None = None) -> None:
    """Write the gallery of a run, or of scored images with a table of labels; print where it is, and any remarks."""
    shown, file = open_shown(folder, labels), to or folder / GALLERY
    pictures = write_gallery(shown, file)
    for remark in shown.remarks:
        print(remark, file=sys.stderr)
    beside = f"; its pictures are in {pictures}: hand on both" if pictures else ""
    result(f"{file}: {len(shown.records):,} images, {file.stat().st_size / 1e6:.1f} MB{beside}", *shown.warnings)


def open_shown(folder: Path, labels: Path | None = None) -> Shown:
    """Return what there is to show of an evaluated run, or of scored images, with a table of labels if there is one.

    A path that cannot be used is refused before torch is loaded, and scored images are shown without it.

    Raises:
        RunError: The folder is neither, or what it needs is missing, damaged or older than its weights; or the labels
            are not of these images.
        SourceError: The table of labels cannot be used.

    """
    if labels and not labels.is_file():
        raise RunError(f"--labels {labels} is no file: give a table of labels, with the columns filename and label")
    if (folder / "params.json").is_file():
        if labels:
            raise RunError(
                f"{folder} is a run, whose images have labels: leave out --labels, which is for scored images"
            )
        from lib.runs.run import Run
        from lib.runs.shown_run import shown_run

        return shown_run(Run.open(folder))
    if (folder / SCORES).is_file() and (folder / ABOUT).is_file():
        from lib.runs.shown_scores import shown_scores

        return shown_scores(folder, labels)
    raise RunError(_nothing_in(folder))


def _nothing_in(folder: Path) -> str:
    """Return why a folder has nothing to show, and what to do."""
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        return f"{folder} {found}: give the folder of an evaluated run, or one that imgae-score has written"
    if (folder / FACTS).is_file():
        todo = f"imgae-score {folder} films/ --to out, then imgae-gallery out"
        return f"{folder} is a model, and holds no images: score some with it, and look at those: {todo}"
    if (folder / ABOUT).is_file():
        return f"{folder} has no {SCORES}: no image was scored; {PROBLEMS} there says why"
    return (
        f"{folder} has nothing to show: give the folder of an evaluated run, or one that imgae-score has written "
        f"(imgae-score MODEL {folder} --to out scores the images in it)"
    )


def write_gallery(shown: Shown, file: Path) -> Path | None:
    """Write the page; return the folder beside it that holds its pictures, or None if the page itself does.

    A page of up to 400 images holds its pictures, unless it would then exceed 15 MB.
    """
    for quality in QUALITIES if len(shown.records) <= MOST else ():
        page = _page(shown, quality, lambda _, content: f"data:image/webp;base64,{base64.b64encode(content).decode()}")
        if len(page) <= LARGEST:
            _write(file, page)
            return None
    folder = file.with_name(f"{file.stem}-pictures")

    def keep(name: str, content: bytes) -> str:
        _write(folder / name, content)
        return quote(f"{folder.name}/{name}")

    _write(file, _page(shown, QUALITIES[0], keep))
    return folder


def _write(file: Path, content: bytes) -> None:
    with replacing(file) as out:
        out.write(content)


def _page(shown: Shown, quality: int, keep: Keep) -> bytes:
    """Return the page; what data say stands in it as JSON alone, which the script shows as text."""
    here = Path(__file__)
    template, style, script = (here.with_suffix(kind).read_text(encoding="utf-8") for kind in (".html", ".css", ".js"))
    content: dict[str, Any] = {
        **{name: getattr(shown, name) for name in TAKEN},
        "scores": [score._asdict() | {"auroc": score.auroc and asdict(score.auroc)} for score in shown.scores],
        "images": list(_images(shown, quality, keep)),
    }
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = {
        **{f"colours_{channel}": values for channel, values in colour_tables().items()},
        "title": escape(shown.title),
        "policy": (
            f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
            "img-src data: 'self' file:; base-uri 'none'; form-action 'none'"
        ),
        "style": style,
        "script": script,
        "data": json.dumps(content, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c"),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template).encode()


def _images(shown: Shown, quality: int, keep: Keep) -> Iterator[dict[str, Any]]:
    """Yield what the page knows of each image: its record, and the addresses of its pictures."""
    for i, record in enumerate(shown.records):
        panels = shown.panels(i)
        yield {
            **record,
            "size": panels.image.shape[0],
            "lesion": outline(panels.lesion) if panels.lesion is not None else "",
            "image": keep(f"{i:05}.webp", picture(panels.image, quality)),
            "maps": {n: keep(f"{i:05}.{n}.map.webp", picture(of, quality)) for n, of in panels.maps.items()},
            "reconstructions": {
                n: keep(f"{i:05}.{n}.webp", picture(of, quality)) for n, of in panels.reconstructions.items()
            },
        }
