# %% [markdown] id="reversed-autoencoder" shows=["methods/ra.py", "methods/autoencoder.py", "methods/variants.py"]
# # Does a network that has to imagine the chest do better?
#
# **Reads** `params`, `prepared`, `images`, `run`, `tracker`, `copying`. **Leaves** the RA and its relatives
# that `methods` names in `trained` and `histories`.
#
# The Reversed Autoencoder (Bercea et al., MIDL 2023) has no skip connections. Everything that it knows of an image
# passes through a short vector $z$, and its two halves are trained against each other. This chapter trains it first.
# Then it takes the losses apart, one term at a time. Each term comes with its equation, the lines that compute it on
# this very network, and a figure of what it does.
#
# Two relatives leave terms out. `si-vae` is RA without the third term, so RA against `si-vae` shows what the
# *reversal* adds. `vae` also lacks the second term, so `si-vae` against `vae` shows what the *game* adds. Two more,
# `ae-16` and `ae-4`, are the small convolutional autoencoders of the MedIAnomaly benchmark (chapter 5 trains them).
# They show whether any narrow bottleneck would do.

# %%
from lib.methods.training import choose_device

takes(4)
relatives: list[str] = [name for name in ("ra", "si-vae", "vae") if name in params.methods]
for name in relatives:
    trained[name], histories[name] = train(run, name, prepared, tracker)
if not relatives:
    print(f"This run trains {params.methods}, and so no RA.")

# %% [markdown]
# The figures of this chapter all ask the same question: *what does the term see in a normal image that the network
# was not trained on?*
#
# ## First term: from autoencoder to variational autoencoder
#
# An *encoder* $E$ turns the image $x$ into a vector, and a *decoder* $D$ turns the vector into an image. A plain
# encoder returns one vector $z$. A **variational** encoder returns a normal distribution $q(z \mid x)$: for each of
# the `latent_dim` numbers $z_j$ a mean $\mu_j$ and a standard deviation $\sigma_j$. In training, the decoder gets a
# random draw from it, $z = \mu + \sigma \varepsilon$ with $\varepsilon \sim \mathcal N(0, I)$, and returns the image
# $\hat x = D(z)$. Two quantities are to be small:
#
# $$L(x, \hat x) = \sum_i (x_i - \hat x_i)^2, \qquad
# \mathrm{KL}(x) = \tfrac12 \sum_j \left(\mu_j^2 + \sigma_j^2 - \log \sigma_j^2 - 1\right).$$
#
# * $L$ is the error of the reconstruction, summed over all pixels $i$.
# * KL, the Kullback-Leibler divergence, measures how much the encoder says about the image. Its unit is the *nat*,
#   1.44 bits. It is 0 if $\mu = 0$ and $\sigma = 1$; that distribution is the *prior*, the same for every image. The
#   part $\mu_j^2$ penalises a mean away from 0, the part $\sigma_j^2 - \log \sigma_j^2 - 1$ a standard deviation
#   other than 1.
#
# Together they measure how likely the model finds an image. Let $p(x)$ be its likelihood. The sum
# $\tfrac12 L + \mathrm{KL}$, averaged over the draws, is at least $-\log p(x)$, up to a constant. The negative of the
# sum is therefore called the *evidence lower bound*, here **the bound**. A high bound means a small sum: an image
# that the model finds likely.
#
# A variational autoencoder can also *generate* images. Since the prior says where in the space of $z$ chests should
# lie, $D(\varepsilon)$ is a **sample**, an image drawn from noise alone.

# %%
from lib.figures.game import variational
from lib.methods.method import to_unit
from lib.methods.ra import ReversedAutoencoder, embedding_distance, squared_error

networks = [method for name in relatives if isinstance(method := trained[name], ReversedAutoencoder)]
if networks:
    network = networks[0].eval()
    normal = to_unit(images.validation[:64], choose_device(params.device))
    torch.manual_seed(params.seed)
    with torch.no_grad():
        real = network.encoder(normal)
        reconstruction = network.decoder(real.mean)
        draws = {f"D(draw {i})": network.decoder(real.sample()) for i in (1, 2, 3)}
        sample = network.samples(len(normal))
    error, nats = squared_error(normal, reconstruction), real.kl()

    columns = {"image x": normal, "D(μ)": reconstruction, **draws, "D(ε)": sample}
    notes = {"D(μ)": f"L {error[1]:.0f}", "D(draw 1)": f"KL {nats[1]:.0f}"}
    figure = variational({name: pictures.cpu().numpy() for name, pictures in columns.items()}, notes)
    display(run.save_figure(figure, f"{relatives[0]}-variational"))

