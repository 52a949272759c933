# %% [markdown] id="images"
# # 2 What do the networks see, and who may see what?
#
# **Reads** `params`, `run`, `base`. **Leaves** `source`, `data`, `split`, `images`, `abnormal`, `origin`, `takes`;
# `trained` and `histories`, still empty.
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
# Every file is looked at once, before the split (of shards: when they were written). What cannot be used is **left out** and
# named here, if the parameter `on_bad_image` says *skip*; if it says *stop*, the run ends with the list. What looks odd but can
# be used is named too: nothing is dropped in silence.

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
#
# The words of the tables: a *finding* is what the label names, such as effusion. *label* is the set's own reading;
# *strict_label*, where there is one, that of radiologists, and a film that is *other_abnormal* by it counts as neither normal
# nor abnormal. The *view* is the beam's way through the chest: *PA*, from the back, the patient standing; *AP*, from the front,
# by a portable apparatus at the bedside.

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

# %% [markdown]
# ## How long will it take?
#
# The next cell tries each kind of work on this machine and multiplies: a copy of each method trains on a few batches of noise,
# 16 films are scored, a hundred resamples are drawn. What is trained already is not trained again. Chapters 3 to 9 each begin
# with their sum.

# %%
import time

from lib.arms import ARMS
from lib.dataset import to_unit
from lib.judging import feature_distances
from lib.scoring import anomaly_maps, describe
from lib.training import choose_device, expected_seconds
from lib.uncertainty import bootstrap


def quickest(work):
    """Return how many seconds the quicker of two calls takes."""
    starts = [time.perf_counter()]
    for _ in range(2):
        work()
        starts.append(time.perf_counter())
    return min(np.diff(starts))


def reckoned():
    """Return what each chapter has to do, and about how many seconds that takes here."""
    device, batches = choose_device(params.device), len(split.train) // params.batch_size
    here = params.image_size, params.batch_size, batches, params.epochs, device
    training = {name: expected_seconds(ARMS[name](params), *here) for name in params.methods}
    chapter = {name: 3 if name.startswith("unet") else 4 if name in ("ra", "si-vae", "vae") else 5 for name in training}

    some, tested = to_unit(images.validation[:16], torch.device("cpu")), np.arange(len(split.test))
    _, distances = feature_distances(params, {}, device)
    with torch.no_grad():
        described = describe(some, distances)
        maps = quickest(lambda: anomaly_maps(described, describe(some, distances), distances))
    films = len(split.test) + 2 * len(split.validation)  # the half that has painted copies is looked at three times
    kept = -(-params.epochs // params.choose_every) if params.choose_every else 1
    times = len(training) * kept + 2
    resampled = quickest(lambda: bootstrap(tested[None] % 7, tested % 2 == 0, tested, 100)) * params.resamples / 100

    return {
        **{n: {f"training of {name}": training[name] for name in training if chapter[name] == n} for n in (3, 4)},
        5: {f"training of {name}": training[name] for name in training if chapter[name] == 5}
        | {f"scoring of {films:,} films, {times} times": maps / len(some) * films * times},
        6: {f"{params.resamples:,} resamples of every score": resampled * (5 * len(training) + len(params.references))},
        7: {f"{params.resamples:,} resamples of every check": resampled * 40 * len(training)},
        8: {},
        9: {},
    }


work = reckoned()


def takes(chapter):
    """Say how long a chapter takes."""
    minutes = sum(work.get(chapter, {}).values()) / 60 + 0.3  # figures
    print(f"This chapter takes {f'about {minutes:.0f} minutes' if minutes >= 1.5 else 'a minute or less'} here.")


pd.DataFrame(
    [(chapter, what, f"{seconds / 60:.1f}") for chapter, of in work.items() for what, seconds in of.items()],
    columns=["chapter", "work", "minutes, about"],
).set_index(["chapter", "work"])

# %%
if sum(seconds for of in work.values() for seconds in of.values()) > 30 * 60:
    print("that is long: on Colab choose a GPU (Runtime > Change runtime type)")
    print("for a first look write, as params/demo.yaml does: phantom_images = 800, image_size = 64, batch_size = 16,")
    print("widths = [8, 16, 32, 64], latent_dim = 64, epochs = 10, ra_beta_kl = 0.25, ra_warmup_epochs = 4,")
    print("resamples = 1000")

# %% [markdown]
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
# Those were *normal* images, which is all that the networks will learn from. The test side also holds these, with their findings:

# %%
abnormal = np.flatnonzero((split.test[params.label_column] == "abnormal").to_numpy())[:16]
titles = [(split.test["finding"][i] or "abnormal").replace("|", "\n") for i in abnormal]
run.save_figure(image_grid(images.test[abnormal], titles=titles, columns=8), "abnormal")

# %% [markdown]
# The difference is not always easy to see. Whether the networks see it is chapter 6's question.
#
# **So** the networks learn from square grey films in $[0, 1]$, all of them normal. No known patient and no film stands on two
# sides. Labels keep ill films out of training and choose films to look at; no score depends on one. Where patients are not
# known, the line *patient separation* says of how many films this cannot be verified.
