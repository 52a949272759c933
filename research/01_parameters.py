# %% [markdown] id="parameters-chapter"
# # 1 What exactly is run?
#
# **Reads** nothing. **Leaves** `params`, `run`, `base`.
#
# Everything that a run may vary is in the one cell below; in Colab it is a form. What the terms in the comments mean is explained
# where they are used: those of the U-Net in chapter 3, those of RA in chapter 4. A misspelt name, text in a number's place or a
# value out of range stops the run here, before anything is trained. What a chapter **reads** was left by those before it; so were
# the functions that it calls, for what one chapter imports later ones use too.

# %% tags=["parameters"] id="parameters"
# @title Parameters
methods: list[str] = ["unet", "ra"]  # @param {"type": "raw"} # the methods that this run trains; lib/arms.py says what each is (each entry one of 'unet', 'unet-no-skips', 'unet-noisy-skips', 'unet-denoising', 'unet-masked', 'ra', 'si-vae', 'vae', 'ae-16', 'ae-4')
references: list[str] = ["mean-grey", "mean-image", "pca", "knn", "mahalanobis", "patchcore", "view"]  # @param {"type": "raw"} # rows that need no training loop; knn, mahalanobis, patchcore want a backbone (each entry one of 'mean-grey', 'mean-image', 'pca', 'knn', 'mahalanobis', 'patchcore', 'view')
backbone: str = "auto"  # @param ["auto", "efficientnet-lite0", "resnet18", "none"] # frozen network behind perceptual scores; auto: what can be had, or none
ra_map: str = "backbone"  # @param ["backbone", "lpips"] # RA's own score with this perceptual distance; lpips is theirs, and is downloaded
source: str = "phantom"  # @param ["phantom", "folder", "stream", "rsna", "rsna-dicom", "kermany", "nih", "nih-sample", "vinbigdata"] # phantom: synthetic; folder, stream: data_dir; else: a data set from Kaggle
data_dir: str = ""  # @param {"type": "string"} # folder of images, or address of shards (hf://, s3://, gs://, https://)
labels: str = "given"  # @param ["given", "strict"] # the reading that counts, where there are two
on_bad_image: str = "stop"  # @param ["stop", "skip"] # an unusable image: stop, or leave it out
stretch: list[float] = [1.0, 99.0]  # @param {"type": "raw"} # percentiles of grey that become black and white (each entry a number, at least 2 in all)
square: str = "pad"  # @param ["pad", "squash"] # how a film becomes square
phantom_images: int = 1200  # @param {"type": "integer", "min": 40, "max": 1000000} # phantoms made; a quarter of them abnormal (at least 40, at most 1,000,000)
image_size: int = 128  # @param {"type": "integer", "min": 16, "max": 1024} # side of the square input, pixels (at least 16, at most 1,024)
widths: list[int] = [16, 32, 64, 128, 128]  # @param {"type": "raw"} # channels of each resolution, both methods (each entry an integer, at least 1 in all)
normalisation: str = "batch"  # @param ["batch", "group"] # layers between convolutions, both methods
latent_dim: int = 128  # @param {"type": "integer", "min": 1} # RA: length of the latent vector z (at least 1)
batch_size: int = 32  # @param {"type": "integer", "min": 2} # images per update (at least 2)
epochs: int = 20  # @param {"type": "integer", "min": 1} # passes over the normal training images (at least 1)
learning_rate: float = 0.0002  # @param {"type": "number", "max": 1} # Adam step size, the same for both methods (above 0, at most 1)
seed: int = 0  # @param {"type": "integer", "min": 0, "max": 2147483647} # fixes the split, the weights and the batch order (at least 0, at most 2,147,483,647)
choose_every: int = 0  # @param {"type": "integer", "min": 0} # keep weights every n epochs, to choose among; 0: the last epoch (at least 0)
validation_fraction: float = 0.15  # @param {"type": "number"} # share of training normals kept for thresholds (above 0, below 0.5)
unet_skips: str = "full"  # @param ["full", "none", "noise"] # U-Net: what crosses beside the bottom
unet_skip_noise: float = 1.0  # @param {"type": "number"} # U-Net: scale of the noise on its skips, if there is noise (above 0)
unet_corruption: str = "none"  # @param ["none", "noise", "mask"] # U-Net: what training does to inputs
ra_beta_rec: float = 0.5  # @param {"type": "number", "min": 0} # RA: weight of the reconstruction error (at least 0)
ra_beta_kl: float = 1.0  # @param {"type": "number", "min": 0} # RA: weight of the real images' KL (at least 0)
ra_beta_neg: float = 128.0  # @param {"type": "number", "min": 0} # RA: weight of the generated images' KL, encoder (at least 0)
ra_gamma_r: float = 1e-08  # @param {"type": "number", "min": 0} # RA: weight of the generated images' error, decoder (at least 0)
ra_lambda_emb: float = 0.005  # @param {"type": "number", "min": 0} # RA: weight of the reversed embedding loss; 0 gives SI-VAE (at least 0)
ra_warmup_epochs: int = 5  # @param {"type": "integer", "min": 0} # RA: epochs as a plain VAE before the game begins (at least 0)
ra_as_published: list[str] = []  # @param {"type": "raw"} # RA: choices of the authors' code to follow; its chapter says which (each entry one of 'frozen-normalisation', 'attached-target', 'sampled-latent')
precision: str = "auto"  # @param ["auto", "float32", "bfloat16", "float16"] # of training; auto: fast
device: str = "auto"  # @param ["auto", "cpu", "cuda"] # where it trains; auto: cuda if there is one
resamples: int = 2000  # @param {"type": "integer", "min": 100} # bootstrap resamples behind each interval (at least 100)
run_dir: str = ""  # @param {"type": "string"} # folder of results; empty: runs/ and a name made from the settings
keep_in: str = ""  # @param {"type": "string"} # folder that outlives this machine, as /content/drive/MyDrive/x; empty: none
tracking: str = "off"  # @param ["off", "wandb"] # wandb: also log to Weights & Biases, offline

