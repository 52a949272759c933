"""The cache: every image is prepared alike and once, and an incomplete cache is never trusted."""

import errno
import fcntl
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from listed import Gated, Listed, expected, filled, images, listed, read_only

import lib.data.cache
from lib.data.cache import PASSING, Cache, CachedImages
from lib.data.decoding import decode
from lib.data.picture import Decoded, ImageError
from lib.data.preparation import Preparation
from lib.data.source import SourceError


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(lib.data.cache, "CHUNK", 4)


def test_cached_images_equal_prepared_ones_and_are_prepared_once(tmp_path):
    source = listed(11)
    for _ in range(2):
        np.testing.assert_array_equal(images(filled(source, tmp_path)), expected(11))
    assert source.reads == [f"i{i}" for i in range(11)]


@pytest.mark.parametrize("name", ["pixels.npy", "rows.jsonl", "lock"])
def test_a_link_in_a_cache_is_replaced_and_its_target_stays_as_it_is(tmp_path, name):
    target, source = tmp_path / "theirs", listed(5)
    folder = filled(source, tmp_path / "caches").folder
    content = (folder / name).read_bytes()
    target.write_bytes(content + b"theirs" * (name != "pixels.npy"))
    before = target.read_bytes()
    (folder / name).unlink()
    (folder / name).symlink_to(target)
    if name == "pixels.npy":
        (folder / "rows.jsonl").unlink()  # so that all pixels are written again
    np.testing.assert_array_equal(images(filled(source, tmp_path / "caches")), expected(5))
    assert target.read_bytes() == before
    assert not (folder / name).is_symlink()


def test_images_are_read_like_an_array(tmp_path):
    cache, whole = filled(listed(9), tmp_path), expected(9)
    stack, rows = CachedImages(cache, np.array([8, 3, 5, 0])), [8, 3, 5, 0]
    assert (len(stack), stack.shape) == (4, (4, 16, 16))
    for key in (2, slice(1, 3), [0, 3], np.array([3, 1]), slice(None)):
        np.testing.assert_array_equal(stack[key], whole[rows][key])
    np.testing.assert_array_equal(stack.of(np.array([1, 0])), whole[[3, 8]])
    assert stack[:].dtype == np.uint8


def test_other_images_sizes_orders_names_and_preparations_have_other_folders(tmp_path):
    a, b = listed(3), listed(3, name="listed-2")
    turned, fewer = Listed(dict(reversed(a.images.items()))), listed(2)
    kinds = [Preparation(16), Preparation(8), Preparation(16, (0, 100)), Preparation(16, square="squash")]
    folders = {Cache(a, kind, tmp_path).folder for kind in kinds}
    folders |= {Cache(source, Preparation(16), tmp_path).folder for source in (b, turned, fewer)}
    assert len(folders) == 7


def test_an_unusable_image_is_black_and_has_a_problem_and_a_digest(tmp_path):
    source = listed(3)
    source.images["i1"] = b"<html>not found</html>"
    cache = filled(source, tmp_path)
    assert not images(cache)[1].any() and images(cache)[[0, 2]].any(axis=(1, 2)).all()
    assert [bool(cache.rows[i]["problem"]) for i in range(3)] == [False, True, False]
    assert len({cache.rows[i]["digest"] for i in range(3)}) == 3


class Interrupted(Listed):
    """Reading ends after six images, as if the network or the process had failed."""

    def contents(self, ids: Sequence[str]) -> Iterator[tuple[str, Callable[[], bytes]]]:
        for number, item in enumerate(super().contents(ids)):
            if number == 6:
                raise KeyboardInterrupt
            yield item


def test_an_interrupted_cache_continues_where_it_stopped(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        filled(Interrupted(listed(11).images), tmp_path)
    source = listed(11)
    np.testing.assert_array_equal(images(filled(source, tmp_path)), expected(11))
    assert source.reads == [f"i{i}" for i in range(4, 11)]  # one chunk of four was done


def test_a_source_that_ends_early_is_an_error_and_its_rows_are_kept(tmp_path):
    source, whole = listed(6), listed(6)
    source.contents = lambda ids: Listed.contents(source, ids[:5])
    with pytest.raises(SourceError, match="ended before 1 of 6 images had arrived"):
        filled(source, tmp_path)
    filled(whole, tmp_path)
    assert whole.reads == ["i5"]


KILLED = """
import os, signal, sys
sys.path += ['.', 'tests/data']
import lib.data.cache, test_cache as own
lib.data.cache.CHUNK = 4
source, fsync, calls = own.listed(40), os.fsync, []
def kill(number):
    calls.append(number)
    if len(calls) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(number)
os.fsync = kill
own.filled(source, own.Path(sys.argv[1]))
"""


@pytest.mark.parametrize("call", [1, 2, 7, 8])
def test_a_killed_cache_is_completed_with_no_image_lost_or_wrong(tmp_path, call):
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path, str(call)], cwd=Path(__file__).parents[2])
    assert killed.returncode == -signal.SIGKILL
    source = listed(40)
    np.testing.assert_array_equal(images(filled(source, tmp_path)), expected(40))
    assert len(source.reads) == len(set(source.reads)) <= 40


