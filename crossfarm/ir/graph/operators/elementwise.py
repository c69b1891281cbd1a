"""One element from one element of each input, inputs stretched to a common shape as numpy does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from crossfarm.errors import InvalidModule
from crossfarm.ir import te
from crossfarm.ir.expr import Expr
from crossfarm.ir.graph import dims
from crossfarm.ir.graph.operator import Array, Attrs, Operator
from crossfarm.ir.graph.types import TensorType
from crossfarm.ir.te import Tensor


def at(tensor: Tensor, indices: Sequence[Any]) -> Any:
    """The element of an input at a place of the stretched output."""
    inner = indices[len(indices) - tensor.ndim :]
    return tensor[tuple(0 if dims.constant(d) == 1 else i for d, i in zip(tensor.shape, inner))]


def shape_of(out: TensorType) -> tuple[int | Expr, ...]:
    """A result's shape for ``te.compute``: plain ints where constant."""
    return tuple(d if (c := dims.constant(d)) is None else c for d in out.shape)


def _binary(
    name: str, number: int, value: Callable[[Any, Any], Any], numpy: Callable[[Array, Array], Array]
) -> Operator:
    def infer(inputs: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
        a, b = inputs
        if a.dtype != b.dtype:
            raise InvalidModule(f"operator {name} takes tensors of one dtype, not {a.dtype} and {b.dtype}")
        return [TensorType(dims.broadcast(a.shape, b.shape), a.dtype)]

    def compute(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
        a, b = inputs
        return [te.compute(shape_of(out[0]), lambda *i: value(at(a, i), at(b, i)), name=name)]

    def reference(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
        return [np.asarray(numpy(*inputs)).astype(inputs[0].dtype)]

    return Operator(name, number, ("x1", "x2"), infer, compute, reference, "broadcast")


OPERATORS = (
    _binary("add", 1, lambda a, b: a + b, np.add),
    _binary("multiply", 3, lambda a, b: a * b, np.multiply),
)
