"""Shards: they are read back as written, no more is transferred than needed, and failures are explained."""

import base64
import hashlib
import http.server
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tenacity

import lib.data.stream
from lib.data.dataset import load_data
from lib.data.decoding import decode, encode
from lib.data.phantom import radiograph
from lib.data.picture import ImageError
from lib.data.source import SIZES, SourceError
from lib.data.stream import StreamSource, write_shards
from lib.evidence.trivial import tags
from lib.params import Params

pytestmark = pytest.mark.skipif(find_spec("datasets") is None, reason="without the extra `stream`")

OURS = ("id", "label", "finding", "split", "patient", "age", "sex", "view")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session", autouse=True)
def hub_home(tmp_path_factory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("hub")
        patch.setenv("HF_HOME", str(folder))
        patch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
        yield folder


@pytest.fixture
def _impatient(monkeypatch) -> None:
    """Let what is tried again be tried at once, and by `datasets` twice only, not for minutes."""
    import datasets

    for name in ("STREAMING_READ_MAX_RETRIES", "STREAMING_OPEN_MAX_RETRIES"):
        monkeypatch.setattr(datasets.config, name, 2, raising=False)
    monkeypatch.setattr(lib.data.stream._read.retry, "wait", tenacity.wait_none())
    for name in ("STREAMING_READ_RETRY_INTERVAL", "STREAMING_OPEN_RETRY_INTERVAL"):
        monkeypatch.setattr(datasets.config, name, 0, raising=False)


class Drawn:
    """A source of phantoms, every fourth with a nodule; `files` holds their bytes."""

    synthetic = True
    problems = ()

    def __init__(self, count: int, size: int = 64, name: str = "drawn") -> None:
        self.name, self.about = name, {"from": "formulas", "licence": "none"}
        finding = ["nodule" if i % 4 == 3 else "" for i in range(count)]
        ids = [f"{name}/{i:03d}.png" for i in range(count)]
        images = [radiograph(i, finding=found, size=size) for i, found in enumerate(finding)]
        self.files = {
            i: encode(np.round(image.image * 255).astype(np.uint8)) for i, image in zip(ids, images, strict=True)
        }
        self._masks = {i: image.mask for i, image, found in zip(ids, images, finding, strict=True) if found}
        self.records = pd.DataFrame(
            {
                "id": ids,
                "label": ["abnormal" if found else "normal" for found in finding],
                "strict_label": ["" if i % 3 else "normal" for i in range(count)],
                "finding": finding,
                "split": "",
                "patient": [f"p{i // 2}" for i in range(count)],
                "age": [20 + i % 60 for i in range(count)],
                "sex": "F",
                "view": "PA",
                "digest": [hashlib.sha256(content).hexdigest() for content in self.files.values()],
                "twin": range(count),
            }
        )

    def contents(self, ids):
        for image_id in ids:
            yield image_id, partial(self.files.get, image_id)

    def mask(self, image_id):
        return self._masks.get(image_id)


@pytest.fixture(scope="session")
def drawn() -> Drawn:
    return Drawn(50, size=256)


@pytest.fixture(scope="session")
def shards(drawn, tmp_path_factory) -> Path:
    """The fifty phantoms in five shards; tests must not change them."""
    folder = tmp_path_factory.mktemp("shards")
    write_shards(drawn, drawn.records, str(folder), rows_per_shard=10)
    return folder


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files with ranges, as web servers do; lists nothing."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        file, server = Path(self.translate_path(self.path)), self.server
        server.answers.wait()
        status = server.refused.get(file.name, 200 if file.is_file() else 404)
        body = file.read_bytes() if status == 200 else b""
        headers = {"Accept-Ranges": "bytes", "ETag": f'"{hashlib.md5(body).hexdigest()}"'}
        if status == 200 and (wanted := re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))):
            start, end = int(wanted[1]), min(int(wanted[2] or len(body)), len(body) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(body)}"
            status, body = 206, body[start : end + 1]
        self.send_response(status)
        for name, value in (headers | {"Content-Length": len(body)}).items():
            self.send_header(name, str(value))
        self.end_headers()
        body = body if self.command == "GET" else b""
        if server.cut[file.name] and status == 206 and len(body) > 20_000:
            server.cut[file.name] -= 1
            body, self.close_connection = body[: len(body) // 2], True
        server.log.append((self.command, file.name, status, len(body)))
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class HubHandler(Handler):
    """The part of the Hugging Face Hub that reading needs, with one data set, owner/images."""

    def do_GET(self):
        if not self.path.startswith("/api/"):
            self.path = self.path.removeprefix("/datasets/owner/images/resolve/main")
            return super().do_GET()
        known = self.path.startswith("/api/datasets/owner/images")
        answer = {"id": "owner/images", "sha": "0" * 40} if known else {"error": "Repository not found"}
        if "/tree/" in self.path:
            files = list(Path(self.directory).iterdir())
            answer = [
                {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": "1" * 40} for file in files
            ]
        self.send_response(200 if known else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body := json.dumps(answer).encode())))
        self.end_headers()
        self.wfile.write(body)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder: Path, handler: type[Handler] = Handler) -> None:
        super().__init__(("127.0.0.1", 0), partial(handler, directory=folder))
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.log: list[tuple[str, str, int, int]] = []
        self.refused: dict[str, int] = {}
        self.answers = threading.Event()  # while cleared, requests are accepted and not answered
        self.answers.set()
        self.cut: Counter[str] = Counter()  # number of responses to cut off, by file
        self.connections: list[socket.socket] = []
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def handle_error(self, request, client_address):
        """Ignore clients that close the connection early."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def process_request(self, request, client_address):
        self.connections.append(request)
        super().process_request(request, client_address)

    def stop(self) -> None:
        self.answers.set()
        self.shutdown()
        self.server_close()
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def servers() -> Iterator[Callable[..., Server]]:
    with ExitStack() as stack:

        def serve(folder: Path, handler: type[Handler] = Handler) -> Server:
            server = Server(folder, handler)
            stack.callback(server.stop)
            return server

        yield serve


@pytest.fixture
def server(shards, servers) -> Server:
    return servers(shards)


def read(source: StreamSource, ids: list[str] | None = None) -> dict[str, bytes]:
    pairs = [
        (image_id, get()) for image_id, get in source.contents(source.records["id"].tolist() if ids is None else ids)
    ]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def by_id(records: pd.DataFrame) -> pd.DataFrame:
    return records.astype(object).sort_values("id", ignore_index=True)


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def python(code: str, **environment: str) -> str:
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


# --- round trip


@pytest.mark.parametrize("kind", ["folder", "pattern", "file address", "http", "memory"])
def test_images_records_and_lesions_are_read_back_unchanged(drawn, shards, server, kind):
    if kind == "memory":
        write_shards(drawn, drawn.records, "memory://a/set", rows_per_shard=10)
    source = StreamSource(
        {
            "folder": str(shards),
            "pattern": f"{shards}/*.parquet",
            "file address": shards.as_uri(),
            "http": f"{server.url}/",
            "memory": "memory://a/set",
        }[kind]
    )
    assert read(source) == drawn.files
    pd.testing.assert_frame_equal(by_id(source.records.drop(columns="arrival")), by_id(drawn.records))
    for image_id in drawn.files:
        np.testing.assert_equal(source.mask(image_id), drawn.mask(image_id))
    assert (source.synthetic, source.about) == (True, drawn.about)


class SignedHandler(Handler):
    """Serves only who knows the name, the password and the signature."""

    signed: ClassVar = {
        "Authorization": "Basic " + base64.b64encode(b"anna:s3cret-pw").decode(),
        "query": "sig=0ddSign/x%2B",
    }

    def do_GET(self):
        self.path, _, query = self.path.partition("?")
        if {"Authorization": self.headers.get("Authorization"), "query": query} != self.signed:
            self.path = "/nowhere"
        super().do_GET()


@pytest.mark.parametrize("path", ["", "/", "/00002-of-00005.parquet"])
def test_a_signed_address_is_read_and_leaves_no_secret_in_what_is_known_of_the_images(drawn, shards, servers, path):
    server = servers(shards, SignedHandler)
    source = StreamSource(f"{server.url.replace('://', '://anna:s3cret-pw@')}{path}?sig=0ddSign/x%2B")
    expected = dict(read(StreamSource(str(shards) + path.rstrip("/"))))
    assert read(source) == expected
    with pytest.raises(SourceError) as refusal:
        StreamSource(f"{server.url.replace('://', '://anna:s3cret-pw@')}?sig=0ddSign/x%2B-old")
    known = f"{source.records.to_csv()} {source.about} {source.name} {source.problems} {refusal.value}"
    assert "***" in known
    assert not re.search("s3cret|0ddSign|anna", known)


def test_shards_that_others_have_put_into_a_folder_are_named_without_its_path(tmp_path):
    import datasets

    kinds = {"image": datasets.Image(), "label": datasets.Value("string")}
    cell = {"bytes": encode(np.zeros((8, 8), dtype=np.uint8)), "path": None}
    foreign(tmp_path / "anna" / "xr", "a.parquet", {"image": [cell], "label": ["normal"]}, kinds)
    assert StreamSource(f"{tmp_path}/anna/xr/*.parquet").about["from"] == "folder xr"


def test_a_data_set_on_the_hub_is_read_by_its_address(drawn, shards, servers):
    hub = servers(shards, HubHandler)
    code = """
