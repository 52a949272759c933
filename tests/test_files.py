"""Promises of `lib.files`: whatever interrupts a write, the old file is whole and nothing else is left."""

import csv
import json
import math
import signal
import subprocess
import sys
import threading
import time

import pandas as pd
import pytest

from lib.files import locked, replacing, write_csv, write_json

KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from lib.files import replacing

with replacing(Path(sys.argv[1])) as file:
    file.write(b"half of the n")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_new_file_appears_with_its_folders(tmp_path):
    path = tmp_path / "a" / "b" / "new.bin"
    with replacing(path) as file:
        file.write(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert list(path.parent.iterdir()) == [path]


def test_the_old_file_stays_until_the_new_one_is_complete(tmp_path):
    path = tmp_path / "target.bin"
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("interruption", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_interrupted_write_leaves_the_old_file_and_no_other(tmp_path, interruption):
    path = tmp_path / "target.bin"
    path.write_bytes(b"old")
    with pytest.raises(interruption), replacing(path) as file:
        file.write(b"half of the n")
        raise interruption
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_first_write_leaves_nothing(tmp_path):
    with pytest.raises(ValueError), replacing(tmp_path / "never.bin") as file:
        file.write(b"half")
        raise ValueError
    assert not list(tmp_path.iterdir())


def test_a_process_killed_while_it_writes_leaves_the_old_file_which_can_be_replaced(tmp_path):
    path = tmp_path / "target.bin"
    path.write_bytes(b"old")
    killed = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, path], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    with replacing(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"


def test_who_reads_the_old_file_meanwhile_reads_all_of_it(tmp_path):
    path = tmp_path / "target.bin"
    path.write_bytes(b"old")
    with path.open("rb") as reader:
        with replacing(path) as file:
            file.write(b"new")
        assert reader.read() == b"old"  # renamed over, not written into


def test_json_reads_back_as_it_was_written(tmp_path):
    content = {"seed": 0, "losses": [0.1, 1e-300], "Grüße": None}
    write_json(tmp_path / "target.json", content)
    assert json.loads((tmp_path / "target.json").read_text(encoding="utf-8")) == content


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_json_refuses_what_it_has_no_word_for_and_keeps_the_old_file(tmp_path, number):
    path = tmp_path / "target.json"
    write_json(path, {"auroc": 0.5})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"auroc": number})
    assert json.loads(path.read_text()) == {"auroc": 0.5}
    assert list(tmp_path.iterdir()) == [path]


def test_a_lock_is_waited_for_and_that_is_said(tmp_path, capsys):
    order = []

    def second():
        with locked(tmp_path / "lock", "is cooking"):
            order.append("second")

    with locked(tmp_path / "lock", "is cooking"):
        waiting = threading.Thread(target=second)
        waiting.start()
        time.sleep(0.3)
        order.append("first")
    waiting.join()
    assert order == ["first", "second"]
    assert capsys.readouterr().err == "another process is cooking: waiting for it\n"


@pytest.mark.parametrize("text", ["=1+1", "@SUM(A1)", "+cmd|' /C calc'!A0", "-2+3+cmd|' /C calc'!A0", "\t=1", "\r=1"])
def test_a_text_that_a_spreadsheet_would_compute_is_no_formula_in_a_csv_file(tmp_path, text):
    table = pd.DataFrame({text: [text, "+0.713 [+0.61, +0.80]", "-0.5"], "n": [-1.5, 2, 3]}, index=[text, "a", "-1"])
    write_csv(tmp_path / "a.csv", table)
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    safe = f"'{text}".replace("\r", " ")
    assert rows == [
        ["", safe, "n"],
        [safe, safe, "-1.5"],
        ["a", "+0.713 [+0.61, +0.80]", "2.0"],
        ["-1", "-0.5", "3.0"],
    ]