# %% [markdown]
# Each row starts with one image.
#
# * Compare the image with $D(\mu)$, the reconstruction that is scored. What is missing did not get through $z$.
# * Compare the three draws from $q(z \mid x)$. Where they differ from each other, $z$ leaves the detail open.
# * The last column, $D(\varepsilon)$, has nothing to do with the image of its row. If it does not look like a chest,
#   the decoder knows nothing of chests beyond what $z$ tells it.
#
# The numbers are the error $L$ and the KL of the second image.
#
# ## Second term: the game
#
# In a *soft-introspective* VAE (Daniel & Tamar, CVPR 2021) the encoder is also the critic. It is trained to give a
# high bound to real images and a low one to generated images. The decoder is trained to generate images that are
# given a high bound. There are two kinds of generated images $g$: the reconstruction $\hat x$ and the sample
# $D(\varepsilon)$. Each of them is encoded and decoded once more: $\hat g = D(z)$ with $z$ from $q(z \mid g)$. With
# $s = 1/(HW)$ the encoder minimises
#
# $$\mathcal L_E = s\left[\beta_{rec}\, L(x, \hat x) + \beta_{kl}\, \mathrm{KL}(x)\right]
# + \tfrac14 \sum_{g} \exp\!\left(-2s\left[\beta_{rec}\, L(g, \hat g) + \beta_{neg}\, \mathrm{KL}(g)\right]\right)
# + \lambda_{emb}\, L_{emb}$$
#
# and the decoder minimises
#
# $$\mathcal L_D = s\left[\beta_{rec}\, L(x, \hat x)
# + \tfrac12 \sum_{g} \left(\beta_{kl}\, \mathrm{KL}(g) + \gamma_r\, \beta_{rec}\, L(g, \hat g)\right)\right].$$
#
# | term | minimised by | what it asks for |
# |---|---|---|
# | $s \beta_{rec} L(x, \hat x)$ | both | reconstruct the real image |
# | $s \beta_{kl} \mathrm{KL}(x)$ | encoder | say little about a real image |
# | $\tfrac14 \exp(-2s[\dots])$, one for each $g$ | encoder | *the critic*: make the bracket large, above all $\mathrm{KL}(g)$; each exponential lies between 0 and 1, so once it is small it costs nothing more |
# | $\tfrac12 s \beta_{kl} \mathrm{KL}(g)$ | decoder | the opposite: generate images that the encoder places near the prior |
# | $\tfrac12 s \gamma_r \beta_{rec} L(g, \hat g)$ | decoder | reconstruct the generated images, which count as fixed here; with $\gamma_r = 10^{-8}$ practically off |
# | $\lambda_{emb} L_{emb}$ | encoder | *the reversal*, below |
#
# (The 2 in the exponent and a factor ½ before it are Daniel & Tamar's; another ½ averages the two $g$. All terms are
# means over a batch.) The idea: if the critic recognises blurred images as generated, blur no longer pays, and the
# decoder has to draw sharply what it cannot copy.

# %%
from lib.figures.game import players
from lib.scores.health import spectrum

if relatives:
    with torch.no_grad():
        codes = {"real": real, "reconstruction": network.encoder(reconstruction), "sample": network.encoder(sample)}
        kl = {kind: code.kl().cpu().numpy() for kind, code in codes.items()}
        again = network.decoder(codes["sample"].mean)
        weights = network.weights
        bracket = weights.rec * squared_error(sample, again) + weights.neg * codes["sample"].kl()
        rejection = torch.exp(-2 * network.scale * bracket)  # one number per sample
    medians = {kind: float(np.median(nats)) for kind, nats in kl.items()}
    plateau = weights.plateau(network.scale)
    figure = players(relatives[0], histories[relatives[0]], kl, medians, float(rejection.mean()), plateau)
    display(run.save_figure(figure, f"{relatives[0]}-players"))
    variances = spectrum(images.train)
    directions = int((variances > weights.coded_variance()).sum())
    print(
        f"At {params.image_size} px with β_kl = {weights.kl:g} and β_neg = {weights.neg:g}: {directions} of the training "
        f"images' {len(variances)} directions are worth coding. The plateau is at {plateau:.0f} nats; the median real "
        f"image has {medians['real']:.0f}."
    )

