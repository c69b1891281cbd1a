"""Sums of products: matrix products."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crossfarm.errors import InvalidModule
from crossfarm.ir import te
from crossfarm.ir.graph import dims
from crossfarm.ir.graph.operator import Array, Attribute, Attrs, Operator
from crossfarm.ir.graph.operators.elementwise import shape_of
from crossfarm.ir.graph.types import TensorType
from crossfarm.ir.te import Tensor


def _infer_matmul(inputs: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
    a, b = inputs
    if a.ndim < 1 or b.ndim < 1 or a.dtype != b.dtype:
        raise InvalidModule(f"matmul takes two tensors of one dtype, not {a.dtype} and {b.dtype}")
    inner_a, inner_b = a.shape[-1], b.shape[-2] if b.ndim > 1 else b.shape[0]
    if not dims.same(inner_a, inner_b):
        raise InvalidModule(f"matmul of {dims.text(a.shape)} and {dims.text(b.shape)}: the inner dimensions differ")
    batch = dims.broadcast(a.shape[:-2], b.shape[:-2])
    rows = a.shape[-2:-1] if a.ndim > 1 else ()
    columns = b.shape[-1:] if b.ndim > 1 else ()
    return [TensorType((*batch, *rows, *columns), attrs["out_dtype"] or a.dtype)]


def _matmul(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    a, b = inputs
    dtype = out[0].dtype
    k = te.reduce_axis((0, a.shape[-1]), "k")
    rows, columns = a.ndim > 1, b.ndim > 1

    def element(*i):  # type: ignore[no-untyped-def]
        batch = i[: len(i) - rows - columns]

        def of(tensor: Tensor, *last):  # type: ignore[no-untyped-def]
            own = tensor.ndim - len(last)
            outer = batch[len(batch) - own :] if own else ()
            return tensor[(*(0 if dims.constant(d) == 1 else x for d, x in zip(tensor.shape, outer)), *last)]

        left = of(a, i[len(batch)], k) if rows else of(a, k)
        right = of(b, k, i[-1]) if columns else of(b, k)
        return te.sum(left.astype(dtype) * right.astype(dtype), axis=k)

    return [te.compute(shape_of(out[0]), element, name="matmul")]


def _reference_matmul(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    a, b = inputs
    dtype = attrs["out_dtype"] or a.dtype
    return [np.matmul(a.astype(dtype), b.astype(dtype))]


OPERATORS = (
    Operator(
        "matmul", 200, ("x1", "x2"), _infer_matmul, _matmul, _reference_matmul, "contraction",
        (Attribute("out_dtype", "optional dtype", None),),
    ),
)  # fmt: skip
