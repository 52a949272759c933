# %% [markdown] id="comparison"
# # Which one wins, and is the difference real?
#
# **Reads** `params`, `source`, `prepared`, `trained`, `scored`, and `run`, with its scores and those of the runs that
# `compare_with` names. **Leaves** `comparison`, `table`, `evaluation`, `over_seeds`, `all_scores`, `candidates`,
# `figures`.
#
# If this run trained both methods, they are compared here. If it trained one, `compare_with` can name the run that
# trained the other. Two runs can be compared if they share the split's hash, the image size and the number of images
# seen.

# %%
from lib.runs.comparison import comparable

takes(6)
comparison = comparable(run)
table = comparison.table
if absent := [name for name in ("unet", "ra") if name not in comparison.methods]:
    print(f"This run has no {' and no '.join(absent)}: train it too, or name a finished run that has, in compare_with.")
comparison.found.head(10)

# %% [markdown]
# The terms of the table:
#
# * **AUROC**, the primary metric: the probability that a random abnormal image scores higher than a random normal
#   one.
# * **Average precision**: go down the list of all images from the highest score; at each abnormal image, note what
#   share of the images so far is abnormal; take the mean. A score without information gets the share of abnormal
#   images, the *prevalence*.
# * *Sensitivity* (TPR): the share of abnormal images that are called abnormal.
# * *False alarm rate* (FPR): the share of normal images that are called abnormal. *Specificity* is one minus it.
#
# Sensitivity and specificity need a threshold. It promises 5 % false alarms on images like the normal validation
# images, and no test label is used to set it. *FPR at 95 % TPR* and *TPR at 5 % FPR* move the threshold until the
# other rate has that value.
#
# The second table says what training cost. An equal budget means an equal number of images seen. All other costs follow
# from the method and are stated, not equalised. RA takes two optimizer steps per batch, and passes generated images
# through both halves again.
#
# Intervals are 95 % intervals from a bootstrap that draws *patients*, not images, within the normal and the abnormal
# class: two X-rays of one patient are not two pieces of evidence.

# %%
from lib.evidence.results import required
from lib.figures.tables import budget_table, results_table
from lib.runs.draw import draw
from lib.runs.evaluate import evaluate


def show(evaluation):
    """Show the results by one column of labels, the first ten methods."""
    left_out = evaluation.left_out or "none"
    print(f"labels: {evaluation.labels}; prevalence {evaluation.prevalence:.2f}; left out: {left_out}")
    display(results_table(evaluation).head(10))


results = evaluate(run, comparison)
figures = draw(run, prepared, scored, comparison)
evaluation = required(results.evaluation, "evaluation")
if source.synthetic:
    display(Markdown(f"**{SYNTHETIC}**"))
show(evaluation)
display(budget_table(results.budgets).head(10))

# %% [markdown]
# The curves show every threshold at once. The *ROC* curve trades abnormal images found against normal images called
# abnormal; the *precision-recall* curve trades them against wrong calls among all calls. A marker stands at the
# threshold of the table. The band is a 95 % interval at each point of the horizontal axis, taken alone; the whole
# curve lies within it less often. Grey curves are the other methods, the dotted line is chance. A ROC curve below
# chance ranks abnormal images as *more* normal. The third figure shows the scores behind the curves, one dot per image.

# %%
display(figures["roc"], figures["precision-recall"], figures["scores"])

# %% [markdown]
# If the two groups of normal images lie apart, the normal test images are not like those that were learned from:
# another camera, another hospital, other patients. The threshold's promise of 5 % does not hold then, and the
# specificity above shows by how much.
#
# ## The difference
#
# Both methods score the same images. So the question is not whether their intervals overlap, but whether the interval
# of their *difference*, on the same resamples, contains zero.
#
# That holds for one training. With `seeds`, the methods are trained again, with other first weights and another order
# of the batches, on the same images. The table then gives each score's mean over the seeds and each seed's own value.
# The first interval is for these seeds and other patients; *seeds as draws* holds for other seeds too. Two or three
# seeds say so little about others that it is often uninformative. Each seed's own run is in the run folder, in
# `seeds/`, and all of them together are `seeds.json`.

