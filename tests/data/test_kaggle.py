"""Downloads from Kaggle: the real kagglehub client against a server on loopback."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import kagglehub
import pytest
from kaggle_server import CLIENT_LEAVES_SOCKETS_OPEN, KaggleServer, archive, fetch, noise, serving
from listed import read_only

import lib.data.kaggle
from lib.data.kaggle import TRIES
from lib.data.source import SourceError

pytestmark = CLIENT_LEAVES_SOCKETS_OPEN
ROOT = Path(__file__).resolve().parents[2]
DATA = "some/images/versions/3"
COMPETITION = "some-challenge"
FILES = {"table.csv": b"id,label\na,normal\n", "images/a.png": noise(0.1), "images/b.png": noise(0.2)}


@pytest.fixture
def kaggle(tmp_path, monkeypatch):
    with serving(tmp_path, monkeypatch) as server:
        server.archives = {DATA: archive(FILES), COMPETITION: archive(FILES)}
        yield server


def contents(root: Path) -> dict[str, bytes]:
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in root.rglob("*") if file.is_file()}


def snapshot(root: Path) -> dict[str, tuple[int, int, int]]:
    """Sizes and times of everything in the folder: what a change would alter."""
    stats = {path: path.stat() for path in (root, *root.rglob("*"))}
    return {str(path): (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for path, stat in stats.items()}


def refusal(handle: str) -> str:
    with pytest.raises(SourceError) as caught:
        fetch(handle)
    return str(caught.value)


def with_account(monkeypatch) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", "token")


def test_a_data_set_needs_one_transfer_and_no_account(kaggle):
    assert contents(fetch(DATA)) == FILES
    assert [(request.method, request.authorization) for request in kaggle.log] == [("POST", ""), ("GET", "")]


def test_a_competition_needs_the_accounts_token(kaggle, monkeypatch):
    with_account(monkeypatch)
    assert contents(fetch(COMPETITION)) == FILES
    assert kaggle.log[0].authorization == "Bearer token"


def test_an_existing_data_set_needs_no_network(kaggle):
    root = fetch(DATA)
    kaggle.shutdown()
    kaggle.server_close()
    requests = len(kaggle.log)
    assert fetch(DATA) == root
    assert len(kaggle.log) == requests


def test_a_file_in_the_place_of_kagglehubs_cache_is_named(kaggle, tmp_path, monkeypatch):
    (file := tmp_path / "file").touch()
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(file))
    assert f"a part of the path {file}" in refusal(DATA)


def test_three_processes_at_once_share_one_transfer(kaggle, tmp_path):
    kaggle.at_full_speed.clear()
    code = f"from lib.data.kaggle import fetch; print(fetch({DATA!r}))"
    errors, started = [tmp_path / f"{i}.err" for i in range(3)], []
    for error in errors:
        with error.open("w") as file:
            command = [sys.executable, "-c", code]
            started += [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=file, text=True)]
    waiting = f"another process is fetching {DATA}: waiting for it"
    for _ in range(1_000):  # until the others are waiting, or long enough
        if sum(waiting in error.read_text() for error in errors) == 2:
            break
        time.sleep(0.05)
    kaggle.at_full_speed.set()
    printed = {process.communicate()[0] for process in started}
    assert [process.returncode for process in started] == [0, 0, 0], [error.read_text() for error in errors]
    assert len(kaggle.transfers()) == 1
    assert printed == {f"{fetch(DATA)}\n"}


def test_a_cut_transfer_continues_where_it_stopped(kaggle):
    files = {"a.bin": noise(3)}
    kaggle.archives[DATA] = archive(files)
    kaggle.cuts = [int(1.5 * 2**20)]
    assert contents(fetch(DATA)) == files
    assert [request.range for request in kaggle.transfers()] == ["", "", f"bytes={2**20}-"]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(kaggle, status):
    kaggle.busy = [status] * (TRIES - 1)
    assert contents(fetch(DATA)) == FILES


def test_a_server_that_stays_busy_is_named_with_its_answer(kaggle):
    kaggle.busy = [429] * TRIES
    assert refusal(DATA) == (
        f"Kaggle answers 429 when asked for the dataset {DATA}: run again later, "
        "or set data_dir to a folder that holds it"
    )


def test_each_further_try_waits_twice_as_long(kaggle, monkeypatch):
    waits = []
    monkeypatch.setattr("lib.data.kaggle.FIRST_WAIT", 2.0)
    monkeypatch.setattr("tenacity.nap.time.sleep", waits.append)
    kaggle.busy = [503] * (TRIES - 1)
    fetch(DATA)
    assert waits == [2, 4, 8, 16]


def test_a_transfer_that_is_always_cut_can_be_continued(kaggle):
    kaggle.archives[DATA] = archive({"a.bin": noise(3)})
    kaggle.cuts = [0] * 2 * TRIES
    assert refusal(DATA) == (
        f"the transfer of {DATA} was interrupted 5 times: run again to continue where it stopped, "
        "or set data_dir to a folder that holds it"
    )


def test_an_unknown_data_set_is_named_with_its_page(kaggle):
    assert refusal("some/image/versions/3") == (
        "Kaggle has no dataset some/image/versions/3 (404): compare name and version with "
        "https://www.kaggle.com/datasets/some/image, or set data_dir to a folder that holds it"
    )
    assert len(kaggle.log) == 1


def test_rules_not_accepted_are_named_with_their_page(kaggle, monkeypatch):
    with_account(monkeypatch)
    kaggle.refused[COMPETITION] = 403
    assert refusal(COMPETITION) == (
        "Kaggle refuses this account access to the competition some-challenge (403): accept its rules at "
        "https://www.kaggle.com/competitions/some-challenge/rules and run again, "
        "or set data_dir to a folder that holds it"
    )


def test_missing_consent_is_named_with_its_page(kaggle):
    kaggle.refused[DATA] = 403
    assert refusal(DATA) == (
        f"Kaggle refuses this account access to the dataset {DATA} (403): log in and give consent at "
        "https://www.kaggle.com/datasets/some/images and run again, or set data_dir to a folder that holds it"
    )


NO_CREDENTIALS = (
    "Kaggle requires an account for the competition some-challenge, and no valid credentials were found: "
    "make a token at https://www.kaggle.com/settings/api and set KAGGLE_API_TOKEN to it (in Colab a secret), "
    "or set data_dir to a folder that holds it"
)


def test_a_competition_without_credentials_says_where_to_get_them(kaggle):
    assert refusal(COMPETITION) == NO_CREDENTIALS
    assert kaggle.log == []


def test_unknown_credentials_count_as_none(kaggle, monkeypatch):
    with_account(monkeypatch)
    kaggle.refused[COMPETITION] = 401
    assert refusal(COMPETITION) == NO_CREDENTIALS


@pytest.mark.parametrize("proxy", [True, False])
def test_without_a_network_the_sentence_names_the_cache_at_once(kaggle, tmp_path, monkeypatch, proxy):
    kaggle.shutdown()
    kaggle.server_close()
    if not proxy:
        monkeypatch.delenv("http_proxy")
        monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "TEST")  # port 7777 of this machine, where nothing listens
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: pytest.fail("it waited"))
    assert refusal(DATA) == (
        f"Kaggle cannot be reached, and {DATA} is not in {tmp_path}/kagglehub_cache/datasets/some/images: "
        "connect to the internet and run again, or set data_dir to a folder that holds it"
    )


DAMAGED = (
    f"the archive of {DATA} arrived damaged and was deleted: run again to download it once more, "
    "or set data_dir to a folder that holds it"
)


def test_a_wrong_checksum_is_reported_and_the_next_run_downloads_again(kaggle):
    kaggle.wrong_md5 = True
    assert refusal(DATA) == DAMAGED
    kaggle.wrong_md5 = False
    assert contents(fetch(DATA)) == FILES
    assert [request.range for request in kaggle.transfers()] == ["", ""]


def test_a_damaged_archive_is_deleted(kaggle, tmp_path):
    left = tmp_path / "kagglehub_cache" / "datasets" / "some" / "images" / "3.archive"
    left.parent.mkdir(parents=True)
    left.write_bytes(noise(1)[: len(kaggle.archives[DATA])])
    assert refusal(DATA) == DAMAGED
    assert contents(fetch(DATA)) == FILES


def test_a_full_disk_is_named(kaggle, tmp_path):
    place = tmp_path / "kagglehub_cache" / "datasets" / "some" / "images"
    place.mkdir(parents=True)
    (place / "3.archive").symlink_to("/dev/full")
    assert refusal(DATA).startswith(f"the disk of {place} is full, and {DATA} needs space twice")


def spoil(root: Path, how: str) -> None:
    file = root / "images" / "a.png"
    if how == "missing":
        file.unlink()
    elif how == "folder missing":
        shutil.rmtree(file.parent)
    else:
        file.write_bytes(noise(0.1)[::-1])  # as large as before
        os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))


@pytest.mark.parametrize(
    ("how", "found"),
    [
        ("missing", "1 files of {} are missing from {} and 0 have changed, first images/a.png"),
        ("folder missing", "2 files of {} are missing from {} and 0 have changed, first images/a.png"),
        ("changed", "0 files of {} are missing from {} and 1 have changed, first images/a.png"),
    ],
)
@pytest.mark.parametrize("handle", [DATA, COMPETITION])
def test_files_missing_or_changed_since_the_download_are_named_with_the_repair(kaggle, monkeypatch, handle, how, found):
    with_account(monkeypatch)
    root = fetch(handle)
    spoil(root, how)
    message = refusal(handle)
    start, _, call = message.rpartition(": ")
    assert start == found.format(handle, root)
    assert refusal(handle) == message
    exec(call.removeprefix("download it again with ").strip("`"), {"kagglehub": kagglehub})  # as the message says
    assert contents(fetch(handle)) == FILES


def test_the_data_folder_stays_as_kagglehub_left_it(kaggle, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("IMGAE_DX_CACHE", os.environ["IMGAE_DX_CACHE"] + "-other")
        root = fetch(DATA)
    before = snapshot(root)
    for _ in range(2):
        fetch(DATA)
    assert snapshot(root) == before


@pytest.fixture
def mount(tmp_path):
    """A read-only mount with the data set, as on Colab and Kaggle, without a folder of versions."""
    folder = tmp_path / "mount" / "images"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    places = [folder, *folder.rglob("*")]
    for place in places:
        place.chmod(0o555 if place.is_dir() else 0o444)
    yield folder
    for place in places:
        place.chmod(0o755)


@pytest.mark.parametrize(
    ("machine", "handle"), [("colab", DATA), ("kaggle_notebook", DATA), ("kaggle_notebook", COMPETITION)]
)
def test_a_mount_is_used_without_a_check(kaggle: KaggleServer, monkeypatch, mount, machine, handle):
    kaggle.mounted[handle] = mount.name
    for name, value in getattr(kaggle, machine)(mount.parent).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(lib.data.kaggle, "_check", lambda *_: pytest.fail("a mount was listed"))
    before = snapshot(mount)
    assert [fetch(handle) for _ in range(2)] == [mount, mount]
    assert snapshot(mount) == before
    assert kaggle.transfers() == []


@pytest.mark.parametrize("fetched_before", [True, False])
def test_a_data_set_is_fetched_beside_a_cache_that_cannot_be_written(kaggle, monkeypatch, reachable, fetched_before):
    theirs = reachable / "kagglehub"
    theirs.mkdir(mode=0o777)
    theirs.chmod(0o777)
    places = {"KAGGLEHUB_CACHE": theirs, "KAGGLE_CONFIG_DIR": theirs, "HOME": theirs}
    for name, place in {**places, "IMGAE_DX_CACHE": reachable / "ours"}.items():
        monkeypatch.setenv(name, str(place))
    (reachable / "ours").mkdir()
    if fetched_before:
        fetch(DATA)
        for path in theirs.rglob("*"):
            path.chmod(0o777)
    with read_only(reachable / "ours"):
        assert contents(fetch(DATA)) == FILES
    assert bool([*(reachable / "ours").rglob("*.json")]) == fetched_before


def test_colab_downloads_what_it_does_not_mount(kaggle, monkeypatch, tmp_path):
    for name, value in kaggle.colab(tmp_path / "mount").items():
        monkeypatch.setenv(name, value)
    assert contents(fetch(DATA)) == FILES


def test_another_error_is_not_hidden(kaggle):
    with pytest.raises(ValueError, match="Invalid dataset handle"):
        fetch("some/images/3")
