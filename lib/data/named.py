"""Images as a user names them, before any library is loaded: a mistyped path is told at once."""

import os
from collections.abc import Sequence

from lib.refusals import Refusal


class NotThere(Refusal):
    """A path leads to nothing."""


def check_named(places: Sequence[str]) -> None:
    """Raise NotThere for the first of these files and folders that does not exist; addresses are not looked up."""
    for place in places:
        if "://" not in place and not os.path.exists(os.path.expanduser(place)):
            raise NotThere(f"{place} does not exist: give files, folders or shards of images")
