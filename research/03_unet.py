# %% [markdown] id="unet" shows=["methods/method.py", "methods/blocks.py", "methods/unet.py", "methods/training.py", "methods/checkpoint.py"]
# # Does a network with skip connections learn what is normal?
#
# **Reads** `params`, `prepared`, `images`, `run`, `tracker`. **Leaves** the U-Nets that `methods` names in `trained`
# and `histories`; `copying`.
#
# A U-Net (Ronneberger et al., 2015) is shaped like its letter. On the way down it halves the image again and again,
# in width and height, while the number of channels grows. On the way up it doubles the features back to full size. At
# every size a **skip connection** passes the features from the way down directly to the way up. With full skips, its
# curve in chapter 1 therefore never falls below the number of pixels of the image.
#
# Our U-Net is built from the same blocks as RA, so the two do not differ in their blocks: residual blocks, which add
# the output of two convolutions to their own input, batch normalisation and average pooling. As an autoencoder it is
# trained to return its input, with the mean squared error
#
# $$\mathcal L(x) = \frac{1}{HW} \sum_{i} (x_i - \hat x_i)^2 , \qquad \hat x = f_\theta(x),$$
#
# where $x_i$ is pixel $i$ of an image of $H \times W$ pixels, $f_\theta$ is the network with its weights $\theta$,
# and $\hat x$ is its output. That is all: one network, one loss, one optimizer. Nothing forces the network to know
# anything about chests.
#
# ## Its best chance
#
# A U-Net can also be used in a form that does not simply copy. Two remedies are known, and a fair comparison includes
# both:
#
# * **Pass less through the skips.** `unet_skips: none` leaves only the coarsest features. `noise` sends each skip
#   through a noisy channel: a sigmoid, with Laplace noise added in training, through which a value can carry only so
#   much information (after QBAE, arXiv 2610.09670).
# * **Make copying useless.** With `unet_corruption: noise`, coarse Gaussian noise is added to the input, and the
#   network has to return the clean image. (The noise has a standard deviation of 0.2 on a grid of an eighth of the
#   side, is smoothly enlarged and shifted at random.) This is the denoising autoencoder of Kascenas et al. (MIDL
#   2022). With `mask`, each cell of an 8×8 grid is painted over with probability ½, in the mean grey of the image.
#   Inputs are corrupted in training only; an image to be scored is shown as it is.
#
# `widths` sets depth and widths, one entry per resolution. `methods` can name several variants side by side:
#
# | name | skips | input in training |
# |---|---|---|
# | `unet` | as the settings say; by default full | as the settings say; by default clean |
# | `unet-no-skips`, `unet-noisy-skips` | none, noisy | clean |
# | `unet-denoising`, `unet-masked` | full | coarse noise, masked |

# %%
from lib.figures.charts import loss_curves
from lib.runs.train import train
from lib.scores.scoring import reconstruct

takes(3)
unets: list[str] = [name for name in params.methods if name.startswith("unet")]
for name in unets:
    trained[name], histories[name] = train(run, name, prepared, tracker)
    display(run.save_figure(loss_curves(histories[name]), f"{name}-losses"))
if not unets:
    print(f"This run trains {params.methods}, and so no U-Net.")

# %% [markdown]
# *Left*: the training loss; for `unet-denoising` and `unet-masked` it compares the output with the clean image.
# *Right*: the mean absolute residual of normal images that were not used for training. If both fall, the network does
# more than memorise its training images. The two panels have different units, so compare shapes, not values. What do
# reconstructions of these new images look like?

# %%
if unets:
    unseen = images.validation[:4]
    reconstructed = {name: reconstruct(trained[name], unseen) for name in unets[:3]}
    display(run.save_figure(reconstructions(unseen, reconstructed), "unet-normal"))

# %% [markdown]
# ## The shortcut
#
# A perfect reconstruction looks like a success, but it is the problem. The finest skip carries the image at full
# resolution past everything that the network could have learned, so the cheapest way to a low loss is to *copy*. A
# perfect copier has no notion of normal: it returns a tumour as faithfully as a rib. How close does this network come
# to that?
#
# Cutting skips shows what passes through which. Below, one trained network reconstructs one image with a white square
# pasted into it: with all skips, without the finest, with only the finest, and with none. (The bottom always stays; a
# skip that is cut passes zeros.) *Square off by* is the mean absolute difference inside the square: near 0, the
# square was copied. The figure shows what this network relies on, not what it could do: a network that is *trained*
# without skips, `unet-no-skips`, has learned to do without them.

# %%
from lib.figures.networks import skips_cut
from lib.methods.unet import UNetAutoencoder
from lib.scores.copying import cut_skips

networks = {name: method for name, method in trained.items() if isinstance(method, UNetAutoencoder)}
for name in [name for name, method in networks.items() if any(method.network.crossing)][:1]:
    figure = skips_cut(name, *cut_skips(networks[name], images.validation[0]))
    display(run.save_figure(figure, f"{name}-skips"))

# %% [markdown]
# If the square is visible with *only the finest*, full resolution alone is enough to copy it. If the chest is gone
# with *none*, the coarsest features, which alone remain, cannot draw it by themselves.
#
# *How much* is copied can be measured without a single abnormal image. We change a patch of normal images in a way
# that occurs in no chest, and ask what share of the change $d$ comes back as a change $r$ of the reconstruction:
#
# $$\text{copied} = \frac{\langle r, d \rangle}{\langle d, d \rangle}, \qquad
# d = x^{\text{changed}} - x, \quad r = f(x^{\text{changed}}) - f(x).$$
#
# Here $\langle a, b \rangle$ is the sum of the products of $a$ and $b$, pixel by pixel, over 32 validation images.
# One means that the change was copied completely, zero that it was removed. Below zero it was reversed, above one
# exaggerated.
#
# A single kind of change can mislead, so there are two, each a sixth of the image wide. A white **square** is a
# coarse change. A **shuffled** patch, which keeps its grey values but loses their order, is a fine one. The figure
# shows the square.

# %%
from lib.figures.networks import copied_text
from lib.scores.copying import KINDS, copied_share


def copying(names):
    """Return a figure of the square that each method copies, and in words how much it copies of both changes."""
    normal = images.validation[:32]
    copied = {name: {kind: copied_share(trained[name], normal, kind) for kind in KINDS} for name in names}
    squares = {name: kinds["square"] for name, kinds in copied.items()}
    reconstructed = {name: squares[name].reconstructed[:2] for name in names[:3]}
    shares = {name: {kind: change.share for kind, change in kinds.items()} for name, kinds in copied.items()}
    residuals = {name: histories[name][-1]["validation/residual"] for name in names}
    return reconstructions(squares[names[0]].pasted[:2], reconstructed), copied_text(shares, residuals)


if unets:
    figure, text = copying(unets)
    display(run.save_figure(figure, f"{unets[0]}-pasted-square"), Markdown(text))

# %% [markdown]
# A change that is copied leaves no trace in the residual. Copying little is not yet a virtue: a network that has
# learned nothing, and so returns nothing, copies nothing either.
#
# **So read the shares and the residual together.** A small residual with large shares: the network passes images
# through and need not know what is normal. Small residual, small shares: it has learned to draw normal chests and
# little else. A large residual: it draws nothing well. Only abnormal images can tell which of these finds disease
# ([chapter 6](06_comparison.py)).
