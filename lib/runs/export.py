"""A run's model -> a folder that can be handed on: weights, settings, what its scores need, and a card.

The weights and arrays are a safetensors file, which holds no code. No path or name of this machine is written.
"""

from pathlib import Path

import numpy as np

from lib.data.phantom import radiograph
from lib.data.preparation import Preparation
from lib.evidence.evaluation import FALSE_ALARM_RATE
from lib.files import digest, replacing, write_json
from lib.params import project_root
from lib.privacy import public
from lib.runs.card import Rounding, card
from lib.runs.fitted import pack, write_tensors
from lib.runs.model import USE, VERSION, Model, open_model, weights
from lib.runs.onnx_file import check_installed, onnx_file, onnx_place, said
from lib.runs.places import CARD, FACTS, GRAPHS, WEIGHTS, check_export, check_run
from lib.runs.run import Run, RunError
from lib.scores.conformal import ranks_within

CHECKED = 32  # images
MOST = 0.01  # change of a primary score by rounding, in standard deviations of the calibration scores


def export_model(run: Path, to: Path, *, primary: bool = False, half: bool = False, onnx: bool = False) -> None:
    """Write the model of an evaluated run into a folder that is new, empty, or holds an older export.

    `primary`: what the primary scores need, alone. `half`: the same with weights rounded to 16 bits; a combined score
    is made of ranks and would change too much. `onnx`: also each method's reconstruction as an ONNX file.

    Raises:
        PlaceError: There is no run, or the folder holds other files or cannot be written.
        RunError: The run has not been evaluated, rounding would change a primary score by more than `MOST`, a package
            for ONNX is missing, or an ONNX file does not redraw as the method does.

    """
    check_run(run)
    check_export(to)
    if onnx:
        check_installed()
    model, results = open_model(str(run)), Run.open(run).results()
    if results.claims is None:
        raise RunError(f"{run} has not been evaluated to its end: imgae-evaluate {run}")
    exact = model = model.primary_alone() if primary or half else model
    rounding = None
    if half:
        model = exact.rounded()
        rounding = _compared(exact, model)
    files = _graphs(model) if onnx else {}
    tensors, facts = pack(model.fitted)
    write_tensors(weights(model.versions) | tensors, facts, to / WEIGHTS)
    settings = model.params.model_copy(update={"run_dir": "", "keep_in": ""}).model_dump()
    content = {
        "version": VERSION,
        "name": model.name,
        "identity": model.identity,
        "sha256": digest(to / WEIGHTS),
        "use": USE,
        "split": results.split,
        f"thresholds at a false alarm rate of {FALSE_ALARM_RATE:.0%}": model.thresholds(FALSE_ALARM_RATE),
        "calibration": {
            name: {form: scores.tolist() for form, scores in fit.calibration.items()}
            for name, fit in model.fitted.fits.items()
        },
        "settings": public(settings, project_root(), model.params.places),
    }
    write_json(to / FACTS, content)
    files[CARD] = card(model, results, rounding, onnx=onnx).encode()
    for older in {*to.glob(GRAPHS)} - {to / name for name in files}:
        older.unlink()
    for name, data in files.items():
        with replacing(to / name) as out:
            out.write(data)


def _drawn(preparation: Preparation) -> np.ndarray:
    """Return normal chests drawn by formulas, (`CHECKED`, size, size) uint8, because a run's images may be gone."""
    return np.stack([preparation.image(radiograph(patient).image) for patient in range(CHECKED)])


def _graphs(model: Model) -> dict[str, bytes]:
    """Return the ONNX file of each method after its last epoch, by name."""
    images = _drawn(model.preparation)
    return {
        onnx_place(name): onnx_file(versions[max(versions)], images, said(model, name))
        for name, versions in model.versions.items()
    }


def _compared(exact: Model, rounded: Model) -> Rounding:
    """Return how far rounding moves the primary scores of drawn images, and with them p-values."""
    images = _drawn(exact.preparation)
    before, after = (
        {name: scorer(images).scores["primary"] for name, scorer in model.scorers(primary_only=True).items()}
        for model in (exact, rounded)
    )
    shares, ranks = [], []
    for name, fit in exact.fitted.fits.items():
        known = fit.calibration["primary"]
        difference = float(np.abs(after[name] - before[name]).max())
        shares.append(difference / max(float(known.std()), np.finfo(float).tiny))
        if not shares[-1] <= MOST:
            raise RunError(
                f"with weights of 16 bits the primary score of {name} changes by up to {shares[-1]:.2g} standard "
                f"deviations of its calibration scores; at most {MOST:g} is allowed: export without --half"
            )
        ranks.append(ranks_within(known, difference))
    return Rounding(len(images), max(shares), max(ranks))
