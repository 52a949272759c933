"""The models that come with the repository take little room, need no training to score, and name no place or person."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from lib.data.phantom import radiograph
from lib.runs.model import open_model
from lib.runs.new_images import score_new
from lib.runs.places import CARD, FACTS, WEIGHTS

ROOT = Path(__file__).resolve().parents[1]
MODELS = sorted(folder for folder in (ROOT / "models").iterdir() if folder.is_dir())


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    """A chest that is drawn by formulas, narrower than high, and so unlike those that the models know."""
    file = tmp_path_factory.mktemp("films") / "film.png"
    Image.fromarray(np.round(radiograph(0, size=512).image[:, 56:456] * 255).astype(np.uint8)).save(file)
    return file


def test_together_they_take_less_than_4_megabytes():
    assert MODELS
    assert sum(file.stat().st_size for file in (ROOT / "models").rglob("*") if file.is_file()) < 4e6


@pytest.mark.parametrize("folder", MODELS, ids=lambda folder: folder.name)
def test_a_film_is_scored_by_its_distance_from_the_reconstruction_and_told_to_be_unlike(folder, film):
    model, found = open_model(str(folder)), score_new(str(folder), [str(film)])
    with Image.open(film) as opened:
        prepared = model.preparation.image(np.asarray(opened))
    [(name, versions)] = model.versions.items()
    image = torch.from_numpy(prepared)[None, None] / 255
    with torch.no_grad():
        residual = (versions[max(versions)].eval().reconstruct(image) - image).abs()
    [row] = found.table.to_dict("records")
    assert row[name] == pytest.approx(residual.mean().item(), rel=1e-4)
    assert row["unlike"] == "width / height" and len(found.problems) == 0


@pytest.mark.parametrize("folder", MODELS, ids=lambda folder: folder.name)
def test_it_holds_no_place_of_a_machine_and_its_card_says_what_its_images_may_be_used_for(folder):
    with safe_open(folder / WEIGHTS, "numpy") as file:
        texts = [*(file.metadata() or {}).values(), *((folder / name).read_text("utf-8") for name in (FACTS, CARD))]
    for word in ("/home", "/work", "/root", "/tmp", "C:\\"):
        assert not any(word in text for text in texts)
    assert "licence: not stated" not in texts[-1]
