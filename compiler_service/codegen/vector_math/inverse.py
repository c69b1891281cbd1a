"""asin, acos, atan, atan2 in float32.

``atan``: above tan(pi / 8) by ``atan(x) = pi / 4 + atan((x - 1) / (x + 1))``, above tan(3 pi / 8) by
``atan(x) = pi / 2 - atan(1 / x)``. ``asin`` and ``acos``: above 1/2 by ``acos(x) = 2 * asin(sqrt((1 - x) / 2))``. Each
has a polynomial in the square of a small argument. Source of the reductions: W. J. Cody and W. Waite, "Software Manual
for the Elementary Functions", 1980, chapters 10 and 11.
"""

from __future__ import annotations

import math

from compiler_service.codegen.vector_math import coefficients as table
from compiler_service.codegen.vector_math.double_single import split_constant
from compiler_service.codegen.vector_math.term import T, polynomial

_TAN_PI_8, _TAN_3_PI_8 = math.sqrt(2) - 1, math.sqrt(2) + 1
_PI, _PI_LOW = split_constant(math.pi)
_HALF_PI, _HALF_PI_LOW = split_constant(math.pi / 2)
_QUARTER_PI, _QUARTER_PI_LOW = split_constant(math.pi / 4)


def atan(x: T) -> T:
    return _atan_of_positive(x.magnitude()).with_sign_of(x)


def atan2(y: T, x: T) -> T:
    """The angle of (x, y), with C's results for zeros and infinities."""
    height, width = y.magnitude(), x.magnitude()
    equal = height.equals(width)  # both zero or both infinite too
    # neither overflow nor underflow of the quotient of very different numbers
    ratio = equal.where(1.0, height / width)
    ratio = (height.equals(0.0) & width.equals(0.0)).where(0.0, ratio)
    angle = _atan_of_positive(ratio)
    back = (x.bits() < 0).where(_PI - (angle - _PI_LOW), angle)
    result = (y.equals(y) & x.equals(x)).where(back, math.nan)
    return result.with_sign_of(y)


def asin(x: T) -> T:
    size = x.magnitude()
    small = size < 0.5
    half = (1.0 - size) * 0.5
    root = half.square_root()
    argument, square = small.where(size, root), small.where(size * size, half)
    part = _asin_polynomial(argument, square)
    return small.where(argument + part, _HALF_PI - (2.0 * (argument + part) - _HALF_PI_LOW)).with_sign_of(x)


def acos(x: T) -> T:
    size = x.magnitude()
    small = size < 0.5
    half = (1.0 - size) * 0.5
    root = half.square_root()
    argument, square = small.where(size, root), small.where(size * size, half)
    part = _asin_polynomial(argument, square)
    negative = x.bits() < 0
    near = _HALF_PI - (negative.where(-argument, argument) - (_HALF_PI_LOW - negative.where(-part, part)))
    twice = 2.0 * (argument + part)
    return small.where(near, negative.where(_PI - (twice - _PI_LOW), twice))


def _asin_polynomial(x: T, square: T) -> T:
    """``asin(x) - x``"""
    return x * square * polynomial(table.ASIN, square)


def _atan_of_positive(x: T) -> T:
    large, middle = x > _TAN_3_PI_8, x > _TAN_PI_8
    reduced = large.where(-1.0 / x, middle.where((x - 1.0) / (x + 1.0), x))
    square = reduced * reduced
    part = reduced * square * polynomial(table.ATAN, square)
    base = large.where(x.filled(_HALF_PI), x.filled(_QUARTER_PI))
    low = large.where(x.filled(_HALF_PI_LOW), x.filled(_QUARTER_PI_LOW))
    return middle.where(base + (reduced + (part + low)), reduced + part)
