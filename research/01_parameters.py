# %% [markdown] id="parameters-chapter"
# # What exactly is run?
#
# **Reads** nothing. **Leaves** `params`, `run`, `tracker`, `base`.
#
# The cell below holds every setting of a run; in Colab it is a form. Chapter 3 explains the settings of the U-Net,
# chapter 4 those of RA. A misspelt name, text in place of a number or a value out of range stops the run here, before
# anything is trained.
#
# Each chapter begins with the variables that it **reads** from earlier chapters and those that it **leaves** for
# later ones. All chapters share one namespace: a function that one chapter imports is available in all later ones.

# %% tags=["parameters"] id="parameters"
# @title Parameters

# @markdown **What most runs change**
# what settings are that are left open; quick: minutes on a CPU, full: the authors', for a GPU
preset: str = "quick"  # @param ["quick","standard","full"]
# methods to train; lib/methods/variants.py describes each (each entry one of 'unet', 'unet-no-skips',
# 'unet-noisy-skips', 'unet-denoising', 'unet-masked', 'ra', 'si-vae', 'vae', 'ae-16', 'ae-4')
methods: list[str] = ["unet", "ra"]  # @param {"type":"raw"}
# phantom: synthetic images; folder, stream: those of data_dir; the others: a data set from Kaggle
source = "phantom"  # @param ["phantom","folder","stream","rsna","rsna-dicom","kermany","nih","nih-sample","vinbigdata"]
data_dir: str = ""  # @param {"type":"string"} # folder of images, or address of shards (hf://, s3://, gs://, https://)
# side of the square input, pixels (at least 16, at most 1,024); None: quick 64, standard 128, full 128
image_size = None  # @param {"type":"raw"}
# passes over the normal training images (at least 1); None: quick 10, standard 20, full 100
epochs = None  # @param {"type":"raw"}
seed: int = 0  # @param {"type":"integer","min":0,"max":2147483647} # fixes the first weights and the batch order
run_dir: str = ""  # @param {"type":"string"} # folder of results; empty: a name made from the settings, in runs/