import hashlib
from lib.data.stream import StreamSource, SourceError
for address in ("hf://datasets/owner/images", "hf://datasets/owner/images/*.parquet"):
    source = StreamSource(address)
    for image_id, get in source.contents(source.records["id"].tolist()):
        print(image_id, hashlib.sha256(get()).hexdigest())
try:
    StreamSource("hf://datasets/owner/nothing")
except SourceError as error:
    print(error)
"""
    *lines, error = python(code, HF_ENDPOINT=hub.url, HF_HUB_DISABLE_XET="1").splitlines()
    expected = drawn.records["id"] + " " + drawn.records["digest"]
    assert sorted(lines[:50]) == sorted(lines[50:]) == sorted(expected)
    assert "it does not exist; check the address" in error


def test_datasets_itself_reads_the_shards_as_images(drawn, shards):
    import datasets

    rows = datasets.load_dataset("parquet", data_files=f"{shards}/*.parquet", split="train", streaming=True)
    assert isinstance(rows.features["image"], datasets.Image)
    assert isinstance(rows.features["mask"], datasets.Image)
    row = next(iter(rows))
    np.testing.assert_equal(np.array(row["image"]), decode(drawn.files[row["id"]]).pixels)


def test_equal_seeds_write_equal_files_and_every_shard_is_a_mixture(drawn, shards, tmp_path):
    write_shards(drawn, drawn.records, str(tmp_path / "same"), rows_per_shard=10)
    write_shards(drawn, drawn.records, str(tmp_path / "other"), rows_per_shard=10, seed=1)
    assert folder_bytes(tmp_path / "same") == folder_bytes(shards)
    assert folder_bytes(tmp_path / "other").keys() == folder_bytes(shards).keys()
    one, other = (list(read(StreamSource(str(folder)))) for folder in (shards, tmp_path / "other"))
    assert one != other
    assert sorted(one) == sorted(other)
    places = StreamSource(str(shards)).records.groupby("arrival")["twin"]
    assert (places.max() - places.min() > 25).all()


def test_shards_of_shards_hold_the_same(drawn, shards, tmp_path):
    source = StreamSource(str(shards))
    write_shards(source, source.records, str(tmp_path), rows_per_shard=25)
    assert read(StreamSource(str(tmp_path))) == drawn.files


def test_shards_carry_the_files_sizes_if_they_are_known(drawn, shards, tmp_path):
    params = Params(source="stream", data_dir=str(tmp_path / "shards"), image_size=32, widths=[4])
    known = drawn.records.assign(
        **{"file size": [len(content) for content in drawn.files.values()], "width": 256.0, "height": 256.0}
    )
    known.loc[3, "width"] = np.nan
    write_shards(drawn, known, params.data_dir, rows_per_shard=10)
    loaded = load_data(StreamSource(params.data_dir), params, tmp_path)
    pd.testing.assert_frame_equal(loaded.records[[*SIZES]], known[[*SIZES]].astype(float))
    silent = load_data(StreamSource(str(shards)), params, tmp_path).records
    assert silent[[*SIZES]].isna().all(axis=None)
    for records in (loaded.records, silent):
        records.to_parquet(tmp_path / "scores.parquet")
    assert tags(loaded.records)["width is known"].sum() == 49
    assert np.isnan([tags(silent)[name] for name in (*SIZES, "aspect")]).all()
    assert loaded.split(params).hash == replace(loaded, records=silent).split(params).hash


def test_the_name_depends_on_the_contents_and_not_on_the_address(drawn, shards, server, tmp_path):
    assert StreamSource(str(shards)).name == StreamSource(server.url).name
    other = Drawn(50, size=64)
    write_shards(other, other.records, str(tmp_path), rows_per_shard=10)
    assert StreamSource(str(tmp_path)).name != StreamSource(str(shards)).name


# --- economy


def test_records_are_read_without_the_images(drawn, tmp_path, servers):
    write_shards(drawn, drawn.records, str(tmp_path), rows_per_shard=50)
    server = servers(tmp_path)
    assert len(StreamSource(server.url).records) == 50
    assert sum(sent for *_, sent in server.log) < sum(map(len, drawn.files.values())) / 10


def test_only_the_shards_that_hold_a_wanted_image_are_opened(shards, server):
    source = StreamSource(server.url)
    wanted = source.records["id"][source.records["arrival"].isin([1, 4])].iloc[[0, -1]].tolist()
    server.log.clear()
    assert sorted(read(source, wanted)) == sorted(wanted)
    assert {name for _, name, *_ in server.log} == {"00001-of-00005.parquet", "00004-of-00005.parquet"}


def test_images_are_in_the_order_of_arrival_and_records_in_that_of_the_source(drawn, shards):
    records = StreamSource(str(shards)).records
    assert records["id"].tolist() == drawn.records["id"].tolist()
    arrival = records.set_index("id")["arrival"][list(read(StreamSource(str(shards))))]
    assert arrival.is_monotonic_increasing
    assert arrival.value_counts().sort_index().to_dict() == dict.fromkeys(range(5), 10)


def test_row_groups_without_a_wanted_image_are_not_read(drawn, tmp_path, servers):
    write_shards(drawn, drawn.records, str(tmp_path), rows_per_shard=50)
    server = servers(tmp_path)
    source = StreamSource(server.url)
    order = list(read(source))
    server.log.clear()
    assert list(read(source, order[40:])) == order[40:]
    assert sum(sent for *_, sent in server.log) < sum(map(len, drawn.files.values())) / 2


def test_interrupted_reading_continues_with_exactly_the_rest(drawn, shards, server):
    first = StreamSource(server.url)
    before = {image_id: get() for image_id, get in islice(first.contents(first.records["id"].tolist()), 17)}
    second = StreamSource(server.url)
    after = read(second, [image_id for image_id in second.records["id"] if image_id not in before])
    assert len(before) == 17
    assert not before.keys() & after.keys()
    assert before | after == drawn.files


def test_a_process_may_end_while_threads_still_read(shards):
    python(
        f"""
