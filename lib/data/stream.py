"""Parquet shards of images on a disk, a bucket, a web server or the Hugging Face Hub: read as a stream, and written.

An address is a folder that `write_shards` has filled, or a pattern of `.parquet` files (`**` stands for any folders).
The folder's `shards.json` lists its shards, so that it can lie on a web server, which does not list its files.
"""

import atexit
import json
import posixpath
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property, partial
from io import BytesIO
from itertools import chain, islice
from threading import Lock
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from tenacity import retry, retry_if_not_exception_type, stop_after_attempt, wait_exponential
from tqdm import tqdm

from lib.data.decoding import encode
from lib.data.shard import COLUMNS, as_records, content_of, text_of
from lib.data.source import Source, SourceError, label_problems
from lib.files import hash_of
from lib.network import causes, refused_certificate, split_query
from lib.privacy import without_secrets

INDEX = "shards.json"
SHARD = re.compile(r"[\w-][\w.-]*\.parquet")  # a file in the index's own folder
OURS = b"imgae-dx"  # the key in the schema of shards from `write_shards`, with facts about the whole set
GROUP = 32  # rows of a shard that are written, read and held in memory together
STALLED = 15.0  # seconds without a byte after which a request to a web server is repeated
FINAL = (FileNotFoundError, PermissionError, pa.ArrowInvalid)  # errors that another try cannot cure
_ARROW_READS = Lock()  # a thread inside one when Python exits aborts the process: exit waits for the last
atexit.register(_ARROW_READS.acquire, timeout=10)


class StreamSource:
    """Parquet shards with the columns `image` ({bytes, path}, or bytes) and `label`, streamed through `datasets`.

    Files are opened as `datasets` opens streams: any file system of fsspec, with the hub's token and with retries. Its
    parquet reader is not used, because it keeps a whole shard in memory and its threads can abort a process at exit.

    The other columns of a record are optional. Without `finding`, a label is the name of a class: of normal images, or
    of a finding. Without `split`, a shard's name may contain it. Shards that are not `labelled` need no `label`.
    """

    def __init__(self, address: str, *, labelled: bool = True) -> None:
        with _explained(address), ThreadPoolExecutor(8) as pool:
            from datasets import DownloadConfig
            from datasets.utils.file_utils import xopen

            options = {address.partition("://")[0]: _options(address)}
            self._open = partial(xopen, mode="rb", download_config=DownloadConfig(storage_options=options))
            self._fs, self._paths = _find(address)
            plain = [split_query(path)[0] for path in self._paths]
            folder = posixpath.commonpath(map(posixpath.dirname, plain))
            names = [posixpath.relpath(path, folder) for path in plain]
            self._stamps = list(pool.map(self._stamp, self._paths))
            schemas, tables = zip(*pool.map(partial(_read, self._fs, columns=COLUMNS), self._paths), strict=True)
        parts = [as_records(*shard, labelled=labelled) for shard in zip(names, schemas, tables, strict=True)]
        records = pd.concat(parts, ignore_index=True)
        records = records.astype(object).where(records.notna(), "").infer_objects()
        if (twice := records["id"].duplicated()).any():
            raise SourceError(f"{address} has the id {records['id'][twice].iloc[0]!r} in several rows: expected one")
        if checked := {"digest", "twin"} <= set(records):
            records["arrival"] = np.repeat(np.arange(len(parts)), list(map(len, parts)))
        if "place" in records:  # the original source's order, so that a seed gives the same split
            records = records.sort_values("place", ignore_index=True).drop(columns="place")
        self.records = records if checked else records.drop(columns=["digest", "twin"], errors="ignore")
        self._ids = [part["id"].tolist() for part in parts]
        self._columns = [column for column in ("id", "image") if column in schemas[0].names]
        facts = json.loads((schemas[0].metadata or {}).get(OURS, b"{}"))
        self._is_ours, self.synthetic = bool(facts), facts.get("synthetic", False)
        self.about: dict[str, str] = facts.get("about", {"from": _shown(address)})
        self.problems = label_problems(self.records) if labelled else []
        identity = json.dumps([names, records["digest"].tolist() if checked else self._stamps])
        self.name = f"stream-{hash_of(identity)}"

    def contents(self, ids: Sequence[str]) -> Iterator[tuple[str, Callable[[], bytes]]]:
        """Yield these images in the order of the shards; a shard with none of them is not opened.

        Raises:
            SourceError: A shard cannot be read, or has changed since the records were read from it.

        """
        wanted = set(ids)
        for path, stamp, known in zip(self._paths, self._stamps, self._ids, strict=True):
            if wanted.isdisjoint(known):
                continue
            address = self._fs.unstrip_protocol(path).removeprefix("file://")
            changed = SourceError(f"{address} has changed since its records were read: run again")
            self._fs.invalidate_cache()
            with _explained(address), self._open(address) as file:
                with _ARROW_READS:
                    shard = pq.ParquetFile(file)
                if self._stamp(path) != stamp or shard.metadata.num_rows != len(known):
                    raise changed
                left = iter(known)
                for group in range(shard.num_row_groups):
                    here = list(islice(left, shard.metadata.row_group(group).num_rows))
                    if wanted.isdisjoint(here):
                        continue
                    with _ARROW_READS:
                        rows = shard.read_row_group(group, columns=self._columns, use_threads=False).to_pylist()
                    if [text_of(row.get("id", image_id)) for image_id, row in zip(here, rows, strict=True)] != here:
                        raise changed
                    for image_id, row in zip(here, rows, strict=True):
                        if image_id in wanted:
                            yield image_id, partial(content_of, row["image"])

    def mask(self, image_id: str) -> np.ndarray | None:
        """Return the lesion, (height, width) bool, or None if none is marked."""
        content = self._masks.get(image_id)
        return None if content is None else np.array(Image.open(BytesIO(content)))

    @cached_property
    def _masks(self) -> dict[str, bytes]:
        if not self._is_ours:  # the meaning of a mask in other shards is unknown
            return {}
        with _explained(self._paths[0]), ThreadPoolExecutor(8) as pool:
            read = pool.map(partial(_read, self._fs, columns=["mask"]), self._paths)
            cells = chain.from_iterable(table["mask"].to_pylist() for _, table in read)
            return {image_id: cell["bytes"] for image_id, cell in zip(chain(*self._ids), cells, strict=True) if cell}

    def _stamp(self, path: str) -> list[Any]:
        """Return a shard's size, and a tag that changes with its content, or "" if the file system has none."""
        info = self._fs.info(path)
        return [info["size"], next((str(info[key]) for key in ("ETag", "etag", "blob_id", "mtime") if key in info), "")]


