# %% [markdown] id="comparison"
# # 6 Which one wins, and is the difference real?
#
# **Reads** `params`, `source`, `trained`, and `run`, with its scores and those of finished runs beside it. **Leaves** `table`,
# `compared`, `results`, `evaluation`, `candidates`.
#
# Two runs can be compared if they share the split's hash, the image size and the number of images seen. If this run trained
# both methods they are compared here; if it trained one, the other is looked for in the folders beside this run.

# %%
from lib.charts import curves, false_alarms, forest, score_distributions
from lib.comparison import comparable, evaluate
from lib.evaluation import difference_text, findings_table, results_table, strata_table

takes(6)
table, found = comparable(run)
compared = list(run.results()["methods"])
absent = [name for name in ("unet", "ra") if name not in compared]
if absent:
    print(
        f"No finished run beside this one has {' or '.join(absent)} on this split with this budget: nothing to compare with yet."
    )
found

# %% [markdown]
# The words of the table. **AUROC**, the primary number: the probability that a random abnormal film scores higher than a random
# normal one. **Average precision**: go down the list of all films from the highest score; at each abnormal film note which
# share of the films so far is abnormal; take the mean. Without information it is the share of abnormal films, the *prevalence*.
# *Sensitivity* (TPR): the share of abnormal films that are called abnormal. *False alarm rate* (FPR): the share of normal films
# that are; *specificity* is one minus it. Both need a threshold, which promises 5 % false alarms on films like the normal
# validation films: no test label chose it. *FPR at 95 % TPR* and *TPR at 5 % FPR* move the threshold until the other rate is
# that.
#
# Intervals are 95 %, from a bootstrap that draws *patients*, not images, within normal and abnormal: two films of one
# patient are not two pieces of evidence.

# %%
results = evaluate(run, table)
evaluation = results["evaluation"]
if source.synthetic:
    display(Markdown(f"**{SYNTHETIC}**"))
print(
    f"labels: {evaluation['labels']}; prevalence {evaluation['prevalence']:.2f}; left out: {evaluation['left_out'] or 'none'}"
)
results_table(evaluation)

# %% [markdown]
# Every threshold at once: the *ROC* curve trades abnormal films found against normal films called abnormal, the
# *precision-recall* curve against wrong calls among all calls. A marker stands at the threshold of the table. The band is a 95
# % interval for each place of the horizontal axis, taken alone; somewhere along its length the true curve leaves it more often.
# Grey are the other methods, dotted is chance: a ROC curve below it ranks ill films as *more* normal.

# %%
roc, precision_recall = curves(table, compared, params.label_column, evaluation, params.seed)
display(run.save_figure(roc, "roc"))
display(run.save_figure(precision_recall, "precision-recall"))

# %% [markdown]
# Where the scores come from: a dot is a film.

# %%
run.save_figure(score_distributions(table, compared, params.label_column, evaluation), "scores")

# %% [markdown]
# If the two groups of normal films lie apart, the test normals are not like the normals that were learned from (another camera,
# another hospital, other patients), and the threshold's promised 5 % does not hold. The specificity above shows by how much.
#
# ## The difference
#
# Both methods score the same films, so the question is not whether their intervals overlap, but whether the interval of
# their *difference*, on the same resamples, covers zero.

# %%
for difference in evaluation["differences"]:
    display(Markdown(f"**{difference_text(difference)}**"))

# %% [markdown]
# ## What it cost
#
# Equal budget means an equal number of images seen. The rest follows from the method and is stated, not equalised: RA takes
# two optimizer steps a batch and passes generated films through both halves again.

# %%
from lib.report import budget_table

budget_table(results)

# %% [markdown]
# ## Finding by finding
#
# Each finding against the same normal films. Where there are too few films, their number is given and no AUROC.

# %%
display(findings_table(evaluation))
run.save_figure(forest(evaluation, "findings"), "findings")

# %% [markdown]
# ## View by view, sex by sex
#
# The same within groups of films that are alike in what is known of them. A group with fewer than 10 films of either class gets
# no AUROC: its interval would say nothing.

# %%
display(strata_table(evaluation))
run.save_figure(forest(evaluation, "strata"), "strata")

# %% [markdown]
# ## The same scores under other labels
#
# Where the data has a second column of labels, the same scores are evaluated against it too. Nothing changes but who is
# called normal; how much the numbers move says how much labels alone can do.

# %%
for other in results["other_labels"]:
    print(f"labels: {other['labels']}; prevalence {other['prevalence']:.2f}; left out: {other['left_out'] or 'none'}")
    display(results_table(other))

