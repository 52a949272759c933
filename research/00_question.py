# %% [markdown] id="question"
# # Does a Reversed Autoencoder find anomalies in chest X-rays better than a U-Net?
#
# **The question.** We train two networks on normal chest X-rays only: a *U-Net autoencoder* and a *Reversed
# Autoencoder* (RA; Bercea et al., MIDL 2023). Each network takes a new X-ray and reconstructs it as the normal chest
# that it expects to see. Where the X-ray and its reconstruction differ, something may be wrong. Which network points
# more reliably to what a radiologist would call abnormal, and by how much? Could something simpler explain the
# difference?
#
# **Why normal images only?** Normal X-rays are plentiful, and nobody has to outline lesions in them. A method that
# has never been shown pneumonia may also notice a disease that nobody thought of. This task is called *unsupervised
# anomaly detection*, or one-class learning.

# %% [markdown]
# ## The idea in one picture
#
# A network that can draw only normal chests turns an X-ray into the *nearest* normal chest: its *reconstruction*. The
# absolute difference between the two images is the *residual*, an anomaly map. Its mean, printed under each residual
# below, is the *score* of the image. An image with a high score is called abnormal.

# %%
from lib.environment import prepare

prepare()

# %%
from lib.data.phantom import radiograph
from lib.figures.images import reconstructions

ill, healthy = radiograph(3, finding="opacity", severity=0.7), radiograph(3)
reconstructions(ill.image[None], {"a perfect model": healthy.image[None]}, ["opacity"], [ill.mask])

# %% [markdown]
# This model is perfect because it cheats. Both X-rays are synthetic, drawn by formulas: one with an opacity
# (outlined), one without. The "reconstruction" is simply the second one. This is the ideal case: everything is
# reproduced except what should not be there. A real model can miss the ideal in two opposite ways:
#
# * It reconstructs **too well**. A network that can copy any input also copies the anomaly, and the residual is
#   empty. This is the risk of the U-Net, whose skip connections carry every detail from the input to the output
#   ([chapter 3](03_unet.py)).
# * It reconstructs **too badly**. If a network loses ribs and vessels, every image has a large residual, and the
#   lesion is lost in it. This is the risk of a narrow bottleneck, and what the training of RA is meant to prevent
#   ([chapter 4](04_reversed_autoencoder.py)).
#
# ## What would count as an answer
#
# We fixed the comparison **before** we saw any result:
#
# | | in the published runs on adults ([chapter 7](07_what_matters.py)) |
# |---|---|
# | images | frontal X-rays of adults, labels from radiologists (`strict_label`), normal against lung opacity |
# | training | the same normal images, in the same order, the same number of images seen |
# | score | the mean absolute residual, the same for both |
# | primary metric | AUROC, with a 95 % interval from a bootstrap over patients |
# | the answer | the difference U-Net minus RA on the same resamples; an interval that contains zero means *no difference shown* |
#
# AUROC is the probability that a random abnormal image scores higher than a random normal one: 0.5 is a coin toss, 1
# is perfect.
#
# By default this notebook draws its own images, synthetic X-rays that need no download, and compares the same two
# methods by the same rules. These images show that every step works. They are **synthetic images: a smoke test, not
# evidence.** To use real X-rays, choose another `source`: a folder, a data set from Kaggle or shards in a bucket
# ([chapter 2](02_images.py)).
