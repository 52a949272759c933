"""A run's model -> a folder that can be handed on: weights, settings, what its scores need, and a card.

The weights and arrays are a safetensors file, which holds no code. No path or name of this machine is written.
"""

from pathlib import Path

from lib.evidence.evaluation import FALSE_ALARM_RATE
from lib.files import digest, replacing, write_json
from lib.params import project_root
from lib.privacy import public
from lib.runs.card import card
from lib.runs.fitted import pack, write_tensors
from lib.runs.model import CARD, FACTS, USE, VERSION, WEIGHTS, open_model, weights
from lib.runs.run import Run, RunError


def export_model(run: Path, to: Path) -> None:
    """Write the model of an evaluated run into a folder that is new, empty, or holds an older export.

    Raises:
        RunError: The folder holds other files, or the run has not been evaluated.

    """
    ours = {WEIGHTS, FACTS, CARD}
    if to.is_dir() and (others := sorted({file.name for file in to.iterdir()} - ours)):
        raise RunError(f"{to} holds other files ({', '.join(others[:3])}): choose a new folder")
    model, results = open_model(str(run)), Run.open(run).results()
    if results.claims is None:
        raise RunError(f"{run} has not been evaluated to its end: imgae-evaluate {run}")
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
    with replacing(to / CARD) as out:
        out.write(card(model, results).encode())
