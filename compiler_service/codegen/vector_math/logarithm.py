"""log, log2, log10, log1p in float32.

``x = 2**e * (1 + f)`` with 1 + f from sqrt(1/2) to sqrt(2), and ``log(1 + f) = f - f**2 / 2 + f**3 * P(f)``. ``f`` is
exact, so it is added last but one, ``e`` times the logarithm of 2 last. For other bases the product of ``f`` and the
base's constant is split so that its leading part is exact too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Generic

from compiler_service.codegen.vector_math import coefficients as table
from compiler_service.codegen.vector_math.term import T, polynomial

_SQRT_HALF_BITS = 0x3F3504F3
_SMALLEST_NORMAL = 2.0**-126
_LN2_HIGH, _LN2_LOW = 0.693145751953125, 1.4286068203094173e-06
_LOG10_2_HIGH, _LOG10_2_LOW = 0.301025390625, 4.605038981195214e-06
#: ``log2(e)`` and ``log10(e)``: 12 digits, and the rest.
_LOG2_E_HIGH = 1.4423828125
_LOG2_E_LOW = 1.4426950408889634 - _LOG2_E_HIGH
_LOG10_E_HIGH = 0.4342041015625
_LOG10_E_LOW = 0.4342944819032518 - _LOG10_E_HIGH


@dataclass(frozen=True)
class _Parts(Generic[T]):
    """``exponent`` and ``f`` of a positive float, both exact, and ``log(1 + f) - f``."""

    exponent: T
    f: T
    tail: T

    @classmethod
    def of(cls, x: T) -> _Parts[T]:
        denormal = x < _SMALLEST_NORMAL
        normal = denormal.where(x * 2.0**23, x)
        shifted = normal.bits() - _SQRT_HALF_BITS
        power = shifted >> 23
        exponent = denormal.where(power - 23, power).to("float32")
        f = ((shifted & 0x7FFFFF) + _SQRT_HALF_BITS).as_float() - 1.0
        square = f * f
        return cls(exponent, f, f * square * polynomial(table.LOG, f) - 0.5 * square)


def log(x: T) -> T:
    return _with_special_cases(x, _natural(x))


def log1p(x: T) -> T:
    """The logarithm of 1 + x as rounded, and what the rounding lost."""
    sum_ = x + 1.0
    lost = (x - (sum_ - 1.0)) / sum_
    return x.equals(0.0).where(x, _with_special_cases(sum_, _natural(sum_, lost)))


def log2(x: T) -> T:
    parts = _Parts.of(x)
    return _with_special_cases(x, _in_base(parts, _LOG2_E_HIGH, _LOG2_E_LOW) + parts.exponent)


def log10(x: T) -> T:
    parts = _Parts.of(x)
    low = parts.exponent * _LOG10_2_LOW
    return _with_special_cases(x, _in_base(parts, _LOG10_E_HIGH, _LOG10_E_LOW, low) + parts.exponent * _LOG10_2_HIGH)


def _natural(x: T, extra: T | None = None) -> T:
    parts = _Parts.of(x)
    low = parts.exponent * _LN2_LOW + parts.tail
    if extra is not None:
        low = low + extra
    return low + parts.f + parts.exponent * _LN2_HIGH


def _in_base(parts: _Parts[T], high: float, low: float, extra: T | None = None) -> T:
    """``log(1 + f)`` times a constant of two parts, plus ``extra``."""
    f_high = (parts.f.bits() & -(1 << 12)).as_float()
    rest = parts.tail * (high + low) + (parts.f * low + (parts.f - f_high) * high)
    if extra is not None:
        rest = rest + extra
    return f_high * high + rest


def _with_special_cases(x: T, regular: T) -> T:
    """-inf at zero, NaN below; infinity and NaN are themselves."""
    below = (x < 0.0).where(math.nan, x)
    special = x.equals(0.0).where(-math.inf, below)
    return ((x > 0.0) & (x < math.inf)).where(regular, special)
