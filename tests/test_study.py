"""Promises of `research/study.py`: runs with different seeds become one file, by the rules that it states."""

import json
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

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = {
    "methods": ["unet", "vae"],
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
    folders = [base / f"small-{seed}" for seed in (0, 1)]
    for seed, folder in enumerate(folders):
        settings = [f"data_dir={base / 'data'}", f"seed={seed}", f"run_dir={folder}"]
        assert cli.train([str(base / "small.yaml"), "--set", *settings]) == 0
        assert cli.evaluate([str(folder)]) == 0
    command = [sys.executable, "research/study.py", str(base / "small.json"), *map(str, folders)]
    subprocess.run(command, cwd=ROOT, check=True, env={"PYTHONPATH": str(ROOT)}, capture_output=True)
    return json.loads((base / "small.json").read_text()), folders


def test_each_rows_value_is_the_mean_of_its_seeds_aurocs(made):
    study, folders = made
    (one,) = study["evaluations"]
    assert (one["n_normal"], one["n_abnormal"]) == (12, 12)
    tables = [pd.read_parquet(folder / "scores.parquet").query("side == 'test'") for folder in folders]
    assert set(one["rows"]) == {
        "mean-grey", "mean-image", "mean-image, chosen", "mean-image, combined",
        "unet", "unet, chosen", "unet, combined", "vae", "vae, chosen", "vae, combined",
    }  # fmt: skip
    for row, entry in one["rows"].items():
        expected = [roc_auc_score(table["label"] == "abnormal", table[row]) for table in tables]
        assert entry["auroc"]["seeds"] == pytest.approx(expected, abs=1e-4)
        assert entry["auroc"]["value"] == pytest.approx(np.mean(expected))
        assert entry["auroc"]["low"] <= entry["auroc"]["value"] <= entry["auroc"]["high"]


def test_a_difference_is_that_of_the_two_means(made):
    (one,) = made[0]["evaluations"]
    for difference in one["differences"]:
        first, second = (one["rows"][difference[side]]["auroc"]["value"] for side in ("first", "second"))
        assert difference["value"] == pytest.approx(first - second)


def test_no_choice_is_better_than_its_oracle(made):
    study, folders = made
    for method, choices in study["choices"].items():
        for choice, oracle, folder in zip(choices, study["oracle"][method], folders, strict=True):
            assert choice["epoch"] in (0, 1, 2)
            chosen = json.loads((folder / "results.json").read_text())["rows"]["methods"][f"{method}, chosen"]
            assert chosen["auroc"]["value"] <= oracle + 1e-4


def test_it_says_what_the_runs_were(made):
    study, folders = made
    assert study["seeds"] == [0, 1] and study["runs"] == [folder.name for folder in folders]
    assert len(set(study["splits"])) == 2 and study["params"]["widths"] == [4, 8]
    assert study["budgets"]["unet"]["images_seen"] == study["budgets"]["vae"]["images_seen"]
