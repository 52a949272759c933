"""README's figures are those of the tracked runs, and its addresses those of pyproject.toml."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from lib.evaluation import shown
from lib.params import Params

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = sorted((ROOT / "research/results").glob("*.json"))


def line(start: str) -> str:
    """The line of one of README's tables that begins so."""
    return next(text for text in README.splitlines() if text.startswith(f"| {start} |"))


@pytest.mark.parametrize("file", RESULTS, ids=lambda file: file.stem)
def test_the_tables_hold_the_tracked_results(file):
    study = json.loads(file.read_text())
    for one in study["evaluations"]:
        assert f"{one['n_normal']} / {one['n_abnormal']}" in line("AUROC")
        for row, entry in one["rows"].items():
            assert shown(entry["auroc"]) in line(f"`{row}`"), row
        for d in one["differences"]:
            if "," not in d["first"] + d["second"] and d["second"] != "knn":
                estimate = f"{d['value']:+.3f} [{d['low']:+.2f}, {d['high']:+.2f}]"
                assert estimate in line(f"`{d['first']}` minus `{d['second']}`")


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
    named = set(re.findall(r"params/(\w+)\.yaml", README))
    assert named >= {"demo", "adult", "pediatric", "unet", "ra", "both", "smoke"}
    assert not [name for name in named if not (ROOT / f"params/{name}.yaml").is_file()]