import threading
from lib.data.stream import StreamSource
source = StreamSource({str(shards)!r})
begun = threading.Event()
def work():
    while True:
        for _ in source.contents(source.records["id"].tolist()):
            begun.set()
for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
begun.wait()
"""
    )


@pytest.mark.parametrize(("rank", "world"), [("0", "2"), ("1", "2"), ("", ""), ("x", "6")])
def test_every_shard_is_read_whatever_a_launcher_has_left_in_the_environment(shards, monkeypatch, rank, world):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world)
    assert len(StreamSource(str(shards)).records) == 50


def test_reading_leaves_no_files_behind(shards, tmp_path, monkeypatch, hub_home):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = set(hub_home.rglob("*"))
    source = StreamSource(str(shards))
    read(source)
    next(source.contents(source.records["id"].tolist()))
    assert set(hub_home.rglob("*")) == before
    assert list(tmp_path.iterdir()) == []


# --- failures


@pytest.mark.parametrize(
    ("status", "words"),
    [(404, "does not exist; check the address"), (403, "access is refused; log in"), (503, "run again")],
)
@pytest.mark.usefixtures("_impatient")
def test_an_http_error_is_explained(server, status, words):
    name = "00002-of-00005.parquet"
    source = StreamSource(server.url)
    server.refused[name] = status
    with pytest.raises(SourceError, match=f"{name} cannot be used .*{words}"):
        read(source)
    with pytest.raises(SourceError, match=words):
        StreamSource(server.url)


@pytest.mark.usefixtures("_impatient")
def test_a_cut_transfer_is_an_error_after_the_images_that_arrived(server):
    source = StreamSource(server.url)
    server.cut["00002-of-00005.parquet"] = 99
    came = []
    with pytest.raises(
        SourceError, match=r"00002-of-00005.parquet cannot be used .*run again; what has arrived is kept"
    ):
        came.extend(image_id for image_id, _ in source.contents(source.records["id"].tolist()))
    assert set(came) == set(source.records["id"][source.records["arrival"] < 2])


@pytest.mark.usefixtures("_impatient")
def test_a_transfer_that_is_cut_once_is_tried_again(drawn, server):
    server.cut["00002-of-00005.parquet"] = 1
    source = StreamSource(server.url)
    assert len(source.records) == 50
    server.cut["00003-of-00005.parquet"] = 1
    assert read(source) == drawn.files
    assert not server.cut.total()


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("opened", [False, True])
def test_a_silent_server_is_given_up_on(shards, servers, monkeypatch, opened):
    monkeypatch.setattr(lib.data.stream, "STALLED", 0.2)
    server = servers(shards)
    source = StreamSource(server.url) if opened else None
    server.answers.clear()
    with pytest.raises(SourceError, match="check the network and run again"):
        source = source or StreamSource(server.url)
        list(source.contents(source.records["id"].tolist()))


@pytest.mark.usefixtures("_impatient")
def test_an_unreachable_server_is_explained(shards):
    server = Server(shards)
    source = StreamSource(server.url)
    server.stop()
    with pytest.raises(SourceError, match="check the network and run again"):
        read(source)
    with pytest.raises(SourceError, match="check the network and run again"):
        StreamSource(server.url)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("s3://bucket/folder", "[Ii]nstall s3fs"),
        ("nosuch://bucket/folder", "[Pp]rotocol not known"),
        ("{folder}/nowhere", "has no shards.json.*use a pattern"),
        ("{folder}/nowhere/*.parquet", "matches no files"),
        ("{folder}/nowhere.parquet", "matches no files"),
        ("{folder}/shards.json", "has no shards.json"),
        ("{url}/nowhere", "has no shards.json"),
        ("{url}/*.parquet", "web server"),
    ],
)
def test_an_address_without_shards_is_explained(server, shards, address, words):
    if address.startswith("s3") and find_spec("s3fs"):
        pytest.skip("s3fs is installed")
    with pytest.raises(SourceError, match=words) as error:
        StreamSource(address.format(folder=shards, url=server.url))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["../theirs/a.parquet", "/theirs/a.parquet", "deeper/a.parquet", "..", "x"])
def test_an_index_that_names_files_outside_of_its_folder_is_refused(tmp_path, name):
    (tmp_path / "shards.json").write_text(json.dumps({"shards": [name]}))
    with pytest.raises(SourceError, match=r"shards\.json names '.*', which is no shard in its folder"):
        StreamSource(str(tmp_path))


@pytest.mark.parametrize("text", ["", '{"shards": ["a.par', "<html>log in</html>", "[]", "{}", '{"shards": 3}'])
def test_an_index_that_is_none_is_named_and_not_the_network(tmp_path, text):
    (tmp_path / "shards.json").write_text(text)
    with pytest.raises(SourceError, match=r"shards\.json is damaged, or no list of shards: write the shards") as error:
        StreamSource(str(tmp_path))
    assert "network" not in str(error.value)


def test_without_datasets_the_error_says_what_to_install(drawn, shards, tmp_path, monkeypatch):
    for module in ("datasets", "datasets.utils.file_utils"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SourceError, match=r"datasets.*pip install '\.\[stream\]'"):
        StreamSource(str(shards))
    with pytest.raises(SourceError, match=r"datasets.*pip install '\.\[stream\]'"):
        write_shards(drawn, drawn.records, str(tmp_path))


# --- changed shards


def without_a_row(table: pa.Table) -> pa.Table:
    return table.slice(1)


def with_a_row(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table, table.slice(0, 1)])


def turned_round(table: pa.Table) -> pa.Table:
    return table.take(np.arange(len(table))[::-1])


def rewrite(file: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change a shard but keep its modification time."""
    stat = file.stat()
    pq.write_table(change(pq.read_table(file)), file)
    file.write_bytes(file.read_bytes())
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("change", [without_a_row, with_a_row, turned_round])
@pytest.mark.parametrize("when", ["before", "while"])
def test_a_changed_shard_is_refused(drawn, tmp_path, monkeypatch, change, when):
    write_shards(drawn, drawn.records, str(tmp_path), rows_per_shard=10)
    source = StreamSource(str(tmp_path))
    if when == "while":  # and its stamp does not show it
        monkeypatch.setattr(source, "_stamp", lambda path: source._stamps[source._paths.index(path)])
    rewrite(tmp_path / "00003-of-00005.parquet", change)
    with pytest.raises(SourceError, match=r"00003-of-00005\.parquet has changed since its records were read"):
        read(source)