# @markdown **Everything else**
# baselines without a training loop; knn, mahalanobis and patchcore need a backbone (each entry one of 'mean-grey',
# 'mean-image', 'pca', 'view', 'file-size', 'knn', 'mahalanobis', 'patchcore')
references = ["mean-grey", "mean-image", "pca", "knn", "mahalanobis", "patchcore", "view"]  # @param {"type":"raw"}
# frozen network behind perceptual scores; auto: the first available, or none
backbone: str = "auto"  # @param ["auto","efficientnet-lite0","resnet18","none"]
# perceptual distance of RA's own score; lpips is the authors', and is downloaded
ra_map: str = "backbone"  # @param ["backbone","lpips"]
labels: str = "given"  # @param ["given","strict"] # which labels count, where an image has two
on_bad_image: str = "stop"  # @param ["stop","skip"] # at an unusable image: stop, or leave it out
# percentiles of grey that become black and white (each entry a number, at least 2 in all)
stretch: list[float] = [1.0, 99.0]  # @param {"type":"raw"}
square: str = "pad"  # @param ["pad","squash"] # how an image becomes square
# number of phantoms, a quarter abnormal (at least 40, at most 1,000,000); None: quick 800, standard 1200, full 1200
phantom_images = None  # @param {"type":"raw"}
# least and most extent of the phantoms' lesions, 0 to 1 (each entry a number, at least 2 in all)
phantom_severity: list[float] = [0.7, 1.0]  # @param {"type":"raw"}
# lesions of an abnormal phantom, all of one finding
phantom_lesions: int = 3  # @param {"type":"integer","min":1,"max":10}
# channels at each resolution, both methods (each entry an integer, at least 1 in all); None: quick [8, 16, 32, 64],
# standard [16, 32, 64, 128, 128], full [64, 128, 256, 512, 512]
widths = None  # @param {"type":"raw"}
normalisation: str = "batch"  # @param ["batch","group"] # normalisation layers, both methods
# RA: length of the latent vector z (at least 1); None: quick 64, standard 128, full 128
latent_dim = None  # @param {"type":"raw"}
batch_size = None  # @param {"type":"raw"} # images per update (at least 2); None: quick 16, standard 32, full 8
# Adam step size, both methods (above 0, at most 1); None: quick 0.0002, standard 0.0002, full 5e-05
learning_rate = None  # @param {"type":"raw"}
# most that a training image is turned, zoomed and shifted by at random; 0: not
augmentation: float = 0.0  # @param {"type":"number","min":0,"max":0.5}
# decay a batch of the average of weights that is used; 0: the last weights (at least 0, below 1)
average_decay: float = 0.0  # @param {"type":"number","min":0}
# seeds to train in turn and to combine, the first in full; empty: seed (each entry an integer)
seeds: list[int] = []  # @param {"type":"raw"}
split_seed: int = 0  # @param {"type":"integer","min":0,"max":2147483647} # fixes the split, and the phantoms
# epochs whose weights are kept, to choose from and to draw curves; always the last (each entry an integer)
choose_from: list[int] = []  # @param {"type":"raw"}
# measure health every n epochs; 0: after 1, 2, 3, 4, 6, 8, 12, 16 ... epochs
measure_every: int = 0  # @param {"type":"integer","min":0}
# share of normals kept for thresholds (above 0, below 0.5)
validation_fraction: float = 0.15  # @param {"type":"number"}
unet_skips: str = "full"  # @param ["full","none","noise"] # U-Net: what its skip connections carry
unet_skip_noise: float = 1.0  # @param {"type":"number"} # U-Net: scale of the noise on noisy skips (above 0)
unet_corruption: str = "none"  # @param ["none","noise","mask"] # U-Net: how training corrupts its input
# RA: weight of the reconstruction error (at least 0); None: quick 1.667, standard 0.5, full 0.5
ra_beta_rec = None  # @param {"type":"raw"}
# RA: weight of the real images' KL, at 128 px (at least 0); None: quick 1.333, standard 1.0, full 1.0
ra_beta_kl = None  # @param {"type":"raw"}
# RA: weight of the generated images' KL, encoder, at 128 px (at least 0); None: quick 256.0, standard 128.0, full 128.0
ra_beta_neg = None  # @param {"type":"raw"}
# RA: weight of the generated images' error, decoder (at least 0); None: quick 0.0, standard 1e-08, full 1e-08
ra_gamma_r = None  # @param {"type":"raw"}
# RA: weight of the reversed embedding loss; 0: SI-VAE (at least 0); None: quick 0.0167, standard 0.005, full 0.005
ra_lambda_emb = None  # @param {"type":"raw"}
# RA: epochs as a plain VAE before the adversarial game (at least 0); None: quick 4, standard 5, full 5
ra_warmup_epochs = None  # @param {"type":"raw"}
# RA: weight of the critic's term when the adversarial game begins (above 0, at most 1); None: quick 0.01, standard 1.0,
# full 1.0
ra_rejection_start = None  # @param {"type":"raw"}
# RA: epochs in which that weight grows to 1; 0: it is 1 (at least 0); None: quick 6, standard 0, full 0
ra_rejection_growth = None  # @param {"type":"raw"}
# RA: choices of the authors' code to follow; see chapter 4 (each entry one of 'frozen-normalisation',
# 'attached-target', 'sampled-latent', 'fixed-weights', 'repeated-passes')
ra_as_published: list[str] = []  # @param {"type":"raw"}
precision: str = "auto"  # @param ["auto","float32","bfloat16","float16"] # arithmetic of training; auto: the fastest
device: str = "auto"  # @param ["auto","cpu","cuda"] # device to train on; auto: cuda if there is one
# CPU threads; 0: torch's choice, 1: for runs side by side
threads: int = 0  # @param {"type":"integer","min":0,"max":1024}
# bootstrap resamples behind each interval (at least 100); None: quick 1000, standard 2000, full 2000
resamples = None  # @param {"type":"raw"}
# folders of finished runs to compare with, such as runs/unet (each entry text)
compare_with: list[str] = []  # @param {"type":"raw"}
keep_in: str = ""  # @param {"type":"string"} # folder that outlives this machine, such as /content/drive/MyDrive/x
tracking: str = "off"  # @param ["off","wandb"] # wandb: also log to Weights & Biases, offline

