"""What onnx's own reference evaluator says of an operator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.ir.graph_operators.harness import Array

onnx = pytest.importorskip("onnx")


def by_onnx(op: str, *inputs: Array | None, opset: int = 19, results: int = 1, **attrs: Any) -> list[Array]:
    """The results of one node; None for an input that is left out."""
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    names = [f"x{k}" if x is not None else "" for k, x in enumerate(inputs)]
    given = {name: x for name, x in zip(names, inputs) if x is not None}
    outputs = [f"y{k}" for k in range(results)]
    graph = helper.make_graph(
        [helper.make_node(op, names, outputs, **attrs)],
        "graph",
        [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape) for n, x in given.items()],
        [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    return [np.asarray(y) for y in ReferenceEvaluator(model).run(None, given)]
