"""The recipes of docs/USAGE.md hold: what is added to a copy of the library in one place is trained, scored, named."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from lib.params import Params
from lib.runs.prepare import prepare

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = {"phantom_images": 40, "image_size": 32, "widths": [4, 8], "epochs": 1, "batch_size": 4, "resamples": 100}
SETTINGS |= {"backbone": "none", "precision": "float32", "device": "cpu", "run_dir": "run"}
CONTRAST = '''def contrast(inputs: Inputs) -> BySide:
    """The standard deviation of an image's greys."""
    return {side: np.asarray(stack).std(axis=(1, 2)) for side, stack in inputs.images.items()}


'''
ADDED = {  # a file -> the line that begins a dictionary, its new entry, and what stands above it
    "lib/methods/variants.py": [
        ("VARIANTS: ", '"ae-2": Variant(lambda params: ConvAutoencoder(params.image_size, 2), "an autoencoder")', "")
    ],
    "lib/scores/references.py": [("REFERENCES: ", '"contrast": contrast', CONTRAST)],
    "lib/scores/maps.py": [
        ("MAPS: ", '"cubed": lambda images, redrawn: (images.images - redrawn.images).abs() ** 3', ""),
        ("POOLS: ", '"max": lambda maps: maps.amax(dim=(1, 2, 3))', ""),
    ],
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, in which a variant, a reference, a map and a pool have been added."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("lib", "research"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
    for name in ("build_notebook.py", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    for name, additions in ADDED.items():
        lines = (folder / name).read_text().splitlines(keepends=True)
        for start, entry, above in additions:
            [line] = [n for n, text in enumerate(lines) if text.startswith(start)]
            lines[line : line + 1] = [above, lines[line], f"    {entry},\n"]
        (folder / name).write_text("".join(lines))
    return folder


def run(copy: Path, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *words], cwd=copy, env=os.environ | {"PYTHONPATH": str(copy)}, capture_output=True, text=True
    )


def command(copy: Path, *words: str) -> str:
    done = run(copy, "-c", f"import sys; from lib.runs import cli; sys.exit(cli.{words[0]}_command())", *words[1:])
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_variant_a_reference_a_map_and_a_pool_that_are_one_entry_are_trained_and_scored(copy):
    settings = SETTINGS | {"methods": ["ae-2"], "references": ["contrast"]}
    (copy / "mine.yaml").write_text(yaml.safe_dump(settings))
    assert "trained ae-2" in command(copy, "train", "mine.yaml")
    command(copy, "evaluate", "run")
    images, records = prepare(Params(**SETTINGS | {"methods": ["unet"]}), copy).by_side()
    table = pd.read_parquet(copy / "run/scores.parquet").query("side == 'test'").set_index("id")
    test = np.asarray(images["test"])
    found = table.loc[records["test"]["id"]]
    np.testing.assert_allclose(found["contrast"], test.std(axis=(1, 2)))
    residuals = np.abs(test / 255 - np.load(copy / "run/reconstructions/ae-2.1.test.npy"))
    np.testing.assert_allclose(found["ae-2"], residuals.mean(axis=(1, 2)), rtol=1e-4)
    candidates = pd.read_parquet(copy / "run/candidates.parquet").query("side == 'test'").set_index("id")
    for score, expected in {
        "cubed, mean": (residuals**3).mean(axis=(1, 2)),
        "residual, max": residuals.max(axis=(1, 2)),
    }.items():
        np.testing.assert_allclose(candidates.loc[found.index, f"ae-2|1|{score}"], expected, rtol=1e-3)
    assert "ae-2|1|cubed, max standardised" in candidates


def test_a_model_with_a_new_map_scores_new_images(copy):
    command(copy, "export", "run", "--to", "model")
    command(copy, "score", "model", "run/figures/roc.png", "--to", "scores")
    [row] = pd.read_csv(copy / "scores/scores.csv").to_dict("records")
    assert np.isfinite([row["ae-2"], row["ae-2, combined"]]).all()


def test_the_parameters_cell_and_a_refusal_name_what_was_added(copy):
    done = run(copy, "build_notebook.py")
    assert done.returncode == 0, done.stderr
    cell = " ".join((copy / "research/01_parameters.py").read_text().replace("\n# ", " ").split())
    assert "each entry one of 'ae-2', 'unet'" in cell and "each entry one of 'contrast', 'mean-grey'" in cell
    done = run(copy, "-c", "from lib.params import Params; Params(methods=['ae-3'])")
    assert "each entry one of 'ae-2', 'unet'" in done.stderr and "did you mean ae-" in done.stderr
