"""Order along an axis: the k best, sorting.

Each element's place is the number of elements that come before it, counted one by one: right on every device and in
parallel, with work that grows with the square of the axis. Equal elements keep their order. NaNs have no order: among
NaNs results are some of the elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from crossfarm.errors import InvalidModule
from crossfarm.ir import te
from crossfarm.ir.expr import Expr
from crossfarm.ir.graph import dims
from crossfarm.ir.graph.operator import Array, Attribute, Attrs
from crossfarm.ir.graph.operators.rows import described, one_dtype, operator
from crossfarm.ir.graph.types import TensorType
from crossfarm.ir.te import Tensor


def _order(x: Tensor, axis: int, count: int | Expr, descending: bool) -> Tensor:
    """Indices along ``axis`` of the first ``count`` elements in order, int64."""
    size = x.shape[axis]
    k = te.reduce_axis((0, size), "k")

    def before(*i: Any) -> Any:
        mine, other = x[i], x[(*i[:axis], k, *i[axis + 1 :])]
        first = other > mine if descending else other < mine
        return te.sum(te.any(first, te.all(other == mine, k < i[axis])).astype("int64"), axis=k)

    place = te.compute(x.shape, before, name="place")
    j = te.reduce_axis((0, size), "j")

    def found(*i: Any) -> Any:
        at = place[(*i[:axis], j, *i[axis + 1 :])]
        return te.max(te.select(at == i[axis], j, te.const(0, "int64")), axis=j)

    return te.compute((*x.shape[:axis], count, *x.shape[axis + 1 :]), found, name="order")


def _chosen(x: Tensor, order: Tensor, axis: int) -> Tensor:
    return te.compute(order.shape, lambda *i: x[(*i[:axis], order[i], *i[axis + 1 :])], name="sorted")


def _as(order: Tensor, dtype: str) -> Tensor:
    if dtype == order.dtype:
        return order
    return te.compute(order.shape, lambda *i: order[i].astype(dtype), name="indices")


def _reference_order(x: Array, axis: int, descending: bool) -> Array:
    if descending:
        turned = np.flip(np.argsort(np.flip(x, axis), axis=axis, kind="stable"), axis)
        return np.asarray(x.shape[axis] - 1 - turned, np.int64)
    return np.asarray(np.argsort(x, axis=axis, kind="stable"), np.int64)


def _infer_topk(inputs: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
    (x,) = inputs
    one_dtype(inputs, "numbers")
    axis, k = dims.axis(attrs["axis"], x.ndim), attrs["k"]
    size = dims.constant(x.shape[axis])
    if k < 1 or (size is not None and k > size):
        raise InvalidModule(f"there are no {k} best along dimension {axis} of {described(x)}")
    shape = (*x.shape[:axis], dims.dim(k), *x.shape[axis + 1 :])
    return [TensorType(shape, x.dtype), TensorType(shape, attrs["dtype"])]


def _topk(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    (x,) = inputs
    axis = dims.axis(attrs["axis"], x.ndim)
    order = _order(x, axis, attrs["k"], attrs["largest"])
    return [_chosen(x, order, axis), _as(order, attrs["dtype"])]


def _reference_topk(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    (x,) = inputs
    order = _reference_order(x, attrs["axis"], attrs["largest"]).take(range(attrs["k"]), axis=attrs["axis"])
    return [np.take_along_axis(x, order, attrs["axis"]), order.astype(attrs["dtype"])]


def _infer_sort(inputs: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
    (x,) = inputs
    one_dtype(inputs, "numbers")
    dims.axis(attrs["axis"], x.ndim)
    return [TensorType(x.shape, attrs.get("dtype", x.dtype))]


def _sort(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    (x,) = inputs
    axis = dims.axis(attrs["axis"], x.ndim)
    return [_chosen(x, _order(x, axis, x.shape[axis], attrs["descending"]), axis)]


def _reference_sort(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    (x,) = inputs
    return [np.take_along_axis(x, _reference_order(x, attrs["axis"], attrs["descending"]), attrs["axis"])]


def _argsort(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    (x,) = inputs
    axis = dims.axis(attrs["axis"], x.ndim)
    return [_as(_order(x, axis, x.shape[axis], attrs["descending"]), attrs["dtype"])]


def _reference_argsort(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    return [_reference_order(inputs[0], attrs["axis"], attrs["descending"]).astype(attrs["dtype"])]


_AXIS, _DESCENDING = Attribute("axis", "int", -1), Attribute("descending", "bool", False)

OPERATORS = (
    # (values, indices), best first
    operator(
        "topk", 280, ("data",), _infer_topk, _topk, _reference_topk, "opaque", Attribute("k", "int"), _AXIS,
        Attribute("largest", "bool", True), Attribute("dtype", "dtype", "int64"),
    ),
    operator("sort", 281, ("x",), _infer_sort, _sort, _reference_sort, "opaque", _AXIS, _DESCENDING),
    operator(
        "argsort", 282, ("data",), _infer_sort, _argsort, _reference_argsort, "opaque", _AXIS, _DESCENDING,
        Attribute("dtype", "dtype", "int64"),
    ),
)  # fmt: skip
