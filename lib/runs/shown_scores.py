"""Images that imgae-score has scored -> what a gallery shows of them; nothing here needs torch."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from lib.evidence.results import method_of
from lib.figures.compact import shares
from lib.runs.layout import ABOUT, SCORES, map_place, picture_place
from lib.runs.shown import Panels, Score, Shown, finite, records_of
from lib.runs.status import RunError


def shown_scores(folder: Path) -> Shown:
    """Return what there is to show of a folder of scores.

    Raises:
        RunError: The folder is damaged, or another version has written it.

    """
    remedy = "score the images again into a new folder, with imgae-score MODEL PATH --to FOLDER"
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        table = pd.read_csv(folder / SCORES, keep_default_na=False, dtype={"image": str})
        thresholds, ceilings = about["thresholds"], about["ceilings"]
        scores = [
            Score(column, finite(table[column]), value, p=table[f"{column}, p"].tolist())
            for column, value in thresholds.items()
        ]
        table = table.rename(columns={"image": "name"})
        sentences = [
            f"The {len(table):,} images in {folder.resolve().name}, scored by the model {about['model']}. They have no "
            "labels: how many of those called abnormal are abnormal is not known.",
            *(about["promise"], about["unlike"]),
        ]
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

    return Shown(about["model"], sentences, records_of(table), scores, ceilings, panels)


def _opened(file: Path) -> np.ndarray:
    with Image.open(file) as picture:
        return np.asarray(picture)
