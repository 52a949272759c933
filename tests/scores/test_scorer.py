"""The scorer: new images get the scores that they would have had among a run's own."""

from pathlib import Path

import numpy as np
import pytest
import torch
from random_maps import APART, drawn

from lib.methods.ra import ReversedAutoencoder
from lib.methods.unet import UNetAutoencoder
from lib.scores.maps import Distance
from lib.scores.scorer import Fit, Scorer
from lib.scores.selection import select, version

FORMS = ["primary", "chosen", "combined"]


def methods(kind: str) -> dict:
    torch.manual_seed(0)
    make = (lambda: UNetAutoencoder([4, 8])) if kind == "unet" else (lambda: ReversedAutoencoder(16, [4, 8], 8))
    return {2: make().eval(), 5: make().eval()}


@pytest.fixture(scope="module", params=["unet", "ra"])
def selected(request, tmp_path_factory):
    trained, distances = methods(request.param), {"apart": APART}
    sides = {"reference": drawn(9, 1), "lesions": drawn(9, 1), "validation": drawn(7, 2), "test": drawn(12, 3)}
    sides["lesions"][:, 4:9, 5:10] = 250
    versions = {request.param: {epochs: version(method, "test") for epochs, method in trained.items()}}
    return trained, sides, select(versions, sides, distances, Path(tmp_path_factory.mktemp("redrawn")))[request.param]


def test_a_batch_of_new_images_has_the_scores_of_the_same_images_in_a_run(selected):
    trained, sides, selection = selected
    fit = Fit.of(selection)
    scorer = Scorer(trained, fit, {name: APART for name in fit.distances})
    for rows in (slice(0, 5), slice(5, 12)):
        scored = scorer(sides["test"][rows])
        assert list(scored.scores) == FORMS
        for form in FORMS:
            expected = selection.columns[form]["test"][rows]
            np.testing.assert_allclose(scored.scores[form], expected, rtol=1e-5, err_msg=form)
        np.testing.assert_allclose(scored.residuals.mean(axis=(1, 2)), scored.scores["primary"], rtol=1e-5)


def test_what_was_fitted_holds_what_the_scores_need_and_nothing_of_the_test_side(selected):
    _, _, selection = selected
    fit = Fit.of(selection)
    for form in FORMS:
        np.testing.assert_array_equal(fit.calibration[form], selection.columns[form]["validation"])
    wanted = [fit.score, *fit.combined]
    assert set(fit.standards) == {name.partition(",")[0] for name in wanted if name.endswith("standardised")}
    assert fit.members.shape == (9, len(fit.combined)) and set(fit.distances) <= {"apart"}


def test_the_primary_score_alone_needs_no_distance(selected):
    trained, sides, selection = selected

    def never(*images: object) -> None:
        raise AssertionError("a distance was computed")

    assert Scorer(trained, Fit.of(selection), {"apart": Distance(never, never)}).complete
    primary = Scorer(trained, Fit.of(selection), None)
    assert not primary.complete
    scores = primary(sides["test"]).scores
    np.testing.assert_allclose(scores.pop("primary"), selection.columns["primary"]["test"], rtol=1e-5)
    assert not scores
