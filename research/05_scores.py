# %% [markdown] id="scores"
# # 5 How does a reconstruction become one number?
#
# **Reads** `params`, `trained`, `histories`, `source`, `split`, `images`, `abnormal`, `run`. **Leaves** `scored`: a table with
# one row an image, the reconstructions, the lesions; and scores on disk that other runs can compare with.
#
# Methods that are in `methods` and have no chapter of their own are trained first.

# %%
takes(5)
for name in [name for name in params.methods if name not in trained]:
    torch.manual_seed(params.seed)  # the same first weights whichever method trained before
    trained[name] = ARMS[name](params)
    histories[name] = run.train(name, trained[name], split, images)

# %% [markdown]
# ## Maps
#
# A **map** says at each pixel how far the film $x$ and its reconstruction $\hat x$ lie apart. There is more than one way to
# say it, and each is applied to every method, so that what a *score* adds can be told from what a *method* adds:
#
# | map | what it is |
# |---|---|
# | residual, squared | $\lvert x - \hat x \rvert$ and its square, grey level by grey level |
# | ssim | $1 - \mathrm{SSIM}$: do the 7×7 neighbourhoods agree in brightness, contrast and pattern? (Wang et al., 2004) |
# | clahe | the residual after contrast-limited adaptive histogram equalisation of both |
# | a backbone's name | do the features of a network that has seen a million photographs agree? (perceptual distance, after Zhang et al., 2018, without learned weights) |
# | clahe x that name | RA's own map, with the perceptual distance at hand: $\lvert \mathrm{C}(x) - \mathrm{C}(\hat x) \rvert \cdot G_\sigma d(x, \hat x) \cdot G_\sigma d(\mathrm{C}(x), \mathrm{C}(\hat x))$, $\mathrm{C}$ the equalisation and $G_\sigma$ a smoothing; with `ra_map: lpips` it is theirs, called ra-map |
# | ra encoder, clahe x ra encoder | the same distances in the features of RA's own encoder |
#
# A method with an encoder says two things more: the *kl* of a film, and the *embedding* distance that it was trained on.
#
# A **pool** makes a number of a map: its mean, its 99th percentile, the mean of its highest 5 %. And each comes in a second
# form, **standardised**: minus the map's mean over normal films, over their standard deviation, pixel by pixel. An edge that no
# method ever draws well then counts for less than a change where all normal films agree.
#
# The **primary** score was fixed before any result: the mean of the residual, not standardised. No label is looked at. A score
# depends on its film, and standardised on the reference films below: not on its neighbours in the batch, not on another test
# film.
#
# ## Which score, without a label?
#
# With so many scores somebody has to choose, and to choose by the test films' labels is to cheat. The validation films, all
# normal, are cut into two halves, patient by patient. The **reference** half may be used: it gives the means and deviations
# above, and copies of its films, with soft opacities painted into them, are the criterion: how well does a score (and an epoch,
# with `choose_every`) separate the films from their copies? A score that looks through another method's encoder is left out of
# the choice: what a method is credited with must not need the other's training. The **calibration** half is left alone, so that
# its films remain as new as a new normal film would be; it gives every threshold, and in tables and figures of scores it is
# what is called *validation*.

# %%
from lib.choosing import with_lesions
from lib.dataset import reference_half

clean = images.validation[np.flatnonzero(reference_half(split.validation))[:6]]
run.save_figure(
    image_grid(np.concatenate([clean, with_lesions(clean, params.seed, ["opacity"])[0]]), columns=len(clean)), "painted"
)

# %% [markdown]
# Above normal films of the reference half, below their copies: some opacities are obvious, some hardly to be seen.
#
# ## Several scores at once
#
# A **combined** score need not choose among the maps. Of each map it takes the form and the pool that separate the painted
# films best, and turns that score into a *p-value*: how surprising is it among the $n$ reference films? $p = (1 +
# \#\{\text{reference} \ge \text{score}\}) / (n + 1)$, so that a film above them all gets $1 / (n + 1)$. Fisher's $-2 \sum \log
# p$ is large where several maps are surprised. The maps depend on each other, so no table of $\chi^2$ says how large is too
# large; the calibration films say it, among which the number is ranked once more. If a new normal film is *exchangeable* with
# them (in the order of all their scores no place is likelier for it than another), the chance that this second $p$ is at most
# $\alpha$ is at most $\alpha$, whatever the scores are. Whether test normals *are* exchangeable is another question; chapter 6
# prints what was promised beside what happened.

# %%
scored = run.score(trained, histories, source, split, images)
for row, reason in run.results()["left_out"].items():
    print(f"left out, {row}: {reason}")
