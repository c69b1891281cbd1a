"""Normalizations."""

from __future__ import annotations

from crossfarm.frontends.onnx.node import Node
from crossfarm.frontends.onnx.registry import converter
from crossfarm.frontends.onnx.value import Tensor
from crossfarm.ir.graph import dims


@converter("BatchNormalization")
def _batch_norm(node: Node) -> list[Tensor]:
    value, scale, bias, mean, variance = node.tensors
    epsilon = float(node.attr("epsilon", 1e-5))
    training = bool(node.attr("training_mode", 0)) if node.version >= 14 else node.wants(1)
    if not training:
        return [_batch_normalized(node, value, scale, bias, mean, variance, epsilon)]
    axes = (0, *range(2, value.ndim))
    momentum = float(node.attr("momentum", 0.9))
    seen = node.op("mean", value, axis=axes, keepdims=False)
    spread = node.op("variance", value, axis=axes, keepdims=False)

    def running(old: Tensor, new: Tensor) -> Tensor:
        kept = node.op("multiply", old, node.like(momentum, old))
        return node.op("add", kept, node.op("multiply", new, node.like(1 - momentum, new)))

    found = _batch_normalized(node, value, scale, bias, seen, spread, epsilon)
    return [found, running(mean, seen), running(variance, spread)]


def _batch_normalized(
    node: Node, value: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, epsilon: float
) -> Tensor:
    vectors = [node.cast(v, value.dtype) for v in (scale, bias, mean, variance)]
    return node.op("nn.batch_norm", value, *vectors, axis=1, epsilon=epsilon)


@converter("LayerNormalization")
def _layer_norm(node: Node) -> list[Tensor]:
    value, scale, bias = node.tensor(0), node.tensor(1), node.optional(2)
    axis = dims.axis(int(node.attr("axis", -1)), value.ndim)
    axes = tuple(range(axis, value.ndim))
    epsilon = float(node.attr("epsilon", 1e-5))
    if not (node.wants(1) or node.wants(2)) and dims.same_shape(scale.shape, value.shape[axis:]):
        if bias is None:
            bias = node.zeros(scale.shape, scale)
        if dims.same_shape(bias.shape, scale.shape):
            return [node.op("nn.layer_norm", value, scale, bias, axes=axes, epsilon=epsilon)]
    wide = node.cast(value, "float32") if node.attr("stash_type", 1) == 1 else value
    mean = node.op("mean", wide, axis=axes, keepdims=True)
    centered = node.op("subtract", wide, mean)
    variance = node.op("mean", node.op("multiply", centered, centered), axis=axes, keepdims=True)
    inverse = node.op("reciprocal", node.op("sqrt", node.op("add", variance, node.like(epsilon, variance))))
    normalized = node.cast(node.op("multiply", centered, inverse), value.dtype)
    found = node.op("multiply", normalized, scale)
    return [found if bias is None else node.op("add", found, bias), mean, inverse]


@converter("RMSNormalization")
def _rms_norm(node: Node) -> Tensor:
    value, scale = node.tensor(0), node.tensor(1)
    axis = dims.axis(int(node.attr("axis", -1)), value.ndim)
    axes = tuple(range(axis, value.ndim))
    epsilon = float(node.attr("epsilon", 1e-5))
    if dims.same_shape(scale.shape, value.shape[axis:]) and scale.dtype == value.dtype:
        return node.op("nn.rms_norm", value, scale, axes=axes, epsilon=epsilon)
    wide = node.cast(value, "float32")
    square = node.op("mean", node.op("multiply", wide, wide), axis=axes, keepdims=True)
    inverse = node.op("reciprocal", node.op("sqrt", node.op("add", square, node.like(epsilon, wide))))
    return node.op("multiply", node.cast(node.op("multiply", wide, inverse), scale.dtype), scale)


@converter("InstanceNormalization")
def _instance_norm(node: Node) -> Tensor:
    return node.op("nn.instance_norm", *node.tensors, epsilon=float(node.attr("epsilon", 1e-5)))


@converter("GroupNormalization")
def _group_norm(node: Node) -> Tensor:
    value, scale, bias = node.tensors
    groups = int(node.attr("num_groups"))
    each = dims.floordiv(value.shape[1], groups)
    if node.version < 21:  # one factor a group, before it was one a channel
        scale, bias = (_of_channels(node, v, each) for v in (scale, bias))
    return node.op(
        "nn.group_norm", value, scale, bias, num_groups=groups, epsilon=float(node.attr("epsilon", 1e-5)),
    )  # fmt: skip


def _of_channels(node: Node, value: Tensor, each: dims.Dim) -> Tensor:
    count = value.shape[0]
    wide = node.op("broadcast_to", node.reshape(value, (count, 1)), shape=(count, each))
    return node.reshape(wide, (dims.mul(count, each),))


@converter("LRN")
def _lrn(node: Node) -> Tensor:
    return node.op(
        "nn.lrn", node.tensor(0), size=int(node.attr("size")), bias=float(node.attr("bias", 1.0)),
        alpha=float(node.attr("alpha", 1e-4)), beta=float(node.attr("beta", 0.75)),
    )  # fmt: skip


@converter("LpNormalization")
def _lp_normalization(node: Node) -> Tensor:
    return node.op("nn.lp_normalize", node.tensor(0), axis=int(node.attr("axis", -1)), p=int(node.attr("p", 2)))