WORDS = {
    "a row beyond the end": (b'"row": 3', b'"row": 11'),
    "a row before the start": (b'"row": 3', b'"row": -1'),
    "a row in words": (b'"row": 3', b'"row": "3"'),
    "a line without its digest": (b'{"row": 3, "crc32"', b'{"row": 3, "was": "digest", "crc33"'),
    "a problem that is no text": (b'"problem": ""', b'"problem": null'),
    "a header that is none": (b'"header": {}', b'"header": []'),
    "a header of numbers": (b'"header": {}', b'"header": {"age": 4}'),
    "a width in words": (b'"width": 30', b'"width": "30"'),
}
A_LINE = ["a cut line", "a broken line", "pixels that are zero", "a flipped bit", *WORDS]


@pytest.mark.parametrize("damage", ["truncated", "gone", "of another shape", "no journal", *A_LINE])
def test_a_damaged_cache_is_noticed_and_made_again(tmp_path, damage):
    cache = filled(listed(11), tmp_path)
    pixels, journal = cache.folder / "pixels.npy", cache.folder / "rows.jsonl"
    if damage == "truncated":
        os.truncate(pixels, pixels.stat().st_size - 100)
    elif damage == "gone":
        pixels.unlink()
    elif damage == "of another shape":
        np.save(pixels, np.zeros((11, 8, 8), dtype=np.uint8))
    elif damage == "a cut line":
        journal.write_bytes(journal.read_bytes()[:-7])
    elif damage == "a broken line":
        journal.write_bytes(b"\0" * 9 + b"\n" + journal.read_bytes().split(b"\n", 1)[1])
    elif damage in WORDS:
        lines = journal.read_bytes().split(b"\n")
        lines[3] = lines[3].replace(*WORDS[damage])
        journal.write_bytes(b"\n".join(lines))
    elif damage == "pixels that are zero":
        pixels.write_bytes(pixels.read_bytes()[: -16 * 16] + bytes(16 * 16))
    elif damage == "a flipped bit":
        whole = bytearray(pixels.read_bytes())
        whole[-1000] ^= 1
        pixels.write_bytes(whole)
    else:
        journal.unlink()
    source = listed(11)
    np.testing.assert_array_equal(images(filled(source, tmp_path)), expected(11))
    assert len(source.reads) == (1 if damage in A_LINE else 11)


def _fill_slowly(folder: Path, out) -> None:
    source = listed(12)
    cache = Cache(source, Preparation(16), folder)
    cache.fill()
    out.put((len(source.reads), images(cache).tobytes()))


def test_processes_that_start_at_once_share_one_cache(tmp_path):
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    processes = [context.Process(target=_fill_slowly, args=(tmp_path, out)) for _ in range(3)]
    for process in processes:
        process.start()
    results = [out.get(timeout=600) for _ in processes]
    for process in processes:
        process.join()
    assert sum(reads for reads, _ in results) == 12
    assert {content for _, content in results} == {expected(12).tobytes()}


def test_images_that_have_arrived_can_be_read_while_others_are_still_to_come(tmp_path):
    source = Gated(listed(12).images)
    source.through = 8
    cache = Cache(source, Preparation(16), tmp_path)
    cache.fill_in_background()
    np.testing.assert_array_equal(cache.read(np.array([7, 2])), expected(12)[[7, 2]])
    assert not (tmp_path / cache.folder / "rows.jsonl").read_bytes().count(b"\n") > 8
    source.through = 12
    np.testing.assert_array_equal(cache.read(np.arange(12)), expected(12))


def test_a_background_failure_is_raised_by_whoever_waits_for_the_image(tmp_path):
    source = Gated(listed(12).images)
    source.through = 4
    cache = Cache(source, Preparation(16), tmp_path)
    cache.fill_in_background()
    assert cache.read(np.array([3])).any()
    source.through = 101
    with pytest.raises(SourceError, match="the network is gone"):
        cache.read(np.array([5]))
    assert cache.read(np.array([3])).any()


def test_too_small_a_disk_is_reported_before_anything_is_read(tmp_path):
    source = listed(1)
    source.records = pd.DataFrame({"id": [f"i{i}" for i in range(10**6)]})
    with pytest.raises(
        SourceError, match=r"1,000,000 images of 1000000 px need .* GB: free some space, or set IMGAE_DX_CACHE"
    ):
        Cache(source, Preparation(10**6), tmp_path).fill()
    assert not source.reads


