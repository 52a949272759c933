"""README's figures are those of the tracked runs, and its addresses those of pyproject.toml."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from lib.evaluation import shown

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = sorted((ROOT / "research/results").glob("*.json"))


@pytest.mark.parametrize("file", RESULTS, ids=lambda file: file.stem)
def test_the_table_holds_the_tracked_results(file):
    results = json.loads(file.read_text())
    for evaluation in (results["evaluation"], *results["other_labels"]):
        row = next(
            line
            for line in README.splitlines()
            if line.startswith(f"| {file.stem}") and f"`{evaluation['labels']}`" in line
        )
        assert f"{evaluation['n_normal']} / {evaluation['n_abnormal']}" in row
        for entry in evaluation["methods"].values():
            assert shown(entry["auroc"]) in row
        difference = evaluation["differences"][0]["auroc"]
        assert f"{difference['value']:+.3f} [{difference['low']:+.2f}, {difference['high']:+.2f}]" in row


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
