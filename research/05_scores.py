# %% [markdown] id="scores" shows=["scores/maps.py"]
# # How does a reconstruction become one number?
#
# **Reads** `params`, `prepared`, `trained`, `split`, `images`, `abnormal`, `run`, `tracker`. **Leaves** `scored`: a
# table with one row per image, the reconstructions, the results; and scores on disk that other runs can compare with.
#
# Methods that `methods` names and that have no chapter of their own are trained first.

# %%
takes(5)
for name in [name for name in params.methods if name not in trained]:
    trained[name], histories[name] = train(run, name, prepared, tracker)

# %% [markdown]
# ## Maps
#
# A **map** says at each pixel how far the image $x$ and its reconstruction $\hat x$ differ. There are several ways to
# measure this, and each is applied to every method. So what a *score* adds can be separated from what a *method*
# adds:
#
# | map | what it is |
# |---|---|
# | residual, squared | $\lvert x - \hat x \rvert$ and its square, pixel by pixel |
# | ssim | $1 - \mathrm{SSIM}$: do the 7×7 neighbourhoods agree in brightness, contrast and pattern? (Wang et al., 2004) |
# | clahe | the residual after contrast-limited adaptive histogram equalisation of both images |
# | a backbone's name | do the features of a network trained on a million photographs agree? (perceptual distance, after Zhang et al., 2018, without learned weights) |
# | clahe x that name | RA's own map, with the perceptual distance at hand: $\lvert \mathrm{C}(x) - \mathrm{C}(\hat x) \rvert \cdot G_\sigma d(x, \hat x) \cdot G_\sigma d(\mathrm{C}(x), \mathrm{C}(\hat x))$, where $\mathrm{C}$ is the equalisation and $G_\sigma$ a smoothing; with `ra_map: lpips` it is the authors' own, called ra-map |
# | ra encoder, clahe x ra encoder | the same distances in the features of RA's own encoder |
#
# A method with an encoder has two more scores: the *kl* of an image, and the *embedding* distance that it was trained
# on.
#
# A **pool** turns a map into a number: its mean, its 99th percentile, or the mean of its highest 5 %. Each of these
# also comes in a second form, **standardised**: at each pixel, the mean over normal images is subtracted and the
# result divided by their standard deviation. An edge that no method ever draws well then counts less than a change
# where all normal images agree.
#
# The **primary** score was fixed before any result: the mean of the residual, not standardised. No score uses a
# label. A score depends on its own image and, if standardised, on the reference images below. It does not depend on
# the other images of its batch or of the test set.
#
# ## How is a score chosen without labels?
#
# Somebody has to choose among so many scores, and to choose by the labels of the test images is to cheat. So the
# validation images, all normal, are split into two halves, patient by patient:
#
# * The **reference** half may be used. It gives the means and standard deviations above, and the criterion of model
#   selection. Soft opacities are painted into copies of its images. How well does a score (and an epoch, with
#   `choose_from`) separate the images from their copies? A score that uses the encoder of another method is
#   excluded, since the credit of a method must not depend on the training of another.
# * The **calibration** half is left alone, so its images remain as new as a new normal image would be. It gives every
#   threshold. In tables and figures of scores it is the half that is called *validation*.

# %%
from lib.scores.lesions import with_lesions

normal = prepared.by_side()[0]["reference"][:6]
painted, _ = with_lesions(normal, params.seed, ["opacity"])
run.save_figure(image_grid(np.concatenate([normal, painted]), columns=len(normal)), "painted")

# %% [markdown]
# The top row shows normal images of the reference half, the bottom row their copies. Some opacities are obvious, some
# hardly visible.
#
# ## Several scores at once
#
# A **combined** score uses all maps instead of one. For each map, it takes the form and the pool that best separate
# the painted images, and turns that score into a *p-value*: how surprising is it among the $n$ reference images?
# $p = (1 + \#\{\text{reference} \ge \text{score}\}) / (n + 1)$, so an image above all of them gets $1 / (n + 1)$.
# Fisher's statistic $-2 \sum \log p$ is large if several maps are surprised.
#
# The maps depend on each other, so no table of $\chi^2$ says how large is too large. The calibration images say it:
# the statistic is ranked once more, among theirs. Suppose that a new normal image is *exchangeable* with them, which
# means that no place in the ranking of their scores is more likely for it than another. Then this second $p$ is at
# most $\alpha$ with probability at most $\alpha$, whatever the scores are. Whether normal test images *are*
# exchangeable is another question. Chapter 6 shows what was promised next to what happened.
#
# ## Is each method trained to where it can be judged?
#
# A method that cannot redraw a normal chest says nothing about its idea. Four marks were fixed beforehand, and none
# needs a label. *Principal components* of the training images are the yardstick: sixteen numbers and a linear map.
#
# 1. The **residual** of new normal images is at most that of 16 components.
# 2. Their reconstructions look like radiographs: the **Fréchet distance** from normal images, in the features of a
#    frozen network (Heusel et al., 2017), is below that of 16 components. The dotted line is the distance of training
#    from validation images; no method can be expected to fall below it.
# 3. If the method has a critic, it tells generated images from real ones: their **KL** is at least 1.5 times as high.
# 4. At most half of a pasted square is **copied**.
#
# *Detail* is the power of the reconstructions above an eighth of a cycle per pixel, as a share of the images' own.
#
# Published indices of the same kind ask similar questions (Bercea et al.; their code, `ci-ber/GenAI_UAD`, computes
# the ingredients, and the formulas that join them could not be read):
#
# | index | its ingredients there | here |
# |---|---|---|
# | RQI, restoration quality | MAE, LPIPS and SSIM of reconstructed normal images | mark 1, and the distance of mark 2 instead of LPIPS |
# | AHI, anomalous to healthy | Fréchet distance from normal images, of abnormal images and of their reconstructions | mark 2, on normal images, because no abnormal one is seen before the evaluation |
# | CACI, conservation and correction | MSE, LPIPS and SSIM inside and outside marked lesions | mark 4, with a pasted square instead of a lesion |
#
# A method that falls short may still rank well in the next chapter. Then it does so for another reason than its idea.

