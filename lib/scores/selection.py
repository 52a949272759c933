"""Model selection without labels: all scores of a method -> a chosen one, and several combined.

A candidate is an epoch and a score. The criterion is how well it separates the reference half of the validation normals
from the same images with lesions painted in (`lib.scores.lesions`). A score that needs another method's training is
computed, to separate the merit of a score from that of a method, but it is neither chosen nor combined: a method gets
credit only for what it does alone. The calibration half, side "validation", is only scored, so that thresholds from it
keep their promise.
"""

import sys
from collections import defaultdict
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from lib.data.source import ImageStack
from lib.files import replacing
from lib.methods.method import Method, to_device
from lib.params import Params
from lib.scores.conformal import combine, p_values
from lib.scores.features import Backbone, FeaturesError, lpips_distance, open_backbone
from lib.scores.maps import Distance, distance_of, feature_distance
from lib.scores.scoring import PRIMARY, Standard, Version, own_scores, reconstructed, score_images

BySide = Mapping[str, np.ndarray]
"""One array per side (reference, lesions, validation, test): images, their reconstructions, or one score of them."""

Key = TypeVar("Key", bound=Hashable)


class Selection(NamedTuple):
    """One method's candidates, and what was selected from them."""

    columns: dict[str, BySide]  # "primary" (the mean residual of the last epoch), "chosen", "combined"
    candidates: dict[tuple[int, str], BySide]  # every epoch and score
    criterion: dict[tuple[int, str], float]  # how well each separates images with lesions
    own: list[tuple[int, str]]  # the candidates that need no other method's training
    choice: dict[str, Any]  # the chosen epoch and score, and the scores that are combined
    members: BySide  # the scores that are combined, (n, scores)
    standards: Mapping[int, Mapping[str, Standard]] = {}  # of the maps, after the last epoch and after the chosen one
    curve: Mapping[int, dict[str, BySide]] = {}  # the columns as they would be, had training ended after these epochs


class Regret(NamedTuple):
    """The cost of a choice: the chosen key, the best key, and the gap between their AUROCs."""

    chosen: Hashable
    oracle: Hashable
    gap: float


def version(method: Method, name: str) -> Version:
    """Return the trained method as a function of images; `name` labels its progress bar."""
    return lambda images: (reconstructed(method, images, name=name), own_scores(method, images))


def feature_distances(
    params: Params, trained: Mapping[str, Method], device: torch.device
) -> tuple[Backbone | FeaturesError, dict[str, Distance]]:
    """Return the settings' frozen network, or the error that says why there is none, and the distances in features.

    The distances are named after the network, "lpips" if `ra_map` says so, and "<method> encoder" for each method with
    an encoder. Each is applied to the reconstructions of all methods. A message is printed for those left out.
    """
    distances: dict[str, Distance] = {}
    try:
        backbone = open_backbone(params.backbone)
        to_device(backbone, device)
        distances[backbone.name] = feature_distance(backbone, device)
        network: Backbone | FeaturesError = backbone
    except FeaturesError as error:
        network = error
        print(f"the scores in a frozen network's features are left out: {error}", file=sys.stderr)
    if params.ra_map == "lpips":
        try:
            lpips = lpips_distance(device)
            distances["lpips"] = Distance(lambda images: images.to(device), lambda *both: lpips(*both).cpu())
        except FeaturesError as error:
            print(f"ra-map is left out: {error}", file=sys.stderr)
    for name, method in trained.items():
        if hasattr(method, "encoder"):
            method.eval()  # a method whose weights were only loaded is still in training mode
            features = lambda images, encoder=method.encoder: encoder(images).features  # noqa: E731
            distances[f"{name} encoder"] = feature_distance(features, device, name)
    return network, distances


