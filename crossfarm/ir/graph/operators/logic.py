"""Comparisons, logic, bits, and choices: inputs stretched to a common shape as numpy does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from crossfarm.errors import InvalidModule
from crossfarm.ir import dtype as dt
from crossfarm.ir import te
from crossfarm.ir.graph import dims
from crossfarm.ir.graph.operator import Array, Attrs, Operator
from crossfarm.ir.graph.operators.rows import at, described, named, one_dtype, pointwise, shape_of
from crossfarm.ir.graph.types import TensorType
from crossfarm.ir.te import Tensor

_TWO = ("x1", "x2")


def _compare(
    name: str, number: int, value: Callable[[Any, Any], Any], numpy: Callable[[Array, Array], Array], domain: str
) -> Operator:
    return pointwise(name, number, _TWO, value, numpy, domain, result="bool")


def _shift_by(b: Array) -> Array:
    """The amount modulo the number of bits, as the IR shifts."""
    return b & b.dtype.type(dt.bits(dt.from_numpy(b.dtype)) - 1)


def _infer_where(inputs: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
    condition, x1, x2 = inputs
    if condition.dtype != "bool":
        raise InvalidModule(
            f"its condition is bool, not {described(condition)}", hint='astype(…, "bool") compares to 0'
        )
    dtype = one_dtype([x1, x2])
    return [TensorType(dims.broadcast(condition.shape, x1.shape, x2.shape), dtype)]


def _where(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    condition, x1, x2 = inputs
    return [te.compute(shape_of(out[0]), lambda *i: te.select(at(condition, i), at(x1, i), at(x2, i)), name="where")]


def _reference_where(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    return [np.asarray(np.where(*inputs))]


OPERATORS = (
    _compare("equal", 11, lambda a, b: a == b, np.equal, "any dtype"),
    _compare("not_equal", 12, lambda a, b: a != b, np.not_equal, "any dtype"),
    _compare("less", 13, lambda a, b: a < b, np.less, "numbers"),
    _compare("less_equal", 14, lambda a, b: a <= b, np.less_equal, "numbers"),
    _compare("greater", 15, lambda a, b: a > b, np.greater, "numbers"),
    _compare("greater_equal", 16, lambda a, b: a >= b, np.greater_equal, "numbers"),
    pointwise("logical_and", 17, _TWO, lambda a, b: a & b, np.logical_and, "bool"),
    pointwise("logical_or", 18, _TWO, lambda a, b: a | b, np.logical_or, "bool"),
    pointwise("logical_xor", 19, _TWO, lambda a, b: a ^ b, np.logical_xor, "bool"),
    pointwise("logical_not", 20, ("x",), lambda x: ~x, np.logical_not, "bool"),
    pointwise("bitwise_and", 21, _TWO, lambda a, b: a & b, np.bitwise_and, "integers or bool"),
    pointwise("bitwise_or", 22, _TWO, lambda a, b: a | b, np.bitwise_or, "integers or bool"),
    pointwise("bitwise_xor", 23, _TWO, lambda a, b: a ^ b, np.bitwise_xor, "integers or bool"),
    pointwise("bitwise_not", 24, ("x",), lambda x: ~x, np.invert, "integers or bool"),
    pointwise("left_shift", 25, _TWO, lambda a, b: a << b, lambda a, b: np.left_shift(a, _shift_by(b)), "integers"),
    pointwise("right_shift", 26, _TWO, lambda a, b: a >> b, lambda a, b: np.right_shift(a, _shift_by(b)), "integers"),
    Operator("where", 27, ("condition", "x1", "x2"), named("where", _infer_where), _where, _reference_where,
             "broadcast"),
)  # fmt: skip
