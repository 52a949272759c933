"""README answers in two minutes, in numbers of the tracked results, and its badges are true."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from published import study

from lib.evidence.seeds import CRITIC

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
WORDS = " ".join(README.replace("**", "").split())
NOTEBOOK = "notebooks/Anomaly_Detection_Research_Colab.ipynb"
ORDER = {-1: "ranks below", 0: "no difference", 1: "ranks above"}


def order(first: str, second: str, data_set: str) -> str:
    """What the 95 % interval of the difference of two scores says."""
    differences = study(data_set).evaluation.differences
    [area] = [d.auroc.estimate for d in differences if (d.first, d.second) == (first, second)]
    return ORDER[(area.low > 0) - (area.high < 0)]


def test_it_is_short():
    assert len(README.splitlines()) <= 130


def test_its_table_holds_the_tracked_results():
    lines = [line.strip("|").split("|") for line in README.splitlines() if line.startswith("|")]
    [start] = [place for place, cells in enumerate(lines) if cells[0].strip().startswith("AUROC")]
    columns = [
        (f"{of.n_normal}{between}/ {of.n_abnormal}{last}", of.scores)
        for of, between, last in (
            (study("adult").evaluation, " normal ", " abnormal"),
            (study("pediatric").evaluation, " ", ""),
        )
    ]
    rows = {}
    for cells in lines[start + 2 :]:
        if not (named := re.search(r"\(`([\w-]+)`\)", cells[0])):
            break
        rows[named[1]] = [cell.strip(" *") for cell in cells[1:]]
    assert [counts in heading for (counts, _), heading in zip(columns, lines[start][1:], strict=True)] == [True, True]
    assert 3 <= len(rows) <= 5
    for score, cells in rows.items():
        areas = [scores[score].auroc.estimate if score in scores else None for _, scores in columns]
        assert cells == [f"{a.value:.3f} [{a.low:.2f}, {a.high:.2f}]" if a else "–" for a in areas], score


def sentences() -> Iterator[str]:
    """What the answer says in numbers, computed from the tracked results."""
    adult, pediatric = study("adult"), study("pediatric")
    copied = [100 * seed["square"] for of in (adult, pediatric) for seed in of.copied["unet"].values()]
    yield f"copies what it is shown ({min(copied):.0f} to {max(copied):.0f} % of a white square"
    yield "Values are means over {} seeds".format({5: "five"}[len(adult.evaluation.scores["ra"].auroc.seeds)])
    times = [of.budgets["unet-denoising"].seconds / of.budgets["ra"].seconds for of in (adult, pediatric)]
    yield {True: "a third of RA's training time"}[all(0.28 < share < 0.38 for share in times)]
    curves = {name: study(f"{name}-curves").curves.points["ra"][-1] for name in ("adult", "pediatric")}
    seen = [curves[name].images_seen / study(name).budgets["ra"].images_seen for name in curves]
    yield {True: "Trained [eight times as long]"}[all(7.5 < times < 9 for times in seen)]
    for name, people in (("pediatric", "children (two seeds)"), ("adult", "adults (one seed)")):
        kl = curves[name].auroc[CRITIC]
        assert len(kl.seeds) == {"children (two seeds)": 2, "adults (one seed)": 1}[people]
        yield f"{kl.estimate.value:.3f} [{kl.estimate.low:.2f}, {kl.estimate.high:.2f}] on {people}"
    points = study("pediatric-curves").curves.points
    vae, ra = points["vae"][-1], points["ra"][-1]
    share = {True: "a third of RA's time"}[0.28 < vae.cpu_seconds / ra.cpu_seconds < 0.38]
    kl = vae.auroc[CRITIC].estimate
    yield f"VAE's KL, at {kl.value:.3f} [{kl.low:.2f}, {kl.high:.2f}] on children after {share}"
    early, last = points["unet-denoising"][1], study("adult-curves").curves.points["unet-denoising"][-1]
    assert early.cpu_seconds < 120 and [len(at.auroc["mean residual"].seeds) for at in (early, last)] == [3, 1]
    soon, kept = (at.auroc["mean residual"].estimate for at in (early, last))
    yield f"has {soon.value:.3f} [{soon.low:.2f}, {soon.high:.2f}] there after two minutes (three seeds)"
    yield f"(one seed) it keeps {kept.value:.3f} [{kept.low:.2f}, {kept.high:.2f}], where RA's residual has"
    yield f"{curves['adult'].auroc['mean residual'].estimate.value:.3f}."


def test_the_numbers_of_the_answer_are_those_of_the_tracked_results():
    assert [sentence for sentence in sentences() if sentence not in WORDS] == []


@pytest.mark.parametrize(
    ("sentence", "verdicts"),
    [
        ("RA ranks above a plain U-Net", {("unet", "ra"): ("ranks below", "ranks below")}),
        (
            "shows no difference from RA on adults and ranks above it on children",
            {("unet-denoising", "ra"): ("no difference", "ranks above")},
        ),
    ],
)
def test_the_answer_says_what_the_intervals_say(sentence, verdicts):
    assert sentence in WORDS
    for pair, expected in verdicts.items():
        assert (order(*pair, "adult"), order(*pair, "pediatric")) == expected


def test_on_adults_no_trained_method_ranks_above_frozen_features_and_the_view_lies_in_ras_interval():
    adult = study("adult")
    assert "On adults no trained method ranks above nearest neighbours in frozen ImageNet features" in WORDS
    trained = [d.first for d in adult.evaluation.differences if d.second == "knn"]
    assert {first.partition(",")[0] for first in trained} == set(adult.budgets)
    assert [first for first in trained if order(first, "knn", "adult") == "ranks above"] == []
    assert "the view alone (the sickest patients are X-rayed in bed) ranks as well as RA" in WORDS
    scores = adult.evaluation.scores
    ra, view = scores["ra"].auroc.estimate, scores["ap-view"].auroc.estimate
    assert ra.low < view.value < ra.high


def test_the_badges_say_what_the_project_says():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    path = project["urls"]["Repository"].removeprefix("https://github.com/")
    badges = dict(re.findall(r"^\[!\[([^\]]+)\]\(\S+?\)\]\((\S+)\)", README, re.M))
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8"))
    versions = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert badges == {
        "Open in Colab": f"https://colab.research.google.com/github/{path}/blob/main/{NOTEBOOK}",
        f"Licence: {project['license']}": project["license-files"][0],
        f"Python {', '.join(versions)}": "pyproject.toml",
    }
    assert f"python-{'%20%7C%20'.join(versions)}-" in README
    assert f"licence-{project['license']}-" in README
    assert (ROOT / NOTEBOOK).is_file()
