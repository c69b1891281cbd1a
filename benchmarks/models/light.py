"""The nine light models of the onnx package: real architectures, weights of one number each, outputs for one input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.backend.test
from onnx import numpy_helper

NAMES = (
    "bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet", "squeezenet", "vgg19",
    "zfnet512",
)  # fmt: skip
#: What the onnx package's own tests of these models allow.
RTOL, ATOL = 1e-3, 1e-7

Array = np.ndarray[Any, np.dtype[Any]]
_FOLDER = Path(onnx.backend.test.__file__).parent / "data" / "light"


def path(name: str) -> Path:
    """Where the model is."""
    return _FOLDER / f"light_{name}.onnx"


def given(model: onnx.ModelProto) -> str:
    """The name of the model's only input that is no initializer."""
    stored = {tensor.name for tensor in model.graph.initializer}
    (name,) = (value.name for value in model.graph.input if value.name not in stored)
    return name


def data(model: onnx.ModelProto) -> Array:
    """The input that the shipped output belongs to: rising from 0 to 1."""
    (value,) = (value for value in model.graph.input if value.name == given(model))
    shape = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
    count = int(np.prod(shape))
    return (np.arange(count).reshape(shape) / count).astype(np.float32)


def expected(name: str) -> Array:
    """The output that the onnx package ships."""
    tensor = onnx.TensorProto.FromString((_FOLDER / f"light_{name}_output_0.pb").read_bytes())
    return numpy_helper.to_array(tensor)


def with_random_weights(model: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """The same model with weights drawn at random, as initializers; of a size that keeps values in range."""
    rng = np.random.default_rng(seed)
    shapes = {tensor.name: tuple(numpy_helper.to_array(tensor)) for tensor in model.graph.initializer}
    roles = dict(_roles(model))
    made, kept = [], []
    for node in model.graph.node:
        if node.op_type == "ConstantOfShape" and node.input[0] in shapes:
            weights = _weights(rng, tuple(int(n) for n in shapes[node.input[0]]), roles.get(node.output[0], ""))
            made.append(numpy_helper.from_array(weights, node.output[0]))
        else:
            kept.append(node)
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    del changed.graph.node[:]
    changed.graph.node.extend(kept)
    changed.graph.initializer.extend(made)
    changed.ir_version = max(changed.ir_version, 4)  # from here on initializers need not be inputs
    return changed


def _roles(model: onnx.ModelProto) -> Iterator[tuple[str, str]]:
    """Which values are variances and scales of batch norms, which weights of sums of products."""
    for node in model.graph.node:
        if node.op_type == "BatchNormalization":
            yield from zip(node.input[1:], ("scale", "bias", "mean", "variance"))
        elif node.op_type in ("Conv", "Gemm"):
            yield from zip(node.input[1:], ("weights", "bias"))


def _weights(rng: np.random.Generator, shape: tuple[int, ...], role: str) -> Array:
    match role:
        case "weights":
            spread = np.sqrt(1.0 / max(1, int(np.prod(shape[1:]))))
            return (rng.standard_normal(shape, np.float32) * np.float32(spread)).astype(np.float32)
        case "scale" | "variance":
            return rng.uniform(0.5, 1.5, shape).astype(np.float32)
        case "mean" | "bias":
            return (rng.standard_normal(shape, np.float32) * np.float32(0.1)).astype(np.float32)
        case _:
            return rng.uniform(0.5, 1.5, shape).astype(np.float32)


def close(got: Array, wanted: Array) -> Mapping[str, float]:
    """How far two outputs are apart. Raises AssertionError beyond what the onnx package allows."""
    np.testing.assert_allclose(got, wanted, rtol=RTOL, atol=ATOL)
    return {"largest": float(np.abs(got - wanted).max())}
