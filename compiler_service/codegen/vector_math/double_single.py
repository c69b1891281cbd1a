"""Numbers of twice float32's digits, as unevaluated sums of two float32, for devices whose float64 is slow or missing.

Sums and products after T. J. Dekker, "A floating-point technique for extending the available precision", Numerische
Mathematik 18, 1971, and D. E. Knuth, "The Art of Computer Programming", volume 2, section 4.2.2. They need no fused
multiplication, which not every device has, and are not hurt by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic

from compiler_service.codegen.vector_math.term import T


@dataclass(frozen=True)
class Pair(Generic[T]):
    """``high + low``, with low below half a unit in high's last place."""

    high: T
    low: T

    def plus(self, other: T) -> Pair[T]:
        """The sum with a float32."""
        total = two_sum(self.high, other)
        return quick_sum(total.high, total.low + self.low)

    def plus_constant(self, number: float) -> Pair[T]:
        """The sum with a constant of up to 48 digits that is larger in magnitude."""
        high, low = split_constant(number)
        total = self.high + high
        rest = self.high - (total - high)
        return quick_sum(total, rest + (self.low + low))

    def times(self, other: Pair[T]) -> Pair[T]:
        product = two_product(self.high, other.high)
        return quick_sum(product.high, product.low + (self.high * other.low + self.low * other.high))

    def scaled_by(self, factor: T) -> Pair[T]:
        """The product with a float32."""
        product = two_product(self.high, factor)
        return quick_sum(product.high, product.low + self.low * factor)

    def times_constant(self, number: float) -> Pair[T]:
        """The product with a constant of up to 48 digits."""
        high, low = split_constant(number)
        product = two_product_constant(self.high, high)
        return quick_sum(product.high, product.low + (self.high * low + self.low * high))


def split_constant(number: float) -> tuple[float, float]:
    """Two floats of 24 digits that add up to ``number``, but for what lies beyond both."""
    high = _rounded(number, 24)
    return high, _rounded(number - high, 24)


def two_sum(a: T, b: T) -> Pair[T]:
    """``a + b`` exactly."""
    total = a + b
    virtual = total - a
    return Pair(total, (a - (total - virtual)) + (b - virtual))


def quick_sum(a: T, b: T) -> Pair[T]:
    """``a + b`` exactly, where a is 0 or not smaller in magnitude."""
    total = a + b
    return Pair(total, b - (total - a))


def two_product(a: T, b: T) -> Pair[T]:
    """``a * b`` exactly, for magnitudes below 2**100 whose product is normal."""
    a_high, a_low = _halves(a)
    b_high, b_low = _halves(b)
    product = a.times(b)
    return Pair(product, ((a_high.times(b_high) - product) + a_high * b_low + a_low * b_high) + a_low * b_low)


def two_product_constant(a: T, b: float) -> Pair[T]:
    a_high, a_low = _halves(a)
    b_high = _rounded(b, 12)
    b_low = b - b_high
    product = a.times(b)
    return Pair(product, ((a_high.times(b_high) - product) + a_high * b_low + a_low * b_high) + a_low * b_low)


def _halves(a: T) -> tuple[T, T]:
    """Two floats of at most 12 digits each that add up to ``a``."""
    high = (a.bits() & -(1 << 12)).as_float()
    return high, a - high


def _rounded(number: float, digits: int) -> float:
    if number == 0.0:
        return 0.0
    numerator, denominator = number.as_integer_ratio()
    shift = digits - (numerator.bit_length() - denominator.bit_length() + 1)
    return round(number * 2.0**shift) / 2.0**shift
