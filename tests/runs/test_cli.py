"""Promises of `lib.runs.cli`.

Two commands from a params file to results, and what is refused before anything is written.
"""

import ast
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from jupyter_client.manager import KernelManager
from kaggle_server import CLIENT_LEAVES_SOCKETS_OPEN, archive, image, serving
from PIL import Image
from sklearn.metrics import roc_auc_score

import lib
from lib import environment, privacy
from lib.data.dataset import SplitError
from lib.data.registry import REGISTRY
from lib.data.sources import SourceError
from lib.data.stream import StreamSource
from lib.evidence.claims import claims
from lib.evidence.wording import estimate_text
from lib.methods.checkpoint import CheckpointError
from lib.methods.variants import VARIANTS
from lib.params import ParameterError, Params
from lib.refusals import Refusal
from lib.runs import actions, cli
from lib.runs.run import Run, RunError
from lib.runs.settings import read_settings, settings_parser

LIB = Path(__file__).resolve().parents[2] / "lib"
TINY = {
    "phantom_images": 40,
    "image_size": 32,
    "widths": [4, 8],
    "latent_dim": 4,
    "epochs": 1,
    "ra_warmup_epochs": 0,
    "batch_size": 4,
    "resamples": 100,
    "precision": "float32",
    "device": "cpu",
}


def params_file(folder: Path, name: str = "tiny", **changes) -> Path:
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(TINY | changes))
    return file


def folder_of_images(folder: Path, count: int = 40) -> Path:
    """Random images, every fourth abnormal; labels.csv has the two columns that it needs."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (20, 24), dtype=np.uint8)).save(folder / "images" / f"{i}.png")
    label = ["abnormal" if i % 4 == 3 else "normal" for i in range(count)]
    pd.DataFrame({"filename": [f"{i}.png" for i in range(count)], "label": label}).to_csv(
        folder / "labels.csv", index=False
    )
    return folder


def status(run: Path) -> dict:
    return json.loads((run / "status.json").read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of both methods, trained and evaluated by the two commands."""
    base = tmp_path_factory.mktemp("project")
    assert cli.train([str(params_file(base))]) == 0
    assert cli.evaluate([str(base / "runs" / "tiny")]) == 0
    return base / "runs" / "tiny"


def test_two_commands_leave_everything_that_a_run_leaves(finished):
    left = {str(file.relative_to(finished)) for file in finished.rglob("*") if file.is_file()}
    assert left == {
        *(
            ".lock",
            "status.json",
            "params.json",
            "split.json",
            "problems.csv",
            "metrics.jsonl",
            "yardstick.json",
            "scores.parquet",
            "candidates.parquet",
            "candidates.csv",
            "curve.parquet",
            "fitted.safetensors",
            "results.json",
            "stages.json",
        ),
        *(
            f"reconstructions/{name}.{side}.npy"
            for name in ("unet.1", "ra.1", "mean-image.0", "pca.0")
            for side in ("reference", "lesions", "validation", "test")
        ),
        *("checkpoints/unet.pt", "checkpoints/ra.pt"),
        *(
            f"figures/{name}.{form}"
            for name in (
                *("unet-losses", "ra-losses", "roc", "precision-recall", "scores", "findings", "strata"),
                *("false-alarms", "health"),
            )
            for form in ("png", "svg")
        ),
        *(
            f"tables/{name}.csv"
            for name in ("results", "findings", "strata", "all-scores", "differences", "promise", "budget")
        ),
        *("tables/audit.csv", "tables/localisation-whole-image.csv", "tables/localisation-lungs.csv"),
        *("figures/unet-cases.png", "figures/ra-cases.png"),
    }
    assert status(finished)["status"] == "ok"


def test_the_reported_figure_is_that_of_the_saved_scores(finished):
    run = Run.open(finished)
    results, table = run.results(), run.scores().query("side == 'test'")
    for name in Params().methods:
        expected = roc_auc_score(table["label"] == "abnormal", table[name])
        assert results.evaluation.methods[name].auroc.value == pytest.approx(expected)
    counts = table["label"].value_counts()
    assert (results.localisation.marked, results.localisation.normal) == (counts["abnormal"], counts["normal"])
    assert results.synthetic


