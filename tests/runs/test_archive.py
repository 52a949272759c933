"""Promises of `lib.runs.archive`: a study reads whole and current runs alone, and to keep a run costs no other."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lib.files import write_json
from lib.runs.archive import StudyError, keep, opened, read, read_curve
from lib.runs.cli import study_command
from lib.runs.freshness import weight_hashes
from lib.runs.run import Run, RunError
from tests.runs.small import scored


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def setting(folder: Path, **changes) -> None:
    file = folder / "params.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def result(folder: Path, change: Callable[[dict], object]) -> None:
    file = folder / "results.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def table(folder: Path, name: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Change the rows of a file."""
    if name.endswith(".csv"):
        change(pd.read_csv(folder / name)).to_csv(folder / name, index=False)
    else:
        change(pd.read_parquet(folder / name)).to_parquet(folder / name, index=False)


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("runs/a", "runs", "would be written over the run"),
        ("runs/a", "runs/a", "would be written over the run"),
        ("runs/a/a", "runs", "would be written over the run"),
        ("runs/a", "others", "is the folder of a run of its own"),
    ],
    ids=["itself", "within itself", "around itself", "another run"],
)
def test_no_run_is_written_over(tmp_path, capsys, source, target, message):
    for name in (source, "others/a"):
        scored(tmp_path, name, ["unet"])
    before = contents(tmp_path)
    assert study_command([str(tmp_path / target), str(tmp_path / source)]) == 2
    assert message in capsys.readouterr().err
    assert contents(tmp_path) == before


def test_of_two_runs_the_one_is_not_kept_over_the_other(tmp_path):
    folders = [scored(tmp_path, name, ["unet"]) for name in ("runs/a", "kept/a/b")]
    before = contents(tmp_path)
    with pytest.raises(StudyError, match="would be written over the run"):
        keep(folders, tmp_path / "kept")
    assert contents(tmp_path) == before


def test_a_run_is_kept_under_its_own_name_from_wherever_it_is_given(tmp_path, monkeypatch):
    monkeypatch.chdir(scored(tmp_path, "runs/a", ["unet"]))
    assert study_command(["../../kept", "."]) == 0
    assert [file.name for file in (tmp_path / "kept").iterdir()] == ["a"]


@pytest.mark.parametrize("target", ["kept", "study.json", "trials.csv"])
@pytest.mark.parametrize("second", ["runs/a", "others/a"], ids=["one run twice", "two runs of one name"])
def test_runs_of_one_name_are_refused_before_anything_is_written(tmp_path, capsys, target, second):
    for name in {"runs/a", second}:
        scored(tmp_path, name, ["unet"])
    assert study_command([str(tmp_path / target), str(tmp_path / "runs/a"), str(tmp_path / second)]) == 2
    assert "have one name, a" in capsys.readouterr().err
    assert not (tmp_path / target).exists()


def test_a_kept_file_that_somebody_has_edited_is_found_where_hashes_were_kept(tmp_path):
    keep([scored(tmp_path, "runs/a", ["unet"])], tmp_path / "kept")
    kept = tmp_path / "kept/a"
    (run,) = opened([kept])
    assert read(run).candidates["auroc"].tolist() == [0.5]
    for file in ("candidates.csv", "params.json", "results.json", "scores.parquet"):
        whole = (kept / file).read_bytes()
        (kept / file).write_bytes(whole + b"\n")
        with pytest.raises(StudyError, match="has changed since it was kept"):
            opened([kept])
        (kept / file).write_bytes(whole)
    table(kept, "candidates.csv", lambda rows: rows.assign(auroc=0.9))
    (kept / "SHA256SUMS").unlink()  # as in a folder of an older version
    assert read(*opened([kept])).candidates["auroc"].tolist() == [0.9]


CANDIDATES, SCORES = "candidates.csv", "scores.parquet"
FAULTS = {
    "scores cut": (lambda run: (run / SCORES).write_bytes(b"PAR1"), "scores.parquet is damaged"),
    "no candidates": (lambda run: (run / CANDIDATES).unlink(), "candidates.csv cannot be read"),
    "not UTF-8": (lambda run: (run / CANDIDATES).write_bytes(b"\xff\xfe"), "candidates.csv cannot be read"),
    "empty": (lambda run: (run / CANDIDATES).write_bytes(b""), "candidates.csv cannot be read"),
    "foreign": (lambda run: (run / CANDIDATES).write_text("a,b\n1,2\n"), "without the column 'method'"),
    "text": (lambda run: table(run, CANDIDATES, lambda t: t.assign(auroc="x")), "with 'x' as 'auroc'"),
    "infinite": (lambda run: table(run, CANDIDATES, lambda t: t.assign(auroc=np.inf)), "a NaN or infinity"),
    "a method lost": (lambda run: table(run, CANDIDATES, lambda t: t[t["method"] != "unet"]), "differ in 'unet'"),
    "a method more": (lambda run: table(run, CANDIDATES, lambda t: t.replace("knn", "x")), "differ in 'knn'"),
    "no parquet": (
        lambda run: table(run, CANDIDATES, lambda t: t.drop(columns="auroc")),
        "candidates.parquet is damaged",
    ),
    "no method": (lambda run: result(run, lambda r: r["methods"].pop("unet")), "knows nothing of the method 'unet'"),
    "no choice": (lambda run: result(run, lambda r: r["choices"].pop("unet")), "knows nothing of the method 'unet'"),
    "a score lost": (
        lambda run: table(run, SCORES, lambda t: t.drop(columns="unet, chosen")),
        "scores.parquet has no column 'unet, chosen'",
    ),
    "one class": (lambda run: table(run, SCORES, lambda t: t.assign(label="normal")), "32 normal of 32 patients"),
    "no label": (lambda run: table(run, SCORES, lambda t: t.assign(label=None)), "none of 0 patients"),
    "one patient": (lambda run: table(run, SCORES, lambda t: t.assign(patient=1)), "of 1 patients"),
}


