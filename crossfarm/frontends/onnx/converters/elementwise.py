"""One element from one element of each input: arithmetic, comparisons, logic, bits, casts."""

from __future__ import annotations

from functools import reduce

from crossfarm.frontends.onnx.dtypes import dtype_of
from crossfarm.frontends.onnx.node import Node
from crossfarm.frontends.onnx.registry import CONVERTERS, Converter, converter
from crossfarm.frontends.onnx.value import Tensor, Value
from crossfarm.ir import dtype as dt
from crossfarm.ir.graph import dims

#: Operators of one tensor, or of two that are stretched to one shape, that mean the same here.
_SAME = {
    "Abs": "abs", "Acos": "acos", "Acosh": "acosh", "Asin": "asin", "Asinh": "asinh", "Atan": "atan", "Atanh": "atanh",
    "BitwiseAnd": "bitwise_and", "BitwiseNot": "bitwise_not", "BitwiseOr": "bitwise_or", "BitwiseXor": "bitwise_xor",
    "Ceil": "ceil", "Cos": "cos", "Cosh": "cosh", "Erf": "erf", "Exp": "exp", "Floor": "floor", "IsNaN": "isnan",
    "Log": "log", "Neg": "negative", "Not": "logical_not", "Reciprocal": "reciprocal", "Round": "round",
    "Sign": "sign", "Sin": "sin", "Sinh": "sinh", "Sqrt": "sqrt", "Tan": "tan",
    "Add": "add", "Sub": "subtract", "Mul": "multiply", "Div": "divide", "And": "logical_and", "Or": "logical_or",
    "Xor": "logical_xor", "Equal": "equal", "Less": "less", "LessOrEqual": "less_equal", "Greater": "greater",
    "GreaterOrEqual": "greater_equal",
}  # fmt: skip


def _same(name: str) -> Converter:
    return lambda node: node.op(name, *_stretched(node))


def _stretched(node: Node) -> list[Tensor]:
    """The inputs; before opset 7 ``axis`` says where in the first one the second one's dimensions begin."""
    tensors = node.tensors
    axis = node.attr("axis")
    if node.version >= 7 or axis is None or len(tensors) != 2:
        return tensors
    a, b = tensors
    return [a, node.reshape(b, (*b.shape, *(1,) * (a.ndim - dims.axis(int(axis), a.ndim) - b.ndim)))]


for _op_type, _name in _SAME.items():
    CONVERTERS["", _op_type] = _same(_name)


@converter("Mod")
def _mod(node: Node) -> Tensor:
    return node.op("trunc_mod" if node.attr("fmod", 0) else "floor_mod", *node.tensors)


@converter("Pow")
def _pow(node: Node) -> Tensor:
    base, exponent = _stretched(node)
    if exponent.numeric and exponent.static_size == 1 and exponent.content is not None:
        power = float(exponent.content.reshape(-1)[0])
        if power == 2.0 and exponent.ndim <= base.ndim:
            return node.op("multiply", base, base)
        if power == 0.5 and exponent.ndim <= base.ndim and dt.is_float(base.dtype):
            return node.op("sqrt", base)
    if base.dtype == exponent.dtype:
        return node.op("power", base, exponent)
    if dt.is_int(base.dtype) and dt.is_float(exponent.dtype):
        return node.cast(node.op("power", node.cast(base, exponent.dtype), exponent), base.dtype)
    return node.op("power", base, node.cast(exponent, base.dtype))


@converter("Max", "Min", "Sum", "Mean")
def _variadic(node: Node) -> Tensor:
    name = {"Max": "maximum", "Min": "minimum"}.get(node.proto.op_type, "add")
    tensors = node.tensors
    found = reduce(lambda a, b: node.op(name, a, b), tensors)
    if node.proto.op_type == "Mean" and len(tensors) > 1:
        found = node.op("divide", found, node.like(len(tensors), found))
    return found


@converter("BitShift")
def _shift(node: Node) -> Tensor:
    value, amount = node.tensors
    left = node.attr("direction") == "LEFT"
    name = "left_shift" if left else "right_shift"
    width = dt.bits(value.dtype)
    if amount.numeric and amount.content is not None and ((amount.content >= 0) & (amount.content < width)).all():
        return node.op(name, value, amount)
    # every bit is shifted out: what is left is zeros, or copies of the sign
    most = node.like(width - 1, amount)
    out = node.op("greater", amount, most)
    if dt.is_signed(amount.dtype):
        out = node.op("logical_or", out, node.op("less", amount, node.like(0, amount)))
    found = node.op(name, value, node.op("where", out, most, amount))
    if dt.is_signed(value.dtype) and not left:
        return found
    return node.op("where", out, node.like(0, value), found)


@converter("BitCast")
def _bit_cast(node: Node) -> Tensor:
    value = node.tensor(0)
    dtype = dtype_of(int(node.attr("to")), f"{node.place}: its result")
    if dt.is_float(dtype) != dt.is_float(value.dtype) or dt.bits(dtype) != dt.bits(value.dtype):
        node.fail(f"the bits of {value.dtype} cannot be taken as {dtype}")
    return node.cast(value, dtype)


@converter("Where")
def _where(node: Node) -> Tensor:
    return node.op("where", *node.tensors)


@converter("IsInf")
def _isinf(node: Node) -> Tensor:
    return node.op(
        "isinf", node.tensor(0), detect_negative=bool(node.attr("detect_negative", 1)),
        detect_positive=bool(node.attr("detect_positive", 1)),
    )  # fmt: skip


@converter("Clip")
def _clip(node: Node) -> Tensor:
    value = node.tensor(0)
    if node.version < 11:
        low, high = node.attr("min"), node.attr("max")
        bounds = [None if b is None else node.like(b, value) for b in (low, high)]
    else:
        bounds = [node.optional(1), node.optional(2)]
    if all(b is None or (b.numeric and b.static_size == 1) for b in bounds):
        numbers = [None if b is None else node.numbers(b, "its bound").reshape(-1)[0].item() for b in bounds]
        return node.op("clip", value, min=numbers[0], max=numbers[1])
    for name, bound in zip(("maximum", "minimum"), bounds):
        if bound is not None:
            value = node.op(name, value, bound)
    return value


@converter("Identity")
def _identity(node: Node) -> Value:
    found = node.inputs[0]
    assert found is not None
    return found


@converter("Cast")
def _cast(node: Node) -> Tensor:
    return node.cast(node.tensor(0), dtype_of(int(node.attr("to")), f"{node.place}: its result"))


@converter("CastLike")
def _cast_like(node: Node) -> Tensor:
    return node.cast(node.tensor(0), node.tensor(1).dtype)


@converter("Dropout")
def _dropout(node: Node) -> list[Tensor]:
    value = node.tensor(0)
    training = node.optional(2)
    if training is not None and node.numbers(training, "its training_mode").item():
        ratio = node.optional(1)
        chance = 0.5 if ratio is None else float(node.numbers(ratio, "its ratio").item())
        if chance:
            node.fail("it drops elements at random, as in training", hint="export the model for inference")
    mask = node.full(True, "bool", value.shape) if node.wants(1) else None
    return [value] if mask is None else [value, mask]