# %% [markdown]
# The figure shows the game as curves.
#
# *Left*: the mean KL in training. Before the game begins (grey), only real images are encoded. When it begins, the
# encoder raises the KL of all images. What counts is the gap between real images and the two kinds of generated ones,
# for it is all that the critic knows. The dotted line is the *plateau*; the next section explains it and the line
# below the figure.
#
# *Middle*: the KL of 64 validation images, of their reconstructions $D(\mu)$ and of as many samples. A dot is one
# image, and its height is the share of images with a lower KL. The network is in evaluation mode here and normalises
# by its running averages, so the order may differ from that on the left.
#
# *Right*: solid, the error $s L(x, \hat x)$; dashed, the critic's term, both exponentials together, which lies
# between 0 and ½. Near ½ the critic rejects nothing. Near 0 $\mathrm{KL}(g)$ is large, but not necessarily larger
# than that of real images. The term then gives the encoder no more gradient, and only the decoder still changes
# $\mathrm{KL}(g)$.
#
# | weight | parameter | what it weighs | the authors' value, at 128 px |
# |---|---|---|---|
# | $\beta_{rec}$ | `ra_beta_rec` | the reconstruction error | 0.5: half its weight in the U-Net's loss, since both divide by $HW$ |
# | $\beta_{kl}$ | `ra_beta_kl`, at 128 px | the KL of real images (encoder), of generated ones (decoder) | 1 |
# | $\beta_{neg}$ | `ra_beta_neg`, at 128 px | the KL of generated images in the exponential: how sharp the critic is | 128 |
# | $\gamma_r$ | `ra_gamma_r` | the reconstruction error of the generated images (decoder) | $10^{-8}$ |
# | $\lambda_{emb}$ | `ra_lambda_emb` | the reversed embedding loss, next | 0.005 |
#
# ## What the weights decide: bottleneck and plateau
#
# $L$ is a sum over pixels, and $s$ divides it by their number; the KL is divided by the same number, but does not grow
# with it. The same $\beta_{kl}$ would weigh four times as much at 64 px as at 128 px. The parameters are therefore the
# authors' numbers *at 128 px*, and both weights of a KL are multiplied by $HW / 128^2$, so that a nat costs the same at
# every size. (`ra_as_published: fixed-weights` takes that back.) Two formulas then say what the weights lead to.
#
# **The bottleneck.** To code one principal direction of the images, of variance $v$ summed over pixels, lowers the
# bound only if
#
# $$v > \frac{\beta_{kl}}{2 \beta_{rec}}.$$
#
# This is exact for a linear VAE (Lucas et al., NeurIPS 2019). Directions below are left out of every reconstruction,
# however long the training.
#
# **The plateau.** For every nat of a real image the encoder pays $s \beta_{kl}$, a pull towards small KLs. For every
# nat of a generated image it gains $\tfrac12 s \beta_{neg} \exp(-2 s \beta_{neg} \mathrm{KL})$, a push that fades. Both
# are equal at
#
# $$\mathrm{KL} = \frac{\ln\left(\beta_{neg} / 2 \beta_{kl}\right)}{2 s \beta_{neg}}.$$
#
# So the critic raises the KL of generated images to about this plateau and no further. If real images need as much KL
# for their own reconstruction, the critic cannot tell the two apart, and the game is off.
#
# When the game begins, the KL is far below the plateau and the push many times the pull. It lifts the KL of real
# images too, which destroys what the warm-up has learned. `ra_rejection_start` gives the exponential terms a smaller
# weight at first, and `ra_rejection_growth` the number of epochs in which it grows to 1.
#
# ## Third term: the reversal
#
# The last term is what makes the method *RA*. An autoencoder goes from the image to the code and back to an image.
# Here the path continues in reverse: the reconstruction, an output, becomes an input and is encoded again. Let
# $e_l(x)$ be the encoder's features after its $l$-th halving. The **reversed embedding loss** asks that an image and
# its reconstruction look alike *to the encoder*, at every resolution:
#
# $$L_{emb} = \sum_l \left[\tfrac12\, \mathrm{MSE}\big(e_l(x), e_l(\hat x)\big)
# + 1 - \cos\big(e_l(x), e_l(\hat x)\big)\right].$$
#
# MSE is the mean squared difference and cos the cosine similarity, both over all numbers of a level. In this term, as
# in the critic's, the reconstruction is *detached*: it counts as a given image, and no gradient flows back through
# the decoder that drew it. The term therefore shapes the encoder. It learns features in which a normal image and its
# reconstruction agree, and the decoder learns to draw from a code that keeps these features. (Features that are the
# same for all images would make the term 0, but the other terms need features that tell images apart.)
#
# The authors claim that this makes reconstructions anatomically more faithful. With $\lambda_{emb} = 0$ the method is
# the plain soft-introspective VAE, so the claim can be tested.
#
# The figure shows where an image and its reconstruction disagree: bright is where their features point in different
# directions. Each level is drawn up to its own maximum, so compare places, not levels. The number is the level's part
# of $L_{emb}$.

