"""Promises of `lib.runs.tracking`: the tracker holds what the run folder holds, offline, and only on request."""

import json
import re
import socket
import subprocess
import sys
import time
from gzip import decompress
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import wandb
from matplotlib.figure import Figure
from pydantic import BaseModel

from lib.runs.run import Run
from lib.runs.tracking import TrackingError, finish, open_tracker, wandb_mode, why_offline
from tests.runs.small import HISTORY, params


def started(base: Path, **changes):
    run = Run.start(params(run_dir="a", **changes), base)
    return run, open_tracker(run.params, run.folder)


def wandb_records(folder: Path) -> list[str]:
    """The records of each wandb file below `folder` as JSON, as its own command line prints them."""
    program = Path(sys.executable).with_name("wandb")
    found = []
    for file in sorted(folder.rglob("run-*.wandb")):
        shown = subprocess.run([program, "leet", "inspect", "--json", file], capture_output=True, text=True, check=True)
        found += shown.stdout.splitlines()
    return found


def wandb_history(folder: Path) -> list[dict]:
    """The rows of the history in each wandb file below `folder`."""
    records = [json.loads(record) for record in wandb_records(folder)]
    rows = [record["history"]["item"] for record in records if record["type"] == "history"]
    return [{key: value for key, value in row.items() if not key.startswith("_")} for row in rows]


def test_the_tracker_holds_the_history_of_each_method_once(tmp_path):
    run, tracker = started(tmp_path, tracking="wandb", methods=["unet", "ra"])
    tracker.log("unet", HISTORY[:1])
    tracker.log("unet", HISTORY)
    tracker.log("ra", HISTORY)
    finish(run, tracker)
    expected = [{f"{name}/{key}": value for key, value in row.items()} for name in ("unet", "ra") for row in HISTORY]
    sent = wandb_history(run.folder)
    assert len(sent) == len(expected) == 4
    for mine, theirs in zip(expected, sent, strict=True):
        assert theirs == pytest.approx(mine)


def test_a_figure_reaches_the_tracker_once_and_again_if_it_is_drawn_again(tmp_path):
    run, tracker = started(tmp_path, tracking="wandb")
    run.save_figure(Figure(figsize=(2, 1)), "first")
    tracker.figures(run.folder / "figures")
    tracker.figures(run.folder / "figures")
    run.save_figure(Figure(figsize=(2, 1)), "first")
    run.save_figure(Figure(figsize=(2, 1)), "second")
    finish(run, tracker)
    run.save_figure(Figure(figsize=(2, 1)), "later")  # of a chapter below the one that finishes the run
    keys = [key for row in wandb_history(run.folder) for key in row if not key.rpartition(".")[2].startswith("_")]
    for name, times in {"first": 2, "second": 1, "later": 0}.items():
        assert len([row for row in wandb_history(run.folder) if any(name in key for key in row)]) == times, keys


def test_without_tracking_nothing_of_the_tracker_is_written(tmp_path):
    run, tracker = started(tmp_path)
    tracker.log("unet", HISTORY)
    run.save_figure(Figure(figsize=(2, 1)), "empty")
    tracker.figures(run.folder / "figures")
    tracker.summarise({"unet/auroc": 0.5})
    finish(run, tracker)
    files = {str(file.relative_to(run.folder)) for file in run.folder.rglob("*") if file.is_file()}
    assert files == {".lock", "params.json", "status.json", "figures/empty.png", "figures/empty.svg"}


def test_a_tracker_that_is_opened_while_another_is_open_is_its_own(tmp_path):
    """As in a notebook whose parameters cell is changed and run again."""
    try:
        for epoch, (name, tracking) in enumerate([("a", "wandb"), ("b", "wandb"), ("c", "off")]):
            run = Run.start(params(run_dir=name, tracking=tracking), tmp_path)
            tracker = open_tracker(run.params, run.folder)
            tracker.log("unet", [{"epoch": epoch}])
        assert wandb.run is None
        finish(run, tracker)
    finally:
        wandb.finish()
    epochs = {name: [row["unet/epoch"] for row in wandb_history(tmp_path / name)] for name in "abc"}
    assert epochs == {"a": [0], "b": [1], "c": []}


KEY = "a" * 40


class Viewer(BaseHTTPRequestHandler):
    """A server that answers every question as the test says."""

    answer = (200, {"data": {"viewer": {"id": "x"}}})

    def reply(self, asked: bytes):
        return self.answer

    def do_POST(self):
        status, content = self.reply(self.rfile.read(int(self.headers["Content-Length"] or 0)))
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((200, {"data": {"viewer": {"id": "x"}}}), ""),
        ((401, {}), "refuses the key: correct WANDB_API_KEY"),
        ((200, {"data": {"viewer": None}}), "refuses the key: correct WANDB_API_KEY"),
        ((503, {}), "answers 503"),
        ((200, ["log in to the hotel's network"]), "does not answer as Weights & Biases does"),
    ],
)
def test_what_a_server_answers_decides_whether_tracking_is_online(monkeypatch, answer, why):
    monkeypatch.setattr(Viewer, "answer", answer)
    with HTTPServer(("127.0.0.1", 0), Viewer) as server:
        thread = Thread(target=server.handle_request)
        thread.start()
        found = why_offline(f"http://127.0.0.1:{server.server_port}", KEY)
        thread.join()
    assert why in found
    assert bool(found) == bool(why)