# %% [markdown]
# ## Every row
#
# All that this run has scored, under the labels that count. *chosen* and *combined* are the two scores of chapter 5 that need
# no label. The reference rows put the methods in their place: the mean grey, the distance to the mean film, 16 principal
# components, frozen features of a network that has seen photographs and no chest (*knn*: the distance to the nearest training
# films; *mahalanobis*: to their Gaussian; *patchcore*: patch by patch), and the view, where it is known.

# %%
rows = results["rows"]
display(results_table(rows).drop(columns="normal / abnormal"))
for difference in rows["differences"]:
    print(difference_text(difference))

# %% [markdown]
# ## What was promised, and what happened
#
# The threshold of each row promises a normal film, if it is like the calibration films, a chance of at most 5 % to be called
# abnormal: it is their conformal quantile. Of $b$ calibration films only the rates $k / (b + 1)$ can be promised. Chance alone
# spreads what comes of a promise: the interval is what $b$ films can promise for this many test films (Vovk, 2012).
#
# The figure asks it of every promise, not only of 5 %. Horizontal: what was promised; vertical: what happened. On the dotted
# line the promise is kept exactly, in the grey the deviation may be chance, above it the test normals are hardly like the films
# that the threshold was taken from. Below it no promise is broken, but there too the two are hardly alike, and the threshold is
# higher than it need be. (The grey is for one promise at a time.) The marker is the threshold of the table.

# %%
from lib.report import promise_table

if promised := results["promise"]:
    print(
        f"promised {promised['promised']:.0%}; {results['calibration_images']} calibration films promise "
        f"{promised['low']:.0%} to {promised['high']:.0%} (95 %)"
    )
    display(promise_table(results))
else:
    print(f"{results['calibration_images']} calibration films cannot promise a rate of 5 %: at least 19 are needed.")
run.save_figure(false_alarms(table, compared, params.label_column), "false-alarms")

# %% [markdown]
# ## How far from the best was the choice?
#
# Now that the labels are on the table, look back. Each dot is a score (and epoch) of a method: how well it separated painted
# lesions, and how well it separates the test films. A cloud that rises to the right: painted lesions choose well. A flat or an
# upright one: the choice is luck. The dashed line is the **oracle**, the best that a choice *with* the test labels could have
# made; nobody who deploys a method has it. *gap* is what the choice has cost in AUROC.

# %%
from lib.choosing import regret
from lib.figures import Drawing, look
from lib.judging import read_candidates

