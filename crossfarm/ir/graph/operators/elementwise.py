"""Arithmetic: one element from one element of each input, inputs stretched to a common shape as numpy does.

Integers wrap around, and dividing them by zero fails. A NaN goes through ``maximum``, ``minimum`` and ``clip``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from crossfarm.ir import dtype as dt
from crossfarm.ir import ops, te
from crossfarm.ir.graph.operator import Array, Attribute, Attrs, Operator
from crossfarm.ir.graph.operators.rows import at as at
from crossfarm.ir.graph.operators.rows import literal, named, pointwise, wide_array
from crossfarm.ir.graph.operators.rows import shape_of as shape_of
from crossfarm.ir.graph.types import TensorType
from crossfarm.ir.te import Tensor, Value


def _binary(
    name: str,
    number: int,
    value: Callable[[Any, Any], Any],
    numpy: Callable[[Array, Array], Any],
    *,
    composite: bool = False,
) -> Operator:
    return pointwise(name, number, ("x1", "x2"), value, numpy, "numbers", composite=composite)


def _truncated(op: str) -> Callable[[Value, Value], Value]:
    return lambda a, b: Value(ops.binary(op, a.expr, b.expr))


def _divided(a: Array, b: Array) -> Array:
    if dt.is_float(a.dtype.name):
        return np.true_divide(a, b)
    quotient = np.floor_divide(a, b)
    return quotient + ((np.fmod(a, b) != 0) & ((a < 0) != (b < 0))).astype(a.dtype)


def _floor_divide(a: Value, b: Value) -> Value:
    return te.floor(a / b) if dt.is_float(a.dtype) else a // b


def _floor_mod(a: Value, b: Value) -> Value:
    if not dt.is_float(a.dtype):
        return a % b
    return te.let(
        b,
        lambda b: te.let(te.fmod(a, b), lambda r: te.select(te.all(r != 0, (r < 0) ^ (b < 0)), r + b, r)),
        "divisor",
    )


def _power(base: Value, exponent: Value) -> Value:
    """Of integers by squaring, which wraps as multiplying that often does; 1 over it where the exponent is negative."""
    if dt.is_float(base.dtype):
        return te.pow(base, exponent)
    one, zero = te.const(1, base.dtype), te.const(0, base.dtype)
    bits = dt.bits(base.dtype) - dt.is_signed(base.dtype)

    def step(k: int, square: Value, product: Value, exponent: Value) -> Value:
        odd = ((exponent >> k) & one) != zero
        product = te.select(odd, product * square, product)
        if k == bits - 1:
            return product
        return te.let(product, lambda p: te.let(square * square, lambda s: step(k + 1, s, p, exponent), "square"), "p")

    def of(base: Value, exponent: Value) -> Value:
        power = step(0, base, one, exponent)
        if dt.is_unsigned(base.dtype):
            return power
        unit = te.any(base == one, base == te.const(-1, base.dtype))
        inverse = te.select(unit, te.select((exponent & one) != zero, base, one), zero)
        return te.select(exponent < zero, inverse, power)

    return te.let(base, lambda b: te.let(exponent, lambda e: of(b, e), "exponent"), "base")


def _powers(base: Array, exponent: Array) -> Array:
    if dt.is_float(base.dtype.name):
        return np.power(base, exponent)
    bits = 8 * base.dtype.itemsize

    def one(b: int, e: int) -> int:
        if e < 0:
            return 0 if b not in (1, -1) else b if e % 2 else 1
        power = pow(b, e, 1 << bits)
        return power - (1 << bits) if base.dtype.kind == "i" and power >> (bits - 1) else power

    made = np.frompyfunc(lambda b, e: one(int(b), int(e)), 2, 1)(base, exponent)
    return np.asarray(made, dtype=object).astype(base.dtype)


def _maximum(a: Value, b: Value) -> Value:
    """The IR's ``max`` gives its second operand where one is a NaN."""
    if not dt.is_float(a.dtype):
        return te.maximum(a, b)
    return te.let(a, lambda a: te.select(te.isnan(a), a, te.maximum(a, b)))


def _minimum(a: Value, b: Value) -> Value:
    if not dt.is_float(a.dtype):
        return te.minimum(a, b)
    return te.let(a, lambda a: te.select(te.isnan(a), a, te.minimum(a, b)))


def _clip(x: Value, min: float | None, max: float | None) -> Value:
    x = x if min is None else te.maximum(literal(min, x.dtype), x)
    return x if max is None else te.minimum(literal(max, x.dtype), x)


def _clipped(x: Array, min: float | None, max: float | None) -> Array:
    x = x if min is None else np.maximum(x, np.asarray(min, x.dtype))
    return x if max is None else np.minimum(x, np.asarray(max, x.dtype))


def _check_clip(out: TensorType, attrs: Attrs) -> None:
    for bound in (attrs["min"], attrs["max"]):
        if bound is not None:
            literal(bound, out.dtype)


def _infer_astype(inputs: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
    return [TensorType(inputs[0].shape, attrs["dtype"])]


def _astype(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    (x,) = inputs
    return [te.compute(shape_of(out[0]), lambda *i: te.cast(at(x, i), attrs["dtype"]), name="astype")]


def _reference_astype(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    (x,), dtype = inputs, attrs["dtype"]
    if dtype == "bool":
        return [x != 0]
    if not (dt.is_float(dt.from_numpy(x.dtype)) and dt.is_int(dtype)):
        return [wide_array(x).astype(dt.to_numpy(dtype))]
    # numpy leaves open what a float outside becomes; the IR saturates and makes NaN 0
    low, high = dt.int_range(dtype)
    whole = np.trunc(x.astype(np.float64))
    below, above = whole < float(low), whole >= float(high + 1)
    inside = np.where(below | above | np.isnan(whole), 0.0, whole).astype(dtype)
    return [np.where(below, inside.dtype.type(low), np.where(above, inside.dtype.type(high), inside))]


OPERATORS = (
    _binary("add", 1, lambda a, b: a + b, np.add),
    _binary("subtract", 2, lambda a, b: a - b, np.subtract),
    _binary("multiply", 3, lambda a, b: a * b, np.multiply),
    _binary("divide", 4, _truncated("div"), _divided),
    _binary("floor_divide", 5, _floor_divide, lambda a, b: np.floor(_divided(a, b)) if a.dtype.kind == "f" else a // b,
            composite=True),
    _binary("floor_mod", 6, _floor_mod, np.mod, composite=True),
    _binary("trunc_mod", 7, lambda a, b: te.fmod(a, b) if dt.is_float(a.dtype) else _truncated("mod")(a, b), np.fmod),
    _binary("power", 8, _power, _powers),
    _binary("maximum", 9, _maximum, np.maximum),
    _binary("minimum", 10, _minimum, np.minimum),
    pointwise("clip", 28, ("x",), _clip, _clipped, "numbers", check=_check_clip,
              attributes=(Attribute("min", "optional number", None), Attribute("max", "optional number", None))),
    Operator("astype", 29, ("x",), named("astype", _infer_astype), _astype, _reference_astype, "elementwise",
             (Attribute("dtype", "dtype"),)),
)  # fmt: skip
