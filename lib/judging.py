"""Methods' reconstructions -> all their scores, one that is chosen, one that combines several; no label is read.

A candidate is an epoch and a score. The criterion is how well it separates the reference half of the validation normals
from the same films with lesions painted in (`lib.choosing`). A score that needs another method's training is scored,
to tell a score's share from a method's, but neither chosen nor combined: a method is credited with what it has alone.
The calibration half, side "validation", is scored and otherwise left alone: thresholds on it keep their promise.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from lib.cache import Films
from lib.choosing import choose, separation
from lib.conformal import combine, p_values
from lib.evaluation import auroc
from lib.features import Backbone, FeaturesError, lpips_distance, open_backbone
from lib.files import replacing
from lib.method import Method
from lib.params import Params
from lib.scoring import PRIMARY, Distance, feature_distance, own_scores, reconstruct, score_films

BySide = Mapping[str, np.ndarray]
"""Films, their reconstructions or one score of them, by side: reference, lesions, validation, test."""

Version = Callable[[np.ndarray | Films], tuple[np.ndarray, dict[str, np.ndarray]]]
"""A method after so many epochs: films -> their reconstructions, and what it says of them itself (`own_scores`)."""


class Judgement(NamedTuple):
    """What is made of one method's candidates."""

    columns: dict[str, BySide]  # "primary" (the mean residual, last epoch), "chosen", "combined"
    candidates: dict[tuple[int, str], BySide]  # every epoch and score
    criterion: dict[tuple[int, str], float]  # how well each separates films with lesions
    own: list[tuple[int, str]]  # the candidates that need no other method's training
    choice: dict[str, Any]  # the chosen epoch and score, and the scores that are combined


def version(method: Method, name: str) -> Version:
    """Return the trained method in that form."""
    return lambda films: (reconstruct(method, films, name=name), own_scores(method, films))


def feature_distances(
    params: Params, trained: Mapping[str, Method], device: torch.device
) -> tuple[Backbone | FeaturesError, dict[str, Distance]]:
    """Return the settings' frozen network, or why there is none, and the distances in features that can be had.

    They are by the network's name, "lpips" if `ra_map` says so, and for a method with an encoder its name and
    " encoder". Each serves the reconstructions of all methods. What cannot be had is said.
    """
    distances: dict[str, Distance] = {}
    try:
        backbone = open_backbone(params.backbone)
        backbone.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # twice as fast on a CPU
        distances[backbone.name] = feature_distance(backbone, device)
        network: Backbone | FeaturesError = backbone
    except FeaturesError as error:
        network = error
        print(f"left out, the scores in a frozen network's features: {error}")
    if params.ra_map == "lpips":
        try:
            lpips = lpips_distance(device)
            distances["lpips"] = Distance(lambda images: images.to(device), lambda *both: lpips(*both).cpu())
        except FeaturesError as error:
            print(f"left out, ra-map: {error}")
    for name, method in trained.items():
        if hasattr(method, "encoder"):
            method.eval()  # one whose weights were only loaded still normalises by its batch
            features = lambda images, encoder=method.encoder: encoder(images).features  # noqa: E731
            distances[f"{name} encoder"] = feature_distance(features, device, name)
    return network, distances


