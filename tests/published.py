"""The tracked results, for tests of what the documents say of them."""

from pathlib import Path

from lib.evidence.results import Results
from lib.evidence.study import Study

ROOT = Path(__file__).resolve().parents[1]


def study(name: str) -> Study:
    """research/results/<name>.json."""
    return Study.model_validate_json((ROOT / f"research/results/{name}.json").read_bytes())


def results(run: str) -> Results:
    """research/results/published/<run>/results.json."""
    return Results.model_validate_json((ROOT / f"research/results/published/{run}/results.json").read_bytes())
