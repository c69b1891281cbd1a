"""The models that are measured: the light ones of the onnx package with random weights, as files."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import shape_inference

from benchmarks.cpu.works import Work
from benchmarks.models import light

#: Those of a quick look.
_QUICK = ("squeezenet", "shufflenet")


@dataclass(frozen=True)
class ModelWork(Work):
    """One model. ``program`` is the path of its file; ``input_name`` what it calls its only input."""

    input_name: str = ""

    def message(self) -> dict[str, Any]:
        return {**super().message(), "input_name": self.input_name}


def models(folder: Path, *, quick: bool) -> Iterator[ModelWork]:
    """Each model with its weights in a file of ``folder``, which is removed when the next one is asked for."""
    for name in _QUICK if quick else light.NAMES:
        plain = onnx.load(light.path(name))
        file = folder / f"{name}.onnx"
        onnx.save(light.with_random_weights(plain, seed=7), file)
        try:
            yield _work(name, plain, file)
        finally:
            file.unlink()


def _work(name: str, plain: onnx.ModelProto, file: Path) -> ModelWork:
    inferred = shape_inference.infer_shapes(plain, data_prop=True)
    shapes = {
        value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
        for value in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output)
    }
    given = light.given(plain)
    return ModelWork(
        name,
        "model",
        {},
        str(file),
        (shapes[given],),
        shapes[inferred.graph.output[0].name],
        flops=sum(_flops(node, shapes) for node in inferred.graph.node),
        input_name=given,
    )


def _flops(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> int:
    """Multiplications and additions of a product or convolution; the rest is not worth counting."""
    if node.op_type not in ("Conv", "Gemm"):
        return 0
    weights = shapes[node.input[1]]
    return 2 * math.prod(shapes[node.output[0]]) * (math.prod(weights) // _results(node, weights))


def _results(node: onnx.NodeProto, weights: tuple[int, ...]) -> int:
    """How many results a column of the weights gives: filters, or a product's columns."""
    transposed = any(a.name == "transB" and a.i for a in node.attribute)
    return weights[0] if node.op_type == "Conv" or transposed else weights[1]
