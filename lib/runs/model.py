"""A trained model that scores new images: that of a run, or one that was handed on as a folder (`lib.runs.export`)."""

import copy
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from lib.data.preparation import Preparation
from lib.environment import needing
from lib.evidence.evaluation import threshold_at
from lib.evidence.seeds import FORMS
from lib.files import digest, hash_of
from lib.methods.checkpoint import kept, load_checkpoint
from lib.methods.method import Method, to_device
from lib.methods.training import choose_device
from lib.methods.variants import VARIANTS
from lib.params import ParameterError, Params
from lib.runs.fitted import FITTED, Fitted, Tensors, read_fitted, read_tensors, unpack
from lib.runs.freshness import stale
from lib.runs.places import CARD, FACTS, HUB, WEIGHTS, check_model
from lib.runs.run import Run, RunError
from lib.runs.train import trained_under
from lib.scores.features import Backbone, FeaturesError
from lib.scores.maps import Distance
from lib.scores.scorer import Scorer
from lib.scores.selection import feature_distances

VERSION = 1  # of the files of a model that was handed on
FORM = {"primary": "", **{form.split()[0]: suffix for form, suffix in FORMS.items() if suffix}}
"""What follows a method's name in the column of a score, by form."""
USE = "research use only, not for diagnosis"

Versions = dict[str, dict[int, Method]]
"""Each method after its last epoch and after the chosen one, by number of epochs."""


@dataclass(frozen=True)
class Model:
    """The trained methods of a run, and what their scores of new images need."""

    name: str
    params: Params
    versions: Versions
    fitted: Fitted
    identity: str
    """A hash of what was fitted, which changes with the weights."""

    @property
    def preparation(self) -> Preparation:
        """How an image becomes one like those that the methods have seen."""
        return Preparation.from_params(self.params)

    @property
    def primary_only(self) -> bool:
        """Whether it has the primary scores alone."""
        return not any(fit.combined for fit in self.fitted.fits.values())

    def primary_alone(self) -> "Model":
        """Return the model without what the primary scores do not need, which are the same."""
        versions = {name: {max(of): of[max(of)]} for name, of in self.versions.items()}
        fits = {name: fit.primary_alone(max(versions[name])) for name, fit in self.fitted.fits.items()}
        fitted = self.fitted._replace(fits=fits, likeness=self.fitted.likeness.without_features())
        return replace(self, versions=versions, fitted=fitted)

    def rounded(self) -> "Model":
        """Return the model with its kernels and matrices, nearly all of its weights, rounded to float16.

        Vectors are not: they are few, and a variance may be too small for float16.
        """
        versions = copy.deepcopy(self.versions)
        for method in [method for by_epochs in versions.values() for method in by_epochs.values()]:
            for value in method.state_dict().values():
                if value.ndim > 1:
                    value.copy_(value.half())
        return replace(self, versions=versions, identity=hash_of(f"{self.identity}, rounded to float16"))

    @cached_property
    def _features(self) -> tuple[Backbone | FeaturesError, Mapping[str, Distance]]:
        last = {name: versions[max(versions)] for name, versions in self.versions.items()}
        return feature_distances(self.params, last, choose_device(self.params.device))

    @property
    def backbone(self) -> Backbone | None:
        """The frozen network that the model was fitted with; None if there is none, or it is not available."""
        if not self.fitted.likeness.network:
            return None
        network, _ = self._features
        return network if isinstance(network, Backbone) and network.name == self.fitted.likeness.network else None

    def scorers(self, *, primary_only: bool = False) -> dict[str, Scorer]:
        """Return each method's scorer; a score whose features are not available is left out, which is printed."""
        scorers, primary_only = {}, primary_only or self.primary_only
        for name, fit in self.fitted.fits.items():
            available = {} if primary_only else self._features[1]
            missing = sorted({*fit.distances} - {*available})
            if missing and not primary_only:
                lacking = f"the chosen and the combined score of {name} are left out"
                print(f"{lacking}: they need {', '.join(missing)}", file=sys.stderr)
            needed = None if primary_only or missing else {key: available[key] for key in fit.distances}
            scorers[name] = Scorer(self.versions[name], fit, needed)
        return scorers

    def thresholds(self, false_alarm_rate: float) -> dict[str, float]:
        """Return the score above which an image is called abnormal, by column such as "ra" and "ra, chosen"."""
        return {
            f"{name}{FORM[form]}": threshold_at(scores, false_alarm_rate)
            for name, fit in self.fitted.fits.items()
            for form, scores in fit.calibration.items()
        }


