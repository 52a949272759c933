# %% [markdown] id="images"
# # 2 What do the networks see, and who may see what?
#
# **Reads** `params`. **Leaves** `source`, `split`, `images`, `abnormal`; `trained` and `histories`, still empty.
#
# A result can only be as true as its split. Three rules hold: training and validation hold *normal* images only; no
# patient whose identity is known stands on two sides; exact duplicates (files equal in every byte) stay together. Labels are
# used here to keep abnormal images out of training, and then to choose films to look at; nothing that is trained or scored
# sees one before the evaluation.

# %%
from lib.dataset import load_sides, split_records
from lib.figures import image_grid
from lib.sources import open_source

source = open_source(params, base)
split = split_records(
    source.records, validation_fraction=params.validation_fraction, seed=params.seed, labels=params.labels
)
trained, histories = {}, {}  # the method chapters fill these
origin = SYNTHETIC if source.synthetic else f"images from {source.folder.name}"
display(Markdown(f"**{origin}.** {len(source.records):,} records, split `{split.hash}`."))

# %%
sides = {"train": split.train, "validation": split.validation, "test": split.test}
overview = pd.DataFrame(
    {
        name: {
            "images": len(side),
            "known patients": split.manifest["known_patients"][name],
            **{f"{params.labels}: {label or 'none'}": n for label, n in side[params.labels].value_counts().items()},
        }
        for name, side in sides.items()
    }
).T.astype("Int64")
display(overview.fillna(0))
facts = {name: value for name, value in split.manifest.items() if name not in ("sides", "images", "known_patients")}
pd.DataFrame({"value": {name.replace("_", " "): str(value) for name, value in facts.items()}})

# %% [markdown]
# Where a film's patient is not known it counts as a patient of its own, and the line *patient separation* says for how many
# films nobody can verify that the sides are apart. An official test side is kept as it is; what it shares with the official
# training side is counted above, and training images that share a patient with it are left out.
#
# ## From file to tensor
#
# Each image is decoded once, stretched between its 1st and 99th percentile, padded with black to a square and resized with
# antialiasing to `image_size`; it is kept as 8-bit grey on disk and becomes a number in $[0, 1]$ on the device. The stretch
# is the same for every film, because parts of public sets have been stretched by their sources and parts have not.

# %%
images = load_sides(source, split, params.image_size)
run.save_figure(image_grid(images.train[:16], columns=8), "normal")

# %% [markdown]
# Those were *normal* images, which is all that the networks will learn from. The test side also holds these:

# %%
abnormal = np.flatnonzero((split.test[params.labels] == "abnormal").to_numpy())[:16]
titles = [(split.test["finding"][i] or "abnormal").replace("|", "\n") for i in abnormal]
run.save_figure(image_grid(images.test[abnormal], titles=titles, columns=8), "abnormal")

# %% [markdown]
# If you did not find the difference easy to see: neither do the networks. How the labels were made, and how wrong they may be,
# is part of the data ([chapter 8](08_limits.py)).
