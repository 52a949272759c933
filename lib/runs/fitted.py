"""`fitted.safetensors`: what a run has fitted on normal validation images, so that new images can be scored.

With weights and settings that is all a score needs: neither training images nor labels.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lib.files import replacing
from lib.runs.run import RunError
from lib.scores.likeness import Likeness
from lib.scores.scorer import Fit
from lib.scores.scoring import Standard

FITTED = "fitted.safetensors"
FACTS = "facts"  # the key under which a file of tensors holds what is none, as JSON

Tensors = dict[str, Tensor]


class Fitted(NamedTuple):
    """What was fitted for each method, what the images are like that it was fitted on, and what is known of them."""

    fits: dict[str, Fit]
    likeness: Likeness
    about: dict[str, str]
    """Where the images are from, their licence, how the labels came about."""


def pack(fitted: Fitted) -> tuple[Tensors, dict[str, Any]]:
    """Return the arrays among what was fitted by their place, and all else as JSON can hold it."""
    tensors: Tensors = {}

    def plain(value: Any, place: str) -> Any:
        if isinstance(value, np.ndarray | Tensor):
            tensors[place] = torch.as_tensor(value).contiguous().clone()  # two may be one array
            return None
        if hasattr(value, "_asdict"):
            value = value._asdict()
        if isinstance(value, dict):
            return {key: plain(of, f"{place}/{key}") for key, of in value.items()}
        return value

    facts = {name: plain(value, name) for name, value in fitted._asdict().items()}
    return tensors, facts


def unpack(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Fitted:
    """Return what was packed; KeyError or TypeError if these are no tensors and facts of it."""
    fits = {name: _fit(f"fits/{name}", of, tensors) for name, of in facts["fits"].items()}
    arrays = {name: tensors[f"likeness/{name}"].numpy() for name in ("histogram", "features")}
    ranges = {name: (low, high) for name, (low, high) in facts["likeness"]["ranges"].items()}
    return Fitted(fits, Likeness(**facts["likeness"] | arrays | {"ranges": ranges}), facts["about"])


def _fit(place: str, facts: dict[str, Any], tensors: Mapping[str, Tensor]) -> Fit:
    standards = {
        kind: Standard(*(tensors[f"{place}/standards/{kind}/{part}"] for part in Standard._fields))
        for kind in facts["standards"]
    }
    calibration = {form: tensors[f"{place}/calibration/{form}"].numpy() for form in facts["calibration"]}
    arrays = {"members": tensors[f"{place}/members"].numpy(), "standards": standards, "calibration": calibration}
    return Fit(**facts | arrays)


def write_tensors(tensors: Tensors, facts: Mapping[str, Any], file: Path) -> None:
    """Write tensors and facts as one safetensors file."""
    with replacing(file) as out:
        out.write(save(tensors, {FACTS: json.dumps(facts)}))


def read_tensors(file: Path, remedy: str) -> tuple[Tensors, dict[str, Any]]:
    """Read what `write_tensors` has written; RunError with the `remedy` if it is damaged."""
    try:
        with safe_open(file, "pt") as opened:
            return {place: opened.get_tensor(place) for place in opened.keys()}, json.loads(opened.metadata()[FACTS])  # noqa: SIM118
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{file} is damaged ({error}): {remedy}") from None


def write_fitted(fitted: Fitted, file: Path) -> None:
    """Write what was fitted as one file."""
    write_tensors(*pack(fitted), file)


def read_fitted(file: Path, remedy: str) -> Fitted:
    """Read what `write_fitted` has written; RunError with the `remedy` if the file is missing or damaged."""
    if not file.is_file():
        raise RunError(f"{file} is not there: an older version has scored the run; {remedy}")
    tensors, facts = read_tensors(file, remedy)
    try:
        return unpack(tensors, facts)
    except (KeyError, TypeError) as error:
        raise RunError(f"{file} is damaged ({error}): {remedy}") from None
