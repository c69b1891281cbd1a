"""Elements chosen by indices."""

from __future__ import annotations

import numpy as np

from crossfarm.frontends.onnx.node import Node
from crossfarm.frontends.onnx.registry import converter
from crossfarm.frontends.onnx.value import Tensor
from crossfarm.ir.graph import dims

#: Longest axis of a running product.
_MOST_FACTORS = 256


@converter("Gather")
def _gather(node: Node) -> Tensor:
    value, indices = node.tensors
    return node.op("take", value, indices, axis=dims.axis(int(node.attr("axis", 0)), value.ndim))


@converter("GatherElements")
def _gather_elements(node: Node) -> Tensor:
    value, indices = node.tensors
    return node.op("gather_elements", value, indices, axis=dims.axis(int(node.attr("axis", 0)), value.ndim))


@converter("GatherND")
def _gather_nd(node: Node) -> Tensor:
    return node.op("gather_nd", *node.tensors, batch_dims=int(node.attr("batch_dims", 0)))


@converter("Scatter", "ScatterElements")
def _scatter_elements(node: Node) -> Tensor:
    value, indices, updates = node.tensors
    axis = dims.axis(int(node.attr("axis", 0)), value.ndim)
    return node.op("scatter_elements", value, indices, updates, axis=axis, **_reduction(node))


@converter("ScatterND")
def _scatter_nd(node: Node) -> Tensor:
    return node.op("scatter_nd", *node.tensors, **_reduction(node))


def _reduction(node: Node) -> dict[str, str]:
    found = str(node.attr("reduction", "none"))
    return {} if found == "none" else {"reduction": found}


@converter("OneHot")
def _one_hot(node: Node) -> Tensor:
    indices, depth, values = node.tensors
    (length,) = node.sizes(depth, "its depth")
    axis = int(node.attr("axis", -1))
    rank = indices.ndim + 1
    axis = dims.axis(axis, rank)
    indices = node.cast(indices, "int64")
    negative = node.op("less", indices, node.const(np.int64(0)))
    places = node.op("where", negative, node.op("add", indices, node.importer.emitter.sizes([length], ())), indices)
    shape: list[dims.Dim] = [1] * rank
    shape[axis] = length
    own = node.reshape(node.iota(length), shape)
    outer = node.reshape(places, (*indices.shape[:axis], 1, *indices.shape[axis:]))
    off, on = (node.reshape(node.slice(values, 0, i, i + 1), ()) for i in range(2))
    return node.op("where", node.op("equal", own, outer), on, off)


@converter("TopK")
def _top_k(node: Node) -> list[Tensor]:
    value = node.tensor(0)
    k = int(node.attr("k")) if node.version < 10 else node.ints(node.tensor(1), "its k")[0]
    return node.ops("topk", value, k=k, axis=int(node.attr("axis", -1)), largest=bool(node.attr("largest", 1)))


@converter("CumSum", "CumProd")
def _cumulative(node: Node) -> Tensor:
    value = node.tensor(0)
    axis = dims.axis(node.ints(node.tensor(1), "its axis")[0], value.ndim)
    reverse, exclusive = bool(node.attr("reverse", 0)), bool(node.attr("exclusive", 0))
    if node.proto.op_type == "CumSum":
        return node.op("cumsum", value, axis=axis, exclusive=exclusive, reverse=reverse)
    extent = dims.constant(value.shape[axis])
    if extent is None or extent > _MOST_FACTORS:
        node.fail(f"it is unrolled, and its axis must have a known length of at most {_MOST_FACTORS}")
    rows = [node.slice(value, axis, i, i + 1) for i in (range(extent - 1, -1, -1) if reverse else range(extent))]
    found = [node.full(1, value.dtype, rows[0].shape)] if exclusive and rows else rows[:1]
    for row in rows[:-1] if exclusive else rows[1:]:
        found.append(node.op("multiply", found[-1], row))
    return node.op("concat", *(found[::-1] if reverse else found), axis=axis) if found else value


@converter("Compress")
def _compress(node: Node) -> Tensor:
    value, condition = node.tensors
    chosen = np.flatnonzero(node.numbers(condition, "its condition")).astype(np.int64)
    axis = node.attr("axis")
    if axis is None:
        value, axis = node.reshape(value, (dims.product(value.shape),)), 0
    return node.op("take", value, node.const(chosen), axis=dims.axis(int(axis), value.ndim))


@converter("NonZero")
def _non_zero(node: Node) -> Tensor:
    return node.const(np.array(np.nonzero(node.numbers(node.tensor(0), "its input"))).astype(np.int64))


@converter("Unique")
def _unique(node: Node) -> list[Tensor]:
    values = node.numbers(node.tensor(0), "its input")
    axis = node.attr("axis")
    found, first, inverse, counts = np.unique(values, True, True, True, axis=axis)
    inverse = inverse.reshape(-1)
    if not node.attr("sorted", 1):
        order = np.argsort(first)
        found = np.take(found, order, axis=0 if axis is None else axis)
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        first, inverse, counts = first[order], place[inverse], counts[order]
    return [node.const(found), *(node.const(v.astype(np.int64)) for v in (first, inverse, counts))]


@converter("TensorScatter")
def _tensor_scatter(node: Node) -> Tensor:
    past, update = node.tensor(0), node.tensor(1)
    axis = dims.axis(int(node.attr("axis", -2)), past.ndim)
    length, count = past.shape[axis], update.shape[axis]
    batch = past.shape[0]
    given = node.optional(2)
    begin = node.const(np.zeros(1, np.int64)) if given is None else node.cast(given, "int64")
    shape: list[dims.Dim] = [1] * past.ndim
    shape[0] = batch if given is not None else 1
    begin = node.reshape(begin, shape)
    row: list[dims.Dim] = [1] * past.ndim
    row[axis] = count
    places = node.op("add", begin, node.reshape(node.iota(count), row))
    if node.attr("mode", "linear") == "circular":
        places = node.op("floor_mod", places, node.importer.emitter.sizes([length], ()))
    places = node.op("broadcast_to", places, shape=update.shape)
    return node.op("scatter_elements", past, places, update, axis=axis)
