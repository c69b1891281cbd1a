"""sin, cos, tan in float32 without float64: the reduced angle has twice the digits instead.

``x`` is ``n`` times pi / 2 plus a rest within pi / 4. Up to ``LIMIT`` the multiple is taken off in four parts, of which
three are so short that their products are exact (Cody and Waite); larger angles are the caller's to reduce.
Source of the polynomials' last steps: W. J. Cody and W. Waite, "Software Manual for the Elementary Functions", 1980.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Generic

from compiler_service.codegen.vector_math import coefficients as table
from compiler_service.codegen.vector_math.double_single import Pair, quick_sum, two_sum
from compiler_service.codegen.vector_math.term import T, polynomial

#: Below this a multiple of pi / 2 has 11 binary digits.
LIMIT = 3000.0
_TWO_OVER_PI = 2 / math.pi
#: Binary digits of pi / 2, of which 109 are behind the point.
_HALF_PI = 0x3243F6A8885A308D313198A2E037
_HALF_PI_DIGITS = 109


@dataclass(frozen=True)
class Angle(Generic[T]):
    """``quadrant * pi / 2 + rest``; of the quadrant only the lowest two bits count."""

    rest: Pair[T]
    quadrant: T


def _parts() -> tuple[float, float, float, float]:
    """pi / 2 in three parts whose last binary digits are worth 2**-12, 2**-25 and 2**-38, and what is left."""
    rest, parts = _HALF_PI, []
    for last in (12, 25, 38):
        digits = rest >> (_HALF_PI_DIGITS - last)
        parts.append(digits / 2**last)
        rest -= digits << (_HALF_PI_DIGITS - last)
    return parts[0], parts[1], parts[2], rest / 2**_HALF_PI_DIGITS


def reduced(x: T) -> Angle[T]:
    """The angle ``x``, for magnitudes up to LIMIT."""
    first, second, third, last = _parts()
    n, quadrant = (x * _TWO_OVER_PI).rounded()
    # the first difference is exact; what the second loses is kept
    rest = two_sum(x - n * first, -(n * second))
    return Angle(quick_sum(rest.high, (rest.low - n * third) - n * last), quadrant)


def sine(angle: Angle[T]) -> T:
    """The sine of the whole angle."""
    sine, cosine = _both(angle.rest)
    value = (angle.quadrant & 1).equals(1).where(cosine, sine)
    return (angle.quadrant & 2).equals(2).where(-value, value)


def cosine(angle: Angle[T]) -> T:
    return sine(Angle(angle.rest, angle.quadrant + 1))


def tangent(angle: Angle[T]) -> T:
    sine, cosine = _both(angle.rest)
    odd = (angle.quadrant & 1).equals(1)
    return odd.where(-cosine, sine) / odd.where(sine, cosine)


def _both(rest: Pair[T]) -> tuple[T, T]:
    """Sine and cosine of the rest."""
    r, low = rest.high, rest.low
    square = r * r
    half = 0.5 * square
    sine = r + (r * square * polynomial(table.SIN, square) + low * (1.0 - half))
    # 1 - half, and what that rounding lost
    near = 1.0 - half
    lost = (1.0 - near) - half
    return sine, near + (lost + (square * square * polynomial(table.COS[1:], square) - r * low))