# %%
from itertools import combinations

from lib.evidence.wording import difference_text
from lib.figures.studies import seeds_table
from lib.runs.seeds import evaluate_seeds, train_seeds

for difference in evaluation.differences[:10]:
    display(Markdown(f"**{difference_text(difference)}**"))
train_seeds(run, prepared)
if over_seeds := evaluate_seeds(run, prepared):
    names = list(over_seeds.budgets)
    display(seeds_table(over_seeds.evaluation, names, list(combinations(names, 2))).head(10))

# %% [markdown]
# ## Results by finding
#
# Each finding is compared with the same normal images. Where there are too few patients, the table gives their number
# and no AUROC. Where lesions are marked, *area* is the median share of the image that they cover. Here and below, a table shows its first ten rows. Chapter 7 writes all rows to `tables/` in the run
# folder; the figures show all of them.
#
# ## Results by subgroup
#
# The same comparison is made within groups of images that share a known property, such as the view, the sex or the
# age. A group with fewer than 10 patients of either class gets no AUROC: its interval would say nothing.
#
# The patient counts, and not the image. Twelve images of one chest resemble each other, so that they say little more
# than one of them, and a variance that is estimated from two or three such patients is far too small. Below 10 patients
# of a class every interval therefore also holds Wilson's interval for that number of patients, and the last chapter
# claims nothing about how a score ranks.
#
# ## The same scores under other labels
#
# Where the data has a second column of labels, the same scores are evaluated against it too. Nothing changes but who
# is called normal. How far the numbers move says how much the labels alone can do.

# %%
from lib.data.lesions import areas_by_finding
from lib.figures.tables import findings_table, strata_table

sizes = areas_by_finding(prepared.lesions, table)
display(findings_table(evaluation, sizes).sort_values("images", ascending=False).head(10), figures["findings"])
display(strata_table(evaluation).head(10), figures["strata"])
for other in results.other_labels:
    show(other)

# %% [markdown]
# ## All scores and references
#
# Besides the primary scores, this run has scored the images in other ways, under the labels in use. *chosen* and
# *combined* are the two scores of chapter 5 that need no label. The references put the methods into perspective:
#
# * the mean grey, the distance to the mean image, and 16 principal components;
# * frozen features of a network that has seen photographs and no chest: *knn* is the distance to the nearest training
#   images, *mahalanobis* the distance to their Gaussian, *patchcore* compares patch by patch;
# * the view, where it is known.
#
# The table shows ten scores, the primary ones first, then those with the highest AUROC; below it are ten differences,
# those between the methods first. `tables/all-scores.csv` and `tables/differences.csv` hold the rest, and the last
# chapter draws all scores.

# %%
all_scores = required(results.all_scores, "evaluation of all scores")
areas = {name: score.auroc.value for name, score in all_scores.methods.items()}
first = sorted(areas, key=lambda name: (name not in comparison.methods, -areas[name]))[:10]
display(results_table(all_scores).loc[first].drop(columns="normal / abnormal"))
for difference in all_scores.differences[:10]:
    print(difference_text(difference))

# %% [markdown]
# ## What was promised, and what happened
#
# The threshold of each score makes a promise: a normal image that is like the calibration images is called abnormal
# with a chance of at most 5 %. (The threshold is their conformal quantile.) With $b$ calibration images, only the
# rates $k / (b + 1)$ can be promised. What comes of a promise also varies by chance. The interval is what $b$ images
# can promise for this many test images (Vovk, 2012).
#
# The figure checks every promise, not only 5 %. The horizontal axis shows what was promised, the vertical axis what
# happened.
#
# * On the dotted line, the promise is kept exactly.
# * In the grey band, the deviation may be chance. (The band is for one promise at a time.)
# * Above it, the normal test images are hardly like those that the threshold was taken from.
# * Below it, no promise is broken. But here too the two are hardly alike, and the threshold is higher than it needs
#   to be.
#
# The marker is the threshold of the table.

# %%
from lib.figures.tables import promise_table

