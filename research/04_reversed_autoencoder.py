# %% [markdown] id="reversed-autoencoder"
# # 4 Does a network that has to imagine the chest do better?
#
# **Reads** `params`, `split`, `images`, `run`, `identity_test`. **Leaves** the RA and its relatives that `methods` names in
# `trained` and `histories`.
#
# The Reversed Autoencoder (Bercea et al., MIDL 2023) has no shortcut. Everything it knows of a film has to pass through a
# short vector $z$, and its two halves keep each other honest. It is trained first, below; then it is taken apart, one term of its
# losses at a time, each with its equation, the lines that compute it on this very network, and a picture of what it does.
#
# Three questions need relatives. `si-vae` is RA without its last term, `vae` the same network without the game, and `ae-16`,
# `ae-4` are the small convolutional autoencoders of the MedIAnomaly benchmark (chapter 5 trains them): what does each step add?

# %%
from lib.training import choose_device

relatives: list[str] = [name for name in params.methods if name in ("ra", "si-vae", "vae")]
for name in relatives:
    torch.manual_seed(params.seed)  # the same first weights whichever method trained before
    trained[name] = ARMS[name](params)
    histories[name] = run.train(name, trained[name], split, images)
    display(run.save_figure(loss_curves(histories[name]), f"{name}-losses"))
if not relatives:
    print(f"This run trains {params.methods}: the RA is left to another one.")

# %% [markdown]
# Those curves have names that the next pages explain. The question of this chapter's pictures is always the same: *what does the
# term see in a normal film that the network was not trained on?*
#
# ## First term: from autoencoder to variational autoencoder
#
# An *encoder* $E$ turns the film $x$ into a vector, a *decoder* $D$ turns the vector into a film. In a **variational**
# autoencoder the encoder answers with a Gaussian, $q(z \mid x) = \mathcal N(\mu, \operatorname{diag} \sigma^2)$, the decoder
# sees a draw from it, and the encoder is charged for every nat by which it departs from the standard normal distribution:
#
# $$L(x, \hat x) = \sum_i (x_i - \hat x_i)^2, \qquad
# \mathrm{KL}(x) = \tfrac12 \sum_j \left(\mu_j^2 + \sigma_j^2 - \log \sigma_j^2 - 1\right).$$
#
# Their weighted sum is (up to constants) the negative *evidence lower bound*: low for a film that the model finds likely.
# A variational autoencoder can also *invent* films, $D(\varepsilon)$ with $\varepsilon \sim \mathcal N(0, I)$.

# %%
from lib.dataset import to_unit
from lib.ra import ReversedAutoencoder, embedding_distance, squared_error

players = [one for name in relatives if isinstance(one := trained[name], ReversedAutoencoder)]
if players:
    network = players[0].eval()
    films = to_unit(images.validation[:64], choose_device(params.device))
    torch.manual_seed(params.seed)
    with torch.no_grad():
        real = network.encoder(films)
        reconstruction = network.decoder(real.mean)
        draws = [network.decoder(real.sample()) for _ in range(3)]
        sample = network.samples(len(films))
    error, nats = squared_error(films, reconstruction), real.kl()
    columns = {
        "film x": films,
        "D(μ)": reconstruction,
        **{f"D(draw {i})": d for i, d in enumerate(draws, 1)},
        "D(ε)": sample,
    }
    pictures = torch.cat([film for of in zip(*columns.values(), strict=True) for film in of][:12])[:, None]
    titles = [
        *columns,
        *(f"L {error[1]:.0f}" if n == "D(μ)" else f"KL {nats[1]:.0f}" if "draw 1" in n else "" for n in columns),
    ]
    figure = image_grid(pictures.clip(0, 1).cpu().numpy(), titles, columns=len(columns))
    display(run.save_figure(figure, f"{relatives[0]}-variational"))

# %% [markdown]
# Two films, a row each. What the mean $\mu$ decodes to is the reconstruction that is scored; where draws from $q(z \mid x)$ differ
# among themselves, the encoder has not said; and $D(\varepsilon)$ is what the decoder draws when it is told nothing. The numbers are
# the second film's error $L$ and its KL.
#
# ## Second term: the game
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

# %%
from lib.figures import INK, Drawing, look

