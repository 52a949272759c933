"""README's figures are those of the tracked runs, and its addresses those of pyproject.toml."""

import itertools
import json
import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
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


def study(name: str) -> dict:
    return json.loads((ROOT / f"research/results/{name}.json").read_text())


def difference(of: dict, first: str, second: str) -> dict:
    return next(d for d in of["evaluations"][0]["differences"] if (d["first"], d["second"]) == (first, second))


def auroc(of: dict, row: str) -> dict:
    return of["evaluations"][0]["rows"][row]["auroc"]


def variance(of: dict) -> tuple[float, float]:
    """The share of AUROC's variance between methods, and between maps, over the maps that every method has."""
    values: dict[str, dict[str, list[float]]] = {}
    for method, scores in of["scores"].items():
        for score, area in scores.items():
            values.setdefault(score.partition(",")[0], {}).setdefault(method, []).append(area)
    grid = np.array(
        [
            [np.mean(by_method[method]) for method in of["scores"]]
            for name, by_method in values.items()
            if by_method.keys() == of["scores"].keys() and name != "kl"
        ]
    )
    total = grid.var()
    return grid.mean(axis=0).var() / total, grid.mean(axis=1).var() / total


def spread(values: Iterable[float], form: str = "{:.2f}") -> str:
    low, *_, high = sorted(values)
    return f"{form.format(low)} to {form.format(high)}"


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def prose() -> Iterator[str]:
    """What README says in numbers outside its tables, computed from the tracked results."""
    adult, pediatric, large, longer = map(study, ("adult", "pediatric", "pediatric-128", "adult-seconds"))
    both, headline = (adult, pediatric), ("unet", "unet-denoising", "ra")
    copied = [100 * seed["square"] for of in both for seed in of["copied"]["unet"].values()]
    yield f"copies what it is shown ({spread(copied, '{:.0f}')} % of a white square"

    (methods, maps), (others, other_maps) = map(variance, both)
    yield f"With nothing picked, {percent(methods)} (adult) and {percent(others)} (pediatric) of the variance"
    yield f"lies between methods, {percent(maps)} and {percent(other_maps)} between maps"

    plain, denoising, ra = ([np.mean([*of["oracle"][m].values()]) for of in both] for m in headline)
    yield f"stands at {plain[0]:.2f} against {denoising[0]:.2f} (denoising) and {ra[0]:.2f} (RA) on the adult films"
    yield f"at {plain[1]:.2f} against {denoising[1]:.2f} and {ra[1]:.2f} on the pediatric ones"
    costs = [
        one[0] - auroc(adult, f"{m}, chosen")["value"] for m, one in zip(headline, (plain, denoising, ra), strict=True)
    ]
    yield f"costs** {costs[1]:.2f} (denoising), {costs[2]:.2f} (RA) and {costs[0]:.2f} (plain U-Net) of AUROC"
    agreements = [of["criterion_agrees_with_auroc_spearman"][m].values() for of in both for m in headline]
    yield f"by a Spearman correlation of {spread(itertools.chain(*agreements))}, on both sets"

    reversal = [difference(of, "si-vae", "ra") for of in both]
    yield f"on both sets, by {-reversal[0]['value']:.2f} and {-reversal[1]['value']:.2f}; but one adult seed shows"
    yield f"one adult seed shows {-min(reversal[0]['seeds'].values()):.2f} and the other nothing"

    error = difference(adult, "unet", "ra")["sd"]
    yield f"Its standard error is {error['sample']:.3f} from the sample and {error['seeds']:.3f} from the seeds"
    better, chosen = (difference(pediatric, f"unet-denoising{form}", f"ra{form}") for form in ("", ", chosen"))
    yield f"is the larger ({better['sd']['seeds']:.3f} against {better['sd']['sample']:.3f})"
    yield f"by seed the difference runs from {spread(better['seeds'].values())}"
    drawn = ["[{:+.2f}, {:+.2f}]".format(*of["drawn"]) for of in (better, chosen)]
    yield f"its interval is {drawn[0]} for the residual and {drawn[1]} for the chosen score"
    yield f"RA's seeds lie between {spread(auroc(pediatric, 'ra')['seeds'].values()).replace('to', 'and')} there"
    yield f"with AUROC {auroc(adult, 'ap-view')['value']:.3f}, without looking at a pixel"

    alarms = [[*itertools.chain(*map(dict.values, of["false_alarms_at_a_promised_0.05"].values()))] for of in both]
    said = [spread((100 * rate for rate in rates if rate is not None), "{:.0f}") for rates in alarms]
    yield f"the adult rows raise false alarms on {said[0]} % of the test normals"
    yield f"the pediatric ones on {said[1]} %"

    knn = [f"{auroc(of, 'knn')['value']:.3f}" for of in (pediatric, adult, large, study("adult-128"))]
    yield f"Our own such row has {knn[0]} and {knn[1]} at 64 px, {knn[2]} and {knn[3]} at 128 px"
    highest = [max(auroc(of, f"{m}, chosen")["value"] for m in of["budgets"]) for of in (pediatric, large)]
    yield f"no arm's chosen score reaches 0.87 at either size ({highest[0]:.3f} and {highest[1]:.3f})"
    rows = (adult, "unet-denoising, combined"), (adult, "ra, combined"), (longer, "unet-denoising, combined")
    yield "({}, {}; {} for the denoising U-Net".format(*(f"{auroc(*row)['value']:.3f}" for row in rows))
    yield f"best score has {large['oracle']['unet-denoising']['0']:.2f} at 128 px on the pediatric films"

    def seen(method: str, name: str) -> str:
        """The mean over the pools of one map, such as RA's encoder."""
        return f"{np.mean([a for score, a in adult['scores'][method].items() if score.startswith(f'{name},')]):.2f}"

    eyes = "residual", "ra encoder", "clahe x ra encoder"
    yield "averaged over the pools, from {} to {}; the denoising one".format(*(seen("unet", name) for name in eyes[:2]))
    maps = [seen("unet-denoising", name) for name in eyes]
    yield f"lifts from {maps[0]} to {maps[1]}, multiplied by the contrast-equalised residual to {maps[2]}, where RA has"
    yield f"where RA has {seen('ra', eyes[2])}. On the pediatric films"


def test_the_numbers_in_the_prose_are_those_of_the_tracked_results():
    text = " ".join(README.split())
    assert [said for said in prose() if said not in text] == []