candidates = read_candidates(run.folder, table[table["side"] == "test"].set_index("id")[params.label_column])
choices = results["choices"]
if choices:
    figure = Drawing(figsize=(10, 3.4 * -(-len(choices) // 4)), layout="constrained")
    grid = figure.subplots(-(-len(choices) // 4), min(4, len(choices)), sharex=True, sharey=True, squeeze=False).ravel()
    lost = {}
    for ax, name in zip(grid, choices, strict=False):
        of = candidates[(candidates["method"] == name) & candidates["own"]].set_index(["epoch", "score"])
        lost[name] = regret(of["separation"].to_dict(), of["auroc"].to_dict())
        chosen = of.loc[lost[name].chosen]
        ax.plot(of["separation"], of["auroc"], ".", color=look(name)[0], alpha=0.5)
        ax.plot(chosen["separation"], chosen["auroc"], "o", color="black", label="chosen")
        ax.axhline(of["auroc"].max(), color="black", linestyle="--", linewidth=1, label="oracle")
        ax.set_title(f"{name}: {chosen['auroc']:.2f} of {of['auroc'].max():.2f}", fontsize=10)
    grid[0].legend(fontsize=8, frameon=False)
    for ax in grid[len(choices) :]:
        ax.remove()
    figure.supxlabel("how well a score separates painted lesions (AUROC)", fontsize=10)
    figure.supylabel("how well it separates test films (AUROC)", fontsize=10)
    costs = {name: one._replace(gap=round(one.gap, 3))._asdict() for name, one in lost.items()}
    display(pd.DataFrame(costs).T.rename_axis("method"))
    display(run.save_figure(figure, "choice"))

# %% [markdown]
# ## How large, how dense must a lesion be?
#
# No real data set can say it: there, a lesion's size and contrast are not known, and its film without it does not exist. The
# phantom has both. Films of patients that no side has seen get each finding, at some sizes and contrasts; the rest of a film is
# unchanged to the bit. **Size** is the diameter of the circle with the lesion's mean area, as a share of the film's width (380
# mm); **contrast** is the mean absolute change inside the lesion, in grey levels of [0, 1], none beyond 0.1, where an opacity
# becomes a white ball. The score is the primary one.
#
# Two questions, two curves. *Dashed*: in what share of the films does the score rise when the lesion is put in? *Solid*: AUROC
# of the films with the lesion against the films without, where it must stand out among the differences from film to film.
# Chance is 0.5 in both. Dashed near 1 and solid near 0.5: the score notices the lesion, but films differ among themselves by
# more than it, and only the solid curve is of use in practice. Drawings: a curve says what a method *can* see, not what it sees
# in patients.

# %%
from lib.cache import Preparation
from lib.phantom import FINDINGS
from lib.psychometric import detection, lesion_series
from lib.scoring import reconstruct, residuals

if source.synthetic and trained:
    severities, contrasts = (0.1, 0.4, 0.7, 1.0), (0.01, 0.025, 0.05, 0.1)
    at_severity, at_contrast = severities.index(0.7), contrasts.index(0.05)
    unseen = range(10**6, 10**6 + 20)  # patients beyond the run's own
    preparation = Preparation.from_params(params)
    detected = []
    for finding in FINDINGS:
        series = lesion_series(finding, severities, contrasts, unseen, preparation, params.seed)
        drawn = np.concatenate([series.films, series.lesions.reshape(-1, *series.films.shape[1:])])
        for name, method in trained.items():
            scores = residuals(drawn, reconstruct(method, drawn, name=f"{name}: {finding}")).mean(axis=(1, 2))
            lesions = scores[len(unseen) :].reshape(series.lesions.shape[:3])
            for measure, values in zip(("pairs", "AUROC"), detection(scores[: len(unseen)], lesions), strict=True):
                detected += [
                    dict(method=name, finding=finding, size=size, contrast=contrast, measure=measure, value=value)
                    for size, row in zip(series.diameters, values, strict=True)
                    for contrast, value in zip(contrasts, row, strict=True)
                ]
    detected = pd.DataFrame(detected)
    areas = detected[(detected["measure"] == "AUROC") & (detected["contrast"] == contrasts[at_contrast])]
    areas = areas.pivot(index=["finding", "size"], columns="method", values="value").round(2)
    display(areas.rename(index="{:.2f}".format, level="size"))

# %%
if source.synthetic and trained:
    figure = Drawing(figsize=(10, 5), layout="constrained")
    grid = figure.subplots(2, len(FINDINGS), sharey=True)
    for column, finding in zip(grid.T, FINDINGS, strict=True):
        of = detected[detected["finding"] == finding]
        sizes = of["size"].unique()
        for ax, by, fixed in zip(column, ("size", "contrast"), ("contrast", "size"), strict=True):
            value = {"contrast": contrasts[at_contrast], "size": sizes[at_severity]}[fixed]
            for name in trained:
                colour, marker = look(name)
                for measure, line in (("AUROC", "-"), ("pairs", "--")):
                    curve = of[(of[fixed] == value) & (of["method"] == name) & (of["measure"] == measure)]
                    label = name if measure == "AUROC" else None
                    ax.plot(curve[by], curve["value"], line, color=colour, marker=marker, markersize=4, label=label)
            ax.axhline(0.5, color="0.6", linestyle=":")
            ax.set_ylim(0, 1.03)
            ax.set_xlabel(f"{by}, at {fixed} {value:.2f}", fontsize=8)
            ax.tick_params(labelsize=8)
        column[0].set_title(finding, fontsize=10)
    grid[0, 0].legend(fontsize=7, frameon=False)
    figure.supylabel("detected: AUROC (solid), share of pairs (dashed)", fontsize=9)
    best = detected[(detected["measure"] == "AUROC") & (detected["contrast"] == contrasts[-1])]
    surest = best.loc[best["value"].idxmax()]
    missed = [f for f in FINDINGS if best.loc[best["finding"] == f, "value"].max() < 0.75]
    figure.suptitle(
        f"Of contrast {contrasts[-1]:.2g}, most surely detected: {surest['finding']} of size {surest['size']:.2f} by "
        f"{surest['method']}, AUROC {surest['value']:.2f};\nno AUROC of 0.75 at any size: {', '.join(missed) or 'none'}",
        fontsize=10,
    )
    display(run.save_figure(figure, "psychometric"))

# %% [markdown]
# **So, which one?** The sentence under *The difference* answers it for these films. An interval that excludes zero is evidence
# that the order would be the same on other patients of this kind. It says nothing of another training, for this run has one
# seed, nor of *why*: that is the next chapter's question.
