"""A data set or competition from Kaggle on disk, through kagglehub: one download at a time, retried and checked.

kagglehub downloads, finds the read-only mounts of Colab and Kaggle, and shows progress. This module adds a lock,
retries, a check of the files of an earlier download, and errors that say what to do. It writes nothing into the data
folder.
"""

import errno
import json
import os
import tarfile
import zipfile
import zlib
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import kagglehub
import requests
from kagglehub.config import get_cache_folder
from kagglehub.exceptions import DataCorruptionError, UnauthenticatedError
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential
from urllib3.exceptions import MaxRetryError

from lib.data.source import SourceError, cache_folder
from lib.files import locked, write_json
from lib.network import refused_certificate

TRIES = 5
FIRST_WAIT = 2.0  # seconds before the second try; doubled before each further one
DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError)


def fetch(handle: str) -> Path:
    """Return the folder of the data set "owner/name/versions/N", or of the competition with that bare name.

    It is downloaded if necessary; an existing data set needs no network. Files that kagglehub has downloaded are
    compared with their names, sizes and times right after the download.

    Raises:
        SourceError: It is not available, or files are missing or changed; the message says what to do.

    """
    ours = cache_folder() / "kaggle"
    with suppress(OSError):  # a cache that cannot be written has neither locks nor lists of files
        ours.mkdir(parents=True, exist_ok=True)
    writable = os.access(ours, os.W_OK, effective_ids=os.access in os.supports_effective_ids)
    name, theirs = handle.replace("/", "-"), Path(get_cache_folder())
    kind = "dataset" if "/" in handle else "competition"
    place = theirs / f"{kind}s" / handle.replace("/versions/", "/")  # kagglehub puts .archive and .complete to this
    stop, wait = stop_after_attempt(TRIES), wait_exponential(FIRST_WAIT)
    with locked(ours / f"{name}.lock", f"is fetching {handle}") if writable else nullcontext():
        try:
            again = Retrying(retry=retry_if_exception(_may_pass), stop=stop, wait=wait, reraise=True)
            root = Path(again(getattr(kagglehub, f"{kind}_download"), handle))
        except Exception as error:
            if advice := _advice(handle, kind, place, error):
                raise SourceError(f"{advice}, or set data_dir to a folder that holds it") from error
            raise
        if root.is_relative_to(theirs):  # a mount is slow to list, and we could not repair it
            _check(handle, kind, root, Path(f"{place}.complete"), ours / f"{name}.json", writable)
    return root


def _may_pass(error: BaseException) -> bool:
    """Whether another try may succeed: the server is busy, or the transfer was interrupted or stalled."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return error.response.status_code == 429 or error.response.status_code >= 500
    never_connected = isinstance(next(iter(error.args), None), MaxRetryError)
    cut = isinstance(error, requests.ConnectionError | requests.exceptions.ChunkedEncodingError)
    return cut and not never_connected


def _advice(handle: str, kind: str, place: Path, error: Exception) -> str:
    """Return what was found and what to do, or "" for an unknown error."""
    page = f"https://www.kaggle.com/{kind}s/{handle.partition('/versions/')[0]}"
    answer = error.response if isinstance(error, requests.HTTPError) else None
    status = answer.status_code if answer is not None else None
    if isinstance(error, UnauthenticatedError) or status == 401:
        key = "make a token at https://www.kaggle.com/settings/api and set KAGGLE_API_TOKEN to it (in Colab a secret)"
        return f"Kaggle requires an account for the {kind} {handle}, and no valid credentials were found: {key}"
    if status == 403:
        todo = f"accept its rules at {page}/rules" if kind == "competition" else f"log in and give consent at {page}"
        return f"Kaggle refuses this account access to the {kind} {handle} (403): {todo} and run again"
    if status == 404:
        return f"Kaggle has no {kind} {handle} (404): compare name and version with {page}"
    if status:
        return f"Kaggle answers {status} when asked for the {kind} {handle}: run again later"
    if isinstance(error, requests.RequestException) and _may_pass(error):
        return f"the transfer of {handle} was interrupted {TRIES} times: run again to continue where it stopped"
    if refused := refused_certificate(error):
        return f"Kaggle cannot be reached: {refused}"
    if isinstance(error, requests.RequestException):
        return f"Kaggle cannot be reached, and {handle} is not in {place.parent}: connect to the internet and run again"
    if getattr(error, "errno", None) == errno.ENOSPC:
        return f"the disk of {place.parent} is full, and {handle} needs space twice: set KAGGLEHUB_CACHE to another one"
    if isinstance(error, NotADirectoryError | FileExistsError):
        return f"a part of the path {place.parent} is a file: move it away, set KAGGLEHUB_CACHE to another folder"
    if isinstance(error, (DataCorruptionError, *DAMAGED)) or str(error) == "Unsupported archive type.":
        Path(f"{place}.archive").unlink(missing_ok=True)  # otherwise kagglehub would believe it complete
        return f"the archive of {handle} arrived damaged and was deleted: run again to download it once more"
    return ""


def _check(handle: str, kind: str, root: Path, marker: Path, manifest: Path, writable: bool) -> None:
    """Compare the files with those of the download that `marker` dates; after a new download, record them if we can."""
    known: dict[str, Any] = json.loads(manifest.read_text("utf-8")) if manifest.is_file() else {"downloaded": 0}
    new = known["downloaded"] != (downloaded := marker.stat().st_mtime_ns)
    names = [file.relative_to(root).as_posix() for file in root.rglob("*")] if new else known["files"]
    stats = {name: os.stat(f"{root}/{name}") for name in names if os.path.isfile(f"{root}/{name}")}
    states = {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}
    if new:
        return write_json(manifest, {"downloaded": downloaded, "files": states}) if writable else None
    if wrong := [name for name, state in known["files"].items() if states.get(name) != state]:
        missing = len(names) - len(states)
        raise SourceError(
            f"{missing} files of {handle} are missing from {root} and {len(wrong) - missing} have changed, "
            f"first {wrong[0]}: download it again with "
            f'`import kagglehub; kagglehub.{kind}_download("{handle}", force_download=True)`'
        )
