# %% [markdown] id="reversed-autoencoder"
# # 4 Does a network that has to imagine the chest do better?
#
# **Reads** `params`, `split`, `images`, `run`, `identity_test`, `copying`. **Leaves** the RA and its relatives that `methods`
# names in `trained` and `histories`.
#
# The Reversed Autoencoder (Bercea et al., MIDL 2023) has no shortcut. Everything it knows of a film has to pass through a
# short vector $z$, and its two halves keep each other honest. It is trained first, below; then it is taken apart, one term of its
# losses at a time, each with its equation, the lines that compute it on this very network, and a picture of what it does.
#
# Two relatives each take a step away. `si-vae` is RA without its third term, so RA against `si-vae` asks what the *reversal*
# adds; `vae` also lacks the second, so `si-vae` against `vae` asks what the *game* adds. `ae-16` and `ae-4`, the small
# convolutional autoencoders of the MedIAnomaly benchmark (chapter 5 trains them), ask whether any narrow place would do.

# %%
from lib.training import choose_device

takes(4)
relatives: list[str] = [name for name in ("ra", "si-vae", "vae") if name in params.methods]
for name in relatives:
    torch.manual_seed(params.seed)  # the same first weights whichever method trained before
    trained[name] = ARMS[name](params)
    histories[name] = run.train(name, trained[name], split, images)
if not relatives:
    print(f"This run trains {params.methods}: the RA is left to another one.")

