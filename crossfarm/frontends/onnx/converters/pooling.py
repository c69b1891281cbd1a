"""Pooling: the largest, the mean or a norm of the elements in windows, or of all."""

from __future__ import annotations

import numpy as np

from crossfarm.frontends.onnx.converters.contraction import constants, window
from crossfarm.frontends.onnx.node import Node
from crossfarm.frontends.onnx.registry import converter
from crossfarm.frontends.onnx.value import Tensor
from crossfarm.ir.graph import dims


@converter("MaxPool")
def _max_pool(node: Node) -> Tensor | list[Tensor]:
    value = node.tensor(0)
    kernel = tuple(node.attr("kernel_shape"))
    rank = len(kernel)
    attrs = window(node, value, kernel)
    ceil = bool(node.attr("ceil_mode", 0))
    if not node.wants(1):
        return node.op(f"nn.max_pool{rank}d", value, pool_size=kernel, ceil_mode=ceil, **attrs)
    return _max_pool_with_places(node, value, kernel, attrs, ceil)


def _max_pool_with_places(
    node: Node, value: Tensor, kernel: tuple[int, ...], attrs: dict[str, tuple[int, ...]], ceil: bool
) -> list[Tensor]:
    """The largest elements, and where in the whole tensor they are: every window's elements side by side."""
    extents = constants(node, value.shape, "the input's shape")
    rank = len(kernel)
    strides, dilation, padding = attrs["strides"], attrs["dilation"], attrs["padding"]
    places, valid = [], []
    for i in range(rank):
        extent, reach = extents[2 + i], (kernel[i] - 1) * dilation[i] + 1
        room = extent + padding[i] + padding[rank + i] - reach
        count = (-(-room // strides[i]) if ceil else room // strides[i]) + 1
        if ceil and (count - 1) * strides[i] >= extent + padding[i]:
            count -= 1
        at = np.arange(count)[:, None] * strides[i] + np.arange(kernel[i])[None, :] * dilation[i] - padding[i]
        valid.append((at >= 0) & (at < extent))
        places.append(np.clip(at, 0, extent - 1))
    column_major = bool(node.attr("storage_order", 0))
    axes = range(rank - 1, -1, -1) if column_major else range(rank)
    # every element of every window, as an index into the flat image: (windows…, elements of one)
    shape = [n for p in places for n in p.shape]
    index, good = np.zeros(shape, np.int64), np.ones(shape, bool)
    reported = np.zeros(shape, np.int64)
    for i in range(rank):
        view = [1] * len(shape)
        view[2 * i], view[2 * i + 1] = places[i].shape
        index = index * extents[2 + i] + places[i].reshape(view)
        good = good & valid[i].reshape(view)
    for i in axes:
        view = [1] * len(shape)
        view[2 * i], view[2 * i + 1] = places[i].shape
        reported = reported * extents[2 + i] + places[i].reshape(view)
    order = [*range(0, 2 * rank, 2), *range(1, 2 * rank, 2)]
    counts = [p.shape[0] for p in places]

    def flat(array: np.ndarray) -> np.ndarray:
        return array.transpose(order).reshape(int(np.prod(counts)), -1)

    index, good, reported = flat(index), flat(good), flat(reported)
    image = node.reshape(value, (extents[0] * extents[1], int(np.prod(extents[2:]))))
    seen = node.op("take", image, node.const(index), axis=1)
    low = -np.inf if value.dtype.startswith(("float", "bfloat")) else np.iinfo(value.dtype).min
    seen = node.op("where", node.const(good), seen, node.like(low, value))
    largest = node.op("max", seen, axis=(2,), keepdims=False)
    which = node.op("argmax", seen, axis=2, keepdims=True)
    own = np.arange(index.shape[1], dtype=np.int64)
    chosen = node.op("equal", node.const(own.reshape(1, 1, -1)), which)
    place = node.op("where", chosen, node.const(reported[None]), node.const(np.int64(0)))
    place = node.op("sum", place, axis=(2,), keepdims=False)
    images = np.arange(extents[0] * extents[1], dtype=np.int64)[:, None] * int(np.prod(extents[2:]))
    place = node.op("add", place, node.const(images))
    result = (extents[0], extents[1], *counts)
    return [node.reshape(largest, result), node.reshape(place, result)]


@converter("AveragePool")
def _average_pool(node: Node) -> Tensor:
    value = node.tensor(0)
    kernel = tuple(node.attr("kernel_shape"))
    return node.op(
        f"nn.avg_pool{len(kernel)}d", value, pool_size=kernel, ceil_mode=bool(node.attr("ceil_mode", 0)),
        count_include_pad=bool(node.attr("count_include_pad", 0)), **window(node, value, kernel),
    )  # fmt: skip


@converter("LpPool")
def _lp_pool(node: Node) -> Tensor:
    value = node.tensor(0)
    kernel = tuple(node.attr("kernel_shape"))
    return node.op(
        f"nn.lp_pool{len(kernel)}d", value, pool_size=kernel, p=int(node.attr("p", 2)),
        ceil_mode=bool(node.attr("ceil_mode", 0)), **window(node, value, kernel),
    )  # fmt: skip


@converter("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(node: Node) -> Tensor:
    value = node.tensor(0)
    name = "mean" if node.proto.op_type == "GlobalAveragePool" else "max"
    return node.op(name, value, axis=tuple(range(2, value.ndim)), keepdims=True)


@converter("GlobalLpPool")
def _global_lp_pool(node: Node) -> Tensor:
    value, p = node.tensor(0), int(node.attr("p", 2))
    axes = tuple(range(2, value.ndim))
    if p in (1, 2):
        return node.op(f"reduce_l{p}", value, axis=axes, keepdims=True)
    powers = node.op("power", node.op("abs", value), node.like(p, value))
    return node.op("power", node.op("sum", powers, axis=axes, keepdims=True), node.like(1 / p, value))


@converter("MaxUnpool")
def _max_unpool(node: Node) -> Tensor:
    value, places = node.tensor(0), node.tensor(1)
    extents = constants(node, value.shape, "the input's shape")
    kernel = tuple(node.attr("kernel_shape"))
    rank = len(kernel)
    strides, padding = tuple(node.attr("strides", (1,) * rank)), tuple(node.attr("pads", (0,) * 2 * rank))
    made = [
        (extents[2 + i] - 1) * strides[i] - padding[i] - padding[rank + i] + kernel[i] for i in range(rank)
    ]  # fmt: skip
    given = node.optional(2)
    result = (*extents[:2], *made) if given is None else node.ints(given, "its output_shape")
    zeros = node.zeros((int(np.prod(result)),), value)
    if result[2:] != tuple(made):  # indices are of the shape that pooling made: image by image into the larger one
        flat = int(np.prod(made))
        image = node.op("floor_divide", places, node.const(np.int64(flat)))
        inside = node.op("floor_mod", places, node.const(np.int64(flat)))
        found = node.op("multiply", image, node.const(np.int64(int(np.prod(result[2:])))))
        for i in range(rank):
            below = int(np.prod(made[i + 1 :]))
            at = node.op("floor_mod", node.op("floor_divide", inside, node.const(np.int64(below))),
                         node.const(np.int64(made[i])))  # fmt: skip
            step = node.const(np.int64(int(np.prod(result[2 + i + 1 :]))))
            found = node.op("add", found, node.op("multiply", at, step))
        places = found
    count = int(np.prod(extents))
    filled = node.op(
        "scatter_elements", zeros, node.reshape(places, (count,)), node.reshape(value, (count,)), axis=0,
    )  # fmt: skip
    return node.reshape(filled, tuple(dims.dim(d) for d in result))
