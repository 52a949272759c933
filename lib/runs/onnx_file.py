"""A method's reconstruction -> an ONNX file, to run without torch, and what it wants and gives, in words."""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from lib.environment import needing
from lib.evidence.evaluation import FALSE_ALARM_RATE
from lib.methods.method import Images, Method, to_unit
from lib.runs.model import USE, Model
from lib.runs.places import GRAPHS
from lib.runs.run import RunError
from lib.scores.scoring import CPU

WANTED, GIVEN = "images", "reconstructions"
TOLERANCE = 1e-5  # in grey levels from 0 to 1: a 400th of a level of 8 bits


def onnx_place(method: str) -> str:
    """Return the name of a method's ONNX file."""
    return GRAPHS.replace("*", method)


def said(model: Model, method: str) -> dict[str, str]:
    """Return what a method's ONNX file wants and gives, and how that becomes a score, in words by topic."""
    size, threshold = model.params.image_size, model.thresholds(FALSE_ALARM_RATE)[method]
    shape = f"float32 (n, 1, {size}, {size}) in [0, 1], for any n"
    return {
        "input": f"{WANTED}: {shape}",
        "preparation": model.preparation.rule(),
        "output": f"{GIVEN}: {shape}; each image as the method expects a normal one to look",
        "score": f"the mean over an image's pixels of |{WANTED} - {GIVEN}|; higher is more anomalous",
        "threshold": f"a score above {threshold!r} is called abnormal, at a false alarm rate of {FALSE_ALARM_RATE:.0%}",
        "model": f"{method} of {model.name}, {model.identity}",
        "use": USE,
    }


def check_installed() -> None:
    """Raise RunError if a package is missing."""
    with needing("onnx", "--onnx", RunError):
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401


class _Reconstruction(nn.Module):
    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, images: Images) -> Images:
        return self.method.reconstruct(images)


def onnx_file(method: Method, images: np.ndarray, about: Mapping[str, str]) -> bytes:
    """Return a method's reconstruction as an ONNX file with `about` as its metadata.

    It is checked with some uint8 images, (n, size, size), one at a time and several.

    Raises:
        RunError: What onnxruntime computes is not what torch computes.

    """
    import onnx
    import onnxruntime

    plain = copy.deepcopy(method).to(CPU, memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    unit = to_unit(images, CPU)
    program = torch.onnx.export(
        _Reconstruction(plain).eval(),
        (unit[:2],),
        dynamo=True,
        input_names=[WANTED],
        output_names=[GIVEN],
        dynamic_shapes={WANTED: {0: torch.export.Dim("n")}},
        optimize=True,
        verbose=False,
    )
    assert program is not None  # as from the older exporter, which dynamo=False chooses
    graph = program.model_proto
    _strip(graph)
    for value in (*graph.graph.input, *graph.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "n"
    onnx.helper.set_model_props(graph, dict(about))
    onnx.checker.check_model(graph, full_check=True)
    content = graph.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for batch in (unit[:1], unit[:2], unit):
        [found] = session.run(None, {WANTED: batch.numpy()})
        with torch.no_grad():
            difference = float(np.abs(found - plain.reconstruct(batch).numpy()).max())
        if not difference <= TOLERANCE:
            raise RunError(
                f"the ONNX file redraws an image otherwise than torch, by up to {difference:.2g} in grey levels from 0 "
                f"to 1; at most {TOLERANCE:g} is allowed: export without --onnx"
            )
    return content


def _strip(message: Any) -> None:
    """Remove from a graph and all its parts what the exporter notes of this machine, and the shapes between layers."""
    for field, value in message.ListFields():
        if field.name in ("doc_string", "metadata_props", "value_info"):
            message.ClearField(field.name)
        elif field.message_type:
            for part in [value] if hasattr(value, "ListFields") else value:
                _strip(part)