# %% [markdown]
# The question of this chapter's pictures is always the same: *what does the term see in a normal film that the network was not
# trained on?*
#
# ## First term: from autoencoder to variational autoencoder
#
# An *encoder* $E$ turns the film $x$ into a vector, a *decoder* $D$ turns the vector into a film. A plain encoder answers with
# one vector $z$. A **variational** one answers, for each of the `latent_dim` numbers $z_j$, with a mean $\mu_j$ and a spread
# $\sigma_j$; together they are the distribution $q(z \mid x)$. While training the decoder gets a draw from it, $z = \mu +
# \sigma \varepsilon$ with $\varepsilon \sim \mathcal N(0, I)$, and draws the film $\hat x = D(z)$. Two things are charged:
#
# $$L(x, \hat x) = \sum_i (x_i - \hat x_i)^2, \qquad
# \mathrm{KL}(x) = \tfrac12 \sum_j \left(\mu_j^2 + \sigma_j^2 - \log \sigma_j^2 - 1\right).$$
#
# $L$ is the error, over all pixels $i$. KL says how much the encoder tells of the film: it is 0 where $\mu = 0$ and $\sigma =
# 1$, which is the *prior*, the same for every film. $\mu_j^2$ charges for leaving the middle, $\sigma_j^2 - \log \sigma_j^2 -
# 1$ for a spread other than 1. Its unit is the *nat*, 1.44 bits. The sum $\tfrac12 L + \mathrm{KL}$, averaged over the draws,
# is, but for a constant, at least $-\log p(x)$, where $p$ is how likely the model finds a film; the negative of the sum is the
# *evidence lower bound*, here **the bound**. A high bound: a small sum, a film that the model finds likely. And a variational
# autoencoder can *invent* films, $D(\varepsilon)$: it knows where in the space of $z$ chests should lie.

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
# Two films, a row each. Compare $D(\mu)$, the reconstruction that is scored, with the film: what is missing did not get through
# $z$. Compare the three draws from $q(z \mid x)$: where they differ among themselves, $z$ leaves the place open. The last
# column has seen no film at all, and its place in a row means nothing: if $D(\varepsilon)$ is no chest, the decoder has no idea
# of one beyond what $z$ tells it. The numbers are the second film's error $L$ and its KL.
#
# ## Second term: the game
#
# In a *soft-introspective* VAE (Daniel & Tamar, CVPR 2021) the encoder is also the critic. It gives real films a high bound and
# films that the decoder made, $g \in \{\hat x, D(\varepsilon)\}$, a low one; the decoder wants its films to be given a high
# one. Such a film is encoded and decoded in its turn: $\hat g = D(z)$ with $z$ from $q(z \mid g)$. With $s = 1/(HW)$ the
# encoder lowers
#
# $$\mathcal L_E = s\left[\beta_{rec}\, L(x, \hat x) + \beta_{kl}\, \mathrm{KL}(x)\right]
# + \tfrac14 \sum_{g} \exp\!\left(-2s\left[\beta_{rec}\, L(g, \hat g) + \beta_{neg}\, \mathrm{KL}(g)\right]\right)
# + \lambda_{emb}\, L_{emb}$$
#
# and the decoder lowers
#
# $$\mathcal L_D = s\left[\beta_{rec}\, L(x, \hat x)
# + \tfrac12 \sum_{g} \left(\beta_{kl}\, \mathrm{KL}(g) + \gamma_r\, \beta_{rec}\, L(g, \hat g)\right)\right].$$
#
# | term | who lowers it | what it wants |
# |---|---|---|
# | $s \beta_{rec} L(x, \hat x)$ | both | draw the real film |
# | $s \beta_{kl} \mathrm{KL}(x)$ | encoder | tell little of a real film |
# | $\tfrac14 \exp(-2s[\dots])$, one for each $g$ | encoder | *the critic*: make the bracket large, above all $\mathrm{KL}(g)$; each exponential lies between 0 and 1, so once it is small it costs nothing more |
# | $\tfrac12 s \beta_{kl} \mathrm{KL}(g)$ | decoder | the opposite: make films that the encoder puts near the prior |
# | $\tfrac12 s \gamma_r \beta_{rec} L(g, \hat g)$ | decoder | draw the made films again, which count as given here; with $\gamma_r = 10^{-8}$ practically off |
# | $\lambda_{emb} L_{emb}$ | encoder | *the reversal*, below |
#
# (The 2 in the exponent, and a half before it, are Daniel & Tamar's; the other half averages the two $g$. All are means over a
# batch.) The hope: if blurred films are recognised as made, blur no longer pays, and the decoder has to draw sharply what it
# cannot copy.

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
        right.plot(rows["epoch"], rows["decoder/reconstruction"], ".-", color=INK, label="error of reconstructions")
    if "encoder/rejection" in rows:
        right.plot(rows["epoch"], rows["encoder/rejection"], ".--", color=shades["reconstruction"], label="rejection")
    right.set(xlabel="epoch", ylabel="mean over the epoch, log scale", yscale="log", title="what each player pays")
    right.legend(fontsize=8, frameon=False)
    games = [] if "encoder/rejection" not in rows else rows["epoch"][rows["encoder/rejection"].notna()]
    for ax in (left, right):
        ax.axvspan(rows["epoch"].min(), min(games, default=rows["epoch"].max()), color="0.93", zorder=0)
    medians = {kind: float(np.median(of)) for kind, of in kl.items()}
    figure.suptitle(
        f"{relatives[0]}: median KL of real films {medians['real']:.0f} nats, of their reconstructions "
        f"{medians['reconstruction']:.0f}, of inventions {medians['sample']:.0f}; exp(…) of an invention "
        f"{float(rejection['sample'].mean()):.2g}",
        fontsize=10,
    )
    display(run.save_figure(figure, f"{relatives[0]}-players"))

