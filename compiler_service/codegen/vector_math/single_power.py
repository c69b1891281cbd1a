"""pow in float32 without float64: the logarithm has twice the digits instead.

``log2(x) = e + log2(m)`` with m from sqrt(1/2) to sqrt(2), by ``log((1 + s) / (1 - s))`` with
``s = (m - 1) / (m + 1)``, whose series has odd powers only. The first two terms and the sum are pairs of float32; then
``2**t`` by range reduction.
"""

from __future__ import annotations

import math

from compiler_service.codegen.vector_math import coefficients as table
from compiler_service.codegen.vector_math.double_single import Pair, quick_sum, two_product, two_sum
from compiler_service.codegen.vector_math.term import T, polynomial

_SQRT_HALF_BITS = 0x3F3504F3
_SMALLEST_NORMAL = 2.0**-126
#: Beyond this power every base but 1 gives 0 or infinity.
_LARGEST_POWER = 2.0**40


def pow(x: T, y: T) -> T:
    size = x.magnitude()
    power = y.clamped(-_LARGEST_POWER, _LARGEST_POWER)
    exponent = _log2(size).scaled_by(power)
    finite = _exp2(exponent.high.clamped(-152.0, 130.0), exponent.low)
    grows = power > 0.0
    nothing, infinite = x.filled(0.0), x.filled(math.inf)
    result = size.equals(0.0).where(grows.where(nothing, infinite), finite)
    result = size.equals(math.inf).where(grows.where(infinite, nothing), result)
    # C's rules: a negative base keeps its sign under odd powers, and has none under powers that are no integers
    whole, odd = _integer(y)
    sign = x.bits() & -(1 << 31)
    result = ((sign < 0) & odd).where((result.bits() | sign).as_float(), result)
    no_real = (x < 0.0) & (size < math.inf) & (whole ^ 1)
    result = no_real.where(math.nan, result)
    number = x.equals(x) & y.equals(y)
    result = number.where(result, math.nan)
    is_one = x.equals(1.0) | y.equals(0.0) | (x.equals(-1.0) & y.magnitude().equals(math.inf))
    return is_one.where(1.0, result)


def _integer(y: T) -> tuple[T, T]:
    """Whether ``y`` is an integer (as all of at least 2**24 are, infinity too), and whether an odd one."""
    large = y.magnitude() >= 2.0**24
    near = (y.magnitude() < 2.0**24).where(y, 0.0).to("int32")
    whole = large | near.to("float32").equals(y)
    return whole, whole & (large ^ 1) & (near & 1).equals(1)


def _log2(x: T) -> Pair[T]:
    """Of positive numbers, with about 40 digits."""
    denormal = x < _SMALLEST_NORMAL
    normal = denormal.where(x * 2.0**23, x)
    shifted = normal.bits() - _SQRT_HALF_BITS
    power = shifted >> 23
    exponent = denormal.where(power - 23, power).to("float32")
    mantissa = ((shifted & 0x7FFFFF) + _SQRT_HALF_BITS).as_float()
    s = _ratio(mantissa)
    square = s.times(s)
    first, second, *rest = table.LOG2_WIDE
    tail = square.high.times(polynomial(rest, square.high))
    series = square.times(_sum_with_constant(tail, second)).plus_constant(first)
    logarithm = series.times(s)
    # the exponent is 0 or larger than what is added to it
    total = two_sum(exponent, logarithm.high)
    return quick_sum(total.high, total.low + logarithm.low)


def _sum_with_constant(small: T, number: float) -> Pair[T]:
    return Pair(small, small.filled(0.0)).plus_constant(number)


def _ratio(m: T) -> Pair[T]:
    """``(m - 1) / (m + 1)``"""
    numerator = m - 1.0
    high = m + 1.0
    low = m - (high - 1.0)
    quotient = numerator / high
    product = two_product(quotient, high)
    rest = (numerator - product.high) - product.low - quotient * low
    return quick_sum(quotient, rest / high)


def _exp2(high: T, low: T) -> T:
    n, power = high.rounded()
    r = (high - n) + (low.magnitude() < 1.0).where(low, 0.0)
    return (1.0 + r * polynomial(table.EXP2, r)).scaled(power)
