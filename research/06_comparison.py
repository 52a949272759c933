# %% [markdown] id="comparison"
# # 6 Which one wins, and is the difference real?
#
# **Reads** `run`, with its scores and those of finished runs beside it. **Leaves** `table`, `compared`, `results`, `evaluation`.
#
# Two runs can be compared if they share the split's hash, the image size and the number of images seen. If this run trained
# both methods they are compared here; if it trained one, the other is looked for in the folders beside this run.

# %%
from lib.evaluation import difference_text, findings_table, results_table
from lib.figures import findings_forest, roc_curves, score_histograms

table, found = run.comparable()
compared = list(run.results()["methods"])
absent = [name for name in ("unet", "ra") if name not in compared]
if absent:
    print(
        f"No finished run beside this one has {' or '.join(absent)} on this split with this budget: nothing to compare with yet."
    )
found

# %% [markdown]
# **AUROC** is the primary figure; **AP** (average precision) depends on the share of abnormal films, which is stated.
# Intervals are 95 %, from a bootstrap that draws *patients*, not images, within normal and abnormal: two films of one
# patient are not two pieces of evidence. *Sensitivity* and *specificity* are at a threshold that
# promises 5 % false alarms on films like the normal *validation* films: no test label chose it.

# %%
results = run.evaluate(table)
evaluation = results["evaluation"]
if source.synthetic:
    display(Markdown(f"**{SYNTHETIC}**"))
print(
    f"labels: {evaluation['labels']}; prevalence {evaluation['prevalence']:.2f}; left out: {evaluation['left_out'] or 'none'}"
)
results_table(evaluation)

# %%
run.save_figure(roc_curves(table, compared, params.label_column, evaluation), "roc")

# %%
run.save_figure(score_histograms(table, compared, params.label_column, evaluation), "scores")

# %% [markdown]
# If the two normal histograms lie apart, the test normals are not like the normals that were learned from (another camera,
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
# ## Finding by finding
#
# Each finding against the same normal films. Where there are too few films, the number of films is given and no figure.

# %%
display(findings_table(evaluation))
run.save_figure(findings_forest(evaluation), "findings")

# %% [markdown]
# ## The same scores under other labels
#
# Where the data has a second column of labels, the same scores are evaluated against it too. Nothing changes but who is
# called normal; how much the figures move says how much labels alone can do.

# %%
for other in results["other_labels"]:
    print(f"labels: {other['labels']}; prevalence {other['prevalence']:.2f}; left out: {other['left_out'] or 'none'}")
    display(results_table(other))

# %% [markdown]
# ## Every row
#
# All that this run has scored, under the labels that count. *chosen* and *combined* are the two scores of chapter 5 that need no
# label. The reference rows put the methods in their place: the mean grey, the distance to the mean film, 16 principal
# components, frozen features of a network that has seen photographs and no chest (*knn*: the distance to the nearest training films;
# *mahalanobis*: to their Gaussian; *patchcore*: patch by patch), and the view, where it is known.

# %%
rows = results["rows"]
display(results_table(rows).drop(columns="normal / abnormal"))
for difference in rows["differences"]:
    print(difference_text(difference))

# %% [markdown]
# ## What was promised, and what happened
#
# The threshold of each row promises a normal film, if it is like the calibration films, a chance of at most 5 % to be called
# abnormal: it is their conformal quantile. The interval is what $b$ calibration films can promise for this many test films
# (Vovk, 2012).

# %%
from lib.conformal import achieved_rate
from lib.evaluation import FALSE_ALARM_RATE

calibration = int((table["side"] == "validation").sum())
if FALSE_ALARM_RATE * (calibration + 1) >= 1:
    low, high = achieved_rate(calibration, FALSE_ALARM_RATE, rows["n_normal"])[1:]
    print(f"promised {FALSE_ALARM_RATE:.0%}; {calibration} calibration films promise {low:.0%} to {high:.0%} (95 %)")
    alarms = {name: 1 - one["threshold"]["specificity"] for name, one in rows["methods"].items() if one["threshold"]}
    display(
        pd.DataFrame(
            {
                name: {"false alarms on test normals": f"{rate:.0%}", "within": "yes" if low <= rate <= high else "no"}
                for name, rate in alarms.items()
            }
        ).T.rename_axis("row")
    )
else:
    print(f"{calibration} calibration films cannot promise a rate of {FALSE_ALARM_RATE:.0%}: at least 19 are needed.")

# %% [markdown]
# ## How far from the best was the choice?
#
# Now that the labels are on the table, look back. Each dot is a score (and epoch) of a method: how well it separated painted
# lesions, and how well it separates the test films. The dashed line is the **oracle**, the best that a choice *with* the test
# labels could have made; nobody who deploys a method has it.

# %%
from lib.choosing import regret
from lib.figures import Drawing, colour
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
        ax.plot(of["separation"], of["auroc"], ".", color=colour(name), alpha=0.5)
        ax.plot(chosen["separation"], chosen["auroc"], "o", color="black", label="chosen")
        ax.axhline(of["auroc"].max(), color="black", linestyle="--", linewidth=1, label="oracle")
        ax.set_title(f"{name}: {chosen['auroc']:.2f} of {of['auroc'].max():.2f}", fontsize=10)
    grid[0].legend(fontsize=8, frameon=False)
    for ax in grid[len(choices) :]:
        ax.remove()
    figure.supxlabel("how well a score separates painted lesions (AUROC)", fontsize=10)
    figure.supylabel("how well it separates test films (AUROC)", fontsize=10)
    display(pd.DataFrame({name: one._asdict() for name, one in lost.items()}).T.rename_axis("method"))
    display(run.save_figure(figure, "choice"))
