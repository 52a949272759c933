"""The architecture page says what the code is: its figures, its tests and its map."""

import importlib
import re
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import nn

from lib.arms import ARMS
from lib.dataset import load_data
from lib.method import Method
from lib.params import Params
from lib.ra import ReversedAutoencoder, Weights
from lib.scoring import POOLS, Distance, anomaly_maps, describe, residual_map
from lib.sources import open_source
from lib.training import multiply_adds
from lib.unet import UNetAutoencoder

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/IMG_AE_DX_ARCHITECTURE.md").read_text(encoding="utf-8")
METHODS = {"## 2 ": UNetAutoencoder, "### 3.1 ": ReversedAutoencoder}


def passage(heading: str) -> str:
    """The page from this heading to the next."""
    return PAGE.split(f"\n{heading}", 1)[1].split("\n#", 1)[0]


def table(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"][2:]


def count(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def layers(method: Method) -> list[tuple[str, ...]]:
    """Name, shape in, shape out and weights of each layer that an image passes, as the page writes them."""
    seen = []

    def hook(name):
        def note(module, given, made):
            sizes = ("×".join(map(str, array.shape[1:])) for array in (given[0], made))
            seen.append((name, *sizes, f"{count(module):,}"))

        return note

    for name, module in method.named_modules():
        if re.fullmatch(r"\w+\.((down|up)\.\d|bottom|head|from_latent|to_\w+)", name):
            module.register_forward_hook(hook(name.split(".", 1)[1]))
    with torch.no_grad():
        method.eval().reconstruct(torch.zeros(1, 1, Params().image_size, Params().image_size))
    return seen


@pytest.mark.parametrize("heading", METHODS)
def test_each_row_of_a_layers_table_is_that_layer_and_together_they_are_all_weights(heading):
    method = METHODS[heading].from_params(Params())
    found = layers(method)
    written, totals = [], {}
    for _, module, *shapes, weights in table(passage(heading)):
        if module.startswith("**"):
            totals[module.strip("*")] = weights.strip("*")
        elif " to `" in module:  # the way down, in one row, is written out in the other method's table
            down = [row for row in table(passage("## 2 ")) if re.match(r"`(down|bottom)", row[1])]
            written += [(row[1].split("`")[1], *(cell.split(" ")[0] for cell in row[2:])) for row in down]
            assert shapes == [written[0][1], written[-1][2]]
            assert weights == f"{sum(int(row[3].replace(',', '')) for row in written):,}"
        else:
            written.append((module.split("`")[1], *(shape.split(" ")[0] for shape in shapes), weights))
    assert written == found
    parts = {"encoder": method.encoder, "decoder": method.decoder} if hasattr(method, "encoder") else {}
    name = "RA" if parts else "U-Net"
    assert totals == {part: f"{count(module):,}" for part, module in (parts | {name: method}).items()}


def test_the_figures_are_those_of_the_code():
    params, widths = Params(), [64, 128, 256, 512, 512]
    with torch.device("meta"):
        ra, unet = ReversedAutoencoder(128, widths, 128), UNetAutoencoder(widths)
    assert f"**{count(ra):,}** weights" in PAGE
    assert f"**{count(unet):,}**" in PAGE
    ra, unet = (method.from_params(params) for method in (ReversedAutoencoder, UNetAutoencoder))
    one, warmup, game = (
        multiply_adds(method, params.image_size, epoch)
        for method, epoch in ((unet, 0), (ra, 0), (ra, params.ra_warmup_epochs))
    )
    assert f"U-Net {one:,}; RA {warmup:,} in its warm-up and {game:,} in the game" in PAGE
    share = params.ra_warmup_epochs / params.epochs
    assert f"RA spends {(share * warmup + (1 - share) * game) / one:.2f} times" in " ".join(PAGE.split())
    weights = re.findall(r"`(ra_\w+)` \| `(\w+)` \| (\S+) \|", PAGE)
    assert [weight for _, weight, _ in weights] == list(Weights._fields)
    assert all(float(value) == getattr(params, setting) for setting, _, value in weights)
    assert f"`image_size` {params.image_size}, `widths`\n{params.widths}" in PAGE
    sides = load_data(open_source(params, ROOT), params).split(params).manifest["images"]
    assert "{train} training, {validation} validation and {test} test images".format(**sides) in PAGE


def test_every_test_that_it_names_exists():
    files = {file.name: file.read_text(encoding="utf-8") for file in (ROOT / "tests").glob("test_*.py")}
    named = set(re.findall(r"\btest_\w+(?:\.py)?", PAGE))
    assert len(named) > 30
    there = set(files) | {name for text in files.values() for name in re.findall(r"^def (test_\w+)", text, re.M)}
    assert named <= there, named - there


def test_its_map_has_every_module_of_lib_with_names_that_are_there():
    rows = {row[0].strip("`"): re.findall(r"`(\w+)`", row[2]) for row in table(passage("## 9 "))}
    assert sorted(rows) == sorted(file.stem for file in (ROOT / "lib").glob("*.py") if file.stem != "__init__")
    for module, names in rows.items():
        there = vars(importlib.import_module(f"lib.{module}"))
        assert not [name for name in names if name not in there], module


def choices(setting: str) -> list[str]:
    """The values that a setting, or an entry of its list, may have."""
    (inner, *more) = get_args(Params.model_fields[setting].annotation)
    return [inner, *more] if isinstance(inner, str) else list(get_args(inner))


def test_its_tables_name_every_method_every_reference_row_and_every_value_of_the_u_nets_settings():
    for heading, expected in (("### 4.1 ", list(ARMS)), ("### 5.5 ", choices("references"))):
        assert [name for row in table(passage(heading)) for name in re.findall(r"`([\w-]+)`", row[0])] == expected
    assert [row[1].strip("`") for row in table(passage("### 2.1 "))] == choices("unet_skips") + choices(
        "unet_corruption"
    )


def test_it_names_every_departure_that_can_be_taken_back_and_every_map_and_pool():
    departures = " ".join(row[2] for row in table(passage("### 3.4 ")))
    assert set(choices("ra_as_published")) == set(re.findall(r"`([\w-]+)` takes theirs", departures))
    names = ("efficientnet-lite0", "lpips", "ra encoder")
    distances = dict.fromkeys(names, Distance(lambda images: images, residual_map))
    images = torch.rand(1, 1, 16, 16)
    made = anomaly_maps(describe(images, distances), describe(images.flip(3), distances), distances)
    rows = [name for row in table(passage("### 5.2 ")) for name in re.findall(r"`([^`]+)`", row[0])]
    assert set(rows) - {"resnet18"} == set(made)
    assert all(f"`{pool}`" in passage("### 5.2 ") for pool in POOLS)