if relatives:
    with torch.no_grad():
        seen = {"real": real, "reconstruction": network.encoder(reconstruction), "sample": network.encoder(sample)}
        again = {g: network.decoder(seen[g].mean) for g in ("reconstruction", "sample")}
        made = {"reconstruction": reconstruction, "sample": sample}
        rejection = {
            g: torch.exp(
                -2
                * network.scale
                * (params.ra_beta_rec * squared_error(made[g], again[g]) + params.ra_beta_neg * seen[g].kl())
            )
            for g in made
        }
    kl = {kind: of.kl().cpu().numpy() for kind, of in seen.items()}
    shades = {"real": INK, "reconstruction": look(relatives[0])[0], "sample": "0.65"}
    figure = Drawing(figsize=(10, 3.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    rows = pd.DataFrame(histories[relatives[0]])
    for kind, marker in zip(shades, "os^", strict=True):
        if (column := f"encoder/kl_{kind}") in rows:
            left.plot(rows["epoch"], rows[column], color=shades[kind], marker=marker, markersize=3, label=kind)
        middle.plot(
            np.sort(kl[kind]), np.linspace(0, 1, len(kl[kind])), color=shades[kind], marker=marker, markersize=3
        )
    left.set(xlabel="epoch", ylabel="mean KL while training, nats", title="the critic's opinion")
    left.legend(fontsize=8, frameon=False)
    middle.set(xlabel="KL, nats", ylabel="share of films below", title="of films it has not seen")
    if "decoder/reconstruction" in rows:
        right.plot(rows["epoch"], rows["decoder/reconstruction"], color=INK, label="error of reconstructions")
    if "encoder/rejection" in rows:
        right.plot(
            rows["epoch"], rows["encoder/rejection"], color=shades["reconstruction"], linestyle="--", label="rejection"
        )
    right.set(xlabel="epoch", ylabel="mean over the epoch, log scale", yscale="log", title="what each player pays")
    right.legend(fontsize=8, frameon=False)
    for ax in (left, right):
        ax.axvspan(rows["epoch"].min(), min(params.ra_warmup_epochs, rows["epoch"].max()), color="0.93", zorder=0)
    medians = {kind: float(np.median(of)) for kind, of in kl.items()}
    figure.suptitle(
        f"{relatives[0]}: median KL of real films {medians['real']:.0f} nats, of their reconstructions "
        f"{medians['reconstruction']:.0f}, of inventions {medians['sample']:.0f}; exp(…) of an invention "
        f"{float(rejection['sample'].mean()):.2g}",
        fontsize=10,
    )
    display(run.save_figure(figure, f"{relatives[0]}-players"))

# %% [markdown]
# The two players as curves that mean something. *Left*: how far from the prior the encoder puts real films, reconstructions and
# inventions; before the game (grey) there is one line only. A critic that knows a chest from an invention keeps the real films
# lowest, and the gap is all it knows. *Middle*: the same of films that it has not been trained on, each dot one film. *Right*: the
# decoder's own task, drawing the film, and the encoder's, pushing the exponential towards 0. If the exponential stays near 1 the
# critic is asleep, if it is 0 from the first epoch the decoder gets no chance.
#
# | weight | parameter | of what | the authors' value, at 128 px |
# |---|---|---|---|
# | $\beta_{rec}$ | `ra_beta_rec` | the reconstruction error | 0.5; half of what the U-Net's loss gives it, up to the scale |
# | $\beta_{kl}$ | `ra_beta_kl` | the KL of real films (encoder), of generated ones (decoder) | 1 |
# | $\beta_{neg}$ | `ra_beta_neg` | the KL of generated films in the exponential: how sharp the critic is | 128 |
# | $\gamma_r$ | `ra_gamma_r` | the generated films' own reconstruction error (decoder) | $10^{-8}$ |
# | $\lambda_{emb}$ | `ra_lambda_emb` | the reversed embedding loss, next | 0.005 |
#
# ## Third term: the reversal
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

# %%
if relatives:
    with torch.no_grad():
        pairs = list(zip(real.features, network.encoder(reconstruction).features, strict=True))
        levels = [embedding_distance([a], [b]) for a, b in pairs]
        disagree = [1 - torch.cosine_similarity(a, b)[0] for a, b in pairs]  # at each place, (h, w)
    drawn = [films[0, 0], reconstruction[0, 0]]
    drawn += [torch.nn.functional.interpolate(d[None, None], films.shape[2:])[0, 0] / d.max() for d in disagree]
    titles = ["film", "reconstruction"]
    titles += [
        f"level {i}: {float(of[0]):.2f}\n{a.shape[2]} px"
        for i, (of, (a, _)) in enumerate(zip(levels, pairs, strict=True), 1)
    ]
    figure = image_grid(torch.stack(drawn)[:, None].clip(0, 1).cpu().numpy(), titles, columns=len(drawn))
    display(run.save_figure(figure, f"{relatives[0]}-embedding"))

# %% [markdown]
# Where the encoder's features of a film and of its reconstruction point in different directions, level by level, each drawn up to
# its own maximum; the number is that level's part of $L_{emb}$. Fine levels see edges, coarse ones where the lungs are.
#
# ## Two moves, two optimizers
#
# Each batch is played in two moves: the encoder's, then the decoder's, which already meets the improved encoder. In
# `lib/ra.py` this is one function that reads from top to bottom, `moves`; the training loop asks for the next move, lowers
# its loss in that part alone, and never knows which method it trains. For the first `ra_warmup_epochs` there is no game: both
# losses lose their sum over $g$ (and the encoder's its $L_{emb}$), so that the decoder can draw before it has to convince.
#
# ## What comes of it
#
# Reconstructions of normal films that were not trained on:

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
