"""A source's images, prepared once: a memory-mapped uint8 array on disk, and a journal of the finished rows.

Decoding is expensive; from the map an epoch is read a hundred times faster. The folder's name is a hash of what it
holds (source, list of images, preparation), so that other settings never read it. A row is finished once its pixels are
on disk and its line is in the journal: a killed run continues where it was, and loses only the chunk in progress.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from lib.data.decoding import decode
from lib.data.journal import finished, line_of
from lib.data.picture import Decoded, ImageError
from lib.data.preparation import Preparation
from lib.data.source import Source, SourceError, cache_folder
from lib.files import hash_of, locked

CHUNK = 64  # images between two writes to the disk
PASSING = ("cannot be read", "is beyond the installed decoders")  # problems that may be gone by the next run
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
RECIPE = 5  # part of a cache's identity: increase it when the pixels of `Preparation.image` or the journal change


def read_image(read: Callable[[], bytes]) -> tuple[Decoded | None, dict[str, Any]]:
    """Return an image, None if it is unusable, and the facts about it that a journal's line holds."""
    line: dict[str, Any] = {"digest": "", "problem": "", "header": {}, "bytes": None, "width": None, "height": None}
    try:
        line["digest"], line["bytes"] = hashlib.sha256(content := read()).hexdigest(), len(content)
        decoded = decode(content)
        line["header"], (line["height"], line["width"]) = decoded.header, decoded.pixels.shape
        return decoded, line
    except (ImageError, OSError) as error:
        problem = str(error) if isinstance(error, ImageError) else f"cannot be read: {error.strerror or error}"
        return None, line | {"problem": problem}


class CachedImages:
    """Prepared images, perhaps still arriving: like an array (n, size, size) uint8, read by index."""

    def __init__(self, cache: "Cache", rows: np.ndarray, arrival: np.ndarray | None = None) -> None:
        self._cache, self._rows = cache, rows
        self.shape = (len(rows), cache.preparation.size, cache.preparation.size)
        self.arrival = arrival
        """The shard of a stream that each image arrives with, (n,) int; None if all have arrived."""

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: Any) -> np.ndarray:
        return self._cache.read(self._rows[key])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)

    def of(self, places: np.ndarray) -> "CachedImages":
        """Return these images of the stack, by an index (m,) of ints."""
        return CachedImages(self._cache, self._rows[places], None if self.arrival is None else self.arrival[places])