# %%
from lib.figures.game import embedding_levels

if relatives:
    with torch.no_grad():
        pairs = list(zip(real.features, network.encoder(reconstruction).features, strict=True))
        distances = [float(embedding_distance([before], [after])[0]) for before, after in pairs]
        maps = [1 - torch.cosine_similarity(before, after)[0].cpu().numpy() for before, after in pairs]  # (h, w) each
    first = normal[0, 0].cpu().numpy(), reconstruction[0, 0].cpu().numpy()
    display(run.save_figure(embedding_levels(*first, distances, maps), f"{relatives[0]}-embedding"))

# %% [markdown]
# A place of level $l$ covers at least $2^l \times 2^l$ pixels: fine levels compare edges, coarse levels the layout of
# the chest.
#
# ## Two updates, two optimizers
#
# Each batch is used for two updates. The encoder is updated first; the decoder then already meets the improved
# encoder.
#
# 1. Encode $x$, draw $z$, decode $\hat x$. Decode a sample $D(\varepsilon)$ as well. Encode and decode both again.
#    Lower $\mathcal L_E$ in the encoder's weights.
# 2. Take $\hat x$ and $D(\varepsilon)$ as they are, since the decoder has not changed, and encode them with the encoder
#    as it is now. Lower $\mathcal L_D$ in the decoder's weights.
#
# **What a batch costs.** Count one pass forward, or one pass backward towards inputs or towards weights, as a unit of
# work. The encoder's update encodes three batches of images, $x$, $\hat x$ and $D(\varepsilon)$, and learns from all of
# them (9 units of the encoder). It decodes four times, and three of these drawings lead back to the encoder (7 units of
# the decoder). The decoder's update encodes two batches, whose gradients lead to the images alone (4 units of the
# encoder), and draws nothing new, but learns from both drawings (4 units of the decoder). That makes 13 and 11. The
# authors' code takes 16 and 19, because it draws and encodes again what has not changed. A plain VAE takes 3 and 4, so
# that the game makes a step more than three times as long.
#
# In `lib/methods/ra.py` the function `moves` gives this order, and two more hold the losses. The training loop asks for
# the next update, lowers the loss in that part alone, and never knows which method it trains. During the first
# `ra_warmup_epochs` there is no game: both losses lack their sum over $g$, and the encoder's also lacks $L_{emb}$. So
# the decoder learns to draw before it has to convince.
#
# Now every training curve has a name:
#
# | curve | what it is |
# |---|---|
# | encoder/total, decoder/total | $\mathcal L_E$, $\mathcal L_D$; before the game $\mathcal L_D = \beta_{rec}\, s L(x, \hat x)$ |
# | decoder/reconstruction | $s L(x, \hat x)$, the mean squared error of a pixel |
# | kl_real, kl_reconstruction, kl_sample | the KL of real images, of $\hat x$ and of samples |
# | decoder/kl_generated | the mean KL of the two generated images, as the decoder lowers it |
# | rejection, embedding | the critic's term; $L_{emb}$ before its weight |
# | validation/residual | the mean of $\lvert x - \hat x \rvert$ on normal images that were not used for training, as in the primary score |
#
# When the game begins the totals jump, because they gain terms. The KL jumps too, because the encoder now follows
# another loss. Neither is a failure.

# %%
for name in relatives:
    display(run.save_figure(loss_curves(histories[name]), f"{name}-losses"))

