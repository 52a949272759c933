"""What lies where in a folder of scored images."""

from pathlib import PurePosixPath

from lib.files import hash_of

SCORES, ABOUT, PROBLEMS = "scores.csv", "about.json", "problems.csv"
"""The files of `imgae-score`, besides pictures."""


def map_place(method: str, name: str) -> str:
    """Return where in the folder an image's map in 16 bits is."""
    return f"maps/{method}/{_place(name)}.map.png"


def overlay_place(method: str, name: str) -> str:
    """Return where in the folder the image under a method's map is."""
    return f"maps/{method}/{_place(name)}.overlay.jpg"


def picture_place(name: str) -> str:
    """Return where in the folder an image is as the model sees it, aligned with its maps."""
    return f"images/{_place(name)}.png"


def _place(name: str) -> str:
    """Return the path of an image's pictures: its name, or a hash of one that leads elsewhere or is no file's name."""
    plain = PurePosixPath(name)
    sound = not plain.is_absolute() and ".." not in plain.parts and max(map(len, map(str.encode, plain.parts))) < 200
    return name if sound else hash_of(name)
