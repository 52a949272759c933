"""The methods that a run can name: the one place where a name becomes a method.

A variant is a method's own class, built from the settings with the few changed that its name stands for, so that one
name always means the same; "unet" and "ra" are what the settings say.
"""

from collections.abc import Callable

from lib.baselines import ConvAutoencoder
from lib.method import Method
from lib.params import Params
from lib.ra import ReversedAutoencoder
from lib.unet import UNetAutoencoder


def _unet(skips: str, corruption: str) -> Callable[[Params], Method]:
    changes = {"unet_skips": skips, "unet_corruption": corruption}
    return lambda params: UNetAutoencoder.from_params(params.model_copy(update=changes))


def _vae(params: Params) -> Method:
    # A warm-up that never ends is a plain VAE: no game, and so no reversed embedding loss.
    return ReversedAutoencoder.from_params(params.model_copy(update={"ra_warmup_epochs": params.epochs}))


def _si_vae(params: Params) -> Method:
    return ReversedAutoencoder.from_params(params.model_copy(update={"ra_lambda_emb": 0.0}))


ARMS: dict[str, Callable[[Params], Method]] = {
    "unet": UNetAutoencoder.from_params,
    "unet-no-skips": _unet("none", "none"),
    "unet-noisy-skips": _unet("noise", "none"),
    "unet-denoising": _unet("full", "noise"),  # the DAE of Kascenas et al., MIDL 2022
    "unet-masked": _unet("full", "mask"),
    "ra": ReversedAutoencoder.from_params,
    "si-vae": _si_vae,  # Daniel & Tamar, CVPR 2021
    "vae": _vae,
    "ae-16": lambda params: ConvAutoencoder(params.image_size, 16),
    "ae-4": lambda params: ConvAutoencoder(params.image_size, 4),
}
