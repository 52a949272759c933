"""Promises of `lib.runs.score`: every image has every score, and results say what other runs need to compare."""

import weakref

import numpy as np
import pandas as pd
import pytest

from lib.data.dataset import reference_half
from lib.runs.comparison import comparable
from lib.runs.evaluate import evaluate
from lib.runs.run import Run, RunError
from lib.runs.score import score, score_table
from lib.runs.tracking import Tracker
from lib.runs.train import train
from lib.scores.features import FeaturesError
from lib.scores.selection import version
from tests.runs.small import divided, finished, params, prepared


def test_scores_have_one_row_an_image_beside_its_record(tmp_path):
    split = divided(patient=["" if i % 2 else f"p{i}" for i in range(80)])
    table = finished(tmp_path, "a", ["unet", "ra"], split).scores()
    half = reference_half(split.validation)
    halves = {"reference": split.validation["id"][half], "validation": split.validation["id"][~half]}
    for side, ids in (halves | {"test": split.test["id"]}).items():
        assert table["id"][table["side"] == side].tolist() == ids.tolist()
    assert (table["patient"] != "").all()
    unknown = table["patient"][table["patient"].str.startswith("image ")]
    assert unknown.is_unique  # no patient in common is claimed
    assert np.isfinite(table[["unet", "ra"]].to_numpy()).all()


@pytest.mark.parametrize("copied", ["digest", "twin"])
def test_every_interval_is_that_of_the_same_images_with_copies_known_to_be_of_one_patient(copied, tmp_path):
    """Every image twice: once as copies of unknown patients, once as two images of a known one, with the same name."""
    twice = [min(f"image image-{i // 8 * 8 + i % 4 + other}" for other in (0, 4)) for i in range(80)]
    evaluations = []
    for name, columns in {"copies": {copied: twice, "patient": ""}, "patients": {"patient": twice}}.items():
        run = finished(tmp_path / name, "a", ["unet", "ra"], divided(**columns))
        assert run.scores()["patient"].nunique() == len(run.scores()) / 2
        evaluation = evaluate(run, comparable(run)).evaluation
        areas = [method.model_dump(exclude={"threshold"}) for method in evaluation.methods.values()]
        evaluations.append((evaluation.patients, areas, evaluation.differences))
    assert evaluations[0] == evaluations[1]


def test_a_score_that_is_named_as_a_column_of_the_records_is_refused():
    with pytest.raises(RunError, match=r"scores \['finding'\] have the names of columns of the records"):
        score_table({"test": divided().test}, {"finding": {"test": np.zeros(1)}})


@pytest.mark.parametrize("name", ["knn", "pca", "label", "patient"])
def test_a_method_that_is_named_as_a_reference_or_a_column_is_refused_before_anything_is_scored(name, tmp_path):
    run = Run.start(params(run_dir="a", references=["knn", "pca"]), tmp_path)
    with pytest.raises(RunError, match=rf"the methods \['{name}'\] have the names of references or columns"):
        score(run, prepared(divided()), {name: None})
    assert not (run.folder / "scores.parquet").exists()


def test_scoring_leaves_the_table_the_candidates_and_what_others_need_to_compare(tmp_path):
    images = prepared(divided())
    run = Run.start(params(run_dir="a", references=["mean-grey", "knn"], backbone="none"), tmp_path)
    method, history = train(run, "unet", images, Tracker())
    scored = score(run, images, {"unet": method})
    results = scored.results
    assert results == run.results()
    assert (results.split, results.image_size, results.synthetic) == (divided().hash, 16, False)
    assert results.methods["unet"].run == "a"
    assert results.methods["unet"].budget.images_seen == history[-1]["images_seen"]
    assert results.columns == ["unet", "unet, chosen", "unet, combined", "mean-grey"]
    assert "no backbone" in results.left_out["knn"]
    pd.testing.assert_frame_equal(run.scores(), scored.table)
    assert np.isfinite(scored.table[results.columns].to_numpy(float)).all()
    residual = np.abs(images.images.test[:] / 255 - scored.reconstructed["unet"]).mean(axis=(1, 2))
    np.testing.assert_allclose(scored.table.query("side == 'test'")["unet"], residual, rtol=1e-5)
    assert set(results.choices) == {"unet"} and set(results.copied["unet"]) == {"square", "shuffle"}
    assert len(pd.read_csv(run.folder / "candidates.csv")) > 3


def test_why_something_is_left_out_is_written_without_the_paths_of_this_machine(tmp_path, monkeypatch):
    def refuse(_):
        raise FeaturesError("[Errno 13] Permission denied: '/home/anna/.cache/torch/hub/x.pth'")

    monkeypatch.setattr("lib.scores.selection.open_backbone", refuse)
    run = Run.start(params(run_dir="a", methods=[], references=["mean-grey", "knn"]), tmp_path)
    score(run, prepared(divided()), {})
    assert run.results().left_out["knn"] == "no backbone: [Errno 13] Permission denied: '…/x.pth'"


def test_the_curve_holds_the_scores_and_the_health_after_each_kept_epoch(tmp_path):
    images = prepared(divided())
    run = Run.start(params(run_dir="a", epochs=5, choose_from=[3, 5], references=["pca"], backbone="none"), tmp_path)
    method, history = train(run, "unet", images, Tracker())
    scored = score(run, images, {"unet": method})
    curve = run.curve()
    forms = ("unet", "unet, chosen", "unet, combined")
    assert list(curve) == ["id", *(f"{form} @ {end}" for end in (3, 5) for form in forms)]
    test = scored.table[scored.table["side"] == "test"]
    assert curve["id"].tolist() == test["id"].tolist()
    np.testing.assert_allclose(curve["unet @ 5"], test["unet"], rtol=1e-5)
    assert not np.allclose(curve["unet @ 3"], curve["unet @ 5"], rtol=1e-5)
    points = scored.results.points["unet"]
    assert [point.epochs for point in points] == [1, 2, 3, 4, 5]
    assert [point.images_seen for point in points] == [row["images_seen"] for row in history]
    health = scored.results.health.methods["unet"]
    assert points[-1].health.residual == pytest.approx(health.residual, rel=1e-5)
    assert health.residual == pytest.approx(history[-1]["validation/residual"], rel=1e-4)


def test_however_many_epochs_are_kept_no_more_than_two_of_their_weights_are_in_memory(tmp_path, monkeypatch):
    images = prepared(divided())
    settings = params(run_dir="a", epochs=6, choose_from=[1, 2, 3, 4, 5], references=[], backbone="none")
    run = Run.start(settings, tmp_path)
    method, _ = train(run, "unet", images, Tracker())
    loaded, alive = [], []

    def seen(network, name):
        loaded.append(weakref.ref(network))
        alive.append(sum(one() is not None for one in loaded))
        return version(network, name)

    monkeypatch.setattr("lib.runs.score.version", seen)
    score(run, images, {"unet": method})
    assert len(alive) == 6
    assert max(alive) <= 2