def test_exchanged_images_are_noticed(drawn, tmp_path):
    write_shards(drawn, drawn.records, str(tmp_path), rows_per_shard=50)
    source = StreamSource(str(tmp_path))
    file = tmp_path / "00000-of-00001.parquet"
    table = pq.read_table(file)
    images = table["image"].to_pylist()
    pq.write_table(table.set_column(table.schema.get_field_index("image"), "image", pa.array(images[::-1])), file)
    with pytest.raises(SourceError, match="has changed"):
        read(source)


# --- foreign shards


def foreign(folder: Path, name: str, rows: dict, features: dict, **options) -> None:
    """Write a shard as `datasets` does."""
    import datasets

    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(rows, features=datasets.Features(features)).to_parquet(folder / name)


def test_foreign_shards_give_classes_as_findings_and_file_names_as_ids_and_splits(drawn, tmp_path, servers):
    import datasets

    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["NORMAL", "PNEUMONIA"])}
    files = list(drawn.files.values())
    cells = [{"bytes": content, "path": None} for content in files]
    foreign(tmp_path, "data/train-00000-of-00002.parquet", {"image": cells[:2], "label": [0, 1]}, kinds)
    foreign(tmp_path, "data/train-00001-of-00002.parquet", {"image": cells[2:3], "label": [None]}, kinds)
    foreign(tmp_path, "data/validation-00000-of-00001.parquet", {"image": cells[3:4], "label": [0]}, kinds)
    foreign(tmp_path, "data/test-00000-of-00001.parquet", {"image": cells[4:6], "label": [1, 0]}, kinds)
    source = StreamSource(f"{tmp_path}/**/*.parquet")
    assert source.records.to_dict("split")["columns"] == list(OURS)
    assert source.records[["id", "label", "finding", "split"]].to_numpy().tolist() == [
        ["test-00000-of-00001.parquet:0", "abnormal", "PNEUMONIA", "test"],
        ["test-00000-of-00001.parquet:1", "normal", "", "test"],
        ["train-00000-of-00002.parquet:0", "normal", "", "train"],
        ["train-00000-of-00002.parquet:1", "abnormal", "PNEUMONIA", "train"],
        ["train-00001-of-00002.parquet:0", "", "", "train"],
        ["validation-00000-of-00001.parquet:0", "normal", "", "val"],
    ]
    assert set(source.records[["patient", "age", "sex", "view"]].to_numpy().ravel()) == {""}
    assert list(read(source).values()) == [files[4], files[5], *files[:4]]
    assert source.mask("test-00000-of-00001.parquet:0") is None
    assert not source.synthetic
    single = StreamSource(f"{servers(tmp_path).url}/data/train-00000-of-00002.parquet")
    assert list(read(single).values()) == files[:2]