# %% [markdown]
# The two players as curves. *Left*: the mean KL while training. Grey: no game yet, and only real films are encoded. When the
# game begins the encoder raises the KL of all films; what counts is the gap between real films and the two kinds of made ones,
# for it is all that the critic knows. *Middle*: the KL of 64 validation films, of their reconstructions $D(\mu)$ and of as many
# inventions, all in evaluation mode, with the running averages of the normalisation, so that the order may differ from that on
# the left; a dot is one film, its height the share of films with a lower KL. *Right*: solid, $s L(x, \hat x)$; dashed, the
# critic's term, both exponentials together, which lies between 0 and ½. Near ½ the critic rejects nothing. Near 0
# $\mathrm{KL}(g)$ is large, which need not mean that it is larger than that of real films: the term gives the encoder no more
# gradient, and only the decoder still works on $\mathrm{KL}(g)$. (A *sample* is an invention.)
#
# | weight | parameter | of what | the authors' value, at 128 px |
# |---|---|---|---|
# | $\beta_{rec}$ | `ra_beta_rec` | the reconstruction error | 0.5: half of what the U-Net's loss gives it, for both divide by $HW$ |
# | $\beta_{kl}$ | `ra_beta_kl` | the KL of real films (encoder), of generated ones (decoder) | 1 |
# | $\beta_{neg}$ | `ra_beta_neg` | the KL of generated films in the exponential: how sharp the critic is | 128 |
# | $\gamma_r$ | `ra_gamma_r` | the generated films' own reconstruction error (decoder) | $10^{-8}$ |
# | $\lambda_{emb}$ | `ra_lambda_emb` | the reversed embedding loss, next | 0.005 |
#
# The exponent holds the KL times $2 s \beta_{neg}$, which is 1/64 at 128 px and 1/16 at 64 px: 64 nats there, 16 here, divide the
# exponential by $e$. The error is a sum over pixels and shrinks with them; the KL does not. That is why runs at 64 px set
# `ra_beta_kl` to 0.25.
#
# ## Third term: the reversal
#
# What makes it *RA* is the last term. An autoencoder goes from the film to the code and back to a film. Here the way is walked
# on from its other end: the reconstruction, an output, becomes an input again. Let $e_l(x)$ be the encoder's features after its
# $l$-th halving. The **reversed embedding loss** asks that a film and its reconstruction look alike *to the encoder*, at every
# resolution:
#
# $$L_{emb} = \sum_l \left[\tfrac12\, \mathrm{MSE}\big(e_l(x), e_l(\hat x)\big)
# + 1 - \cos\big(e_l(x), e_l(\hat x)\big)\right].$$
#
# MSE is the mean squared difference and cos the cosine over all the numbers of a level. The reconstruction is *detached* here,
# as everywhere in the critic's part: it counts as a given film, and no gradient flows back through the decoder that drew it. So
# this term shapes the encoder, which is pulled to features in which a normal film and its reconstruction agree; the decoder
# then learns to draw from a code that keeps them. (Features that are the same for all films would make it 0; the other terms
# need features that tell films apart.) That it makes reconstructions anatomically closer is the authors' claim; with
# $\lambda_{emb} = 0$ the method is the plain soft-introspective VAE, and can be compared.
#
# The picture looks for disagreement place by place: bright is where the features of the film and of its reconstruction point in
# different directions. Each level is drawn up to its own maximum, so compare places, not levels; the number is the level's part
# of $L_{emb}$.

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
# A place of level $l$ covers at least $2^l \times 2^l$ pixels: fine levels compare edges, coarse ones the layout of the chest.
#
# ## Two moves, two optimizers
#
# Each batch is played in two moves: the encoder's, then the decoder's, which already meets the improved encoder:
#
# 1. Encode $x$, draw $z$, decode $\hat x$; decode an invention $D(\varepsilon)$ as well. Encode and decode both again. Lower
#    $\mathcal L_E$ in the encoder's weights.
# 2. Decode the same $z$ and $\varepsilon$ once more, encode what comes out with the encoder as it is now. Lower $\mathcal L_D$ in the
#    decoder's weights.
#
# In `lib/ra.py` this is one function that reads from top to bottom, `moves`; the training loop asks for the next move, lowers
# its loss in that part alone, and never knows which method it trains. For the first `ra_warmup_epochs` there is no game: both
# losses lose their sum over $g$ (and the encoder's its $L_{emb}$), so that the decoder can draw before it has to convince.
#
# Now every curve of the training has a name:
#
# | curve | what it is |
# |---|---|
# | encoder/total, decoder/total | $\mathcal L_E$, $\mathcal L_D$; before the game $\mathcal L_D = \beta_{rec}\, s L(x, \hat x)$ |
# | decoder/reconstruction | $s L(x, \hat x)$, the squared error of a pixel |
# | kl_real, kl_reconstruction, kl_sample | the KL of films, of $\hat x$ and of inventions |
# | decoder/kl_generated | the mean KL of the two made films, as the decoder lowers it |
# | rejection, embedding | the critic's term; $L_{emb}$ before its weight |
# | validation/residual | the mean of $\lvert x - \hat x \rvert$ on normal films that were not trained on, as the primary score has it |
#
# Where the game begins the totals jump, for they gain terms, and so does the KL, for the encoder answers to another loss: no
# failure.

