"""Quantized tensors: taken apart into arithmetic of floats and integers."""

from __future__ import annotations

from crossfarm.frontends.onnx.converters.contraction import along, convolved
from crossfarm.frontends.onnx.dtypes import dtype_of
from crossfarm.frontends.onnx.node import Node
from crossfarm.frontends.onnx.registry import converter
from crossfarm.frontends.onnx.value import Tensor
from crossfarm.ir import dtype as dt
from crossfarm.ir.graph import dims


def _spread(node: Node, factor: Tensor, value: Tensor) -> Tensor:
    """A scale or zero point in the shape of what it belongs to: one, one an index of an axis, or one a block."""
    if factor.ndim == 0 or (factor.ndim == 1 and factor.static_size == 1 and value.ndim != 1):
        return node.reshape(factor, ())
    axis = dims.axis(int(node.attr("axis", 1)), value.ndim)
    if factor.ndim == 1:
        return along(node, factor, axis, value.ndim)
    block = int(node.attr("block_size", 0))
    if not block:
        node.fail(f"its scale has {factor.ndim} dimensions, and it has no block_size")
    wide = node.op("repeat", factor, repeats=block, axis=axis)
    return wide if dims.same_shape(wide.shape, value.shape) else node.slice(wide, axis, 0, value.shape[axis])


@converter("QuantizeLinear")
def _quantize_linear(node: Node) -> Tensor:
    value, scale, zero = node.tensor(0), node.tensor(1), node.optional(2)
    element = int(node.attr("output_dtype", 0))
    dtype = "uint8" if zero is None else zero.dtype
    if element:
        dtype = dtype_of(element, node.place)
    return quantized(node, value, _spread(node, scale, value), None if zero is None else _spread(node, zero, value),
                     dtype)  # fmt: skip


def quantized(node: Node, value: Tensor, scale: Tensor, zero: Tensor | None, dtype: str) -> Tensor:
    """``round(value / scale) + zero`` within what the dtype holds."""
    wide = "float64" if value.dtype == "float64" else "float32"
    found = node.op("round", node.op("divide", node.cast(value, wide), node.cast(scale, wide)))
    if zero is not None:
        found = node.op("add", found, node.cast(zero, wide))
    low, high = dt.int_range(dtype)
    if high >= 1 << 24:
        high = low * -1 - 128 if low else high - 255
    return node.cast(node.op("clip", found, min=float(low), max=float(high)), dtype)


@converter("DequantizeLinear")
def _dequantize_linear(node: Node) -> Tensor:
    value, scale, zero = node.tensor(0), node.tensor(1), node.optional(2)
    element = int(node.attr("output_dtype", 0))
    dtype = dtype_of(element, node.place) if element else scale.dtype
    spread = None if zero is None else _spread(node, zero, value)
    return node.cast(dequantized(node, value, _spread(node, scale, value), spread), dtype)


def dequantized(node: Node, value: Tensor, scale: Tensor, zero: Tensor | None) -> Tensor:
    """``(value - zero) * scale``."""
    wide = node.cast(value, "int32")
    if zero is not None:
        wide = node.op("subtract", wide, node.cast(zero, "int32"))
    return node.op("multiply", node.cast(wide, scale.dtype), scale)


@converter("DynamicQuantizeLinear")
def _dynamic(node: Node) -> list[Tensor]:
    value = node.tensor(0)
    zero = node.like(0, value)
    low = node.op("minimum", node.op("min", value, axis=None, keepdims=False), zero)
    high = node.op("maximum", node.op("max", value, axis=None, keepdims=False), zero)
    scale = node.op("divide", node.op("subtract", high, low), node.like(255, value))
    point = node.op("round", node.op("divide", node.op("negative", low), scale))
    point = node.cast(node.op("clip", point, min=0.0, max=255.0), "uint8")
    return [quantized(node, value, scale, point, "uint8"), scale, point]


def _shifted(node: Node, value: Tensor, zero: Tensor | None) -> Tensor:
    wide = node.cast(value, "int32")
    return wide if zero is None else node.op("subtract", wide, node.cast(zero, "int32"))


def _rows(node: Node, factor: Tensor) -> Tensor:
    """One factor a row, beside a matrix."""
    return node.reshape(factor, (*factor.shape, 1)) if factor.ndim == 1 and factor.static_size != 1 else factor


@converter("MatMulInteger")
def _matmul_integer(node: Node) -> Tensor:
    a, b = node.tensor(0), node.tensor(1)
    first, second = node.optional(2), node.optional(3)
    left = _shifted(node, a, None if first is None else _rows(node, first))
    return node.op("matmul", left, _shifted(node, b, second))


@converter("QLinearMatMul")
def _qlinear_matmul(node: Node) -> Tensor:
    a, a_scale, a_zero, b, b_scale, b_zero, scale, zero = node.tensors
    left = _shifted(node, a, _rows(node, a_zero))
    found = node.op("matmul", left, _shifted(node, b, b_zero))
    factor = node.op(
        "divide", node.op("multiply", node.cast(_rows(node, a_scale), "float32"), node.cast(b_scale, "float32")),
        node.cast(scale, "float32"),
    )  # fmt: skip
    return _requantized(node, found, factor, zero)


def _requantized(node: Node, sums: Tensor, factor: Tensor, zero: Tensor) -> Tensor:
    found = node.op("round", node.op("multiply", node.cast(sums, "float32"), factor))
    found = node.op("add", found, node.cast(zero, "float32"))
    low, high = dt.int_range(zero.dtype)
    return node.cast(node.op("clip", found, min=float(low), max=float(high)), zero.dtype)


@converter("ConvInteger")
def _conv_integer(node: Node) -> Tensor:
    value, weight = node.tensor(0), node.tensor(1)
    first, second = node.optional(2), node.optional(3)
    # zero points first, so that padding is what stands for 0
    return convolved(node, _shifted(node, value, first), _shifted(node, weight, _per_output(node, second, weight)))


def _per_output(node: Node, factor: Tensor | None, weight: Tensor) -> Tensor | None:
    if factor is None or factor.ndim == 0 or factor.static_size == 1:
        return None if factor is None else node.reshape(factor, ())
    return along(node, factor, 0, weight.ndim)


@converter("QLinearConv")
def _qlinear_conv(node: Node) -> Tensor:
    value, a_scale, a_zero, weight, b_scale, b_zero, scale, zero = (node.tensor(i) for i in range(8))
    bias = node.optional(8)
    sums = convolved(node, _shifted(node, value, a_zero), _shifted(node, weight, _per_output(node, b_zero, weight)))
    if bias is not None:
        sums = node.op("add", sums, along(node, bias, 1, sums.ndim))
    factor = node.op("divide", node.op("multiply", a_scale, b_scale), scale)
    if factor.ndim == 1 and factor.static_size != 1:
        factor = along(node, factor, 1, sums.ndim)
    return _requantized(node, sums, node.reshape(factor, ()) if factor.static_size == 1 else factor, zero)
