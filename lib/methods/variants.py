"""The methods that a run can name: the one place where a name becomes a method, and where `Params` finds the names.

"unet" and "ra" follow the settings. A variant is the same class with the settings that its name stands for fixed, so
that a name always means the same.
"""

from collections.abc import Callable

from lib.methods.autoencoder import ConvAutoencoder
from lib.methods.method import Method
from lib.methods.ra import ReversedAutoencoder
from lib.methods.unet import UNetAutoencoder
from lib.params import Params


def _unet(skips: str, corruption: str) -> Callable[[Params], Method]:
    changes = {"unet_skips": skips, "unet_corruption": corruption}
    return lambda params: UNetAutoencoder.from_params(params.model_copy(update=changes))


def _vae(params: Params) -> Method:
    # A warm-up that never ends is a plain VAE: without the game there is no reversed embedding loss either.
    return ReversedAutoencoder.from_params(params.model_copy(update={"ra_warmup_epochs": params.epochs}))


def _si_vae(params: Params) -> Method:
    return ReversedAutoencoder.from_params(params.model_copy(update={"ra_lambda_emb": 0.0}))


VARIANTS: dict[str, Callable[[Params], Method]] = {
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