# %%
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display

from lib.environment import prepare_for
from lib.params import Params, project_root
from lib.report import SYNTHETIC
from lib.runs import Run
from lib.training import choose_device, choose_precision

params = Params.from_notebook(globals())
prepare_for(params.extras)
base = project_root()
run = Run.start(params, base)
pd.set_option("display.max_colwidth", None)

# %% [markdown]
# `methods` decides what chapters 3 to 5 train. A run that trains one method can be compared with another run: give both the same
# images, size and number of images seen, and put their folders side by side; chapter 6 of the second finds the first.

# %%
hardware = choose_device(params.device)
settings = {
    "run folder": run.folder,
    "device": torch.cuda.get_device_name() if hardware.type == "cuda" else f"CPU, {torch.get_num_threads()} threads",
    "precision": str(choose_precision(params.precision, hardware)).removeprefix("torch."),
    "torch": torch.__version__,
    **params.model_dump(exclude={"run_dir", "device", "precision"}),
}
pd.DataFrame({"value": {name: str(value) for name, value in settings.items()}})

# %% [markdown]
# ## What a film has to pass through
#
# The sharpest difference between the methods needs no training to be seen. Below a film goes through each network that these
# parameters name, from left to right; the last point is what the last layer makes the reconstruction of. A curve is the number
# of numbers that carry the film there: those that enter a layer, and those that go round it, through a U-Net's skip connections
# ([chapter 3](03_unet.py)). Dotted is the film itself, one number a pixel.

# %%
from torch import nn

from lib.arms import ARMS
from lib.figures import GREY, Drawing, look
from lib.unet import UNetAutoencoder


def carried(method):
    """Return how many numbers carry one film in front of each layer of a network."""
    counts: list[int] = []
    beside: list[int] = []

    def join(*_):
        beside.pop()

    for layer in method.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) and layer.weight.shape[2:] != (1, 1):
            layer.register_forward_pre_hook(lambda _, given: counts.append(given[0].numel() + sum(beside)))
    if isinstance(method, UNetAutoencoder):
        method.network.skip.register_forward_hook(lambda _, __, skip: beside.append(skip.numel()))
        for stage in method.network.up:
            stage.register_forward_pre_hook(join)
    with torch.no_grad():
        method.eval().reconstruct(torch.zeros(1, 1, params.image_size, params.image_size))
    return counts


figure = Drawing(figsize=(10, 3.6), layout="constrained")
ax = figure.subplots()
alike: dict[tuple[int, ...], list[str]] = {}
for name in params.methods:
    alike.setdefault(tuple(carried(ARMS[name](params))), []).append(name)
for numbers, names in alike.items():
    colour, marker = look(names[0])
    label = "\n".join([*names, f"(at least {min(numbers):,})"])
    ax.plot(np.linspace(0, 1, len(numbers)), numbers, color=colour, marker=marker, markersize=4, label=label)
ax.axhline(params.image_size**2, color=GREY, linestyle=":")
ax.set(yscale="log", ylabel="numbers that carry the film", xticks=[0, 1], xticklabels=["film", "reconstruction"])
pixels = params.image_size**2
short = [f"{', '.join(names)} ({min(numbers):,})" for numbers, names in alike.items() if min(numbers) < pixels]
ax.set_title(f"Narrower than the film's {pixels:,} pixels: {'; '.join(short) or 'none'}", fontsize=10)
ax.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
run.save_figure(figure, "carried")

# %% [markdown]
# A network whose curve stays on or above the dotted line has room for a copy of the film, unless noise limits what a number can
# carry (`unet-noisy-skips`). One whose curve falls far below it can hardly keep everything, and has to know chests well enough
# to put back what it lost. Whether the first kind does copy, and the second does know, is what the next chapters measure.
