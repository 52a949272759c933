# %% [markdown] id="what-matters"
# # 7 Would something trivial have done as well?
#
# **Reads** `table`, `images`, `evaluation`. **Leaves** `test`, `trivial`, `best`.
#
# On the RSNA test set that the MedIAnomaly benchmark uses, the mere fact that a film was taken from the front (view AP)
# separates normal from lung opacity with AUROC 0.79, while its published autoencoders reach 0.61 to 0.73: sick patients are
# filmed in bed. A method is only worth its training if it
# beats what needs none. These rows have learned nothing but the average of the training films.

# %%
from lib.evaluation import auroc

test = table[table["side"] == "test"].reset_index(drop=True)
known = test[params.label_column].isin(["normal", "abnormal"]).to_numpy()
is_abnormal = (test[params.label_column][known] == "abnormal").to_numpy()
films = images.test[known].astype(np.float32) / 255
mean_film = images.train[:].mean(axis=0) / 255
rows = {
    "mean grey": films.mean(axis=(1, 2)),
    "contrast (standard deviation)": films.std(axis=(1, 2)),
    "distance to the mean training film": np.abs(films - mean_film).mean(axis=(1, 2)),
    "sharpness (mean gradient)": np.abs(np.diff(films, axis=2)).mean(axis=(1, 2)),
}
if (test["view"][known] != "").all():
    rows["view is AP"] = (test["view"][known] == "AP").to_numpy(float)
trivial = {name: auroc(values, is_abnormal) for name, values in rows.items()}
methods_auroc = {name: entry["auroc"]["value"] for name, entry in evaluation["methods"].items()}
comparison = pd.DataFrame({"AUROC": trivial | methods_auroc}).rename_axis("score")
comparison["away from chance"] = (comparison["AUROC"] - 0.5).abs()
comparison["trained"] = [name in methods_auroc for name in comparison.index]
display(comparison.sort_values("away from chance", ascending=False).round(3))

# %% [markdown]
# An AUROC below 0.5 separates too, the other way round: *lower* values are the abnormal ones. What counts is the distance from
# 0.5. These are point estimates, and the best trivial score is chosen with the test labels, in its favour: a method that does
# not pass it has shown nothing that needs a network; one that does has passed one hurdle of several.

# %%
best = max(trivial, key=lambda name: abs(trivial[name] - 0.5))
away = abs(trivial[best] - 0.5)
pd.DataFrame(
    {
        name: {"AUROC": f"{value:.3f}", f"passes “{best}” ({0.5 + away:.3f})": "yes" if value > 0.5 + away else "no"}
        for name, value in methods_auroc.items()
    }
).T.rename_axis("method")
