"""Choosing an epoch, a score or a pooling without one labelled abnormal film: by lesions painted into normal films.

Precedents: model selection by synthetic anomalies (Fung, Qiu, Li & Rudolph, arXiv 2310.10461). How far such a choice
lies from the best one is a question to the data: report `regret` beside it.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from scipy.ndimage import gaussian_filter
from sklearn.metrics import roc_auc_score

Key = TypeVar("Key", bound=Hashable)

KINDS = ("opacity", "foreign", "blurred")
"""What film i of `with_lesions` has: `kinds[i % len(kinds)]`."""

# Ranges, chosen by looking at real films of 64 and 128 pixels: from hardly visible to obvious. All but the place are
# drawn evenly on a logarithmic scale, so that small and faint lesions are the more frequent; lengths: shares of a side.
DOWN, ASIDE = (0.3, 0.65), (0.08, 0.2)  # the centre: below the upper border, to one side of the midline: the lungs
RADIUS = (0.08, 0.2)  # of each half axis; the boxes in RSNA's films cover a median of 9 % of the film
IRREGULARITY = 0.2  # of the outline, as a share of the radius: a region ends within 0.25 of its centre
DENSE, OPACITY = 230, (0.15, 0.7)  # the grey of soft tissue, and how far an opacity goes towards it
WEIGHT = (0.3, 1.0)  # of the other film's patch
BLUR = (0.012, 0.05)  # standard deviation


class Regret(NamedTuple):
    """What a choice costs: the key that was chosen, the one that was best, and how much better that is."""

    chosen: Hashable
    oracle: Hashable
    gap: float


def with_lesions(films: np.ndarray, seed: int = 0, kinds: Sequence[str] = KINDS) -> tuple[np.ndarray, np.ndarray]:
    """Return copies of normal films, (n, h, w) uint8, with a synthetic lesion each, and the lesions' masks, bool.

    By turns (`KINDS`) an opacity, denser as a consolidation is; a region blended with the next film's (foreign patch
    interpolation: Tan et al., MELBA 2022, arXiv 2011.04197); a region whose texture is blurred away. All have irregular
    outlines and soft edges; outside its mask a film is unchanged. Raises ValueError for other films, or fewer than two.
    """
    films = np.asarray(films)
    if films.ndim != 3 or films.dtype != np.uint8 or len(films) < 2:
        raise ValueError(f"films are {films.shape} {films.dtype}: expected at least two, (n, height, width) uint8")
    random = np.random.default_rng(seed)
    painted, masks = films.copy(), np.empty(films.shape, dtype=bool)
    for i, film in enumerate(films):
        weight, cloud = _region(film.shape, random)
        kind, grey = kinds[i % len(kinds)], film.astype(np.float32)
        if kind == "opacity":
            # Towards soft tissue, not by so much: what is dense already does not become a white disc.
            grey += _between(OPACITY, random) * weight * (1 + 0.4 * cloud) * (DENSE - grey).clip(0)
        elif kind == "foreign":
            grey += _between(WEIGHT, random) * weight * (films[(i + 1) % len(films)] - grey)
        else:
            grey += weight * (gaussian_filter(grey, _between(BLUR, random) * max(film.shape)) - grey)
        masks[i] = weight > 0
        painted[i] = np.round(grey)  # every kind is a weighted mean of greys in [0, 255], and of weight 0 outside
    return painted, masks


def _between(limits: tuple[float, float], random: np.random.Generator) -> float:
    return float(np.exp(random.uniform(*np.log(limits))))


def _region(shape: tuple[int, int], random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return an irregular region's weight in [0, 1], 0 outside it, and smooth noise in [-1, 1], both (h, w) float32."""
    noise = gaussian_filter(random.standard_normal(shape, dtype=np.float32), 0.05 * max(shape), mode="wrap")
    noise /= np.abs(noise).max()
    y, x, turn = random.uniform(*DOWN), 0.5 + random.choice([-1, 1]) * random.uniform(*ASIDE), random.uniform(0, np.pi)
    down, right = (np.arange(shape[0])[:, None] + 0.5) / shape[0] - y, (np.arange(shape[1]) + 0.5) / shape[1] - x
    along, across = right * np.cos(turn) + down * np.sin(turn), down * np.cos(turn) - right * np.sin(turn)
    distance = np.hypot(along / _between(RADIUS, random), across / _between(RADIUS, random))
    inside = (2 - 2 * distance * (1 + IRREGULARITY * noise)).clip(0, 1).astype(np.float32)
    return inside**2 * (3 - 2 * inside), noise  # smoothstep: no edge, neither without nor within


def separation(normal_scores: np.ndarray, lesion_scores: np.ndarray) -> float:
    """Return the AUROC of films, (n,), against their copies with lesions, (n,); higher scores are more anomalous."""
    normal_scores, lesion_scores = np.asarray(normal_scores), np.asarray(lesion_scores)
    if normal_scores.shape != lesion_scores.shape or normal_scores.ndim != 1 or not len(normal_scores):
        raise ValueError(
            f"scores {normal_scores.shape} and {lesion_scores.shape}: expected one each a film and its copy"
        )
    is_lesion = np.repeat([False, True], len(normal_scores))
    return float(roc_auc_score(is_lesion, np.concatenate([normal_scores, lesion_scores])))


def choose(criterion: Mapping[Key, float]) -> Key:
    """Return the key with the largest value, the first of equals; ValueError if there is none, or one is NaN."""
    if not criterion or any(np.isnan(value) for value in criterion.values()):
        raise ValueError(f"the criterion is {dict(criterion)}: expected at least one entry, none of them NaN")
    return max(criterion, key=criterion.__getitem__)


def regret(criterion: Mapping[Key, float], test_auroc: Mapping[Key, float]) -> Regret:
    """Return what choosing by `criterion` costs in `test_auroc`, of the same keys: to report, never to choose by."""
    if criterion.keys() != test_auroc.keys():
        raise ValueError(f"criterion has {list(criterion)}, test_auroc {list(test_auroc)}: expected the same keys")
    chosen, oracle = choose(criterion), choose(test_auroc)
    return Regret(chosen, oracle, float(test_auroc[oracle] - test_auroc[chosen]))
