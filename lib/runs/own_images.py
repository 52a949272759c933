"""A reader's own images in the notebook: chosen in Colab or named, scored by the run's methods, and drawn."""

from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path

import numpy as np
from IPython.display import Markdown
from PIL import Image

from lib.environment import on_colab
from lib.figures.tables import scored_images
from lib.runs.layout import overlay_place
from lib.runs.model import open_model
from lib.runs.new_images import Asked, write_scores
from lib.runs.run import Run, RunError

Pictures = dict[str, dict[str, np.ndarray]]

FOLDER = "own-images"  # in the run's folder
SHOWN = 8  # images that are drawn


def own_images(run: Run, places: Sequence[str], *, upload: bool = False) -> tuple[list[object], Pictures]:
    """Score images without labels by a scored run; return what to display, and of the most anomalous the pictures.

    A picture is an image under a method's residual map, (height, width, 3) uint8, by image and by method with p-value.

    `places` are files and folders. With `upload`, Colab lets the reader choose files first. Scores, maps and what could
    not be used are in the run's folder, in `own-images`. RunError for an upload elsewhere than on Colab.
    """
    places = [*places, *(_uploaded(run.folder / FOLDER / "uploaded") if upload else [])]
    if not places:
        return [Markdown("No image is named: the cell scores those in `my_images`, or, on Colab, what you upload.")], {}
    if not run.params.methods:
        return [Markdown("This run trains no method, so that it can score nothing.")], {}
    folder = run.folder / FOLDER
    found = write_scores(open_model(str(run.folder)), places, Asked(), folder)
    shown: list[object] = [found.problems] if len(found.problems) else []
    if not len(found.table):
        return [*shown, Markdown("No image could be scored.")], {}
    methods = run.params.methods
    ranked = found.table.sort_values(f"{methods[0]}, p", kind="stable").head(SHOWN)
    pictures = {
        row["image"]: {
            f"{name}, p = {row[f'{name}, p']:.3f}": np.asarray(Image.open(folder / overlay_place(name, row["image"])))
            for name in methods
        }
        for row in ranked.to_dict("records")
    }
    says = Markdown(f"{found.about['promise']} {found.about['unlike']} {found.about['use'].capitalize()}.")
    return [*shown, scored_images(found.table, methods), says], pictures


def _uploaded(folder: Path) -> list[str]:
    if not on_colab():
        raise RunError("upload works on Colab only: name the files in my_images instead")
    from google.colab import files

    folder.mkdir(parents=True, exist_ok=True)
    before = {*folder.iterdir()}
    with chdir(folder):
        files.upload()  # writes into the working folder
    return [str(file) for file in sorted({*folder.iterdir()} - before)]
