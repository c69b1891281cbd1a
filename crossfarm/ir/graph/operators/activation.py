"""Activation functions. All but ``nn.relu`` of 16-bit floats are computed in float32 and rounded once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from crossfarm.errors import InvalidModule
from crossfarm.ir import te
from crossfarm.ir.graph import dims
from crossfarm.ir.graph.operator import Array, Attribute, Attrs, Operator
from crossfarm.ir.graph.operators.rows import described, named, pointwise
from crossfarm.ir.graph.operators.unary import erf, sigmoid
from crossfarm.ir.graph.types import TensorType
from crossfarm.ir.te import Value

_TO_GELU = math.sqrt(2 / math.pi)


def _activation(
    name: str,
    number: int,
    value: Callable[..., Any],
    numpy: Callable[..., Any],
    domain: str = "floats",
    **defaults: float,
) -> Operator:
    attributes = tuple(Attribute(key, "float", default) for key, default in defaults.items())

    def once(x: Value, **attrs: Any) -> Value:
        return te.let(x, lambda x: value(x, **attrs), "x")

    return pointwise(name, number, ("x",), once, numpy, domain, attributes=attributes, composite=True)


def _zero(x: Value) -> Value:
    return te.const(0, x.dtype)


def _softplus(x: Value) -> Value:
    """``log(1 + exp(x))`` that does not overflow."""
    return te.maximum(_zero(x), x) + te.log1p(te.exp(-te.abs(x)))


def _softpluses(x: Array) -> Array:
    return np.logaddexp(x, x.dtype.type(0))


def _hardsigmoid(x: Value, alpha: float, beta: float) -> Value:
    return te.minimum(te.const(1, x.dtype), te.maximum(_zero(x), x * alpha + beta))


def _gelu(x: Value) -> Value:
    return x * 0.5 * (te.erf(x * math.sqrt(0.5)) + 1)


def _gelu_tanh(x: Value) -> Value:
    return x * 0.5 * (te.tanh((x + x * x * x * 0.044715) * _TO_GELU) + 1)


def _elu(x: Value, alpha: float) -> Value:
    return te.select(x > 0, x, (te.exp(x) - 1) * alpha)


def _selu(x: Value, alpha: float, gamma: float) -> Value:
    return te.select(x > 0, x * gamma, (te.exp(x) - 1) * (alpha * gamma))


def _celu(x: Value, alpha: float) -> Value:
    return te.select(x > 0, x, (te.exp(x / alpha) - 1) * alpha)


def _shrink(x: Value, bias: float, lambd: float) -> Value:
    return te.select(x < -lambd, x + bias, te.select(x > lambd, x - bias, _zero(x)))


def _shrunk(x: Array, bias: float, lambd: float) -> Array:
    return np.where(x < -lambd, x + bias, np.where(x > lambd, x - bias, 0))


def _prelu() -> Operator:
    row = pointwise(
        "nn.prelu", 63, ("data", "alpha"),
        lambda x, alpha: te.let(x, lambda x: te.select(x < 0, x * alpha, x), "x"),
        lambda x, alpha: np.where(x < 0, x * alpha, x), "numbers", composite=True,
    )  # fmt: skip

    def infer(inputs: Any, attrs: Attrs) -> list[TensorType]:
        data, alpha = inputs
        (out,) = row.infer(inputs, attrs)
        if not dims.same_shape(out.shape, data.shape):
            raise InvalidModule(f"alpha, {described(alpha)}, must stretch to data, {described(data)}")
        return [out]

    return Operator(row.name, row.id, row.inputs, named("nn.prelu", infer), row.compute, row.reference, row.kind)


OPERATORS = (
    pointwise("nn.relu", 61, ("x",), lambda x: te.maximum(_zero(x), x), lambda x: np.maximum(x, 0), "numbers"),
    _activation("nn.leakyrelu", 62, lambda x, alpha: te.select(x < 0, x * alpha, x),
                lambda x, alpha: np.where(x < 0, x * alpha, x), alpha=0.01),
    _prelu(),
    _activation("nn.gelu", 64, _gelu, lambda x: 0.5 * x * (1 + erf(x * math.sqrt(0.5)))),
    _activation("nn.gelu_tanh", 65, _gelu_tanh,
                lambda x: 0.5 * x * (1 + np.tanh(_TO_GELU * (x + 0.044715 * np.power(x, 3))))),
    _activation("nn.silu", 66, lambda x: x * te.sigmoid(x), lambda x: x * sigmoid(x)),
    _activation("nn.elu", 67, _elu, lambda x, alpha: np.where(x > 0, x, alpha * np.expm1(x)), alpha=1.0),
    _activation("nn.selu", 68, _selu, lambda x, alpha, gamma: gamma * np.where(x > 0, x, alpha * np.expm1(x)),
                alpha=1.6732632423543772, gamma=1.0507009873554805),
    _activation("nn.celu", 69, _celu, lambda x, alpha: np.where(x > 0, x, alpha * np.expm1(x / alpha)), alpha=1.0),
    _activation("nn.softplus", 70, _softplus, _softpluses),
    _activation("nn.softsign", 71, lambda x: x / (te.abs(x) + 1), lambda x: x / (1 + np.abs(x))),
    _activation("nn.hardsigmoid", 72, _hardsigmoid, lambda x, alpha, beta: np.clip(alpha * x + beta, 0, 1),
                alpha=0.2, beta=0.5),
    _activation("nn.hardswish", 73, lambda x: x * _hardsigmoid(x, 1 / 6, 0.5),
                lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
    _activation("nn.mish", 74, lambda x: x * te.tanh(_softplus(x)), lambda x: x * np.tanh(_softpluses(x))),
    _activation("nn.thresholdedrelu", 75, lambda x, alpha: te.select(x > alpha, x, _zero(x)),
                lambda x, alpha: np.where(x > alpha, x, 0), alpha=1.0),
    _activation("nn.shrink", 76, _shrink, _shrunk, bias=0.0, lambd=0.5),
)  # fmt: skip
