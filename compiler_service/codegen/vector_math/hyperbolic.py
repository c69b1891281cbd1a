"""sinh, cosh, asinh, acosh, atanh and expm1 in float32, by exponentials and logarithms that do not cancel."""

from __future__ import annotations

import math

from compiler_service.codegen.vector_math import coefficients as table
from compiler_service.codegen.vector_math.logarithm import log, log1p
from compiler_service.codegen.vector_math.term import T, polynomial

_LOG2_E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 0.693145751953125, 1.4286068203094173e-06


def sinh(x: T) -> T:
    """A polynomial up to 1; above, halves of exponentials, which overflow only where the result does."""
    size = x.magnitude()
    square = size * size
    near = size + size * square * polynomial(table.SINH, square)
    grown, shrunk = _half_exponentials(size)
    return (size < 1.0).where(near, grown - shrunk).with_sign_of(x)


def cosh(x: T) -> T:
    grown, shrunk = _half_exponentials(x.magnitude())
    return grown + shrunk


def asinh(x: T) -> T:
    """``log1p(x + x*x / (1 + sqrt(1 + x*x)))``; for large ones ``log(2 * x)``."""
    size = x.magnitude()
    large = size > 2.0**13
    part = large.where(0.0, size)
    square = part * part
    near = log1p(part + square / (1.0 + (1.0 + square).square_root()))
    return large.where(log(size) + math.log(2), near).with_sign_of(x)


def acosh(x: T) -> T:
    """``log1p(t + sqrt(2*t + t*t))`` with t = x - 1; NaN below 1."""
    large = x > 2.0**13
    t = large.where(0.0, x - 1.0)
    near = log1p(t + (2.0 * t + t * t).square_root())
    return (x < 1.0).where(math.nan, large.where(log(x) + math.log(2), near))


def atanh(x: T) -> T:
    """``log1p(2*x / (1 - x)) / 2``"""
    size = x.magnitude()
    return (0.5 * log1p((size + size) / (1.0 - size))).with_sign_of(x)


def expm1(x: T) -> T:
    """``2**n * (e**r - 1) + (2**n - 1)``"""
    t = x.clamped(-30.0, 89.0)
    n, power = (t * _LOG2_E).rounded()
    r = t - n * _LN2_HIGH - n * _LN2_LOW
    rest = r + r * r * polynomial(table.EXP, r)
    # halves, as 2**n is no float for the largest results
    scale = (power - 1).power_of_two()
    result = 2.0 * (scale * rest + (scale - 0.5))
    return x.equals(0.0).where(x, result)


def _half_exponentials(size: T) -> tuple[T, T]:
    """``e**size / 2`` and ``e**-size / 2``"""
    t = size.clamped(0.0, 91.0)
    n, power = (t * _LOG2_E).rounded()
    r = t - n * _LN2_HIGH - n * _LN2_LOW
    square = r * r
    # both in one: the even and the odd powers of the polynomial would do, two evaluations are simpler
    grown = (1.0 + (r + square * polynomial(table.EXP, r))).scaled(power - 1)
    shrunk = (1.0 + (square * polynomial(table.EXP, -r) - r)).scaled(-1 - power)
    return grown, shrunk
