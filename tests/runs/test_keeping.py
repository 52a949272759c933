"""Promises of `lib.runs.keeping`.

A copy is whole or is never taken, and what is wrong with its disk ends no training.
"""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch

from lib.figures.images import Drawing
from lib.methods.checkpoint import kept, write_state
from lib.methods.unet import UNetAutoencoder
from lib.methods.variants import VARIANTS
from lib.runs import keeping
from lib.runs.keeping import Keeper, KeepingError
from lib.runs.run import Run
from lib.runs.tracking import Tracker
from lib.runs.train import train
from tests.runs.small import divided, params, prepared

KILLED_WHILE_COPYING = """
import os, shutil, signal, sys
from pathlib import Path
from lib.runs.keeping import Keeper

def half(source, target):
    target.write(source.read(500))
    target.flush()
    os.kill(os.getpid(), signal.SIGKILL)

keeper = Keeper(Path(sys.argv[1]), Path(sys.argv[2]))
shutil.copyfileobj = half
keeper.keep_checkpoints()
"""


@pytest.fixture
def run(tmp_path):
    """A run's folder with one checkpoint."""
    folder = tmp_path / "machine" / "a"
    write(folder / "checkpoints/unet.pt", b"1" * 1000)
    return folder


def write(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def taken(tmp_path, name="unet.pt"):
    """What a new machine gets of a checkpoint."""
    shutil.rmtree(tmp_path / "new", ignore_errors=True)
    Keeper(tmp_path / "drive", tmp_path / "new" / "a").take()
    file = tmp_path / "new" / "a" / "checkpoints" / name
    return file.read_bytes() if file.is_file() else None


def copies(tmp_path):
    """The kept copies of checkpoints, newest first."""
    return sorted(tmp_path.glob("drive/a/checkpoints/[!.]*"), key=os.path.getmtime, reverse=True)


@contextmanager
def room(size):
    """Let no file grow beyond `size` bytes, as on a full disk: what is written before that stays."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_new_machine_gets_the_newest_checkpoints_and_the_results_lie_under_their_names(run, tmp_path, capsys):
    keeper = Keeper(tmp_path / "drive", run)
    keeper.keep_checkpoints()
    write(run / "checkpoints/unet.pt", b"2" * 1000)
    write(run / "checkpoints/unet.5.pt", b"5")
    write(run / "figures/roc.png", b"a picture")
    write(run / "reconstructions/unet.npy", b"large, and can be computed again")
    keeper.keep_all()
    assert taken(tmp_path) == b"2" * 1000 and taken(tmp_path, "unet.5.pt") == b"5"
    assert (tmp_path / "drive/a/figures/roc.png").read_bytes() == b"a picture"
    assert not (tmp_path / "drive/a/reconstructions").exists()
    first, *_ = capsys.readouterr().out.splitlines()
    assert first == f"kept in {tmp_path / 'drive/a'}"


def test_what_is_kept_names_no_user_no_folder_of_the_machine_and_no_secret(tmp_path):
    machine = tmp_path / "home of anna"
    settings = {"source": "stream", "data_dir": "https://anna:s3cret-pw@host/x?sig=0dd", "run_dir": "runs/a"}
    run = Run.start(params(**settings, keep_in=str(machine / "drive")), machine)
    run.mark("failed", f"OSError: no {run.folder}/checkpoints")
    run.keep()
    kept = [file for file in (machine / "drive").rglob("*") if file.is_file()]
    assert {"params.json", "status.json", "run.txt"} <= {file.name for file in kept}
    text = "\n".join(file.read_text() for file in kept)
    assert not re.search(f"anna|s3cret|0dd|{re.escape(str(tmp_path))}", text)
    assert json.loads((machine / "drive/a/params.json").read_text())["keep_in"] == "…/drive"
    assert Run.open(run.folder).params.keep_in == str(machine / "drive")  # the run itself is evaluated by its paths


def test_a_checkpoint_that_is_there_already_stays(run, tmp_path):
    keeper = Keeper(tmp_path / "drive", run)
    keeper.keep_checkpoints()
    write_state(run / "checkpoints/unet.pt", {"method": {}})
    newer = (run / "checkpoints/unet.pt").read_bytes()
    keeper.take()
    assert (run / "checkpoints/unet.pt").read_bytes() == newer


def test_a_checkpoint_that_is_damaged_is_replaced_by_its_kept_copy(run, tmp_path):
    file = run / "checkpoints/unet.pt"
    write_state(file, {"method": {}})
    whole = file.read_bytes()
    keeper = Keeper(tmp_path / "drive", run)
    keeper.keep_checkpoints()
    file.write_bytes(whole[:-1])
    keeper.take()
    assert file.read_bytes() == whole


def test_of_all_that_cannot_be_kept_the_checkpoints_are_named_first(run, tmp_path, capsys):
    write(run / "checkpoints/ra.pt", b"1" * 1000)
    write(run / "status.json", b"{}")
    keeper = Keeper(tmp_path / "drive", run)
    (tmp_path / "drive").rename(tmp_path / "unplugged")
    keeper.keep_all()
    assert capsys.readouterr().err.startswith("ra.pt, unet.pt, status.json cannot be kept in")


def test_of_each_checkpoint_two_generations_are_kept(run, tmp_path):
    keeper = Keeper(tmp_path / "drive", run)
    for epoch in range(4):
        write(run / "checkpoints/unet.pt", bytes(epoch))
        keeper.keep_checkpoints()
    assert [file.read_bytes() for file in copies(tmp_path)] == [bytes(3), bytes(2)]


@pytest.mark.parametrize("damage", [lambda content: content[:500], lambda content: b"", lambda content: content + b"x"])
def test_a_copy_that_was_cut_is_never_taken_but_the_one_before_it_is(run, tmp_path, damage, capsys):
    keeper = Keeper(tmp_path / "drive", run)
    keeper.keep_checkpoints()
    write(run / "checkpoints/unet.pt", b"2" * 1000)
    keeper.keep_checkpoints()
    newest, _ = copies(tmp_path)
    newest.write_bytes(damage(newest.read_bytes()))
    assert taken(tmp_path) == b"1" * 1000
    assert capsys.readouterr().err == f"{newest} was cut short and has been deleted\n"
    assert len(copies(tmp_path)) == 1


def test_a_process_killed_while_it_copies_leaves_what_was_kept_before(run, tmp_path):
    Keeper(tmp_path / "drive", run).keep_checkpoints()
    write(run / "checkpoints/unet.pt", b"2" * 1000)
    killed = subprocess.run([sys.executable, "-c", KILLED_WHILE_COPYING, tmp_path / "drive", run], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert taken(tmp_path) == b"1" * 1000


def test_a_full_disk_is_named_once_and_when_there_is_room_again_the_copy_is_made(run, tmp_path, capsys):
    keeper = Keeper(tmp_path / "drive", run)
    with room(500):
        keeper.keep_checkpoints()
        keeper.keep_checkpoints()
    printed = capsys.readouterr().err
    assert printed == (
        f"unet.pt cannot be kept in {tmp_path / 'drive/a'} (File too large): "
        "training continues, and the copy is tried again after each epoch\n"
    )
    assert taken(tmp_path) is None
    keeper.keep_checkpoints()
    assert taken(tmp_path) == b"1" * 1000


def test_a_disk_that_has_gone_away_is_named_and_its_folders_are_not_made_on_another(run, tmp_path, capsys):
    keeper = Keeper(tmp_path / "drive", run)
    (tmp_path / "drive").rename(tmp_path / "unplugged")
    keeper.keep_all()
    printed = capsys.readouterr()
    assert "(the folder is gone)" in printed.err and f"copy {run} yourself before this machine" in printed.err
    assert not printed.out and not (tmp_path / "drive").exists()


@pytest.mark.parametrize("place", ["machine", "machine/a", "machine/a/b"])
def test_the_runs_own_folder_is_refused(run, tmp_path, place):
    with pytest.raises(KeepingError, match="leads to the run's own folder"):
        Keeper(tmp_path / place, run)


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_trained(tmp_path):
    write(tmp_path / "drive", b"a file")
    with pytest.raises(KeepingError, match=r"cannot be used .*leave keep_in empty"):
        Run.start(params(run_dir="a", keep_in="drive"), tmp_path)
    assert not (tmp_path / "a").exists()


def test_weights_of_an_earlier_epoch_are_kept_before_the_checkpoint_that_counts_on_them(run, tmp_path):
    for name in ("unet.5.pt", "unet.10.pt", "ra.5.pt"):
        write(run / "checkpoints" / name, name.encode() * 200)
    with room(1500):  # unet.pt and ra.5.pt have less, unet.5.pt and unet.10.pt more
        Keeper(tmp_path / "drive", run).keep_checkpoints()
    assert [file.name.rpartition(".")[0] for file in copies(tmp_path)] == ["ra.5.pt"]
    Keeper(tmp_path / "drive", run).keep_checkpoints()
    assert copies(tmp_path)[0].name.startswith("unet.pt.")


def test_a_readers_own_copy_stays_and_what_a_killed_copy_left_goes(run, tmp_path):
    Keeper(tmp_path / "drive", run).keep_checkpoints()
    folder = tmp_path / "drive/a/checkpoints"
    for name in ("unet.pt.backup", "unet.pt.epoch20", ".unet.pt.0123456789abcdef.77.tmp"):
        write(folder / name, b"0")
    assert taken(tmp_path) == b"1" * 1000
    write(run / "checkpoints/unet.pt", b"2" * 1000)
    Keeper(tmp_path / "drive", run).keep_checkpoints()
    assert {"unet.pt.backup", "unet.pt.epoch20"} < {file.name for file in folder.iterdir()}
    assert not list(folder.glob(".*"))


def test_a_figure_of_a_chapter_below_the_last_is_kept_too(tmp_path):
    run = Run.start(params(run_dir="a", keep_in="drive"), tmp_path)
    run.finish()
    run.save_figure(Drawing(), "mine")
    assert (tmp_path / "drive/a/figures/mine.png").is_file()


class Disconnected(BaseException):
    pass


def interrupted(at):
    """A U-Net whose machine is taken away in this epoch."""

    class Interrupted(UNetAutoencoder):
        def moves(self, images, epoch=0):
            if epoch == at:
                raise Disconnected
            return super().moves(images, epoch)

    return Interrupted([4])


def test_a_run_whose_machine_was_lost_goes_on_from_the_kept_checkpoint_to_the_same_weights(tmp_path, monkeypatch):
    images, settings = prepared(divided()), params(run_dir="a", keep_in="drive", epochs=4)
    whole = train(Run.start(params(run_dir="a", epochs=4), tmp_path / "whole"), "unet", images, Tracker())
    with monkeypatch.context() as patch, pytest.raises(Disconnected):
        patch.setitem(VARIANTS, "unet", lambda params: interrupted(2))
        train(Run.start(settings, tmp_path), "unet", images, Tracker())
    shutil.rmtree(tmp_path / "a")
    run = Run.start(settings, tmp_path)
    resumed = train(run, "unet", images, Tracker())
    run.finish()
    assert [row["network/total"] for row in resumed.history] == [row["network/total"] for row in whole.history]
    wanted = whole.method.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in resumed.method.state_dict().items())
    assert (tmp_path / "drive/a/status.json").read_text() == (tmp_path / "a/status.json").read_text()


@pytest.mark.parametrize("epoch", [2, 3])
def test_where_the_newest_weights_to_choose_from_were_cut_short_the_run_goes_on_from_where_it_can(
    epoch, tmp_path, monkeypatch
):
    images, settings = prepared(divided()), params(run_dir="a", keep_in="drive", epochs=6, choose_from=[2, 4])
    with monkeypatch.context() as patch, pytest.raises(Disconnected):
        patch.setitem(VARIANTS, "unet", lambda params: interrupted(epoch))
        train(Run.start(settings, tmp_path), "unet", images, Tracker())
    shutil.rmtree(tmp_path / "a")
    [newest] = tmp_path.glob("drive/a/checkpoints/unet.2.pt.*")
    newest.write_bytes(newest.read_bytes()[:100])
    run = Run.start(settings, tmp_path)
    assert len(train(run, "unet", images, Tracker()).history) == 6
    assert list(kept(run.checkpoint("unet"), 6, [2, 4])) == [2, 4, 6]


@pytest.mark.parametrize("copies_made", range(1, 7))
def test_between_whichever_copies_the_machine_is_lost_all_weights_to_choose_from_are_there_at_the_end(
    copies_made, tmp_path, monkeypatch
):
    images, settings = prepared(divided()), params(run_dir="a", keep_in="drive", epochs=4, choose_from=[1, 2, 3])
    copy, copied = keeping._copy, []

    def lost(source, target, content):
        if len(copied) == copies_made:
            raise Disconnected
        copy(source, target, content)
        copied.append(source)

    def weights():
        run = Run.start(settings, tmp_path)
        train(run, "unet", images, Tracker())
        return kept(run.checkpoint("unet"), 4, [1, 2, 3])

    monkeypatch.setattr(keeping, "_copy", lost)
    with pytest.raises(Disconnected):
        weights()
    shutil.rmtree(tmp_path / "a")
    monkeypatch.setattr(keeping, "_copy", copy)
    assert list(weights()) == [1, 2, 3, 4]


def test_a_disk_that_is_full_while_a_run_trains_does_not_end_it(tmp_path, capsys):
    run = Run.start(params(run_dir="a", keep_in="drive", epochs=2), tmp_path)
    shutil.rmtree(tmp_path / "drive")
    assert len(train(run, "unet", prepared(divided()), Tracker()).history) == 2
    run.finish()
    assert capsys.readouterr().err.count("cannot be kept") == 2  # while it trains, and at its end