class Cache:
    """The prepared images of one source: (n, size, size) uint8 in `pixels.npy`, one line per row in `rows.jsonl`.

    A line holds the row, a checksum of its pixels, the file's digest and number of bytes, width and height in pixels as
    decoded, what the header says, and the problem that makes the image unusable, or ""; what was not reached because of
    the problem is null.
    """

    def __init__(self, source: Source, preparation: Preparation, folder: Path | None = None) -> None:
        self.preparation, self._source = preparation, source
        self._ids = source.records["id"].tolist()
        identity = json.dumps([RECIPE, source.name, preparation, self._ids])
        self.folder = (folder or cache_folder()) / f"images-{hash_of(identity)}"
        self.rows: dict[int, dict[str, Any]] = {}
        self._done = np.zeros(len(self._ids), dtype=bool)
        self._arrived, self._strict = threading.Condition(), False
        self._failure: BaseException | None = None
        self._pixels = np.empty((0, preparation.size, preparation.size), np.uint8)

    def fill(self) -> None:
        """Prepare every image that is still missing; if another process is doing so, wait for it.

        A complete cache is only read, so that it may lie where nothing can be written.
        """
        threads = torch.get_num_threads()
        try:
            if not self._complete():
                self.folder.mkdir(parents=True, exist_ok=True)
                for file in self._links():  # else we would write to its target
                    file.unlink()
                with locked(self.folder / "lock", "is preparing the same images"):
                    self._open()
                    if todo := [image_id for image_id, done in zip(self._ids, self._done, strict=True) if not done]:
                        self._fill(todo)
        except OSError as error:
            raise SourceError(self._unusable(error)) from error
        finally:
            torch.set_num_threads(threads)  # `_fill` sets it in its pool, which also affects later threads
        with suppress(OSError):
            os.utime(self.folder)  # when it was last used (`lib.data.caches`)

    def _unusable(self, error: OSError) -> str:
        found, todo = f"the cache {self.folder} cannot be used", "free some space"
        if error.errno in READ_ONLY:
            missing = f"{(~self._done).sum():,} of {len(self._ids):,} images are"
            found, todo = f"{missing} not yet in the cache {self.folder}, which cannot be written", "make it writable"
        if error.errno in (errno.ENOTDIR, errno.EEXIST):
            todo = "a part of this path is a file; move it away"
        return f"{found} ({error.strerror or error}): {todo}, or set IMGAE_DX_CACHE to another folder"

    def fill_in_background(self) -> None:
        """Start to fill, and return: `read` waits for missing images, and raises any failure or unusable image."""
        self._strict = True

        def fill() -> None:
            try:
                self.fill()
            except BaseException as error:
                with self._arrived:
                    self._failure = error
                    self._arrived.notify_all()

        threading.Thread(target=fill, daemon=True).start()

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Return these rows' images, (m, size, size) uint8; wait for those that have not arrived."""
        if not self._done[rows].all():
            with self._arrived:
                self._arrived.wait_for(lambda: self._failure or self._done[rows].all())
            if self._failure:
                raise self._failure
        return self._pixels[rows]

    def _links(self) -> list[Path]:
        return [file for file in self.folder.iterdir() if file.is_symlink()]

    def _complete(self) -> bool:
        """Map and read what is there, without writing; return whether all images are."""
        if not self.folder.is_dir() or self._links() or not self._map():
            return False
        self._take(finished(self.folder / "rows.jsonl", self._pixels)[0])
        return bool(self._done.all())

    def _map(self) -> bool:
        """Map the pixels and hold a shared lock on them, so that nobody removes them; False if they are incomplete."""
        try:
            with (self.folder / "pixels.npy").open("rb") as file:
                with suppress(OSError):  # not every file system can lock
                    fcntl.flock(file, fcntl.LOCK_SH)  # held until the last array on the map is gone
                np.lib.format.read_magic(file)
                shape, _, dtype = np.lib.format.read_array_header_1_0(file)
                mapped = np.memmap(file, dtype, "r", file.tell(), shape)
        except (FileNotFoundError, ValueError, EOFError):  # missing, or shorter than its header says
            return False
        self._pixels = np.asarray(mapped)  # a plain view, because memmap's indexing is slow
        return shape == (len(self._ids), self.preparation.size, self.preparation.size) and dtype == np.uint8

    def _open(self) -> None:
        """Map the pixels and read the journal; start over if the pixels are incomplete."""
        size, pixels, journal = self.preparation.size, self.folder / "pixels.npy", self.folder / "rows.jsonl"
        if not self._map():
            journal.unlink(missing_ok=True)  # first, so that no line refers to pixels that are gone
            shape = (len(self._ids), size, size)
            need, free = np.prod(shape), shutil.disk_usage(self.folder).free
            if need > free:
                raise SourceError(
                    f"{len(self._ids):,} images of {size} px need {need / 1e9:.1f} GB, and {self.folder} has "
                    f"{free / 1e9:.1f} GB: free some space, or set IMGAE_DX_CACHE to a folder on another disk"
                )
            np.lib.format.open_memmap(pixels, "w+", np.uint8, shape)
            self._map()
        lines, cut = finished(journal, self._pixels)
        if cut:
            os.truncate(journal, journal.stat().st_size - len(cut))
        self._take(lines)

    def _fill(self, todo: list[str]) -> None:
        place = {image_id: row for row, image_id in enumerate(self._ids)}
        contents = self._source.contents(todo)
        name, size = self._source.name.split("-")[0], self.preparation.size
        with (
            ThreadPoolExecutor(torch.get_num_threads(), initializer=torch.set_num_threads, initargs=(1,)) as pool,
            (self.folder / "pixels.npy").open("r+b") as pixels,
            (self.folder / "rows.jsonl").open("ab") as journal,
            tqdm(
                total=len(self._ids),
                initial=len(self._ids) - len(todo),
                desc=f"prepare {name} images",
                unit="image",
                mininterval=1,
                leave=False,
            ) as progress,
        ):
            start = pixels.seek(0, os.SEEK_END) - len(self._ids) * size * size
            while chunk := list(islice(contents, CHUNK)):
                lines = []
                for (image_id, _), (image, line) in zip(chunk, pool.map(self._prepare, chunk), strict=True):
                    lines.append(line_of(place[image_id], image, line))
                    pixels.seek(start + place[image_id] * size * size)
                    pixels.write(image)  # not through the map, where a full disk is a signal instead of an error
                pixels.flush()
                os.fsync(pixels.fileno())
                lasting = [line for line in lines if not line["problem"].startswith(PASSING)]
                journal.writelines(json.dumps(line).encode() + b"\n" for line in lasting)
                journal.flush()
                os.fsync(journal.fileno())
                self._take(lines)
                progress.update(len(chunk))
        if missing := int((~self._done).sum()):
            raise SourceError(f"{name} ended before {missing} of {len(self._ids)} images had arrived: run again")

    def _prepare(self, image: tuple[str, Callable[[], bytes]]) -> tuple[bytes, dict[str, Any]]:
        """Return an image's pixels, black if it is unusable, and its line of the journal, but for the row."""
        decoded, line = read_image(image[1])
        if decoded is None:
            return bytes(self.preparation.size**2), line
        return self.preparation.image(decoded.pixels, decoded.padding).tobytes(), line

    def _take(self, lines: list[dict[str, Any]]) -> None:
        if self._strict and (bad := next((line for line in lines if line["problem"]), None)):
            found = f"{self._ids[bad['row']]} cannot be used: {bad['problem']}"
            raise SourceError(f"{found}. Repair it, or write on_bad_image: skip")
        with self._arrived:
            for line in lines:
                self.rows[line["row"]] = line
                self._done[line["row"]] = True
            self._arrived.notify_all()
