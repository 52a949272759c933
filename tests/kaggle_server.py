"""A Kaggle on loopback, for the real kagglehub client, and archives in the layouts of the registered data sets."""

import base64
import gc
import hashlib
import io
import json
import sys
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

import lib.data.kaggle
from lib.data.phantom import radiograph

CREDENTIALS = ("KAGGLE_API_TOKEN", "KAGGLE_API_V1_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY")
MOUNTS = ("TBE_RUNTIME_ADDR", "KAGGLE_KERNEL_RUN_TYPE", "KAGGLE_DATA_PROXY_URL", "COLAB_RELEASE_TAG")


CLIENT_LEAVES_SOCKETS_OPEN = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


class Request(NamedTuple):
    """One line of the server's log."""

    method: str
    path: str
    range: str
    authorization: str


class KaggleServer(ThreadingHTTPServer):
    """Serves `archives` by handle ("owner/name/versions/N", or a competition's name); the switches make it fail."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.archives: dict[str, bytes] = {}
        self.mounted: dict[str, str] = {}  # by handle: the folder's name under the mount; not listed: not mounted
        self.refused: dict[str, int] = {}  # by handle: the status that every request for it is answered with
        self.busy: list[int] = []  # the statuses of the next requests, before any is served
        self.cuts: list[int] = []  # after how many bytes each of the next transfers breaks off
        self.wrong_md5 = False
        self.at_full_speed = threading.Event()  # cleared: transfers trickle until it is set
        self.at_full_speed.set()
        self.log: list[Request] = []

    def handle_error(self, request, client_address) -> None:
        """Say nothing of a client that has gone."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def transfers(self) -> list[Request]:
        """Return the requests for an archive's bytes."""
        return [request for request in self.log if request.method == "GET"]

    def environment(self, folder: Path) -> dict[str, str]:
        """Return what a client needs to talk to this server, and to keep all its files in `folder`."""
        place = {name: str(folder / name.lower()) for name in ("HOME", "KAGGLEHUB_CACHE", "KAGGLE_CONFIG_DIR")}
        proxy = {"http_proxy": f"http://127.0.0.1:{self.server_port}", "no_proxy": "", "NO_PROXY": ""}
        ours = {"IMGAE_DX_CACHE": str(folder / "imgae"), "KAGGLEHUB_VERBOSITY": "error"}
        return place | proxy | ours | {"KAGGLE_API_ENVIRONMENT": "LOCALHOST"}

    def colab(self, mount: Path) -> dict[str, str]:
        """Return what marks a Colab machine whose mounts lie in `mount`."""
        return {"TBE_RUNTIME_ADDR": f"127.0.0.1:{self.server_port}", "COLAB_CACHE_MOUNT_FOLDER": str(mount)}

    def kaggle_notebook(self, mount: Path) -> dict[str, str]:
        """Return what marks a Kaggle notebook whose mounts lie in `mount`."""
        return {
            "KAGGLE_KERNEL_RUN_TYPE": "Interactive",
            "KAGGLE_DATA_PROXY_URL": f"http://127.0.0.1:{self.server_port}",
            "KAGGLE_CACHE_MOUNT_FOLDER": str(mount),
            "KAGGLE_USER_SECRETS_TOKEN": "secret",
            "KAGGLE_DATA_PROXY_TOKEN": "token",
        }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: KaggleServer

    def log_message(self, *_) -> None:
        pass

    def _note(self) -> str:
        path = urlsplit(self.path).path  # the client sees a proxy: it sends whole addresses
        headers = (self.headers.get(name, "") for name in ("Range", "Authorization"))
        self.server.log.append(Request(self.command, path, *headers))
        return path

    def _json(self, status: int, content: dict) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _error(self, status: int) -> None:
        self._json(status, {"code": status, "message": f"answer {status}"})

    def do_POST(self) -> None:
        path = self._note()
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        if self.server.busy:
            return self._error(self.server.busy.pop(0))
        if path.startswith("/kagglehub/datasets/"):  # Colab
            name = self.server.mounted.get(f"{asked['owner']}/{asked['dataset']}/versions/{asked['version']}")
            return self._json(200, {"slug": name}) if name else self._error(404)
        if path.endswith("/AttachDatasourceUsingJwtRequest"):  # a Kaggle notebook
            if "competitionRef" in asked:
                handle = asked["competitionRef"]["CompetitionSlug"]
            else:
                ref = asked["datasetRef"]
                handle = f"{ref['OwnerSlug']}/{ref['DatasetSlug']}/versions/{ref['VersionNumber']}"
            return self._json(200, {"wasSuccessful": True, "result": {"mountSlug": self.server.mounted[handle]}})
        if path.endswith("CompetitionApiService/DownloadDataFiles"):
            handle = asked["competitionName"]
        else:
            assert path.endswith("DatasetApiService/DownloadDataset"), path
            handle = f"{asked['ownerSlug']}/{asked['datasetSlug']}/versions/{asked['datasetVersionNumber']}"
        if handle in self.server.refused or handle not in self.server.archives:
            return self._error(self.server.refused.get(handle, 404))
        self.send_response(302)
        self.send_header("Location", f"http://localhost/blob/{handle}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        whole = self.server.archives[self._note().removeprefix("/blob/")]
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        md5 = hashlib.md5(b"other" if self.server.wrong_md5 else whole).digest()
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(whole) - start))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("x-goog-hash", f"crc32c=AAAAAA==,md5={base64.b64encode(md5).decode()}")
        self.send_header("Last-Modified", "Wed, 01 Jan 2020 00:00:00 GMT")
        self.end_headers()
        body = whole[start:]
        if self.server.cuts:
            body = body[: self.server.cuts.pop(0)]
            self.close_connection = True
        try:
            sent = 0
            while not self.server.at_full_speed.wait(0.1):
                sent += self.wfile.write(body[sent : sent + 64])
            self.wfile.write(body[sent:])
        except OSError:  # the client has read the headers only, and asks again for a range
            self.close_connection = True


