# %% [markdown] id="limits"
# # 8 Where does it fail?
#
# **Reads** `params`, `run`, `trained`, `test`, `scored`, `images`. **Leaves** nothing.
#
# An average hides its worst cases. These are, by rank and not by a threshold, the two abnormal films with the *lowest* scores
# (missed) and the two normal ones with the *highest* (false alarms), for each method that this run has trained, with their
# reconstructions and error maps; the best cases (*found*, *passed*) are rows of the same figure. A normal film may bear the
# name of a finding that was mined from its report: the radiologist disagreed. Look where the residual is bright. Inside the
# outline the method has seen the lesion; elsewhere a high score was right for another reason. Beside a method stand the first
# two others.

# %%
from lib.figures import cases

takes(8)
for name in trained:
    display(Markdown(f"**{name}**"))
    figure = cases(images.test, scored.reconstructed, test, name, params.label_column, scored.lesions)
    display(run.save_figure(figure, f"{name}-cases"))

# %% [markdown]
# **So**: a method fails where the residual of a film that it *found* is brightest outside the outline, and where that of one
# that it *missed* is as dark inside as elsewhere.
#
# ## What this cannot show
#
# * **Labels are wrong.** Labels mined from reports are noisy: in the adult set of the published runs ([chapter 7](07_what_matters.py)),
#   27 of the 36 test films that a radiologist called normal carry an abnormal mined label. Radiologists' readings exist for
#   few films, so their intervals are wide.
# * **The films are small.** Where 64 pixels span 40 cm of chest, a nodule of 5 mm is less than one pixel wide.
# * **Normal means normal *here*.** A film from another camera or another age group is anomalous to these networks without
#   being ill.
# * **A residual is not a diagnosis.** It is high where the network is surprised, also by a cable, a letter or a tilted patient.
# * **The phantoms are drawn by formulas.** What works on them has been shown to work on formulas.
#
# This is a research notebook. It is not a medical device.
