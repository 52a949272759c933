"""The first stage: a source's images -> checked, prepared, and divided into training, validation and test."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from lib.data.cache import Preparation
from lib.data.dataset import Data, Sides, Split, load_data, load_masks, reference_half
from lib.data.source import ImageStack, Source
from lib.data.sources import open_source
from lib.params import Params


@dataclass(frozen=True)
class Prepared:
    """A source's images, checked, prepared and divided."""

    source: Source
    data: Data
    split: Split
    images: Sides
    preparation: Preparation

    @cached_property
    def lesions(self) -> dict[str, np.ndarray]:
        """The marked lesions of the test images, by id, (size, size) bool."""
        return load_masks(self.source, list(self.split.test["id"]), self.preparation)

    def by_side(self) -> tuple[dict[str, ImageStack], dict[str, pd.DataFrame]]:
        """Return the images that are scored and their records, by side: the two halves of validation, and test."""
        half = reference_half(self.split.validation)
        halves = {"reference": np.flatnonzero(half), "validation": np.flatnonzero(~half)}
        images = {side: self.images.validation[places] for side, places in halves.items()}
        records = {side: self.split.validation.iloc[places] for side, places in halves.items()}
        return images | {"test": self.images.test}, records | {"test": self.split.test}


def prepare(params: Params, base: Path) -> Prepared:
    """Open the settings' source, prepare its images and split them; a relative `data_dir` is under `base`."""
    source = open_source(params, base)
    data = load_data(source, params)
    split = data.split(params)
    return Prepared(source, data, split, data.sides(split), Preparation.from_params(params))
