# %% [markdown]
# # Does a score see more than how bright an image is?
#
# **Reads** `images`, `trained`, `scored`, `run`. **Leaves** `brightness`.
#
# This is the template of a chapter: copy it, and put your own question in its place. Say first why the answer is
# open, and what would count as one. Here, a score that saw nothing but brightness would rank the images by their mean
# grey, and Spearman's correlation $\rho$ of the two would be 1 or −1.

# %%
from scipy.stats import spearmanr

from lib.figures.images import Drawing, look

brightness = np.asarray(images.test).mean(axis=(1, 2)) / 255
scores = scored.table[scored.table["side"] == "test"]
figure = Drawing(figsize=(4 * max(1, len(trained)), 3.4), layout="constrained")
for ax, name in zip(figure.subplots(1, max(1, len(trained)), squeeze=False)[0], trained, strict=False):
    ax.plot(brightness, scores[name], ".", color=look(name)[0])
    rho = spearmanr(brightness, scores[name]).statistic
    ax.set(xlabel="mean grey of the image", ylabel="score: mean residual", title=f"{name}: $\\rho$ = {rho:.2f}")
display(run.save_figure(figure, "brightness"))

# %% [markdown]
# The last figure answers the question. Say here what the answer is, and what it cannot show.
