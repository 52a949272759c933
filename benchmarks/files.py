"""Images a second from files into the cache, relative to torchvision's ImageFolder with a DataLoader, and out of it.

Phantoms of 256 px are prepared at 128 px: as JPEG and PNG in class folders, as DICOM, and as shards that a server on
this machine hands out. The files are in the page cache throughout. ImageFolder decodes and resizes the JPEG files in
every epoch, without the contrast stretch that preparation includes.
"""

import contextlib
import functools
import http.server
import io
import itertools
import re
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2
from tqdm import tqdm

from benchmarks.measuring import Figure, compared, in_turns
from lib.data.cache import Cache, CachedImages
from lib.data.folder import FolderSource
from lib.data.phantom import radiograph
from lib.data.preparation import Preparation
from lib.data.source import Source
from lib.data.stream import StreamSource, write_shards
from lib.methods.method import to_unit

DRAWN, IMAGE, SIZE, BATCH = 100, 256, 128, 64


def jpeg(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def dicom(pixels: np.ndarray) -> bytes:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, "1.2.840.10008.5.1.4.1.1.1"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    image = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    image.Rows, image.Columns = pixels.shape
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
    image.PixelData = (pixels.astype(np.uint16) * 16).tobytes()
    file = io.BytesIO()
    image.save_as(file, enforce_file_format=True)
    return file.getvalue()


FORMATS = {"jpg": jpeg, "png": png, "dcm": dicom}


def write_images(folder: Path, suffix: str, images: int) -> None:
    """Write `images` files of a format, of which `DRAWN` differ in more than their grey levels."""
    for label in ("normal", "abnormal"):
        (folder / label).mkdir(parents=True)
    drawn = [np.round(radiograph(i, size=IMAGE).image * 255).astype(np.uint8) for i in range(DRAWN)]
    for i in tqdm(range(images), desc=f"write {suffix}", leave=False):
        name = folder / ("abnormal" if i % 4 == 3 else "normal") / f"{i}.{suffix}"
        name.write_bytes(FORMATS[suffix](drawn[i % DRAWN] // (1 + i // DRAWN % 2) + i // DRAWN))


class Ranges(http.server.SimpleHTTPRequestHandler):
    """Serves files, and parts of them, as web servers do."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        file = Path(self.translate_path(self.path))
        body = file.read_bytes() if file.is_file() else b""
        self.send_response(404 if not file.is_file() else 206 if "Range" in self.headers else 200)
        self.send_header("Accept-Ranges", "bytes")
        if wanted := re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end = int(wanted[1]), min(int(wanted[2] or len(body)), len(body) - 1)
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(body)}")
            body = body[start : end + 1]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Yield the address at which a server on this machine hands out the folder."""
    handler = functools.partial(Ranges, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True  # connections stay open
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def figures(quick: bool) -> Iterator[Figure]:
    """Yield the rate of each format, and of reading the cache."""
    images, laps = (200, 1) if quick else (2000, 3)
    cpu, fills = torch.device("cpu"), itertools.count()
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        base = Path(temporary)
        for suffix in FORMATS:
            write_images(base / suffix, suffix, images)
        jpegs = FolderSource(base / "jpg")
        write_shards(jpegs, jpegs.records, str(base / "shards"))
        address = stack.enter_context(served(base / "shards"))
        sources: dict[str, Callable[[], Source]] = {
            f"{suffix} into the cache": functools.partial(FolderSource, base / suffix) for suffix in FORMATS
        }
        sources["shards over http into the cache"] = lambda: StreamSource(address)

        def fill(opened: Callable[[], Source]) -> None:
            Cache(opened(), Preparation(SIZE), base / f"cache-{next(fills)}").fill()

        filled = Cache(jpegs, Preparation(SIZE), base / "cache")
        filled.fill()
        cached = CachedImages(filled, np.arange(images))
        batches = np.random.default_rng(0).permutation(images)[: images // BATCH * BATCH].reshape(-1, BATCH)
        steps = [v2.Grayscale(), v2.Resize(SIZE, antialias=True), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
        loader = DataLoader(ImageFolder(base / "jpg", v2.Compose(steps)), BATCH, shuffle=True, num_workers=2)
        calls: dict[str, Callable[[], object]] = {"ImageFolder": lambda: sum(len(batch) for batch, _ in loader)}
        calls |= {name: functools.partial(fill, opened) for name, opened in sources.items()}
        calls["out of the cache, as float32"] = lambda: [to_unit(cached[batch], cpu) for batch in batches]
        seconds = in_turns(calls, laps, "files")
    for name in list(calls)[1:]:
        yield compared("files", name, seconds, own=name, reference="ImageFolder", amount=images, unit="images/s")
