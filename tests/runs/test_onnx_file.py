"""The ONNX file of a method redraws images as the method does, in any number, and names no place of this machine."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lib.methods.method import Method
from lib.methods.variants import VARIANTS
from lib.params import Params
from lib.runs.onnx_file import GIVEN, WANTED, check_installed, onnx_file
from lib.runs.run import RunError

SMALL = {"image_size": 32, "widths": [4], "latent_dim": 5}

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is missing: pip install '.[onnx]'")
onnx = pytest.importorskip("onnx", reason="onnx is missing: pip install '.[onnx]'")

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 32, 32), dtype=np.uint8)


def untrained(name: str, **settings) -> Method:
    """A network whose batch normalisation has seen other images than none."""
    torch.manual_seed(0)
    method = VARIANTS[name](Params(**SMALL | settings)).train()
    with torch.no_grad():
        method.reconstruct(torch.rand(8, 1, 32, 32))
    return method.eval()


@pytest.mark.parametrize(
    ("name", "normalisation"), [*((name, "batch") for name in VARIANTS), ("unet", "group"), ("ra", "group")]
)
def test_the_file_redraws_any_number_of_images_as_torch_does_and_says_what_it_was_told(name, normalisation):
    method = untrained(name, normalisation=normalisation)
    before = {key: value.clone() for key, value in method.state_dict().items()}
    content = onnx_file(method, IMAGES, {"use": "research"})
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    [wanted], [given] = session.get_inputs(), session.get_outputs()
    assert (wanted.name, wanted.type, wanted.shape) == (WANTED, "tensor(float)", ["n", 1, 32, 32])
    assert (given.name, given.type, given.shape) == (GIVEN, "tensor(float)", ["n", 1, 32, 32])
    assert session.get_modelmeta().custom_metadata_map == {"use": "research"}
    for count in (1, 3, 8):
        images = torch.rand(count, 1, 32, 32)
        [found] = session.run(None, {WANTED: images.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(found, method.reconstruct(images).numpy(), rtol=0, atol=1e-5)
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())


def test_the_file_names_no_place_of_this_machine_and_no_line_of_code():
    content = onnx_file(untrained("ra"), IMAGES, {})
    for place in (Path(__file__).parents[2], Path.home(), Path(torch.__file__).parent, Path(sys.prefix)):
        assert str(place).encode() not in content
    for trace in (b".py", b"site-packages", b"stack_trace", b'File "'):
        assert trace not in content


def test_a_method_that_draws_at_random_is_refused_with_the_figure():
    method = untrained("ra", ra_as_published=["sampled-latent"])
    with pytest.raises(RunError, match=r"redraws an image otherwise than torch, by up to \d.* at most 1e-05"):
        onnx_file(method, IMAGES, {})


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_without_a_package_the_refusal_says_what_to_install(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(RunError, match=r"pip install '.\[onnx\]'"):
        check_installed()
