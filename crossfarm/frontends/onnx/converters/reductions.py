"""Reductions over axes, and softmax."""

from __future__ import annotations

from crossfarm.frontends.onnx.node import Node
from crossfarm.frontends.onnx.registry import converter
from crossfarm.frontends.onnx.value import Tensor
from crossfarm.ir.graph import dims

_REDUCTIONS = {
    "ReduceSum": "sum", "ReduceMean": "mean", "ReduceProd": "prod", "ReduceMax": "max", "ReduceMin": "min",
    "ReduceSumSquare": "sum_of_squares", "ReduceL1": "reduce_l1", "ReduceL2": "reduce_l2",
    "ReduceLogSumExp": "logsumexp", "ReduceLogSum": "log_sum",
}  # fmt: skip


@converter(*_REDUCTIONS)
def _reduce(node: Node) -> Tensor:
    value = node.tensor(0)
    axes = node.axes(1)
    if not axes:
        if node.attr("noop_with_empty_axes", 0):
            return _of_each(node, value)
        axes = None
    keep = bool(node.attr("keepdims", 1))
    name = _REDUCTIONS[node.proto.op_type]
    if name in ("max", "min") and value.dtype == "bool":
        return node.op("any" if name == "max" else "all", value, axis=axes, keepdims=keep)
    if axes is None and value.ndim == 0:
        return _of_each(node, value)
    return node.op(name, value, axis=axes, keepdims=keep)


def _of_each(node: Node, value: Tensor) -> Tensor:
    """Each element reduced alone: no axis is reduced, and what is done with the elements is."""
    match node.proto.op_type:
        case "ReduceSumSquare":
            return node.op("multiply", value, value)
        case "ReduceL1" | "ReduceL2":
            return node.op("abs", value)
        case "ReduceLogSum":
            return node.op("log", value)
        case _:
            return value


@converter("ArgMax", "ArgMin")
def _arg(node: Node) -> Tensor:
    return node.op(
        node.proto.op_type.lower(), node.tensor(0), axis=int(node.attr("axis", 0)),
        keepdims=bool(node.attr("keepdims", 1)), select_last_index=bool(node.attr("select_last_index", 0)),
    )  # fmt: skip


@converter("Softmax", "LogSoftmax", "Hardmax")
def _softmax(node: Node) -> Tensor:
    value = node.tensor(0)
    old = node.version < 13
    axis = dims.axis(int(node.attr("axis", 1 if old else -1)), max(value.ndim, 1))
    flat = value
    if old:  # before opset 13, over all dimensions from the axis on
        flat = node.reshape(value, (dims.product(value.shape[:axis]), dims.product(value.shape[axis:])))
        axis = 1
    if node.proto.op_type == "Hardmax":
        found = _hardmax(node, flat, axis)
    else:
        name = "nn.softmax" if node.proto.op_type == "Softmax" else "nn.log_softmax"
        found = node.op(name, flat, axis=axis)
    return node.reshape(found, value.shape)


def _hardmax(node: Node, value: Tensor, axis: int) -> Tensor:
    first = node.op("argmax", value, axis=axis, keepdims=True)
    shape: list[dims.Dim] = [1] * value.ndim
    shape[axis] = value.shape[axis]
    places = node.reshape(node.iota(value.shape[axis]), shape)
    return node.cast(node.op("equal", places, first), value.dtype)


@converter("MeanVarianceNormalization")
def _mean_variance(node: Node) -> Tensor:
    return node.op("nn.mean_variance_normalize", node.tensor(0), axes=tuple(node.attr("axes", (0, 2, 3))))
