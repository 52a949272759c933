# %% [markdown] id="scores"
# # 5 How does a reconstruction become one number?
#
# **Reads** `trained`, `histories`, `source`, `split`, `images`, `abnormal`, `run`. **Leaves** `scored`: a table with one row an
# image, the reconstructions, the lesions; and scores on disk that other runs can compare with.
#
# The same two steps for every method: the **residual map** $r_i = |x_i - \hat x_i|$, and the **image score**
# $\frac{1}{HW}\sum_i r_i$. No label is looked at. A score depends on one film alone: not on its neighbours in the batch, not
# on the other films of the test side.

# %%
from lib.runs import budget_table

scored = run.score(trained, histories, source, split, images)
scored.table.groupby("side")[list(trained)].describe().T if trained else print("No method was trained by this run.")

# %% [markdown]
# Three abnormal films through all stages, for each method: what goes in (with the lesion outlined where it is marked), what
# comes back, where they differ. The same limits hold for every error map.

# %%
if trained:
    marked = [i for i in abnormal if split.test["id"][i] in scored.lesions][:3] or list(abnormal[:3])
    figure = reconstructions(
        images.test[marked],
        {name: returned[marked] for name, returned in scored.reconstructed.items()},
        [split.test["finding"][i].replace("|", "\n") for i in marked],
        [scored.lesions.get(split.test["id"][i]) for i in marked],
    )
    display(run.save_figure(figure, "stages"))

# %% [markdown]
# ## Does the map point at the lesion?
#
# Where lesions are marked (exact masks of the phantoms, radiologists' boxes in real films) the map can be asked for its
# **pixel-level average precision**. A map that knows nothing scores the prevalence: the share of marked pixels.

# %%
located = {name: entry["pixels"] for name, entry in run.results()["methods"].items() if entry["pixels"]}
pd.DataFrame(located).T.rename_axis("method") if located else print("No lesion is marked in this data.")

# %% [markdown]
# ## What it cost
#
# Equal budget means an equal number of images seen. The rest follows from the method and is stated, not equalised: RA takes
# two optimizer steps a batch and passes generated films through both halves again.

# %%
budget_table(run.results())
