"""Derives the polynomials of ``compiler_service/codegen/vector_math``: ``python -m tools.fit_polynomials --write``.

Each is the minimax polynomial of a smooth function over a short interval: the one whose largest weighted error is the
smallest possible. It is found by Lawson's iteration: weighted least squares, where each round gives every point more
attention in proportion to its error, until the peaks are level (C. L. Lawson, 1961; J. R. Rice, "The Approximation of
Functions", vol. 2, 1969, section 13-11). The weight makes the error one
relative to the final result. Coefficients for float32 code are rounded one after another from the lowest degree, each
time fitting the rest again, so that the later ones make up for the rounding of the earlier.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]
Real = Callable[[Array], Array]

OUTPUT = Path(__file__).parents[1] / "compiler_service" / "codegen" / "vector_math" / "coefficients.py"
_GRID = 1_001
_ROUNDS = 150


@dataclass(frozen=True)
class Fit:
    """One polynomial to derive.

    Attributes:
        name: the constant's name in the output.
        what: the function it approximates and where, for the comment above the constant.
        function: vectorized, accurate to float64.
        weight: what the absolute error is multiplied with.
        interval: where.
        degree: of the polynomial.
        dtype: what the code that evaluates it computes in.
    """

    name: str
    what: str
    function: Real
    weight: Real
    interval: tuple[float, float]
    degree: int
    dtype: str = "float32"

    def solve(self) -> tuple[list[float], float]:
        """Coefficients from the lowest degree, and the largest weighted error that is left."""
        low, high = self.interval
        grid = (low + high) / 2 - (high - low) / 2 * np.cos(np.linspace(0, np.pi, _GRID))
        values, weights = self.function(grid), self.weight(grid)
        fixed: list[float] = []
        for power in range(self.degree + 1):
            rest = values - np.polynomial.polynomial.polyval(grid, [*fixed, 0.0])
            free = minimax(grid, rest, weights, self.degree, lowest=power)
            if self.dtype == "float64":
                fixed = [float(c) for c in free]
                break
            fixed.append(float(np.float32(free[0])))
        error = (np.polynomial.polynomial.polyval(grid, fixed) - values) * weights
        return fixed, float(np.max(np.abs(error)))


def minimax(grid: Array, values: Array, weights: Array, degree: int, lowest: int = 0) -> Array:
    """Coefficients of the weighted minimax polynomial of powers ``lowest`` to ``degree`` on the points of ``grid``."""
    size = degree - lowest + 1
    # Chebyshev's basis on the interval keeps the system well-conditioned
    middle, half = (grid[0] + grid[-1]) / 2, (grid[-1] - grid[0]) / 2
    basis = np.polynomial.chebyshev.chebvander((grid - middle) / half, degree - lowest) * (grid**lowest)[:, None]
    attention = np.full(len(grid), 1.0 / len(grid))
    solution, best = np.zeros(size), math.inf
    for _ in range(_ROUNDS):
        factor = weights * np.sqrt(attention)
        candidate = np.linalg.lstsq(basis * factor[:, None], values * factor, rcond=None)[0]
        error = np.abs(basis @ candidate - values) * weights
        if error.max() < best:
            best, solution = float(error.max()), candidate
        attention = attention * error + 1e-12 * error
        if not attention.any():
            break  # exact
        attention /= attention.sum()
    in_powers = np.polynomial.Chebyshev(solution, domain=[grid[0], grid[-1]]).convert(kind=np.polynomial.Polynomial)
    return np.pad(in_powers.coef, (0, size - len(in_powers.coef)))


def _series(x: Array, direct: Real, terms: list[float], below: float) -> Array:
    """``direct`` away from 0, where it would cancel; its power series within ``below`` of 0."""
    near = np.abs(x) < below
    return np.where(near, np.polynomial.polynomial.polyval(x, terms), direct(np.where(near, below, x)))


_erf = np.vectorize(math.erf)
_LN2, _LN10 = math.log(2), math.log(10)
_FACTORIAL = [1.0 / math.factorial(k) for k in range(30)]


def _exponential(base: float) -> Real:
    """``(base**r - 1) / r``"""
    scale = math.log(base)
    return lambda r: scale * _series(scale * r, lambda t: np.expm1(t) / t, _FACTORIAL[1:12], 1e-2)


def _log_tail(f: Array) -> Array:
    """``(log(1 + f) - f + f*f/2) / f**3``"""
    terms = [(-1.0) ** k / (k + 3) for k in range(24)]
    return _series(f, lambda t: (np.log1p(t) - t + t * t / 2) / t**3, terms, 0.1)


def _of_square(function: Real, terms: list[float]) -> Real:
    """``function(x)`` as a function of ``x*x``, with the power series for small ones."""
    return lambda s: _series(s, lambda t: function(np.sqrt(t)), terms, 0.04)


_TANH = [-1 / 3, 2 / 15, -17 / 315, 62 / 2835, -1382 / 155925, 21844 / 6081075]
_ATAN = [(-1.0) ** (k + 1) / (2 * k + 3) for k in range(24)]
_ASIN = [math.comb(2 * k, k) / (4**k * (2 * k + 1)) for k in range(1, 25)]
_SINH = [_FACTORIAL[2 * k + 3] for k in range(8)]
_ERF = [2 / math.sqrt(math.pi) * (-1) ** k / (math.factorial(k) * (2 * k + 1)) for k in range(10)]

FITS = (
    Fit("EXP", "(e**r - 1 - r) / r**2 for |r| <= log(2) / 2", lambda r: _series(
        r, lambda t: (np.expm1(t) - t) / t**2, _FACTORIAL[2:14], 0.1), lambda r: r * r, (-0.3475, 0.3475), 4),
    Fit("EXP2", "(2**r - 1) / r for |r| <= 1/2", _exponential(2.0), np.abs, (-0.501, 0.501), 5),
    Fit("EXP10", "(10**r - 1) / r for |r| <= log10(2) / 2", _exponential(10.0), np.abs, (-0.1509, 0.1509), 5),
    Fit("LOG", "(log(1 + f) - f + f**2 / 2) / f**3 for sqrt(1/2) <= 1 + f <= sqrt(2)", _log_tail,
        lambda f: np.abs(f * f * f) / np.maximum(np.abs(np.log1p(f)), 1e-9), (-0.29295, 0.41425), 7),
    Fit("TANH", "(tanh(x) - x) / x**3 in x**2 for |x| <= 0.625", _of_square(
        lambda x: (np.tanh(x) - x) / x**3, _TANH), lambda s: s, (0.0, 0.625**2), 4),
    Fit("ERF_SMALL", "erf(x) / x - 1 in x**2 for |x| <= 1", _of_square(
        lambda x: _erf(x) / x - 1, [_ERF[0] - 1, *_ERF[1:]]), np.ones_like, (0.0, 1.0), 6),
    Fit("ERF_LARGE", "erf(t) in t - 2.4 for 1 <= t <= 3.95", lambda u: _erf(u + 2.4), np.ones_like, (-1.4, 1.55), 12),
    Fit("ATAN", "(atan(x) - x) / x**3 in x**2 for |x| <= sqrt(2) - 1", _of_square(
        lambda x: (np.arctan(x) - x) / x**3, _ATAN), lambda s: s, (0.0, 0.41422**2), 4),
    Fit("ASIN", "(asin(x) - x) / x**3 in x**2 for |x| <= 1/2", _of_square(
        lambda x: (np.arcsin(x) - x) / x**3, _ASIN), lambda s: s, (0.0, 0.25), 5),
    Fit("SINH", "(sinh(x) - x) / x**3 in x**2 for |x| <= 1", _of_square(
        lambda x: (np.sinh(x) - x) / x**3, _SINH), lambda s: s, (0.0, 1.0), 3),
    Fit("SIN", "(sin(r) / r - 1) / r**2 in r**2 for |r| <= pi / 4", _of_square(
        lambda r: (np.sin(r) / r - 1) / r**2, [(-1.0) ** (k + 1) * _FACTORIAL[2 * k + 3] for k in range(8)]),
        lambda s: s, (0.0, 0.7855**2), 4, "float64"),
    Fit("COS", "(cos(r) - 1) / r**2 in r**2 for |r| <= pi / 4", _of_square(
        lambda r: (np.cos(r) - 1) / r**2, [(-1.0) ** (k + 1) * _FACTORIAL[2 * k + 2] for k in range(8)]),
        lambda s: s, (0.0, 0.7855**2), 4, "float64"),
    Fit("LOG2_WIDE", "log2((1 + s) / (1 - s)) / s in s**2 for |s| <= 3 - 2 * sqrt(2)", _of_square(
        lambda s: 2 * np.arctanh(s) / s / _LN2, [2 / _LN2 / (2 * k + 1) for k in range(16)]),
        np.ones_like, (0.0, 0.17158**2), 6, "float64"),
    Fit("EXP2_WIDE", "(2**r - 1) / r for |r| <= 1/2", _exponential(2.0), np.abs, (-0.501, 0.501), 7, "float64"),
)  # fmt: skip


def rendered() -> str:
    """The text of ``coefficients.py``."""
    parts = ['"""Coefficients of the polynomials, lowest degree first; made by ``tools/fit_polynomials.py``."""\n']
    for fit in FITS:
        coefficients, error = fit.solve()
        parts.append(f"#: {fit.what}; off by at most 2**{math.log2(error):.1f} of the result. {fit.dtype}.")
        parts.append(f"{fit.name} = (\n" + "".join(f"    {c!r},\n" for c in coefficients) + ")\n")
    parts.append("#: 32 zeros, then the first binary digits of 1 / (2 * pi), 32 a word.")
    parts.append("TURNS = (\n" + "".join(f"    0x{word:08X},\n" for word in turns()) + ")\n")
    return "\n".join(parts)


def turns(words: int = 9) -> list[int]:
    """32 zeros, then the digits of ``1 / (2 * pi)`` in words of 32 bits, from the point on."""
    digits = 32 * (words + 2)

    def arctangent_of_inverse(n: int) -> int:
        term = total = (1 << digits) // n
        for k in range(1, digits):
            term //= -n * n
            total += term // (2 * k + 1)
        return total

    # Machin, 1706
    pi = 16 * arctangent_of_inverse(5) - 4 * arctangent_of_inverse(239)
    fraction = (1 << 2 * digits) // (2 * pi)
    return [0, *(fraction >> (digits - 32 * (k + 1)) & 0xFFFFFFFF for k in range(words))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"write {OUTPUT.name} rather than show it")
    text = rendered()
    if parser.parse_args().write:
        OUTPUT.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