@pytest.mark.parametrize(("fault", "message"), FAULTS.values(), ids=FAULTS)
def test_a_run_that_is_not_whole_is_refused_in_a_line(tmp_path, capsys, fault, message):
    folder = scored(tmp_path, "a", ["unet"], ["knn"])
    fault(folder)
    for target in ("kept", "study.json"):
        assert study_command([str(tmp_path / target), str(folder)]) == 2
        found = capsys.readouterr().err
        assert message in found and found.count("\n") == 1
        assert not (tmp_path / target).exists()


def test_the_score_of_a_run_beside_it_is_no_loss(tmp_path):
    folder = scored(tmp_path, "a", ["unet"])
    result(folder, lambda r: (r["columns"].append("ra"), r["methods"].update(ra=r["methods"]["unet"] | {"run": "b"})))
    assert read(Run.open(folder)).columns == ["unet", "unet, chosen", "unet, combined"]


def test_patients_may_be_numbers(tmp_path):
    folder = scored(tmp_path, "a", ["unet"])
    table(folder, SCORES, lambda rows: rows.assign(patient=range(len(rows))))
    assert study_command([str(tmp_path / "study.json"), str(folder)]) == 0


@pytest.mark.parametrize("kept", [False, True], ids=["a run", "a kept run"])
def test_a_run_that_was_trained_on_after_it_was_scored_is_refused(tmp_path, kept):
    folder = scored(tmp_path, "runs/a", ["unet"])
    if kept:
        keep([folder], tmp_path / "kept")
        folder = tmp_path / "kept/a"
    setting(folder, epochs=2)
    with pytest.raises(StudyError, match=r"a was trained on after it was scored.*epoch 1, its settings say 2"):
        read(Run.open(folder))


@pytest.mark.parametrize("now", [b"other weights", None], ids=["other", "removed"])
def test_a_run_whose_weights_are_not_those_that_were_scored_is_refused(tmp_path, now):
    run = Run.open(scored(tmp_path, "a", ["unet"]))
    run.checkpoint("unet").parent.mkdir()
    run.checkpoint("unet").write_bytes(b"weights")
    write_json(run.folder / "stages.json", {"score": {"read": {"epochs": "1", **weight_hashes(run)}, "wrote": {}}})
    assert read(run).columns
    run.checkpoint("unet").unlink()
    if now:
        run.checkpoint("unet").write_bytes(now)
    with pytest.raises(StudyError, match=r"after it was scored \(changed: weights of unet\): imgae-evaluate "):
        read(run)
    shutil.rmtree(run.folder / "checkpoints")  # to save space, as nothing is trained any more
    assert read(run).columns


def curved(tmp_path: Path) -> Path:
    """A run with a curve of two points, its methods' training in results.json."""
    folder = scored(tmp_path, "a", ["unet"], epochs=2, choose_from=[1])
    health = {"residual": 0.1, "detail": 0.5, "copied": 0.1, "lacks": []}
    points = [{"epochs": n, "images_seen": 320 * n, "cpu_seconds": n, "health": health} for n in (1, 2)]
    result(folder, lambda r: r.update(points={"unet": points}))
    test = pd.read_parquet(folder / SCORES).query("side == 'test'")
    columns = [f"unet{form} @ {n}" for form in ("", ", chosen", ", combined") for n in (1, 2)]
    random = np.random.default_rng(0)
    curve = pd.DataFrame({"id": test["id"], **{column: random.random(len(test)) for column in columns}})
    curve.to_parquet(folder / "curve.parquet", index=False)
    return folder


CURVES = {
    "whole": (lambda rows: rows, ""),
    "with the posterior's KL": (lambda rows: rows.assign(**{f"unet, kl @ {n}": 1.0 * rows.index for n in (1, 2)}), ""),
    "an image less": (lambda rows: rows[1:], "has 31 rows, not one for each of 32 test images"),
    "an image twice": (lambda rows: pd.concat([rows, rows[:1]]), "has 33 rows"),
    "a foreign method": (lambda rows: rows.assign(**{"ra @ 1": 1.0}), "has a foreign column 'ra @ 1'"),
    "no chosen score": (lambda rows: rows.drop(columns="unet, chosen @ 1"), "has no column 'unet, chosen @ 1'"),
    "NaN": (lambda rows: rows.assign(**{"unet @ 1": np.nan}), "holds a NaN"),
    "no id": (lambda rows: rows.drop(columns="id"), "has no column 'id'"),
}


@pytest.mark.parametrize(("change", "message"), CURVES.values(), ids=CURVES)
def test_a_curve_is_read_if_it_holds_every_image_and_score(tmp_path, capsys, change, message):
    folder = curved(tmp_path)
    table(folder, "curve.parquet", change)
    assert study_command([str(tmp_path / "study.json"), str(folder)]) == 2 * bool(message)
    assert message in capsys.readouterr().err


def test_a_damaged_curve_and_one_without_points_of_training_are_refused(tmp_path):
    folder = curved(tmp_path)
    result(folder, lambda r: r.update(points={}))
    with pytest.raises(StudyError, match=r"no points of its training; score the run again"):
        read_curve(read(Run.open(folder)))
    (folder / "curve.parquet").write_bytes(b"x")
    with pytest.raises(RunError, match=r"curve\.parquet is damaged .*: imgae-evaluate .* makes it again"):
        read_curve(read(Run.open(folder)))
