r"""Synthetic frontal chest radiographs of the patients in `anatomy.py`, with the exact pixels that a finding changed.

A controlled experiment and a smoke test, not evidence: a method that finds these lesions may miss real ones.

An image shows the part of the beam that passes by Beer and Lambert's law, plus scatter:

    L = sum over tissues of mu * length,    signal = exp(-L) + kappa * blur(L exp(-L)),    grey = -log(signal).

The scatter is first order (what interacts and leaves goes with L exp(-L)), spread over several centimetres. Detector
unsharpness acts on L instead of exp(-L); the two differ in second order.
"""

import math
from functools import reduce
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn, idctn
from scipy.ndimage import gaussian_filter

from lib.data.anatomy import (
    DEFICIT,
    FIELD,
    MU_LUNG,
    MU_SOFT,
    Array,
    draw_patient,
    half_chord,
    line_integral,
    position,
    rays,
    vessels_seen,
)

FINDINGS = ("opacity", "nodule", "effusion", "cardiomegaly", "pneumothorax")

UNSHARPNESS = 0.13  # cm, standard deviation: focal spot, motion and resampling together
SCATTER_REACH = 4.0  # cm, standard deviation
PHOTONS = 1.0e6  # per cm2 of open beam; few, to stand for electronic noise and grain as well
FINEST = 128  # pixels: a smaller image averages a grid of at least this many, so that no nodule falls between pixels
TOLERANCE = 0.02  # of L: a pixel that changes by more is in the mask, one that does not keeps its normal value


class Radiograph(NamedTuple):
    """One image and its ground truth."""

    image: NDArray[np.float32]  # (size, size) in [0, 1], 1 = white = dense
    mask: NDArray[np.bool_]  # (size, size), the pixels that the finding changed; all False if normal
    finding: str  # "" if normal
    severity: float  # in (0, 1]; 0.0 if normal
    view: str  # "PA" or "AP"
    sex: str  # "F" or "M"
    age: int  # years


def radiograph(
    patient: int,
    exposure: int = 0,
    *,
    finding: str = "",
    severity: float | None = None,
    lesions: int = 1,
    size: int = 128,
    seed: int = 0,
) -> Radiograph:
    """Return the image of a patient, normal or with one finding; the same arguments give the same bytes.

    Anatomy, sex and age depend on (seed, patient); view, positioning and noise also on `exposure`; the lesion's place
    on all three and `finding`. `severity` in (0, 1] sets extent and density; None draws it. There are so many `lesions`
    of the finding, in places of their own, which may overlap; a heart is one.

    The images of one exposure with and without a finding are counterfactuals, equal bit for bit outside the mask:
    scatter, display range and the noise's standard field are those of the normal image. The mask holds the pixels
    inside the beam whose noise-free L, unsharpness included, differs by more than `TOLERANCE`.

    Raises:
        ValueError: The finding is unknown, the severity out of range or without a finding, the size below 32, a
            number negative, or none of the lesions.

    """
    if finding not in ("", *FINDINGS):
        raise ValueError(f"finding={finding!r} is unknown: use one of {', '.join(FINDINGS)}, or '' for a normal image")
    if severity is not None and not finding:
        raise ValueError(f"severity={severity} without a finding: name one of {', '.join(FINDINGS)}, or leave it out")
    if severity is not None and not 0 < severity <= 1:
        raise ValueError(f"severity={severity} is not in (0, 1]: choose one that is, or None to draw it")
    if size < 32:
        raise ValueError(f"size={size} pixels is too small to show a chest: use 32 or more")
    if lesions < 1:
        raise ValueError(f"lesions={lesions}: use 1 or more; a normal image has no finding")
    if min(seed, patient, exposure) < 0:
        raise ValueError(f"{seed=}, {patient=}, {exposure=}: one is negative, use 0 or more")

    chest, rng = _chest(patient, exposure, seed)
    fine = size * math.ceil(FINEST / size)
    x, y = rays(chest, fine)
    vessels = vessels_seen(chest, fine)
    normal, aerated, blood = line_integral(chest, x, y, vessels)
    length = _detected(normal, size)
    open_beam = _beam(chest, size)
    change = np.zeros_like(length)
    if finding:
        lesion = np.random.default_rng([seed, patient, 2, exposure, FINDINGS.index(finding)])
        drawn = 1 - float(lesion.random())  # in (0, 1]; always drawn, so that the lesion's place does not depend on it
        severity = drawn if severity is None else float(severity)
        if finding == "cardiomegaly":
            larger = line_integral(chest, x, y, vessels, 1.12 + 0.38 * severity)[0]
            change = _detected(larger - normal, size)
        else:
            gains = [_lesion(finding, severity, chest, lesion, x, y, aerated, blood) for _ in range(lesions)]
            change = _detected(reduce(_stronger, gains), size)
    mask = (np.abs(change) > TOLERANCE) & open_beam

    primary = np.exp(-length)
    scatter = chest.scatter * _spread(length * primary, SCATTER_REACH * size / FIELD)
    noise = rng.standard_normal((size, size), dtype=np.float32)
    photons = PHOTONS * chest.exposure * (FIELD / size) ** 2
    grey = _grey(primary + scatter, noise, photons)
    white = float(np.percentile(grey[open_beam], 99))  # black is the open beam: -log(1)
    if finding:
        grey = np.where(mask, _grey(np.exp(-(length + change)) + scatter, noise, photons), grey)
    image = np.clip(grey / white, 0, 1) ** chest.gamma * open_beam
    return Radiograph(image, mask, finding, severity or 0.0, chest.view, chest.sex, chest.age)


