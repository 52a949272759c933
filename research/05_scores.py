# %% [markdown] id="scores"
# # 5 How does a reconstruction become one number?
#
# **Reads** `trained`, `split`, `images`. **Leaves** `table`, one row an image, and a finished run on disk.
#
# The same two steps for every method: the **residual map** $r_i = |x_i - \hat x_i|$, and the **image score**
# $\frac{1}{HW}\sum_i r_i$. No label is looked at. A score depends on one film alone: not on its neighbours in the batch, not
# on the other films of the test side.

# %%
from lib.dataset import load_masks
from lib.runs import budget_table, pixel_results
from lib.scoring import residuals, scores

made, maps, by_side, budgets, pixels = {}, {}, {}, {}, {}
masks = load_masks(source, list(split.test["id"]), params.image_size)
for name, method in trained.items():
    made[name] = reconstruct(method, images.test, name=f"{name}: test")
    maps[name] = residuals(images.test, made[name])
    validation = reconstruct(method, images.validation, name=f"{name}: validation")
    by_side[name] = {"validation": scores(residuals(images.validation, validation)), "test": scores(maps[name])}
    budgets[name] = run.budget(method, histories[name])
    pixels[name] = pixel_results(maps[name], list(split.test["id"]), masks)
table = run.write_scores(split, by_side, budgets, pixels, source.synthetic)
table.groupby("side")[list(trained)].describe().T if trained else None

# %% [markdown]
# One abnormal film through all stages, for each method: what goes in, what comes back, where they differ. The same limits
# hold for every error map.

# %%
if trained:
    shown = [i for i in abnormal if split.test["id"][i] in masks][:3] or list(abnormal[:3])
    labels = [split.test["finding"][i].replace("|", "\n") for i in shown]
    display(
        run.save_figure(
            reconstructions(images.test[shown], {n: m[shown] for n, m in made.items()}, titles=labels), "stages"
        )
    )

# %% [markdown]
# ## Does the map point at the lesion?
#
# Where lesions are marked (exact masks of the phantoms, radiologists' boxes in real films) the map can be asked for its
# **pixel-level average precision**. A map that knows nothing scores the prevalence: the share of marked pixels.

# %%
located = {name: found for name, found in pixels.items() if found}
pd.DataFrame(located).T.rename_axis("method") if located else print("No lesion is marked in this data.")

# %% [markdown]
# ## What it cost
#
# Equal budget means an equal number of images seen. The rest follows from the method and is stated, not equalised: RA takes
# two optimizer steps a batch and passes generated films through both halves again.

# %%
budget_table(run.results())