def select(
    versions: Mapping[str, Mapping[int, Version]],
    images: Mapping[str, ImageStack],
    distances: Mapping[str, Distance],
    folder: Path,
) -> dict[str, Selection]:
    """Score the images by every version (method -> epochs -> version); return each method's selection.

    Reconstructions are kept in `folder` as "<method>.<epochs>.<side>.npy". "combined" is Fisher's statistic of the
    conformal p-values against the reference half, of one score per map, with the pool and form that separate
    best at the chosen epoch.
    """
    reconstructions: dict[tuple[str, int], dict[str, np.ndarray]] = defaultdict(dict)
    own: dict[tuple[str, int], dict[str, dict[str, np.ndarray]]] = defaultdict(dict)
    for name, by_epoch in versions.items():
        for epochs, run_version in by_epoch.items():
            for side, stack in images.items():
                batches, own[name, epochs][side] = run_version(stack)
                file = folder / f"{name}.{epochs}.{side}.npy"
                with replacing(file) as out:
                    header = {"descr": "<f4", "fortran_order": False, "shape": tuple(stack.shape)}
                    np.lib.format.write_array_header_1_0(out, header)
                    for batch in batches:
                        out.write(np.ascontiguousarray(batch, dtype="<f4").data)
                reconstructions[name, epochs][side] = np.load(file, mmap_mode="r")
    scored = score_images(images, reconstructions, distances)
    selected = {}
    for name, by_epoch in versions.items():
        both = {
            end: {side: scored[name, end].scores[side] | own[name, end][side] for side in images} for end in by_epoch
        }
        candidates: dict[tuple[int, str], BySide] = {
            (epochs, score): {side: both[epochs][side][score] for side in images}
            for epochs in by_epoch
            for score in both[epochs]["test"]
        }
        others = {key for key, distance in distances.items() if distance.owner not in ("", name)}
        by_end = {end: {key: of for key, of in candidates.items() if key[0] == end} for end in by_epoch}
        curve = {end: _select(of_end, others).columns for end, of_end in by_end.items()}
        selection = _select(candidates, others)
        standards = {end: scored[name, end].standards for end in {max(by_epoch), selection.choice["epoch"]}}
        selected[name] = selection._replace(standards=standards, curve=curve)
    return selected


def _select(candidates: dict[tuple[int, str], BySide], others: set[str]) -> Selection:
    """Choose and combine, without scores that need the distances `others`."""
    criterion = {key: separation(sides["reference"], sides["lesions"]) for key, sides in candidates.items()}
    own = [key for key in candidates if distance_of(_map(key[1])) not in others]
    epochs, score = choose({key: criterion[key] for key in own})
    best: dict[str, str] = {}  # the best score of each map at the chosen epoch
    for candidate_epochs, candidate in sorted(own, key=lambda key: -criterion[key]):
        if candidate_epochs == epochs:
            best.setdefault(_map(candidate), candidate)
    chosen = candidates[epochs, score]
    members = {side: np.stack([candidates[epochs, name][side] for name in best.values()], axis=1) for side in chosen}
    columns = {
        "primary": candidates[max(epochs for epochs, _ in candidates), PRIMARY],
        "chosen": chosen,
        "combined": {side: combine(p_values(members["reference"], scores)) for side, scores in members.items()},
    }
    choice = {"epoch": epochs, "score": score, "combined": list(best.values())}
    return Selection(columns, candidates, criterion, own, choice, members)


def _map(score: str) -> str:
    return score.partition(",")[0]


def separation(normal_scores: np.ndarray, lesion_scores: np.ndarray) -> float:
    """Return the AUROC of scores of images, (n,), against those of their copies with lesions, (n,); in [0, 1].

    Raises:
        ValueError: The shapes differ, are not (n,), or are empty.

    """
    normal_scores, lesion_scores = np.asarray(normal_scores), np.asarray(lesion_scores)
    if normal_scores.shape != lesion_scores.shape or normal_scores.ndim != 1 or not len(normal_scores):
        raise ValueError(
            f"scores {normal_scores.shape} and {lesion_scores.shape}: expected (n,) of images and (n,) of their copies"
        )
    is_lesion = np.repeat([False, True], len(normal_scores))
    return float(roc_auc_score(is_lesion, np.concatenate([normal_scores, lesion_scores])))


def choose(criterion: Mapping[Key, float]) -> Key:
    """Return the key with the largest value, the first of equals; ValueError if there is none, or a value is NaN."""
    if not criterion or any(np.isnan(value) for value in criterion.values()):
        raise ValueError(f"the criterion is {dict(criterion)}: expected at least one entry, none of them NaN")
    return max(criterion, key=criterion.__getitem__)


def regret(criterion: Mapping[Key, float], test_auroc: Mapping[Key, float]) -> Regret:
    """Return the cost of choosing by `criterion`, in `test_auroc` of the same keys; only to be reported.

    Raises:
        ValueError: The keys differ, or there is no choice (`choose`).

    """
    if criterion.keys() != test_auroc.keys():
        raise ValueError(f"criterion has {list(criterion)}, test_auroc {list(test_auroc)}: expected the same keys")
    chosen, oracle = choose(criterion), choose(test_auroc)
    return Regret(chosen, oracle, float(test_auroc[oracle] - test_auroc[chosen]))
