"""Sums of products: matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from crossfarm.errors import InvalidModule
from crossfarm.ir import dtype as dt
from crossfarm.ir import te
from crossfarm.ir.expr import Expr
from crossfarm.ir.graph import dims
from crossfarm.ir.graph.operator import Array, Attribute, Attrs, Operator
from crossfarm.ir.graph.operators.rows import described, named, one_dtype, shape_of, wide
from crossfarm.ir.graph.types import TensorType
from crossfarm.ir.te import Tensor


def _infer_matmul(inputs: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
    a, b = inputs
    one_dtype(inputs, "numbers")
    if a.ndim < 1 or b.ndim < 1:
        raise InvalidModule(f"both tensors have a dimension at least, not {described(a)} and {described(b)}")
    for operand, flag in ((a, "transpose_a"), (b, "transpose_b")):
        if attrs[flag] and operand.ndim < 2:
            raise InvalidModule(f"{flag} of a vector {described(operand)}", hint="leave it out")
    rows, inner_a = _parts(a.shape, not attrs["transpose_a"])
    columns, inner_b = _parts(b.shape, attrs["transpose_b"])
    if not dims.same(inner_a, inner_b):
        raise InvalidModule(
            f"the inner dimensions of {described(a)} and {described(b)} differ: {dims.text([inner_a])[1:-1]} and "
            f"{dims.text([inner_b])[1:-1]}"
        )
    batch = dims.broadcast(a.shape[:-2], b.shape[:-2])
    return [TensorType((*batch, *rows, *columns), attrs["out_dtype"] or a.dtype)]


def _parts(shape: Sequence[Expr], inner_is_last: bool) -> tuple[tuple[Expr, ...], Expr]:
    """Of a matrix, or many, the dimension of its own and the one that is summed over; a vector has the latter alone."""
    if len(shape) == 1:
        return (), shape[0]
    first, second = shape[-2:]
    return ((first,), second) if inner_is_last else ((second,), first)


def _matmul(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    a, b = inputs
    dtype = out[0].dtype
    sums = wide(dtype)
    rows, columns = a.ndim > 1, b.ndim > 1
    batch = out[0].shape[: out[0].ndim - rows - columns]
    left, right = _Factor(a, batch), _Factor(b, batch)
    k = te.reduce_axis((0, a.shape[-2 if attrs["transpose_a"] else -1]), "k")

    def element(*i: Any) -> Any:
        outer = i[: len(batch)]
        in_left = (i[len(batch)], k) if rows else (k,)
        in_right = (k, i[-1]) if columns else (k,)
        x = left.at(outer, in_left[::-1] if attrs["transpose_a"] else in_left)
        y = right.at(outer, in_right[::-1] if attrs["transpose_b"] else in_right)
        return te.sum(x.astype(sums) * y.astype(sums), axis=k)

    return [rounded(te.compute(shape_of(out[0]), element, name="matmul"), dtype)]


def rounded(tensor: Tensor, dtype: str) -> Tensor:
    """Sums as elements of ``dtype``: in a compute of its own, or as they are where they are of that dtype."""
    if tensor.dtype == dtype:
        return tensor
    return te.compute(tensor.shape, lambda *i: tensor[i].astype(dtype), name=f"{tensor.name}_rounded")


class _Factor:
    """A factor whose batch dimensions are those of the result, or are not there.

    A dimension of 1 beside a longer one is taken out by a copy: rules for products know factors by bare axes.
    """

    def __init__(self, tensor: Tensor, batch: Sequence[Any]) -> None:
        own = max(tensor.ndim - 2, 0)
        self.places = [
            len(batch) - own + n
            for n, d in enumerate(tensor.shape[:own])
            if dims.constant(d) != 1 or dims.constant(batch[len(batch) - own + n]) == 1
        ]
        self.tensor = tensor
        if len(self.places) < own:
            kept = [place - len(batch) + own for place in self.places] + list(range(own, tensor.ndim))

            def element(*i: Any) -> Any:
                at = dict(zip(kept, i))
                return tensor[tuple(at.get(n, 0) for n in range(tensor.ndim))]

            self.tensor = te.compute(tuple(tensor.shape[n] for n in kept), element, name="squeezed")

    def at(self, batch: Sequence[Any], last: Sequence[Any]) -> Any:
        return self.tensor[(*(batch[n] for n in self.places), *last)]


def _reference_matmul(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    a, b = inputs
    dtype = attrs["out_dtype"] or dt.from_numpy(a.dtype)
    sums = dt.to_numpy(wide(dtype))
    a = a.swapaxes(-1, -2) if attrs["transpose_a"] else a
    b = b.swapaxes(-1, -2) if attrs["transpose_b"] else b
    return [np.asarray(np.matmul(a.astype(sums), b.astype(sums))).astype(dt.to_numpy(dtype))]


OPERATORS = (
    Operator(
        "matmul", 200, ("x1", "x2"), named("matmul", _infer_matmul), _matmul, _reference_matmul, "contraction",
        (
            Attribute("out_dtype", "optional dtype", None),
            Attribute("transpose_a", "bool", False),  # the last two dimensions of x1 change places: no copy is made
            Attribute("transpose_b", "bool", False),
        ),
    ),
)  # fmt: skip
