# %% [markdown] id="limits"
# # Where does it fail?
#
# **Reads** `run`, `trained`, `figures`. **Leaves** nothing.
#
# An average hides its worst cases. The figures show them for each method that this run has trained, by rank and not
# by a threshold: the two abnormal images with the *lowest* scores (*missed*) and the two normal images with the
# *highest* (*false alarm*), with their reconstructions and residuals. The best cases (*found*, *passed*) are in the
# same figure. The first two other methods are shown for comparison.
#
# Look where the residual is bright. Inside the outline, the method has seen the lesion; elsewhere, a high score was
# right for another reason. A normal image may bear the name of a finding that was mined from its report: the
# radiologist disagreed.

# %%
takes(8)
for name in trained:
    display(Markdown(f"**{name}**"), figures[f"{name}-cases"])

# %% [markdown]
# **In short**, a method fails where the residual of an image that it *found* is brightest outside the outline, and
# where the residual of an image that it *missed* is no brighter inside the outline than elsewhere.
#
# ## What this cannot show
#
# * **Labels contain errors.** Labels mined from reports are noisy. In the adult set of the published runs
#   ([chapter 7](07_what_matters.py)), 27 of the 36 test images that a radiologist called normal carry an abnormal
#   mined label. Few images have a radiologist's label, so the intervals by these labels are wide.
# * **The images are small.** Where 64 pixels span 40 cm of chest, a nodule of 5 mm is less than one pixel wide.
# * **Normal means normal *here*.** An X-ray from another camera or another age group is anomalous to these networks
#   even if the patient is healthy.
# * **A residual is not a diagnosis.** It is high where the network is surprised, also by a cable, a letter or a
#   tilted patient.
# * **The phantoms are drawn by formulas.** What works on them has been shown to work on formulas.
#
# This is a research notebook. It is not a medical device.
#
# ## Your own image
#
# The next cell scores images without labels by the methods of this run. Name files or folders in `my_images` (JPEG,
# PNG, TIFF, DICOM), or tick `upload` in Colab to choose some, and run the cell. It shows the most anomalous first, each
# under the residual maps. A p-value is the image's rank among the normal calibration images. It means something only
# for images like those, so the column *unlike* says in what an image differs from them. All of it is kept in the run
# folder, in `own-images/`.

# %%
from lib.figures.images import overlays
from lib.runs.own_images import own_images

my_images: list[str] = []  # @param {"type":"raw"} # files or folders, such as ["/content/drive/MyDrive/chest.dcm"]
upload = False  # @param {"type":"boolean"} # on Colab: choose files
shown, pictures = own_images(run, my_images, upload=upload)
display(*shown)
if pictures:
    display(overlays(pictures))
