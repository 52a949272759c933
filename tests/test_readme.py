"""README's figures are those of the tracked runs, and its addresses those of pyproject.toml."""

import itertools
import json
import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from lib.evaluation import shown
from lib.params import Params

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = sorted((ROOT / "research/results").glob("*.json"))


def table(corner: str) -> dict[str, dict[str, str]]:
    """README's table whose first heading is `corner`: its cells by row and column."""
    lines = iter(README.splitlines())
    heading = next(line for line in lines if line.startswith(f"| {corner} |"))
    columns = [cell.strip() for cell in heading.strip("|").split("|")]
    assert re.fullmatch(r"[|-]+", next(lines))
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines)
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in rows]
    return {row[0]: dict(zip(columns[1:], row[1:], strict=True)) for row in cells}


def studies(columns: Iterable[str], suffix: str = "") -> Iterator[tuple[str, dict, dict]]:
    """Each column, such as "adult, `strict_label`, 36 / 64", with its study and the study's evaluation."""
    for column in columns:
        name, labels, counts = column.split(", ")
        study = json.loads((ROOT / f"research/results/{name}{suffix}.json").read_text())
        one = next(one for one in study["evaluations"] if one["labels"] == labels.strip("`"))
        assert counts == f"{one['n_normal']} / {one['n_abnormal']}"
        yield column, study, one


@pytest.mark.parametrize(
    ("corner", "suffix"), [("AUROC", ""), ("AUROC at equal seconds", "-seconds"), ("AUROC at 128 px", "-128")]
)
def test_a_table_of_aurocs_holds_the_tracked_results(corner, suffix):
    rows = table(corner)
    for column, _, one in studies(next(iter(rows.values())), suffix):
        for row, cells in rows.items():
            entry = one["rows"].get(row.strip("`"))
            assert cells[column].strip("*") == shown(entry and entry["auroc"]), (row, column)


def test_the_tables_hold_every_method_and_reference_row_of_the_tracked_results():
    for file in RESULTS:
        study = json.loads(file.read_text())
        if file.stem.endswith("-seconds"):
            assert {f"`{method}`" for method in study["budgets"]} <= set(table("AUROC at equal seconds"))
        else:
            primary = {f"`{row}`" for row in study["evaluations"][0]["rows"] if "," not in row}
            assert primary <= set(table("AUROC"))


def test_the_table_of_differences_holds_the_tracked_results():
    rows = table("difference")
    for column, _, one in studies(next(iter(rows.values()))):
        there = {f"`{d['first']}` minus `{d['second']}`": d for d in one["differences"]}
        for row, cells in rows.items():
            d = there.get(row)
            assert cells[column] == (f"{d['value']:+.3f} [{d['low']:+.2f}, {d['high']:+.2f}]" if d else "–"), row


def test_the_table_of_costs_holds_the_tracked_budgets():
    name, columns = "adult", ("parameters", "images_seen", "steps", "multiply_adds", "seconds")
    budgets = json.loads((ROOT / f"research/results/{name}.json").read_text())["budgets"]
    for row, cells in table(f"{name}, `params/{name}.yaml`").items():
        budget = [budgets[row.strip("`")][column] for column in columns]
        assert list(cells.values()) == [f"{value:,}" for value in budget[:3]] + [f"{budget[3]:.2e}", f"{budget[4]:.0f}"]


def test_each_tracked_result_is_of_the_params_file_of_its_name():
    for file in RESULTS:
        settings, now = (
            json.loads(file.read_text())["params"],
            Params.from_yaml(ROOT / f"params/{file.stem}.yaml", data_dir="x"),
        )
        fixed = now.model_dump(exclude={"data_dir", "run_dir", "seed"})
        assert {key: fixed[key] for key in settings} == settings


def test_the_colab_badge_takes_its_address_from_the_project():
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    path = urls["Repository"].removeprefix("https://github.com/")
    notebook = "notebooks/Anomaly_Detection_Research_Colab.ipynb"
    assert f"https://colab.research.google.com/github/{path}/blob/main/{notebook}" in README
    assert (ROOT / notebook).is_file()


def test_every_file_that_the_readme_links_to_is_there():
    links = [link for link in re.findall(r"\]\(([^)#]+)", README) if "://" not in link]
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]


def test_every_params_file_that_the_readme_names_is_there():
    named = set(re.findall(r"params/([\w-]+)\.yaml", README))
    assert named >= {"demo", "adult", "pediatric", "unet", "ra", "both", "smoke"}
    assert not [name for name in named if not (ROOT / f"params/{name}.yaml").is_file()]
