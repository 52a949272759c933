"""New images: they get a run's scores without its data, an interrupted call goes on, and nothing names a patient."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lib.runs import cli, new_images
from lib.runs.layout import map_place
from lib.runs.model import open_model
from lib.runs.new_images import Asked, score_new, write_scores
from lib.runs.run import Run, RunError
from tests.runs.small import scored

FORMS = ["", ", chosen", ", combined"]


def expected(run: Path) -> pd.DataFrame:
    table = Run.open(run).scores().query("side == 'test'")
    return table.assign(image=table["id"] + ".pgm").set_index("image").sort_index()


def test_images_get_the_scores_that_the_run_gave_them_and_their_rank_among_its_calibration_images(small_run, films):
    found = score_new(str(small_run), [str(films)])
    table, known = found.table.set_index("image"), expected(small_run)
    calibration = Run.open(small_run).scores().query("side == 'validation'")
    assert list(table.index) == list(known.index)
    for column in [f"{name}{form}" for name in ("unet", "ra") for form in FORMS]:
        np.testing.assert_allclose(table[column], known[column], rtol=1e-5)
        ranks = [(1 + (calibration[column] >= value).sum()) / (len(calibration) + 1) for value in known[column]]
        np.testing.assert_allclose(table[f"{column}, p"], ranks)
    called = table["ra, abnormal"] == "yes"
    np.testing.assert_array_equal(called, table["ra"] > found.about["thresholds"]["ra"])


def test_a_folder_gets_scores_maps_and_a_promise_and_names_what_it_cannot_use(small_run, films, tmp_path, capsys):
    for file in sorted(films.iterdir())[:3]:
        shutil.copy(file, tmp_path)
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    out = tmp_path / "out"
    assert cli.score_command([str(small_run), *map(str, sorted(tmp_path.glob("*.p*"))), "--to", str(out)]) == 3
    printed = capsys.readouterr()
    assert "cut.png: " in printed.err and "exit status 3: of the images 1 could not be used; " in printed.err
    assert "for a normal image" in printed.out.lower() and "research use" in printed.out
    table = pd.read_csv(out / "scores.csv")
    assert len(table) == 3
    assert pd.read_csv(out / "problems.csv")["image"].tolist() == ["cut.png"]
    for name in table["image"]:
        for method in ("unet", "ra"):
            with Image.open(out / "maps" / method / f"{name}.map.png") as file:
                values = np.asarray(file) / 65535
            row = table[table["image"] == name].iloc[0]
            assert values.mean() == pytest.approx(row[method], abs=1e-5)  # the primary score is the map's mean
            with Image.open(out / "maps" / method / f"{name}.overlay.jpg") as file:
                assert file.size == (32, 32)
    about = json.loads((out / "about.json").read_text())
    assert set(about["thresholds"]) == {f"{name}{form}" for name in ("unet", "ra") for form in FORMS}


def test_an_interrupted_call_goes_on_and_gives_the_same_files(small_run, films, tmp_path, monkeypatch):
    monkeypatch.setattr(new_images, "BATCH", 4)
    model, asked = open_model(str(small_run)), Asked()
    whole = write_scores(model, [str(films)], asked, tmp_path / "whole").table

    scored_before, score = [], new_images.Scoring._score

    def stopping(self, batch):
        if len(scored_before) == 2:
            raise KeyboardInterrupt
        scored_before.append(batch)
        return score(self, batch)

    monkeypatch.setattr(new_images.Scoring, "_score", stopping)
    with pytest.raises(KeyboardInterrupt):
        write_scores(model, [str(films)], asked, tmp_path / "cut")
    with (tmp_path / "cut" / "scores.csv").open("a") as rows:
        rows.write("phantom-00")  # a row that was cut
    monkeypatch.setattr(new_images.Scoring, "_score", score)
    again = write_scores(model, [str(films)], asked, tmp_path / "cut").table
    pd.testing.assert_frame_equal(again, whole)
    assert (tmp_path / "cut" / "scores.csv").read_bytes() == (tmp_path / "whole" / "scores.csv").read_bytes()
    pictures = [sorted(f.relative_to(tmp_path / n) for f in (tmp_path / n).rglob("*.png")) for n in ("cut", "whole")]
    assert pictures[0] == pictures[1]


def test_unusable_images_alone_are_named_and_those_that_follow_are_scored(small_run, films, tmp_path, monkeypatch):
    monkeypatch.setattr(new_images, "BATCH", 1)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    words = ["--to", str(tmp_path / "out"), str(small_run), str(tmp_path / "a.png")]
    assert cli.score_command(words) == 3
    (tmp_path / "out" / "scores.csv").write_text("image,un")  # a header that was cut
    assert cli.score_command([*words, str(shutil.copy(min(films.iterdir()), tmp_path / "b.pgm"))]) == 3
    assert pd.read_csv(tmp_path / "out" / "scores.csv")["image"].tolist() == ["b.pgm"]


def test_an_image_that_has_changed_is_scored_again_and_others_are_not(small_run, films, tmp_path):
    model, asked = open_model(str(small_run)), Asked(maps=False)
    first, second, third = (shutil.copy(file, tmp_path) for file in sorted(films.iterdir())[:3])
    before = write_scores(model, [str(tmp_path)], asked, tmp_path / "out").table
    shutil.copy(third, second)
    after = write_scores(model, [first, second, third], asked, tmp_path / "out").table
    assert sorted(after["image"]) == sorted(before["image"])
    changed = after.set_index("image")["ra"].sort_index().ne(before.set_index("image")["ra"].sort_index())
    assert changed[changed].index.tolist() == [Path(second).name]


def test_a_call_that_finds_all_images_scored_says_so_and_how_to_score_them_again(small_run, films, tmp_path, capsys):
    words = [str(small_run), *map(str, sorted(films.iterdir())[:3]), "--no-maps", "--to", str(tmp_path / "out")]
    sentence = f"were scored before, and nothing was done: remove {tmp_path / 'out'}, or name another folder with --to"
    for images, said in ((words, False), (words, True), ([*words, str(max(films.iterdir()))], False)):
        assert cli.score_command(images) == 0
        assert (f"3 of 3 images {sentence}" in capsys.readouterr().out) == said


def test_the_primary_score_alone_is_the_same_score(small_run, films):
    model = open_model(str(small_run))
    with new_images.Scoring(model, Asked(primary_only=True, maps=False)) as scoring:
        batches = list(scoring.batches(new_images.open_unlabelled([str(films)]), {}))
    table = pd.concat([batch.table for batch in batches]).set_index("image")
    np.testing.assert_allclose(table["ra"], expected(small_run)["ra"], rtol=1e-5)
    assert not [column for column in table if "chosen" in column or "combined" in column]
    for one, asked in ((model, True), (model.primary_alone(), False)):  # what is said is what was scored
        assert new_images.Scoring(one, Asked(primary_only=asked)).about["primary_only"]
    assert not new_images.Scoring(model, Asked()).about["primary_only"]


def test_no_file_says_a_name_if_names_are_hashed(small_run, films, tmp_path):
    (given := tmp_path / "in").mkdir()
    for name in (min(films.iterdir()).name, "phantom-0.txt", "phantom-0.png"):  # an image, none, and a broken one
        shutil.copy(min(films.iterdir()), given / name) if name.endswith("pgm") else (given / name).write_text("")
    write_scores(open_model(str(small_run)), [str(films)], Asked(hash_names=True), tmp_path / "out")
    write_scores(open_model(str(small_run)), [str(given)], Asked(hash_names=True), tmp_path / "few")
    assert len(pd.read_csv(tmp_path / "few" / "problems.csv")) == 2
    files = [file for folder in ("out", "few") for file in (tmp_path / folder).rglob("*") if file.is_file()]
    assert len(files) > 10
    for file in files:
        assert "phantom" not in file.name and b"phantom-0" not in file.read_bytes()


@pytest.mark.parametrize("name", ["../out", "/etc/out", "a/../../b", "x" * 300])
def test_pictures_stay_in_their_folder_whatever_an_image_is_called(name):
    place = map_place("ra", name)
    assert place.startswith("maps/ra/") and place.count("/") == 2 and len(place) < 100


def test_scores_of_another_model_or_rate_are_not_mixed(small_run, films, tmp_path):
    model = open_model(str(small_run))
    write_scores(model, [str(films)], Asked(maps=False), tmp_path)
    with pytest.raises(RunError, match="holds scores with another "):
        write_scores(model, [str(films)], Asked(0.1, maps=False), tmp_path)


def test_a_run_that_was_trained_on_after_scoring_is_no_model(small_run, tmp_path):
    folder = shutil.copytree(small_run, tmp_path / "run")
    settings = json.loads((folder / "params.json").read_text())
    (folder / "params.json").write_text(json.dumps(settings | {"epochs": 3}))
    with pytest.raises(RunError, match="after it was scored"):
        open_model(str(folder))


def test_a_run_that_an_older_version_has_scored_says_what_to_do(tmp_path):
    folder = scored(tmp_path, "old", ["unet"])
    with pytest.raises(RunError, match="an older version has scored the run; imgae-evaluate"):
        open_model(str(folder))


def test_a_call_that_scores_nothing_says_so_and_names_only_files_that_are_there(small_run, tmp_path, capsys):
    (broken := tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert cli.score_command([str(small_run), str(broken), "--to", str(tmp_path / "out")]) == 3
    said = capsys.readouterr().out
    assert f"no image was scored; why not: {tmp_path / 'out' / 'problems.csv'}" in said and "scores.csv" not in said
