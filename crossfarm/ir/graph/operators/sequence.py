"""Along one dimension, element after element."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from crossfarm.errors import InvalidModule
from crossfarm.ir import dtype as dt
from crossfarm.ir import te
from crossfarm.ir.graph import dims
from crossfarm.ir.graph.operator import Array, Attribute, Attrs, Operator
from crossfarm.ir.graph.operators.reduction import accumulator
from crossfarm.ir.graph.operators.rows import DOMAINS, described, named, one_dtype, shape_of
from crossfarm.ir.graph.operators.shape import regrouped
from crossfarm.ir.graph.types import TensorType
from crossfarm.ir.te import Tensor, Value

#: Longer sums are taken block by block of as many elements: what one costs grows with the length's square.
_BLOCK = 64


def _infer_cumsum(inputs: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
    (x,) = inputs
    dtype = attrs["dtype"] or one_dtype(inputs, "numbers")
    if not DOMAINS["numbers"](dtype):
        raise InvalidModule(f"sums are numbers, not {dtype}")
    if attrs["axis"] is None:
        return [TensorType((dims.product(x.shape),), dtype)]
    dims.axis(attrs["axis"], x.ndim)
    return [TensorType(x.shape, dtype)]


def _cumsum(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    (x,), shape, dtype = inputs, out[0].shape, out[0].dtype
    axis = 0 if attrs["axis"] is None else dims.axis(attrs["axis"], x.ndim)
    held, reverse, exclusive = accumulator(dtype), attrs["reverse"], attrs["exclusive"]
    size = shape[axis]
    if any(dims.constant(d) == 0 for d in shape):
        return [te.compute(shape_of(out[0]), lambda *i: te.const(0, dtype), name="cumsum")]

    def along(i: Sequence[Value], place: Any) -> tuple[Value, ...]:
        return (*i[:axis], place, *i[axis + 1 :])

    def read(i: Sequence[Value]) -> Value:
        index = regrouped(i, x.shape, shape) if attrs["axis"] is None else i
        value: Value = x[tuple(index)]
        return value.astype(held)

    def counts(place: Value, own: Value) -> Value:
        """Whether the element at ``place`` is in the sum at ``own``."""
        if reverse:
            return place > own if exclusive else place >= own
        return place < own if exclusive else place <= own

    length = dims.constant(size)
    if length is not None and length <= 2 * _BLOCK:
        k = te.reduce_axis((0, size), "k")
        total = te.compute(
            shape_of(out[0]), lambda *i: te.sum(read(along(i, k)), axis=k, where=counts(k, i[axis])), name="cumsum_sum"
        )
        return [te.compute(shape_of(out[0]), lambda *i: total[i].astype(dtype), name="cumsum")]
    blocks = dims.ceildiv(size, _BLOCK)
    by_block = shape_of(TensorType((*shape[:axis], blocks, *shape[axis + 1 :]), held))
    k, own, b = te.reduce_axis((0, _BLOCK), "k"), te.reduce_axis((0, _BLOCK), "k"), te.reduce_axis((0, blocks), "b")

    def whole(*i: Value) -> Any:
        place = i[axis] * _BLOCK + k
        return te.sum(read(along(i, place)), axis=k, where=place < size)

    def inside(*i: Value) -> Any:
        place = i[axis] // _BLOCK * _BLOCK + own
        return te.sum(read(along(i, place)), axis=own, where=te.all(place < size, counts(place, i[axis])))

    wholes = te.compute(by_block, whole, name="cumsum_blocks")
    before = te.compute(
        by_block,
        lambda *i: te.sum(wholes[along(i, b)], axis=b, where=b > i[axis] if reverse else b < i[axis]),
        name="cumsum_before",
    )
    within = te.compute(shape_of(out[0]), inside, name="cumsum_inside")
    return [
        te.compute(
            shape_of(out[0]),
            lambda *i: (before[along(i, i[axis] // _BLOCK)] + within[i]).astype(dtype),
            name="cumsum",
        )
    ]


def _reference_cumsum(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    (x,), axis = inputs, attrs["axis"]
    dtype = attrs["dtype"] or dt.from_numpy(x.dtype)
    x, axis = (x.reshape(-1), 0) if axis is None else (x, axis)
    x = np.moveaxis(x.astype(np.float64 if dt.is_float(dtype) else np.int64), axis, 0)
    x = x[::-1] if attrs["reverse"] else x
    sums = np.cumsum(x, 0)
    if attrs["exclusive"]:
        sums = np.concatenate([np.zeros_like(sums[:1]), sums[:-1]])
    sums = sums[::-1] if attrs["reverse"] else sums
    return [np.moveaxis(sums, 0, axis).astype(dt.to_numpy(dtype))]


def _infer_reverse(inputs: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
    x, lengths = inputs
    time, batch = (dims.axis(attrs[name], x.ndim, name) for name in ("time_axis", "batch_axis"))
    if time == batch:
        raise InvalidModule(f"time_axis and batch_axis are both {time}")
    one_dtype([lengths], "integers")
    if not dims.same_shape(lengths.shape, x.shape[batch : batch + 1]):
        raise InvalidModule(
            f"sequence_lens, {described(lengths)}, is not one for each of dimension {batch} of {described(x)}"
        )
    return [x]


def _reverse(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    x, lengths = inputs
    time, batch = dims.axis(attrs["time_axis"], x.ndim), dims.axis(attrs["batch_axis"], x.ndim)

    def element(*i: Value) -> Any:
        # a length beyond the dimension is all of it
        length = te.minimum(lengths[i[batch]].astype("int64"), x.shape[time])
        place = te.select(i[time] < length, length - 1 - i[time], i[time])
        return x[(*i[:time], place, *i[time + 1 :])]

    empty = any(dims.constant(d) == 0 for d in x.shape)
    nothing = te.const(0, x.dtype)
    return [te.compute(shape_of(out[0]), lambda *i: nothing if empty else element(*i), name="reverse_sequence")]


def _reference_reverse(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    x, lengths = inputs
    found = x.copy()
    moved = np.moveaxis(found, (attrs["batch_axis"], attrs["time_axis"]), (0, 1))
    for sequence, length in zip(moved, lengths):
        sequence[: max(int(length), 0)] = sequence[: max(int(length), 0)][::-1].copy()
    return [found]


OPERATORS = (
    Operator("reverse_sequence", 152, ("x", "sequence_lens"), named("reverse_sequence", _infer_reverse), _reverse,
             _reference_reverse, "injective", (Attribute("time_axis", "int", 0), Attribute("batch_axis", "int", 1))),
    Operator("cumsum", 153, ("x",), named("cumsum", _infer_cumsum), _cumsum, _reference_cumsum, "opaque",
             (Attribute("axis", "optional int", None), Attribute("dtype", "optional dtype", None),
              Attribute("exclusive", "bool", False), Attribute("reverse", "bool", False))),
)  # fmt: skip
