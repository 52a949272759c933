# %% [markdown] id="what-matters"
# # What matters?
#
# **Reads** `run`, `prepared`, `comparison`, `trained`, `candidates`. **Leaves** `audited`, `results`.
#
# This chapter first asks of this run whether something trivial would have done as well. Then it answers four
# questions that the literature leaves open. The answers from the published runs, each computed below:
#
# 1. **Is it the score or the training?** Mostly the training.
# 2. **Does the reversal matter?** That remains open: the two seeds of that ablation disagree.
# 3. **Does a U-Net that cannot copy beat RA?** A U-Net trained to remove coarse noise does on the pediatric set; on
#    the adult set the two cannot be told apart. U-Nets without skips, with noisy skips or with masked inputs rank
#    below RA.
# 4. **Does any trained method beat frozen features?** None does on the adult set. On the pediatric set only the
#    denoising U-Net does, by a small margin. Several scores joined rank above nearest neighbours on both sets.
#
# ## Would something trivial have done as well?
#
# It can, as a known example shows. On the RSNA test set of the MedIAnomaly benchmark, the view alone separates normal
# from lung opacity with an AUROC of 0.79: X-rays taken at the bedside (AP) against those of standing patients (PA).
# Patients who lie in bed are sicker. The benchmark's published autoencoders reach 0.61 to 0.73. So every run asks
# what else could explain its own result:
#
# | check | what it asks |
# |---|---|
# | tag | does what is known of the image (view, age, sex, source, file) separate the classes? |
# | image | does a feature that needs no network, such as the mean grey? |
# | stratum | what is left among images that are alike in the strongest tag, and in the strongest feature? *Pairs within strata* counts no pair of two strata |
# | masked image | what is left without the border, and without the lungs? |
# | reading | what if the other labels count? |
# | on two sides | is a patient or an image both in the test set and in another set, as far as anybody can know? |
#
# The table shows at most ten rows: the strongest tag and the strongest feature, the methods among images that are
# alike in them, and on masked images. All checks, also those by the other labels and on patients on two sides, are in
# `tables/audit.csv` of the run folder. How to read it:
#
# * *AUROC* is that of the tag or feature itself. The columns of the methods give theirs *on the same images*, with
#   the primary score. Fewer than 10 images of a class get no number.
# * An AUROC below 0.5 separates too, the other way round: what counts is the distance from 0.5. A *method* may lie
#   below 0.5 for a reason as well, if its interval excludes 0.5. The residual of a network that copies is what is
#   hard to copy: fine detail. Abnormal images with less of it score lower; compare the line *high-frequency energy*.
# * Where the border or the lungs are *replaced*, they are filled with the mean training image, shifted to the
#   brightness of the nearest pixel that stays. The fill holds nothing of the image itself, and no edge. The usual
#   control, *black*, is an anomaly itself and can hide what the rest of the image gives away. The fill decides much,
#   so read the two together: neither is proof alone.

# %%
from lib.figures.studies import audit_extract
from lib.runs.evaluate import audit

takes(7)
results = audit(run, prepared, comparison, trained)
audited = required(results.audit, "audit")
for verdict in audited.verdicts.values():
    display(Markdown(f"**{verdict.sentence}**"))
display(audit_extract(audited, each=1).head(10))
for check in audited.checks:
    if check.check == "on two sides":
        print(f"in two sets, {check.what}: {check.remark}")

# %% [markdown]
# ## This run, score by score
#
# The table gives each method's AUROC on the test images by the mean of every map, at its last epoch. Read down a
# column to see what the *score* does to one method, and along a row to see what the *method* does to one score. The
# labels were needed to make this table; nothing was chosen by it. The other pools, and the standardised forms, are in
# `tables/auroc-by-score.csv`.

# %%
from lib.figures.tables import shaded

last = candidates[candidates["epoch"] == candidates.groupby("method")["epoch"].transform("max")]
by_score = last.pivot(index="score", columns="method", values="auroc").reindex(last["score"].unique())
by_score = by_score[list(last["method"].unique())]
run.save_table(by_score, "auroc-by-score")
shaded(by_score[by_score.index.str.endswith(", mean")].head(10))

