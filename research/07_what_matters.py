# %% [markdown] id="what-matters"
# # 7 What matters?
#
# **Reads** `run`, `table`, `trained`, `split`, `images`, `candidates`. **Leaves** `test`, `results`, `published`, `draw_rows`.
#
# First, would something trivial have done as well? Then four questions that the literature leaves open, asked of this run and of
# the published ones: how much is the score and how much the training, does the reversal matter, does a U-Net that cannot copy
# do better, and does any of them beat frozen features?
#
# ## Would something trivial have done as well?
#
# On the RSNA test set that the MedIAnomaly benchmark uses, the view alone separates normal from lung opacity: films taken at
# the bedside (AP) against films of standing patients (PA) have AUROC 0.79, while its published autoencoders reach 0.61 to 0.73.
# Those who lie in bed are sicker. Every run therefore asks of itself what else could explain its result:
#
# | check | what it asks |
# |---|---|
# | tag | does what is known of the film (view, age, sex, source, file) separate the classes? |
# | image | does a number that needs no network? |
# | stratum | what is left among films that are alike in the strongest tag, and in the strongest feature? *Pairs within strata* counts no pair of two strata |
# | film | what is left without the border, and without the lungs? |
# | reading | what if the other reading of the labels counts? |
# | on two sides | does a patient or a film stand on the test side and on another, as far as anybody can know? |
#
# A line's *AUROC* is that of the tag or feature; the methods' stand beside it, *on the same films*, with the primary score. An
# AUROC below 0.5 separates too, the other way round: what counts is the distance from 0.5. Fewer than 10 films of a class get
# no number.
#
# A *method* below 0.5 may have a reason as well, if its interval excludes 0.5. The residual of a network that copies is what is
# hard to copy: fine detail. If ill films hold less of it, they score lower; compare the line *high-frequency energy*.
#
# Where the border or the lungs are *replaced*, the mean training film stands there, shifted to the brightness of the nearest
# pixel that stays: nothing of the film's own, and no edge. A *black* hole, the usual control, is an anomaly itself and can hide
# what the rest of the film gives away. What stands there decides much, so read the two together: neither is proof alone.

# %%
from lib.audit import audit_table
from lib.comparison import explain

takes(7)
test = table[table["side"] == "test"].reset_index(drop=True)
results = explain(run, table, trained, split, images)
for verdict in results["audit"]["verdicts"].values():
    display(Markdown(f"**{verdict['sentence']}**"))
checks = audit_table(results["audit"])
display(checks[checks["normal / abnormal"] != "–"].drop(columns="said"))
checks.loc[checks["said"] != "", ["said"]]

# %% [markdown]
# ## This run, score by score
#
# Each method's AUROC on the test films under every score, at its last epoch. Read down a column for what the *score* does to
# one method, along a line for what the *method* does to one score. The labels were needed to make this table; nothing was
# chosen by it.

# %%
last = candidates[candidates["epoch"] == candidates.groupby("method")["epoch"].transform("max")]


def shaded(matrix):
    """Return a table of AUROCs, the darker the higher."""
    style = matrix.style.format("{:.2f}", na_rep="–")
    style = style.background_gradient("Greys", vmin=0.4, vmax=1.0, text_color_threshold=0.179)  # equal contrast there
    return style.highlight_null(props="background-color: white; color: black")


def score_matrix(scores):
    """Return AUROC by score, one column a method, the darker the higher."""
    matrix = scores.pivot(index="score", columns="method", values="auroc").reindex(scores["score"].unique())
    return shaded(matrix[list(dict.fromkeys(scores["method"]))])


display(score_matrix(last))

# %% [markdown]
# ## The published runs
#
# Runs on real films with several seeds, made by the commands in the README and kept in `research/results/`. A row's value is
# the mean over the seeds, its interval the bootstrap's over patients of that mean; the lowest and the highest seed stand beside
# it. Every time that anybody looked at these test films is in `research/results/looks.csv`. *Adult, strict* has 36 normal and
# 64 abnormal films: its intervals are about 0.1 wide to either side. The pediatric set is a quick start and no evidence. In the
# files whose names end in *seconds* the U-Nets were trained for as long as RA takes, three times as many epochs, instead of for
# as many images; in those that end in *128* the denoising U-Net has films of 128 px, one halving more and a fifth fewer epochs.

# %%
import json
from pathlib import Path

import lib
from lib.evaluation import shown

folder = Path(lib.__file__).parents[1] / "research/results"
published = {
    file.stem: json.loads(file.read_text()) for file in sorted(folder.glob("*.json"), key=lambda file: file.stem)
}