def write_shards(source: Source, records: pd.DataFrame, out: str, *, rows_per_shard: int = 1000, seed: int = 0) -> None:
    """Write a source's files, lesions and records (with `digest` and `twin` if they are known) as parquet shards.

    The images are shuffled by the seed, so that each shard is a mixture. `out` is the address of a writable folder; an
    interrupted call continues where it stopped.

    Raises:
        SourceError: The folder holds other shards, or cannot be written to.

    """
    table = pa.Table.from_pandas(records.drop(columns="arrival", errors="ignore"), preserve_index=False)
    table = table.replace_schema_metadata().append_column("place", pa.array(range(len(table))))
    order = np.random.default_rng(seed).permutation(len(table))
    parts = [table.take(order[start : start + rows_per_shard]) for start in range(0, len(table), rows_per_shard)]
    names = [f"{place:05d}-of-{len(parts):05d}.parquet" for place in range(len(parts))]
    facts = {"synthetic": source.synthetic, "about": source.about}
    with (
        _explained(out),
        tqdm(total=len(table), desc="write shards", unit="image", mininterval=1, leave=False) as progress,
    ):
        from datasets import Features
        from datasets import Image as ImageFeature

        images = {"image": ImageFeature(), "mask": ImageFeature()}
        schema = Features(Features.from_arrow_schema(table.schema) | images).arrow_schema
        schema = schema.with_metadata({**schema.metadata, OURS: json.dumps(facts)})
        fs, folder = fsspec.url_to_fs(out.rstrip("/"))
        fs.makedirs(folder, exist_ok=True)
        written = {posixpath.basename(path) for path in fs.glob(f"{folder}/*.parquet")}
        other = SourceError(f"{out} holds other shards ({', '.join(sorted(written)[:3])}): choose an empty folder")
        if written - set(names):
            raise other
        for name, part in zip(names, parts, strict=True):
            if name not in written:
                _write(source, part, schema, fs, f"{folder}/{name}")
            elif not _read(fs, f"{folder}/{name}", table.column_names)[1].sort_by("id").equals(part.sort_by("id")):
                raise other
            progress.update(len(part))
        index = facts | {"images": len(table), "columns": schema.names, "shards": names}
        fs.pipe_file(f"{folder}/{INDEX}", json.dumps(index, indent=1).encode())