# %% [markdown] tags=["published"]
# ## The published runs
#
# These are runs on real X-rays with several seeds, made by the commands in `docs/USAGE.md` and kept in
# `research/results/`. A value is the mean over the seeds, and its interval is the bootstrap's over patients of that
# mean. Every look that anybody took at these test images is listed in `research/results/looks.csv`.
#
# * *adult*, by `strict_label`, has 36 normal and 64 abnormal images: its intervals are about 0.1 wide to either side.
# * *pediatric* is a quick start and no evidence.
# * In the files whose names end in *seconds*, the U-Nets were trained for as long as RA takes, three times as many
#   epochs, instead of for as many images.
# * In those that end in *128*, the denoising U-Net has images of 128 px, one halving more and a fifth fewer epochs.
# * In those that end in *curves*, RA, a VAE and a denoising U-Net see eight times as many images, RA under settings that let it become
#   what it is meant to be. They have a question of their own below.
#
# The first table shows three methods under their three scores, and the nearest neighbours in frozen features, on the
# two sets at equal images seen. The tables below it say for the mean residual how much the seeds differ, and what
# training took on one CPU core. Every table of every set, with all ablations and references, is in `docs/RESULTS.md`
# of the repository.

# %%
from pathlib import Path

import lib
from lib.figures import studies as tables
from lib.figures.tables import budget_table
from lib.runs.study import read_study

folder = Path(lib.__file__).parents[1] / "research/results"
published = {file.stem: read_study(file) for file in sorted(folder.glob("*.json"))}
curved = {name: study for name, study in published.items() if name.endswith("-curves")}
against_ra = {name: study for name, study in published.items() if "ra" in study.budgets and name not in curved}
mains = {name: study for name, study in against_ra.items() if not name.endswith("-seconds")}
headline = ["unet", "unet-denoising", "ra"]
display(tables.score_table(mains, [*tables.forms(headline), "knn"]))
for name, study in mains.items():
    display(Markdown(f"**{name}**, labels: {study.evaluation.labels}, {study.settings.image_size} px"))
    display(tables.seeds_table(study.evaluation, headline, [("unet", "ra"), ("unet-denoising", "ra")]))
    display(budget_table({method: study.budgets[method] for method in headline}))

# %% [markdown]
# Four questions follow. Each begins with the answer, and the cell below it computes that answer from these files by a
# rule: if the 95 % interval of a difference contains zero, the two are *not told apart*. A table or list has at most
# ten lines; `docs/RESULTS.md` has all of them. Methods that were not run are left out. On the adult set, all
# answers are by the radiologists' labels, `strict_label`. The intervals take the seeds that were run as given; those
# that take *seeds as draws* too are wider.
#
# ### How much is the score, how much the training?
#
# **Mostly the training.** Methods account for 85 % (adult) and 60 % (pediatric) of the variance of the table below,
# maps for 4 % and 28 %.
#
# The table gives the AUROC by map and method: the mean over the three pools, both forms and the seeds, so that
# nothing is picked. A row is one map for all methods. The two rows of *ra encoder* use RA's encoder on the
# reconstructions of the other methods, too. If all rows were alike, the score would not matter; if all columns were
# alike, the training would not.
#
# The squared deviations from the mean are split accordingly (two-way analysis of variance, rows without a gap). One
# part is how far the means of the columns lie apart, one how far those of the rows do. The rest is what neither
# explains: which map suits which method, and chance.

# %%
from lib.evidence.study import auroc_by_map, variance_shares
from lib.evidence.wording import percent

for name, study in mains.items():
    grid = auroc_by_map(study)
    between_methods, between_maps = map(percent, variance_shares(grid))
    display(Markdown(f"**{name}**, labels: {study.evaluation.labels}"))
    display(shaded(grid[grid["unet"].notna()].head(10)))
    print(f"Of the variance, methods account for {between_methods} and maps for {between_maps}.")
    display(tables.selection_table(study).head(10))