def test_every_run_is_audited_by_the_methods_that_it_reports(finished):
    results = Run.open(finished).results()
    checks = pd.read_csv(finished / "tables/audit.csv").set_index(["check", "what"])
    evaluation, whole = results.evaluation, next(check for check in results.audit.checks if check.what == "whole")
    assert (whole.normal, whole.abnormal) == (evaluation.n_normal, evaluation.n_abnormal)
    assert set(whole.methods) == set(results.audit.verdicts) == set(evaluation.methods)
    assert set(evaluation.methods) <= set(checks) and ("masked image", "lungs replaced") in checks.index
    for name, verdict in results.audit.verdicts.items():
        assert name in verdict.sentence


def test_every_run_says_what_it_may_claim_and_what_it_may_not(finished):
    results = Run.open(finished).results()
    assert results.claims == claims(results)
    assert {"synthetic", "seeds", "device"} <= {claim.rule for claim in results.claims.may_not}
    assert results.test_images.ages[0] >= 0


def test_a_table_of_the_run_is_its_results_as_csv(finished):
    table = pd.read_csv(finished / "tables/results.csv", index_col="method")
    for name, evaluated in Run.open(finished).results().evaluation.methods.items():
        assert table.loc[name, "AUROC [95 % interval]"] == estimate_text(evaluated.auroc)


def test_both_methods_have_spent_the_same_number_of_images(finished):
    budgets = {name: trained.budget for name, trained in Run.open(finished).results().methods.items()}
    assert len({budget.images_seen for budget in budgets.values()}) == 1
    assert budgets["ra"].steps == 2 * budgets["unet"].steps


def test_evaluating_again_gives_the_same_again(finished, capsys):
    before = (finished / "results.json").read_bytes()
    cli.evaluate([str(finished), "--force"])
    assert (finished / "results.json").read_bytes() == before
    assert "synthetic images: a smoke test, not evidence" in capsys.readouterr().out


def test_training_again_continues_and_does_not_repeat(finished, capsys):
    metrics = (finished / "metrics.jsonl").read_text()
    cli.train([str(finished.parents[1] / "tiny.yaml")])
    assert (finished / "metrics.jsonl").read_text() == metrics
    assert f"next: imgae-evaluate {finished}" in capsys.readouterr().out


def test_a_method_trains_alone_as_it_does_beside_another(finished, tmp_path):
    cli.train([str(params_file(tmp_path, methods=["ra"]))])
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    both = {
        key: value for row in rows if row["method"] == "ra" for key, value in row.items() if not key.endswith("seconds")
    }
    (alone,) = map(json.loads, (tmp_path / "runs" / "tiny" / "metrics.jsonl").read_text().splitlines())
    assert {key: value for key, value in alone.items() if not key.endswith("seconds")} == both


def test_a_folder_with_names_and_labels_alone_goes_all_the_way(tmp_path):
    folder_of_images(tmp_path / "data")
    cli.train([str(params_file(tmp_path, source="folder", data_dir="data", methods=["unet"]))])
    assert cli.evaluate([str(tmp_path / "runs" / "tiny")]) == 0
    results = Run.open(tmp_path / "runs" / "tiny").results()
    assert not results.synthetic
    assert "unverified" in results.patient_separation


def test_no_label_of_the_test_side_is_seen_between_the_split_and_the_evaluation(tmp_path):
    data = folder_of_images(tmp_path / "data")
    rows = pd.read_csv(data / "labels.csv")
    rows["split"] = ["test" if i % 4 in (2, 3) else "train" for i in range(len(rows))]
    kept = []
    for name, labels in (
        ("true", rows["label"]),
        ("turned", rows["label"].map({"normal": "abnormal", "abnormal": "normal"})),
    ):
        rows.assign(label=labels.where(rows["split"] == "test", rows["label"])).to_csv(data / "labels.csv", index=False)
        file = params_file(tmp_path, name, source="folder", data_dir=str(data), run_dir=f"runs-{name}/x")
        cli.train([str(file)])
        cli.evaluate([str(tmp_path / f"runs-{name}/x")])
        kept.append(pd.read_parquet(tmp_path / f"runs-{name}/x/scores.parquet").set_index("id"))
    true, turned = kept
    assert (true["label"] != turned["label"]).sum() == 20
    columns = true.columns.drop(["label"])
    assert {"unet", "unet, chosen", "ra, combined", "mean-grey"} <= set(columns)
    pd.testing.assert_frame_equal(true[columns], turned[columns], check_exact=True)


