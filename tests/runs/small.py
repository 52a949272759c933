"""Small runs for the tests: settings, records, a split, images of noise, and finished runs with scores by chance."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from lib.data.dataset import Data, Sides, Split, split_records
from lib.data.source import problems_table
from lib.evidence.results import Budget, Choice, Results, Trained
from lib.evidence.seeds import FORMS
from lib.params import Params
from lib.runs.prepare import Prepared
from lib.runs.run import Run
from lib.runs.score import score_table

SMALL = {
    "methods": ["unet"],
    "source": "folder",
    "data_dir": "data",
    "image_size": 16,
    "widths": [4],
    "batch_size": 8,
    "epochs": 1,
    "ra_warmup_epochs": 0,
    "precision": "float32",
    "device": "cpu",
    "resamples": 100,
}
HISTORY = [{"epoch": 0, "network/total": 0.5, "seconds": 1.25}, {"epoch": 1, "network/total": 0.1 + 0.2, "seconds": 2}]
SIZE = 16


class NoSource:
    """A source without images or lesions: the images of a split are drawn below."""

    name, synthetic, about = "noise", False, {}
    records, problems = pd.DataFrame(), []

    def contents(self, ids):
        return iter(())

    def mask(self, image_id):
        return None


def params(**changes) -> Params:
    return Params(**SMALL | changes)


def records(**columns) -> pd.DataFrame:
    names = [f"image-{i}" for i in range(80)]
    kind = ["abnormal" if i % 4 == 3 else "normal" for i in range(80)]
    table = {"id": names, "label": kind, "finding": "", "split": "", "patient": names, "digest": names, "twin": names}
    return pd.DataFrame(table | columns)


def divided(seed: int = 0, **columns) -> Split:
    return split_records(records(**columns), validation_fraction=0.2, seed=seed)


def prepared(split: Split) -> Prepared:
    rng = np.random.default_rng(0)
    sides = (split.train, split.validation, split.test)
    images = Sides(*(rng.integers(0, 256, (len(side), SIZE, SIZE), dtype=np.uint8) for side in sides))
    data = Data(pd.concat(sides), images.train, problems_table([]))
    return Prepared(NoSource(), data, split, images, params(backbone="none"))


def finished(base: Path, name: str, methods: list[str], split: Split | None = None, seen: int = 640, **changes) -> Run:
    """A run that is scored, by chance: each method's scores depend on the run's name."""
    split = split or divided()
    run = Run.start(params(methods=methods, run_dir=name, **changes), base)
    rng = np.random.default_rng(sum(map(ord, name)))
    _, sides = prepared(split).by_side()
    budget = Budget(parameters=10, images_seen=seen, steps=20, multiply_adds=30, seconds=1.5)
    run.write_split(split)
    run.write_scores(
        score_table(sides, {method: {side: rng.random(len(of)) for side, of in sides.items()} for method in methods})
    )
    run.write_results(
        Results(
            split=split.hash,
            image_size=run.params.image_size,
            synthetic=False,
            score="mean absolute residual",
            patient_separation=split.manifest["patient_separation"],
            problems={},
            columns=methods,
            methods={method: Trained(run=run.folder.name, budget=budget) for method in methods},
            references=[],
            left_out={},
            localisation=None,
            choices={},
            copied={},
        )
    )
    run.finish()
    return run


def scored_images(base: Path, scores: dict[str, float], threshold: float = 0.5, **about) -> Path:
    """A folder as imgae-score writes it, of grey images with these scores by the method ra; `unlike` says of which."""
    folder, unlike = base / "out", about.pop("unlike", {})
    facts = {"model": "a-model", "hash_names": False, "promise": "A promise.", "unlike": "A rule."} | about
    facts |= {"thresholds": {"ra": threshold}, "ceilings": {"ra": 1.0}}
    table = pd.DataFrame({"image": list(scores), "ra": list(scores.values()), "ra, p": 0.5})
    for name in scores:
        for place, kind in ((f"images/{name}.png", "uint8"), (f"maps/ra/{name}.map.png", "uint16")):
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((SIZE, SIZE), kind)).save(folder / place)
    table.assign(unlike=[unlike.get(name, "") for name in scores]).to_csv(folder / "scores.csv", index=False)
    (folder / "about.json").write_text(json.dumps(facts))
    return folder


def scored(base: Path, name: str, methods: list[str], references: list[str] | None = None, **changes) -> Path:
    """The folder of a run that is scored, by chance, in all forms, as a study reads it."""
    run, names = finished(base, name, methods, **changes), [*methods, *(references or [])]
    rng, table, results = np.random.default_rng(run.params.seed), run.scores(), run.results()
    columns = [f"{method}{form}" for method in methods for form in FORMS.values()] + [*(references or [])]
    table = table.assign(**{column: rng.random(len(table)) for column in columns})
    run.write_scores(table)
    choice = Choice(epoch=run.params.epochs, score="residual, mean", combined=["residual, mean"])
    filled = {"columns": columns, "references": references or [], "choices": dict.fromkeys(names, choice)}
    run.write_results(results.model_copy(update=filled))
    rows = [{"method": one, "epoch": run.params.epochs if one in methods else 0} for one in names]
    candidates = pd.DataFrame(rows).assign(score="residual, mean", separation=0.5, own=True, auroc=0.5)
    candidates.to_csv(run.folder / "candidates.csv", index=False)
    return run.folder