def study_table(study):
    """Return one line a row and one column a reading of the labels: mean AUROC, interval, range over the seeds."""
    columns = {}
    for one in study["evaluations"]:
        name = f"{one['labels']}: {one['n_normal']} normal, {one['n_abnormal']} abnormal"
        columns[name] = {
            row: f"{shown(e['auroc'])} ({min(e['auroc']['seeds'].values()):.2f} to {max(e['auroc']['seeds'].values()):.2f})"
            for row, e in one["rows"].items()
        }
    columns["seeds"] = {row: ", ".join(e["auroc"]["seeds"]) for row, e in study["evaluations"][0]["rows"].items()}
    return pd.DataFrame(columns).rename_axis("AUROC [95 %] (seeds)")


for name, study in published.items():
    display(Markdown(f"**{name}**, {study['params']['image_size']} px"))
    display(study_table(study))

# %%
spent = {
    (name, method): {key.replace("_", " "): f"{budget[key]:,.0f}" for key in ("images_seen", "steps", "seconds")}
    for name, study in published.items()
    for method, budget in study["budgets"].items()
}
pd.DataFrame(spent).T.rename_axis(["runs", "method"])

# %% [markdown]
# Four questions follow. Each answer is computed from these files by a rule: a difference whose 95 % interval contains zero is
# called *not told apart*, and nothing is said of rows that were not run.

# %%
ORDER = {-1: "ranks below", 0: "is not told apart from", 1: "ranks above"}
against_ra = {name: study for name, study in published.items() if "ra" in study["budgets"]}
mains = {name: study for name, study in against_ra.items() if not name.endswith("-seconds")}


def differences(study, pairs):
    """Return those of the pairs that the first evaluation has, in this order."""
    there = {(d["first"], d["second"]): d for d in study["evaluations"][0]["differences"]}
    return [there[pair] for pair in pairs if pair in there]


def verdicts(found):
    """Say of each difference what its interval says."""
    lines = []
    for d in found:
        order = ORDER[(d["low"] > 0) - (d["high"] < 0)]
        by = f"{d['value']:+.3f} [{d['low']:+.3f}, {d['high']:+.3f}], seeds {', '.join(d['seeds'])}"
        lines.append(f"- *{d['first']}* {order} *{d['second']}*: {by}")
    return "\n".join(lines) or "Not run."


def forms(method):
    """Return the method's three scores."""
    return [method, f"{method}, chosen", f"{method}, combined"]


# %% [markdown]
# ### How much is the score, how much the training?
#
# AUROC by map and method, the mean over the three pools, both forms and the seeds, so that nothing is picked. A line is one map
# for all methods; the two of *ra encoder* look through RA's encoder at what others have reconstructed, too. If all the lines
# were alike the score would not matter; if all the columns were, the training would not. The squares of the deviations from the
# mean are split accordingly (two-way analysis of variance, lines without a gap): how far the columns' means lie apart, how far
# the lines' do, and the rest, which neither explains: which map suits which method, and chance.

# %%
for name, study in mains.items():
    by_score = pd.DataFrame(study["scores"])
    grid = by_score.groupby(by_score.index.str.partition(",").get_level_values(0), sort=False).mean()
    grid = grid[~grid.index.str.contains("vae encoder|kl|embedding")]
    display(Markdown(f"**{name}**, labels: {study['evaluations'][0]['labels']}"))
    display(shaded(grid))
    values = grid.dropna().to_numpy()
    whole = ((values - values.mean()) ** 2).sum()
    between = [len(values) * ((values.mean(axis=0) - values.mean()) ** 2).sum() / whole]
    between.append(values.shape[1] * ((values.mean(axis=1) - values.mean()) ** 2).sum() / whole)
    lines = [
        f"Of this table's variance {100 * between[0]:.0f} % lies between methods, {100 * between[1]:.0f} % between maps; "
        f"{100 * (1 - sum(between)):.0f} % is which map suits which method, and chance."
    ]
    rows = study["evaluations"][0]["rows"]
    for method in ("unet", "unet-denoising", "ra"):
        best = np.mean(list(study["oracle"][method].values()))
        primary, chosen = (rows[row]["auroc"]["value"] for row in (method, f"{method}, chosen"))
        lines.append(
            f"- *{method}*: {primary:.3f} by its mean residual, {chosen:.3f} by the score that was chosen without "
            f"labels, {best:.3f} by the best that labels could have picked"
        )
    display(Markdown("\n".join(lines)))

# %% [markdown]
# ### Does the reversed embedding loss matter?
#
# *si-vae* is RA without its reversed embedding loss; *vae* is RA without its game and so without that loss too. The networks,
# the images and their order are the same.

# %%
for name, study in mains.items():
    found = differences(study, [(a, b) for m in ("si-vae", "vae") for a, b in zip(forms(m), forms("ra"), strict=True)])
    display(Markdown(f"**{name}**\n\n{verdicts(found)}"))

