"""How far float32 results are from what float64 gives, in units of the last place."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from crossfarm.ir.expr import Call
from crossfarm.ir.module import IRModule
from tests.compiler.programs import elementwise, module

Array = np.ndarray[Any, Any]

#: Results in float64, from float64 arguments.
REFERENCES: dict[str, Callable[..., Array]] = {
    "exp": np.exp,
    "exp2": np.exp2,
    "exp10": lambda x: np.power(10.0, x),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "erf": np.vectorize(math.erf, otypes=[np.float64]),
    "log": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "log1p": np.log1p,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "pow": np.power,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sqrt": np.sqrt,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "atan2": np.arctan2,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "expm1": np.expm1,
    "cbrt": np.cbrt,
    "hypot": np.hypot,
    "fmod": np.fmod,
    "nextafter": lambda x, y: np.nextafter(x.astype(np.float32), y.astype(np.float32)).astype(np.float64),
}
#: Functions of two arguments.
OF_TWO = ("pow", "atan2", "hypot", "fmod", "nextafter")

_SPECIAL = np.float32(
    [
        0.0, -0.0, np.inf, -np.inf, np.nan, 1, -1, 2, -2, 3, -3, 0.5, -0.5, 2**24, 2**24 - 1, 2**23 + 0.5,
        1e-45, -1e-45, 2.0**-126, 3.4028235e38, -3.4028235e38, 2.0**19, 88.72284, -87.33655, -103.97208, 1e30,
    ]
)  # fmt: skip


def functions(name: str) -> IRModule:
    """``scalar`` over n elements, one at a time; ``vector`` over 16, in one vector."""
    inputs = ("float32",) * (2 if name in OF_TWO else 1)

    def make(*args: Any) -> Call:
        return Call(name, args, "float32")

    return module(scalar=elementwise(inputs, {"y": make}), vector=elementwise(inputs, {"y": make}, "vectorized", n=16))


def samples(name: str, step: int) -> list[Array]:
    """Every ``step``-th bit pattern of float32, and values where things change; pairs of such for two arguments."""
    patterns = np.arange(0, 1 << 32, step, dtype=np.int64).astype(np.uint32).view(np.float32)
    if name not in OF_TWO:
        return [np.concatenate([patterns, _SPECIAL])]
    rng = np.random.default_rng(5)
    bases = np.exp(rng.uniform(-20, 20, len(patterns))).astype(np.float32)
    powers = rng.uniform(-10, 10, len(patterns)).astype(np.float32)
    integers = rng.integers(-9, 10, len(patterns)).astype(np.float32)
    return [
        np.concatenate([patterns, bases, -bases, np.repeat(_SPECIAL, len(_SPECIAL))]),
        np.concatenate([rng.permutation(patterns), powers, integers, np.tile(_SPECIAL, len(_SPECIAL))]),
    ]


def errors(name: str, args: list[Array], got: Array) -> Array:
    """The error of each result in ULP of the exact one; infinite where a NaN, infinity or sign of zero is wrong."""
    with np.errstate(all="ignore"):
        want = REFERENCES[name](*(a.astype(np.float64) for a in args))
        rounded = want.astype(np.float32)
        binade = np.floor(np.log2(np.maximum(np.abs(want), 2.0**-126)))
        distance = np.abs(got.astype(np.float64) - want) / np.maximum(2.0 ** (binade - 23), 2.0**-149)
    right = (np.isnan(got) & np.isnan(want)) | (np.isinf(got) & (got == rounded))
    wrong_sign = (got == 0) & (want == 0) & (np.signbit(got) != np.signbit(want))
    return np.where(right, 0.0, np.where(np.isnan(distance) | wrong_sign, np.inf, distance))


def assert_within(name: str, bound: float, args: list[Array], got: Array) -> None:
    """Raises AssertionError naming the worst argument where a result is further off than ``bound`` ULP."""
    found = errors(name, args, got)
    worst = int(np.argmax(found))
    assert found[worst] <= bound, (
        f"{name} of {[float(a[worst]) for a in args]} is {found[worst]:.3f} ULP off: {got[worst]!r}"
    )
