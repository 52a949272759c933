# %% [markdown] id="unet"
# # 3 Does a network with shortcuts learn what is normal?
#
# **Reads** `params`, `split`, `images`, `run`. **Leaves** the U-Nets that `methods` names in `trained` and `histories`;
# `identity_test`, `copying`.
#
# A U-Net (Ronneberger et al., 2015) halves the image again and again, in width and height, while the number of channels grows,
# and then doubles it back to full size: down one leg of the letter and up the other. At every size a **skip connection** hands
# the features on the way down straight to the way up; that is why, with full skips, its curve in chapter 1 never falls below
# the film's own pixels. (Ours has the bricks of the other method: residual blocks, which add the output of two convolutions to
# their own input, batch normalisation and average pooling. So it is not their bricks in which the two differ.) As an
# autoencoder it is trained to return its input, with the mean squared error
#
# $$\mathcal L(x) = \frac{1}{HW} \sum_{i} (x_i - \hat x_i)^2 , \qquad \hat x = f_\theta(x),$$
#
# where $x_i$ is pixel $i$ of a film of $H \times W$ pixels, $f_\theta$ the network with its weights $\theta$ and $\hat x$ its
# output. That is all: one network, one loss, one optimizer. Nothing forces it to know anything about chests.
#
# ## Its best chance
#
# A U-Net need not be used in the form that copies. Two remedies are known, and a fair comparison grants it both:
#
# * **Hand less across.** `unet_skips: none` leaves only the coarsest features; `noise` sends each skip through a noisy
#   channel, a sigmoid with Laplace noise added while training, through which a value can carry only so much information (after
#   QBAE, arXiv 2610.09670).
# * **Make copying useless.** With `unet_corruption: noise` the network sees its input under coarse Gaussian noise (values of standard
#   deviation 0.2 on a grid of an eighth of the side, smoothly enlarged and shifted at random) and has to return the clean film:
#   the denoising autoencoder of Kascenas et al. (MIDL 2022). With `mask`, each cell of an 8×8 grid is painted over with
#   probability ½, in the film's mean grey. Only training corrupts; a film that is to be judged is shown as it is.
#
# Depth and widths are `widths`, one entry a resolution. `methods` can name the variants side by side:
#
# | name | skips | input while training |
# |---|---|---|
# | `unet` | as the settings say; by default full | as they say; by default clean |
# | `unet-no-skips`, `unet-noisy-skips` | none, noisy | clean |
# | `unet-denoising`, `unet-masked` | full | coarse noise, masked |

# %%
from lib.arms import ARMS
from lib.figures import loss_curves
from lib.scoring import reconstruct

takes(3)
unets: list[str] = [name for name in params.methods if name.startswith("unet")]
for name in unets:
    torch.manual_seed(params.seed)  # the same first weights whichever method trained before
    trained[name] = ARMS[name](params)
    histories[name] = run.train(name, trained[name], split, images)
    display(run.save_figure(loss_curves(histories[name]), f"{name}-losses"))
if not unets:
    print(f"This run trains {params.methods}: the U-Net is left to another one.")

# %% [markdown]
# *Left*: the loss while training; of `unet-denoising` and `unet-masked` it compares with the clean film. *Right*: the mean
# absolute residual of normal films that were not trained on. If both fall, the network does not merely remember its films. The
# two have different units: compare their shapes. What do reconstructions of those new films look like?

# %%
if unets:
    sample = images.validation[:4]
    returned = {name: reconstruct(trained[name], sample) for name in unets[:3]}
    display(run.save_figure(reconstructions(sample, returned), "unet-normal"))

# %% [markdown]
# ## The shortcut
#
# A perfect reconstruction looks like success, and is the problem. The finest skip carries the image at full resolution past
# everything that could have been learned, so the cheapest way to a low loss is to *copy*. A perfect copier has no idea of
# normal: it would return a tumour as faithfully as a rib. How near this network comes to that is measured next.
#
# What crosses where can be seen by cutting. Below, the same trained network draws the same film with a white square pasted into
# it: with all its skips, without the finest one, with the finest alone, and with none (the bottom always stays); a skip that is
# cut hands on zeros. *Square off by* is the mean absolute difference inside the square: near 0, the square was copied. (A
# network that is *trained* without skips, `unet-no-skips`, has learned to do without; this one has not, so the pictures say
# what it relies on, not what it could do.)

