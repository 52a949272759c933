"""Promises of `research/study.py`: runs with different seeds become one file, by the rules that it states."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from sklearn.metrics import roc_auc_score

from lib import cli
from research.study import laid_out

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = {
    "methods": ["unet", "ra"],
    "references": ["mean-grey", "mean-image"],
    "backbone": "none",
    "source": "folder",
    "image_size": 32,
    "widths": [4, 8],
    "latent_dim": 4,
    "batch_size": 8,
    "epochs": 2,
    "choose_every": 1,
    "ra_warmup_epochs": 0,
    "resamples": 100,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[dict, list[Path]]:
    """Two seeds on a folder with an official test side of 12 normal and 12 abnormal images; the study of both."""
    base = tmp_path_factory.mktemp("study")
    (base / "data/images").mkdir(parents=True)
    random = np.random.default_rng(0)
    rows = []
    for i in range(64):
        film = random.integers(60, 120, (32, 32)).astype(np.uint8)
        abnormal = i >= 52
        film[8:20, 8:20] += 40 * np.uint8(abnormal)
        Image.fromarray(film).save(base / f"data/images/{i}.png")
        label, split = "abnormal" if abnormal else "normal", "test" if i >= 40 else "train"
        rows.append({"filename": f"{i}.png", "label": label, "split": split})
    pd.DataFrame(rows).to_csv(base / "data/labels.csv", index=False)
    (base / "small.yaml").write_text(yaml.safe_dump(SETTINGS))
    runs = {"small-0": {}, "small-1": {}, "arms-0": {"methods": ["vae"], "references": [], "seed": 0}}
    for seed, (name, changes) in enumerate(runs.items()):
        (base / f"{name}.yaml").write_text(yaml.safe_dump(SETTINGS | {"seed": seed} | changes))
        settings = [f"data_dir={base / 'data'}", f"run_dir={base / name}"]
        assert cli.train([str(base / f"{name}.yaml"), "--set", *settings]) == 0
        assert cli.evaluate([str(base / name)]) == 0
    folders = [base / name for name in runs]
    assert studied(base / "small.json", *folders).returncode == 0
    return json.loads((base / "small.json").read_text()), folders


def studied(*arguments: Path) -> subprocess.CompletedProcess:
    """Type the command."""
    command = [sys.executable, "research/study.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)


def test_each_rows_value_is_the_mean_of_the_aurocs_of_the_seeds_that_have_it(made):
    study, folders = made
    (one,) = study["evaluations"]
    assert (one["n_normal"], one["n_abnormal"]) == (12, 12)
    small_0, small_1, arms_0 = (
        pd.read_parquet(folder / "scores.parquet").query("side == 'test'") for folder in folders
    )
    trained = [f"{method}{what}" for method in ("unet", "ra") for what in ("", ", chosen", ", combined")]
    vae = ["vae", "vae, chosen", "vae, combined"]
    fixed = ["mean-grey", "mean-image", "mean-image, chosen", "mean-image, combined"]
    assert set(one["rows"]) == {*trained, *vae, *fixed}
    for row, entry in one["rows"].items():
        tables = {"0": arms_0} if row in vae else {"0": small_0, "1": small_1}
        expected = {seed: roc_auc_score(table["label"] == "abnormal", table[row]) for seed, table in tables.items()}
        assert entry["auroc"]["seeds"] == pytest.approx(expected, abs=1e-4)
        assert entry["auroc"]["value"] == pytest.approx(np.mean(list(expected.values())))
        assert entry["auroc"]["low"] <= entry["auroc"]["value"] <= entry["auroc"]["high"]


def test_a_difference_is_that_of_the_seeds_that_both_rows_have(made):
    (one,) = made[0]["evaluations"]
    pairs = {(difference["first"], difference["second"]): difference for difference in one["differences"]}
    assert {("unet", "ra"), ("vae", "ra"), ("vae, chosen", "ra, chosen")} <= set(pairs)
    for (first, second), difference in pairs.items():
        a, b = (one["rows"][row]["auroc"]["seeds"] for row in (first, second))
        common = a.keys() & b.keys()
        assert common == ({"0"} if "vae" in first else {"0", "1"})
        assert difference["value"] == pytest.approx(np.mean([a[seed] - b[seed] for seed in common]), abs=1e-4)


def test_a_line_of_a_result_holds_what_has_room_in_it_and_nothing_is_lost(made, tmp_path):
    study, _ = made
    text = laid_out(study)
    assert json.dumps(json.loads(text)) == json.dumps(study)
    lines = text.splitlines()
    assert '   "widths": [4, 8],' not in lines and '  "widths": [4, 8],' in lines and max(map(len, lines)) < 300
    for wide in ({"a": {"b": "x" * 300}, "c": []}, ["é" * 300], "x" * 300, [[], {}, 10**300]):
        assert json.loads(laid_out(wide)) == wide
    assert laid_out({"a": {"b": [1, "]"]}, "c": {}}) == '{"a": {"b": [1, "]"]}, "c": {}}'


def test_no_choice_is_better_than_its_oracle(made):
    study, folders = made
    chosen = {}
    for folder in folders:
        results = json.loads((folder / "results.json").read_text())
        seed = json.loads((folder / "params.json").read_text())["seed"]
        for method in results["choices"]:
            chosen[method, str(seed)] = results["rows"]["methods"][f"{method}, chosen"]["auroc"]["value"]
    assert {(m, seed) for m, of in study["oracle"].items() for seed in of} == set(chosen)
    for (method, seed), value in chosen.items():
        assert study["choices"][method][seed]["epoch"] in (0, 1, 2)
        assert value <= study["oracle"][method][seed] + 1e-4


def test_it_says_what_the_runs_were_and_in_what_they_differ_from_the_first(made):
    study, folders = made
    assert study["seeds"] == [0, 1] and list(study["runs"]) == [folder.name for folder in folders]
    assert study["runs"]["small-0"] == study["runs"]["small-1"] == {}
    assert study["runs"]["arms-0"] == {"methods": ["vae"], "references": []}
    assert len(set(study["splits"].values())) == 2 and study["params"]["widths"] == [4, 8]
    seen = {budget["images_seen"] for budget in study["budgets"].values()}
    assert set(study["budgets"]) == {"unet", "ra", "vae"} and len(seen) == 1


def test_the_scores_of_one_seed_with_two_splits_are_refused(made, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(made[1][2], other)
    results = json.loads((other / "results.json").read_text())
    (other / "results.json").write_text(json.dumps(results | {"split": "another"}))
    said = studied(tmp_path / "x.json", made[1][0], other)
    assert said.returncode == 1 and "have one seed and different splits" in said.stderr
    assert not (tmp_path / "x.json").exists()


def test_the_result_can_be_made_again_from_what_is_kept_of_the_runs(made, tmp_path):
    study, folders = made
    assert studied(tmp_path / "kept", *folders).returncode == 0
    kept = [tmp_path / "kept" / folder.name for folder in folders]
    assert studied(tmp_path / "again.json", *kept).returncode == 0
    assert json.loads((tmp_path / "again.json").read_text()) == study
    files = {file.name for file in kept[0].iterdir()}
    assert files == {"params.json", "results.json", "scores.parquet", "candidates.csv"}
    assert str(folders[0].parent) not in "".join(file.read_text() for file in kept[0].glob("*.json"))


@pytest.mark.parametrize("folder", sorted((ROOT / "research/published").iterdir()), ids=lambda folder: folder.name)
def test_a_published_auroc_is_that_of_the_scores_that_are_kept(folder):
    name, seed = folder.name.rsplit("-", 1)
    study = json.loads((ROOT / f"research/results/{name.removesuffix('-arms')}.json").read_text())
    table = pd.read_parquet(folder / "scores.parquet").query("side == 'test'")
    columns = json.loads((folder / "results.json").read_text())["columns"]
    for one in study["evaluations"]:
        known = table[table[one["labels"]].isin(["normal", "abnormal"])]
        assert len(known) == one["n_normal"] + one["n_abnormal"]
        for column in set(columns) & set(known):
            expected = roc_auc_score(known[one["labels"]] == "abnormal", known[column])
            assert one["rows"][column]["auroc"]["seeds"][seed] == pytest.approx(expected, abs=1e-4), column