# %% [markdown]
# ### Does the reversed embedding loss matter?
#
# **That remains open.** By the mean residual, RA ranks above *si-vae* on both sets. But *si-vae* has two seeds, and
# they disagree: on the adult set only one of them shows the difference, on the pediatric set one points the other
# way. By the chosen score the two are not told apart on either set. Compared with *vae*, by either score, RA is not
# told apart on the adult set and ranks below it on the pediatric set, where the two seeds disagree again.
#
# *si-vae* is RA without its reversed embedding loss. *vae* is RA without its game, and so without that loss too. The
# networks, the images and their order are the same.

# %%
from lib.runs.results_page import verdicts


def answer(name, study, pairs):
    """Show what the differences of these pairs of scores say, by the labels that count, as a list."""
    display(Markdown(f"**{name}**, labels: {study.evaluation.labels}\n\n{verdicts(study.evaluation.among(pairs))}"))


for name, study in mains.items():
    ablations = tables.forms(["si-vae", "vae"])
    answer(name, study, list(zip(ablations, 2 * tables.forms(["ra"]), strict=True)))

# %% [markdown]
# ### Does a U-Net that cannot copy beat RA?
#
# **Only one that is trained to remove coarse noise, and only on the pediatric set.** There *unet-denoising* ranks
# above RA by all three scores; on the adult set the two are not told apart. Both hold at equal images seen and at
# equal seconds. A U-Net without skips, with noisy skips or with masked inputs ranks below RA on both sets, by the
# mean residual.
#
# The comparisons are made at equal images seen and, in the lists whose names end in *seconds*, at equal seconds. The
# plain *unet*, which can copy, stands next to the others.

# %%
for name, study in against_ra.items():
    unets = [method for method in study.budgets if method.startswith("unet")]
    pairs = [(method, "ra") for method in unets]
    answer(name, study, pairs + list(zip(tables.forms(["unet-denoising"]), tables.forms(["ra"]), strict=True))[1:])

# %% [markdown]
# ### Does any of them beat frozen features?
#
# **None on the adult set.** On the pediatric set only *unet-denoising* does, by a small margin: with its combined
# score and, trained for as long as RA, with its chosen score too. If the seeds are taken as random draws too, the
# intervals of these margins reach zero.
#
# *knn* is the distance to the nearest training images in the features of a network that was trained on photographs
# and has seen no X-ray. It needs no training of its own. Its stages and its five neighbours were chosen once, with
# labels, on pediatric training images; on the adult images nothing was chosen. It sees images of the same size as the
# methods do.

# %%
for name, study in published.items():
    found = study.evaluation.among([(score, "knn") for score in tables.forms(study.budgets)])
    above = [difference.first for difference in found if difference.order > 0]
    below = sum(difference.order < 0 for difference in found)
    highest = sorted(found, key=lambda difference: -difference.auroc.estimate.value)[:5]
    display(
        Markdown(
            f"**{name}**: of {len(found)} scores of trained methods, {len(above)} rank above the nearest "
            f"neighbours ({', '.join(above) or 'none'}) and {below} below. The highest five:\n\n{verdicts(highest)}"
        )
    )

# %% [markdown]
# ### Does RA detect better once it works?
#
# **Not by its residual; by its critic it does, but so does a plain VAE, and a denoising U-Net is there in a fiftieth of
# the time.** In all other published runs RA has seen too few images, under settings
# that let its game undo what it had learned. Here it sees eight times as many. On the pediatric set it then meets every
# mark of chapter 5 on normal validation images alone: it redraws them better than 16 principal components, its
# reconstructions look more like radiographs, and its critic tells them from real ones. On the adult set the critic
# hardly does so yet.
#
# The mean residual ranks no better for it. The KL of the posterior does, by which the critic judges. At first it is no
# better than chance; in the end it is not told apart from nearest neighbours in frozen features, and on the adult set
# it ranks above the view alone. Part of it is that view: among normal adults, it is higher for AP images. On the
# pediatric set the KL of a VAE, which plays no game, is not told apart from RA's, nor is its residual, although its
# reconstructions look far less like radiographs. So the gain is one of long training, not of the game. The denoising
# U-Net's mean residual is after two minutes where RA's KL is in the end. On the pediatric set it falls with longer
# training, although every measure on normal images improves: none of them says when to stop. On the adult set it stays
# (one seed), and RA's residual ranks below it.
#
# The figure shows the AUROC of the test images after a few numbers of epochs that were fixed beforehand: above,
# against the images seen, below, against the CPU time of one thread. A line is the mean over the seeds, a band its
# interval over patients, a dot a seed. Grey lines are the references in frozen features.
#
# The tables give RA's health at the same points, and how it differs from each of the others at its last point. *Above*
# and *below* mean that the interval that takes the seeds as draws excludes zero.