def test_a_server_that_says_nothing_is_given_up_on(monkeypatch):
    monkeypatch.setattr("lib.runs.tracking.PATIENCE", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        assert "has not answered within" in why_offline(f"http://127.0.0.1:{silent.getsockname()[1]}", KEY)
    assert time.monotonic() - start < 2


def test_a_name_that_nobody_resolves_is_given_up_on(monkeypatch):
    monkeypatch.setattr("lib.runs.tracking.PATIENCE", 0.3)
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: time.sleep(2))
    start = time.monotonic()
    assert "has not answered within" in why_offline("http://wandb.example", KEY)
    assert time.monotonic() - start < 2


@pytest.mark.parametrize(
    ("key", "reason"), [("", "no WANDB_API_KEY, in the environment or Colab's secrets"), (KEY, "cannot be reached")]
)
def test_tracking_that_cannot_be_online_goes_on_offline_and_says_how_to_upload_it(
    tmp_path, monkeypatch, capsys, key, reason
):
    session = wandb.setup().settings
    monkeypatch.setattr(session, "api_key", key or None)
    monkeypatch.setattr(session, "base_url", "http://127.0.0.1:9")  # where nothing listens
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    start = time.monotonic()
    run, tracker = started(tmp_path, tracking="wandb")
    assert time.monotonic() - start < 10
    tracker.log("unet", HISTORY)
    finish(run, tracker)
    message = capsys.readouterr().err
    [folder] = run.folder.glob("wandb/offline-run-*")
    assert reason in message
    assert f": tracking goes on offline; upload it later with `wandb sync {folder}`" in message
    assert len(wandb_history(run.folder)) == len(HISTORY)


def test_a_login_that_fails_all_the_same_leaves_a_run_that_is_tracked_offline(tmp_path, monkeypatch, capsys):
    init = wandb.init

    def fails_online(mode, **settings):
        if mode == "online":
            raise wandb.errors.AuthenticationError("the key has expired")
        return init(mode=mode, **settings)

    monkeypatch.setattr(wandb, "init", fails_online)
    monkeypatch.setattr("lib.runs.tracking.why_offline", lambda *_: "")
    monkeypatch.setenv("WANDB_MODE", "online")
    run, tracker = started(tmp_path, tracking="wandb")
    finish(run, tracker)
    assert "does not start the run (the key has expired): tracking goes on offline" in capsys.readouterr().err
    assert list(run.folder.glob("wandb/offline-run-*"))


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        *[("", "offline"), ("offline", "offline"), ("dryrun", "offline"), (" Offline ", "offline")],
        *[("online", "online"), ("run", "online"), ("ONLINE", "online"), ("disabled", "disabled")],
    ],
)
def test_each_word_that_wandb_mode_may_say_is_honoured(monkeypatch, said, meant):
    monkeypatch.setenv("WANDB_MODE", said)
    assert wandb_mode(params(tracking="wandb")) == meant
    assert wandb_mode(params(tracking="off")) == "disabled"


@pytest.mark.parametrize("said", ["shared", "yes", "true"])
def test_another_word_is_refused_with_those_that_are_known(monkeypatch, tmp_path, said):
    monkeypatch.setenv("WANDB_MODE", said)
    assert wandb_mode(params(tracking="off")) == "disabled"
    with pytest.raises(TrackingError, match=f"^WANDB_MODE='{said}' is not .* set it to online, offline or disabled"):
        open_tracker(params(tracking="wandb"), tmp_path)


def test_a_disabled_tracker_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    run, tracker = started(tmp_path, tracking="wandb")
    tracker.log("unet", HISTORY)
    finish(run, tracker)
    assert not list(run.folder.rglob("*wandb*"))


def test_a_setting_of_wandb_that_it_refuses_itself_is_a_sentence_without_its_value(tmp_path, monkeypatch):
    class Wrong(BaseModel):
        base_url: int

    def refuse(**_):
        Wrong(base_url="a secret")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(TrackingError) as error:
        open_tracker(params(tracking="wandb"), tmp_path)
    assert str(error.value).startswith("Weights & Biases cannot start (base_url: Input should be a valid integer")
    assert "a secret" not in str(error.value)


