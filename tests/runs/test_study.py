"""Promises of `imgae-study`: what it keeps of runs, what a study says, and that the published files are its work."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from lib.evidence.results import Results
from lib.evidence.seeds import CRITIC
from lib.evidence.study import Study
from lib.params import Params
from lib.runs.candidates import read_candidates
from lib.runs.cli import study_command
from lib.runs.prepare import prepare
from lib.runs.run import Run
from lib.runs.score import score
from lib.runs.study import StudyError, combine, laid_out, read_study
from lib.runs.tracking import Tracker
from lib.runs.train import train
from tests.runs.small import scored

ROOT = Path(__file__).resolve().parents[2]
STUDIES = sorted((ROOT / "research/results").glob("*.json"))
PUBLISHED = sorted((ROOT / "research/results/published").iterdir())
SETTINGS = {
    "methods": ["unet", "ra"],
    "references": ["mean-grey", "mean-image"],
    "backbone": "none",
    "source": "folder",
    "image_size": 32,
    "widths": [4, 8],
    "latent_dim": 4,
    "batch_size": 8,
    "epochs": 2,
    "choose_from": [1],
    "ra_warmup_epochs": 0,
    "resamples": 100,
}
FORMS = ("", ", chosen", ", combined")


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> list[Path]:
    """Runs with two seeds, and an ablation, on a folder with a test side of 12 normal and 12 abnormal images."""
    base = tmp_path_factory.mktemp("study")
    (base / "data/images").mkdir(parents=True)
    random = np.random.default_rng(0)
    rows = []
    for i in range(64):
        image = random.integers(60, 120, (32, 32)).astype(np.uint8)
        abnormal = i >= 52
        image[8:20, 8:20] += 40 * np.uint8(abnormal)
        Image.fromarray(image).save(base / f"data/images/{i}.png")
        label, split = "abnormal" if abnormal else "normal", "test" if i >= 40 else "train"
        rows.append({"filename": f"{i}.png", "label": label, "split": split})
    pd.DataFrame(rows).to_csv(base / "data/labels.csv", index=False)
    runs = {
        "small-0": {"seed": 0},
        "small-1": {"seed": 1},
        "ablations-0": {"seed": 0, "methods": ["vae"], "references": []},
    }
    settings = SETTINGS | {"data_dir": str(base / "data"), "keep_in": str(base / "elsewhere")}
    for name, changes in runs.items():
        run = Run.start(Params(**settings | changes | {"run_dir": name}), base)
        prepared = prepare(run.params, base)
        trained = {method: train(run, method, prepared, Tracker()).method for method in run.params.methods}
        score(run, prepared, trained)
    return [base / name for name in runs]


@pytest.fixture(scope="module")
def study(folders) -> Study:
    file = folders[0].parent / "small.json"
    assert command(file, *folders) == 0
    return read_study(file)


def command(*arguments: Path) -> int:
    return study_command([str(argument) for argument in arguments])


def test_each_score_is_the_mean_over_the_seeds_that_have_it(study, folders):
    (evaluation,) = study.evaluations
    assert evaluation == study.evaluation and (evaluation.n_normal, evaluation.n_abnormal) == (12, 12)
    small_0, small_1, ablations_0 = (
        pd.read_parquet(folder / "scores.parquet").query("side == 'test'") for folder in folders
    )
    trained = [f"{method}{form}" for method in ("unet", "ra") for form in FORMS]
    vae = [f"vae{form}" for form in FORMS]
    assert set(evaluation.scores) == {*trained, *vae, "mean-grey", *(f"mean-image{form}" for form in FORMS)}
    for name, found in evaluation.scores.items():
        tables = {0: ablations_0} if name in vae else {0: small_0, 1: small_1}
        for mean, metric in ((found.auroc, roc_auc_score), (found.average_precision, average_precision_score)):
            expected = {seed: metric(table["label"] == "abnormal", table[name]) for seed, table in tables.items()}
            assert mean.seeds == pytest.approx(expected, abs=1e-4)
            assert mean.estimate.value == pytest.approx(np.mean(list(expected.values())))


def test_the_curve_holds_each_kept_epoch_and_ends_in_the_scores_of_the_run(study, folders):
    first, second, _ = (Run.open(folder) for folder in folders)
    for method in ("unet", "ra"):
        early, last = study.curves.points[method]
        assert (early.epochs, last.epochs) == (1, 2)
        test = first.scores().query("side == 'test'").set_index("id")
        of_seeds = [run.curve().set_index("id")[f"{method} @ 1"] for run in (first, second)]
        expected = {
            seed: roc_auc_score(test["label"] == "abnormal", curve[test.index]) for seed, curve in enumerate(of_seeds)
        }
        assert early.auroc["mean residual"].seeds == pytest.approx(expected, abs=1e-4)
        assert last.auroc["mean residual"] == study.evaluation.scores[method].auroc
    assert CRITIC not in study.curves.points["unet"][1].auroc
    rows = [
        read_candidates(run.folder, test["label"]).set_index(["method", "epoch", "score"]) for run in (first, second)
    ]
    expected = {seed: of["auroc"]["ra", 2, "kl"] for seed, of in enumerate(rows)}
    assert study.curves.points["ra"][1].auroc[CRITIC].seeds == pytest.approx(expected, abs=1e-4)
    assert {one.second for one in study.curves.differences} == {"unet", "vae", "mean-grey", "mean-image"}


def test_methods_are_compared_with_ra_by_each_form_of_score_and_with_the_denoising_u_net(study):
    pairs = [(difference.first, difference.second) for difference in study.evaluation.differences]
    assert pairs == [(f"{method}{form}", f"ra{form}") for form in FORMS for method in ("unet", "vae")]
    assert {tuple(difference.auroc.seeds) for difference in study.evaluation.differences} == {(0,), (0, 1)}


def test_no_choice_is_better_than_its_oracle(study, folders):
    chosen = {}
    for folder in folders:
        run = Run.open(folder)
        table = run.scores().query("side == 'test'")
        for method, choice in run.results().choices.items():
            value = roc_auc_score(table["label"] == "abnormal", table[f"{method}, chosen"])
            chosen[method, run.params.seed] = choice, value
    assert {(method, seed) for method, of in study.selection.items() for seed in of} == set(chosen)
    for (method, seed), (choice, value) in chosen.items():
        assert study.selection[method][seed].choice == choice
        assert value <= study.selection[method][seed].oracle + 1e-4


def test_it_says_what_the_runs_were_and_in_what_they_differ_from_the_first(study, folders):
    assert study.seeds == [0, 1] and list(study.runs) == [folder.name for folder in folders]
    assert study.runs["small-0"] == study.runs["small-1"] == {}
    assert study.runs["ablations-0"] == {"methods": ["vae"], "references": []}
    assert len(set(study.splits.values())) == 1 and study.settings.widths == [4, 8]
    assert set(study.budgets) == {"unet", "ra", "vae"}
    assert len({budget.images_seen for budget in study.budgets.values()}) == 1
    seconds = [json.loads((folder / "results.json").read_text())["methods"]["unet"]["budget"] for folder in folders[:2]]
    assert study.budgets["unet"].seconds == min(budget["seconds"] for budget in seconds)


def test_the_same_study_comes_of_what_is_kept_of_the_runs_and_names_no_place_of_this_machine(study, folders, tmp_path):
    assert command(tmp_path / "kept", *folders) == 0
    kept = [tmp_path / "kept" / folder.name for folder in folders]
    assert combine(kept) == study
    assert {file.name for file in kept[0].iterdir()} == {
        "SHA256SUMS",
        "params.json",
        "results.json",
        "scores.parquet",
        "candidates.csv",
        "curve.parquet",
    }
    texts = [file.read_text() for folder in kept for file in folder.glob("*.json")]
    assert not [text for text in [*texts, study.model_dump_json()] if str(folders[0].parent) in text]
    assert not pd.read_parquet(kept[0] / "scores.parquet").query("side == 'reference'").size


def test_runs_of_one_seed_with_two_splits_are_refused(folders, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(folders[2], other)
    results = json.loads((other / "results.json").read_text())
    (other / "results.json").write_text(json.dumps(results | {"split": "another"}))
    assert command(tmp_path / "x.json", folders[0], other) == 2
    assert "small-0, other have one seed and different splits" in capsys.readouterr().err
    assert not (tmp_path / "x.json").exists()


def test_runs_with_other_test_images_are_refused(folders, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(folders[1], other)
    table = pd.read_parquet(other / "scores.parquet")
    table.drop(index=table.index[-1]).to_parquet(other / "scores.parquet")
    candidates = pd.read_csv(other / "candidates.csv")
    candidates.assign(auroc=0.5).to_csv(other / "candidates.csv", index=False)
    assert command(tmp_path / "x.json", folders[0], other) == 2
    assert "different test images" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.assign(patient=None), "no patient for 30 images, first "),
        (lambda t: t.assign(patient=t["patient"] + "?"), "differ in 'patient' of 24 images"),
        (
            lambda t: t.assign(label=np.where(t["side"] == "test", t["label"].iloc[::-1], t["label"])),
            "differ in 'label'",
        ),
        (lambda t: pd.concat([t, t.tail(1)]), "is in several rows: expected one row for each image"),
        (lambda t: t.assign(vae=t["vae"].where(t["side"] != "test", np.inf)), "24 scores of 'vae' are not finite"),
    ],
    ids=["no patient", "patients", "labels", "an image twice", "infinity"],
)
@pytest.mark.parametrize("beside", [0, 1], ids=["of one seed", "of another"])
def test_runs_whose_scores_cannot_stand_together_are_refused_by_name(
    folders, tmp_path, capsys, change, message, beside
):
    shutil.copytree(folders[2], other := tmp_path / "other")
    table = pd.read_parquet(other / "scores.parquet")
    change(table).to_parquet(other / "scores.parquet")
    assert command(tmp_path / "x.json", folders[beside], other) == 2
    found = capsys.readouterr().err
    assert message in found and ("other" in found or "seed 0" in found) and found.count("\n") == 1


def test_a_candidate_or_a_curve_that_is_not_finite_is_refused_and_so_are_runs_of_other_labels(
    folders, tmp_path, capsys
):
    shutil.copytree(folders[0], other := tmp_path / "other")
    for file, read, write in (
        ("candidates.csv", pd.read_csv, "to_csv"),
        ("curve.parquet", pd.read_parquet, "to_parquet"),
    ):
        table = read(other / file)
        kept = (other / file).read_bytes()
        column = "separation" if file == "candidates.csv" else table.columns[-1]
        getattr(table.assign(**{column: np.nan}), write)(other / file, index=False)
        assert command(tmp_path / "x.json", other) == 2
        assert file in capsys.readouterr().err
        (other / file).write_bytes(kept)
    settings = json.loads((other / "params.json").read_text())
    (other / "params.json").write_text(json.dumps(settings | {"labels": "strict", "seed": 1}))
    table = pd.read_parquet(other / "scores.parquet")
    table.assign(strict_label=table["label"]).to_parquet(other / "scores.parquet")
    assert command(tmp_path / "x.json", folders[0], other) == 2
    assert "by different labels, label and strict_label" in capsys.readouterr().err


def test_the_resamples_it_states_are_those_of_the_labelled_images(folders, tmp_path, monkeypatch):
    shutil.copytree(folders[0], other := tmp_path / "other")
    table = pd.read_parquet(other / "scores.parquet")
    unlabelled = table["id"].isin(table[table["side"] == "test"]["id"].iloc[[0, -1]])
    table.assign(label=table["label"].mask(unlabelled, "")).to_parquet(other / "scores.parquet")
    monkeypatch.setattr("lib.evidence.uncertainty.MOST_WEIGHTS", 22 * 1000)  # of 24 test images
    monkeypatch.setattr("lib.evidence.uncertainty.ENOUGH", 1)
    assert combine([other]).resamples == 1000


def test_a_folder_that_is_no_run_and_a_file_that_is_no_study_are_refused_in_a_line(tmp_path, capsys):
    assert command(tmp_path / "x.json", tmp_path) == 2
    assert "is not a run folder" in capsys.readouterr().err
    (tmp_path / "old.json").write_text('{"written": "2026-11-25"}')
    assert command(tmp_path / "x.md", tmp_path / "old.json") == 2
    assert "is not a study of this version" in capsys.readouterr().err
    with pytest.raises(
        StudyError, match=r"old\.json is not a study of this version.*first settings: Field required\)$"
    ):
        read_study(tmp_path / "old.json")


@pytest.mark.parametrize(("names", "message"), [(["pediatric"], "adult is not among"), (["adult", "adult-new"], "new")])
def test_a_page_without_the_primary_comparison_or_of_an_unknown_question_is_refused(names, message, tmp_path, capsys):
    for name in names:
        shutil.copy(ROOT / f"research/results/{name.partition('-')[0]}.json", tmp_path / f"{name}.json")
    assert command(tmp_path / "x.md", *(tmp_path / f"{name}.json" for name in names)) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "x.md").exists()


@pytest.mark.parametrize("name", ["y.JSON", "y.txt", "folder.json", "folder.md"])
def test_a_target_that_is_neither_a_folder_nor_a_file_of_a_known_kind_is_refused(tmp_path, capsys, name):
    for folder in ("folder.json", "folder.md"):
        (tmp_path / folder).mkdir()
    assert command(tmp_path / name, scored(tmp_path, "a", ["unet"])) == 2
    found = capsys.readouterr().err
    assert found.startswith(str(tmp_path / name)) and found.count("\n") == 1
    assert {file.name for file in tmp_path.iterdir()} == {"a", "folder.json", "folder.md"}


def test_a_study_that_is_missing_or_a_folder_and_a_target_that_cannot_be_written_are_refused_in_a_line(
    tmp_path, capsys
):
    (tmp_path / "file").write_text("")
    study = ROOT / "research/results/adult.json"
    for target, source in (("x.md", tmp_path / "nowhere.json"), ("x.md", tmp_path), ("file/x.schema.json", None)):
        assert command(tmp_path / target, *[source] * bool(source)) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert command(tmp_path / "x.md", study, shutil.copy(study, tmp_path)) == 2
    assert "have one name" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 32}, "image_size (16, 32)"),
        ({"stretch": [0.0, 100.0]}, "stretch ([1.0, 99.0], [0.0, 100.0])"),
        ({"epochs": 3}, "epochs (1, 3)"),
        ({"learning_rate": 0.5}, "learning_rate (0.0002, 0.5)"),
        ({"data_dir": "elsewhere/other"}, "data_dir (data, other)"),
    ],
    ids=["size", "stretch", "epochs", "rate", "data"],
)
def test_seeds_of_other_settings_are_not_averaged(tmp_path, changes, message):
    first = scored(tmp_path, "a", ["unet"])
    with pytest.raises(StudyError, match=f"unet: a and b differ in {re.escape(message)}; a mean over seeds"):
        combine([first, scored(tmp_path, "b", ["unet"], seed=1, **changes)])


def test_a_reference_is_averaged_over_seeds_of_the_same_images_alone(tmp_path):
    folders = [
        scored(tmp_path, "a", ["unet"], ["pca"]),
        scored(tmp_path, "b", ["vae"], ["pca"], seed=1, square="squash"),
    ]
    with pytest.raises(StudyError, match=r"pca: a and b differ in square \(pad, squash\)"):
        combine(folders)


def test_methods_that_no_two_seeds_share_may_have_other_settings_and_a_place_for_data(tmp_path):
    folders = [
        scored(tmp_path, "a", ["unet"], data_dir=str(tmp_path / "here/data")),
        scored(tmp_path, "b", ["unet"], seed=1, data_dir=str(tmp_path / "there/data")),
        scored(tmp_path, "c", ["vae"], epochs=3, image_size=32),
        scored(tmp_path, "d", ["unet"], epochs=2),  # of this seed, the first run's counts
    ]
    study = combine(folders)
    assert list(study.evaluation.scores["unet"].auroc.seeds) == [0, 1]
    assert study.runs["c"]["epochs"] == 3


def test_the_labels_that_the_settings_name_count_and_those_of_one_class_are_left_out(tmp_path):
    folder = scored(tmp_path, "a", ["unet"])
    table = pd.read_parquet(folder / "scores.parquet")
    for strict, expected in ((table["label"], ["label", "strict_label"]), ("", ["label"])):
        table.assign(strict_label=strict).to_parquet(folder / "scores.parquet", index=False)
        assert [one.labels for one in combine([folder]).evaluations] == expected


def test_a_target_without_what_it_is_made_of_is_refused(tmp_path, capsys):
    for target, sources in ((tmp_path / "x.json", []), (tmp_path / "x.schema.json", [tmp_path])):
        with pytest.raises(SystemExit, match="2"):
            command(target, *sources)
        assert f"{target}: " in capsys.readouterr().err


def test_a_line_of_a_study_holds_what_has_room_in_it_and_nothing_is_lost(study):
    content = study.model_dump(mode="json")
    text = laid_out(content)
    assert json.dumps(json.loads(text)) == json.dumps(content)
    lines = text.splitlines()
    assert '  "widths": [4, 8],' in lines and max(map(len, lines)) < 300
    for wide in ({"a": {"b": "x" * 300}, "c": []}, ["é" * 300], "x" * 300, [[], {}, 10**300]):
        assert json.loads(laid_out(wide)) == wide
    assert laid_out({"a": {"b": [1, "]"]}, "c": {}}) == '{"a": {"b": [1, "]"]}, "c": {}}'


def test_the_tracked_schema_is_that_of_the_types(tmp_path):
    assert command(tmp_path / "results.schema.json") == 0
    written, tracked = (
        json.loads((folder / "results.schema.json").read_text()) for folder in (tmp_path, ROOT / "docs")
    )
    assert written == tracked, "write it again: imgae-study docs/results.schema.json"


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda folder: folder.name)
def test_a_published_figure_is_that_of_the_scores_that_are_kept(folder):
    results = Results.model_validate_json((folder / "results.json").read_text())
    table = pd.read_parquet(folder / "scores.parquet").query("side == 'test'")
    seed = json.loads((folder / "params.json").read_text())["seed"]
    for study in map(read_study, STUDIES):
        if folder.name not in study.runs:
            continue
        before = [name for name in study.runs if name.endswith(f"-{seed}")]
        before = before[: before.index(folder.name)]  # of one seed's runs the first that has a score gives it
        taken = {name for run in before for name in pd.read_parquet(folder.parent / run / "scores.parquet")}
        for evaluation in study.evaluations:
            known = table[table[evaluation.labels].isin(["normal", "abnormal"])]
            is_abnormal = known[evaluation.labels] == "abnormal"
            assert len(known) == evaluation.n_normal + evaluation.n_abnormal
            for name in set(results.columns) & set(known) - taken:
                score, expected = evaluation.scores[name], roc_auc_score(is_abnormal, known[name])
                assert score.auroc.seeds[seed] == pytest.approx(expected, abs=1e-4), name
                precision = average_precision_score(is_abnormal, known[name])
                assert score.average_precision.seeds[seed] == pytest.approx(precision, abs=1e-4), name
                if evaluation.labels == results.evaluation.labels and name in results.evaluation.methods:
                    assert results.evaluation.methods[name].auroc.value == pytest.approx(expected), name


def test_every_kept_run_is_part_of_a_tracked_study_and_the_other_way_round():
    assert {folder.name for folder in PUBLISHED} == {run for file in STUDIES for run in read_study(file).runs}


@pytest.mark.long
@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_a_tracked_study_is_made_again_to_the_byte_from_what_is_kept(file, tmp_path):
    runs = [ROOT / "research/results/published" / run for run in read_study(file).runs]
    assert command(tmp_path / file.name, *runs) == 0
    assert (tmp_path / file.name).read_bytes() == file.read_bytes()