# %%
from lib.evidence.results import required
from lib.figures.progress import auroc_curves, curve_table, progress_table

for name, study in curved.items():
    curves = required(study.curves, "learning curves")
    frozen = {score: study.evaluation.scores[score].auroc.estimate for score in ("knn", "patchcore")}
    display(Markdown(f"**{name}**, labels: {curves.labels}"))
    display(run.save_figure(auroc_curves(curves, frozen), f"published-{name}"))
    display(progress_table(curves, "ra").drop(columns=["chosen score", "combined score"]))
    display(curve_table(curves, [*curves.points, *frozen, "ap-view"]).T)

# %% [markdown]
# ### Do several together rank better than one?
#
# **Better than nearest neighbours in frozen features, on both sets.** Whether the trained methods add anything to all
# references in frozen features joined was not tested: on the adult set *patchcore* alone comes near the combination,
# and on the pediatric set the denoising U-Net alone ranks as high.
#
# A score is put on a common scale by the calibration normals of its run, minus their mean and divided by their
# standard deviation, and averaged over the seeds. The *combination* is the mean of several: the combined scores of the
# methods that every seed has and that give back at most half of a pasted square, and the references in frozen
# features. That rule uses no label and was fixed before the combination was evaluated.

# %%
from lib.evidence.wording import estimate_text

for name, study in mains.items():
    if study.ensembles and (together := study.ensembles[-1]).over_knn:
        print(f"{name}: the combination of {'; '.join(together.members)}")
        print(f"AUROC {estimate_text(together.auroc)}; minus knn {estimate_text(together.over_knn, signed=True)}")
display(tables.ensemble_table(mains, [*tables.forms(headline[1:]), "knn", "patchcore", "combination"]))

# %% [markdown]
# ### What others have published
#
# These results are on other images and under other protocols. They are **not comparable** with those above, and with
# each other only where the protocol is the same.
#
# | method | AUROC | protocol | source |
# |---|---|---|---|
# | autoencoder, latent 16; 4 | 0.675; 0.729 | RSNA, 3,851 normal; test 1,000 normal, 1,000 lung opacity; 64 px | AE4AD (MICCAI 2024), table |
# | VAE; MemAE | 0.679; 0.696 | the same | the same |
# | U-Net with a noise bottleneck and corruption (QBAE); without both | 0.881; 0.590 | RSNA 0.881 at 128 px; 0.590 is the mean of seven sets | arXiv 2610.09670, as summarised by others |
# | PatchCore; CS-Flow | 0.761; 0.832 | RSNA, 8,000 normal; images "not normal" count as abnormal | BMAD, table |
# | alpha-GAN with VAE | 0.838 | RSNA, own split, lung opacity | Nakao et al., 2021 |
# | the view alone (AP) | 0.789 | the test split of the first row | computed from its metadata |
#
# None of these comes with an interval over patients and a baseline from metadata.
#
# ## So, what matters?
#
# The lists say who ranks above whom in the published runs, one line per comparison, by the mean residual. How much is
# the score and how much the training is answered above.
#
# The figure shows all methods and references of the sets at equal images seen, one panel per set. A circle is the
# mean residual, or the only score of a reference that makes no reconstructions. A square is the chosen score, a
# triangle the combined one. A bar is the 95 % interval, and the small dots are the seeds. Ask first whether a bar
# crosses 0.5. To see whether *ra* ranks above *unet-denoising* or *knn*, read the lists; whether two bars overlap
# does not decide it.

# %%
from lib.figures.ranking import study_ranking

asked = [("unet", "ra"), ("si-vae", "ra"), ("vae", "ra"), ("unet-denoising", "ra"), ("ra", "knn")]
for name, study in mains.items():
    answer(name, study, asked)
run.save_figure(study_ranking(mains), "published")
