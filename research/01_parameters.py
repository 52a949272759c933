# %% [markdown] id="parameters-chapter"
# # 1 What exactly is run?
#
# **Reads** nothing. **Leaves** `params`, `run`, `base`. **Draws** nothing.
#
# Everything that a run may vary is in the one cell below. In Colab it is a form; papermill puts the lines of a
# `params/*.yaml` behind it; the command line goes through the same model. A misspelt name, text in a number's place or a
# value out of range stops the run here, before anything is trained.

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
# Relative folders start from the checkout around the kernel's folder; outside of one, from the folder where the kernel was
# started (on Colab, `/content`). `methods` decides what the method chapters train. To compare two runs, give them the same images, size and number
# of images seen, and put their folders side by side: the comparison chapter of the second finds the first.

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
