"""Promises of `lib.runs.results_page`: docs/RESULTS.md is current, complete, and says what the tracked files say."""

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from lib.runs.cli import study_command
from lib.runs.results_page import TITLES, markdown, page
from lib.runs.run import Run
from lib.runs.study import read_study

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "research/results").glob("*.json"))
PAGE = (ROOT / "docs/RESULTS.md").read_text(encoding="utf-8")
MOST_ROWS = 12


def sections(text: str) -> dict[str, str]:
    """What follows each chapter's heading, up to the next."""
    parts = re.split(r"^## (.*)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def tables(text: str) -> Iterator[tuple[list[str], dict[str, list[str]]]]:
    """Each table's headings, and its cells by row."""
    lines = text.splitlines()
    for is_table, of in itertools.groupby(lines, key=lambda line: line.startswith("|")):
        if is_table:
            heading, rule, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in of]
            assert set(rule) == {"---"} and {len(row) for row in rows} == {len(heading)}
            assert len({row[0] for row in rows}) == len(rows)
            yield heading, {row[0].strip("`"): row[1:] for row in rows}


def text_of(estimate: dict, sign: str = "") -> str:
    return "{value:{s}.3f} [{low:{s}.2f}, {high:{s}.2f}]".format(**estimate, s=sign)


def test_the_page_is_what_the_command_writes_of_the_tracked_results(tmp_path):
    assert study_command([str(tmp_path / "RESULTS.md"), *map(str, FILES)]) == 0
    assert (tmp_path / "RESULTS.md").read_text(encoding="utf-8") == PAGE, (
        "write it again: imgae-study docs/RESULTS.md research/results/*.json"
    )


PRIMARY = {
    "strict_label": (lambda study: study["evaluations"].pop(0), "the page begins with its comparison by strict_label"),
    "unet and ra": (lambda study: study["evaluations"][0]["differences"].clear(), "has no comparison of unet and ra"),
}


@pytest.mark.parametrize(("change", "message"), PRIMARY.values(), ids=PRIMARY)
def test_a_page_without_what_it_begins_with_is_refused(tmp_path, capsys, change, message):
    study = json.loads((ROOT / "research/results/adult.json").read_text())
    change(study)
    (tmp_path / "adult.json").write_text(json.dumps(study))
    assert study_command([str(tmp_path / "x.md"), str(tmp_path / "adult.json")]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "x.md").exists()


def test_a_page_of_a_study_without_the_one_beside_which_it_stands_is_refused(tmp_path, capsys):
    files = [str(ROOT / f"research/results/{name}.json") for name in ("adult", "pediatric-128")]
    assert study_command([str(tmp_path / "x.md"), *files]) == 2
    assert "pediatric-128 is to stand beside pediatric" in capsys.readouterr().err


def test_no_table_is_long():
    assert max(len(rows) for _, rows in tables(PAGE)) <= MOST_ROWS


@pytest.mark.parametrize(
    ("title", "suffix"),
    [(title, f"-{suffix}" if suffix else "") for suffix, title in TITLES.items()],
)
def test_every_score_and_difference_of_the_tracked_files_stands_in_its_section(title, suffix):
    written = {
        (heading[0], row, column): cell.strip("*")
        for heading, rows in tables(sections(PAGE)[title])
        for row, cells in rows.items()
        for column, cell in zip(heading[1:], cells, strict=True)
    }
    files = [file for file in FILES if file.stem in (f"adult{suffix}", f"pediatric{suffix}")]
    assert files
    for file in files:
        name = file.stem.partition("-")[0]
        for one in json.loads(file.read_text())["evaluations"]:
            column = f"{name}, {one['labels']}, {one['n_normal']} / {one['n_abnormal']}"
            for score, of in one["scores"].items():
                assert written["AUROC", score, column] == text_of(of["auroc"]["estimate"])
            for of in one["differences"]:
                row = f"{of['first']} − {of['second']}"
                assert written["difference of AUROC", row, column] == text_of(of["auroc"]["estimate"], "+")


def test_the_primary_comparison_comes_first_and_is_in_bold_where_it_stands_among_others():
    _, rows = next(tables(PAGE))
    study = json.loads((ROOT / "research/results/adult.json").read_text())
    one = next(one for one in study["evaluations"] if one["labels"] == "strict_label")
    unet, ra = (text_of(one["scores"][name]["auroc"]["estimate"]) for name in ("unet", "ra"))
    assert list(rows) == ["unet", "ra", "unet − ra"] and (rows["unet"][0], rows["ra"][0]) == (unet, ra)
    assert re.findall(r"\*\*(\d[^*]*)\*\*", PAGE) == [unet, ra]
    assert f"{one['n_normal']} normal and {one['n_abnormal']} abnormal" in PAGE.split("## ")[1]


@pytest.mark.parametrize(("first", "second"), [("unet-denoising", "ra"), ("si-vae", "ra"), ("vae", "ra")])
@pytest.mark.parametrize("name", ["adult", "pediatric"])
def test_a_difference_is_put_into_words_by_its_interval(name, first, second):
    study = json.loads((ROOT / f"research/results/{name}.json").read_text())
    difference = next(
        one["auroc"]
        for one in study["evaluations"][0]["differences"]
        if (one["first"], one["second"]) == (first, second)
    )
    value, low, high = difference["estimate"].values()
    order = "is not told apart from" if low <= 0 <= high else "ranks above" if value > 0 else "ranks below"
    assert f"- *{first}* {order} *{second}*: {text_of(difference['estimate'], '+')}, seeds " in PAGE


def test_the_commands_are_of_params_files_and_kept_runs_that_are_there():
    commands = sections(PAGE)["How to reproduce them"]
    assert all((ROOT / file).is_file() for file in re.findall(r"params/\S+\.yaml", commands))
    for file in FILES:
        (line,) = re.findall(rf"imgae-study research/results/{file.name} (.*)", commands)
        runs = []
        for stem, seeds in re.findall(r"published/([\w-]+)-(\d|\{[\d,]+\})", line):
            runs += [f"{stem}-{seed}" for seed in seeds.strip("{}").split(",")]
        assert runs == list(read_study(file).runs)
    trained = re.findall(r"for seed in ([\d ]+); do\n\s+imgae-train params/([\w-]+)\.yaml", commands)
    assert {f"{stem}-{seed}" for seeds, stem in trained for seed in seeds.split()} == {
        run for file in FILES for run in read_study(file).runs
    }


def test_a_page_can_be_made_of_the_main_studies_alone():
    studies = {name: read_study(ROOT / f"research/results/{name}.json") for name in ("pediatric", "adult")}
    kept = {name: Run.open(ROOT / f"research/results/published/{name}-0").results() for name in studies}
    text = page(studies, kept)
    assert "## Equal seconds" not in text and list(tables(text))[:5] == list(tables(PAGE))[:5]


def test_a_table_is_written_as_markdown_reads_it():
    table = pd.DataFrame({"a": ["1", "2"], "b": ["3", "4"]}, index=pd.Index(["x", "y"], name="corner"))
    lines = ["| corner | a | b |", "| --- | --- | --- |", "| `x` | 1 | 3 |", "| `y` | **2** | 4 |", ""]
    assert markdown(table, [("y", "a")]).split("\n") == lines
    assert list(table["a"]) == ["1", "2"]
