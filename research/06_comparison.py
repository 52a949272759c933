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
# patient are not two pieces of evidence. *Sensitivity* and *specificity* are at a threshold that at most 5 % of the normal
# *validation* films exceed: no test label chose it.

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