# %%
from lib.evidence.marks import sentence
from lib.evidence.results import required
from lib.figures.normals import health_curves, health_table
from lib.runs.score import score

scored = score(run, prepared, trained)
for name, reason in scored.results.left_out.items():
    print(f"{name} is left out: {reason}")
choices = [(name, choice.epoch, choice.score) for name, choice in scored.results.choices.items()]
display(pd.DataFrame(choices, columns=["method", "epoch", "chosen score"]).set_index("method").head(10))
health = required(scored.results.health, "health")
if trained:
    display(run.save_figure(health_curves({name: histories[name] for name in trained}, health), "health"))
print("\n".join(sentence(name, method) for name, method in health.methods.items()))
health_table(health).head(10)

# %% [markdown]
# The next figure follows three abnormal images through all stages, for each method: the input (with the lesion
# outlined where it is marked), the reconstruction and the residual. All residuals share the same limits.

# %%
if trained:
    marked = [i for i in abnormal if split.test["id"][i] in prepared.lesions][:3] or list(abnormal[:3])
    reconstructed = {name: stack[marked] for name, stack in list(scored.reconstructed.items())[:3]}
    titles = [split.test["finding"][i].replace("|", "\n") for i in marked]
    lesions = [prepared.lesions.get(split.test["id"][i]) for i in marked]
    display(run.save_figure(reconstructions(images.test[marked], reconstructed, titles, lesions), "stages"))

# %% [markdown]
# One of these images again, in every map of one method.

# %%
from lib.methods.method import to_unit
from lib.scores.maps import anomaly_maps, describe
from lib.scores.selection import feature_distances

if trained:
    last = list(trained)[-1]
    _, distances = feature_distances(params, trained, choose_device(params.device))
    image = to_unit(images.test[marked[:1]], torch.device("cpu"))
    reconstruction = torch.tensor(scored.reconstructed[last][marked[:1]])[:, None]
    with torch.no_grad():
        maps = anomaly_maps(describe(image, distances), describe(reconstruction, distances), distances)
    pictures = {
        "image": image,
        f"by {last}": reconstruction,
        **{name: stack / stack.max() for name, stack in maps.items()},
    }
    figure = image_grid(torch.cat(list(pictures.values())).clip(0, 1).numpy(), list(pictures), columns=5)
    display(run.save_figure(figure, "maps"))

# %% [markdown]
# Each map is drawn up to its own maximum.
#
# ## Does the map point at the lesion?
#
# Where lesions are marked (exact masks of the phantoms, boxes by radiologists in real X-rays), we can ask whether the
# residual map finds them. But lesions lie in lungs. A map that looks at no image at all, the mean of the lesions of
# the other patients, already points well: the **prior**. The main result is therefore average precision and AUROC
# *minus the prior's*, with an interval over patients, on the whole image and inside a template of the lungs. The
# other measures are shown as they are:
#
# | measure | what it asks |
# |---|---|
# | average precision, AUROC | do pixels of lesions rank above all other pixels, over all images together? |
# | AUPRO | what share of each lesion is found, at false alarm rates up to 0.3 (Bergmann et al., 2020)? |
# | pointing game | how often does the highest pixel of an image lie in a lesion? (It needs no normal images.) |
# | best Dice | $2 \lvert A \cap B \rvert / (\lvert A \rvert + \lvert B \rvert)$ of called pixels $A$ and marked pixels $B$, at the threshold that the marks say is best: an oracle |

# %%
from lib.figures.detection import localisation_margins
from lib.figures.tables import localisation_table
from lib.runs.evaluate import locate

located = locate(run, prepared, scored).localisation
if located:
    print(
        f"{located.marked} images of {located.patients_marked} patients with a lesion, {located.normal} normal images"
    )
    print(f"left out: {located.left_out or 'none'}")
    for region in located.regions:
        display(localisation_table(located, region).head(10))
    display(run.save_figure(localisation_margins(located, list(trained)), "localisation"))
else:
    print("No lesion is marked in this data.")

# %% [markdown]
# Right of the dotted line, a map knows more about where the lesion is than where lesions usually are. If an interval
# crosses the line or lies left of it, the map has not been shown to point better than one that looks at no image.
#
# **In short**: image, reconstruction, map, pool, number. The primary score is the mean of $\lvert x - \hat x \rvert$.
# *chosen* is the score that best separates the painted images, and *combined* is made of one score of each map;
# neither needs a label. To *detect* and to *locate* are two claims, and a score that does one need not do the other.
# The next chapter asks what each score is worth.