@pytest.mark.parametrize("trouble", [PermissionError(13, "Permission denied"), ImageError(f"{PASSING[1]}: no gdcm")])
def test_unreadable_images_are_tried_again_and_damaged_ones_are_not(tmp_path, monkeypatch, trouble):
    def fail(content: bytes) -> Decoded:
        if content == source.images["i1"]:
            raise trouble
        return decode(content)

    source = listed(3)
    source.images["i2"] = b"<html>not found</html>"
    with monkeypatch.context() as patch:
        patch.setattr(lib.data.cache, "decode", fail)
        assert [bool(filled(source, tmp_path).rows[i]["problem"]) for i in range(3)] == [False, True, True]
    source.reads.clear()
    cache = filled(source, tmp_path)
    assert source.reads == ["i1"]
    assert [bool(cache.rows[i]["problem"]) for i in range(3)] == [False, False, True]
    np.testing.assert_array_equal(images(cache)[:2], expected(2))


def test_an_unusable_image_raises_while_images_arrive(tmp_path):
    source = listed(12)
    source.images["i6"] = b"<html>not found</html>"
    for _ in range(2):  # from the source, and from the journal
        cache = Cache(source, Preparation(16), tmp_path)
        cache.fill_in_background()
        with pytest.raises(SourceError, match=r"i6 cannot be used: is not an image: .* on_bad_image: skip"):
            cache.read(np.array([6]))


def test_a_full_disk_is_reported_and_finished_rows_are_kept(tmp_path, monkeypatch):
    def full(number: int) -> None:
        synced.append(number)
        if len(synced) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    synced = []
    with monkeypatch.context() as patch, pytest.raises(SourceError, match=r"No space left on device\): free some"):
        patch.setattr(os, "fsync", full)
        filled(listed(11), tmp_path)
    source = listed(11)
    np.testing.assert_array_equal(images(filled(source, tmp_path)), expected(11))
    assert source.reads == [f"i{i}" for i in range(4, 11)]


def test_a_cache_folder_that_cannot_be_created_is_reported(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        SourceError,
        match=r"cannot be used \(Not a directory\): a part of this path is a file; move it away, or set IMGAE_DX_CACHE",
    ):
        filled(listed(1), tmp_path / "file")


def test_a_complete_cache_that_cannot_be_written_is_used(reachable):
    filled(listed(11), reachable)
    source = listed(11)
    with read_only(reachable):
        np.testing.assert_array_equal(images(filled(source, reachable)), expected(11))
    assert source.reads == []


def test_a_cache_that_cannot_be_written_says_how_many_images_it_lacks_and_what_to_do(reachable):
    with pytest.raises(KeyboardInterrupt):
        filled(Interrupted(listed(11).images), reachable)
    wanted = (
        r"{} of 11 images are not yet in the cache .*, which cannot be written \(Permission denied\): make it writable"
    )
    with read_only(reachable):
        for source, missing in ((listed(11), 7), (listed(11, name="another-1"), 11)):
            with pytest.raises(SourceError, match=wanted.format(missing)):
                filled(source, reachable)
            assert source.reads == []


def test_a_cache_on_a_disk_that_cannot_lock_a_file_for_readers_is_used_as_it_is(tmp_path, monkeypatch):
    def flock(file: object, operation: int) -> None:
        if operation == fcntl.LOCK_SH:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    filled(listed(11), tmp_path)
    source = listed(11)
    np.testing.assert_array_equal(images(filled(source, tmp_path)), expected(11))
    assert source.reads == []


def test_a_cache_whose_pixels_cannot_be_read_keeps_its_journal(reachable):
    folder = filled(listed(11), reachable).folder
    before = (folder / "rows.jsonl").read_bytes()
    with read_only(reachable):
        user = os.geteuid()
        os.seteuid(os.getuid())
        folder.chmod(0o777)
        (folder / "lock").chmod(0o666)
        (folder / "pixels.npy").chmod(0)
        os.seteuid(user)
        with pytest.raises(SourceError, match=r"\(Permission denied\): make it writable, or set IMGAE_DX_CACHE"):
            filled(listed(11), reachable)
    assert (folder / "rows.jsonl").read_bytes() == before


def test_the_journal_can_be_read_by_anyone(tmp_path):
    cache = filled(listed(3), tmp_path)
    lines = [json.loads(line) for line in (cache.folder / "rows.jsonl").read_text().splitlines()]
    assert [line["row"] for line in lines] == [0, 1, 2]
    assert set(lines[0]) == {"row", "crc32", "digest", "problem", "header", "bytes", "width", "height"}


def test_the_journal_holds_the_sizes_of_file_and_image_as_far_as_they_are_known(tmp_path):
    def read(image_id: str) -> bytes:
        if image_id == "i2":
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return source.images[image_id]

    source = listed(4)
    source.images["i1"] = b"<html>not found</html>"
    source.contents = lambda ids: ((image_id, partial(read, image_id)) for image_id in ids)
    rows = filled(source, tmp_path).rows
    found = [(rows[i]["bytes"], rows[i]["width"], rows[i]["height"]) for i in range(4)]
    whole = [(len(source.images[f"i{i}"]), 30, 20 + i) for i in range(4)]
    assert found == [whole[0], (22, None, None), (None, None, None), whole[3]]