# %%
for name in relatives:
    display(run.save_figure(loss_curves(histories[name]), f"{name}-losses"))

# %% [markdown]
# ## Where we depart from the authors' code, and why
#
# Their training script and their paper do not always agree. `ra_as_published` is a list of their choices to follow after all,
# by the names in the table. Those that can be tested are, in `tests/test_ra.py`, `tests/test_training.py` and
# `tests/test_scoring.py`; the architecture page of the repository names each test. On a first reading go on below the table.
#
# | place | the authors' code | here, and why |
# |---|---|---|
# | target when a generated film is reconstructed again (encoder's move) | attached: sends gradient into the first pass | detached: to the critic a generated film is given data. `attached-target` takes theirs |
# | batch normalisation while training | in evaluation mode for ever: what makes a copy of the model switches the original, and nothing switches it back | training mode, as in the soft-introspective VAE; its running averages, used at test time, have seen generated films too. `frozen-normalisation` takes theirs; `normalisation: group` needs no averages at all |
# | first epochs | the game from the start, for 1,500 epochs | `ra_warmup_epochs` as a plain VAE (an option of Daniel & Tamar): in short trials on normal films, the game without it had not begun to reconstruct |
# | learning rate | a schedule that receives the loss as its epoch and never acts | constant, said so |
# | latent at test time | a sample: scores are random | the posterior's mean: a score depends on the film alone. `sampled-latent` takes theirs, from a fixed seed |
# | 1×1 shortcuts | chosen by whether two widths are the same Python object, which depends on where the list came from | chosen by value |
# | checkpoint | an optimizer that never steps | both optimizers: a resumed run equals an uninterrupted one |
# | widths, learning rate, batch | up to 512 channels, $5 \cdot 10^{-5}$, 8 | parameters; the defaults are narrower and faster |
# | which epoch | the best by validation error | the last for the primary score; for the chosen one see chapter 5 |
# | augmentation | affine and horizontal flip | none: the heart has a side |
# | anomaly score | CLAHE residual times LPIPS | the plain residual, so that both methods are measured alike; theirs too, for every method (chapter 5) |
#
# ## What comes of it
#
# Reconstructions of normal films that were not trained on. Look for what is missing: the edges of ribs, letters, cables. Where
# the residual is bright on a *normal* film, a lesion has to outshine it.

# %%
if relatives:
    sample = images.validation[:4]
    returned = {name: reconstruct(trained[name], sample) for name in relatives}
    display(run.save_figure(reconstructions(sample, returned), "ra-normal"))

# %% [markdown]
# And what does a decoder imagine when it is given nothing but noise?

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
    shares, figure = identity_test(relatives)
    display(run.save_figure(figure, f"{relatives[0]}-pasted-square"), Markdown(copying(shares)))

# %% [markdown]
# **So, read these numbers beside those of chapter 3.** RA copies less than the U-Net if its shares are smaller; the price may
# be a larger residual on normal films. Whether the bargain is worth it is decided in [chapter 6](06_comparison.py); whether it
# was the reversal that bought it, in [chapter 7](07_what_matters.py).
