"""Images that imgae-score has scored, and perhaps their labels -> what a gallery shows; nothing here needs torch."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from lib.evidence.results import method_of
from lib.figures.compact import shares
from lib.runs.labelled import labels_of, with_aurocs
from lib.runs.layout import ABOUT, SCORES, map_place, picture_place
from lib.runs.shown import Panels, Score, Shown, by_label, finite, records_of
from lib.runs.status import RunError

UNLABELLED = "They have no labels: how many of those called abnormal are abnormal is not known."
LABELLED = (
    "The first threshold comes from the model's calibration images, and from no label here; one that is moved until "
    "the numbers please is chosen with the labels.",
    "The numbers hold only if the model was trained on none of these images, which is not known here.",
)


def shown_scores(folder: Path, labels: Path | None = None) -> Shown:
    """Return what there is to show of a folder of scores, with the labels of a table if there is one.

    Raises:
        RunError: The folder is damaged, or another version has written it; or the table is not of these images.
        SourceError: The table cannot be used.

    """
    remedy = "score the images again into a new folder, with imgae-score MODEL PATH --to FOLDER"
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        table = pd.read_csv(folder / SCORES, keep_default_na=False, dtype={"image": str})
        thresholds, ceilings, hashed = about["thresholds"], about["ceilings"], about["hash_names"]
        scores = [
            Score(column, finite(table[column]), value, p=table[f"{column}, p"].tolist())
            for column, value in thresholds.items()
        ]
        table = table.rename(columns={"image": "name"})
        which = f"The {len(table):,} images in {folder.resolve().name}, scored by the model {about['model']}"
        promises = [about["promise"], about["unlike"]]
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{folder} is damaged, or another version has written it ({error!r}): {remedy}") from None
    methods = list(dict.fromkeys(map(method_of, thresholds)))

    def panels(i: int) -> Panels:
        name = table["name"][i]
        if not (folder / picture_place(name)).is_file():
            name = name.removeprefix("'")  # which scores.csv has before what a spreadsheet would take for a formula
        places = {method: map_place(method, name) for method in methods}
        try:
            maps = {method: _opened(folder / place) / 65535 for method, place in places.items()}
            image = _opened(folder / picture_place(name))
        except FileNotFoundError as error:
            raise RunError(f"{error.filename} is not there: {remedy}, and without --no-maps") from None
        return Panels(image, {method: shares(of, ceilings[method]) for method, of in maps.items()}, {})

    shown = Shown(about["model"], [f"{which}. {UNLABELLED}", *promises], records_of(table), scores, ceilings, panels)
    if labels is None:
        return shown
    known, remarks = labels_of(table["name"], labels, hashed=hashed)
    return replace(
        shown,
        sentences=[f"{which}: {by_label(Counter(known['label']), labels.name)}", *LABELLED, *promises],
        records=records_of(table.assign(**known[["label", "finding", "view"]])),
        scores=with_aurocs(scores, known),
        labelled=True,
        remarks=remarks,
    )


def _opened(file: Path) -> np.ndarray:
    with Image.open(file) as picture:
        return np.asarray(picture)