def test_known_columns_of_foreign_shards_are_used(drawn, tmp_path):
    import datasets

    text = datasets.Value("string")
    kinds = {"image": datasets.Image(), "label": text, "patient": text, "sex": datasets.ClassLabel(names=["F", "M"])}
    kinds |= {"age": datasets.Value("int32"), "digest": text, "mask": datasets.Image(), "answer": text}
    cell = {"bytes": next(iter(drawn.files.values())), "path": None}
    rows = {"image": [cell] * 3, "label": ["No Finding", "Mass", ""], "patient": ["7", "7", None], "sex": [1, None, 0]}
    rows |= {"age": [40, None, 60], "digest": ["a", "b", "c"], "mask": [cell] * 3, "answer": ["x", "y", "z"]}
    foreign(tmp_path, "images.parquet", rows, kinds)
    source = StreamSource(str(tmp_path / "images.parquet"))
    assert source.records.drop(columns="id").to_numpy().tolist() == [
        ["normal", "", "", "7", 40, "M", ""],
        ["abnormal", "Mass", "", "7", "", "", ""],
        ["", "", "", "", 60, "F", ""],
    ]
    assert set(source.records) == set(OURS)
    assert source.mask("images.parquet:0") is None


@pytest.mark.parametrize("kind", [pa.int64(), pa.float64(), pa.string()])
def test_numbers_as_ids_and_patients_are_texts(tmp_path, kind):
    numbers = ["3", "12"] if kind == pa.string() else [3, 12]
    columns = {"image": [{"bytes": b"x"}, {"bytes": b"y"}], "label": ["normal", "mass"]}
    columns |= {"id": pa.array(numbers, kind), "patient": pa.array([numbers[0], None], kind)}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    source = StreamSource(f"{tmp_path}/*.parquet")
    assert source.records[["id", "patient"]].to_numpy().tolist() == [["3", "3"], ["12", ""]]
    assert read(source) == {"3": b"x", "12": b"y"}


