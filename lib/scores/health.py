"""Health: does a method redraw normal chests well, and does its critic see what it redraws? No label is needed.

Every measure is taken on validation normals, and principal components are the yardstick: a method that redraws normal
images worse than 16 numbers and a linear map has not been trained to where it can be judged.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lib.data.source import ImageStack
from lib.methods.method import Images, Method, to_unit
from lib.scores.copying import copied_share
from lib.scores.features import Backbone, FeaturesError
from lib.scores.references import principal_components

COMPONENTS = (16, 64, 128)
MEASURED = 256  # images at most: more would make training wait
CPU, BATCH = torch.device("cpu"), 16
DETAIL = 1 / 8  # cycles per pixel: above it are ribs and vessels, at 64 px structures narrower than about 4 pixels


class Redrawn(NamedTuple):
    """How reconstructions of the validation normals compare with them."""

    residual: float
    """Mean absolute difference, in [0, 1]."""
    detail: float
    """Power above `DETAIL` as a share of the images' own; 1 if none is lost."""
    frechet: float | None
    """Fréchet distance in frozen features; None without a backbone."""


class HealthCheck:
    """The validation normals, and what is measured on them whatever the method."""

    def __init__(
        self, train: ImageStack, validation: ImageStack, backbone: Backbone | FeaturesError, seed: int
    ) -> None:
        """Take at most `MEASURED` images of either side, (n, height, width) uint8, evenly spaced.

        `pca` holds the reconstructions from principal components of the training images; `floor` is the distance of
        training from validation normals, as many of each, which no method can be expected to fall below.
        """
        self.images = _spaced(validation, MEASURED)
        self._backbone = None if isinstance(backbone, FeaturesError) else backbone
        self._real = to_unit(self.images, CPU)
        self._features = self._described(self._real)
        self.floor = self._frechet(to_unit(_spaced(train, len(self.images)), CPU))
        self.pca: dict[int, Redrawn] = {}
        for count in COMPONENTS:
            if count < min(len(train), self._real[0].numel()):
                batches, _ = principal_components(train, seed, count)(self.images)
                self.pca[count] = self.redrawn(torch.from_numpy(np.concatenate(list(batches)))[:, None])

    def redrawn(self, reconstructions: Images) -> Redrawn:
        """Compare reconstructions of `images`, in [0, 1] on the CPU, with them."""
        return Redrawn(
            residual=float((reconstructions - self._real).abs().mean()),
            detail=_fine_power(reconstructions) / max(_fine_power(self._real), 1e-12),
            frechet=self._frechet(reconstructions),
        )

    @torch.no_grad()
    def __call__(self, method: Method) -> dict[str, float]:
        """Return the measures of a method by name; it is left in evaluation mode, and torch's generators as they are.

        residual, detail, frechet              of its reconstructions (`Redrawn`)
        frechet_sample                         of samples from the prior, if the method draws any
        kl_real, kl_reconstruction, kl_sample  mean KL of such images in nats, if the method has a posterior
        copied                                 share of a pasted white square that is reconstructed
        """
        method.eval()
        device = next(method.parameters()).device
        with torch.random.fork_rng():
            torch.manual_seed(0)
            batches = [batch.to(device) for batch in self._real.split(BATCH)]
            reconstructions = [method.reconstruct(batch) for batch in batches]
            samples = [drawn for batch in batches if (drawn := method.samples(len(batch))) is not None]
            redrawn = self.redrawn(torch.cat(reconstructions).cpu().float())
            found = {
                "residual": redrawn.residual,
                "detail": redrawn.detail,
                "frechet": redrawn.frechet,
                "frechet_sample": self._frechet(torch.cat(samples).cpu().float()) if samples else None,
            }
            for kind, stack in {"real": batches, "reconstruction": reconstructions, "sample": samples}.items():
                divergences = [of["kl"] for batch in stack if "kl" in (of := method.own_scores(batch))]
                found[f"kl_{kind}"] = float(torch.cat(divergences).mean()) if divergences else None
            found["copied"] = copied_share(method, self.images[:32]).share
        return {name: value for name, value in found.items() if value is not None}

    def _described(self, images: Images) -> np.ndarray | None:
        """Return the frozen network's last features, averaged over space: (n, channels) float64."""
        if self._backbone is None:
            return None
        with torch.no_grad():
            device = self._backbone.mean.device
            maps = [self._backbone(batch.to(device))[-1].mean(dim=(2, 3)).cpu() for batch in images.split(BATCH)]
        return torch.cat(maps).double().numpy()

    def _frechet(self, images: Images) -> float | None:
        features = self._described(images)
        if features is None or self._features is None or len(features) < 2:
            return None
        return frechet_distance(features, self._features)


def measured_after(epochs: int, last: int, every: int = 0) -> bool:
    """Return whether health is measured after this many epochs: `every` so many, and after the `last`.

    If `every` is 0, after 1, 2, 3, 4, 6, 8, 12, 16 ... epochs.
    """
    power = 1 << (epochs.bit_length() - 1)
    due = epochs % every == 0 if every else epochs in (power, power + power // 2)
    return due or epochs == last


def spectrum(images: ImageStack, most: int = 1024) -> np.ndarray:
    """Return the variance of uint8 images along each principal direction, summed over pixels in [0, 1], largest first.

    At most `most` of the images, evenly spaced, are used, so that no more directions are found.
    """
    flat = _spaced(images, most).reshape(-1, images.shape[1] * images.shape[2]) / np.float32(255)
    flat -= flat.mean(axis=0)
    return np.linalg.eigvalsh(flat @ flat.T)[::-1].clip(min=0) / (len(flat) - 1)


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    r"""Return the Fréchet distance of two sets of features, (n, channels) and (m, channels), taken as Gaussians.

    Heusel et al., NeurIPS 2017, eq. 6. The trace of the root of the product of the covariances is computed as the sum
    of the singular values of $A B^T / \sqrt{(n - 1)(m - 1)}$ with the centred features A and B, which needs no root
    of a matrix and holds for fewer images than channels. The distance falls with the number of images: compare only
    equal numbers.
    """
    a, b = first - first.mean(axis=0), second - second.mean(axis=0)
    scale_a, scale_b = len(a) - 1, len(b) - 1
    shared = np.linalg.svd(a @ b.T, compute_uv=False).sum() / np.sqrt(scale_a * scale_b)
    spread = (a**2).sum() / scale_a + (b**2).sum() / scale_b - 2 * shared
    return float(((first.mean(axis=0) - second.mean(axis=0)) ** 2).sum() + spread)


def _fine_power(images: Images) -> float:
    """Return the power above `DETAIL` cycles per pixel, summed over the mean image's spectrum."""
    height, width = images.shape[-2:]
    frequency = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None])
    power: Tensor = torch.fft.rfft2(images[:, 0].double()).abs().square().mean(dim=0)
    return float(power[frequency > DETAIL].sum())


def _spaced(images: ImageStack, most: int) -> np.ndarray:
    return np.array(images[np.linspace(0, len(images) - 1, min(most, len(images))).astype(int)])