pd.DataFrame(run.results()["choices"]).T[["epoch", "score"]].rename_axis("method")

# %% [markdown]
# Three abnormal films through all stages, for each method: what goes in (with the lesion outlined where it is marked), what
# comes back, where they differ. The same limits hold for every error map.

# %%
if trained:
    marked = [i for i in abnormal if split.test["id"][i] in scored.lesions][:3] or list(abnormal[:3])
    figure = reconstructions(
        images.test[marked],
        {name: returned[marked] for name, returned in list(scored.reconstructed.items())[:3]},
        [split.test["finding"][i].replace("|", "\n") for i in marked],
        [scored.lesions.get(split.test["id"][i]) for i in marked],
    )
    display(run.save_figure(figure, "stages"))

# %% [markdown]
# And one of them in every sense of *different*, for one method.

# %%
from lib.dataset import to_unit
from lib.judging import feature_distances
from lib.scoring import anomaly_maps, describe

if trained:
    last = list(trained)[-1]
    _, distances = feature_distances(params, trained, choose_device(params.device))
    pair = to_unit(images.test[marked[:1]], torch.device("cpu")), torch.tensor(scored.reconstructed[last][marked[:1]])
    with torch.no_grad():
        maps = anomaly_maps(describe(pair[0], distances), describe(pair[1][:, None], distances), distances)
    drawn = {"film": pair[0], f"by {last}": pair[1][:, None]} | {k: m / m.max() for k, m in maps.items()}
    figure = image_grid(torch.cat(list(drawn.values()))[:, 0].clip(0, 1).numpy(), list(drawn), columns=5)
    display(run.save_figure(figure, "maps"))

# %% [markdown]
# Each map is drawn up to its own maximum.
#
# ## Does the map point at the lesion?
#
# Where lesions are marked (exact masks of the phantoms, radiologists' boxes in real films) the residual map can be asked where
# they are. But lesions lie in lungs, and a map that looks at no film, the mean of the other patients' lesions, points well
# already: the **prior**. So the headline is average precision and AUROC *minus the prior's*, with an interval over patients, on
# the whole film and inside a template of the lungs; the others stand as they are:
#
# | measure | what it asks |
# |---|---|
# | average precision, AUROC | do pixels of lesions rank above all other pixels, those of all films together? |
# | AUPRO | what share of each lesion is found, at false alarm rates up to 0.3 (Bergmann et al., 2020)? |
# | pointing game | how often does the highest pixel of a film lie in a lesion? (It needs no normal films.) |
# | best Dice | $2 \lvert A \cap B \rvert / (\lvert A \rvert + \lvert B \rvert)$ of called pixels $A$ and marked ones $B$, at the threshold that the marks say is best: an oracle |

# %%
from lib.localisation import localisation_table

located = run.results()["localisation"]
if located:
    print(
        f"{located['marked']} films of {located['patients_marked']} patients with a lesion, {located['normal']} normal films"
    )
    print(f"left out: {located['left_out'] or 'none'}")
    for region in located["regions"]:
        display(localisation_table(located, region))
else:
    print("No lesion is marked in this data.")

# %%
if located:
    figure = Drawing(figsize=(10, 1.3 + 0.25 * len(trained)), layout="constrained")
    for ax, (region, of) in zip(
        figure.subplots(1, 2, sharex=True, sharey=True), located["regions"].items(), strict=True
    ):
        margins = {name: (of[name]["margins"] or {}).get("average_precision") for name in trained} if of else {}
        for name, margin in margins.items():
            if margin:
                colour, marker = look(name)
                ax.hlines(name, margin["low"], margin["high"], color=colour)
                ax.plot(margin["value"], name, marker, color=colour)
        above = [name for name, margin in margins.items() if margin and margin["low"] > 0]
        ax.axvline(0, color=GREY, linestyle=":")
        ax.margins(y=0.2)
        ax.set(
            title=f"{region}: above the prior {', '.join(above) or 'none'}",
            xlabel="average precision over the prior, 95 %",
        )
    display(run.save_figure(figure, "localisation"))

# %% [markdown]
# Right of the dotted line a map knows more of where the lesion is than where lesions usually are; an interval across it, or
# left of it, has not shown that the map points better than no look at the film.
#
# **So**: film, reconstruction, map, pool, number. The primary number is the mean of $\lvert x - \hat x \rvert$; *chosen* is the
# best of all scores by the painted films, *combined* is made of one score of each map; neither needs a label. To *detect* and
# to *locate* are two claims, and a score that does the one need not do the other. What each number is worth is asked next.