# %% [markdown]
# ### Does a U-Net that cannot copy beat RA?
#
# At equal images seen and, in the lists whose names end in *seconds*, at equal seconds. The plain *unet*, which can copy,
# stands beside the others.

# %%
for name, study in against_ra.items():
    unets = [method for method in study["budgets"] if method.startswith("unet")]
    found = differences(study, [(a, b) for m in unets for a, b in zip(forms(m), forms("ra"), strict=True)])
    display(Markdown(f"**{name}**\n\n{verdicts(found)}"))

# %% [markdown]
# ### Does any of them beat frozen features?
#
# *knn* is the distance to the nearest training films in the features of a network that has seen photographs, and no X-ray, in
# its training. It needs no training of its own. Its stages and its five neighbours were chosen once, with labels, on pediatric
# training films; on the adult films nothing was chosen. Its features see films of the size that the methods see.

# %%
for name, study in published.items():
    found = differences(study, [(row, "knn") for method in study["budgets"] for row in forms(method)])
    above, below = ([d["first"] for d in found if sign * d[edge] > 0] for sign, edge in ((1, "low"), (-1, "high")))
    lines = [
        f"Of {len(found)} scores of trained methods, above the nearest neighbours: {len(above)} "
        f"({', '.join(above) or 'none'}); below: {len(below)}; not told apart: {len(found) - len(above) - len(below)}. "
        "The highest:",
        verdicts(sorted(found, key=lambda d: -d["value"])[:5]),
    ]
    display(Markdown(f"**{name}**\n\n" + "\n\n".join(lines)))

# %% [markdown]
# ### What others have published
#
# On other films, under other protocols: **not comparable** with the above, and with each other only where the protocol is the
# same.
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

# %% [markdown]
# ## So, what matters?
#
# Who ranks above whom in the published runs, one line a comparison, by the mean residual; how much is the score and how much
# the training is answered above. The figure holds the rows of the sets at equal images seen, one panel a set. A circle is the
# mean residual, or the only score of a row that makes no reconstructions; a square is the chosen score, a triangle the combined
# one; a bar is the 95 % interval, the small dots are the seeds. Ask first whether a bar crosses 0.5. Whether *ra* ranks above
# *unet-denoising* or *knn* the lines say, and not whether two bars overlap.

# %%
ASKED = {
    "RA against the U-Net": ("unet", "ra"),
    "the reversal": ("si-vae", "ra"),
    "the game and the reversal": ("vae", "ra"),
    "a U-Net that cannot copy": ("unet-denoising", "ra"),
    "frozen features": ("ra", "knn"),
}
for name, study in mains.items():
    lines = [f"- {what}: {verdicts(differences(study, [pair])).removeprefix('- ')}" for what, pair in ASKED.items()]
    display(Markdown(f"**{name}**\n\n" + "\n".join(lines)))

# %%
MARKERS = {"": "o", ", chosen": "s", ", combined": "^"}


def draw_rows(ax, rows):
    """Draw the AUROC of every row under its three scores, with intervals and seeds; return the highest row."""
    areas = {row: e["auroc"]["value"] for row, e in rows.items()}
    plain = sorted((row for row in rows if "," not in row), key=lambda row: max(areas.get(row + m, 0) for m in MARKERS))
    for y, row in enumerate(plain):
        shade = look(row)[0]
        for shift, (form, marker) in zip((0.2, 0, -0.2), MARKERS.items(), strict=True):
            if row + form in rows:
                e = rows[row + form]["auroc"]
                seeds = list(e.get("seeds", {}).values())
                ax.hlines(y + shift, e["low"], e["high"], color=shade, linewidth=1)
                ax.plot(seeds, [y + shift] * len(seeds), ".", color=shade, markersize=2)
                ax.plot(e["value"], y + shift, marker, color=shade, markersize=5)
    ax.axvline(0.5, color="0.6", linestyle=":")
    ax.set_yticks(range(len(plain)), plain, fontsize=8)
    ax.set(xlabel="AUROC")
    for form, marker in MARKERS.items():
        ax.plot([], [], marker, color="0.4", linestyle="", label=form.removeprefix(", ") or "mean residual")
    ax.legend(fontsize=8, frameon=False, loc="lower right")
    return max(areas, key=areas.__getitem__)


most = max((sum("," not in row for row in s["evaluations"][0]["rows"]) for s in mains.values()), default=1)
figure = Drawing(figsize=(10, 1.2 + 0.36 * most), layout="constrained")
for ax, (name, study) in zip(np.ravel(figure.subplots(1, max(1, len(mains)))), mains.items(), strict=False):
    rows = study["evaluations"][0]["rows"]
    highest = draw_rows(ax, rows)
    area = rows[highest]["auroc"]["value"]
    ax.set_title(f"{name}, {study['evaluations'][0]['labels']}: highest\n{highest}, {area:.2f}", fontsize=10)
run.save_figure(figure, "published")
