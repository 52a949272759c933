# %% [markdown] id="reversed-autoencoder"
# # 4 Does a network that has to imagine the chest do better?
#
# **Reads** `params`, `split`, `images`, `run`, `identity_test`. **Leaves** the RA and its relatives that `methods` names in
# `trained` and `histories`.
#
# The Reversed Autoencoder (Bercea et al., MIDL 2023) has no shortcut. Everything it knows of a film has to pass through a
# short vector $z$, and its two halves keep each other honest. It is built in four steps; each is one line of mathematics.
#
# ## From autoencoder to variational autoencoder
#
# An *encoder* $E$ turns the film $x$ into a vector, a *decoder* $D$ turns the vector into a film. In a **variational**
# autoencoder the encoder answers with a Gaussian, $q(z \mid x) = \mathcal N(\mu, \operatorname{diag} \sigma^2)$, the decoder
# sees a draw from it, and the encoder is charged for every nat by which it departs from the standard normal distribution:
#
# $$L(x, \hat x) = \sum_i (x_i - \hat x_i)^2, \qquad
# \mathrm{KL}(x) = \tfrac12 \sum_j \left(\mu_j^2 + \sigma_j^2 - \log \sigma_j^2 - 1\right).$$
#
# Their weighted sum is (up to constants) the negative *evidence lower bound*: low for a film that the model finds likely.
# A variational autoencoder can also *invent* films, $D(\varepsilon)$ with $\varepsilon \sim \mathcal N(0, I)$, but both its
# inventions and its reconstructions are blurred.
#
# ## The game: introspection
#
# In a *soft-introspective* VAE (Daniel & Tamar, CVPR 2021) the encoder is also the critic. It gives real films a high
# bound and films that the decoder made, $g \in \{\hat x, D(\varepsilon)\}$, a low one; the decoder wants its films to be
# given a high one. Such a film is encoded and decoded in its turn: $\hat g = D(E(g))$. With $s = 1/(HW)$ the encoder lowers
#
# $$\mathcal L_E = s\left[\beta_{rec}\, L(x, \hat x) + \beta_{kl}\, \mathrm{KL}(x)\right]
# + \tfrac14 \sum_{g} \exp\!\left(-2s\left[\beta_{rec}\, L(g, \hat g) + \beta_{neg}\, \mathrm{KL}(g)\right]\right)
# + \lambda_{emb}\, L_{emb}$$
#
# The first bracket is the VAE. The exponential is the critic: it is large while generated films look likely to the
# encoder, and vanishes once their KL is high. The decoder lowers
#
# $$\mathcal L_D = s\left[\beta_{rec}\, L(x, \hat x)
# + \tfrac12 \sum_{g} \left(\beta_{kl}\, \mathrm{KL}(g) + \gamma_r\, \beta_{rec}\, L(g, \hat g)\right)\right],$$
#
# that is, it reconstructs, and makes films which the encoder would find likely. At the end of the game blur does not pay:
# the encoder would recognise it.
#
# | weight | parameter | of what | the authors' value, at 128 px |
# |---|---|---|---|
# | $\beta_{rec}$ | `ra_beta_rec` | the reconstruction error | 0.5; half of what the U-Net's loss gives it, up to the scale |
# | $\beta_{kl}$ | `ra_beta_kl` | the KL of real films (encoder), of generated ones (decoder) | 1 |
# | $\beta_{neg}$ | `ra_beta_neg` | the KL of generated films in the exponential: how sharp the critic is | 128 |
# | $\gamma_r$ | `ra_gamma_r` | the generated films' own reconstruction error (decoder) | $10^{-8}$ |
# | $\lambda_{emb}$ | `ra_lambda_emb` | the reversed embedding loss, next | 0.005 |
#
# ## The reversal
#
# What makes it *RA* is the last term. Let $e_l(x)$ be the encoder's features after its $l$-th halving. The **reversed
# embedding loss** asks that a film and its reconstruction look alike *to the encoder*, at every resolution:
#
# $$L_{emb} = \sum_l \left[\tfrac12\, \mathrm{MSE}\big(e_l(x), e_l(\hat x)\big)
# + 1 - \cos\big(e_l(x), e_l(\hat x)\big)\right].$$
#
# The reconstruction is *detached* here, as everywhere in the critic's part: it counts as a given film, and no gradient flows
# back through the decoder that drew it. So this term shapes the encoder, which is pulled to features in which a normal film
# and its reconstruction agree; the decoder then learns to draw from a code that keeps them. That it makes reconstructions
# anatomically closer is the authors' claim; with $\lambda_{emb} = 0$ the method is the plain soft-introspective VAE, and can be
# compared.
#
# ## Two moves, two optimizers
#
# Each batch is played in two moves: the encoder's, then the decoder's, which already meets the improved encoder. In
# `lib/ra.py` this is one function that reads from top to bottom, `moves`; the training loop asks for the next move, lowers
# its loss in that part alone, and never knows which method it trains. For the first `ra_warmup_epochs` there is no game: both
# losses lose their sum over $g$ (and the encoder's its $L_{emb}$), so that the decoder can draw before it has to convince.

