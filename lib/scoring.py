"""Reconstruction -> residual map -> image score, the same for every method; a score depends on one image alone."""

import numpy as np
import torch
from tqdm import tqdm

from lib.cache import Films
from lib.dataset import to_unit
from lib.method import Images, Method, PerImage


def residual_map(images: Images, reconstructions: Images) -> Images:
    """Return the absolute difference of each pixel, in [0, 1]: where the method would not have put what it saw."""
    return (images - reconstructions).abs()


def image_score(maps: Images) -> PerImage:
    """Return the mean of each map, in [0, 1]; higher is more anomalous."""
    return maps.mean(dim=(1, 2, 3))


@torch.no_grad()
def reconstruct(
    method: Method, images: np.ndarray | Films, batch_size: int = 64, name: str = "reconstruct"
) -> np.ndarray:
    """Return the reconstructions of uint8 images, (n, height, width) float32 in [0, 1], in evaluation mode."""
    method.eval()
    device = next(method.parameters()).device
    made = np.empty(images.shape, dtype=np.float32)
    for start in tqdm(range(0, len(images), batch_size), desc=name, unit="batch", mininterval=1):
        batch = images[start : start + batch_size]
        made[start : start + batch_size] = method.reconstruct(to_unit(batch, device))[:, 0].cpu().numpy()
    return made


def residuals(images: np.ndarray | Films, reconstructions: np.ndarray) -> np.ndarray:
    """Return the residual maps of uint8 images, (n, height, width) float32."""
    return residual_map(to_unit(images, torch.device("cpu")), torch.from_numpy(reconstructions)[:, None])[:, 0].numpy()


def scores(maps: np.ndarray) -> np.ndarray:
    """Return the image score of each map, (n,) float64."""
    return image_score(torch.from_numpy(maps)[:, None]).double().numpy()
