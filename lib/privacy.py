"""What others may see: addresses without their secrets, places without the names of this machine and its users.

Settings hold an address without its user, password and query. The whole address stays in the memory of this process,
from which only the client that opens it takes it; no file holds it.
"""

import os
import re
import socket
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote, unquote

HIDDEN = "***"
HOMES = ("home", "Users")  # folders of which each is named after a user
VARIABLE = "IMGAE_DX_DATA_DIR"
"""The environment variable, or Colab secret, that may hold `data_dir` with its secrets."""
ADDRESS = re.compile(r"\b[a-z][a-z0-9+.-]+:\\?/", re.I)
CONTAINERS = re.compile(r"(abfss?|wasbs?)://[^:]*", re.I)  # Azure writes container@account: no secret
NAMED = re.compile(
    r"([?&;#][\w.-]*(?:sig|signature|token|key|keyid|secret|password|passwd|pwd|credentials?|auth)=)"
    r"(?P<secret>[^\s&;\"'<>]*[^\s&;\"'<>).,:\]])",
    re.I,
)

_whole: dict[str, str] = {}  # an address without its secrets -> with them
_secrets: set[str] = set()  # that stand for themselves in any text


def without_secrets(address: str) -> str:
    """Return an address with *** for its user, password, query and fragment, which this process remembers."""
    if not ADDRESS.search(address):
        return address
    user, query = _patterns("")
    found = [match["secret"] for pattern in (user, query, NAMED) for match in pattern.finditer(address)]
    if (shown := NAMED.sub(rf"\1{HIDDEN}", _mask(address, user, query))) != address and HIDDEN not in address:
        _whole[shown] = address
        pieces = {piece for text in found if text not in shown for piece in re.split(r"[:@&;=?#]", text)}
        _secrets.update(filter(_is_telling, (way(piece) for piece in pieces for way in (str, unquote, _quoted))))
    return shown


def with_secrets(address: str, given: str = "") -> str:
    """Return the whole address: the one that this process remembers, or `given` if it is the same; "" if neither is."""
    if HIDDEN not in address:
        return address
    return _whole.get(address) or (given if without_secrets(given) == address else "")


def masked(text: str) -> str:
    """Return a text with *** for the secrets of any address in it, and for those that this process remembers."""
    if re.search("[/=%]", text):
        text = NAMED.sub(rf"\1{HIDDEN}", _mask(text, *_patterns(r"\s\"'<>")))
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text


def public(content: Any, root: Path, places: Iterable[str] = ()) -> Any:
    """Return text, or lists and mappings of it, as others may see it: masked, and without absolute paths.

    A path below the project folder `root` starts there, one in the user's home with ~. Of another, such as those of the
    settings in `places`, the last part is left.
    """
    if isinstance(content, Mapping):
        return {public(key, root, places): public(value, root, places) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [public(value, root, places) for value in content]
    if not isinstance(content, str):
        return content
    text, homes = masked(content), {str(Path.home()), os.path.realpath(Path.home())}
    known = sorted({str(root): "", **dict.fromkeys(homes, "~")}.items(), key=_length)
    known += sorted(((place, f"…/{Path(place).name}") for place in places if os.path.isabs(place)), key=_length)
    for folder, short in known:
        if Path(folder) != Path(folder).parent:
            start, below = START + re.escape(folder), f"{short}/" if short else ""
            text = re.sub(rf"{start}[\\/]+(?=[^\s\\/])", below.replace("\\", r"\\"), text)
            text = re.sub(rf"{start}(?![\w-]|\.\w)[\\/]*", (short or ".").replace("\\", r"\\"), text)
    text = WINDOWS.sub(_last_part, POSIX.sub(_last_part, text))
    machine = socket.gethostname()
    return text if machine.isalpha() else re.sub(rf"(?<!\w){re.escape(machine)}(?!\w)", "this machine", text)


class Masked:
    """A text stream, to which all is written as `masked`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the text, masked; return its own length."""
        self._stream.write(masked(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


START = r"(?:(?<![\w.~…-])|(?<=\dm))"  # of a path in a text; a terminal's colour ends in a digit and m
PART = r"[^\s\\/\"'<>|:;,()\[\]{}*?]"
POSIX = re.compile(rf"{START}/(?:{PART}+/)+{PART}*")
WINDOWS = re.compile(r"(?<!\w)[a-z]:[\\/]+(?:[^\\/\n\"'<>|:*?]+[\\/]+)+" + f"{PART}*", re.I)


def _length(pair: tuple[str, str]) -> int:
    return -len(pair[0])


def _last_part(path: re.Match[str]) -> str:
    """Return … and the last part of an absolute path; a home's last part is a name, and what names no folder stays."""
    drive, *parts = re.split(r"[\\/]+", path[0].rstrip("\\/"))
    if not drive and parts[0] not in HOMES and not Path("/", parts[0]).is_dir():
        return path[0]
    return "…" if parts[0] in HOMES and len(parts) < 3 else f"…/{parts[-1]}"


@cache
def _patterns(ends: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return what matches the user and the query of an address that a character of the class `ends` ends."""
    scheme, host = r"(?P<before>[a-z][a-z0-9+.-]+(?::|%3A)(?:\\?/|%2F){1,2}", rf"[^{ends}/?#"
    user = rf"{scheme})(?P<secret>{host}]*|[^{ends}/@:?#\[]*:(?!:|\d*(?:[/?#{ends}]|$))[^{ends}@]*)(?:@|%40)"
    query = rf"{scheme}[^{ends}?#]*[?#])(?P<secret>[^{ends or chr(0)}]+)"
    return re.compile(user, re.I), re.compile(query, re.I)


def _mask(text: str, user: re.Pattern[str], query: re.Pattern[str]) -> str:
    text = user.sub(lambda found: found[0] if CONTAINERS.fullmatch(found[0][:-1]) else f"{found[1]}{HIDDEN}@", text)
    return query.sub(_mask_query, text)


def _mask_query(found: re.Match[str]) -> str:
    """Mask all of a query, for nobody knows which part is the secret; in a bucket, ? and # alone are characters."""
    if not found["before"].lower().startswith("http") and "=" not in found["secret"]:
        return found[0]
    end = re.search(r"[).,:;\]]*$", found["secret"])
    return f"{found['before']}{HIDDEN}{end[0] if end else ''}"


def _quoted(text: str) -> str:
    return quote(text, safe="")


def _is_telling(secret: str) -> bool:
    """Whether a secret can be no word or number that a text may hold for other reasons."""
    letters = re.search("[a-z]", secret, re.I)
    return len(secret) >= 6 and letters is not None and (len(secret) >= 12 or not secret.isalpha())
