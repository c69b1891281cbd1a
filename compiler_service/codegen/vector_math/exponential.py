"""exp, exp2, exp10, sigmoid, tanh, erf in float32.

Range reduction after W. J. Cody and W. Waite ("Software Manual for the Elementary Functions", 1980): ``x`` is ``n``
times the logarithm of 2 plus a small rest; the product is taken off in two parts, the first of so few digits that it
is exact. ``2**n`` is multiplied in two halves where no instruction does it: neither overflows, and a denormal result
is rounded once.
"""

from __future__ import annotations

from compiler_service.codegen.vector_math import coefficients as table
from compiler_service.codegen.vector_math.term import T, polynomial

_LOG2_E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 0.693145751953125, 1.4286068203094173e-06
_LOG2_10 = 3.321928094887362
_LOG10_2_HIGH, _LOG10_2_LOW = 0.301025390625, 4.605038981195214e-06


def exp(x: T) -> T:
    t = x.clamped(-104.0, 89.0)
    n, power = (t * _LOG2_E).rounded()
    r = t - n * _LN2_HIGH - n * _LN2_LOW
    return (1.0 + (r + r * r * polynomial(table.EXP, r))).scaled(power)


def exp2(x: T) -> T:
    t = x.clamped(-151.0, 129.0)
    n, power = t.rounded()
    r = t - n
    return (1.0 + r * polynomial(table.EXP2, r)).scaled(power)


def exp10(x: T) -> T:
    t = x.clamped(-46.0, 39.0)
    n, power = (t * _LOG2_10).rounded()
    r = t - n * _LOG10_2_HIGH - n * _LOG10_2_LOW
    return (1.0 + r * polynomial(table.EXP10, r)).scaled(power)


def sigmoid(x: T) -> T:
    """``e**x / (1 + e**x)`` below zero, where ``1 / (1 + e**-x)`` would overflow before the result is zero."""
    power = exp(-x.magnitude())
    return (x >= 0.0).where(1.0, power) / (1.0 + power)


def tanh(x: T) -> T:
    """A polynomial near zero, where ``1 - 2 / (e**2x + 1)`` would cancel."""
    size = x.magnitude()
    square = x * x
    near = size + size * (square * polynomial(table.TANH, square))
    far = 1.0 - 2.0 / (exp(size + size) + 1.0)
    return (size < 0.625).where(near, far).with_sign_of(x)


def erf(x: T) -> T:
    """A polynomial in the square below 1, and one in the argument above, until the result rounds to 1."""
    size = x.magnitude()
    square = x * x
    near = size + size * polynomial(table.ERF_SMALL, square)
    far = polynomial(table.ERF_LARGE, (size > 3.95).where(3.95, size) - 2.4)
    return (size < 1.0).where(near, far).with_sign_of(x)
