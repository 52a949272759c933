"""Promises of `lib.data.caches`: it lists what lies there, and removes a cache that nobody uses, and nothing else."""

import multiprocessing
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from listed import Gated, expected, filled, images, listed

from lib.data.cache import Cache, CachedImages
from lib.data.caches import caches, remove
from lib.data.preparation import Preparation


def names(folder: Path) -> list[str]:
    return [cache.folder.name for cache in caches(folder)]


def unread(folder: Path, count: int, days: int = 0) -> Path:
    """A cache that was filled and last used so many days ago, by a process that is gone."""
    cache = filled(listed(count), folder).folder
    for path in (cache, *cache.iterdir()):
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 86_400 * days))
    return cache


def test_caches_are_listed_with_their_images_size_and_date_the_longest_unused_first(tmp_path):
    new, old = unread(tmp_path, 3), unread(tmp_path, 200, days=40)
    first, second = caches(tmp_path)
    assert [first.folder, second.folder] == [old, new]
    assert [(one.images, one.side, one.in_use) for one in (first, second)] == [(200, 16, False), (3, 16, False)]
    assert 39.9 < (second.used - first.used).total_seconds() / 86_400 < 40.1
    assert first.bytes == 512 * sum(file.stat().st_blocks for file in old.iterdir()) > 200 * 16 * 16


def test_using_a_cache_renews_its_date(tmp_path):
    unread(tmp_path, 3, days=40)
    before = caches(tmp_path)[0].used
    filled(listed(3), tmp_path)
    assert 39.9 < (caches(tmp_path)[0].used - before).total_seconds() / 86_400 < 40.1


def test_a_cache_is_removed_whole_and_made_again_when_it_is_wanted(tmp_path):
    folder, other = unread(tmp_path, 3), unread(tmp_path, 4)
    assert remove(folder)
    assert not folder.exists() and names(tmp_path) == [other.name]
    np.testing.assert_array_equal(images(filled(listed(3), tmp_path)), expected(3))


def test_a_cache_whose_images_somebody_can_still_read_is_in_use(tmp_path):
    cache = filled(listed(3), tmp_path)
    stack, folder = CachedImages(cache, np.array([2])), cache.folder
    del cache
    assert caches(tmp_path)[0].in_use and not remove(folder)
    np.testing.assert_array_equal(stack[:], expected(3)[[2]])
    del stack
    assert not caches(tmp_path)[0].in_use and remove(folder)


def test_a_cache_that_is_being_filled_is_in_use(tmp_path, monkeypatch):
    monkeypatch.setattr("lib.data.cache.CHUNK", 4)
    source = Gated(listed(12).images)
    source.through = 4
    cache = Cache(source, Preparation(16), tmp_path)
    cache.fill_in_background()
    cache.read(np.array([3]))
    assert caches(tmp_path)[0].in_use and not remove(cache.folder)
    source.through = 12
    np.testing.assert_array_equal(cache.read(np.arange(12)), expected(12))


def _read(folder: Path, ready, end) -> None:
    cache = filled(listed(3), folder)
    ready.set()
    end.wait(60)
    assert cache.read(np.array([0])).any()


def test_a_cache_that_another_process_reads_is_in_use_until_that_ends(tmp_path):
    context = multiprocessing.get_context("fork")
    ready, end = context.Event(), context.Event()
    process = context.Process(target=_read, args=(tmp_path, ready, end))
    process.start()
    assert ready.wait(60)
    (cache,) = caches(tmp_path)
    assert cache.in_use and not remove(cache.folder)
    end.set()
    process.join()
    assert process.exitcode == 0 and remove(cache.folder)


def test_what_a_killed_process_has_left_can_be_removed(tmp_path):
    folder = unread(tmp_path, 3)
    (folder / "rows.jsonl").unlink()
    os.truncate(folder / "pixels.npy", 140)
    (folder / ".near-duplicates.npy.12345.tmp").write_bytes(b"half")
    (tmp_path / f"images-{0:016x}").mkdir()
    assert [(cache.images, remove(cache.folder)) for cache in caches(tmp_path)] == [(0, True)] * 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "theirs",
    [
        lambda folder: folder.rename(folder.with_name("images-of-mine")),
        lambda folder: (folder / "notes.txt").write_text("mine"),
        lambda folder: (folder / "inner").mkdir(),
        lambda folder: (folder / "problems.csv").symlink_to("/etc/hostname"),
        lambda folder: (shutil.move(folder, folder.parent.parent / "theirs"), folder.symlink_to("../theirs")),
    ],
    ids=["another name", "another file", "a folder", "a link in it", "a link"],
)
def test_what_is_no_cache_of_ours_is_neither_listed_nor_removed(tmp_path, theirs):
    folder = unread(tmp_path / "caches", 3)
    theirs(folder)
    before = sorted(tmp_path.rglob("*"))
    assert names(tmp_path / "caches") == []
    assert not any(remove(path) for path in [*(tmp_path / "caches").iterdir(), folder])
    assert sorted(tmp_path.rglob("*")) == before


def test_without_a_folder_of_caches_there_are_none(tmp_path):
    assert caches(tmp_path / "none") == []
