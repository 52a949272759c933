# %% [markdown] id="unet"
# # 3 Does a network with shortcuts learn what is normal?
#
# **Reads** `params`, `split`, `images`, `run`. **Leaves** the U-Nets that `methods` names in `trained` and `histories`;
# `identity_test`.
#
# A U-Net (Ronneberger et al., 2015) halves the image again and again, $64 \to 32 \to 16 \to \dots$, while the number of
# channels grows, and then doubles it back to full size. At every size a **skip connection** hands the features on the way
# down straight to the way up. (Ours has the residual blocks, batch normalisation and average pooling of the other method, so
# that the two differ in what is being compared and not in their bricks.) As an autoencoder it is trained to return its input, with the mean squared error
#
# $$\mathcal L(x) = \frac{1}{HW} \sum_{i} (x_i - \hat x_i)^2 , \qquad \hat x = f_\theta(x).$$
#
# That is all: one network, one loss, one optimizer. Nothing forces it to know anything about chests.
#
# ## Its best chance
#
# A U-Net need not be used in the form that copies. Two remedies are known, and a fair comparison grants it both:
#
# * **Hand less across.** `unet_skips: none` leaves only the coarsest features; `noise` sends each skip through a noisy
#   channel, a sigmoid with Laplace noise added while training, which can carry only so many bits a value (after QBAE,
#   arXiv 2610.09670).
# * **Make copying useless.** With `unet_corruption: noise` the network sees its input under coarse Gaussian noise (one value
#   for 8×8 pixels, smoothly enlarged, standard deviation 0.2) and has to return the clean film: the denoising autoencoder of
#   Kascenas et al. (MIDL 2022). With `mask`, half of an 8×8 grid of cells is painted over. Only training corrupts; a film that
#   is to be judged is shown as it is.
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

unets: list[str] = [name for name in params.methods if name.startswith("unet")]
for name in unets:
    torch.manual_seed(params.seed)  # the same first weights whichever method trained before
    trained[name] = ARMS[name](params)
    histories[name] = run.train(name, trained[name], split, images)
    display(run.save_figure(loss_curves(histories[name]), f"{name}-losses"))
if not unets:
    print(f"This run trains {params.methods}: the U-Net is left to another one.")

# %% [markdown]
# The loss on training images, and beside it the mean absolute residual of normal images that were not trained on. What do
# such reconstructions look like?

# %%
if unets:
    sample = images.validation[:4]
    returned = {name: reconstruct(trained[name], sample) for name in unets[:3]}
    display(run.save_figure(reconstructions(sample, returned), "unet-normal"))

# %% [markdown]
# ## The shortcut
#
# A perfect reconstruction looks like success, and is the problem. The finest skip carries the image at full resolution past
# everything that could have been learned, so the cheapest way to a low loss is to *copy*. A copier has no idea of normal: it
# will return a tumour as faithfully as a rib.
#
# What crosses where can be seen by cutting. Below, the same trained network draws the same film with a white square pasted into
# it, and some of its skips are set to zero. (A network that is *trained* without them, `unet-no-skips`, has learned to do
# without; this one has not, so the pictures say what it relies on, not what it could do.)

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
# This can be tested without a single abnormal film. Change a patch of normal films in a way that no chest is, and ask which
# share of the change $d$ comes back in the reconstruction's change $r$:
#
# $$\text{copied} = \frac{\langle r, d \rangle}{\langle d, d \rangle}, \qquad
# d = x^{\text{changed}} - x, \quad r = f(x^{\text{changed}}) - f(x).$$
#
# One means that the change was copied whole, zero that it was taken out. Two changes are made, for one alone misleads: a white
# **square**, which is coarse, and a **shuffled** patch, whose grey values stay and whose order is lost, which is fine.

# %%
from lib.identity import KINDS, copied_share


def identity_test(names):
    """Return how much each method copies of each change, and show the pasted square."""
    films = np.array(images.validation[:32])
    copies = {name: {kind: copied_share(trained[name], films, kind) for kind in KINDS} for name in names}
    shown = {name: of_name["square"].reconstructed[:2] for name, of_name in copies.items()}
    pasted = copies[names[0]]["square"].pasted[:2]
    display(run.save_figure(reconstructions(pasted, dict(list(shown.items())[:3])), f"{names[0]}-pasted-square"))
    return pd.DataFrame({name: {kind: f"{c.share:.0%}" for kind, c in of.items()} for name, of in copies.items()}).T


if unets:
    display(identity_test(unets).rename_axis("share copied of a"))

# %% [markdown]
# A change that is copied leaves no trace in the residual. The opposite is not yet a virtue: a network that gives nothing back,
# because it has learned nothing, copies nothing either. The share is to be read beside the residual of normal films.