def test_weights_are_not_evaluated_once_the_data_and_with_it_the_split_have_changed(tmp_path):
    data = folder_of_images(tmp_path / "data")
    cli.train([str(params_file(tmp_path, source="folder", data_dir="data", methods=["unet"]))])
    table = pd.read_csv(data / "labels.csv")
    table.iloc[5:].to_csv(data / "labels.csv", index=False)
    with pytest.raises((RunError, CheckpointError, SplitError), match="split"):
        cli.evaluate([str(tmp_path / "runs" / "tiny")])


def test_a_label_column_that_the_data_does_not_have_is_refused_before_training(tmp_path):
    with pytest.raises(ValueError, match="one reading only: write labels: given"):
        cli.train([str(params_file(tmp_path)), "--set", "labels=strict"])
    assert not list(tmp_path.rglob("*.pt"))


def test_a_run_that_fails_says_so_and_why(tmp_path):
    with pytest.raises(SourceError):
        cli.train([str(params_file(tmp_path, source="folder", data_dir="nowhere"))])
    run = tmp_path / "runs" / "tiny"
    if run.exists():  # to have written nothing is as good
        assert status(run)["status"] == "failed"
        assert "nowhere" in status(run)["why"]


def test_a_run_that_is_interrupted_says_so(tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(actions, "prepare", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cli.train([str(params_file(tmp_path))])
    assert status(tmp_path / "runs" / "tiny")["status"] == "failed"


# Settings on the command line


def settings(file: Path, *words: str) -> Params:
    return read_settings(settings_parser("imgae-train", ""), [str(file), "--set", *words])[0]


@pytest.mark.parametrize(
    ("word", "name", "value"),
    [
        ("learning_rate=1e-3", "learning_rate", 1e-3),
        ("epochs=3", "epochs", 3),
        ("methods=[unet]", "methods", ["unet"]),
        ("methods=[]", "methods", []),
        ('methods=["ra", "unet"]', "methods", ["ra", "unet"]),
        ("widths=[4, 8, 16]", "widths", [4, 8, 16]),
        ("tracking=wandb", "tracking", "wandb"),
        ("tracking=off", "tracking", "off"),
    ],
)
def test_a_word_behind_set_has_the_type_that_it_looks_like(tmp_path, word, name, value):
    params = settings(params_file(tmp_path), word)
    assert getattr(params, name) == value
    assert type(getattr(params, name)) is type(value)


def test_several_settings_win_over_the_file(tmp_path):
    file = params_file(tmp_path, seed=4)
    assert settings(file, "epochs=6").seed == 4
    assert settings(file, "seed=5", "epochs=6").seed == 5
    params, _ = read_settings(settings_parser("x", ""), [str(file), "--set", "seed=5", "--set", "epochs=6"])
    assert (params.seed, params.epochs) == (5, 6)


def test_a_word_without_a_value_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as leave:
        cli.train([str(params_file(tmp_path)), "--set", "nonsense"])
    assert leave.value.code == 2
    assert "--set expects key=value, found 'nonsense'" in capsys.readouterr().err


def test_a_list_that_is_not_closed_is_refused_like_any_wrong_word(tmp_path):
    with pytest.raises((SystemExit, ParameterError)):
        cli.train([str(params_file(tmp_path)), "--set", "methods=[unet"])


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["seed=010"], "--set seed=010: 010 is not a plain number"),
        (["epochs=!!bool x"], "--set epochs=!!bool x: !!bool is a tag"),
        (["methods=" + "[" * 5000], "this is nested too deeply"),
        (["epochs=1:30"], "1:30 is not a plain number"),
        (["epochs=1_0"], "1_0 is not a plain number"),
        (["widths=[4, 0x8]"], "0x8 is not a plain number"),
        (["seed=1", "epochs=3", "--set", "seed=1"], "--set gives seed twice"),
    ],
)
def test_what_yaml_misreads_and_a_name_given_twice_are_refused_behind_set_too(tmp_path, capsys, words, complaint):
    with pytest.raises(SystemExit):
        settings(params_file(tmp_path), *words)
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize("name", ["epoch", "file", "self"])
def test_an_unknown_name_is_refused_before_anything_is_written(tmp_path, name):
    file = params_file(tmp_path)
    with pytest.raises((ParameterError, SystemExit)):
        cli.train([str(file), "--set", f"{name}=3"])
    assert list(tmp_path.iterdir()) == [file]


