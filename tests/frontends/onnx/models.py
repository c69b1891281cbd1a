"""ONNX models that the tests build."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from crossfarm.frontends.onnx import load_onnx
from crossfarm.ir.interpreter import evaluate
from crossfarm.ir.module import IRModule

Array = np.ndarray[Any, np.dtype[Any]]
F32 = TensorProto.FLOAT
I64 = TensorProto.INT64
HIDDEN, HEADS = 16, 4


def tensor(name: str, element: int, shape: Sequence[int | str | None] | None) -> Any:
    """An input or output."""
    return helper.make_tensor_value_info(name, element, shape)


def model(
    nodes: Sequence[NodeProto], inputs: Sequence[Any], outputs: Sequence[Any],
    weights: Mapping[str, Array] | None = None, *, opset: int = 20,
    functions: Sequence[Any] = (), domains: Sequence[str] = (),
) -> ModelProto:  # fmt: skip
    """A model of nodes in order."""
    initializers = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(list(nodes), "test", list(inputs), list(outputs), initializers)
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=opsets, functions=list(functions))


def graph(nodes: Sequence[NodeProto], inputs: Sequence[Any], outputs: Sequence[Any]) -> GraphProto:
    """A branch or a loop's body."""
    return helper.make_graph(list(nodes), "inner", list(inputs), list(outputs))


def call(module: IRModule, *inputs: Array) -> tuple[Array, ...]:
    """What "main" gives, by the reference interpreter."""
    found = evaluate(module, "main", inputs)
    return found if isinstance(found, tuple) else (found,)


def run(made: ModelProto, *inputs: Array, **options: Any) -> tuple[Array, ...]:
    """Reads and calls a model."""
    return call(load_onnx(made, **options), *inputs)


def operators(module: IRModule) -> list[str]:
    """The operators of "main", in order."""
    main = module.graph_functions["main"]
    values = [binding.value for block in main.body.blocks for binding in block.bindings]
    return [getattr(value, "op", type(value).__name__) for value in values]


def transformer(dtype: Any = np.float32) -> ModelProto:
    """Attention and a small network with residuals, of any batch and length, shapes computed as exporters do."""
    random = np.random.default_rng(3)
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    each = HIDDEN // HEADS

    def made(*shape: int) -> Array:
        return (random.standard_normal(shape) / np.sqrt(shape[0])).astype(dtype)

    weights: dict[str, Array] = {f"w{n}": made(HIDDEN, HIDDEN) for n in "qkvo"}
    weights |= {"up": made(HIDDEN, 4 * HIDDEN), "up_bias": made(4 * HIDDEN), "down": made(4 * HIDDEN, HIDDEN)}
    weights |= {"scale": np.ones(HIDDEN, dtype), "shift": np.zeros(HIDDEN, dtype), "root": np.array(each**0.5, dtype)}
    weights |= {"half": np.array(0.5, dtype), "one": np.array(1, dtype), "root2": np.array(2**0.5, dtype)}
    weights |= {"i0": np.array(0), "i1": np.array(1), "axis0": np.array([0])}
    weights |= {"heads": np.array([HEADS]), "each": np.array([each]), "rest": np.array([-1]), "heads4": np.array(HEADS)}
    nodes: list[NodeProto] = []

    def node(op: str, inputs: str, output: str, **attrs: Any) -> None:
        nodes.append(helper.make_node(op, inputs.split(), [output], name=f"/{output}", **attrs))

    node("LayerNormalization", "x scale shift", "n")
    node("Shape", "n", "shape")
    node("Gather", "shape i0", "b")
    node("Gather", "shape i1", "s")
    node("Unsqueeze", "b axis0", "b1")
    node("Unsqueeze", "s axis0", "s1")
    node("Concat", "b1 s1 heads each", "split", axis=0)
    node("Concat", "b1 s1 rest", "merged", axis=0)
    for n in "qkv":
        node("MatMul", f"n w{n}", f"{n}0")
        node("Reshape", f"{n}0 split", f"{n}1")
        node("Transpose", f"{n}1", n, perm=(0, 2, 3, 1) if n == "k" else (0, 2, 1, 3))
    node("MatMul", "q k", "dots")
    node("Div", "dots root", "scores0")
    node("Mul", "b heads4", "bh")  # in and out of a batch of heads, as some exporters do
    node("Unsqueeze", "bh axis0", "bh1")
    node("Concat", "bh1 s1 s1", "flat", axis=0)
    node("Reshape", "scores0 flat", "scores1")
    node("Concat", "b1 heads s1 s1", "square", axis=0)
    node("Reshape", "scores1 square", "scores")
    node("Where", "mask scores low", "masked")
    weights["low"] = np.array(-1e4, dtype)
    node("Softmax", "masked", "weights", axis=-1)
    node("MatMul", "weights v", "mixed0")
    node("Transpose", "mixed0", "mixed1", perm=(0, 2, 1, 3))
    node("Reshape", "mixed1 merged", "mixed")
    node("MatMul", "mixed wo", "out")
    node("Add", "x out", "residual")
    node("MatMul", "residual up", "up0")
    node("Add", "up0 up_bias", "up1")
    node("Div", "up1 root2", "g0")  # gelu in parts
    node("Erf", "g0", "g1")
    node("Add", "g1 one", "g2")
    node("Mul", "up1 g2", "g3")
    node("Mul", "g3 half", "g4")
    node("MatMul", "g4 down", "low0")
    node("Add", "residual low0", "y")
    return model(
        nodes,
        [
            tensor("x", element, ["batch", "sequence", HIDDEN]),
            tensor("mask", TensorProto.BOOL, ["batch", 1, 1, "sequence"]),
        ],
        [tensor("y", element, ["batch", "sequence", HIDDEN])],
        weights,
    )
