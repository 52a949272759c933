"""A mistyped path is told before any library is loaded, with what was found there and what was wanted."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lib.runs import places
from lib.runs.model import open_model
from lib.runs.places import FACTS, SETTINGS, PlaceError, check_export, check_folder, check_model, check_run

ROOT = Path(__file__).resolve().parents[2]
CALLS = """
import sys
from lib.runs import cli
score, export, models, film, file = cli.score_command, cli.export_command, *sys.argv[1:]
model = f"{models}/chest"
calls = [
    (score, "gone", film), (score, models, film), (score, film, model), (score, model, film, "gone.png"),
    (score, model, film, "--to", "new", "behind.png"), (score, model, film, "--to", f"{file}/out"),
    (export, model, "--to", "new"), (export, "gone", "--to", "new"),
]
for command, *words in calls:
    assert command(words) == 2, words
print({"torch", "numpy", "pandas", "pydantic"} & set(sys.modules))
"""


@pytest.fixture
def models(tmp_path) -> Path:
    """A folder with the folders of a model, of a run, and of neither."""
    for name, file in (("models/chest", FACTS), ("models/run", SETTINGS), ("models/notes", "notes.txt")):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / file).write_text("{}")
    return tmp_path / "models"


def test_a_mistyped_path_waits_for_no_library_and_is_told_in_one_line(models, tmp_path):
    (film := tmp_path / "film.png").write_bytes(b"")
    words = [sys.executable, "-c", CALLS, str(models), str(film), str(film)]
    where = {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": str(ROOT)}}
    done = subprocess.run(words, **where, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
    assert done.stderr.splitlines() == [
        "gone is no model: it does not exist; give the folder of a scored run, or one that imgae-export has written",
        f"{models} is no model: it has no model.json and no params.json; give the folder of a scored run, or one that "
        f"imgae-export has written, such as {models}/chest, {models}/run",
        f"{film} is no model: it is a file; give the folder of a scored run, or one that imgae-export has written",
        "gone.png does not exist: give files, folders or shards of images",
        "behind.png does not exist: give files, folders or shards of images",
        f"{film} is a file, and a folder was wanted there: choose another place with --to",
        f"{models}/chest is no run: it has no params.json; give the folder of an evaluated run",
        "gone is no run: it does not exist; give the folder of an evaluated run",
    ]


def test_a_misspelt_model_is_refused_with_those_beside_it_and_one_on_the_hub_is_not_looked_up(models):
    with pytest.raises(PlaceError, match=rf"chets is no model: it does not exist; .* {models}/chest, {models}/run$"):
        check_model(str(models / "chets"))
    with pytest.raises(PlaceError, match=rf"such as {models}/run$"):
        check_run(models)
    with pytest.raises(PlaceError, match="is no model"):
        open_model(str(models / "notes"))
    check_model("hf://owner/chest")


def test_a_folder_that_is_new_or_can_be_written_is_taken_and_another_is_refused(tmp_path, monkeypatch):
    for folder in (tmp_path, tmp_path / "new" / "deep", Path("new")):
        check_folder(folder)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(places.os, "access", lambda *_: False)  # root may write into any folder
    with pytest.raises(PlaceError, match=f"{tmp_path} cannot be written: make it writable, or choose another"):
        check_folder(tmp_path / "new" / "deep")


def test_an_export_goes_into_an_empty_folder_or_over_an_older_one(tmp_path):
    check_export(tmp_path)
    for name in ("model.json", "model.safetensors", "README.md", "reconstruct-ra.onnx"):
        (tmp_path / name).write_text("")
    check_export(tmp_path)
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(PlaceError, match=r"holds other files \(thesis.tex\): choose a new folder"):
        check_export(tmp_path)
