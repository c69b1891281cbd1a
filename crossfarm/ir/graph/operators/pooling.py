"""Largest elements, averages and norms of windows that slide over the dimensions after N C."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from crossfarm.errors import InvalidModule
from crossfarm.ir import dtype as dt
from crossfarm.ir import te
from crossfarm.ir.graph import dims
from crossfarm.ir.graph.operator import Array, Attribute, Attrs, Operator
from crossfarm.ir.graph.operators.rows import described, named, one_dtype, shape_of, wide
from crossfarm.ir.graph.operators.windows import (
    DILATION,
    PADDING,
    STRIDES,
    Window,
    check_places,
    each,
    padded,
    reference_windows,
    windows,
)
from crossfarm.ir.graph.types import TensorType
from crossfarm.ir.te import Tensor


def _windows(attrs: Attrs, ndim: int) -> tuple[Window, ...]:
    found = windows(attrs, each("pool_size", attrs["pool_size"], ndim - 2))
    for window in found:
        if max(window.before, window.after) >= window.reach:
            raise InvalidModule(
                f"padding of {window.before} and {window.after} holds whole windows of {window.reach}",
                hint="make it smaller than the window",
            )
    return found


def _infer(rank: int, domain: str, inputs: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
    (data,) = inputs
    one_dtype(inputs, domain)
    if data.ndim != rank + 2:
        raise InvalidModule(f"it takes N C and {rank} dimensions to pool over, not {described(data)}")
    found = _windows(attrs, data.ndim)
    places = [w.places(n, attrs["ceil_mode"]) for w, n in zip(found, data.shape[2:])]
    check_places(data, places)
    return [TensorType((*data.shape[:2], *places), data.dtype)]


def _around(data: Tensor, found: Sequence[Window], places: Sequence[dims.Dim], ceil: bool, value: Any) -> Tensor:
    """The data as far as windows see, with ``value`` around where they see more than there is."""
    sizes: list[dims.Dim] = []
    for window, length, count in zip(found, data.shape[2:], places):
        known = dims.constants((length, count))
        if known is not None:
            seen = (known[1] - 1) * window.stride + window.reach
            sizes.append(seen if window.before or seen > known[0] else known[0])
        else:
            sizes.append(dims.add(length, window.before + window.after + (window.stride - 1 if ceil else 0)))
    return padded(data, [w.before for w in found], sizes, value)


def _pooled(
    inputs: Sequence[Tensor], attrs: Attrs, out: TensorType, reduce: Any, start: Any, value: Any
) -> tuple[Tensor, tuple[Window, ...]]:
    """Windows reduced by ``reduce`` of ``value`` of each element."""
    (data,) = inputs
    found = _windows(attrs, data.ndim)
    around = _around(data, found, out.shape[2:], attrs["ceil_mode"], start)
    steps = [te.reduce_axis((0, w.size), f"k{n}") for n, w in enumerate(found)]

    def element(n: Any, c: Any, *places: Any) -> Any:
        return reduce(value(around[(n, c, *(w.element(p, s) for w, p, s in zip(found, places, steps)))]), axis=steps)

    return te.compute(shape_of(out), element, name="pool"), found


def _lowest(dtype: str) -> Any:
    return -math.inf if dt.is_float(dtype) else dt.int_range(dtype)[0]


def _max(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    start = _lowest(out[0].dtype)
    return [_pooled(inputs, attrs, out[0], te.max, start, lambda x: x)[0]]


def _reference_max(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    (data,) = inputs
    found = _windows(attrs, data.ndim)
    seen = reference_windows(data, found, _lowest(dt.from_numpy(data.dtype)), attrs["ceil_mode"])
    return [seen.max(axis=tuple(range(-len(found), 0)))]


def _avg(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    dtype = out[0].dtype
    sums = wide(dtype)
    total, found = _pooled(inputs, attrs, out[0], te.sum, 0, lambda x: x.astype(sums))
    lengths = inputs[0].shape[2:]

    def count(window: Window, length: Any, place: Any) -> Any:
        """How many elements of a window count; a plain number where all do everywhere."""
        first, end = 0, dims.add(length, window.before + window.after)
        if not attrs["count_include_pad"]:
            first, end = window.before, dims.add(length, window.before)
            if not attrs["ceil_mode"] and not window.before and not window.after:
                return window.size
        elif not attrs["ceil_mode"]:
            return window.size
        d, start = window.dilation, place * window.stride
        low = te.maximum((d - 1 + first - start) // d, 0) if first else 0
        return te.minimum((d - 1 + te.Value(end) - start) // d, window.size) - low

    def element(*i: Any) -> Any:
        number: Any = 1
        for window, length, place in zip(found, lengths, i[2:]):
            number = number * count(window, length, place)
        divisor = float(number) if isinstance(number, int) else te.maximum(number, 1).astype(sums)
        return (total[i] / divisor).astype(dtype)

    return [te.compute(shape_of(out[0]), element, name="average")]


def _reference_avg(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    (data,) = inputs
    found = _windows(attrs, data.ndim)
    sums = dt.to_numpy(wide(dt.from_numpy(data.dtype)))
    ones = np.ones(data.shape[2:])
    if attrs["count_include_pad"]:
        ones = np.pad(ones, [(w.before, w.after) for w in found], constant_values=1)
        counted = tuple(Window(w.size, w.stride, w.dilation) for w in found)
    else:
        counted = found
    steps = tuple(range(-len(found), 0))
    total = reference_windows(data.astype(sums), found, 0, attrs["ceil_mode"]).sum(axis=steps)
    places = tuple(slice(n) for n in total.shape[2:])
    # windows that start in the padding at the end are no places of the result
    count = np.maximum(reference_windows(ones, counted, 0, attrs["ceil_mode"]).sum(axis=steps), 1)[places]
    return [(total / count).astype(data.dtype)]


def _infer_lp(rank: int, inputs: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
    if attrs["p"] < 1:
        raise InvalidModule(f"p is 1 at least, not {attrs['p']}")
    return _infer(rank, "floats", inputs, attrs)


def _lp(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    dtype, p = out[0].dtype, attrs["p"]
    sums = wide(dtype)

    def power(x: Any) -> Any:
        x = x.astype(sums)
        return te.abs(x) if p == 1 else x * x if p == 2 else te.pow(te.abs(x), te.const(p, sums))

    total, _ = _pooled(inputs, attrs, out[0], te.sum, 0, power)
    if p == 1 and dtype == sums:
        return [total]

    def root(x: Any) -> Any:
        return x if p == 1 else te.sqrt(x) if p == 2 else te.pow(x, te.const(1 / p, sums))

    return [te.compute(shape_of(out[0]), lambda *i: root(total[i]).astype(dtype), name="root")]


def _reference_lp(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    (data,) = inputs
    found, p = _windows(attrs, data.ndim), attrs["p"]
    sums = dt.to_numpy(wide(dt.from_numpy(data.dtype)))
    seen = np.abs(reference_windows(data.astype(sums), found, 0, attrs["ceil_mode"]))
    return [((seen**p).sum(axis=tuple(range(-len(found), 0))) ** (1 / p)).astype(data.dtype)]


_SHARED = (Attribute("pool_size", "ints"), STRIDES, PADDING, DILATION, Attribute("ceil_mode", "bool", False))


def _max_row(rank: int) -> Operator:
    name = f"nn.max_pool{rank}d"
    return Operator(
        name, 229 + rank, ("data",),
        named(name, lambda inputs, attrs: _infer(rank, "numbers", inputs, attrs)), _max, _reference_max,
        "reduction", _SHARED,
    )  # fmt: skip


def _avg_row(rank: int) -> Operator:
    name = f"nn.avg_pool{rank}d"
    return Operator(
        name, 232 + rank, ("data",),
        named(name, lambda inputs, attrs: _infer(rank, "floats", inputs, attrs)), _avg, _reference_avg,
        "reduction", (*_SHARED, Attribute("count_include_pad", "bool", False)),
    )  # fmt: skip


def _lp_row(rank: int) -> Operator:
    name = f"nn.lp_pool{rank}d"
    return Operator(
        name, 235 + rank, ("data",), named(name, lambda inputs, attrs: _infer_lp(rank, inputs, attrs)), _lp,
        _reference_lp, "reduction", (*_SHARED, Attribute("p", "int", 2)),
    )  # fmt: skip


OPERATORS = (
    *(_max_row(rank) for rank in (1, 2, 3)),
    *(_avg_row(rank) for rank in (1, 2, 3)),
    *(_lp_row(rank) for rank in (1, 2, 3)),
)
