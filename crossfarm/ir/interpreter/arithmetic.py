"""The meaning of operators and casts, on numpy scalars and arrays alike.

==============================  =======================================================================================
integer add, sub, mul           wrap around
div, mod                        truncate toward zero; floordiv, floormod floor; a zero divisor is a ProgramError; the
                                smallest integer by -1 wraps (quotient itself, remainder 0)
shl, shr                        by the amount modulo the number of bits; shr of signed integers keeps the sign
min(a, b), max(a, b)            ``a < b ? a : b`` and ``a > b ? a : b``, so with a NaN the result is ``b``
float operators                 IEEE 754, rounded to the dtype after each, float16 and bfloat16 too
float → integer                 truncates, saturates, NaN gives 0
integer → integer               keeps the low bits
anything → bool                 compares with zero (NaN is true)
==============================  =======================================================================================
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from crossfarm.ir import dtype as dt

#: A numpy scalar or array: one value, or one for each lane.
Value = Any


class DivisionByZero(ArithmeticError):
    """Becomes a ProgramError where it is known which function it was in."""


def binary(op: str, dtype: str) -> Callable[[Value, Value], Value]:
    """The function for ``op`` on two values of ``dtype``, but for the lazy ``and`` and ``or``."""
    if op in ("shl", "shr"):
        return _shift(op, dt.bits(dtype))
    if dt.is_int(dtype) and op in _INTEGER:
        return _INTEGER[op]
    return _ANY[op]


def cast(source: str, target: str) -> Callable[[Value], Value]:
    """The conversion from ``source`` to ``target``, lanes aside."""
    source, target = dt.scalar_of(source), dt.scalar_of(target)
    to = dt.to_numpy(target)
    if target == "bool":
        return lambda v: v != 0
    if source == "bfloat16" and target != source:
        inner = cast("float32", target)
        return lambda v: inner(v.astype(np.float32))
    if dt.is_float(source) and dt.is_int(target):
        low, high = dt.int_range(target)
        return lambda v: _saturated(v, low, high, to)
    if target == "bfloat16" and dt.bits(source) == 64:
        return lambda v: _single_rounded_to_odd(v).astype(to)
    if target == "bfloat16" and not dt.is_float(source):
        return lambda v: _single_rounded_to_odd(v.astype(np.float64)).astype(to)
    return lambda v: v.astype(to)


def rounded_to_odd(near: Value, error: Value) -> Value:
    """``near``, or where ``near + error`` is no float of its kind, the neighbour of that sum whose last digit is odd.

    A later rounding to half as many digits then gives what rounding the exact sum would.
    Source: S. Boldo and G. Melquiond, "Emulation of a FMA and correctly rounded sums: proved algorithms using
    rounding to odd", IEEE Transactions on Computers 57(4), 2008.
    """
    even = near.view(np.dtype(f"uint{8 * near.dtype.itemsize}")) % 2 == 0
    neighbour = np.nextafter(near, np.copysign(near.dtype.type(np.inf), error))
    return np.where(even & (error != 0) & ~np.isnan(error), neighbour, near)[()]


def _single_rounded_to_odd(value: Value) -> Value:
    """float32, on the way from 64 bits to bfloat16."""
    if value.dtype.kind != "f":  # 53 bits hold all but the last 11, whose being zero or not goes into one
        low = value & value.dtype.type(0x7FF)
        odd = (value - low) | ((low + value.dtype.type(0x7FF)) & value.dtype.type(0x800))
        large = np.abs(value.astype(np.float64)) >= 2.0**53
        value = np.where(large, odd, value)[()].astype(np.float64)
    near = value.astype(np.float32)
    return rounded_to_odd(near, np.sign(value - near.astype(np.float64)).astype(np.float32))


def _saturated(value: Value, low: int, high: int, to: np.dtype[Any]) -> Value:
    whole = np.trunc(value.astype(np.float64))
    # 2**63 - 1 is no float64: compare with the power of two above it
    above, below = whole >= float(high + 1), whole < float(low)
    inside = np.where(above | below | np.isnan(whole), 0.0, whole)
    result = np.where(above, to.type(high), np.where(below, to.type(low), inside.astype(to)))
    return result if isinstance(value, np.ndarray) else result[()]


def _choose(keep: Value, a: Value, b: Value) -> Value:
    if isinstance(keep, np.ndarray):
        return np.where(keep, a, b)
    return a if keep else b


def _checked(b: Value) -> None:
    if not (b.all() if isinstance(b, np.ndarray) else b):
        raise DivisionByZero


def _floordiv(a: Value, b: Value) -> Value:
    _checked(b)
    return np.floor_divide(a, b)


def _floormod(a: Value, b: Value) -> Value:
    _checked(b)
    return np.remainder(a, b)


def _truncmod(a: Value, b: Value) -> Value:
    _checked(b)
    return np.fmod(a, b)


def _truncdiv(a: Value, b: Value) -> Value:
    _checked(b)
    quotient = np.floor_divide(a, b)
    inexact = (np.fmod(a, b) != 0) & ((a < 0) != (b < 0))
    return quotient + inexact.astype(quotient.dtype)


def _shift(op: str, bits: int) -> Callable[[Value, Value], Value]:
    ufunc = np.left_shift if op == "shl" else np.right_shift
    return lambda a, b: ufunc(a, b & b.dtype.type(bits - 1))


_INTEGER: dict[str, Callable[[Value, Value], Value]] = {
    "div": _truncdiv,
    "mod": _truncmod,
    "floordiv": _floordiv,
    "floormod": _floormod,
}

_ANY: dict[str, Callable[[Value, Value], Value]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "min": lambda a, b: _choose(a < b, a, b),
    "max": lambda a, b: _choose(a > b, a, b),
    "bitand": operator.and_,
    "bitor": operator.or_,
    "bitxor": operator.xor,
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}
