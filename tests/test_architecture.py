"""The architecture page says what the code is: its layers, its figures, its names and its tests."""

import re
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import nn

from lib.data.dataset import load_data
from lib.data.sources import open_source
from lib.methods.method import Method
from lib.methods.ra import ReversedAutoencoder, Weights
from lib.methods.training import multiply_adds
from lib.methods.unet import UNetAutoencoder
from lib.methods.variants import VARIANTS
from lib.params import Params
from lib.scores.maps import POOLS, Distance, anomaly_maps, describe, residual_map
from lib.scores.references import REFERENCES

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/IMG_AE_DX_ARCHITECTURE.md").read_text(encoding="utf-8")
STANDARD = Params(preset="standard")  # which the page describes
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
        def note(module, inputs, output):
            sizes = ("×".join(map(str, array.shape[1:])) for array in (inputs[0], output))
            seen.append((name, *sizes, f"{count(module):,}"))

        return note

    for name, module in method.named_modules():
        if re.fullmatch(r"\w+\.((down|up)\.\d|bottom|head|from_latent|to_\w+)", name):
            module.register_forward_hook(hook(name.split(".", 1)[1]))
    with torch.no_grad():
        method.eval().reconstruct(torch.zeros(1, 1, STANDARD.image_size, STANDARD.image_size))
    return seen


def number(text: str) -> int:
    return int(text.strip("*").replace(",", ""))


@pytest.mark.parametrize("heading", METHODS)
def test_each_row_of_a_layers_table_is_that_layer_and_together_they_are_all_weights(heading):
    method = METHODS[heading].from_params(STANDARD)
    found, totals = layers(method), {}
    for _, module, *shapes, weights in table(passage(heading)):
        if module.startswith("**"):
            totals[module.strip("*")] = number(weights)
            continue
        names = re.findall(r"`([^`]+)`", module)  # one layer, or the first and the last of several
        end = [layer[0] for layer in found].index(names[-1]) + 1
        row, found = found[:end], found[end:]
        assert row[0][0] == names[0] and (len(names) > 1 or len(row) == 1)
        assert [shape.split(" ")[0] for shape in shapes] == [row[0][1], row[-1][2]]
        assert number(weights) == sum(number(layer[3]) for layer in row)
    assert found == []
    parts = {"encoder": method.encoder, "decoder": method.decoder} if hasattr(method, "encoder") else {}
    name = "RA" if parts else "U-Net"
    assert totals == {part: count(module) for part, module in (parts | {name: method}).items()}


def test_the_figures_are_those_of_the_code():
    params, widths = STANDARD, [64, 128, 256, 512, 512]
    with torch.device("meta"):
        ra, unet = ReversedAutoencoder(128, widths, 128), UNetAutoencoder(widths)
    assert f"**{count(ra):,}** weights" in PAGE
    assert f"**{count(unet):,}**" in PAGE
    ra, unet = (method.from_params(params) for method in (ReversedAutoencoder, UNetAutoencoder))
    one, warmup, game = (
        multiply_adds(method, params.image_size, epoch)
        for method, epoch in ((unet, 0), (ra, 0), (ra, params.ra_warmup_epochs))
    )
    assert f"U-Net {one:,}; RA {warmup:,} in its warm-up and {game:,} in the game" in " ".join(PAGE.split())
    share = params.ra_warmup_epochs / params.epochs
    assert f"RA spends {(share * warmup + (1 - share) * game) / one:.2f} times" in " ".join(PAGE.split())
    weights = re.findall(r"`(ra_\w+)` \| `(\w+)` \| (\S+) \|", PAGE)
    assert [weight for _, weight, _ in weights] == list(Weights._fields)
    assert all(float(value) == getattr(params, setting) for setting, _, value in weights)
    assert f"`image_size` {params.image_size}, `widths` {params.widths}" in " ".join(PAGE.split())
    sides = load_data(open_source(params, ROOT), params).split(params).manifest["images"]
    assert "{train} training, {validation} validation and {test} test images".format(**sides) in " ".join(PAGE.split())


def test_every_test_and_file_that_it_names_exists():
    texts = [file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("test_*.py")]
    named = set(re.findall(r"\b(test_\w+)\b(?!\.py)", PAGE))
    assert len(named) > 30
    assert named <= {name for text in texts for name in re.findall(r"^def (test_\w+)", text, re.M)}
    assert not [path for path in re.findall(r"\b(?:lib|tests)/[\w/]+\.py", PAGE) if not (ROOT / path).is_file()]


def test_it_is_short_and_names_every_room():
    assert len(PAGE.splitlines()) <= 340
    rooms = {room.parent.name for room in (ROOT / "lib").glob("*/__init__.py")}
    rows = {name for row in table(passage("## 7 ")) for name in re.findall(r"`(\w+)/`", row[0])}
    assert rooms <= rows


def choices(setting: str) -> list[str]:
    """The values that a setting, or an entry of its list, may have."""
    (inner, *more) = get_args(Params.model_fields[setting].annotation)
    return [inner, *more] if isinstance(inner, str) else list(get_args(inner))


def test_the_methods_and_references_that_it_names_are_there_and_it_names_every_value_of_the_u_nets_settings():
    methods = [name for row in table(passage("### 4.1 ")) for name in re.findall(r"`([\w-]+)`", row[0])]
    assert {*Params().methods} <= {*methods} <= {*VARIANTS}
    references = set(re.findall(r"`([\w-]+)`", passage("### 5.5 ")))
    assert {*Params().references} <= references <= {*REFERENCES}
    values = [row[1].strip("`") for row in table(passage("### 2.1 "))]
    assert values == choices("unet_skips") + choices("unet_corruption")


def test_it_names_every_departure_that_can_be_taken_back_and_the_maps_and_pools_that_it_names_are_there():
    departures = " ".join(row[2] for row in table(passage("### 3.4 ")))
    assert set(choices("ra_as_published")) == set(re.findall(r"`([\w-]+)` takes theirs", departures))
    names = ("efficientnet-lite0", "lpips", "ra encoder")
    distances = dict.fromkeys(names, Distance(lambda images: images, residual_map))
    images = torch.rand(1, 1, 16, 16)
    maps = anomaly_maps(describe(images, distances), describe(images.flip(3), distances), distances)
    rows = [name for row in table(passage("### 5.2 ")) for name in re.findall(r"`([^`]+)`", row[0])]
    assert {"residual", *distances} <= set(rows) - {"resnet18"} <= set(maps)
    pools = re.search(r"A \*\*pool\*\* makes(.*?)A score is", passage("### 5.2 "), re.S)
    assert {"mean"} <= set(re.findall(r"`([^`]+)`", pools[1])) <= set(POOLS)
