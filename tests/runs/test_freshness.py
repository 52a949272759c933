"""Promises of `lib.runs.freshness`: a stage runs again if something that it reads has changed, and only then."""

import json
import re
import shutil
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from lib.methods.checkpoint import read_state, write_state
from lib.params import Params
from lib.runs import cli, freshness, prepare, score
from lib.runs.comparison import comparable
from lib.runs.draw import draw
from lib.runs.evaluate import audit, evaluate, locate
from lib.runs.freshness import STAGES
from lib.runs.run import Run
from lib.runs.train import load
from tests.runs.small import finished
from tests.runs.test_cli import params_file

ALL = set(STAGES)
BEHIND = {"locate", "evaluate", "audit", "draw"}  # those that read no more than scores, maps and labels


@pytest.fixture(scope="module", autouse=True)
def _plain_figures():
    """Let figures be empty: what they show is no matter here, and drawing takes longer than all else."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("score_distributions", "forest", "false_alarms", "cases"):
            patch.setattr(f"lib.runs.draw.{name}", lambda *_: Figure((1, 1)))
        patch.setattr("lib.runs.draw.curves", lambda *_: (Figure((1, 1)), Figure((1, 1))))
        patch.setattr("lib.runs.actions.loss_curves", lambda *_: Figure((1, 1)))
        yield


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two runs on the same images, of a method each, evaluated apart from each other."""
    folders = {}
    for name in ("ra", "unet"):
        base = tmp_path_factory.mktemp(name)
        file = params_file(base, name, methods=[name], references=["mean-grey", "pca"], backbone="none")
        assert cli.train([str(file)]) == cli.evaluate([str(base / "runs" / name)]) == 0
        folders[name] = base / "runs" / name
    return folders


@pytest.fixture
def run(evaluated, tmp_path) -> Path:
    """A copy of the run of RA, to be changed."""
    return shutil.copytree(evaluated["ra"], tmp_path / "runs" / "ra")


def stages(run: Path, capsys: pytest.CaptureFixture) -> dict[str, str]:
    """Evaluate; return the stages that have run, and why."""
    capsys.readouterr()
    assert cli.evaluate([str(run)]) == 0
    lines = dict(re.findall(r"^(\w+): (runs, .*|skipped, its inputs have not changed)$", capsys.readouterr().out, re.M))
    assert list(lines) == list(STAGES)
    return {name: why.removeprefix("runs, ") for name, why in lines.items() if why.startswith("runs")}


def setting(run: Path, **changes) -> None:
    file = run / "params.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def retrained(run: Path) -> None:
    file = run / "checkpoints" / "ra.pt"
    state = read_state(file)
    next(iter(state["method"].values())).add_(0.01)
    write_state(file, state)


def test_nothing_runs_where_nothing_has_changed_and_nothing_is_written(run, capsys):
    before = {file: file.stat().st_mtime_ns for file in run.rglob("*") if file.is_file() and file.name != "status.json"}
    assert stages(run, capsys) == {}
    assert {file: file.stat().st_mtime_ns for file in before} == before


@pytest.mark.parametrize(
    ("change", "expected", "why"),
    [
        (retrained, ALL, "changed: weights of ra"),
        (lambda run: setting(run, references=["mean-grey"]), ALL, "changed: references"),
        (lambda run: setting(run, resamples=120), BEHIND, "changed: resamples"),
        (lambda run: run.rename(run.with_name("other")), ALL, "changed: run"),
    ],
    ids=["weights", "references", "resamples", "name"],
)
def test_what_a_stage_reads_makes_it_run_and_those_behind_it(run, capsys, change, expected, why):
    change(run)
    found = stages(run if run.is_dir() else run.with_name("other"), capsys)
    assert set(found) == expected
    assert next(iter(found.values())) == why


def test_a_run_that_it_names_is_evaluated_without_scoring_again_once_it_is_there(run, evaluated, capsys):
    setting(run, compare_with=[str(run.with_name("unet"))])
    assert stages(run, capsys) == {}
    shutil.copytree(evaluated["unet"], run.with_name("unet"))
    assert set(found := stages(run, capsys)) == {"evaluate", "audit", "draw"}
    assert found["evaluate"] == "changed: scores of unet in unet, budget of unet"
    results = (run / "results.json").read_bytes()
    assert list(json.loads(results)["evaluation"]["methods"]) == ["unet", "ra"]
    assert stages(run, capsys) == {}
    assert cli.evaluate([str(run), "--force"]) == 0
    assert (run / "results.json").read_bytes() == results


