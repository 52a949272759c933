# %% [markdown] id="what-matters"
# # 7 What matters?
#
# **Reads** `table`, `images`, `evaluation`, `candidates`. **Leaves** `test`, `trivial`, `best`, `published`.
#
# First, would something trivial have done as well? Then four questions that the literature leaves open, asked of this run and of
# the published ones: how much is the score and how much the training, does the reversal matter, does a U-Net that cannot copy
# do better, and does any of them beat frozen features?
#
# ## Would something trivial have done as well?
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

# %% [markdown]
# ## This run, score by score
#
# Each method's AUROC on the test films under every score, at its last epoch. Read down a column for what the *score* does to one
# method, along a line for what the *method* does to one score. The labels were needed to make this table; nothing was chosen by it.

# %%
last = candidates[candidates["epoch"] == candidates.groupby("method")["epoch"].transform("max")]


def score_matrix(scores):
    """Return AUROC by score, one column a method, the darker the higher."""
    matrix = scores.pivot(index="score", columns="method", values="auroc").reindex(scores["score"].unique())
    matrix = matrix[list(dict.fromkeys(scores["method"]))]
    shaded = matrix.style.format("{:.2f}", na_rep="–").background_gradient("Greys", vmin=0.4, vmax=1.0)
    return shaded.highlight_null("white")


display(score_matrix(last))

# %% [markdown]
# ## The published runs
#
# Runs on real films with several seeds, made by the commands in the README and kept in `research/results/`. A row's value is the
# mean over the seeds, its interval the bootstrap's over patients of that mean; the lowest and the highest seed stand beside it.
# Every time that anybody looked at these test films is in `research/results/looks.csv`. *Adult, strict* has 36 normal and 64 abnormal films: its intervals are about 0.1 wide to either side. The pediatric set is a quick start
# and no evidence.

# %%
import json
from pathlib import Path

import lib

folder = Path(lib.__file__).parents[1] / "research/results"
published = {file.stem: json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))}


def study_table(study):
    """Return one line a row and one column a reading of the labels: mean AUROC, interval, range over the seeds."""
    columns = {}
    for one in study["evaluations"]:
        name = f"{one['labels']}: {one['n_normal']} normal, {one['n_abnormal']} abnormal"
        columns[name] = {
            row: f"{e['auroc']['value']:.3f} [{e['auroc']['low']:.2f}, {e['auroc']['high']:.2f}]"
            f" ({min(e['auroc']['seeds']):.2f} to {max(e['auroc']['seeds']):.2f})"
            for row, e in one["rows"].items()
        }
    return pd.DataFrame(columns).rename_axis("AUROC [95 %] (seeds)")


for name, study in published.items():
    spent = ", ".join(f"{m} {b['images_seen']:,}" for m, b in study["budgets"].items())
    display(Markdown(f"**{name}**: seeds {study['seeds']}, {study['params']['image_size']} px; images seen: {spent}"))
    display(study_table(study))

# %% [markdown]
# ### How much is the score, how much the training?
#
# The same table as above, for the published runs: the mean over the seeds.

# %%
for name, study in published.items():
    display(Markdown(f"**{name}**, labels: {study['evaluations'][0]['labels']}"))
    display(score_matrix(pd.DataFrame(study["scores"])))

# %% [markdown]
# ### Does the reversal matter, does a U-Net that cannot copy do better, does any of them beat frozen features?
#
# Each line is a difference of two mean AUROCs on the same resamples, with what its interval says.

# %%
for name, study in published.items():
    for one in study["evaluations"]:
        rows = {
            f"{d['first']} minus {d['second']}": {
                "AUROC": f"{d['value']:+.3f} [{d['low']:+.2f}, {d['high']:+.2f}]",
                "": "no difference shown" if d["low"] <= 0 <= d["high"] else "the interval excludes zero",
            }
            for d in one["differences"]
        }
        display(Markdown(f"**{name}**, labels: {one['labels']}"))
        display(pd.DataFrame(rows).T)

# %% [markdown]
# ### What others have published
#
# On other films, under other protocols: **not comparable** with the above, and with each other only where the protocol is the same.
#
# | method | AUROC | protocol | source |
# |---|---|---|---|
# | autoencoder, latent 16; 4 | 0.675; 0.729 | RSNA, 3,851 normal; test 1,000 normal, 1,000 lung opacity; 64 px | AE4AD (MICCAI 2024), table |
# | VAE; MemAE | 0.679; 0.696 | the same | the same |
# | U-Net with a noise bottleneck and corruption (QBAE); without both | 0.881; 0.590 | RSNA 0.881 at 128 px; 0.590 is the mean of seven sets | arXiv 2610.09670, as summarised by others |
# | PatchCore; CS-Flow | 0.761; 0.832 | RSNA, 8,000 normal; films "not normal" count as abnormal | BMAD, table |
# | alpha-GAN with VAE | 0.838 | RSNA, own split, lung opacity | Nakao et al., 2021 |
# | the view alone (AP) | 0.789 | the first line's test split | computed from its metadata |
#
# None of these stands beside an interval over patients and a baseline of tags.

# %%
figure = Drawing(figsize=(10, 0.5 + 2.6 * max(1, len(published))), layout="constrained")
for ax, (name, study) in zip(np.ravel(figure.subplots(max(1, len(published)), 1)), published.items(), strict=False):
    one = study["evaluations"][0]
    rows = sorted(one["rows"].items(), key=lambda row: row[1]["auroc"]["value"])
    for x, (row, e) in enumerate(rows):
        shade = colour(row.partition(",")[0])
        ax.vlines(x, e["auroc"]["low"], e["auroc"]["high"], color=shade)
        ax.plot([x] * len(e["auroc"]["seeds"]), e["auroc"]["seeds"], ".", color=shade, markersize=3)
        ax.plot(x, e["auroc"]["value"], "o", color=shade)
    ax.axhline(0.5, color="0.6", linestyle=":")
    ax.set_xticks(range(len(rows)), [row for row, _ in rows], rotation=60, ha="right", fontsize=7)
    ax.set(
        ylabel="AUROC",
        title=f"{name}, labels: {one['labels']}: {rows[-1][0]} ranks highest, {rows[-1][1]['auroc']['value']:.2f}",
    )
run.save_figure(figure, "published")