# %%
from lib.training import choose_device
from lib.unet import UNetAutoencoder


def with_cut_skips(network, film, cut):
    """Return what a U-Net draws, (H, W), with these of its skips zero; 0 is the one at full resolution."""
    order = iter(range(len(network.down)))
    hook = network.skip.register_forward_hook(lambda _, __, skip: skip * 0 if next(order) in cut else skip)
    try:
        with torch.no_grad():
            return network.eval()(film)[0, 0].cpu().numpy()
    finally:
        hook.remove()


networks = {name: one.network for name in unets if isinstance(one := trained[name], UNetAutoencoder)}
joined = [name for name in unets if any(networks[name].crossing)]
if joined:
    film = np.array(images.validation[:1])
    side = film.shape[1] // 4
    film[:, side : 2 * side, side : 2 * side] = 255
    given = torch.as_tensor(film[:, None] / 255, dtype=torch.float32, device=choose_device(params.device))
    network, depth = networks[joined[0]], len(params.widths)
    cuts = {"all skips": (), "the finest cut": (0,), "the finest alone": range(1, depth), "none": range(depth)}
    drawn = {"given": given[0, 0].cpu().numpy()} | {
        name: with_cut_skips(network, given, cut) for name, cut in cuts.items()
    }
    apart = {name: np.abs(one - drawn["given"])[side : 2 * side, side : 2 * side].mean() for name, one in drawn.items()}
    titles = [f"{name}\nsquare off by {apart[name]:.2f}" if name in cuts else f"{joined[0]}: given" for name in drawn]
    display(run.save_figure(image_grid(np.stack(list(drawn.values())), titles, columns=5), f"{joined[0]}-skips"))

# %% [markdown]
# If the square stands in *the finest alone*, full resolution is all that it takes to copy it. If the chest is gone in *none*,
# where only the coarsest features are left, they cannot draw it by themselves.
#
# *How much* is copied can be measured, without a single abnormal film. Change a patch of normal films in a way that no chest
# is, and ask which share of the change $d$ comes back in the reconstruction's change $r$:
#
# $$\text{copied} = \frac{\langle r, d \rangle}{\langle d, d \rangle}, \qquad
# d = x^{\text{changed}} - x, \quad r = f(x^{\text{changed}}) - f(x).$$
#
# Here $\langle a, b \rangle$ multiplies $a$ and $b$ pixel by pixel and adds up, over 32 validation films. One means that the
# change was copied whole, zero that it was taken out; below zero it is reversed, above one exaggerated. Two changes are made,
# for one alone misleads: a white **square**, a sixth of the film wide, which is coarse, and a **shuffled** patch of that size,
# whose grey values stay and whose order is lost, which is fine. The picture shows the square.

# %%
from lib.identity import KINDS, copied_share


def identity_test(names):
    """Return which share of each change each method gives back, a row a method, and what is made of the square."""
    films = np.array(images.validation[:32])
    copies = {name: {kind: copied_share(trained[name], films, kind) for kind in KINDS} for name in names}
    shown = {name: of_name["square"].reconstructed[:2] for name, of_name in copies.items()}
    pasted = copies[names[0]]["square"].pasted[:2]
    shares = pd.DataFrame({name: {kind: c.share for kind, c in of.items()} for name, of in copies.items()}).T
    residuals = {name: histories[name][-1]["validation/residual"] for name in names}
    return shares.assign(residual=pd.Series(residuals)), reconstructions(pasted, dict(list(shown.items())[:3]))


def copying(shares):
    """Say it in words."""
    return "\n".join(
        f"- *{name}* gives back {round(100 * of['square'])} % of a square and {round(100 * of['shuffle'])} % of a shuffled patch; its mean "
        f"residual on new normal films is {of['residual']:.3f}."
        for name, of in shares.iterrows()
    )


if unets:
    shares, figure = identity_test(unets)
    display(run.save_figure(figure, f"{unets[0]}-pasted-square"), Markdown(copying(shares)))

# %% [markdown]
# A change that is copied leaves no trace in the residual. The opposite is not yet a virtue: a network that gives nothing back,
# because it has learned nothing, copies nothing either.
#
# **So, read the shares and the residual together.** A small residual and large shares: the network passes films on, and need
# not know what is normal. All small: it has learned to draw normal chests and little else. A large residual: it draws nothing
# well. Which of these finds disease only abnormal films can say ([chapter 6](06_comparison.py)).