def test_a_run_has_the_name_of_its_params_file_in_the_project_around_it(tmp_path, monkeypatch):
    (tmp_path / "project" / "params").mkdir(parents=True)
    (tmp_path / "project" / "build_notebook.py").write_text("")
    file = params_file(tmp_path / "project" / "params", "first", source="folder", data_dir="data/x")
    monkeypatch.chdir(tmp_path)
    params, base = read_settings(settings_parser("x", ""), [str(file)])
    root = (tmp_path / "project").resolve()
    assert base == root
    assert (params.run_dir, params.data_dir) == (str(root / "runs" / "first"), str(root / "data" / "x"))


def test_a_path_on_the_command_line_starts_from_where_it_is_typed(tmp_path, monkeypatch):
    (tmp_path / "project").mkdir()
    (tmp_path / "typed").mkdir()
    file = params_file(tmp_path / "project", source="folder", data_dir="data")
    monkeypatch.chdir(tmp_path / "typed")
    params = settings(file, "data_dir=../x", "run_dir=here")
    assert params.data_dir == str((tmp_path / "x").resolve())
    assert params.run_dir == str((tmp_path / "typed" / "here").resolve())


def test_an_empty_path_on_the_command_line_is_empty_and_not_where_it_is_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = settings(params_file(tmp_path, run_dir="elsewhere", data_dir="x"), "run_dir=", "data_dir=")
    assert (params.data_dir, params.run_dir) == ("", str(tmp_path.resolve() / "runs" / "tiny"))


def test_evaluating_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="is not a run folder"):
        cli.evaluate([str(tmp_path)])