# %% [markdown]
# ## Where we depart from the authors' code, and why
#
# The authors' training script and their paper do not always agree. `ra_as_published` lists those of their choices
# that a run follows after all, by the names in the table. Departures that can be tested have a test in
# `tests/methods/test_ra.py`, `tests/methods/test_training.py` or `tests/scores/test_scoring.py`; the architecture
# page of the repository names each one. On a first reading, skip the table.
#
# | place | the authors' code | here, and why |
# |---|---|---|
# | target when a generated image is reconstructed again (encoder's update) | attached: sends gradient into the first pass | detached: to the critic a generated image is given data. `attached-target` takes theirs |
# | batch normalisation in training | always in evaluation mode: making a copy of the model switches the original, and nothing switches it back | training mode, as in the soft-introspective VAE; its running averages, used at test time, have seen generated images too. `frozen-normalisation` takes theirs, with their running variance, 0.9 in the encoder, which has seen one zero image, and 1 in the decoder; `normalisation: group` needs no averages at all |
# | first epochs | the game from the start, for 1,500 epochs | `ra_warmup_epochs` as a plain VAE (an option of Daniel & Tamar, whose loss there lacks the factor $s$ and updates both parts at once): in short trials on normal images, the game without it had not begun to reconstruct |
# | order of the decoder's passes | first the sample, then the reconstruction | the reconstruction first: the losses are the same, and only running averages can tell |
# | arithmetic | float32 | as `precision` says: bfloat16 or float16 by autocast where that is faster, the losses in float32 |
# | passes of the decoder's update | every image is drawn and encoded again; the term with $\gamma_r = 10^{-8}$ is computed | what the encoder's update has drawn is used again, and a term whose gradient float32 cannot see is left out: a quarter fewer multiply-adds, the same update. `repeated-passes` takes theirs |
# | weights of KLs | the same numbers at every image size | the same pressure per nat. `fixed-weights` takes theirs |
# | start of the game | at full weight | `ra_rejection_start` and `ra_rejection_growth` let the exponential terms grow; by default at full weight |
# | weights that are validated and scored | the last, of a copy | the last, or with `average_decay` a moving average |
# | learning rate | a schedule that receives the loss as its epoch and never acts | constant, and documented as such |
# | latent at test time | a sample: scores are random | the posterior's mean: a score depends on the image alone. `sampled-latent` takes theirs, from a fixed seed |
# | 1×1 shortcuts | chosen by whether two widths are the same Python object, which depends on where the list came from: their default widths give 29,430,785 weights, their configuration 29,955,073, with two more 512-to-512 shortcuts | chosen by value: 29,430,785 |
# | checkpoint | an optimizer that never steps | both optimizers: a resumed run equals an uninterrupted one |
# | widths, learning rate, batch | up to 512 channels, $5 \cdot 10^{-5}$, 8 | parameters; the defaults are narrower and faster |
# | which epoch | the best by validation error | the last for the primary score; for the chosen one see chapter 5 |
# | augmentation | affine and horizontal flip | `augmentation` turns, zooms and shifts, for every method alike; nothing is flipped: the heart has a side |
# | anomaly score | CLAHE residual times LPIPS | the plain residual, so that both methods are measured alike; theirs too, for every method (chapter 5) |
#
# ## What the network has learned
#
# Below are reconstructions of normal images that were not used for training. Look for what is missing: the edges of
# ribs, letters, cables. Where the residual of a *normal* image is bright, a lesion has to be brighter still.

# %%
if relatives:
    unseen = images.validation[:4]
    reconstructed = {name: reconstruct(trained[name], unseen) for name in relatives}
    display(run.save_figure(reconstructions(unseen, reconstructed), "ra-normal"))

# %% [markdown]
# And what does the decoder draw when it is given nothing but noise?

# %%
for name, method in zip(relatives, networks, strict=True):
    torch.manual_seed(params.seed)
    with torch.no_grad():
        samples = method.eval().samples(8)[:, 0].cpu().numpy()
    display(run.save_figure(image_grid(samples, [name] + [""] * 7, columns=8), f"{name}-samples"))

# %% [markdown]
# Now the same test as for the U-Net: how much of a change that occurs in no chest is copied?

# %%
if relatives:
    figure, text = copying(relatives)
    display(run.save_figure(figure, f"{relatives[0]}-pasted-square"), Markdown(text))

# %% [markdown]
# **So, read these numbers beside those of chapter 3.** If RA's shares are smaller, it copies less than the U-Net. The
# price may be a larger residual on normal images. Whether the price is worth paying is decided in
# [chapter 6](06_comparison.py), and whether the reversal earned it in [chapter 7](07_what_matters.py).
