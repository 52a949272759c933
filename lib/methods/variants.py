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

DESCRIPTIONS = {
    "unet": "a U-Net that was trained to return its input; its skip connections let it copy what it is shown",
    "unet-no-skips": "a U-Net without skip connections: all that it redraws passes its narrowest layer",
    "unet-noisy-skips": "a U-Net whose skip connections carried noise in training, so that they hand on less detail",
    "unet-denoising": "a U-Net that was trained to remove noise from normal images, and may remove a lesion like noise "
    "(Kascenas et al., MIDL 2022)",
    "unet-masked": "a U-Net that was trained to fill hidden squares of normal images",
    "ra": "the Reversed Autoencoder (Bercea et al., MIDL 2023): an encoder turns an image into a few numbers, and a "
    "decoder redraws it from them; the encoder also learns to tell real images from redrawn ones, the decoder to "
    "deceive it",
    "si-vae": "a soft-introspective variational autoencoder (Daniel & Tamar, CVPR 2021): RA without its reversed loss",
    "vae": "a variational autoencoder: an encoder turns an image into a few numbers, a decoder redraws it from them",
    "ae-16": "a convolutional autoencoder that redraws an image from 16 numbers",
    "ae-4": "a convolutional autoencoder that redraws an image from 4 numbers",
}
"""What a method is, for a reader who knows none: each continues "unet is"."""
