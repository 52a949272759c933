"""Images without labels, as a user names them: files, folders, shards -> the name and the bytes of each."""

import os
import posixpath
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from lib.data.folder import files_below, is_hidden, looks_like_image, shown
from lib.data.named import check_named
from lib.data.source import Problem, SourceError
from lib.data.stream import INDEX, StreamSource


class Unlabelled(NamedTuple):
    """Images, and what was found beside them."""

    names: list[str]
    """Of each image, without repetition: its path from the folder that all files share, or its id in the shards."""
    contents: Iterator[tuple[str, Callable[[], bytes]]]
    """Each image's name with a function that reads its file, once, in this order."""
    problems: list[Problem]
    """Of files that are not used, by names of the same kind."""


def open_unlabelled(places: Sequence[str]) -> Unlabelled:
    """Open images: each place is a file, a folder of files, a folder or an address of shards, or a .parquet file.

    Below a folder, a file that is no image by its name and its first bytes is not used; a file that is named itself is
    taken for one. A file that is named twice counts once.

    Raises:
        NotThere: A place does not exist.
        SourceError: It cannot be read, it holds no image, or two images have one name.

    """
    check_named(places)
    files: dict[str, Path] = {}  # by absolute path
    streams, unused = [], list[tuple[Path, str, str]]()
    for place in places:
        path = Path(os.path.expanduser(place))
        if "://" in place or place.endswith(".parquet") or (path / INDEX).is_file():
            streams.append(StreamSource(place, labelled=False))
        elif path.is_dir():
            found, odd = files_below(path)
            unused += [(path / name, why, "not followed") for name, why in odd]
            images = [file for file in found if not is_hidden(file.relative_to(path)) and looks_like_image(file)]
            unused += [(file, "not an image by its name and content", "not used") for file in {*found} - {*images}]
            if not images:
                raise SourceError(f"{place} holds no image among {len(found)} files: give a folder of radiographs")
            files |= {os.path.abspath(file): file for file in images}
        else:
            files[os.path.abspath(path)] = path
    top = os.path.commonpath([posixpath.dirname(file) for file in files]) if files else ""
    named = {_name(file, top): path for file, path in files.items()}
    if len(named) < len(files):
        raise SourceError(f"{len(files) - len(named)} files below {top} have names that cannot be printed: rename them")
    names = [*named, *(name for stream in streams for name in stream.records["id"])]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise SourceError(f"the image {twice!r} occurs in several of the places: score them one after the other")
    contents = [iter([(name, path.read_bytes) for name, path in named.items()])]
    contents += [stream.contents(list(stream.records["id"])) for stream in streams]
    problems = [Problem(_name(file, top), why, consequence) for file, why, consequence in unused]
    return Unlabelled(names, chain.from_iterable(contents), problems)


def _name(file: str | Path, top: str) -> str:
    """Return a file's path from the folder `top` as a text that can be printed."""
    name = shown(os.path.relpath(file, top))
    return "".join(character if character.isprintable() else "\ufffd" for character in name)
