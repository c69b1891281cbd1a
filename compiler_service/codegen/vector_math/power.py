"""pow in float32, computed in float64: an error of the logarithm grows with the exponent.

``log2(x) = e + log2(m)`` with m from sqrt(1/2) to sqrt(2), by ``log((1 + s) / (1 - s))`` with
``s = (m - 1) / (m + 1)``, whose series has odd powers only; then ``2**t`` by range reduction. One rounding to float32
at the end.
"""

from __future__ import annotations

import math

from compiler_service.codegen.vector_math import coefficients as table
from compiler_service.codegen.vector_math.term import T, polynomial

_SQRT_HALF_BITS = 0x3FE6A09E667F3BCD
_MANTISSA = (1 << 52) - 1


def pow(x: T, y: T) -> T:
    size = x.magnitude()
    wide = size.to("float64")
    logarithm = size.equals(0.0).where(-math.inf, (size < math.inf).where(_log2(wide), wide))
    result = _exp2(y.to("float64") * logarithm).to("float32")
    # C's rules: a negative base keeps its sign under odd powers, and has none under powers that are no integers
    whole, odd = _integer(y)
    sign = x.bits() & -(1 << 31)
    result = ((sign < 0) & odd).where((result.bits() | sign).as_float(), result)
    no_real = (x < 0.0) & (size < math.inf) & (whole ^ 1)
    result = no_real.where(math.nan, result)
    is_one = x.equals(1.0) | y.equals(0.0) | (x.equals(-1.0) & y.magnitude().equals(math.inf))
    return is_one.where(1.0, result)


def _integer(y: T) -> tuple[T, T]:
    """Whether ``y`` is an integer (as all of at least 2**24 are, infinity too), and whether an odd one."""
    large = y.magnitude() >= 2.0**24
    near = (y.magnitude() < 2.0**24).where(y, 0.0).to("int32")
    whole = large | near.to("float32").equals(y)
    return whole, whole & (large ^ 1) & (near & 1).equals(1)


def _log2(x: T) -> T:
    """Of positive normal float64."""
    shifted = x.bits() - _SQRT_HALF_BITS
    mantissa = ((shifted & _MANTISSA) + _SQRT_HALF_BITS).as_float()
    s = (mantissa - 1.0) / (mantissa + 1.0)
    exponent = (shifted >> 52).to("int32").to("float64")
    return s * polynomial(table.LOG2_WIDE, s * s) + exponent


def _exp2(t: T) -> T:
    """Of float64, for a result that is rounded to float32: what is beyond its range may be anything beyond it."""
    t = t.clamped(-300.0, 300.0)
    n, power = t.rounded()
    r = t - n
    scale = ((power.to("int64") + 1023) << 52).as_float()
    return (1.0 + r * polynomial(table.EXP2_WIDE, r)) * scale