def test_the_tracker_gets_no_secret_no_absolute_path_and_no_name(tmp_path, monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "annas-box")
    run, tracker = started(tmp_path / "anna", tracking="wandb", data_dir="https://anna:s3cret-pw@host/x?sig=0ddSign")
    finish(run, tracker)
    files = [file for file in run.folder.glob("wandb/*/files/**/*") if file.is_file()]
    sent = "\n".join([*wandb_records(run.folder), *(file.read_text() for file in files)])
    assert "https://***@host/x?***" in sent
    # Of a worker of the tests the program is -c.
    for word in ("s3cret", "0ddSign", "anna", str(tmp_path), sys.executable, str(Path(sys.argv[0]).absolute())):
        assert word not in sent


TEAM = {"id": "2", "name": "imgae-dx", "entity": {"id": "3", "name": "team"}}
STARTED = {"id": "1", "name": "a", "displayName": "a", "config": "{}", "historyLineCount": 0, "project": TEAM}
USER = {"id": "x", "entity": "team", "username": "team", "flags": '{"code_saving_enabled": true}'}


class Project(Viewer):
    """A server that takes whole runs, and keeps what it is sent."""

    sent: list[str]

    def reply(self, asked):
        asked = decompress(asked) if self.headers["Content-Encoding"] == "gzip" else asked
        self.sent.append(f"{self.path}\n{self.headers}\n{asked.decode(errors='replace')}")
        if b"CreateRunFiles" in asked:
            host, names = self.headers["Host"], json.loads(asked)["variables"]["files"]
            files = [{"name": name, "uploadUrl": f"http://{host}/{name}"} for name in names]
            return 200, {"data": {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": files}}}
        return 200, {"data": {"viewer": USER, "upsertBucket": {"bucket": STARTED, "inserted": True}}}

    do_GET = do_PUT = Viewer.do_POST


def test_the_server_is_sent_no_secret_no_path_and_no_name_of_this_machine(tmp_path, monkeypatch):
    program = tmp_path / "anna/imgae-train"
    program.parent.mkdir()
    program.touch()
    monkeypatch.chdir(program.parent)
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(program), raising=False)  # a worker has none
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None, raising=False)
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr(Project, "sent", [], raising=False)
    session = wandb.setup().settings
    monkeypatch.setattr(session, "api_key", KEY)
    with ThreadingHTTPServer(("127.0.0.1", 0), Project) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(session, "base_url", f"http://127.0.0.1:{server.server_port}")
        run, tracker = started(program.parent, tracking="wandb", data_dir="https://h/x?sig=0ddSign")
        tracker.log("unet", HISTORY)
        finish(run, tracker)
        server.shutdown()
    sent = "\n".join(Project.sent)
    assert "unet/network/total" in sent
    for word in ("anna", "imgae-train", "0ddSign", KEY, str(tmp_path), str(Path.home()), sys.executable):
        assert word not in sent
    assert not re.search(rf"\b{re.escape(socket.gethostname())}\b", sent)


class Failing:
    """A run of wandb whose process has died."""

    def __init__(self, folder: Path, error: BaseException):
        self.settings = wandb.Settings(root_dir=str(folder))
        self.error = error

    def __getattr__(self, name):
        raise self.error


def failing(base: Path, monkeypatch, error: BaseException):
    monkeypatch.setattr(wandb, "init", lambda **_: Failing(base, error))
    run, tracker = started(base, tracking="wandb")
    run.save_figure(Figure(figsize=(2, 1)), "empty")
    folder = run.folder / "figures"
    calls = [lambda: tracker.log("unet", HISTORY), lambda: tracker.figures(folder)]
    return run, [*calls, lambda: tracker.summarise({"unet/auroc": 0.5}), tracker.finish]


@pytest.mark.parametrize("first", range(4))
def test_a_tracker_that_fails_says_so_once_without_secrets_and_the_run_goes_on(tmp_path, monkeypatch, capsys, first):
    error = ConnectionResetError("lost\nhttps://anna:s3cret-pw@host/x")
    run, calls = failing(tmp_path, monkeypatch, error)
    for call in calls[first:] + calls:
        call()
    run.finish()
    [sentence] = capsys.readouterr().err.splitlines()
    assert sentence.startswith("tracking has ended (lost https://***@host/x): the run goes on; upload it later with ")
    assert f"`wandb sync {tmp_path}/" in sentence
    assert json.loads((run.folder / "status.json").read_text())["status"] == "ok"


def test_a_run_that_is_stopped_while_its_tracker_works_stops(tmp_path, monkeypatch):
    for call in failing(tmp_path, monkeypatch, KeyboardInterrupt())[1]:
        with pytest.raises(KeyboardInterrupt):
            call()


def test_a_tracker_that_has_failed_is_not_in_the_way_of_the_next(tmp_path, monkeypatch):
    def fail():
        raise ConnectionResetError("lost")

    monkeypatch.setattr(wandb, "finish", fail)
    open_tracker(params(tracking="off"), tmp_path)
