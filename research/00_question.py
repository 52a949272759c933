# %% [markdown] id="question"
# # Does a Reversed Autoencoder find anomalies in chest X-rays better than a U-Net?
#
# **The question.** Two networks have seen normal chest radiographs only. One is a *U-Net autoencoder*, the other the
# *Reversed Autoencoder* (RA; Bercea et al., MIDL 2023). Each is shown a new film and returns the chest that it believes it
# saw. Where film and belief differ, something may be wrong with the chest. Which of the two points at what a radiologist
# would call abnormal, by how much, and could something simpler explain it?
#
# **Why normal images only?** Because normal films are plentiful and need no drawing of lesions, and because a method that
# has never been told what pneumonia looks like may also notice what nobody thought of. This is called *unsupervised anomaly
# detection*, or one-class learning.

# %% [markdown]
# ## The idea in one picture
#
# A network that can only draw normal chests draws the normal chest *nearest* to the film, its *reconstruction*. The absolute
# difference of the two is the anomaly map, the *residual*; its mean, the number under each residual below, is the film's score,
# and a film with a high score is called abnormal.

# %%
from lib.environment import prepare

prepare()

# %%
from lib.figures import reconstructions
from lib.phantom import radiograph

film = radiograph(3, finding="opacity", severity=0.7)
same_without = radiograph(3)
reconstructions(film.image[None], {"a perfect model": same_without.image[None]}, ["opacity"], [film.mask])

# %% [markdown]
# This model is perfect because it cheats: both films are synthetic, drawn by formulas, one with the opacity (outlined) and
# one without, and the "reconstruction" is simply the latter. It is what one would wish for: everything is given back but what
# should not be there. Real models can miss that in two ways, and they pull in opposite directions:
#
# * The network draws **too well**. If it can copy whatever it is shown, it copies the anomaly too, and the difference is
#   empty. This is the danger of the U-Net, whose skip connections carry every detail from the input to the output
#   ([chapter 3](03_unet.py)).
# * The network draws **too badly**. If it forgets ribs and vessels, every film differs from its reconstruction, and the
#   lesion drowns. This is the danger of a narrow bottleneck, and what RA's game is meant to prevent
#   ([chapter 4](04_reversed_autoencoder.py)).
#
# ## What would count as an answer
#
# The comparison is fixed **before** any result is seen:
#
# | | in the published runs on adults ([chapter 7](07_what_matters.py)) |
# |---|---|
# | images | adult frontal films, labels read by radiologists (`strict_label`), normal against lung opacity |
# | training | the same normal images, in the same order, the same number of images seen |
# | score | the mean absolute residual, the same for both |
# | primary number | AUROC, with a 95 % interval from a bootstrap over patients |
# | the answer | the difference U-Net minus RA on the same resamples; an interval that covers zero is *no difference shown* |
#
# AUROC is the probability that a random abnormal film scores higher than a random normal one: 0.5 is a coin, 1 is perfect.
#
# By default this notebook draws its own images, synthetic radiographs that need no download, and compares the same two methods
# by the same rules. Its images show that every step works. They are **synthetic images: a smoke test, not evidence.** Real
# films enter by naming another `source`: a folder, a data set of Kaggle, shards in a bucket ([chapter 2](02_images.py)).
