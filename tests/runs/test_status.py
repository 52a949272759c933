"""Promises of `lib.runs.status`: one process works in a run's folder, and the status is right however it ends."""

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell

from lib.files import write_json
from lib.runs import actions, cli
from lib.runs.run import Run, RunError
from lib.runs.status import RUNNER, reason
from tests.runs.small import finished, params
from tests.runs.test_cli import params_file

WORKING = """
import sys
from pathlib import Path
from lib.runs.status import Status
status = Status(Path(sys.argv[1]))
status.claim()
status.mark("running")
print("working", flush=True)
sys.stdin.read()
"""


@contextmanager
def another_process_in(folder: Path):
    """Another process that works in the folder, and is killed at the end."""
    command = [sys.executable, "-c", WORKING, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "working\n"
        yield
        process.kill()


def status(folder: Path) -> tuple[str, str]:
    content = json.loads((folder / "status.json").read_text())
    return content["status"], content["why"]


# --- one process ------------------------------------------------------------------------------------------------------


def test_a_folder_in_which_another_process_works_is_refused_and_left_as_it_is(tmp_path):
    run = finished(tmp_path, "a", ["unet"])
    folder, settings = run.folder, (run.folder / "params.json").read_bytes()
    del run
    with another_process_in(folder):
        for enter in (lambda: Run.start(params(run_dir="a", seed=1), tmp_path), lambda: Run.open(folder).__enter__()):
            with pytest.raises(RunError, match=r"another process works in .*a: wait until it ends, .*another run_dir"):
                enter()
        assert status(folder) == ("running", "")
        assert (folder / "params.json").read_bytes() == settings


def test_a_run_whose_process_was_killed_is_cut_and_can_be_continued(tmp_path, capsys):
    folder = finished(tmp_path, "a", ["unet"]).folder
    with another_process_in(folder):
        assert Run.open(folder).status() == "running"
    assert Run.open(folder).status() == "cut"
    with Run.open(folder) as run:
        assert run.status() == "running"
    assert capsys.readouterr().out == f"{folder} was cut: its process ended without a word; what it finished is used\n"


def test_one_process_may_start_a_run_twice_and_lets_go_of_the_one_that_it_has_dropped(tmp_path):
    first = Run.start(params(run_dir="a"), tmp_path)
    second = Run.start(params(run_dir="a", seed=1), tmp_path)
    assert first.status() == second.status() == "running"
    del first
    assert Run.open(second.folder).status() == "running"
    folder = second.folder
    del second
    assert Run.open(folder).status() == "cut"


def test_the_kernel_of_a_runner_works_under_its_lock_and_leaves_the_status_to_it(tmp_path, monkeypatch):
    folder = tmp_path / "a"
    with another_process_in(folder):
        monkeypatch.setenv(RUNNER, str(folder))
        run = Run.start(params(run_dir="a"), tmp_path)
        run.fail(ValueError("a cell"))
        run.finish()
        assert (status(folder), run.status()) == (("running", ""), "running")


def test_what_killed_processes_left_half_written_is_removed_at_the_next_start(tmp_path):
    left = tmp_path / "a" / "checkpoints" / ".ra.pt.77.tmp"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    Run.start(params(run_dir="a"), tmp_path)
    assert not left.exists()


@pytest.mark.parametrize("kind", ["a file", "below a file", "a link to itself"])
def test_a_run_dir_that_cannot_be_a_folder_is_refused(tmp_path, kind):
    place = tmp_path / "a"
    place.symlink_to(place) if "link" in kind else place.write_text("")
    with pytest.raises(RunError, match=r"cannot be a run's folder|leads nowhere"):
        Run.start(params(run_dir="a/b" if "below" in kind else "a"), tmp_path)


# --- how it ends ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "why"),
    [
        (lambda: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda: sys.exit(3), "SystemExit: 3"),
        (lambda: signal.raise_signal(signal.SIGINT), "stopped by SIGINT"),
        (lambda: signal.raise_signal(signal.SIGTERM), "stopped by SIGTERM"),
        (lambda: signal.raise_signal(signal.SIGHUP), "stopped by SIGHUP"),
    ],
    ids=["error", "exit", "SIGINT", "SIGTERM", "SIGHUP"],
)
def test_whatever_ends_the_work_is_the_reason_why_the_run_has_failed(tmp_path, end, why):
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with pytest.raises((ZeroDivisionError, SystemExit, KeyboardInterrupt)), Run.start(params(run_dir="a"), tmp_path):
        end()
    assert status(tmp_path / "a") == ("failed", why)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == handlers


