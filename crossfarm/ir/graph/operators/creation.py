"""Tensors of nothing but their attributes, and those that keep only part of another."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from crossfarm.errors import InvalidModule
from crossfarm.ir import dtype as dt
from crossfarm.ir import te
from crossfarm.ir.expr import Expr
from crossfarm.ir.graph import dims
from crossfarm.ir.graph.operator import Array, Attribute, Attrs, Operator
from crossfarm.ir.graph.operators.rows import described, literal, named, shape_of, wide
from crossfarm.ir.graph.types import TensorType
from crossfarm.ir.te import Tensor, Value

_FLOAT = Attribute("dtype", "dtype", "float32")


def _created(
    name: str,
    number: int,
    infer: Callable[[Attrs], TensorType],
    value: Callable[[Sequence[Value], Attrs, TensorType], Value],
    numpy: Callable[[Attrs], Any],
    *attributes: Attribute,
) -> Operator:
    """A row without inputs; ``value`` is the element at an index."""

    def types(inputs: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
        out = infer(attrs)
        for d in out.shape:
            if (size := dims.constant(d)) is not None and size < 0:
                raise InvalidModule(f"shape {dims.text(out.shape)} has the dimension {size}")
        return [out]

    def compute(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
        return [te.compute(shape_of(out[0]), lambda *i: value(i, attrs, out[0]).astype(out[0].dtype), name=name)]

    def reference(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
        return [np.asarray(numpy(attrs))]

    return Operator(name, number, (), named(name, types), compute, reference, "injective", attributes)


def _infer_full(attrs: Attrs) -> TensorType:
    literal(attrs["value"], attrs["dtype"])
    return TensorType(dims.dims(attrs["shape"]), attrs["dtype"])


def _infer_full_like(inputs: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
    literal(attrs["value"], inputs[0].dtype)
    return inputs


def _full_like(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    value = literal(attrs["value"], out[0].dtype)
    return [te.compute(shape_of(out[0]), lambda *i: value, name="full_like")]


def _count(attrs: Attrs) -> int:
    """How many numbers there are from start by steps, before stop."""
    start, stop, step = attrs["start"], attrs["stop"], attrs["step"]
    if all(isinstance(v, int) for v in (start, stop, step)):
        return max(-((start - stop) // step), 0)
    return max(math.ceil((stop - start) / step), 0)


def _infer_arange(attrs: Attrs) -> TensorType:
    if not attrs["step"] or attrs["dtype"] == "bool":
        raise InvalidModule(f"steps of {attrs['step']} in {attrs['dtype']} count nothing")
    for name in ("start", "stop", "step"):
        if not math.isfinite(attrs[name]):
            raise InvalidModule(f"{name} is {attrs[name]}")
    for value in (attrs["start"], attrs["step"]):
        literal(value, _counted(attrs["dtype"]))
    return TensorType((dims.dim(_count(attrs)),), attrs["dtype"])


def _counted(dtype: str) -> str:
    """Steps down are negative in dtypes that are not, too."""
    return "int64" if dt.is_int(dtype) else wide(dtype)


def _arange(i: Sequence[Value], attrs: Attrs, out: TensorType) -> Value:
    held = _counted(out.dtype)
    return _position(i[0], out.shape[0]).astype(held) * literal(attrs["step"], held) + literal(attrs["start"], held)


def _aranged(attrs: Attrs) -> Array:
    numbers = np.arange(_count(attrs), dtype=np.int64 if dt.is_int(attrs["dtype"]) else np.float64)
    return (numbers * attrs["step"] + attrs["start"]).astype(dt.to_numpy(attrs["dtype"]))


def _position(i: Value, extent: Expr) -> Value:
    """An index as a number, of 32 bits where that is enough: not every device has 64."""
    size = dims.constant(extent)
    return i.astype("int32") if size is not None and size <= dt.int_range("int32")[1] else i


def _iota(i: Sequence[Value], attrs: Attrs, out: TensorType) -> Value:
    axis = dims.axis(attrs["axis"], out.ndim)
    return _position(i[axis], out.shape[axis])


def _infer_iota(attrs: Attrs) -> TensorType:
    if attrs["dtype"] == "bool":
        raise InvalidModule("bool does not count")
    dims.axis(attrs["axis"], len(attrs["shape"]))
    return TensorType(dims.dims(attrs["shape"]), attrs["dtype"])


def _iotas(attrs: Attrs) -> Array:
    return np.indices(attrs["shape"])[attrs["axis"]].astype(dt.to_numpy(attrs["dtype"]))


def _infer_eye(attrs: Attrs) -> TensorType:
    n, m = attrs["n"], attrs["m"]
    return TensorType(dims.dims((n, n if m is None else m)), attrs["dtype"])


def _eye(i: Sequence[Value], attrs: Attrs, out: TensorType) -> Value:
    return te.select(i[1] - i[0] == attrs["k"], te.const(1, out.dtype), te.const(0, out.dtype))


def _shape_to_tensor(i: Sequence[Value], attrs: Attrs, out: TensorType) -> Value:
    sizes = dims.dims(attrs["shape"])
    value = Value(sizes[-1]) if sizes else te.const(0, "int64")
    for k in reversed(range(len(sizes) - 1)):
        value = te.select(i[0] == k, Value(sizes[k]), value)
    return value


def _infer_trilu(inputs: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
    if inputs[0].ndim < 2:
        raise InvalidModule(f"it takes matrices, not {described(inputs[0])}")
    return inputs


def _trilu(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    (x,), k = inputs, attrs["k"]

    def element(*i: Value) -> Value:
        above = i[-1] - i[-2]
        return te.select(above >= k if attrs["upper"] else above <= k, x[i], te.const(0, x.dtype))

    return [te.compute(shape_of(out[0]), element, name="trilu")]


def _reference_trilu(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    (x,) = inputs
    rows, columns = np.indices(x.shape[-2:])
    above = columns - rows
    kept = above >= attrs["k"] if attrs["upper"] else above <= attrs["k"]
    return [np.where(kept, x, x.dtype.type(0))]


OPERATORS = (
    _created("full", 143, _infer_full, lambda i, attrs, out: literal(attrs["value"], out.dtype),
             lambda attrs: np.full(attrs["shape"], attrs["value"], dt.to_numpy(attrs["dtype"])),
             Attribute("shape", "dims"), Attribute("value", "number"), _FLOAT),
    Operator("full_like", 144, ("x",), named("full_like", _infer_full_like), _full_like,
             lambda inputs, attrs: [np.full_like(inputs[0], attrs["value"])], "elementwise",
             (Attribute("value", "number"),)),
    _created("arange", 145, _infer_arange, _arange, _aranged, Attribute("start", "number"),
             Attribute("stop", "number"), Attribute("step", "number", 1), _FLOAT),
    _created("iota", 146, _infer_iota, _iota, _iotas,
             Attribute("shape", "dims"), Attribute("axis", "int", 0), Attribute("dtype", "dtype", "int64")),
    _created("eye", 147, _infer_eye, _eye,
             lambda attrs: np.eye(attrs["n"], attrs["m"], attrs["k"], dt.to_numpy(attrs["dtype"])),
             Attribute("n", "int"), Attribute("m", "optional int", None), Attribute("k", "int", 0), _FLOAT),
    _created("shape_to_tensor", 148, lambda attrs: TensorType((dims.dim(len(attrs["shape"])),), "int64"),
             _shape_to_tensor, lambda attrs: np.array(attrs["shape"], np.int64), Attribute("shape", "dims")),
    Operator("trilu", 149, ("x",), named("trilu", _infer_trilu), _trilu, _reference_trilu, "injective",
             (Attribute("k", "int", 0), Attribute("upper", "bool", True))),
)  # fmt: skip
