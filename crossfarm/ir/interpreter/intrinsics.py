"""The meaning of the intrinsics, on numpy scalars and arrays alike.

float16 and bfloat16 are computed in float32 and rounded once. ``round`` takes halves away from zero, ``nearbyint`` to
the even neighbour. ``q_multiply_shift(x, y, q, s)`` is ``x * y * 2**(s - q)`` with halves rounded up, in 64 bits.
``reinterpret`` keeps the bits, a vector's lowest lane lowest. ``dot4(c, a, b)`` adds to each lane of ``c`` the products
of four neighbouring lanes of ``a`` and ``b``; the products are exact and the sum wraps around in 32 bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from crossfarm.ir import dtype as dt
from crossfarm.ir.interpreter.arithmetic import Value, rounded_to_odd

Function = Callable[..., Value]


def intrinsic(name: str, dtype: str, result: str) -> Function:
    """The function of a value-giving intrinsic whose first argument is ``dtype``, giving ``result``."""
    if name in _BITS:
        return _BITS[name](dtype, result)
    function = _FLOAT[name]
    if dt.scalar_of(dtype) not in ("float16", "bfloat16"):
        return function
    if result != dtype:  # isnan and its kin look without computing
        return lambda *args: function(*(_widened(a) for a in args))
    narrow = dt.to_numpy(dtype)
    return lambda *args: function(*(_widened(a) for a in args)).astype(narrow)


def extern(name: str) -> Function:
    """The function of libm that ``name`` means; float32's have an ``f`` appended."""
    if name in _LIBM:
        return _LIBM[name]
    return _LIBM[name[:-1]]


def _widened(value: Value) -> Value:
    return value.astype(np.float32) if value.dtype.itemsize == 2 and value.dtype.kind != "i" else value


def _by_float64(function: Callable[..., float]) -> Function:
    """Lane by lane through Python's float functions; for what numpy lacks."""

    def one(*args: float) -> float:
        try:
            return function(*args)
        except ValueError:
            return math.nan
        except OverflowError:
            return math.inf

    lanes = np.frompyfunc(one, function.__code__.co_argcount if hasattr(function, "__code__") else 1, 1)

    def apply(*args: Value) -> Value:
        results = lanes(*(a.astype(np.float64) for a in args))
        return np.asarray(results, dtype=np.float64).astype(args[0].dtype)[()]

    return apply


def _round(x: Value) -> Value:
    whole = np.trunc(x)
    one = np.where(np.abs(x - whole) >= 0.5, np.copysign(x.dtype.type(1), x), x.dtype.type(0)).astype(x.dtype)
    return np.copysign(whole + one, x)


def _fma_exact(a: float, b: float, c: float) -> float:
    if not (math.isfinite(a) and math.isfinite(b)):
        return a * b + c
    if not math.isfinite(c):
        return c
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if not exact:
        return a * b + c  # a zero keeps IEEE's sign
    try:
        return float(exact)
    except OverflowError:
        return math.inf if exact > 0 else -math.inf


def _fma(a: Value, b: Value, c: Value) -> Value:
    """One rounding. float32's product is exact in float64, and its sum rounded to odd; float64 uses fractions."""
    if a.dtype.itemsize == 8:
        return _FMA64(a, b, c)
    product, addend = a.astype(np.float64) * b.astype(np.float64), c.astype(np.float64)
    total = product + addend
    added = total - product
    error = (product - (total - added)) + (addend - added)
    return rounded_to_odd(total, error).astype(a.dtype)


_FMA64 = _by_float64(_fma_exact)


def _one(x: Value) -> Any:
    return x.dtype.type(1)


_FLOAT: dict[str, Function] = {
    **{name: getattr(np, name) for name in (
        "exp", "exp2", "log", "log2", "log10", "log1p", "sqrt", "tanh", "sin", "cos", "tan", "sinh", "cosh", "floor",
        "ceil", "trunc", "fmod", "hypot", "copysign", "nextafter", "isnan", "isinf", "isfinite",
    )},
    "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "atan2": np.arctan2,
    "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh,
    "exp10": lambda x: np.power(x.dtype.type(10), x),
    "rsqrt": lambda x: _one(x) / np.sqrt(x),
    "sigmoid": lambda x: _one(x) / (_one(x) + np.exp(-x)),
    "erf": _by_float64(math.erf),
    "round": _round,
    "nearbyint": np.rint,
    "abs": np.abs,
    "pow": np.power,
    "ldexp": lambda x, n: np.ldexp(x, n.astype(np.int32)),
    "fma": _fma,
}  # fmt: skip