def test_a_hang_up_that_nohup_ignores_is_still_ignored(tmp_path, monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Run.start(params(run_dir="a"), tmp_path) as run:
            signal.raise_signal(signal.SIGHUP)
            run.finish()
    finally:
        signal.signal(signal.SIGHUP, before)
    assert status(tmp_path / "a") == ("ok", "")


def test_a_status_that_cannot_be_written_does_not_hide_why_the_run_has_failed(tmp_path, monkeypatch, capsys):
    run = Run.start(params(run_dir="a"), tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lib.runs.status.write_json", full)
    with pytest.raises(ZeroDivisionError):
        run.__exit__(None, error := ZeroDivisionError(), None)
        raise error
    assert "status.json cannot be written (No space left on device)" in capsys.readouterr().err
    assert Run.open(run.folder).status() == "cut"


@pytest.mark.parametrize("stage", ["open_tracker", "prepare", "load", "finish"])
def test_an_evaluation_that_fails_leaves_a_failed_run_whichever_stage_it_was(tmp_path, monkeypatch, stage):
    run = finished(tmp_path, "a", ["unet"])
    for name in ("open_tracker", "prepare", "load", "score", "locate", "comparable"):
        monkeypatch.setattr(actions, name, lambda *_, **__: type("Anything", (), {"method": None, "split": None}))
    for name in ("evaluate_comparison", "audit", "draw"):
        monkeypatch.setattr(actions, name, lambda *_, **__: None)
    monkeypatch.setattr(actions, stage, lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.evaluate([str(run.folder)])
    assert status(run.folder) == ("failed", "ZeroDivisionError: division by zero")


def test_a_run_that_is_executed_is_ok_only_once_its_report_is_written(tmp_path, monkeypatch):
    executed, environment = [], dict(os.environ)

    def execute(notebook, partial, **_):
        run = Run.start(params(run_dir=str(tmp_path / "a")), tmp_path)  # as the kernel does, under the same lock
        run.finish()
        partial.write_text("")
        executed.append(status(tmp_path / "a"))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("papermill.execute_notebook", execute)
    monkeypatch.setattr("lib.runs.page.write_report", full)
    for name in ("shown_run", "write_gallery"):
        monkeypatch.setattr(actions, name, lambda *_: None)  # nothing was scored
    monkeypatch.setattr(actions, "NOTEBOOK", params_file(tmp_path))
    with pytest.raises(OSError, match="No space"):
        cli.run([str(params_file(tmp_path)), "--set", f"run_dir={tmp_path / 'a'}"])
    assert executed == [("running", "")]
    assert status(tmp_path / "a")[0] == "failed"
    assert dict(os.environ) == environment


def test_an_error_in_a_cell_marks_the_run_as_failed_and_one_that_is_finished_stays_so(tmp_path):
    shell = InteractiveShell.instance()
    try:
        run = Run.start(params(run_dir="a"), tmp_path)
        shell.run_cell("1 + 1")
        assert status(run.folder)[0] == "running"
        shell.run_cell("1 / 0")
        assert status(run.folder) == ("failed", "ZeroDivisionError: division by zero")
        run.finish()
        shell.run_cell("1 / 0")
        assert status(run.folder) == ("ok", "")
    finally:
        InteractiveShell.clear_instance()


def test_an_error_in_a_cell_is_shown_and_recorded_without_the_secrets_of_an_address(tmp_path, capsys):
    shell = InteractiveShell.instance()
    try:
        run = Run.start(params(run_dir="anna/a"), tmp_path)
        Run.start(params(run_dir="anna/a"), tmp_path)
        shell.run_cell(f"raise OSError('https://anna:s3cret-pw@host/x?sig=0dd in {tmp_path}/anna/a/x y')")
        shown = capsys.readouterr().out
        assert "https://***@host/x?***" in shown
        assert not re.search("s3cret|0dd", shown)
        assert status(run.folder) == ("failed", "OSError: https://***@host/x?*** in a/x y")
    finally:
        InteractiveShell.clear_instance()


@pytest.mark.parametrize("length", [1970, 1990, 2000])
def test_a_long_reason_is_cut_where_it_shows_no_part_of_a_secret(length):
    error = OSError(f"https://anna:pw@host/x{' ' * (length - len('pw@host/x'))}")
    assert not re.search("pw@|anna", reason(error))


@pytest.mark.parametrize(("word", "code"), [("", 130), ("SIGTERM", 143)])
def test_an_interrupted_command_prints_one_line(word, code, tmp_path, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt(*[word] * bool(word))

    monkeypatch.setattr(actions, "prepare", interrupted)
    monkeypatch.setattr("sys.argv", ["imgae-train", str(params_file(tmp_path))])
    assert cli.train_command() == code
    name = word or "SIGINT"
    assert capsys.readouterr().err == f"stopped by {name}: the same command goes on from what is finished\n"


def test_a_full_disk_ends_a_command_in_one_line_that_names_the_file(tmp_path, monkeypatch, capsys):
    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(
        actions, "prepare", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device", "x.pt"))
    )
    monkeypatch.setattr("sys.argv", ["imgae-train", str(params_file(tmp_path))])
    assert cli.train_command() == 2
    printed = "x.pt: No space left on device: make room on that disk; then start the same command again\n"
    assert capsys.readouterr().err == printed
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space") as error:
        write_json(tmp_path / "new.json", {})
    assert error.value.filename == str(tmp_path / "new.json")