def test_images_may_be_a_column_of_bytes(tmp_path):
    pq.write_table(pa.table({"image": [b"x", b"y"], "label": ["normal", "mass"]}), tmp_path / "a.parquet")
    assert list(read(StreamSource(f"{tmp_path}/*.parquet")).values()) == [b"x", b"y"]


def test_an_image_without_bytes_is_a_problem_of_that_image_alone(tmp_path):
    cells = [
        {"bytes": b"x", "path": None},
        {"bytes": None, "path": "elsewhere.png"},
        None,
        {"bytes": b"y", "path": None},
    ]
    pq.write_table(pa.table({"image": cells, "label": ["normal"] * 4}), tmp_path / "images.parquet")
    got = dict(StreamSource(f"{tmp_path}/*.parquet").contents([f"images.parquet:{row}" for row in range(4)]))
    assert [got["images.parquet:0"](), got["images.parquet:3"]()] == [b"x", b"y"]
    for row in (1, 2):
        with pytest.raises(ImageError, match="is missing from its shard"):
            got[f"images.parquet:{row}"]()


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"label": ["normal"]}, "has no column image; found label"),
        ({"image": [None], "finding": ["Mass"]}, "has no column label; found image, finding"),
        ({"image": [None, None], "label": [0, 1]}, "has labels like 0 without class names"),
        ({"image": ["a.png"], "label": ["normal"]}, "has images as string: expected the bytes of their files"),
        ({"image": [{"path": "a.png"}], "label": ["normal"]}, "has images as struct"),
        (
            {"image": [None, None], "label": ["normal"] * 2, "id": [1, None]},
            "has rows without an id: give one to every",
        ),
        ({"image": [None, None], "label": ["normal"] * 2, "id": ["a", "a"]}, "has the id 'a' in several rows"),
    ],
)
def test_shards_without_images_or_labels_are_refused(tmp_path, columns, words):
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=words):
        StreamSource(f"{tmp_path}/*.parquet")


