"""A run of several seeds: each is what a run of that seed alone would be, and the study is that of these runs."""

from pathlib import Path

import pytest
import yaml

from lib.evidence.study import Study
from lib.runs import cli
from lib.runs.run import Run
from lib.runs.study import combine, read_study
from tests.runs.conftest import SETTINGS

SMALL = SETTINGS | {"methods": ["unet"], "phantom_images": 40, "choose_from": []}


def start(folder: Path, name: str, **changes) -> Path:
    """Train and evaluate a run of phantoms; return its folder."""
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(SMALL | changes))
    assert cli.train_command([str(folder / f"{name}.yaml")]) == 0
    assert cli.evaluate_command([str(folder / "runs" / name)]) == 0
    return folder / "runs" / name


@pytest.fixture(scope="module")
def seeds(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("seeds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMGAE_DX_CACHE", str(folder / "cache"))
        return start(folder, "several", seeds=[3, 4])


def test_each_seed_is_scored_as_by_a_run_of_that_seed_alone(seeds, tmp_path):
    alone = start(tmp_path, "alone", seed=4).resolve()
    other = Run.open(seeds / "seeds" / "several-4")
    assert other.scores().equals(Run.open(alone).scores())
    assert other.status() == "ok"


def test_the_study_is_that_of_the_runs_of_the_seeds_and_all_share_their_images(seeds):
    study = read_study(seeds / "seeds.json")
    assert study == Study.model_validate(combine([seeds, seeds / "seeds" / "several-4"]).model_dump(mode="json"))
    assert study.seeds == [3, 4] and len(set(study.splits.values())) == 1


def test_the_commands_print_the_mean_and_each_seed_and_repeat_nothing(seeds, capsys):
    before = (seeds / "seeds" / "several-4" / "checkpoints" / "unet.pt").stat().st_mtime_ns
    assert cli.train_command([str(seeds.parents[1] / "several.yaml")]) == 0
    assert cli.evaluate_command([str(seeds)]) == 0
    out = capsys.readouterr().out
    auroc = read_study(seeds / "seeds.json").evaluation.scores["unet"].auroc
    assert "Over seeds 3, 4, on the same images" in out
    assert f"{auroc.estimate.value:.3f} [" in out and " ".join(f"{value:.2f}" for value in auroc.seeds.values()) in out
    assert (seeds / "seeds" / "several-4" / "checkpoints" / "unet.pt").stat().st_mtime_ns == before
    assert out.count("score: skipped") == 2


def test_a_seed_that_was_not_trained_is_named(seeds, capsys):
    weights = seeds / "seeds" / "several-4" / "checkpoints" / "unet.pt"
    kept = weights.read_bytes()
    weights.unlink()
    try:
        assert cli.evaluate_command([str(seeds)]) == 2
        assert "several-4 has no trained unet" in capsys.readouterr().err
    finally:
        weights.write_bytes(kept)


def test_a_run_of_one_seed_leaves_no_study(small_run):
    assert not (small_run / "seeds.json").exists() and not (small_run / "seeds").exists()
