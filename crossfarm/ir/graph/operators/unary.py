"""Functions of one number."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from crossfarm.ir import te
from crossfarm.ir.graph.operator import Array, Attribute, Operator
from crossfarm.ir.graph.operators.rows import pointwise
from crossfarm.ir.te import Value


def _unary(
    name: str,
    number: int,
    value: Callable[..., Any],
    numpy: Callable[..., Any],
    domain: str = "floats",
    attributes: tuple[Attribute, ...] = (),
    **kwargs: Any,
) -> Operator:
    return pointwise(name, number, ("x",), value, numpy, domain, attributes=attributes, **kwargs)


def erf(x: Array) -> Array:
    """The error function of each element, which numpy lacks."""
    return np.asarray(np.frompyfunc(math.erf, 1, 1)(x), dtype=object).astype(x.dtype)


def sigmoid(x: Array) -> Array:
    """``1 / (1 + exp(-x))``"""
    return np.asarray(1 / (1 + np.exp(-x)))


def _sign(x: Value) -> Value:
    """A zero and a NaN are their own sign."""
    if x.dtype.startswith("uint"):
        return te.minimum(x, 1)
    return te.let(x, lambda x: te.select(x > 0, te.const(1, x.dtype), te.select(x < 0, te.const(-1, x.dtype), x)))


def _isinf(x: Value, detect_negative: bool, detect_positive: bool) -> Value:
    if detect_negative and detect_positive:
        return te.isinf(x)
    if not detect_negative and not detect_positive:
        return te.const(False, "bool")
    return x == te.const(-math.inf if detect_negative else math.inf, x.dtype)


def _infinite(x: Array, detect_negative: bool, detect_positive: bool) -> Array:
    return (detect_negative & np.isneginf(x)) | (detect_positive & np.isposinf(x))


OPERATORS = (
    _unary("negative", 30, lambda x: -x, np.negative, "numbers"),
    _unary("abs", 31, te.abs, np.abs, "numbers"),
    _unary("sign", 32, _sign, np.sign, "numbers"),
    _unary("reciprocal", 33, lambda x: 1 / x, np.reciprocal),
    _unary("sqrt", 34, te.sqrt, np.sqrt),
    _unary("rsqrt", 35, te.rsqrt, lambda x: 1 / np.sqrt(x)),
    _unary("square", 36, lambda x: te.let(x, lambda x: x * x), np.square, "numbers"),
    _unary("exp", 37, te.exp, np.exp),
    _unary("log", 38, te.log, np.log),
    _unary("log1p", 39, te.log1p, np.log1p),
    _unary("sin", 40, te.sin, np.sin),
    _unary("cos", 41, te.cos, np.cos),
    _unary("tan", 42, te.tan, np.tan),
    _unary("asin", 43, te.asin, np.arcsin),
    _unary("acos", 44, te.acos, np.arccos),
    _unary("atan", 45, te.atan, np.arctan),
    _unary("sinh", 46, te.sinh, np.sinh),
    _unary("cosh", 47, te.cosh, np.cosh),
    _unary("tanh", 48, te.tanh, np.tanh),
    _unary("asinh", 49, te.asinh, np.arcsinh),
    _unary("acosh", 50, te.acosh, np.arccosh),
    _unary("atanh", 51, te.atanh, np.arctanh),
    _unary("erf", 52, te.erf, erf),
    _unary("sigmoid", 53, te.sigmoid, sigmoid),
    _unary("floor", 54, te.floor, np.floor, "numbers"),
    _unary("ceil", 55, te.ceil, np.ceil, "numbers"),
    _unary("round", 56, te.nearbyint, np.rint, "numbers"),
    _unary("trunc", 57, te.trunc, np.trunc, "numbers"),
    _unary("isnan", 58, te.isnan, np.isnan, result="bool"),
    _unary("isinf", 59, _isinf, _infinite, result="bool",
           attributes=(Attribute("detect_negative", "bool", True), Attribute("detect_positive", "bool", True))),
    _unary("isfinite", 60, te.isfinite, np.isfinite, result="bool"),
)  # fmt: skip