def _write(source: Source, part: pa.Table, schema: pa.Schema, fs: fsspec.AbstractFileSystem, path: str) -> None:
    """Write a shard under a temporary name, and rename it when it is complete."""
    place = {image_id: row for row, image_id in enumerate(part["id"].to_pylist())}
    contents = source.contents(list(place))
    with fs.open(f"{path}.part", "wb") as file, pq.ParquetWriter(file, schema) as writer:
        while group := [(image_id, read()) for image_id, read in islice(contents, GROUP)]:
            lesions = [source.mask(image_id) for image_id, _ in group]
            cells = {
                "image": [{"bytes": content, "path": image_id} for image_id, content in group],
                "mask": [None if lesion is None else {"bytes": encode(lesion)} for lesion in lesions],
            }
            rows = part.take([place.pop(image_id) for image_id, _ in group])
            for column, values in cells.items():
                rows = rows.append_column(column, pa.array(values, schema.field(column).type))
            writer.write_table(rows)
    if place:
        raise SourceError(f"{source.name} gave no image for {', '.join(list(place)[:3])}")
    fs.mv(f"{path}.part", path)


def _find(address: str) -> tuple[fsspec.AbstractFileSystem, list[str]]:
    """Return an address's file system, and its shards' paths there."""
    fs, path = fsspec.url_to_fs(address.rstrip("/"), **_options(address))
    root, query = split_query(path)
    if root.endswith(".parquet"):
        paths = [root + query] if query else sorted(fs.glob(root))
    else:
        how = f"write the shards (again), or use a pattern: {address}/*.parquet"
        try:
            index = fs.cat_file(f"{root}/{INDEX}{query}")  # a refused certificate is a ValueError, too
        except (FileNotFoundError, NotADirectoryError) as error:
            raise SourceError(f"{address} has no {INDEX}, which is written last: {how}") from error
        try:
            names = list(json.loads(index)["shards"])
        except (ValueError, KeyError, TypeError) as error:
            raise SourceError(f"{address}/{INDEX} is damaged, or no list of shards: {how}") from error
        if outside := [name for name in names if not SHARD.fullmatch(str(name))]:
            raise SourceError(f"{address}/{INDEX} names {outside[0]!r}, which is no shard in its folder: write it anew")
        paths = [f"{root}/{name}{query}" for name in names]
    if not paths:
        raise SourceError(f"{address} matches no files: check it; files on a web server need a folder with {INDEX}")
    return fs, paths


def _shown(address: str) -> str:
    folder = re.sub(r"/[^/]*\.parquet$", "", address.rstrip("/"))
    return without_secrets(address) if "://" in address else f"folder {posixpath.basename(folder)}"


def _options(address: str) -> dict[str, Any]:
    """Return how a web server is asked: through the environment's proxy, and with time limits while nothing arrives."""
    if not address.startswith("http"):
        return {}
    import aiohttp

    limits = aiohttp.ClientTimeout(sock_connect=STALLED, sock_read=STALLED)
    return {"client_kwargs": {"timeout": limits, "trust_env": True}}


@retry(stop=stop_after_attempt(4), wait=wait_exponential(), retry=retry_if_not_exception_type(FINAL), reraise=True)
def _read(fs: fsspec.AbstractFileSystem, path: str, columns: Sequence[str]) -> tuple[pa.Schema, pa.Table]:
    """Return a shard's schema, and those of the columns that it has; nothing else is transferred."""
    with fs.open(path, cache_type="none") as file, pq.ParquetFile(file, pre_buffer=True) as shard:
        return shard.schema_arrow, shard.read(columns=[name for name in columns if name in shard.schema_arrow.names])


@contextmanager
def _explained(address: str) -> Iterator[None]:
    """Turn the errors of any file system into a SourceError that says what was found and what to do."""
    try:
        yield
    except (SourceError, MemoryError):
        raise
    except Exception as error:
        chain = list(causes(error))
        codes = {getattr(c, "status", getattr(getattr(c, "response", None), "status_code", None)) for c in chain}
        network = any(isinstance(cause, OSError) and not isinstance(cause, FINAL) for cause in chain)
        if isinstance(error, ImportError):
            how = "install that package (pip install '.[stream]' brings datasets and aiohttp), and run again"
        elif codes & {401, 403} or any(isinstance(cause, PermissionError) for cause in chain):
            how = "access is refused; log in (hf auth login), or give this machine the bucket's key"
        elif codes & {404} or (isinstance(error, FileNotFoundError) and codes == {None} and not network):
            how = "it does not exist; check the address"
        elif isinstance(error, pa.ArrowInvalid):
            how = "it is damaged, or not a parquet file"
        else:
            how = refused_certificate(error) or "check the network and run again; what has arrived is kept"
        last = error if isinstance(error, ImportError) else chain[-1]
        reason = " ".join(str(last).split()) or type(last).__name__
        raise SourceError(f"{address} cannot be used ({reason}): {how}") from error
