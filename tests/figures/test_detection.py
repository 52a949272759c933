"""Promises of `lib.figures.detection`: margins, choices and detected lesions are drawn as they were computed."""

import itertools

import pandas as pd

from lib.evidence.psychometric import CONTRASTS, SEVERITIES
from lib.evidence.results import Estimate, Localisation, Located
from lib.figures.detection import choices, localisation_margins, psychometric


def located(margin: Estimate | None) -> Located:
    margins = {"average_precision": margin, "auroc": margin} if margin else None
    return Located(
        auroc=0.6, average_precision=0.1, aupro=0.2, pointing=0.3, best_dice=0.2, prevalence=0.1, margins=margins
    )


def test_a_map_is_called_better_than_the_prior_only_if_its_interval_excludes_zero():
    maps = {"unet": located(Estimate(0.1, -0.1, 0.2)), "ra": located(Estimate(0.2, 0.1, 0.3)), "vae": located(None)}
    found = Localisation(
        marked=20, normal=12, patients_marked=20, regions={"whole image": maps, "lungs": None}, left_out={}
    )
    whole, lungs = localisation_margins(found, ["unet", "ra", "vae"]).axes
    assert whole.get_title() == "whole image, better than the prior: ra"
    assert [line.get_xdata()[0] for line in whole.lines[:2]] == [0.1, 0.2]
    assert lungs.get_title() == "lungs, better than the prior: none"


def test_the_choice_is_marked_and_the_line_is_the_best_that_the_method_could_have_chosen():
    rows = [("ra", 1, "residual, mean", 0.9, 0.6, True), ("ra", 1, "ssim, mean", 0.5, 0.7, True)]
    rows += [("ra", 1, "vae encoder, mean", 0.4, 0.99, False)]
    table = pd.DataFrame(rows, columns=["method", "epoch", "score", "separation", "auroc", "own"])
    [ax] = choices(table, {"ra": (1, "residual, mean")}).axes
    cloud, chosen, oracle = ax.lines
    assert sorted(cloud.get_ydata()) == [0.6, 0.7]
    assert (chosen.get_xdata(), chosen.get_ydata(), oracle.get_ydata()[0]) == (0.9, 0.6, 0.7)
    assert ax.get_title() == "ra: 0.60 of 0.70"


def test_the_curves_of_a_finding_are_those_at_the_fixed_contrast_and_size_and_the_title_names_what_is_missed():
    rows = [
        (
            "ra",
            finding,
            severity,
            severity / 4,
            contrast,
            measure,
            0.5 + contrast * severity * (finding == "nodule") * 4,
        )
        for finding, severity, contrast, measure in itertools.product(
            ["nodule", "opacity"], SEVERITIES, CONTRASTS, ["pairs", "AUROC"]
        )
    ]
    columns = ["method", "finding", "severity", "size", "contrast", "measure", "value"]
    figure = psychometric(pd.DataFrame(rows, columns=columns))
    by_size = figure.axes[0].lines[0]
    assert list(by_size.get_xdata()) == [severity / 4 for severity in SEVERITIES]
    assert list(by_size.get_ydata()) == [0.5 + 0.05 * severity * 4 for severity in SEVERITIES]
    by_contrast = figure.axes[2].lines[0]
    assert list(by_contrast.get_ydata()) == [0.5 + contrast * 0.7 * 4 for contrast in CONTRASTS]
    assert "nodule of size 0.25 by ra, AUROC 0.90" in figure.get_suptitle()
    assert figure.get_suptitle().endswith("below 0.75 at every size: opacity")
