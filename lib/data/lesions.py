"""The lesions that a source marks, as masks aligned with the prepared images, a bit a pixel."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from lib.data.preparation import Preparation
from lib.data.source import Source


class LesionMasks(Mapping[str, np.ndarray]):
    """Masks by image id, (height, width) bool each, unpacked whenever one is asked for."""

    def __init__(self, masks: Iterable[tuple[str, np.ndarray]]) -> None:
        self._packed = {image_id: (mask.shape, np.packbits(mask)) for image_id, mask in masks}

    def __getitem__(self, image_id: str) -> np.ndarray:
        (height, width), bits = self._packed[image_id]
        return np.unpackbits(bits, count=height * width).reshape(height, width).astype(bool)

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)


def areas_by_finding(lesions: Mapping[str, np.ndarray], records: pd.DataFrame) -> dict[str, float]:
    """Return the median share of an image that the marked lesions of each finding cover, in (0, 1]."""
    share = records["id"].map({name: float(mask.mean()) for name, mask in lesions.items()})
    return share[share > 0].groupby(records["finding"]).median().to_dict()


def load_masks(source: Source, ids: Sequence[str], preparation: Preparation) -> LesionMasks:
    """Return the marked lesions by image id, (size, size) bool, aligned with the prepared images."""
    marked = ((image_id, source.mask(image_id)) for image_id in ids)
    return LesionMasks((image_id, preparation.mask(mask)) for image_id, mask in marked if mask is not None)