_LIBM: dict[str, Function] = {
    **{name: _FLOAT[name] for name in (
        "exp", "exp2", "log", "log2", "log10", "log1p", "sqrt", "sin", "cos", "tan", "asin", "acos", "atan", "sinh",
        "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "floor", "ceil", "round", "trunc", "nearbyint", "pow", "fmod",
        "atan2", "hypot", "copysign", "nextafter", "fma",
    )},
    "expm1": np.expm1, "cbrt": np.cbrt, "rint": np.rint, "fabs": np.abs, "fmin": np.fmin, "fmax": np.fmax,
    "erfc": _by_float64(math.erfc), "tgamma": _by_float64(math.gamma), "lgamma": _by_float64(math.lgamma),
    "fdim": lambda a, b: np.where(a <= b, a.dtype.type(0), a - b)[()],
    "remainder": _by_float64(lambda a, b: math.remainder(a, b)),
}  # fmt: skip


def _same(dtype: str, result: str) -> Function:
    return lambda x: x


def _absolute(dtype: str, result: str) -> Function:
    return np.abs


def _invert(dtype: str, result: str) -> Function:
    return np.invert


def _popcount(dtype: str, result: str) -> Function:
    unsigned, bits = np.dtype(f"uint{dt.bits(dtype)}"), dt.bits(dtype)

    def count(x: Value) -> Value:
        u = x.astype(unsigned)
        total = np.zeros_like(u)
        for i in range(bits):
            total = total + ((u >> unsigned.type(i)) & unsigned.type(1))
        return total.astype(x.dtype)

    return count


def _clz(dtype: str, result: str) -> Function:
    unsigned, bits, to = np.dtype(f"uint{dt.bits(dtype)}"), dt.bits(dtype), dt.to_numpy(result)

    def count(x: Value) -> Value:
        u = x.astype(unsigned)
        used = np.zeros_like(u)
        for i in range(bits):
            used = used + ((u >> unsigned.type(i)) != 0)
        return (bits - used.astype(np.int64)).astype(to)

    return count


def _reinterpret(dtype: str, result: str) -> Function:
    to, lanes, result_lanes = dt.to_numpy(result), dt.lanes_of(dtype), dt.lanes_of(result)
    if lanes == result_lanes:
        return lambda x: np.ascontiguousarray(x).view(to) if isinstance(x, np.ndarray) else np.asarray(x).view(to)[()]
    # a vector's values have its lanes as their only axis, see ``expressions``
    if result_lanes == 1:
        return lambda x: np.ascontiguousarray(x).view(to)[0]
    return lambda x: np.ascontiguousarray(x).reshape(lanes).view(to)


def _q_multiply_shift(dtype: str, result: str) -> Function:
    def multiply(x: Value, y: Value, q: Value, s: Value) -> Value:
        x64, y64, q64, s64 = (v.astype(np.int64) for v in (x, y, q, s))
        left, right = np.maximum(s64, 0), np.maximum(-s64, 0) + q64
        product = (x64 << left) * y64
        return ((product + (np.int64(1) << (right - 1))) >> right).astype(x.dtype)

    return multiply


def _dot4(dtype: str, result: str) -> Function:
    def dot(c: Value, a: Value, b: Value) -> Value:
        products = a.astype(np.int32) * b.astype(np.int32)
        sums = products.reshape(-1, 4).sum(axis=1, dtype=np.int32)
        return c + (sums if dt.lanes_of(dtype) > 1 else sums[0])

    return dot


_BITS: dict[str, Callable[[str, str], Function]] = {
    "likely": _same,
    "popcount": _popcount,
    "clz": _clz,
    "bitwise_not": _invert,
    "reinterpret": _reinterpret,
    "q_multiply_shift": _q_multiply_shift,
    "dot4": _dot4,
}
