# %% [markdown] id="unet"
# # 3 Does a network with shortcuts learn what is normal?
#
# **Reads** `params`, `split`, `images`, `run`. **Leaves** `trained["unet"]` and `histories["unet"]`, if `methods` names it;
# `copied_share`.
#
# A U-Net (Ronneberger et al., 2015) halves the image again and again, $64 \to 32 \to 16 \to \dots$, while the number of
# channels grows, and then doubles it back to full size. At every size a **skip connection** hands the features on the way
# down straight to the way up. (Ours has the residual blocks, batch normalisation and average pooling of the other method, so
# that the two differ in what is being compared and not in their bricks.) As an autoencoder it is trained to return its input, with the mean squared error
#
# $$\mathcal L(x) = \frac{1}{HW} \sum_{i} (x_i - \hat x_i)^2 , \qquad \hat x = f_\theta(x).$$
#
# That is all: one network, one loss, one optimizer. Nothing forces it to know anything about chests.

# %%
from lib.figures import loss_curves
from lib.scoring import reconstruct
from lib.unet import UNetAutoencoder

if "unet" in params.methods:
    torch.manual_seed(params.seed)  # the same first weights whichever method trained before
    trained["unet"] = UNetAutoencoder.from_params(params)
    histories["unet"] = run.train("unet", trained["unet"], split, images)
    display(run.save_figure(loss_curves(histories["unet"]), "unet-losses"))
else:
    print(f"This run trains {params.methods}: the U-Net is left to another one.")

# %% [markdown]
# The loss on training images, and beside it the mean absolute residual of normal images that were not trained on. What do
# such reconstructions look like?

# %%
if "unet" in trained:
    sample = images.validation[:4]
    returned = reconstruct(trained["unet"], sample)
    display(run.save_figure(reconstructions(sample, {"unet": returned}), "unet-normal"))

# %% [markdown]
# ## The shortcut
#
# A perfect reconstruction looks like success, and is the problem. The finest skip carries the image at full resolution past
# everything that could have been learned, so the cheapest way to a low loss is to *copy*. A copier has no idea of normal: it
# will return a tumour as faithfully as a rib.
#
# This can be tested without a single abnormal film. Paste a bright square, which no chest contains, into normal films, and
# ask which share of it comes back:
#
# $$\text{copied} = \frac{\sum_{i \in \text{square}} (\hat x^{\text{pasted}}_i - \hat x_i)}
# {\sum_{i \in \text{square}} (x^{\text{pasted}}_i - x_i)}$$
#
# One means that the square was copied whole, zero that it was taken out.


# %%
def copied_share(method, films):
    """Return the share of a pasted bright square that the method gives back, and a picture's three arrays."""
    side = films.shape[-1] // 6
    there = (slice(None), slice(2 * side, 3 * side), slice(side, 2 * side))
    pasted = films.copy()
    pasted[there] = 255
    before, after = reconstruct(method, films), reconstruct(method, pasted)
    added = (pasted[there].astype(float) - films[there]).sum() / 255
    return (after[there] - before[there]).sum() / added, pasted, after


if "unet" in trained:
    share, pasted, after = copied_share(trained["unet"], np.array(images.validation[:32]))
    print(f"The U-Net gives back {share:.0%} of a pasted square.")
    display(run.save_figure(reconstructions(pasted[:2], {"unet": after[:2]}), "unet-pasted-square"))

# %% [markdown]
# Skips are not the only thing that a U-Net could be given (corrupted inputs, a noisy bottleneck), and its best chance
# deserves a chapter of its own. Here it is the plain one: the form in which it is most often compared.
