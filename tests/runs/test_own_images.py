"""The reader's own images in the notebook: they get the scores of the command, and what cannot be done is said."""

import sys
from types import ModuleType

import numpy as np
import pytest

from lib.figures.images import overlays
from lib.runs.new_images import score_new
from lib.runs.own_images import own_images
from lib.runs.run import Run, RunError


@pytest.fixture
def colab(monkeypatch):
    """Colab's upload, by which the reader chooses files of these names and contents."""
    chosen: dict[str, bytes] = {}
    files = ModuleType("google.colab.files")

    def upload() -> dict[str, bytes]:
        for name, content in chosen.items():
            with open(name, "wb") as file:  # into the working folder, as Colab does
                file.write(content)
        return chosen

    files.upload = upload
    package = ModuleType("google.colab")
    package.files = files
    for name, module in {"google.colab": package, "google.colab.files": files}.items():
        monkeypatch.setitem(sys.modules, name, module)
    return chosen


def text(shown: list[object]) -> str:
    return "\n".join(getattr(one, "data", str(one)) for one in shown)


def test_named_images_are_scored_as_by_the_command_and_drawn_the_most_anomalous_first(small_run, films):
    shown, pictures = own_images(Run.open(small_run), [str(films)])
    table = shown[0]
    expected = score_new(str(small_run), [str(films)]).table
    assert table[table["method"] == "ra"]["score"].astype(float).tolist() == pytest.approx(expected["ra"], abs=1e-4)
    ranked = expected.sort_values("unet, p", kind="stable").head(8)
    assert list(pictures) == ranked["image"].tolist()
    p_values = [[f"{name}, p = {row[f'{name}, p']:.3f}" for name in ("unet", "ra")] for _, row in ranked.iterrows()]
    assert [list(of_image) for of_image in pictures.values()] == p_values
    assert all(picture.shape == (32, 32, 3) for of_image in pictures.values() for picture in of_image.values())
    assert "not for diagnosis" in text(shown).lower()


def test_files_that_are_chosen_on_colab_are_scored_and_a_broken_one_is_named(small_run, films, colab, tmp_path):
    good = sorted(films.iterdir())[0]
    colab |= {"mine.pgm": good.read_bytes(), "broken.png": b"\x89PNG\r\n\x1a\n"}
    run = Run.open(small_run)
    shown, _ = own_images(run, [], upload=True)
    assert shown[0]["image"].tolist() == ["broken.png"]
    again, _ = own_images(run, [str(run.folder / "own-images" / "uploaded" / "mine.pgm")])
    assert shown[1].loc[shown[1]["method"] == "ra", "score"].iloc[0] in set(again[0]["score"])


def test_without_images_it_says_what_to_do_and_an_upload_elsewhere_is_refused(small_run):
    assert "my_images" in text(own_images(Run.open(small_run), [])[0])
    with pytest.raises(RunError, match=r"upload works on Colab only: name the files in my_images instead"):
        own_images(Run.open(small_run), [], upload=True)


def test_images_of_another_size_stand_side_by_side():
    pictures = {name: {"a": np.zeros((size, 20, 3), np.uint8)} for name, size in (("one", 10), ("two", 30))}
    assert [ax.get_ylabel() for ax in overlays(pictures).axes] == ["one", "two"]
