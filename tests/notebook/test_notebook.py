"""The built notebook, executed as its users execute it: nbmake, papermill on the command line, the runner."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks/Anomaly_Detection_Research_Colab.ipynb"
SMOKE = yaml.safe_load((ROOT / "params/smoke.yaml").read_text())


def terminal(*command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess:
    """Type a command in `folder`, as a user of this Python's environment would."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **environment}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1800)


def typed(folder: Path, name: str, **settings) -> Path:
    """Write a user's own params file, without the frozen network that takes most of a small run's time."""
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump({**SMOKE, "backbone": "none", "run_dir": f"runs/{name}", **settings}))
    return file


def test_nbmake_passes_and_every_code_cell_was_executed(tmp_path):
    prepared = tmp_path / "smoke.ipynb"
    papermill.execute_notebook(NOTEBOOK, prepared, parameters=SMOKE, prepare_only=True, kernel_name="python3")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--nbmake",
        "--overwrite",
        "--nbmake-timeout=300",
        "-p",
        "no:cacheprovider",
    ]
    done = terminal(*command, "smoke.ipynb", folder=tmp_path)
    assert done.returncode == 0, done.stdout[-3000:]
    cells = [cell for cell in nbformat.read(prepared, as_version=4).cells if cell.cell_type == "code"]
    # nbmake passes a run that a magic's UsageError has ended: the counts say what was really executed.
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [cell.source for cell in cells if "UsageError" in json.dumps(cell.outputs)]
    timed = [cell.metadata.imgae_dx.source for cell in cells if "This chapter takes" in json.dumps(cell.outputs)]
    assert [source.partition("/")[2][:2] for source in timed] == [f"{chapter:02}" for chapter in range(3, 9)]
    assert json.loads((tmp_path / "runs/smoke/status.json").read_text())["status"] == "ok"
    left = {path.name for path in (tmp_path / "runs/smoke").iterdir()}
    assert left >= {
        "params.json",
        "split.json",
        "metrics.jsonl",
        "checkpoints",
        "scores.parquet",
        "results.json",
        "figures",
    }


@pytest.mark.long  # two executions; the runner's test holds one, and tests/runs/test_comparison.py the comparison
def test_papermill_trains_one_method_each_and_the_second_run_compares_the_two(tmp_path):
    for method in ("unet", "ra"):
        file = typed(tmp_path, method, methods=[method], compare_with=["runs/unet"] if method == "ra" else [])
        done = terminal("papermill", str(NOTEBOOK), f"{method}.ipynb", "-f", str(file), folder=tmp_path)
        assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"runs/{m}/results.json").read_text()) for m in ("unet", "ra"))
    assert list(first["methods"]) == ["unet"]
    assert {name: entry["run"] for name, entry in second["methods"].items()} == {"ra": "ra", "unet": "unet"}
    assert first["split"] == second["split"]
    assert [(d["first"], d["second"]) for d in second["evaluation"]["differences"]] == [("unet", "ra")]
    assert second["evaluation"]["methods"]["unet"]["auroc"] == first["evaluation"]["methods"]["unet"]["auroc"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("epocs: 3", ["epocs=3", "did you mean epochs?"]),
        ("learning_rate: 1e-4", ["learning_rate='1e-4'", "a number, above 0, at most 1", "write 0.0001"]),
        ("image_size: 33", ["image_size=33", "not a multiple of 4", "write 32 or 36"]),
    ],
)
def test_papermill_stops_at_a_wrong_parameter_before_anything_is_trained(tmp_path, line, words):
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(SMOKE | {"run_dir": "runs/wrong"}) + line + "\n")
    done = terminal("papermill", str(NOTEBOOK), "out.ipynb", "-f", "wrong.yaml", folder=tmp_path)
    assert done.returncode != 0
    assert not [word for word in words if word not in done.stderr], done.stderr[-2000:]
    assert not (tmp_path / "runs").exists()


def test_the_runner_leaves_the_executed_notebook_the_report_and_the_final_status(tmp_path):
    file = typed(tmp_path, "mine", methods=["unet"])
    done = terminal("imgae-run", str(file), "--set", f"run_dir={tmp_path}/runs/mine", folder=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    run = tmp_path / "runs/mine"
    assert "synthetic images: a smoke test, not evidence" in done.stdout
    assert done.stdout.rstrip().endswith(f"report: {run / 'report.html'}")
    assert json.loads((run / "status.json").read_text())["status"] == "ok"
    assert nbformat.read(run / "notebook.ipynb", as_version=4).metadata.papermill.exception is None
    page = (run / "report.html").read_text()
    assert "Which one wins" in page and 'href="gallery.html"' in page
    others = ((run / name).read_text(encoding="utf-8") for name in ("notebook.ipynb", "results.json", "gallery.html"))
    for shown in (page, *others):
        assert str(tmp_path) not in shown and str(ROOT) not in shown and str(Path.home()) + "/" not in shown
    text = re.sub(r"<[^>]+>", "", page)
    assert "%%embed lib/" not in text and "%%unpack" not in text and "class ReversedAutoencoder" not in text
    again = terminal("imgae-evaluate", str(run), folder=ROOT)  # the chapters have run every stage already
    assert again.returncode == 0, again.stderr[-3000:]
    assert [line.partition(":")[2].split(",")[0] for line in again.stdout.splitlines()[:5]] == [" skipped"] * 5


def test_the_runner_says_why_a_run_failed_and_keeps_what_was_executed(tmp_path):
    file = typed(tmp_path, "bad", source="folder", data_dir=str(tmp_path / "nothing"))
    done = terminal("imgae-run", str(file), "--set", f"run_dir={tmp_path}/runs/bad", folder=ROOT)
    assert done.returncode != 0
    status = json.loads((tmp_path / "runs/bad/status.json").read_text())
    assert status["status"] == "failed"
    assert "not an existing folder: give the path" in status["why"]
    assert (tmp_path / "runs/bad/partial.ipynb").is_file()


@pytest.mark.long
def test_both_methods_in_one_execution_equal_one_execution_each(tmp_path):
    for name in ("unet", "ra", "both"):
        file = ROOT / "params" / f"{name}.yaml"
        done = terminal("papermill", str(NOTEBOOK), f"{name}.ipynb", "-f", str(file), folder=tmp_path)
        assert done.returncode == 0, done.stderr[-3000:]
    results = {name: json.loads((tmp_path / f"runs/{name}/results.json").read_text()) for name in ("ra", "both")}
    for method in ("unet", "ra"):
        each, both = (results[name]["evaluation"]["methods"][method] for name in ("ra", "both"))
        assert each == both


@pytest.mark.long
def test_the_demo_runs_from_make_and_ends_with_table_warning_and_report():
    done = terminal("make", "--no-print-directory", "demo", folder=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    *_, warning, report = done.stdout.rstrip().splitlines()
    assert warning == "synthetic images: a smoke test, not evidence"
    assert report == f"report: {ROOT / 'runs/demo/report.html'}"
    assert "AUROC [95 % interval]" in done.stdout
