"""Functions of two float32 that CPUs call libm for, for devices that have none; computed in float64 or on bits."""

from __future__ import annotations

import math

from compiler_service.codegen.vector_math.llvm_term import LlvmTerm

#: Digits of a quotient that one step of fmod takes off: with 24 of the divisor, their product is exact in float64.
_STEP = 28
#: Steps for the largest float32 over the smallest.
_STEPS = 10


def hypot(x: LlvmTerm, y: LlvmTerm) -> LlvmTerm:
    a, b = x.to("float64"), y.to("float64")
    result = (a * a + b * b).square_root().to("float32")
    infinite = x.magnitude().equals(math.inf) | y.magnitude().equals(math.inf)
    return infinite.where(math.inf, result)


def fmod(x: LlvmTerm, y: LlvmTerm) -> LlvmTerm:
    """Exact: digits of the quotient are taken off from above, some at a time.

    A rounded quotient may be one too large, when what is left is below 0.
    """
    size, by = x.magnitude(), y.magnitude()
    rest, divisor = size.to("float64"), by.to("float64")
    for step in reversed(range(_STEPS)):
        unit = divisor * 2.0 ** (_STEP * step)
        left = rest - _truncated(rest / unit) * unit
        rest = (left < 0.0).where(left + unit, left)
    result = rest.to("float32").with_sign_of(x)
    result = by.equals(math.inf).where(x, result)
    regular = (size < math.inf) & (by > 0.0)
    missing = (size <= math.inf).where((by <= math.inf).where(math.nan, y), x)
    return regular.where(result, missing)


def nextafter(x: LlvmTerm, y: LlvmTerm) -> LlvmTerm:
    """Floats of one sign are ordered as their bits are."""
    bits = x.bits()
    away = (x < y) ^ (bits < 0)  # from zero
    moved = away.where(bits + 1, bits - 1).as_float()
    smallest = (y.bits() & -(1 << 31) | 1).as_float()
    moved = x.equals(0.0).where(smallest, moved)
    result = x.equals(y).where(y, moved)
    return x.equals(x).where(y.equals(y).where(result, y), x)


def _truncated(x: LlvmTerm) -> LlvmTerm:
    """Towards zero, in float64."""
    return x.intrinsic("trunc")
