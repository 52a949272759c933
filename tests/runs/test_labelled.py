"""A table of labels for scored images: rows find their images, and what does not fit is said or refused."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from lib.files import hash_of
from lib.refusals import Refusal
from lib.runs import cli
from lib.runs.gallery import open_shown
from lib.runs.run import RunError
from tests.runs.small import scored_images

IMAGES = {"a.png": 0.9, "b/c.png": 0.2, "d.png": 0.7, "e.png": 0.1}


def table(base: Path, *rows: str, header: str = "filename,label") -> Path:
    """A table of labels."""
    file = base / "labels.csv"
    file.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return file


def labels(folder: Path, file: Path) -> dict[str, str]:
    """What the gallery calls each image."""
    return {record["name"]: record["label"] for record in open_shown(folder, file).records}


def test_each_image_has_the_label_of_the_row_that_names_its_path(tmp_path):
    file = table(tmp_path, "./e.png,normal", "b//c.png,abnormal", "d.png,abnormal", "a.png,a third kind")
    found = labels(scored_images(tmp_path, IMAGES), file)
    assert found == {"a.png": "a third kind", "b/c.png": "abnormal", "d.png": "abnormal", "e.png": "normal"}


def test_images_without_a_row_and_rows_without_an_image_are_counted_and_named(tmp_path, capsys):
    folder = scored_images(tmp_path, IMAGES)
    file = table(tmp_path, "a.png,abnormal", *(f"{i}.png,normal" for i in range(5)), "e.png,")
    assert labels(folder, file) == dict.fromkeys(IMAGES, "no label") | {"a.png": "abnormal"}
    assert cli.gallery_command([str(folder), "--labels", str(file)]) == 0
    said = [
        "Without a row in labels.csv, and in no number: 2 of 4 images (b/c.png, d.png).",
        "Without an image here, and not used: 5 of 7 rows of labels.csv (0.png, 1.png, 2.png, …).",
    ]
    assert capsys.readouterr().err.splitlines() == said
    page = (folder / "gallery.html").read_text(encoding="utf-8")
    known = json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])
    assert known["remarks"] == said
    assert "1 abnormal, 3 no label, by the labels in labels.csv; only normal" in known["sentences"][0]


def test_names_that_scores_csv_has_as_hashes_or_behind_a_quote_are_found(tmp_path):
    hashed = scored_images(tmp_path / "hashed", {hash_of(name): 0.5 for name in IMAGES}, hash_names=True)
    file = table(tmp_path, "a.png,normal", "b/c.png,abnormal", "mrs-smith.png,normal")
    assert list(labels(hashed, file).values()) == ["normal", "abnormal", "no label", "no label"]
    assert open_shown(hashed, file).remarks[-1].endswith(f"1 of 3 rows of labels.csv ({hash_of('mrs-smith.png')}).")
    quoted = scored_images(tmp_path / "quoted", {"'-a.png": 0.5, "'=b.png": 0.5})
    assert list(labels(quoted, table(tmp_path, "-a.png,normal", "'=b.png,abnormal")).values()) == ["normal", "abnormal"]


def test_view_and_finding_of_the_table_are_shown_and_a_view_that_cannot_be_read_is_counted(tmp_path):
    rows = ["a.png,normal,,pa", "d.png,abnormal,mass,sideways"]
    shown = open_shown(scored_images(tmp_path, IMAGES), table(tmp_path, *rows, header="filename,label,finding,view"))
    assert {"name": "a.png", "label": "normal", "finding": "", "view": "PA"} in shown.records
    assert {"name": "d.png", "label": "abnormal", "finding": "mass", "view": ""} in shown.records
    assert shown.remarks[0] == "1 of 4 images: view is not PA, AP or lateral: counted as unknown."


def test_images_of_one_patient_count_as_one_in_the_interval_of_an_auroc(tmp_path):
    scores = {f"{i}.png": (7 * i % 48 + i % 2 * 12) / 100 for i in range(48)}
    abnormal = np.arange(48) % 2 == 1
    folder, widths = scored_images(tmp_path, scores), []
    for patients in (48 * [""], range(48), [i // 8 for i in range(48)]):
        rows = [f"{n},{'abnormal' if i else 'normal'},{p}" for n, i, p in zip(scores, abnormal, patients, strict=True)]
        [score] = open_shown(folder, table(tmp_path, *rows, header="filename,label,patient_id")).scores
        assert score.auroc.value == pytest.approx(roc_auc_score(abnormal, [*scores.values()]))
        widths.append(score.auroc.high - score.auroc.low)
    assert widths[0] == pytest.approx(widths[1], rel=0.1) and widths[2] > 1.1 * widths[1]


REFUSED = {
    "names none of the 4 images: it has x.png, and scores.csv has a.png, b/c.png, d.png, …": ["x.png,normal"],
    "contradict each other, of a.png: keep one of each image": ["a.png,normal", "a.png,abnormal"],
    "calls no image here normal or abnormal, but '0', '1', 'no label': write normal, and": ["a.png,0", "d.png,1"],
    "has the label 'Normal', and never 'normal'": ["a.png,Normal", "d.png,abnormal"],
}


@pytest.mark.parametrize("says", REFUSED)
def test_a_table_that_labels_nothing_here_is_refused(tmp_path, says):
    with pytest.raises(Refusal, match=re.escape(says)):
        open_shown(scored_images(tmp_path, IMAGES), table(tmp_path, *REFUSED[says]))


def test_a_table_without_its_columns_or_that_is_not_there_is_refused(tmp_path, capsys):
    folder = scored_images(tmp_path, IMAGES)
    file = table(tmp_path, "a.png,normal", header="image,label")
    assert cli.gallery_command([str(folder), "--labels", str(file)]) == 2
    assert "has no column filename; found image, label" in capsys.readouterr().err
    assert cli.gallery_command([str(folder), "--labels", str(tmp_path)]) == 2
    assert "is no file: give a table of labels, with the columns filename and label" in capsys.readouterr().err


def test_a_run_has_labels_of_its_own(small_run, tmp_path):
    with pytest.raises(RunError, match="is a run, whose images have labels: leave out --labels"):
        open_shown(small_run, table(tmp_path, "a.png,normal"))
