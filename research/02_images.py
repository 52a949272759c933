# %% [markdown] id="images"
# # What do the networks see, and what is kept from them?
#
# **Reads** `params`, `run`, `base`. **Leaves** `prepared`, with its `source`, `data`, `split` and `images`; `abnormal`,
# `origin`, `takes`; `trained` and `histories`, still empty.
#
# A result is only as good as its images, their labels and the split. So before anything is trained, this chapter
# shows where the images come from, what was wrong with any of them, and which of them are used for training,
# validation and test.

# %%
from lib.data.source import problem_counts
from lib.figures.images import image_grid
from lib.methods.method import Method
from lib.runs.prepare import prepare as prepare_images

prepared = prepare_images(params, base)
source, data, split, images = prepared.source, prepared.data, prepared.split, prepared.images
trained: dict[str, Method] = {}  # filled by chapters 3 to 5
histories: dict[str, list[dict[str, float]]] = {}
origin = SYNTHETIC if source.synthetic else f"images from {source.about['from']}"
display(Markdown(f"**{origin}.** {len(data.records):,} images, split `{split.hash}`."))
pd.DataFrame({"": source.about})

# %% [markdown]
# The row *labels* says how the labels were made and how wrong they may be: no result can be better than its labels.
# Anything marked *unverified* could not be checked when this notebook was written.
#
# ## What was wrong with the images
#
# Every file is checked once, before the split (shards, when they were written). The parameter `on_bad_image` decides
# what happens to a file that cannot be used: *skip* **leaves it out** and names it here, *stop* ends the run with the
# list. Images that look odd but can be used are named too. Nothing is dropped silently.

# %%
print(f"problems found: {len(data.problems):,}; {run.folder.name}/problems.csv lists them")
if len(data.problems):
    found = pd.Series(problem_counts(data.problems), name="images")
    display(found.rename_axis("what was found, and what became of it").to_frame())
    display(data.problems.groupby(data.problems["problem"].str.split(":").str[0], sort=False).head(3).head(10))

# %% [markdown]
# ## How the images are split
#
# Three rules hold:
#
# * Training and validation sets hold *normal* images only: normal by every set of labels that there is.
# * No patient whose identity is known is in two sets.
# * No image is in two sets. Exact duplicates (files equal in every byte) stay together, and so do near-duplicates: a
#   perceptual hash proposes a pair, and a correlation above 0.99 at 64 pixels confirms it.
#
# Labels are used here to keep abnormal images out of training, and then to choose images to show. Nothing that is
# trained or scored sees a label before the evaluation.
#
# The terms of the tables are these. A *finding* is what the label names, such as effusion. *label* is the data set's
# own label. *strict_label*, where there is one, comes from radiologists; an image that it calls *other_abnormal*
# counts as neither normal nor abnormal. The *view* is the direction of the beam. *PA* is from back to front, with the
# patient standing; *AP* is from front to back, with a portable machine at the bedside.

# %%
from lib.figures.records import counts_table, manifest_table, split_table

display(split_table(split))
for columns in (["label", "strict_label"], ["view", "sex"]):
    if known := [column for column in columns if column in data.records]:
        display(counts_table(split, known))
findings = counts_table(split, ["finding"])
run.save_table(findings, "findings-by-side")
display(findings.head(10), manifest_table(split))

# %% [markdown]
# The table of findings holds the ten that are most frequent in the test set; a *finding* that is not known was not
# given. The whole table is in the run folder, `tables/findings-by-side.csv`.
#
# The last table says what holds for the split. An image whose patient is unknown counts as a patient of its own. The row *patient separation* says for how many
# images nobody can verify that the sets are apart. An official test set is kept as it is. The table counts what it
# shares with the official training set, and training images that share a patient or an image with it are left out.
#
# ## How long will it take?
#
# The next cell times each kind of work on this machine and extrapolates. A copy of each method trains on a few
# batches of noise, 16 images are scored, and a hundred resamples are drawn. What is already trained is not trained
# again. Chapters 3 to 8 each begin with their own estimate; work that is not listed takes seconds.

# %%
from lib.runs.timing import expected_work

work = expected_work(params, prepared)
chapters = {"score": 5, "evaluate": 6, "seeds": 6, "audit": 7}
chapters |= {f"train {name}": 3 if name.startswith("unet") else 5 for name in params.methods}
chapters |= {f"train {name}": 4 for name in ("ra", "si-vae", "vae")}


def takes(chapter):
    """Print how long a chapter takes here."""
    minutes = sum(task.seconds for stage, task in work.items() if chapters[stage] == chapter) / 60 + 0.3  # figures
    print(f"This chapter takes {f'about {minutes:.0f} minutes' if minutes >= 1.5 else 'a minute or less'} here.")


if sum(task.seconds for task in work.values()) > 30 * 60:
    print("All chapters take more than half an hour: choose a GPU, or preset: quick for a first look.")
rows = sorted((chapters[stage], task.what, f"{task.seconds / 60:.1f}") for stage, task in work.items())
pd.DataFrame(rows, columns=["chapter", "work", "minutes, about"]).set_index(["chapter", "work"]).head(10)

# %% [markdown]
# If that is too long, choose a GPU (on Colab, *Runtime > Change runtime type*). For a first look, `preset: quick` asks for
# little, and `params/demo.yaml` shows a run of a few minutes.
#
# ## From file to tensor
#
# Each image is decoded once. A DICOM file is rescaled and windowed, and inverted if black and white are swapped. Then
# every image passes the same three steps, whatever its source did before:
#
# 1. Its grey values are stretched between two percentiles (`stretch`).
# 2. It becomes square: padded with black, or squashed (`square`).
# 3. It is resized with antialiasing to `image_size`.
#
# The result is stored as 8-bit grey in a memory-mapped file and becomes numbers in $[0, 1]$ on the device. The
# stretch is applied to every image because the sources of public data sets have stretched some images and not others.
#
# ## From tensor to batch
#
# With `augmentation` above 0, no training image is seen twice as it is. Each time it is
#
# - turned about its centre, by at most so many radians,
# - zoomed, the logarithm of the factor being at most that, and
# - shifted along either axis, by at most that share of the side.
#
# All are drawn evenly between minus and plus the setting, anew for every image and for every method alike. Validation
# and test images stay as they are. Nothing is mirrored: the heart has a side.
#
# Few images are soon learnt by heart. A VAE that saw the 866 normal training images of the pediatric set 120 times
# each had a mean residual of 0.0517 on validation images; with `augmentation: 0.05` it was 0.0508 (trials `p-vae` and
# `p-aug-vae` of `research/results/trials.csv`).

# %%
run.save_figure(image_grid(images.train[:16], columns=8), "normal")

# %% [markdown]
# These are *normal* images, the only kind that the networks learn from. The test set also holds abnormal ones, shown
# here with their findings:

# %%
abnormal = np.flatnonzero((split.test[params.label_column] == "abnormal").to_numpy())[:16]
titles = [(split.test["finding"][i] or "abnormal").replace("|", "\n") for i in abnormal]
run.save_figure(image_grid(images.test[abnormal], titles=titles, columns=8), "abnormal")

# %% [markdown]
# The difference is not always easy to see. Whether the networks see it is the question of chapter 6.
#
# **In short**, the networks learn from square grey images in $[0, 1]$, all of them normal. No known patient and no
# image is in two sets. Labels keep abnormal images out of training and choose images to show; no score depends on
# them. Where patients are unknown, *patient separation* says for how many images this cannot be verified.