def test_a_damaged_shard_is_named_as_damaged(shards, tmp_path):
    whole = (shards / "00000-of-00005.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match="it is damaged, or not a parquet file"):
        StreamSource(f"{tmp_path}/*.parquet")


# --- writing


def test_interrupted_writing_continues_and_keeps_finished_shards(drawn, shards, tmp_path):
    class Failing(Drawn):
        def __init__(self):
            self.__dict__ |= drawn.__dict__

        def contents(self, ids):
            for number, pair in enumerate(drawn.contents(ids)):
                if number == 5 and (tmp_path / "00001-of-00005.parquet").exists():
                    raise KeyboardInterrupt
                yield pair

    with pytest.raises(KeyboardInterrupt):
        write_shards(Failing(), drawn.records, str(tmp_path), rows_per_shard=10)
    finished = {file.name: file.stat().st_mtime_ns for file in tmp_path.glob("*.parquet")}
    assert sorted(finished) == ["00000-of-00005.parquet", "00001-of-00005.parquet"]
    with pytest.raises(SourceError, match=r"has no shards\.json, which is written last"):
        StreamSource(str(tmp_path))
    write_shards(drawn, drawn.records, str(tmp_path), rows_per_shard=10)
    assert folder_bytes(tmp_path) == folder_bytes(shards)
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in finished} == finished


@pytest.mark.parametrize("other", ["count", "labels", "seed"])
def test_a_folder_of_other_shards_is_refused_and_unchanged(drawn, tmp_path, other):
    write_shards(drawn, drawn.records, str(tmp_path), rows_per_shard=10)
    before = folder_bytes(tmp_path)
    records = drawn.records.assign(label="normal") if other == "labels" else drawn.records
    rows, seed = 11 if other == "count" else 10, 1 if other == "seed" else 0
    records = records.iloc[:44] if other == "count" else records
    with pytest.raises(SourceError, match=r"holds other shards \(00000-of-00005.parquet, .*choose an empty folder"):
        write_shards(drawn, records, str(tmp_path), rows_per_shard=rows, seed=seed)
    assert folder_bytes(tmp_path) == before


