"""The methods that a run can name: the one place where a name becomes a method, and where `Params` finds the names.

"unet" and "ra" follow the settings. A variant is the same class with the settings that its name stands for fixed, so
that a name always means the same.
"""

from collections.abc import Callable
from dataclasses import dataclass

from lib.methods.autoencoder import ConvAutoencoder
from lib.methods.method import Method
from lib.methods.ra import ReversedAutoencoder
from lib.methods.unet import UNetAutoencoder
from lib.params import Params


@dataclass(frozen=True)
class Variant:
    """A method that a run can name; called with a run's settings, it builds the method."""

    build: Callable[[Params], Method]
    about: str
    """What it is, for a reader who knows none: it continues "unet is"."""

    def __call__(self, params: Params) -> Method:
        """Return the method as these settings want it."""
        return self.build(params)


def _unet(skips: str, corruption: str) -> Callable[[Params], Method]:
    changes = {"unet_skips": skips, "unet_corruption": corruption}
    return lambda params: UNetAutoencoder.from_params(params.model_copy(update=changes))


def _vae(params: Params) -> Method:
    # A warm-up that never ends is a plain VAE: without the game there is no reversed embedding loss either.
    return ReversedAutoencoder.from_params(params.model_copy(update={"ra_warmup_epochs": params.epochs}))


def _si_vae(params: Params) -> Method:
    return ReversedAutoencoder.from_params(params.model_copy(update={"ra_lambda_emb": 0.0}))


VARIANTS: dict[str, Variant] = {
    "unet": Variant(UNetAutoencoder.from_params, "a U-Net that returns its input, which its skip connections can copy"),
    "unet-no-skips": Variant(_unet("none", "none"), "a U-Net without skip connections"),
    "unet-noisy-skips": Variant(_unet("noise", "none"), "a U-Net whose skip connections carry noise in training"),
    "unet-denoising": Variant(_unet("full", "noise"), "a U-Net that removes noise (Kascenas et al., MIDL 2022)"),
    "unet-masked": Variant(_unet("full", "mask"), "a U-Net that fills hidden squares of an image"),
    "ra": Variant(
        ReversedAutoencoder.from_params,
        "the Reversed Autoencoder (Bercea et al., MIDL 2023): an encoder turns an image into a few numbers, from which "
        "a decoder redraws it; the encoder also learns to tell real images from redrawn ones, and the decoder to "
        "deceive it",
    ),
    "si-vae": Variant(_si_vae, "a soft-introspective VAE (Daniel & Tamar, CVPR 2021): RA without its embedding loss"),
    "vae": Variant(_vae, "a variational autoencoder, which redraws an image from a few numbers"),
    "ae-16": Variant(lambda params: ConvAutoencoder(params.image_size, 16), "an autoencoder with 16 latent numbers"),
    "ae-4": Variant(lambda params: ConvAutoencoder(params.image_size, 4), "an autoencoder with 4 latent numbers"),
}