def judge(
    versions: Mapping[str, Mapping[int, Version]],
    films: Mapping[str, np.ndarray | Films],
    distances: Mapping[str, Distance],
    folder: Path,
) -> dict[str, Judgement]:
    """Score the films by every version, (name -> epochs -> method); keep reconstructions in `folder`; choose, combine.

    "combined" is Fisher's statistic of the conformal p-values, against the reference half, of one score a map, at the
    chosen epoch: the pool and form that separate best.
    """
    made: dict[tuple[str, int], dict[str, np.ndarray]] = defaultdict(dict)
    said: dict[tuple[str, int], dict[str, dict[str, np.ndarray]]] = defaultdict(dict)
    for name, of_name in versions.items():
        for (epochs, version), side in product(of_name.items(), films):
            reconstructed, said[name, epochs][side] = version(films[side])
            file = folder / f"{name}.{epochs}.{side}.npy"
            with replacing(file) as out:
                np.save(out, reconstructed)
            made[name, epochs][side] = np.load(file, mmap_mode="r")
    scores = score_films(films, made, distances)
    judged = {}
    for name, of_name in versions.items():
        candidates: dict[tuple[int, str], BySide] = {
            (epochs, score): {side: (scores[name, epochs][side] | said[name, epochs][side])[score] for side in films}
            for epochs in of_name
            for score in [*scores[name, epochs]["test"], *said[name, epochs]["test"]]
        }
        others = {key for key, distance in distances.items() if distance.owner not in ("", name)}
        judged[name] = _judgement(candidates, others)
    return judged


def _judgement(candidates: dict[tuple[int, str], BySide], others: set[str]) -> Judgement:
    """Choose and combine, without the distances of `others`."""
    criterion = {key: separation(sides["reference"], sides["lesions"]) for key, sides in candidates.items()}
    own = [key for key in candidates if _map(key[1]).removeprefix("clahe x ") not in others]
    epochs, score = choose({key: criterion[key] for key in own})
    best: dict[str, str] = {}  # by map
    for at, other in sorted(own, key=lambda key: -criterion[key]):
        if at == epochs:
            best.setdefault(_map(other), other)
    sides = candidates[epochs, score]
    members = {side: np.stack([candidates[epochs, one][side] for one in best.values()], axis=1) for side in sides}
    columns = {
        "primary": candidates[max(epochs for epochs, _ in candidates), PRIMARY],
        "chosen": sides,
        "combined": {side: combine(p_values(members["reference"], some)) for side, some in members.items()},
    }
    choice = {"epoch": epochs, "score": score, "combined": list(best.values())}
    return Judgement(columns, candidates, criterion, own, choice)


def _map(score: str) -> str:
    return score.partition(",")[0]


def write_candidates(judged: Mapping[str, Judgement], table: pd.DataFrame, sides: Sequence[str], folder: Path) -> None:
    """Write candidates.parquet, a column a method, epoch and score, and candidates.csv, a row each.

    The films are those of `table`, whose rows stand in the order of the `sides`.
    """
    columns, rows = {key: table[key].to_numpy() for key in ("id", "side")}, []
    for name, judgement in judged.items():
        for (epochs, score), by_side in judgement.candidates.items():
            columns[f"{name}|{epochs}|{score}"] = np.concatenate([by_side[side] for side in sides])
            separates = judgement.criterion[epochs, score]
            own = (epochs, score) in judgement.own
            rows.append({"method": name, "epoch": epochs, "score": score, "separation": separates, "own": own})
    with replacing(folder / "candidates.parquet") as out:
        pd.DataFrame(columns).to_parquet(out, index=False)
    with replacing(folder / "candidates.csv") as out:
        pd.DataFrame(rows, columns=["method", "epoch", "score", "separation", "own"]).to_csv(out, index=False)


def read_candidates(folder: Path, labels: pd.Series) -> pd.DataFrame:
    """Return every candidate of a run's folder with its separation and its AUROC by `labels`, the test films' by id.

    Those that could be chosen are "own". The AUROC is an oracle, for looking back at a choice: nothing is chosen by it.
    """
    labels = labels[labels.isin(["normal", "abnormal"])]
    scores = pd.read_parquet(folder / "candidates.parquet").set_index("id").loc[labels.index]
    rows = pd.read_csv(folder / "candidates.csv")
    keys = rows["method"] + "|" + rows["epoch"].astype(str) + "|" + rows["score"]
    is_abnormal = (labels == "abnormal").to_numpy()
    return rows.assign(auroc=[auroc(scores[key].to_numpy(), is_abnormal) for key in keys])