def test_a_folder_that_cannot_be_written_to_is_explained(drawn, server):
    with pytest.raises(SourceError, match=f"{server.url}/new cannot be used"):
        write_shards(drawn, drawn.records, f"{server.url}/new")


def test_an_image_missing_from_the_source_is_an_error(drawn, tmp_path):
    records = pd.concat([drawn.records, drawn.records.tail(1).assign(id="ghost")])

    class Forgetful(Drawn):
        def __init__(self):
            self.__dict__ |= drawn.__dict__

        def contents(self, ids):
            return drawn.contents([image_id for image_id in ids if image_id != "ghost"])

    with pytest.raises(SourceError, match="drawn gave no image for ghost"):
        write_shards(Forgetful(), records, str(tmp_path))


# --- long


@pytest.mark.long
def test_thirty_thousand_images_are_read_once_each_in_little_memory(tmp_path, servers):
    """Images are counted and memory is measured in another process, which reads over loopback HTTP."""
    images = Drawn(1000)
    pixels = [decode(content).pixels for content in images.files.values()]

    class Many:
        name, synthetic, about = "many", True, {"from": "formulas"}

        def contents(self, ids):
            for image_id in ids:
                yield image_id, partial(self.image, int(image_id))

        def image(self, place):
            return encode(np.roll(pixels[place % 1000], place // 1000, axis=1))

        def mask(self, image_id):
            return None

    rows = [
        images.records.assign(id=[f"{place:05d}" for place in range(first, first + 1000)])
        for first in range(0, 30_000, 1000)
    ]
    write_shards(Many(), pd.concat(rows, ignore_index=True), str(tmp_path))
    code = f"""
import hashlib
from lib.data.stream import StreamSource
source = StreamSource({servers(tmp_path).url!r})
seen, size = [], 0
for image_id, read in source.contents(source.records["id"].tolist()):
    seen.append(image_id)
    size += len(read())
assert len(seen) == 30_000 and len(set(seen)) == 30_000, len(seen)
assert size > 60_000_000, size
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
    peak = int(python(code))
    assert peak < 1 << 20, f"{peak} KiB"


TRAINED = """
import sys
from pathlib import Path
from typing import ClassVar
from lib.runs import cli
from lib.data.cache import Cache

behind, memory, read = [], [], Cache.read
def watched(self, rows):
    behind.append(int((~self._done).sum()))  # images still missing when training asks for its next batch
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    memory.append(int(status["RssAnon"].split()[0]))
    return read(self, rows)

Cache.read = watched
assert cli.train([sys.argv[1]]) == 0
print(max(behind), max(memory))
"""


@pytest.mark.long
def test_thirty_thousand_images_over_http_are_trained_on_while_they_arrive_in_less_than_a_gibibyte(tmp_path, servers):
    """Five hundred phantoms, each shifted to sixty places, because drawing thirty thousand would take too long."""
    images = [decode(content).pixels for content in Drawn(500).files.values()]

    class Many:
        name, synthetic, about, problems = "many", True, {"from": "formulas"}, []
        records = pd.DataFrame({"id": [f"{i:05d}" for i in range(30_000)], "finding": "", "split": ""}).assign(
            label=lambda rows: np.where(rows.index % 4 == 3, "abnormal", "normal"),
            **{column: lambda rows: rows["id"] for column in ("patient", "digest", "twin")},
            **dict.fromkeys(("age", "sex", "view"), ""),
        )

        def contents(self, ids):
            for i in ids:
                yield i, lambda i=int(i): encode(np.roll(images[i % 500], i // 500, axis=1))

        def mask(self, image_id):
            return None

    write_shards(Many(), Many.records, str(tmp_path / "images"))
    settings = {"source": "stream", "data_dir": servers(tmp_path / "images").url, "methods": ["unet"], "batch_size": 64}
    settings |= {"image_size": 64, "widths": [4, 8], "epochs": 1, "ra_warmup_epochs": 0}
    (file := tmp_path / "run.yaml").write_text(json.dumps(settings))  # which is YAML too
    finished = subprocess.run(
        [sys.executable, "-c", TRAINED, str(file)], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    behind, peak = map(int, finished.stdout.splitlines()[-1].split())
    assert behind > 20_000  # training began long before all images had arrived
    assert peak < 1 << 20, f"{peak} KiB"  # without the pages of mapped files, which the system reclaims as needed