def test_lesions_are_read_by_what_shows_and_by_what_claims_them(run, capsys, monkeypatch):
    whole = prepare.load_masks
    monkeypatch.setattr(prepare, "load_masks", lambda *words: dict(list(whole(*words).items())[1:]))
    assert set(stages(run, capsys)) == {"locate", "audit", "draw"}


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("methods", {"score", "audit"}),  # which then have scored as before
        ("scores", ALL),
        ("evidence", BEHIND),
        ("figures", {"draw"}),
        ("figures/tables.py", {"audit"}),
        ("runs/draw.py", {"draw"}),
    ],
)
def test_other_code_makes_the_stages_run_that_it_computes(run, capsys, monkeypatch, code, expected):
    as_it_is = freshness._code
    monkeypatch.setattr(freshness, "_code", lambda name: "other" if name == code else as_it_is(name))
    found = stages(run, capsys)
    assert set(found) == expected
    assert next(iter(found.values())) == f"changed: lib/{code}"


def test_every_room_and_file_that_a_stage_names_is_there():
    for stage in STAGES.values():
        assert all(freshness._code(name) != freshness._code("__init__.py") for name in stage.code)
    assert freshness._code("figures") != freshness._code("evidence")
    with pytest.raises(FileNotFoundError):
        freshness._code("nowhere.py")


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("figures/roc.svg", {"draw"}),
        ("tables/audit.csv", {"audit"}),
        ("candidates.csv", {"score"}),
        ("scores.parquet", {"score"}),
        ("results.json", ALL - {"draw"}),
        ("reconstructions/ra.1.test.npy", {"score"}),
    ],
)
def test_what_is_missing_is_made_again(run, capsys, file, expected):
    before = (run / "results.json").read_bytes()
    (run / file).unlink()
    found = stages(run, capsys)
    assert set(found) == expected
    assert next(iter(found.values())) == f"missing or altered: {file}"
    assert (run / file).is_file()
    assert (run / "results.json").read_bytes() == before


@pytest.mark.parametrize("field", ["version", "evaluation"])
def test_results_of_an_older_version_or_that_somebody_has_altered_are_made_again(run, capsys, field):
    before = (run / "results.json").read_bytes()
    content = json.loads(before)
    content[field] = 1 if field == "version" else content["evaluation"] | {"patients": 7}
    (run / "results.json").write_text(json.dumps(content))
    assert set(stages(run, capsys)) == (ALL - {"draw"} if field == "version" else {"evaluate", "audit"})
    assert (run / "results.json").read_bytes() == before


@pytest.mark.parametrize(
    "content", ["[]", "7", "[", '{"score": {}}', '{"score": []}', '{"score": {"read": [], "wrote": {}}}', '{"draw": 1}']
)
def test_a_record_that_is_none_counts_as_missing(content, tmp_path):
    opened = finished(tmp_path, "r", ["ra"])
    (opened.folder / "stages.json").write_text(content)
    assert freshness.Record(opened, "score").why() == "not recorded in stages.json"
    assert freshness.map_hashes(opened, {}).keys() == {"lesions"}
    freshness.Record(opened, "draw").close(opened.results())
    assert freshness.Record(opened, "draw").why() == ""


def test_force_runs_every_stage(run, capsys, monkeypatch):
    closed = []
    close = freshness.Record.close
    monkeypatch.setattr(
        freshness.Record, "close", lambda record, *words: (closed.append(record.name), close(record, *words))[1]
    )
    before = (run / "results.json").read_bytes()
    cli.evaluate([str(run), "--force"])
    assert closed == list(STAGES)
    assert "--force: every stage runs" in capsys.readouterr().out
    assert (run / "results.json").read_bytes() == before


def test_a_stage_that_breaks_off_runs_again(run, capsys, monkeypatch):
    setting(run, resamples=120)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Run, "save_table", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        cli.evaluate([str(run)])
    assert set(stages(run, capsys)) == {"audit", "draw"}


class Watched(Params):
    """Settings that note which of them are read."""

    def __getattribute__(self, name):
        if name in type(self).model_fields:
            READ.add(name)
        return super().__getattribute__(name)


READ: set[str] = set()
IN_WEIGHTS = {"methods", "epochs", "choose_from"}  # they say which weights' files there are, and those are hashed


def test_a_stage_reads_no_setting_but_those_that_it_is_known_to_read(run):
    opened = Run.open(run)
    prepared = prepare.prepare(opened.params, run)
    trained = {name: load(opened, name, prepared.split).method for name in opened.params.methods}
    opened.params = Watched(**opened.params.model_dump())
    comparison = comparable(opened)
    READ.clear()
    scored = score.score(opened, prepared, trained)
    assert {*STAGES["score"].settings} >= READ
    for name, stage in {
        "locate": lambda: locate(opened, prepared, scored),
        "evaluate": lambda: evaluate(opened, comparison),
        "audit": lambda: audit(opened, prepared, comparison, trained),
        "draw": lambda: draw(opened, prepared, scored, comparison),
    }.items():
        READ.clear()
        stage()
        assert {*STAGES[name].settings} >= READ - IN_WEIGHTS, name