# %%
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display

from lib.environment import prepare_for
from lib.methods.training import choose_device, choose_precision
from lib.notebook.parameters import read_parameters
from lib.params import project_root
from lib.runs.report import SYNTHETIC
from lib.runs.run import Run
from lib.runs.tracking import open_tracker

params = read_parameters(globals())
prepare_for(params.extras)
base = project_root()
run = Run.start(params, base)
tracker = open_tracker(run.params, run.folder)
pd.set_option("display.max_colwidth", None)

# %% [markdown]
# `methods` decides what chapters 3 to 5 train. Two runs that train one method each can be compared as well. Give both
# the same images, image size and number of images seen, and name the first run in `compare_with` of the second: its
# chapter 6 compares them.
#
# ## Where is the library?
#
# The chapters call a library, `lib/`. The notebook carries all of it, so it runs without a copy of the repository.
# Its cells show only the code that the question is about: the methods (`lib/methods`) and the step from a
# reconstruction to a map and a score. These cells are folded and come before the chapter that explains them. Each
# begins with `%%embed` and the name of a file. It writes that file to a private folder, from which the chapters
# import it.
#
# The rest of the library travels in one packed cell, which unpacks it into the same folder as real files. Each line of
# that cell begins with a file's name, its number of lines and its SHA-256. To read or change one of the files, run this
# line in a new cell:
#
#     %embed lib/evidence/audit.py
#
# It brings the file into a cell, to be edited and run like those that are shown. After an edit, the changed module
# and all modules that import it are reloaded. Objects made before the edit keep their old code; a message says from
# which cell to run again.

# %%
from lib.figures.records import settings_table

hardware = choose_device(params.device)
machine = {
    "run folder": run.folder,
    "device": torch.cuda.get_device_name() if hardware.type == "cuda" else "CPU",
    "threads": params.threads or torch.get_num_threads(),
    "precision": str(choose_precision(params.precision, hardware)).removeprefix("torch."),
}
settings_table(params, ["methods", "source", "image_size", "widths", "batch_size", "epochs", "seed"], machine, base)

# %% [markdown]
# The table gives the main settings and all that differ from the defaults above. `params.json` in the run folder holds
# every setting.
#
# ## How much of an image can each network carry?
#
# The most important difference between the methods shows without any training: how much room each leaves for a copy
# of its input. The figure follows one image through each network that these settings name, from the input on the left
# to the reconstruction on the right. A curve counts the numbers that carry the image at each layer: those that enter
# the layer, and those that bypass it through the skip connections of a U-Net ([chapter 3](03_unet.py)). The dotted
# line is the image itself, one number per pixel.

# %%
from lib.figures.networks import carried_numbers
from lib.methods.variants import VARIANTS
from lib.scores.copying import carried

counts = {str(name): carried(VARIANTS[name](params), params.image_size) for name in params.methods}
run.save_figure(carried_numbers(counts, params.image_size**2), "carried")

# %% [markdown]
# A network whose curve never falls below the dotted line has room for a complete copy of the image, unless noise
# limits what each number can carry (`unet-noisy-skips`). A network whose curve falls far below it cannot keep
# everything. It has to know what chests look like to restore what it has lost. The next chapters measure whether the
# first kind does copy, and whether the second kind does know.