if promised := results.promise:
    print(f"promised: {promised.promised:.0%}; {results.calibration_images} calibration images")
    print(f"chance alone allows {promised.low:.0%} to {promised.high:.0%} (95 % interval)")
    display(promise_table(results).head(10))
else:
    print(f"{results.calibration_images} calibration images cannot promise a rate of 5 %: at least 19 are needed.")
figures["false-alarms"]

# %% [markdown]
# ## What did training change?
#
# Each row is a test image, as the method redraws it after more and more epochs. Of the normal and of the abnormal
# images those at the first and the third quarter of the scores are shown. Look for what comes back, and when: the
# outline first, ribs and collarbones late or never, and an opacity, if the method can draw it, with them. Methods whose
# weights were kept at one point only have no such figure; `choose_from` keeps more.
#
# ## How far from the best was the choice?
#
# Now that the labels are known, we can look back at model selection. Each dot is a score (and epoch) of a method: how
# well it separates painted lesions, and how well it separates the test images. If the cloud rises to the right,
# painted lesions are a good guide. If it is flat or upright, the choice is luck. The dashed line is the **oracle**,
# the best that a choice *with* the test labels could have made; nobody who deploys a method has it. *gap* is what the
# choice has cost in AUROC.

# %%
from lib.figures import detection
from lib.runs.candidates import read_candidates
from lib.scores.selection import regret

display(*(figure for name, figure in figures.items() if name.endswith("-over-training")))
candidates = read_candidates(run.folder, table[table["side"] == "test"].set_index("id")[params.label_column])
own = candidates[candidates["own"]].set_index(["epoch", "score"])
regrets = {
    name: regret(rows["separation"].to_dict(), rows["auroc"].to_dict())
    for name, rows in own.groupby("method", sort=False)
}
if regrets:
    display(pd.DataFrame(regrets.values(), index=regrets).round({"gap": 3}).rename_axis("method").head(10))
    chosen = {name: regret.chosen for name, regret in regrets.items()}
    display(run.save_figure(detection.choices(candidates, chosen), "choice"))

# %% [markdown]
# ## How large and how dense must a lesion be?
#
# No real data set can answer this. There, the size and contrast of a lesion are not known, and the same X-ray without
# the lesion does not exist. The phantom has both. New synthetic patients, who are in none of the three sets, get each
# finding at several sizes and contrasts. The rest of the image is unchanged to the bit. **Size** is the diameter of
# the circle with the lesion's mean area, as a share of the image's width (380 mm). **Contrast** is the mean absolute
# change inside the lesion, in grey levels of [0, 1]. None goes beyond 0.1, where an opacity becomes a white ball. The
# score is the primary one.
#
# The figure asks two questions with two curves. *Dashed*: in what share of the images does the score rise when the
# lesion is added? *Solid*: what is the AUROC of images with the lesion against images without it, where it must stand
# out among the differences between patients? Chance is 0.5 in both. If the dashed curve is near 1 and the solid one
# near 0.5, the score notices the lesion, but images differ from each other by more than that; only the solid curve
# counts in practice.
#
# The table gives the AUROC of the largest lesion of each finding, at a contrast of 0.05.
#
# These are drawings. A curve says what a method *can* see, not what it sees in patients.

# %%
from lib.evidence.psychometric import CONTRAST, detected
from lib.runs.evaluate import primary_score

if source.synthetic and trained:
    scores = {name: primary_score(method) for name, method in trained.items()}
    shares = detected(scores, prepared.preparation, params.seed)
    areas = shares[(shares["measure"] == "AUROC") & (shares["contrast"] == CONTRAST) & (shares["severity"] == 1)]
    display(areas.pivot(index=["finding", "size"], columns="method", values="value").round(2).head(10))
    display(run.save_figure(detection.psychometric(shares), "psychometric"))

# %% [markdown]
# **So, which one?** The sentence under *The difference* answers it for these images. An interval that excludes zero
# is evidence that the order would be the same on other patients of this kind. It says nothing about another training
# unless `seeds` names several, and nothing about *why*: that is the question of the next chapter.
