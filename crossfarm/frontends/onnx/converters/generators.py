"""Tensors made of shapes and numbers: constants, ranges, identity matrices, windows of signals."""

from __future__ import annotations

import math

import numpy as np

from crossfarm.frontends.onnx.dtypes import dtype_of
from crossfarm.frontends.onnx.node import Node
from crossfarm.frontends.onnx.registry import converter
from crossfarm.frontends.onnx.value import SMALL, Tensor
from crossfarm.ir import dtype as dt
from crossfarm.ir.graph import dims


@converter("Constant")
def _constant(node: Node) -> Tensor:
    found = node.attr("value")
    if found is not None:
        return node.const(found)
    for name, dtype in (("value_float", "float32"), ("value_floats", "float32"), ("value_int", "int64"),
                        ("value_ints", "int64")):  # fmt: skip
        found = node.attr(name)
        if found is not None:
            return node.const(found, dtype)
    node.fail("its value is text or sparse, which crossfarm does not have")


@converter("ConstantOfShape")
def _constant_of_shape(node: Node) -> Tensor:
    number = node.attr("value")
    fill = np.zeros((), np.float32) if number is None else number.reshape(())
    return node.full(fill, dt.from_numpy(fill.dtype), node.sizes(node.tensor(0), "its shape"))


@converter("Range")
def _range(node: Node) -> Tensor:
    start, limit, delta = node.tensors
    values = [node.content(v, f"its {what}") for v, what in ((start, "start"), (limit, "limit"), (delta, "delta"))]
    if all(v.dtype != object for v in values):
        begin, end, step = (v.reshape(-1)[0] for v in values)
        if step == 0 or not np.isfinite([begin, end, step]).all():
            node.fail(f"it goes from {begin} to {end} by {step}")
        count = max(math.ceil((end - begin) / step), 0)
        if count > SMALL and start.dtype == "int64":
            far = node.op("multiply", node.iota(count), node.const(step))
            return node.op("add", far, node.const(begin))
        node.length(count, "it")
        return node.const((begin + np.arange(count) * step).astype(dt.to_numpy(start.dtype)))
    first, last, step = (node.sizes(v, "its bounds")[0] for v in (start, limit, delta))
    if dims.constant(step) != 1:
        node.fail("its step must be 1 where its bounds are symbolic sizes")
    found = node.iota(dims.sub(last, first), start.dtype)
    return found if dims.constant(first) == 0 else node.op("add", found, start)


@converter("EyeLike")
def _eye(node: Node) -> Tensor:
    value = node.tensor(0)
    element = node.attr("dtype")
    dtype = value.dtype if element is None else dtype_of(int(element), node.place)
    rows, columns = value.shape
    down = node.reshape(node.iota(rows), (rows, 1))
    across = node.reshape(node.iota(columns), (1, columns))
    k = node.const(np.int64(node.attr("k", 0)))
    return node.cast(node.op("equal", node.op("add", down, k), across), dtype)


@converter("HannWindow", "HammingWindow", "BlackmanWindow")
def _window(node: Node) -> Tensor:
    (size,) = node.ints(node.tensor(0), "its size")
    node.length(size, "it")
    dtype = dtype_of(int(node.attr("output_datatype", 1)), node.place)
    weights = {
        "HannWindow": (0.5, 0.5, 0.0), "HammingWindow": (25 / 46, 21 / 46, 0.0), "BlackmanWindow": (0.42, 0.5, 0.08),
    }[node.proto.op_type]  # fmt: skip
    period = size if node.attr("periodic", 1) else size - 1
    turn = 2 * np.pi * np.arange(size) / max(period, 1)
    made = weights[0] - weights[1] * np.cos(turn) + weights[2] * np.cos(2 * turn)
    return node.const(made, dtype)


@converter("MelWeightMatrix")
def _mel_weights(node: Node) -> Tensor:
    bins, length, rate, low, high = (node.numbers(node.tensor(i), "its input").item() for i in range(5))
    dtype = dtype_of(int(node.attr("output_datatype", 1)), node.place)

    def mel(hertz: float) -> float:
        return 2595 * math.log10(1 + hertz / 700)

    edges = np.arange(bins + 2) * ((mel(high) - mel(low)) / (bins + 2)) + mel(low)
    edges = (((length + 1) * (700 * (np.power(10, edges / 2595) - 1))) // rate).astype(np.int64)
    made = np.zeros((length // 2 + 1, bins))
    for i in range(bins):
        first, middle, last = edges[i : i + 3]
        if middle == first:
            made[middle, i] = 1
        else:
            made[first : middle + 1, i] = np.arange(middle - first + 1) / (middle - first)
        if last != middle:
            made[middle:last, i] = (last - np.arange(middle, last)) / (last - middle)
    return node.const(made, dtype)
