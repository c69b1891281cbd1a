"""Several tensors as one, one as several, and what is around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from crossfarm.errors import InvalidModule
from crossfarm.ir import te
from crossfarm.ir.expr import Expr
from crossfarm.ir.graph import dims
from crossfarm.ir.graph.operator import Array, Attribute, Attrs, Operator
from crossfarm.ir.graph.operators.rows import described, literal, named, one_dtype, shape_of
from crossfarm.ir.graph.types import TensorType
from crossfarm.ir.te import Tensor, Value

_FIRST = Attribute("axis", "int", 0)
_MODES = ("constant", "reflect", "edge", "wrap")


def _check_alike(inputs: Sequence[TensorType], but: int | None) -> None:
    """Raises InvalidModule where shapes differ elsewhere than in dimension ``but``."""
    first = inputs[0]
    for other in inputs[1:]:
        if other.ndim != first.ndim or any(
            a != but and not dims.same(d, e) for a, (d, e) in enumerate(zip(first.shape, other.shape))
        ):
            where = "" if but is None else f" outside of dimension {but}"
            raise InvalidModule(f"{described(first)} and {described(other)} differ{where}")


def _infer_concat(inputs: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
    if not inputs:
        raise InvalidModule("there are no tensors to join")
    dtype = one_dtype(inputs)
    axis = dims.axis(attrs["axis"], inputs[0].ndim)
    _check_alike(inputs, axis)
    total = dims.dim(0)
    for x in inputs:
        total = dims.add(total, x.shape[axis])
    return [TensorType((*inputs[0].shape[:axis], total, *inputs[0].shape[axis + 1 :]), dtype)]


def _concat(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    axis = dims.axis(attrs["axis"], out[0].ndim)
    parts: list[tuple[Expr, Expr, Tensor]] = []  # where each that has elements begins and ends
    begin = dims.dim(0)
    for x in inputs:
        end = dims.add(begin, x.shape[axis])
        if not any(dims.constant(d) == 0 for d in x.shape):
            parts.append((begin, end, x))
        begin = end

    def element(*i: Value) -> Any:
        def of(begin: Expr, x: Tensor) -> Value:
            place = i[axis] if dims.constant(begin) == 0 else i[axis] - Value(begin)
            found: Value = x[(*i[:axis], place, *i[axis + 1 :])]
            return found

        if not parts:
            return te.const(0, out[0].dtype)
        *rest, (begin, _, x) = parts
        value = of(begin, x)
        for begin, end, x in reversed(rest):
            value = te.if_then_else(i[axis] < end, of(begin, x), value)
        return value

    return [te.compute(shape_of(out[0]), element, name="concat")]


def _infer_split(inputs: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
    (x,), sizes = inputs, attrs["sizes"]
    axis = dims.axis(attrs["axis"], x.ndim)
    whole = dims.constant(x.shape[axis])
    if whole is None or sum(sizes) != whole or any(s < 0 for s in sizes) or not sizes:
        raise InvalidModule(
            f"parts of {sizes} do not make up dimension {axis} of {described(x)}",
            hint="sizes are those of all parts; of a size that is not known take strided_slice",
        )
    return [TensorType((*x.shape[:axis], dims.dim(s), *x.shape[axis + 1 :]), x.dtype) for s in sizes]


def _split(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    (x,) = inputs
    axis = dims.axis(attrs["axis"], x.ndim)

    def part(kind: TensorType, begin: int) -> Tensor:
        def element(*i: Value) -> Any:
            if any(dims.constant(d) == 0 for d in kind.shape):
                return te.const(0, x.dtype)
            return x[(*i[:axis], i[axis] + begin if begin else i[axis], *i[axis + 1 :])]

        made: Tensor = te.compute(shape_of(kind), element, name="split")
        return made

    sizes = attrs["sizes"]
    return [part(kind, sum(sizes[:k])) for k, kind in enumerate(out)]


def _reference_split(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    ends = np.cumsum(attrs["sizes"])[:-1]
    return list(np.split(inputs[0], ends, attrs["axis"]))


def _infer_stack(inputs: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
    if not inputs:
        raise InvalidModule("there are no tensors to stack")
    dtype, shape = one_dtype(inputs), inputs[0].shape
    _check_alike(inputs, None)
    axis = dims.axis(attrs["axis"], len(shape) + 1)
    return [TensorType((*shape[:axis], dims.dim(len(inputs)), *shape[axis:]), dtype)]


def _stack(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    axis = dims.axis(attrs["axis"], out[0].ndim)

    def element(*i: Value) -> Value:
        place = (*i[:axis], *i[axis + 1 :])
        value: Value = inputs[-1][place]
        for k in reversed(range(len(inputs) - 1)):
            value = te.if_then_else(i[axis] == k, inputs[k][place], value)
        return value

    return [te.compute(shape_of(out[0]), element, name="stack")]


def _infer_pad(inputs: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
    (x,), mode = inputs, attrs["pad_mode"]
    widths = dims.dims(attrs["pad_width"])
    if len(widths) != 2 * x.ndim:
        raise InvalidModule(f"{described(x)} has {2 * x.ndim} ends, but pad_width is {dims.text(widths)}")
    if mode not in _MODES:
        raise InvalidModule(f"pad_mode is one of {', '.join(_MODES)}, not {mode!r}")
    if mode == "constant":
        literal(attrs["pad_value"], x.dtype)
    shape = []
    for d, before, after in zip(x.shape, widths[::2], widths[1::2]):
        whole = dims.add(dims.add(d, before), after)
        if (size := dims.constant(whole)) is not None and size < 0:
            raise InvalidModule(f"{described(x)} with pad_width {dims.text(widths)} has a dimension of {size}")
        if mode != "constant" and dims.constant(d) == 0 and size != 0:
            raise InvalidModule(f"{described(x)} has nothing that pad_mode {mode!r} could repeat")
        shape.append(whole)
    return [TensorType(tuple(shape), x.dtype)]


def _pad(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    (x,), mode, widths = inputs, attrs["pad_mode"], dims.dims(attrs["pad_width"])
    sides = list(zip(x.shape, widths[::2], widths[1::2]))
    empty = any(dims.constant(d) == 0 for d in x.shape)

    def element(*i: Value) -> Any:
        if empty:
            return te.const(attrs["pad_value"] if mode == "constant" else 0, x.dtype)
        shifted = [v if dims.constant(b) == 0 else v - Value(b) for v, (_, b, _) in zip(i, sides)]
        if mode != "constant":
            return x[tuple(_inside(v, d, b, a, mode) for v, (d, b, a) in zip(shifted, sides))]
        inside = [v >= 0 for v, (_, b, _) in zip(shifted, sides) if _may_pad(b)]
        inside += [v < d for v, (d, _, a) in zip(shifted, sides) if _may_pad(a)]
        value = x[tuple(shifted)]
        return te.if_then_else(te.all(*inside), value, literal(attrs["pad_value"], x.dtype)) if inside else value

    return [te.compute(shape_of(out[0]), element, name="pad")]


def _may_pad(width: Expr) -> bool:
    return (size := dims.constant(width)) is None or size > 0


def _inside(v: Value, size: Expr, before: Expr, after: Expr, mode: str) -> Any:
    """Which index of a dimension an index around it stands for."""
    if not _may_pad(before) and not _may_pad(after):
        return v
    last = Value(dims.sub(size, 1))
    if mode == "wrap":
        return v % size
    if mode == "edge":
        v = te.maximum(v, 0) if _may_pad(before) else v
        return te.minimum(v, last) if _may_pad(after) else v
    extent, *around = (dims.constant(d) for d in (size, before, after))
    if extent is not None and all(w is not None and w < extent for w in around):  # one reflection at most
        v = te.select(v < 0, -v, v) if _may_pad(before) else v
        return te.select(v > last, last * 2 - v, v) if _may_pad(after) else v
    period = te.maximum(Value(dims.mul(dims.sub(size, 1), 2)), 1)
    v = v % period
    return te.select(v > last, period - v, v)


def _reference_pad(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    (x,), widths = inputs, attrs["pad_width"]
    pairs = list(zip(widths[::2], widths[1::2]))
    more = [(max(b, 0), max(a, 0)) for b, a in pairs]
    value = {"constant_values": np.asarray(attrs["pad_value"], x.dtype)} if attrs["pad_mode"] == "constant" else {}
    padded = np.pad(x, more, attrs["pad_mode"], **value) if more else x  # numpy pads no scalars
    less = tuple(slice(max(-b, 0), padded.shape[k] - max(-a, 0)) for k, (b, a) in enumerate(pairs))
    return [padded[less]]


OPERATORS = (
    Operator("concat", 135, ("tensors*",), named("concat", _infer_concat), _concat,
             lambda inputs, attrs: [np.concatenate(inputs, attrs["axis"])], "injective", (_FIRST,)),
    Operator("split", 136, ("x",), named("split", _infer_split), _split, _reference_split, "injective",
             (Attribute("sizes", "ints"), _FIRST)),
    Operator("stack", 141, ("tensors*",), named("stack", _infer_stack), _stack,
             lambda inputs, attrs: [np.stack(inputs, attrs["axis"])], "injective", (_FIRST,)),
    Operator("nn.pad", 142, ("x",), named("nn.pad", _infer_pad), _pad, _reference_pad, "injective",
             (Attribute("pad_width", "dims"), Attribute("pad_mode", "text", "constant"),
              Attribute("pad_value", "number", 0.0))),
)  # fmt: skip
