"""Settings that cannot stand together, and combinations beyond what a machine computes -> what to write instead."""

from collections.abc import Iterator
from typing import Any

from lib.refusals import echo

Settings = Any  # `lib.params.Params`, which imports this module

MOST = {"epochs": 1_000_000, "resamples": 1_000_000, "batch_size": 65_536, "latent_dim": 65_536, "widths": 65_536}
GAME = {"ra", "si-vae"}  # methods with an adversarial game


def contradiction(params: Settings) -> str:
    """Return the first contradiction among settings that are right one by one, and the way out; "" if there is none."""
    return next((found for check in (_beyond, _images, _training, _places) for found in check(params)), "")


def _beyond(params: Settings) -> Iterator[str]:
    for name, most in MOST.items():  # whether a combination fits into memory is known before training
        value = getattr(params, name)
        if max(value if isinstance(value, list) else [value]) > most:
            yield f"{name}={echo(value)} is beyond what this can compute; write at most {most:,}"
    if len(params.widths) > 10:
        yield f"widths={echo(params.widths)} halves an image {len(params.widths):,} times; write at most 10"


def _images(params: Settings) -> Iterator[str]:
    step = 2 ** len(params.widths)
    if params.image_size % step:
        lower = params.image_size // step * step
        near = [size for size in (lower, lower + step) if size >= 16]
        yield (
            f"image_size={params.image_size} is not a multiple of {step}: each of the {len(params.widths)} widths "
            f"halves the image once; write {' or '.join(map(str, near))}, or fewer widths"
        )
    if params.source == "phantom" and params.image_size < 32:
        yield f"image_size={params.image_size} is too small for a phantom to show a chest; write 32 or more"
    if min(params.widths) < 1:
        yield f"widths={echo(params.widths)} holds a number below 1; wanted channels, for example [32, 64, 128]"
    if params.image_size % 16 and (small := [name for name in params.methods if name.startswith("ae-")]):
        yield f"image_size={params.image_size} is not a multiple of 16, which {small[0]} wants: write 64 or 128"
    low, high = params.stretch
    if not 0 <= low < high <= 100:
        yield f"stretch={echo(params.stretch)} is not a range of percentiles; wanted 0 <= low < high <= 100"
    low, high = params.phantom_severity
    if not 0 <= low <= high <= 1 or high == 0:
        yield (
            f"phantom_severity={echo(params.phantom_severity)} is not a range of severities; wanted "
            "0 <= least <= most <= 1, and a most above 0"
        )


def _training(params: Settings) -> Iterator[str]:
    if params.choose_from and not 1 <= min(params.choose_from) <= max(params.choose_from) <= params.epochs:
        yield (
            f"choose_from={echo(params.choose_from)} names an epoch that does not exist; wanted numbers from 1 to "
            f"epochs={params.epochs}"
        )
    if len(set(params.methods)) < len(params.methods):
        yield f"methods={echo(params.methods)} names a method twice; wanted each at most once"
    if params.ra_warmup_epochs >= params.epochs and GAME & {*params.methods}:
        yield (
            f"ra_warmup_epochs={echo(params.ra_warmup_epochs)} leaves none of the {params.epochs} epochs for the "
            f"game: RA would be a plain VAE; write at most {params.epochs - 1}"
        )
    variational = (GAME | {"vae"}) & {*params.methods}
    if variational and "frozen-normalisation" in params.ra_as_published and params.normalisation == "group":
        yield (
            "ra_as_published holds 'frozen-normalisation', but group normalisation keeps no statistics to freeze: "
            "write normalisation: batch"
        )
    if len(set(params.seeds)) < len(params.seeds) or not all(0 <= seed < 2**31 for seed in params.seeds):
        yield f"seeds={echo(params.seeds)} are not different numbers from 0 to {2**31 - 1}: a seed counts once"
    elif params.seeds and params.seed != params.seeds[0]:
        yield f"seed={params.seed} is not the first of seeds={echo(params.seeds)}: write seed: {params.seeds[0]}"


def _places(params: Settings) -> Iterator[str]:
    folders = {"run_dir": params.run_dir, "keep_in": params.keep_in}
    if address := next((f"{name}={echo(path)}" for name, path in folders.items() if "://" in path), ""):
        yield f"{address} is an address; wanted a folder, for example one where the bucket is mounted"
    if params.source in ("folder", "stream") and not params.data_dir:
        what = {"folder": "the folder's path", "stream": "the address of the shards"}[params.source]
        yield f"data_dir='' is empty, but source={params.source!r} reads images from it: give {what}"