def open_model(place: str) -> Model:
    """Return the model of a run's folder, of a folder that was handed on, or of such a folder on the hub, "hf://…".

    Raises:
        PlaceError: There is none.
        RunError: It is damaged, cannot be downloaded, or the run was trained on after it was scored.

    """
    check_model(place)
    folder = _from_hub(place) if place.startswith(HUB) else Path(place).expanduser()
    if (folder / FACTS).is_file():
        return _handed_on(folder)
    run = Run.open(folder)
    if reason := stale(run):
        raise RunError(reason)
    fitted = read_fitted(run.folder / FITTED, run.remedy)
    versions: Versions = {}
    for name, epochs, method in _methods(run.params, fitted, versions):
        files = kept(run.checkpoint(name), run.params.epochs, run.params.choose_from)
        settings = trained_under(run.params, name, run.results().split)
        load_checkpoint(files[epochs], method, choose_device(run.params.device), settings, epochs)
    return Model(run.folder.name, run.params, versions, fitted, digest(run.folder / FITTED))


def _methods(params: Params, fitted: Fitted, versions: Versions) -> Iterator[tuple[str, int, Method]]:
    """Add the methods that the scores need to `versions`, untrained, and yield each with its name and epochs."""
    for name, fit in fitted.fits.items():
        versions[name] = {epochs: VARIANTS[name](params) for epochs in sorted({params.epochs, fit.epoch})}
        for epochs, method in versions[name].items():
            yield name, epochs, method


def _handed_on(folder: Path) -> Model:
    remedy = "get the folder again"
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        if facts["version"] != VERSION:
            raise RunError(f"{folder} was written by another version ({facts['version']}): export the run again")
        params, expected = Params(**facts["settings"]), facts["sha256"]
    except (ValueError, KeyError, TypeError, ParameterError) as error:
        raise RunError(f"{folder / FACTS} is damaged ({error}): {remedy}") from None
    if not (folder / WEIGHTS).is_file() or digest(folder / WEIGHTS) != expected:
        raise RunError(f"{folder / WEIGHTS} is missing, or not the file that was written with {FACTS}: {remedy}")
    tensors, packed = read_tensors(folder / WEIGHTS, remedy)
    fitted, versions = unpack(tensors, packed), Versions()
    for name, epochs, method in _methods(params, fitted, versions):
        place = weights_place(name, epochs)
        method.load_state_dict({key.removeprefix(place): of for key, of in tensors.items() if key.startswith(place)})
        to_device(method, choose_device(params.device))
    return Model(facts["name"], params, versions, fitted, facts["identity"])


def weights_place(name: str, epochs: int) -> str:
    """Return what the names of a method's weights begin with in a file of tensors."""
    return f"weights/{name}/{epochs}/"


def weights(versions: Versions) -> Tensors:
    """Return all weights by their names in a file of tensors; in float16 where that holds the same numbers."""
    return {
        f"{weights_place(name, epochs)}{key}": _shortest(value.detach().cpu().contiguous().clone())
        for name, by_epochs in versions.items()
        for epochs, method in by_epochs.items()
        for key, value in method.state_dict().items()
    }


def _shortest(values: Tensor) -> Tensor:
    half = values.half()
    return half if values.is_floating_point() and torch.equal(half.to(values.dtype), values) else values


def _from_hub(address: str) -> Path:
    """Return the folder into which the files of a model on the hub, hf://OWNER/NAME[@REVISION], were downloaded."""
    with needing("stream", address, RunError):
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    name, _, revision = address.removeprefix(HUB).partition("@")
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=[WEIGHTS, FACTS, CARD]))
    except HFValidationError:
        raise RunError(f"{address} is no model's address: write hf://OWNER/NAME, or hf://OWNER/NAME@REVISION") from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        why = " ".join(str(error).split())[:200]
        raise RunError(
            f"{address} cannot be read ({why}): check the address and the network, or hf auth login"
        ) from None
