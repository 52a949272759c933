"""The first stage: a source's images -> checked, prepared, and divided into training, validation and test."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_limits

from lib.data.dataset import Data, Sides, Split, SplitError, load_data, reference_half
from lib.data.lesions import LesionMasks, load_masks
from lib.data.preparation import Preparation
from lib.data.source import ImageStack, Source
from lib.data.sources import open_source
from lib.evidence.marks import Redrawn, Yardstick
from lib.methods.method import to_device
from lib.methods.training import choose_device
from lib.params import Params
from lib.scores.features import Backbone, FeaturesError, open_backbone
from lib.scores.health import HealthCheck

FEWEST_TO_CHOOSE = 2  # a lesion is cut out of one image and pasted into another


@dataclass(frozen=True)
class Prepared:
    """A source's images, checked, prepared and divided."""

    source: Source
    data: Data
    split: Split
    images: Sides
    params: Params

    @property
    def preparation(self) -> Preparation:
        """How an image of the source becomes one of these."""
        return Preparation.from_params(self.params)

    @cached_property
    def health_check(self) -> HealthCheck:
        """The measures of a method's health on these normals, in the settings' frozen network if it is available."""
        backbone: Backbone | FeaturesError
        try:
            backbone = open_backbone(self.params.backbone)
            to_device(backbone, choose_device(self.params.device))
        except FeaturesError as error:
            backbone = error
        return HealthCheck(self.images.train, self.images.validation, backbone, self.params.seed)

    @property
    def yardstick(self) -> Yardstick:
        """What principal components and training images achieve by the same measures."""
        check = self.health_check
        components = {count: Redrawn(**redrawn._asdict()) for count, redrawn in check.pca.items()}
        return Yardstick(floor=check.floor, components=components)

    @cached_property
    def lesions(self) -> LesionMasks:
        """The marked lesions of the test images, by id, (size, size) bool."""
        return load_masks(self.source, list(self.split.test["id"]), self.preparation)

    def by_side(self) -> tuple[dict[str, ImageStack], dict[str, pd.DataFrame]]:
        """Return the images that are scored, and their records with groups: the halves of validation, and test."""
        sides = self.split.grouped
        half = reference_half(sides["validation"])
        halves = {"reference": np.flatnonzero(half), "validation": np.flatnonzero(~half)}
        images = {side: self.images.validation[places] for side, places in halves.items()}
        records = {side: sides["validation"].iloc[places] for side, places in halves.items()}
        return images | {"test": self.images.test}, records | {"test": sides["test"]}


def prepare(params: Params, base: Path) -> Prepared:
    """Open the settings' source, prepare its images and split them; a relative `data_dir` is under `base`.

    From here on this process takes as many threads as the settings say.
    """
    if params.threads:
        threadpool_limits(params.threads)  # of numpy and scikit-learn
        torch.set_num_threads(params.threads)
    source = open_source(params, base)
    data = load_data(source, params)
    split = data.split(params)
    half = reference_half(split.validation)
    if half.sum() < FEWEST_TO_CHOOSE or (~half).sum() < 1:
        raise SplitError(
            f"the validation side's normal images: {half.sum()} to choose scores with, {(~half).sum()} for thresholds; "
            f"expected at least {FEWEST_TO_CHOOSE} and 1: add normal images, now "
            f"{len(split.train) + len(split.validation)} that are not tested, or raise validation_fraction, now "
            f"{params.validation_fraction}"
        )
    return Prepared(source, data, split, data.sides(split), params)