# ## Its relatives
#
# Three questions need three more names for `methods`. `si-vae` is the game without the reversal ($\lambda_{emb} = 0$), `vae` is
# the same network without the game, a warm-up that never ends, and `ae-16`, `ae-4` are the small convolutional autoencoders of
# the MedIAnomaly benchmark (chapter 5 trains them): what does each step add?

# %%
relatives = [name for name in params.methods if name in ("ra", "si-vae", "vae")]
for name in relatives:
    torch.manual_seed(params.seed)  # the same first weights whichever method trained before
    trained[name] = ARMS[name](params)
    histories[name] = run.train(name, trained[name], split, images)
    display(run.save_figure(loss_curves(histories[name]), f"{name}-losses"))
if not relatives:
    print(f"This run trains {params.methods}: the RA is left to another one.")

# %% [markdown]
# The curves to look at are the encoder's three KLs. `kl_real` should lie *below* `kl_reconstruction` and `kl_sample`: that gap is what
# the encoder knows of the difference between a chest and an invention. The reconstructions:

# %%
if relatives:
    sample = images.validation[:4]
    returned = {name: reconstruct(trained[name], sample) for name in relatives}
    display(run.save_figure(reconstructions(sample, returned), "ra-normal"))

# %% [markdown]
# They are not copies. And what does a decoder imagine when it is given nothing but noise?

# %%
for name in relatives:
    torch.manual_seed(params.seed)
    with torch.no_grad():
        invented = trained[name].eval().samples(8)[:, 0].cpu().numpy()
    display(run.save_figure(image_grid(invented, [name] + [""] * 7, columns=8), f"{name}-samples"))

# %% [markdown]
# Now the same test as for the U-Net: how much of a change that no chest contains is given back?

# %%
if relatives:
    display(identity_test(relatives).rename_axis("share copied of a"))

# %% [markdown]
# ## Where we depart from the authors' code, and why
#
# Their training script and their paper do not always agree. `ra_as_published` is a list of their choices to follow after all,
# by the names in the table. What can be tested of these choices is, in `tests/test_ra.py`,
# `tests/test_training.py` and `tests/test_scoring.py`; the architecture page of the repository names each test.
#
# | place | the authors' code | here, and why |
# |---|---|---|
# | target when a generated film is reconstructed again (encoder's move) | attached: sends gradient into the first pass | detached: to the critic a generated film is given data. `attached-target` takes theirs |
# | batch normalisation while training | evaluation mode, by a copy that switches the original | training mode, as in the soft-introspective VAE; its running averages, used at test time, have seen generated films too. `frozen-normalisation` takes theirs; `normalisation: group` needs no averages at all |
# | first epochs | the game from the start, for 1,500 epochs | `ra_warmup_epochs` as a plain VAE (an option of Daniel & Tamar): in short trials on normal films, the game without it had not begun to reconstruct |
# | learning rate | a schedule that receives the loss as its epoch and never acts | constant, said so |
# | latent at test time | a sample: scores are random | the posterior's mean: a score depends on the film alone. `sampled-latent` takes theirs, from a fixed seed |
# | 1×1 shortcuts | chosen by object identity: depends on where the list of widths came from | chosen by value |
# | checkpoint | an optimizer that never steps | both optimizers: a resumed run equals an uninterrupted one |
# | widths, learning rate, batch | up to 512 channels, $5 \cdot 10^{-5}$, 8 | parameters; the defaults are narrower and faster |
# | which epoch | the best by validation error | the last for the primary score; for the chosen one see chapter 5 |
# | augmentation | affine and horizontal flip | none: the heart has a side |
# | anomaly score | CLAHE residual times LPIPS | the plain residual, so that both methods are measured alike; theirs too, for every method (chapter 5) |
