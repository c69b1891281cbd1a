"""Functions of float32 that CPUs call libm for, for devices that have none; computed in float64 and rounded once.

Written for few lines and a small error, not for speed: their use in kernels is rare. Series are Taylor's, cut where the
next term is below 1e-11 of the result.
"""

from __future__ import annotations

import math

from compiler_service.codegen.vector_math.power import exp2_wide, log2_wide
from compiler_service.codegen.vector_math.term import Term, polynomial

_HALF_PI = math.pi / 2
#: Digits of a quotient that one step of fmod takes off: with 24 of the divisor, their product is exact in float64.
_STEP = 28
#: Steps for the largest float32 over the smallest.
_STEPS = 10


def sinh(x: Term) -> Term:
    """A series below 1/2, where the exponentials cancel."""
    wide = x.to("float64")
    near = wide * polynomial([1 / math.factorial(n) for n in (1, 3, 5, 7, 9)], wide * wide)
    power = _exp(wide)
    far = (power - 1.0 / power) * 0.5
    return (x.magnitude() < 0.5).where(near, far).to("float32")


def cosh(x: Term) -> Term:
    power = _exp(x.to("float64"))
    return ((power + 1.0 / power) * 0.5).to("float32")


def asinh(x: Term) -> Term:
    size = x.magnitude()
    a = size.to("float64")
    square = a * a
    near = a * polynomial([1.0, -1 / 6, 3 / 40], square)
    far = _log(a + (square + 1.0).square_root())
    result = (size < 2.0**-8).where(near, far).to("float32")
    return (size < math.inf).where(result.with_sign_of(x), x)


def acosh(x: Term) -> Term:
    a = x.to("float64")
    result = _log(a + ((a - 1.0) * (a + 1.0)).square_root()).to("float32")
    return ((x >= 1.0) & (x < math.inf)).where(result, (x < 1.0).where(math.nan, x))


def atanh(x: Term) -> Term:
    size = x.magnitude()
    a = size.to("float64")
    near = a * polynomial([1.0, 1 / 3, 1 / 5], a * a)
    far = _log((1.0 + a) / (1.0 - a)) * 0.5
    result = (size < 2.0**-8).where(near, far).to("float32")
    at_one = size.equals(1.0).where(math.inf, size * math.nan)
    return (size < 1.0).where(result, at_one).with_sign_of(x)


def atan(x: Term) -> Term:
    return _atan(x.magnitude().to("float64")).to("float32").with_sign_of(x)


def asin(x: Term) -> Term:
    return _asin(x).to("float32")


def acos(x: Term) -> Term:
    return (_HALF_PI - _asin(x)).to("float32")


def atan2(y: Term, x: Term) -> Term:
    """Of the smaller over the larger, moved to the half quadrant that signs and sizes say."""
    above, beside = y.magnitude(), x.magnitude()
    steep = above > beside
    small, large = steep.where(beside, above), steep.where(above, beside)
    both_infinite = small.equals(math.inf)
    ratio = small.to("float64") / large.to("float64")
    ratio = large.equals(0.0).where(0.0, both_infinite.where(1.0, ratio))
    angle = _atan(ratio)
    angle = steep.where(_HALF_PI - angle, angle)
    angle = (x.bits() < 0).where(math.pi - angle, angle)
    result = angle.to("float32").with_sign_of(y)
    return (above <= math.inf).where((beside <= math.inf).where(result, x), y)


def hypot(x: Term, y: Term) -> Term:
    a, b = x.to("float64"), y.to("float64")
    result = (a * a + b * b).square_root().to("float32")
    infinite = x.magnitude().equals(math.inf) | y.magnitude().equals(math.inf)
    return infinite.where(math.inf, result)


def fmod(x: Term, y: Term) -> Term:
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


def nextafter(x: Term, y: Term) -> Term:
    """Floats of one sign are ordered as their bits are."""
    bits = x.bits()
    away = (x < y) ^ (bits < 0)  # from zero
    moved = away.where(bits + 1, bits - 1).as_float()
    smallest = (y.bits() & -(1 << 31) | 1).as_float()
    moved = x.equals(0.0).where(smallest, moved)
    result = x.equals(y).where(y, moved)
    return x.equals(x).where(y.equals(y).where(result, y), x)


def _exp(x: Term) -> Term:
    return exp2_wide(x * math.log2(math.e))


def _log(x: Term) -> Term:
    """Of positive normal float64."""
    return log2_wide(x) * math.log(2)


def _asin(x: Term) -> Term:
    """In float64; NaN beyond 1."""
    size = x.magnitude()
    a = size.to("float64")
    angle = _atan(a / ((1.0 - a) * (1.0 + a)).square_root())
    return angle.with_sign_of(x.to("float64"))


def _atan(a: Term) -> Term:
    """Of float64 that is not negative: of the inverse beyond 1, then of a quarter of the angle."""
    steep = a > 1.0
    small = steep.where(1.0 / a, a)
    for _ in range(2):
        small = small / (1.0 + (1.0 + small * small).square_root())
    angle = 4.0 * (small * polynomial([1.0, -1 / 3, 1 / 5, -1 / 7, 1 / 9, -1 / 11, 1 / 13], small * small))
    return steep.where(_HALF_PI - angle, angle)


def _truncated(x: Term) -> Term:
    """Towards zero, in float64."""
    return x.intrinsic("trunc")