def subject(patient: int, exposure: int = 0, *, seed: int = 0) -> dict[str, str | int]:
    """Return view, sex and age of an image without drawing it."""
    chest, _ = _chest(patient, exposure, seed)
    return {"view": chest.view, "sex": chest.sex, "age": chest.age}


def _chest(patient: int, exposure: int, seed: int) -> tuple[SimpleNamespace, np.random.Generator]:
    """Return a patient as one image shows them, and the generator that goes on to draw the image's noise."""
    rng = np.random.default_rng([seed, patient, 1, exposure])
    return position(draw_patient(np.random.default_rng([seed, patient, 0])), rng), rng


def _lesion(
    finding: str,
    severity: float,
    chest: SimpleNamespace,
    rng: np.random.Generator,
    x: Array,
    y: Array,
    aerated: Array,
    blood: Array,
) -> Array:
    """Return what a finding in the lungs adds to L along each ray."""
    side = 1.0 if rng.random() < 0.5 else -1.0
    here, across = x * side > 0, np.abs(x)
    (cx, cy), (width, height, depth), tilt, power = chest.lung
    dome = chest.dome + chest.left_drop * (side > 0)
    px, py = side * (cx + width * float(rng.uniform(-0.25, 0.5))), float(rng.uniform(chest.top + 4.5, dome - 2.5))
    if finding == "nodule":
        radius = 0.7 + 1.1 * severity
        gain = DEFICIT * np.minimum(2 * half_chord(x, y, (px, py), (radius,) * 3), aerated)
    elif finding == "opacity":  # lobules of Gaussian density, whose projection is Gaussian
        fluid, spread = np.zeros_like(x), 0.8 + 1.2 * severity
        for dx, dy, extent in rng.normal(0, 1, (6, 3)).tolist():
            reach = spread * (0.8 + 0.15 * min(abs(extent), 2))
            squared = (x - px - spread * dx) ** 2 + (y - py - spread * dy) ** 2
            fluid += np.exp(squared * (-0.5 / reach**2))
        gain = DEFICIT * np.minimum((0.8 + 3.2 * severity) * fluid, 0.9 * aerated) * here
    elif finding == "effusion":  # the meniscus climbs towards the chest wall
        climb = 0.55 + 0.45 * np.clip((across - 4) / 9, 0, 1) ** 2
        surface = dome + 2.5 - (1.2 + 9 * severity) * climb
        gain = DEFICIT * aerated * np.clip(y - surface, 0, 1) * here
    else:  # pneumothorax: the lung shrinks towards the mediastinum's foot, still touching the wall in front and behind
        keep = 1 - (0.08 + 0.37 * severity)
        foot = (cx - 1.4 * width, cy + 0.5 * height)
        middle = (foot[0] + keep * (cx - foot[0]), foot[1] + keep * (cy - foot[1]))
        outer, inner = (
            half_chord(across, y, middle, (width * keep - t, height * keep - t, 1.25 * depth - t), tilt, power)
            for t in (0.0, 0.04)  # cm of pleura, a white line where the ray runs along it
        )
        full = half_chord(across, y, *chest.lung)
        gas = np.maximum(full - outer, 0) / np.maximum(full, 1e-3)
        pleura = np.minimum(2 * (outer - inner), aerated)
        gain = (DEFICIT * pleura - gas * (MU_LUNG * aerated + MU_SOFT * blood)) * here
    return chest.build * gain


def _stronger(gain: Array, other: Array) -> Array:
    """Return, ray by ray, the gain that changes more: where two lesions overlap, no lung is filled twice."""
    return np.where(np.abs(gain) >= np.abs(other), gain, other)


def _detected(length: Array, size: int) -> Array:
    """Return line integrals as `size` x `size` detector elements resolve them."""
    fine = len(length)
    unsharp = gaussian_filter(length, UNSHARPNESS * fine / FIELD, truncate=3)
    return unsharp.reshape(size, fine // size, size, fine // size).mean((1, 3))


def _beam(chest: SimpleNamespace, size: int) -> NDArray[np.bool_]:
    """Return which pixels the collimator leaves open."""
    u = ((np.arange(size) + 0.5) / size - 0.5) * FIELD
    left, right, top, bottom = chest.beam
    return ((u > -top) & (u < bottom))[:, None] & ((u > -left) & (u < right))


def _spread(source: Array, sigma: float) -> Array:
    """Blur by a Gaussian through the cosine transform, because sigma (pixels) is large; edges mirror."""
    frequency = np.arange(len(source), dtype=np.float32) * (math.pi / len(source))
    transfer = np.exp(-0.5 * (sigma * frequency) ** 2)
    return np.maximum(idctn(dctn(source) * transfer[:, None] * transfer), 0)


def _grey(signal: Array, noise: Array, photons: float) -> Array:
    """Return minus the log of the photons counted, relative to the open beam; `noise` is Poisson's, standardised."""
    return -np.log(np.maximum(signal + noise * np.sqrt(signal / photons), 1e-5))