@contextmanager
def serving(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[KaggleServer]:
    """Run the server for as long as the block lasts; the client of this process keeps all its files in `folder`."""
    server = KaggleServer()
    for name in (*CREDENTIALS, *MOUNTS):
        patch.delenv(name, raising=False)
    for name, value in server.environment(folder).items():
        patch.setenv(name, value)
    patch.setattr("lib.data.kaggle.FIRST_WAIT", 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        gc.collect()  # what the client has left open belongs to this test


def fetch(handle: str) -> Path:
    """Fetch in a thread of its own: kagglehub reads the source of all its callers, which under pytest are many."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lib.data.kaggle.fetch, handle).result()


def archive(files: dict[str, bytes]) -> bytes:
    """Return a zip of these files, as Kaggle makes them."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return packed.getvalue()


def noise(mebibytes: float) -> bytes:
    """Return bytes that do not compress."""
    return np.random.default_rng(0).bytes(int(mebibytes * 2**20))


def image(number: int, kind: str = "png", size: int = 64) -> bytes:
    """Return the file of a phantom, another one for each number."""
    pixels = np.round(radiograph(number, size=size).image * 255).astype(np.uint8)
    if kind == "dcm":
        return _dicom(pixels, number)
    packed = io.BytesIO()
    Image.fromarray(pixels).save(packed, kind)
    return packed.getvalue()


def _dicom(pixels: np.ndarray, number: int) -> bytes:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.pixels import set_pixel_data
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.SOPClassUID = SecondaryCaptureImageStorage
    header.SOPInstanceUID = generate_uid(entropy_srcs=[str(number)])
    header.PatientAge, header.PatientSex, header.ViewPosition, header.Modality = f"{40 + number:03}Y", "F", "PA", "CR"
    set_pixel_data(header, pixels, "MONOCHROME2", 8)
    packed = io.BytesIO()
    header.save_as(packed, enforce_file_format=True)
    return packed.getvalue()


def _images(names: Iterable[str], kind: str = "png", size: int = 64) -> dict[str, bytes]:
    return {name: image(i, kind, size) for i, name in enumerate(names)}


def rsna() -> dict[str, bytes]:
    rows = """patientId,x,y,width,height,Target,class,age,sex,modality,position
        a0,,,,,0,Normal,51,F,CR,PA
        b1,264.0,152.0,213.0,379.0,1,Lung Opacity,62,M,CR,AP
        b1,562.0,152.0,256.0,453.0,1,Lung Opacity,62,M,CR,AP
        c2,,,,,0,No Lung Opacity / Not Normal,148,M,CR,PA"""
    names = [f"Training/{folder}/{image}.png" for folder in ("Images", "Masks") for image in ("a0", "b1", "c2")]
    test = "patientId,PredictionString,age,sex,modality,position\nt3,0.5 0 0 100 100,44,M,CR,PA\n"
    tables = {"stage2_train_metadata.csv": _csv(rows), "stage2_test_metadata.csv": test.encode()}
    return tables | _images([*names, "Test/t3.png"])


def rsna_dicom() -> dict[str, bytes]:
    classes = "patientId,class\na0,Normal\nb1,Lung Opacity\nb1,Lung Opacity\nc2,No Lung Opacity / Not Normal"
    labels = """patientId,x,y,width,height,Target
        a0,,,,,0
        b1,264.0,152.0,213.0,379.0,1
        b1,562.0,152.0,256.0,453.0,1
        c2,,,,,0"""
    tables = {
        "stage_2_detailed_class_info.csv": _csv(classes),
        "stage_2_train_labels.csv": _csv(labels),
        "stage_2_sample_submission.csv": b"patientId,PredictionString\nt3,0.5 0 0 100 100\n",
        "GCP Credits Request Link - RSNA.txt": b"",
    }
    images = [f"stage_2_train_images/{image}.dcm" for image in ("a0", "b1", "c2")]
    return tables | _images([*images, "stage_2_test_images/t3.dcm"], "dcm")


def kermany() -> dict[str, bytes]:
    names = [
        "test/NORMAL/IM-0001-0001.jpeg",
        "test/PNEUMONIA/person101_bacteria_483.jpeg",
        "train/NORMAL/IM-0115-0001.jpeg",
        "train/NORMAL/NORMAL2-IM-0115-0001-0002.jpeg",
        "train/PNEUMONIA/person101_virus_187.jpeg",
        "train/PNEUMONIA/person101_virus_188.jpeg",
        "val/NORMAL/NORMAL2-IM-1427-0001.jpeg",
        "val/PNEUMONIA/person1946_bacteria_4874.jpeg",
    ]
    images = _images(names, "jpeg")
    nested = {
        f"chest_xray/{folder}{name}": content for folder in ("", "chest_xray/") for name, content in images.items()
    }
    rubbish = {
        f"chest_xray/__MACOSX/chest_xray/{name.replace('IM-', '._IM-').replace('person', '._person')}": b"\0\5\26\7"
        for name in names
    }
    return nested | rubbish | {"chest_xray/chest_xray/.DS_Store": b"", "chest_xray/train/NORMAL/.DS_Store": b""}


def nih() -> dict[str, bytes]:
    rows = """Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,\
OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],
        00000001_000.png,Cardiomegaly,0,1,58,M,PA,2682,2749,0.143,0.143,
        00000001_001.png,Cardiomegaly|Emphysema,1,1,58,M,PA,2894,2729,0.143,0.143,
        00000002_000.png,No Finding,0,2,411,F,AP,2500,2048,0.168,0.168,
        00030805_000.png,No Finding,0,30805,27,M,PA,2048,2500,0.171,0.171,"""
    boxes = "Image Index,Finding Label,Bbox [x,y,w,h],,,\n00000001_001.png,Cardiomegaly,225.08,547.02,86.78,79.19,,,\n"
    tables = {
        "Data_Entry_2017.csv": _csv(rows),
        "BBox_List_2017.csv": boxes.encode(),
        "train_val_list.txt": b"00000002_000.png\n00030805_000.png\n",
        "test_list.txt": b"00000001_000.png\n00000001_001.png\n",
        "README_CHESTXRAY.pdf": b"%PDF",
    }
    places = {"images_001": ["00000001_000", "00000001_001", "00000002_000"], "images_012": ["00030805_000"]}
    return tables | _images(f"{folder}/images/{name}.png" for folder, names in places.items() for name in names)


def nih_sample() -> dict[str, bytes]:
    rows = """Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,\
OriginalImageWidth,OriginalImageHeight,OriginalImagePixelSpacing_x,OriginalImagePixelSpacing_y
        00000013_005.png,Emphysema|Infiltration|Pleural_Thickening|Pneumothorax,005,00000013,060Y,M,AP,3056,2544,0.1,0.1
        00000017_001.png,No Finding,001,00000017,011M,F,PA,2048,2500,0.1,0.1"""
    one = {"sample_labels.csv": _csv(rows)} | {
        f"images/{name}": content for name, content in _images(["00000013_005.png", "00000017_001.png"]).items()
    }
    twice = {f"sample/{folder}{name}": content for folder in ("", "sample/") for name, content in one.items()}
    return {"sample_labels.csv": _csv(rows)} | twice


def vinbigdata() -> dict[str, bytes]:
    rows = """image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max,width,height
        50a4,No finding,14,R11,,,,,2080,2336
        50a4,No finding,14,R10,,,,,2080,2336
        50a4,No finding,14,R9,,,,,2080,2336
        9a5c,Cardiomegaly,3,R10,512.0,1024.0,1536.0,1280.0,2048,2560
        9a5c,Aortic enlargement,0,R9,1024.0,512.0,1280.0,768.0,2048,2560
        9a5c,Cardiomegaly,3,R8,512.0,1024.0,1536.0,1280.0,2048,2560"""
    names = ("train/50a4.png", "train/9a5c.png", "test/0d1b.png")
    return {"vinbigdata/train.csv": _csv(rows)} | _images((f"vinbigdata/{name}" for name in names), size=512)


def _csv(rows: str) -> bytes:
    return "\n".join(line.strip() for line in rows.splitlines()).encode() + b"\n"


LAYOUTS: dict[str, Callable[[], dict[str, bytes]]] = {
    "rsna": rsna,
    "rsna-dicom": rsna_dicom,
    "kermany": kermany,
    "nih": nih,
    "nih-sample": nih_sample,
    "vinbigdata": vinbigdata,
}
