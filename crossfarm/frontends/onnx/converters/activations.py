"""Activation functions."""

from __future__ import annotations

from crossfarm.frontends.onnx.node import Node
from crossfarm.frontends.onnx.registry import CONVERTERS, Converter, converter
from crossfarm.frontends.onnx.value import Tensor

#: op_type → operator, and attributes: ONNX's name, ours, ONNX's default.
_ACTIVATIONS: dict[str, tuple[str, tuple[tuple[str, str, float], ...]]] = {
    "Relu": ("nn.relu", ()),
    "Sigmoid": ("sigmoid", ()),
    "Tanh": ("tanh", ()),
    "Softsign": ("nn.softsign", ()),
    "Mish": ("nn.mish", ()),
    "HardSwish": ("nn.hardswish", ()),
    "Softplus": ("nn.softplus", ()),
    "LeakyRelu": ("nn.leakyrelu", (("alpha", "alpha", 0.01),)),
    "Elu": ("nn.elu", (("alpha", "alpha", 1.0),)),
    "Celu": ("nn.celu", (("alpha", "alpha", 1.0),)),
    "Selu": ("nn.selu", (("alpha", "alpha", 1.67326319217681884765625), ("gamma", "gamma", 1.05070102214813232421875))),
    "HardSigmoid": ("nn.hardsigmoid", (("alpha", "alpha", 0.2), ("beta", "beta", 0.5))),
    "ThresholdedRelu": ("nn.thresholdedrelu", (("alpha", "alpha", 1.0),)),
    "Shrink": ("nn.shrink", (("lambd", "lambd", 0.5), ("bias", "bias", 0.0))),
}


def activation(node: Node, op_type: str, value: Tensor, **given: float) -> Tensor:
    """An activation by ONNX's name; ``given`` are ONNX's attributes."""
    name, attributes = _ACTIVATIONS[op_type]
    return node.op(name, value, **{ours: float(given.get(theirs, default)) for theirs, ours, default in attributes})


def _of(op_type: str) -> Converter:
    def convert(node: Node) -> Tensor:
        names = [theirs for theirs, _, _ in _ACTIVATIONS[op_type][1]]
        given = {name: node.attr(name) for name in names if node.attr(name) is not None}
        return activation(node, op_type, node.tensor(0), **given)

    return convert


for _op_type in _ACTIVATIONS:
    CONVERTERS["", _op_type] = _of(_op_type)


@converter("Gelu")
def _gelu(node: Node) -> Tensor:
    return node.op("nn.gelu_tanh" if node.attr("approximate", "none") == "tanh" else "nn.gelu", node.tensor(0))


@converter("Gelu", domain="com.microsoft")
def _gelu_of_microsoft(node: Node) -> Tensor:
    return node.op("nn.gelu", node.tensor(0))


@converter("FastGelu", domain="com.microsoft")
def _fast_gelu(node: Node) -> Tensor:
    value = node.tensor(0)
    bias = node.optional(1)
    return node.op("nn.gelu_tanh", value if bias is None else node.op("add", value, bias))


@converter("Swish")
def _swish(node: Node) -> Tensor:
    value, alpha = node.tensor(0), float(node.attr("alpha", 1.0))
    if alpha == 1.0:
        return node.op("nn.silu", value)
    return node.op("multiply", value, node.op("sigmoid", node.op("multiply", value, node.like(alpha, value))))


@converter("PRelu")
def _prelu(node: Node) -> Tensor:
    value, slope = node.tensors
    if node.version < 7 and slope.static_size != 1:  # one a channel, which later opsets write as such
        slope = node.reshape(slope, (*slope.shape, *(1,) * (value.ndim - 1 - slope.ndim)))
    return node.op("nn.prelu", value, slope)
