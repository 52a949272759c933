# %% [markdown] id="images"
# # 2 What do the networks see, and who may see what?
#
# **Reads** `params`. **Leaves** `source`, `data`, `split`, `images`, `abnormal`; `trained` and `histories`, still empty.
#
# A result can only be as true as its films, their labels and its split. So before anything is trained: where the films come
# from, what was wrong with any of them, and who stands on which side.

# %%
from lib.dataset import load_data
from lib.figures import image_grid
from lib.method import Method
from lib.source import problem_counts
from lib.sources import open_source

source = open_source(params, base)
data = load_data(source, params)
split = data.split(params)
images = data.sides(split)
trained: dict[str, Method] = {}  # the method chapters fill these
histories: dict[str, list[dict[str, float]]] = {}
origin = SYNTHETIC if source.synthetic else f"images from {source.about['from']}"
display(Markdown(f"**{origin}.** {len(data.records):,} images, split `{split.hash}`."))
pd.DataFrame({"": source.about})

# %% [markdown]
# The line *labels* says how they were made and how wrong they may be: no result can be better than they are. What is marked
# *unverified* could not be checked when this notebook was written.
#
# ## What was wrong
#
# Every file is looked at once, before the split (of shards: when they were written). What cannot be used is **left out** and named here, if the parameter
# `on_bad_image` says *skip*; if it says *stop*, the run ends with the list. What looks odd but can be used is named too:
# nothing is dropped in silence.

# %%
print(f"{len(data.problems):,} problems; each is named in {run.folder.name}/problems.csv")
if len(data.problems):
    display(
        pd.DataFrame({"images": problem_counts(data.problems)}).rename_axis("what was found, and what became of it")
    )
    display(data.problems.groupby(data.problems["problem"].str.split(":").str[0], sort=False).head(3))

# %% [markdown]
# ## Who stands on which side
#
# Three rules hold. Training and validation hold *normal* images only: normal by every reading that there is. No patient whose
# identity is known stands on two sides. Nor does a film: exact duplicates (files equal in every byte) stay together, and so
# do near-duplicates (a perceptual hash nominates a pair, a correlation above 0.99 at 64 pixels decides). Labels are used here
# to keep abnormal images out of training, and then to choose films to look at; nothing that is trained or scored sees one
# before the evaluation.

# %%
sides = {"train": split.train, "validation": split.validation, "test": split.test}


def counts(column):
    """Return how often each word of a column occurs on each side."""
    words = {side: records[column].replace("", "not known").value_counts() for side, records in sides.items()}
    return pd.DataFrame(words).fillna(0).astype(int).sort_values("test", ascending=False)


def ages(records):
    """Return the ages that are known: their 5th, 50th and 95th percentile, and of how many images."""
    known = pd.to_numeric(records["age"], errors="coerce").dropna()
    low, middle, high = known.quantile([0.05, 0.5, 0.95]) if len(known) else [0] * 3
    return f"{low:.0f} – {middle:.0f} – {high:.0f} ({len(known):,})" if len(known) else "not known"


overview = {
    name: {
        "images": f"{len(records):,}",
        "known patients": f"{split.manifest['known_patients'][name]:,}",
        "images without a patient": f"{(records['patient'] == '').sum():,}",
        "age: 5 % – median – 95 % (images)": ages(records),
    }
    for name, records in sides.items()
}
display(pd.DataFrame(overview))
columns = [name for name in ("label", "strict_label", "view", "sex") if name in data.records]
display(pd.concat({column: counts(column) for column in columns}))
display(counts("finding").rename(index={"not known": "none given"}).head(20))

# %%
facts = {name: value for name, value in split.manifest.items() if name not in ("sides", "images", "known_patients")}
pd.DataFrame({"value": {name.replace("_", " "): str(value) for name, value in facts.items()}})

# %% [markdown]
# Where a film's patient is not known it counts as a patient of its own, and the line *patient separation* says for how many
# films nobody can verify that the sides are apart. An official test side is kept as it is; what it shares with the official
# training side is counted above, and training images that share a patient or a film with it are left out.
#
# ## From file to tensor
#
# Each image is decoded once (a DICOM file with its rescaling and its window, inverted where white and black are swapped).
# Then the same happens to every film, whatever its source did before: its grey is stretched between two percentiles
# (`stretch`), it becomes square by padding with black or by squashing (`square`), and it is resized with antialiasing to
# `image_size`. The result is kept as 8-bit grey in a memory-mapped file and becomes a number in $[0, 1]$ on the device. The
# stretch is the same for every film, because parts of public sets have been stretched by their sources and parts have not.
# Nothing is mirrored, not even for augmentation: the heart has a side.

# %%
run.save_figure(image_grid(images.train[:16], columns=8), "normal")

# %% [markdown]
# Those were *normal* images, which is all that the networks will learn from. The test side also holds these:

# %%
abnormal = np.flatnonzero((split.test[params.label_column] == "abnormal").to_numpy())[:16]
titles = [(split.test["finding"][i] or "abnormal").replace("|", "\n") for i in abnormal]
run.save_figure(image_grid(images.test[abnormal], titles=titles, columns=8), "abnormal")

# %% [markdown]
# If you did not find the difference easy to see: neither do the networks.
#
# ## How long will it take?
#
# With these parameters, on this machine: a few batches of each method were just trained on noise, by a copy, and timed.
# What is trained already is not trained again. Scoring (chapter 5) then looks at every validation and test film once for every
# method and kept epoch, and shows its progress; all other chapters take seconds, or a minute or two where they resample.

# %%
from lib.arms import ARMS
from lib.training import choose_device, expected_seconds

size, batches = params.image_size, len(split.train) // params.batch_size
chapters = {
    "unet": "3 U-Net",
    "ra": "4 Reversed Autoencoder",
    "si-vae": "4 Reversed Autoencoder",
    "vae": "4 Reversed Autoencoder",
}
takes = {}
for name in params.methods:
    here = params.batch_size, batches, params.epochs, choose_device(params.device)
    seconds = expected_seconds(ARMS[name](params), size, *here)
    chapter = chapters.get(name, chapters["unet"] if name.startswith("unet") else "5 scores")
    takes[name] = {
        "trains in chapter": chapter,
        "batches": f"{batches * params.epochs:,}",
        "minutes, about": f"{seconds / 60:.1f}",
    }
pd.DataFrame(takes).T.rename_axis("method")

# %%
if sum(float(of_method["minutes, about"]) for of_method in takes.values()) > 30:
    print("that is long: on Colab choose a GPU (Runtime > Change runtime type)")
    print("for a first look write, as params/demo.yaml does: phantom_images = 800, image_size = 64, batch_size = 16,")
    print("widths = [8, 16, 32, 64], latent_dim = 64, epochs = 10, ra_beta_kl = 0.25, ra_warmup_epochs = 4,")
    print("resamples = 1000")