def test_the_notebook_runs_in_this_interpreter_whatever_kernel_is_installed_as_python3(tmp_path, monkeypatch):
    (folder := tmp_path / "kernels" / "python3").mkdir(parents=True)
    spec = {"argv": ["/elsewhere/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]}
    (folder / "kernel.json").write_text(json.dumps(spec | {"display_name": "another", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    assert KernelManager(kernel_name="python3").kernel_spec.argv == spec["argv"]  # what would be started otherwise
    assert actions.own_kernel()(kernel_name="python3").kernel_spec.argv == [sys.executable, *spec["argv"][1:]]


def test_running_without_a_notebook_says_how_to_build_it_or_where_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(actions, "NOTEBOOK", Path("absent.ipynb"))
    with pytest.raises(RunError, match=r"absent.ipynb is not there: run `python build_notebook.py` in "):
        cli.run([str(params_file(tmp_path))])
    monkeypatch.setattr(actions, "__file__", str(tmp_path / "site-packages" / "lib" / "runs" / "actions.py"))
    with pytest.raises(RunError, match="notebook, which is not installed with imgae-dx: clone the repository"):
        cli.run([str(params_file(tmp_path))])
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("command", "changes", "module", "extra"),
    [
        (cli.run, {}, "papermill", "notebook"),
        (cli.run, {}, "latex2mathml", "notebook"),
        (cli.train, {"tracking": "wandb"}, "wandb", "tracking"),
        (cli.run, {"tracking": "wandb"}, "wandb", "tracking"),
        (cli.train, {"source": "kermany"}, "kagglehub", "kaggle"),
    ],
)
def test_a_command_without_a_package_that_it_needs_names_the_extra_that_brings_it(
    tmp_path, monkeypatch, command, changes, module, extra
):
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    for package, name in ((lib.data, "kaggle"), (lib.runs, "page")):  # which are imported anew, and then as before
        if hasattr(package, name):
            monkeypatch.setattr(package, name, getattr(package, name))
        monkeypatch.delitem(sys.modules, f"{package.__name__}.{name}", raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(Refusal, match=rf"needs {module}, which the extra {extra} brings: .*\.\[{extra}\]"):
        command([str(params_file(tmp_path, **changes))])
    assert not list(tmp_path.rglob("*.pt"))


# Names of methods


@pytest.mark.parametrize("file", sorted(LIB.rglob("*.py")), ids=lambda file: file.stem)
def test_nothing_in_lib_branches_on_a_methods_name(file):
    """No comparison, match or look-up with a method's name in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Compare | ast.MatchValue | ast.Subscript):
            words = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)} & set(VARIANTS)
            annotation = isinstance(node, ast.Subscript) and "Literal" in ast.unparse(node)
            assert not words or annotation, f"{file.name}:{node.lineno} {ast.unparse(node)}"


def test_what_a_user_can_mend_is_said_in_one_line_without_a_traceback(tmp_path, monkeypatch, capsys):
    file = params_file(tmp_path)
    monkeypatch.setattr("sys.argv", ["imgae-train", str(file), "--set", "epocs=3"])
    assert cli.train_command() == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and printed.startswith("epocs=3: there is no such parameter; did you mean epochs?")


# Shards


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run on phantoms, and the shards that `imgae-shards` wrote of them."""
    pytest.importorskip("datasets")
    base = tmp_path_factory.mktemp("shards")
    file = params_file(base, methods=["ra"])
    assert cli.train([str(file)]) == cli.evaluate([str(base / "runs" / "tiny")]) == 0
    assert cli.shards([str(file), "--to", str(base / "images")]) == 0
    return base / "runs" / "tiny", base / "images"


@pytest.mark.parametrize(
    "words",
    [
        ["FILE", "--set", "data_dir=ADDRESS"],
        ["FILE", "--set", "data_dri=ADDRESS"],
        ["FILE", "--set", "keep_in=ADDRESS"],
        ["FILE", "--set", "ADDRESS"],
        ["FILE", "--set", "epochs=[ADDRESS"],
        ["FILE", "data_dir=ADDRESS"],
        ["ADDRESS"],
    ],
)
def test_no_command_shows_or_writes_a_secret_of_an_address(tmp_path, monkeypatch, capsys, words):
    file, address = params_file(tmp_path, source="stream", data_dir="x"), "ftp://anna:s3cret-pw@127.0.0.1:9/x?sig=0dd"
    words = [word.replace("ADDRESS", address).replace("FILE", str(file)) for word in words]
    monkeypatch.setattr("sys.argv", ["imgae-train", *words])
    try:
        assert cli.train_command() == 2
    except SystemExit as stop:
        assert stop.code == 2
    written = [one.read_text() for one in tmp_path.rglob("*") if one.is_file() and one != file]
    shown = "\n".join([*capsys.readouterr(), *written])
    assert "***" in shown
    assert not re.search("s3cret|0dd", shown)


def test_an_error_that_nobody_expected_is_traced_without_the_secrets_of_an_address(tmp_path, monkeypatch, capsys):
    def broken(*_):
        print("opens https://anna:s3cret-pw@host/x")
        raise LookupError("https://anna:s3cret-pw@host/x?sig=0dd")

    monkeypatch.setattr(actions, "prepare", broken)
    monkeypatch.setattr("sys.argv", ["imgae-train", str(params_file(tmp_path))])
    assert cli.train_command() == 1
    out, err = capsys.readouterr()
    assert "opens https://***@host/x\n" in out
    assert "LookupError: https://***@host/x?***\n" in err and "Traceback" in err


def test_a_run_is_evaluated_when_the_environment_holds_its_address_and_not_without(
    shards, tmp_path, monkeypatch, capsys
):
    _, images = shards
    address, shown = f"file://anna:s3cret-pw@{images}", f"file://***@{images}"
    monkeypatch.setattr(
        "lib.data.sources.StreamSource", lambda whole: StreamSource(whole.replace("anna:s3cret-pw@", ""))
    )
    file = params_file(tmp_path, methods=["ra"], source="stream", data_dir=address)
    assert cli.train([str(file)]) == 0
    run = tmp_path / "runs" / "tiny"
    assert Run.open(run).params.data_dir == shown
    monkeypatch.setattr(privacy, "_whole", {})
    monkeypatch.setattr("sys.argv", ["imgae-evaluate", str(run)])
    assert cli.evaluate_command() == 2
    assert f"data_dir={shown} lacks its secrets" in capsys.readouterr().err
    monkeypatch.setenv("IMGAE_DX_DATA_DIR", address)
    assert cli.evaluate_command() == 0
    assert not any(b"s3cret" in one.read_bytes() for one in run.rglob("*") if one.is_file())


def test_a_run_on_shards_is_the_run_on_the_source_that_they_were_written_from(shards, tmp_path):
    direct, images = shards
    file = params_file(tmp_path, methods=["ra"], source="stream", data_dir=str(images))
    assert cli.train([str(file)]) == cli.evaluate([str(tmp_path / "runs" / "tiny")]) == 0
    runs = (direct, tmp_path / "runs" / "tiny")
    manifests = [json.loads((run / "split.json").read_text()) for run in runs]
    assert manifests[0] == manifests[1]
    tables = [pd.read_parquet(run / "scores.parquet") for run in runs]
    pd.testing.assert_frame_equal(tables[0], tables[1][tables[0].columns], check_exact=True)
    located = [Run.open(run).results().localisation for run in runs]
    assert located[0] == located[1] is not None


KILLED = """
import os, signal, sys, torch
import lib.data.cache, lib.data.stream
from lib.runs import actions, cli
from lib.methods.variants import VARIANTS

torch.set_num_threads(1)  # as here: sums of other parts would differ in the last bit

lib.data.cache.CHUNK, seen, contents = 8, [], lib.data.stream.StreamSource.contents

def counted(self, ids):
    for image_id, read in contents(self, ids):
        seen.append(image_id)
        with open(sys.argv[2], "a") as log:
            log.write(image_id + "\\n")
        yield image_id, read
        if len(seen) == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)

lib.data.stream.StreamSource.contents = counted
cli.train([sys.argv[1]])
"""


def test_a_run_on_shards_that_is_killed_goes_on_with_no_image_lost_or_doubled(shards, tmp_path, monkeypatch):
    direct, images = shards
    monkeypatch.setenv("IMGAE_DX_CACHE", str(tmp_path / "cache"))
    file = params_file(tmp_path, methods=["ra"], source="stream", data_dir=str(images))
    log, ended = tmp_path / "images.txt", []
    for after in (20, 1000):  # killed in the first run's third chunk; the second run ends by itself
        call = [sys.executable, "-c", KILLED, str(file), str(log), str(after)]
        ended.append(subprocess.run(call, cwd=LIB.parent, capture_output=True).returncode)
    assert ended == [-signal.SIGKILL, 0]
    read = log.read_text().split()
    assert (len(set(read)), len(read)) == (40, 40 + 20 - 16)  # two chunks of eight had been kept
    states = [torch.load(run / "checkpoints" / "ra.pt") for run in (direct, tmp_path / "runs" / "tiny")]
    assert all(torch.equal(states[0]["method"][name], weight) for name, weight in states[1]["method"].items())


def test_shards_are_written_without_what_cannot_be_used_and_that_is_said(tmp_path, capsys):
    pytest.importorskip("datasets")
    data = folder_of_images(tmp_path / "data")
    (data / "images" / "7.png").write_bytes(b"")
    file = params_file(tmp_path, source="folder", data_dir=str(data), on_bad_image="skip")
    assert cli.shards([str(file), "--to", str(tmp_path / "images")]) == 0
    assert "1 images: is empty: left out" in capsys.readouterr().err
    index = json.loads((tmp_path / "images" / "shards.json").read_text())
    assert index["images"] == 39


def test_the_address_that_is_given_for_written_shards_leads_there_from_anywhere(tmp_path, monkeypatch, capsys):
    pytest.importorskip("datasets")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert cli.shards([str(params_file(tmp_path)), "--to", "images"]) == 0
    address = capsys.readouterr().out.split("data_dir: ")[1].strip()
    file = params_file(tmp_path, "reader", source="stream", data_dir=address, methods=["unet"])
    assert cli.train([str(file)]) == 0


# A data set of Kaggle


@CLIENT_LEAVES_SOCKETS_OPEN
def test_a_data_set_of_kaggle_goes_from_its_archive_to_results(tmp_path, monkeypatch):
    classes = ["Normal"] * 28 + ["Lung Opacity"] * 8 + ["No Lung Opacity / Not Normal"] * 4
    rows = [f"p{i},{'1,2,9,9' if name == 'Lung Opacity' else ',,,'},0,{name},51,F,AP" for i, name in enumerate(classes)]
    table = "\n".join(["patientId,x,y,width,height,Target,class,age,sex,position", *rows])
    files = {f"Training/Images/p{i}.png": image(i) for i in range(40)}
    with serving(tmp_path / "kaggle", monkeypatch) as server:
        packed = archive({"stage2_train_metadata.csv": table.encode(), **files})
        server.archives[REGISTRY["rsna"].handle] = packed
        assert cli.train([str(params_file(tmp_path, source="rsna", labels="strict", methods=["unet"]))]) == 0
        assert cli.evaluate([str(tmp_path / "runs" / "tiny")]) == 0
        assert len(server.transfers()) == 1
    results = Run.open(tmp_path / "runs" / "tiny").results()
    evaluation = results.evaluation
    assert (evaluation.n_abnormal, evaluation.left_out) == (8, {"other_abnormal": 4})
    assert results.patient_separation.startswith("unverified")
    assert results.problems == {"unexpected number of images: used": 2}
    assert results.localisation.marked == 8


def test_caches_are_listed_and_removed_by_name_by_age_and_all(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("IMGAE_DX_CACHE", str(tmp_path))
    for number, days in enumerate((50, 20, 0)):
        folder = tmp_path / f"images-{number:016x}"
        folder.mkdir()
        np.save(folder / "pixels.npy", np.zeros((7, 32, 32), dtype=np.uint8))
        for path in (folder / "pixels.npy", folder):
            os.utime(path, (0, time.time() - 86_400 * days))

    def answer(*arguments: str) -> list[str]:
        assert cli.cache(arguments) == 0
        return capsys.readouterr().out.splitlines()

    lines = answer("list")
    assert [line.split()[0] for line in lines[:-1]] == [f"images-{number:016x}" for number in range(3)]
    assert all("7 images of   32 px" in line and "last used 20" in line for line in lines[:-1])
    assert lines[-1].startswith(f"3 caches in {tmp_path}, ")
    assert answer("purge", "--days", "30")[0] == f"images-{0:016x}  removed"
    assert cli.cache(["remove", "images-of-mine"]) == 2
    assert f"images-of-mine is no cache in {tmp_path}: `imgae-cache list`" in capsys.readouterr().err
    assert answer("remove", f"images-{2:016x}")[-1].startswith("1 of 2 caches removed, ")
    assert answer("purge")[-1].startswith("1 of 1 caches removed, ")
    assert answer("list") == [f"0 caches in {tmp_path}, 0.0 MB"]


@pytest.mark.parametrize("days", ["0", "-5"])
def test_a_number_of_days_below_one_is_refused_and_removes_no_cache(tmp_path, monkeypatch, capsys, days):
    monkeypatch.setenv("IMGAE_DX_CACHE", str(tmp_path))
    (cache := tmp_path / f"images-{0:016x}").mkdir()
    np.save(cache / "pixels.npy", np.zeros((7, 32, 32), np.uint8))
    with pytest.raises(SystemExit, match="2"):
        cli.cache(["purge", "--days", days])
    assert "expected 1 or more" in capsys.readouterr().err and cache.is_dir()


# What every command has

COMMANDS = tomllib.loads((LIB.parent / "pyproject.toml").read_text())["project"]["scripts"]
HELP = """
import sys
from contextlib import suppress
from lib.runs import cli
for function in sys.argv[1:]:
    for words in (["--help"], ["--no-such-word"]):
        with suppress(SystemExit):
            getattr(cli, function)(words)
print({"torch", "numpy", "pandas", "pydantic"} & set(sys.modules))
"""


def call(*words: str, cwd: Path = LIB.parent) -> subprocess.CompletedProcess:
    """Run a command of this checkout, or Python, in a process of its own."""
    name, *rest = words
    code = f"import sys; from lib.runs import cli; sys.exit(cli.{name.removeprefix('imgae-')}_command())"
    environment = os.environ | {"PYTHONPATH": str(LIB.parent)}
    return subprocess.run([sys.executable, "-c", code, *rest], cwd=cwd, env=environment, capture_output=True, text=True)


def test_help_and_mistakes_in_the_words_wait_for_no_library():
    functions = [place.partition(":")[2] for place in COMMANDS.values()]
    words = [sys.executable, "-c", HELP, *functions]
    done = subprocess.run(words, cwd=LIB.parent, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("set()\n")
    assert all(f"usage: {name}" in done.stdout for name in COMMANDS)


def test_help_of_what_takes_a_params_file_says_where_settings_are_explained(capsys):
    chapter = re.search(r"^## (Choose the settings)$", (LIB.parent / "docs/USAGE.md").read_text(), re.M)[1]
    for function in (cli.train, cli.run, cli.shards):
        with pytest.raises(SystemExit, match="0"):
            function(["--help"])
        words = " ".join(capsys.readouterr().out.split())
        assert f'docs/USAGE.md, "{chapter}"' in words and "those of the project are in params/" in words


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_its_version_and_the_commit_of_its_checkout(name, capsys, monkeypatch):
    monkeypatch.setattr(environment, "revision", lambda: "0a1b2c3")
    with pytest.raises(SystemExit, match="0"):
        getattr(cli, COMMANDS[name].partition(":")[2])(["--version"])
    project = tomllib.loads((LIB.parent / "pyproject.toml").read_text())["project"]
    assert capsys.readouterr().out == f"{name} of {project['name']} {project['version']}, revision 0a1b2c3\n"


def test_the_revision_is_the_commit_of_the_checkout_and_says_if_files_have_changed(tmp_path, monkeypatch):
    def git(*words: str) -> str:
        who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        return subprocess.run(["git", "-C", tmp_path, *who, *words], check=True, capture_output=True, text=True).stdout

    (tmp_path / "lib").mkdir()
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "lib" / "environment.py"))
    assert environment.revision() == ""
    git("init", "--quiet")
    (tmp_path / "lib" / "environment.py").write_text("")
    git("add", ".")
    git("commit", "--quiet", "-m", "Begin")
    commit = git("rev-parse", "--short", "HEAD").strip()
    assert environment.revision() == commit
    (tmp_path / "lib" / "environment.py").write_text("1")
    assert environment.revision() == f"{commit}-dirty"


def test_quiet_leaves_the_result_and_takes_bars_and_information_away(tmp_path):
    file = str(params_file(tmp_path, methods=["unet"], backbone="none", references=["mean-grey"]))
    run = tmp_path / "runs" / "tiny"
    done = call("imgae-train", file, "--quiet")
    assert (done.stdout, done.stderr) == (f"trained unet: {run}\nnext: imgae-evaluate {run}\n", "")
    loud = call("imgae-evaluate", str(run))
    stages = [line for line in loud.stdout.splitlines() if re.match(r"\w+: (runs|skipped)", line)]
    assert len(stages) > 2 and "scores:   0%" in loud.stderr
    quiet = call("imgae-evaluate", str(run), "--quiet")
    assert loud.stdout.splitlines() == [*stages, *quiet.stdout.splitlines()] and quiet.stderr == ""


def test_quiet_keeps_warnings_and_errors(tmp_path):
    data = folder_of_images(tmp_path / "data")
    (data / "images" / "7.png").write_bytes(b"")
    file = str(params_file(tmp_path, source="folder", data_dir=str(data), on_bad_image="skip", methods=["unet"]))
    done = call("imgae-train", file, "--quiet")
    assert "1 images: is empty: left out" in done.stderr
    done = call("imgae-train", file, "--quiet", "--set", "epochs=0")
    assert done.returncode == 2 and "epochs=0 is int; epochs wants an integer, at least 1" in done.stderr
