"""Convolutions and transposed convolutions of one, two or three dimensions: data N C …, weights O I … (I O …)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossfarm.errors import InvalidModule
from crossfarm.ir import dtype as dt
from crossfarm.ir import te
from crossfarm.ir.expr import Expr
from crossfarm.ir.graph import dims
from crossfarm.ir.graph.operator import Array, Attribute, Attrs, Operator
from crossfarm.ir.graph.operators.contraction import rounded
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


def _check(rank: int, data: TensorType, weights: TensorType, groups: int) -> tuple[int, ...]:
    """The weights' shape. Raises InvalidModule where data and weights are not of ``rank`` dimensions and one dtype."""
    one_dtype((data, weights), "numbers")
    if data.ndim != rank + 2 or weights.ndim != rank + 2:
        raise InvalidModule(
            f"data and weights have {rank + 2} dimensions each, not {described(data)} and {described(weights)}"
        )
    shape = dims.constants(weights.shape)
    if shape is None or min(shape) < 1:
        raise InvalidModule(f"dimensions of weights are constants, 1 at least, not {described(weights)}")
    if groups < 1 or shape[0] % groups:
        raise InvalidModule(f"weights {described(weights)} do not make {groups} groups along their first dimension")
    return shape


def _infer(rank: int, inputs: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
    data, weights = inputs
    filters, channels, *sizes = _check(rank, data, weights, attrs["groups"])
    if not dims.same(data.shape[1], channels * attrs["groups"]):
        raise InvalidModule(
            f"weights {described(weights)} in {attrs['groups']} groups are for {channels * attrs['groups']} channels; "
            f"the data is {described(data)}"
        )
    places = [w.places(n) for w, n in zip(windows(attrs, sizes), data.shape[2:])]
    check_places(data, places)
    return [TensorType((data.shape[0], dims.dim(filters), *places), attrs["out_dtype"] or data.dtype)]


def _compute(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    data, weights = inputs
    found = windows(attrs, [_constant(d) for d in weights.shape[2:]])
    lengths = [dims.add(n, w.before + w.after) for w, n in zip(found, data.shape[2:])]
    around = padded(data, [w.before for w in found], lengths, 0)
    return [_convolved(around, weights, found, attrs["groups"], shape_of(out[0]), out[0].dtype)]


def _convolved(
    data: Tensor, weights: Tensor, found: Sequence[Window], groups: int, shape: Sequence[Any], dtype: str
) -> Tensor:
    """Sums over channels and windows of what needs no padding any more, in the forms that schedules know."""
    filters, channels = (_constant(d) for d in weights.shape[:2])
    each_group = filters // groups
    depthwise = groups > 1 and channels == each_group == 1
    sums = wide(dtype)
    c = te.reduce_axis((0, channels), "c")
    steps = [te.reduce_axis((0, w.size), f"k{n}") for n, w in enumerate(found)]

    def element(n: Any, f: Any, *places: Any) -> Any:
        channel = f if depthwise else c if groups == 1 else f // each_group * channels + c
        seen = [w.element(p, s) for w, p, s in zip(found, places, steps)]
        product = data[(n, channel, *seen)].astype(sums) * weights[(f, 0 if depthwise else c, *steps)].astype(sums)
        return te.sum(product, axis=steps if depthwise else [c, *steps])

    return rounded(te.compute(shape, element, name="conv"), dtype)


def _reference(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    data, weights = inputs
    dtype = attrs["out_dtype"] or dt.from_numpy(data.dtype)
    sums = dt.to_numpy(wide(dtype))
    found = windows(attrs, weights.shape[2:])
    rank, groups = len(found), attrs["groups"]
    seen = reference_windows(data.astype(sums), found, 0)
    parts = [
        np.tensordot(x, w.astype(sums), ([1, *range(2 + rank, 2 + 2 * rank)], [1, *range(2, 2 + rank)]))
        for x, w in zip(np.split(seen, groups, axis=1), np.split(weights, groups))
    ]
    return [np.moveaxis(np.concatenate(parts, axis=-1), -1, 1).astype(dt.to_numpy(dtype))]


@dataclass(frozen=True)
class _Phases:
    """A transposed convolution along one dimension as a plain one: of each run of ``count`` results that follow one
    another, the first, second, … have windows of their own, which are filters of their own of a convolution with
    stride 1. So nothing is multiplied with the zeros that a stride would put between elements.

    Attributes:
        count: the stride, or 1 where elements are put apart after all, as a dilation demands.
        apart: zeros are between elements up to this distance.
        window: of the plain convolution.
        shift: index of the first result in the first run.
        lead: zeros before the data (cut off where negative).
    """

    count: int
    apart: int
    window: Window
    shift: int
    lead: int

    @classmethod
    def of(cls, given: Window) -> _Phases:
        apart = given.stride if given.dilation > 1 else 1
        count = given.stride // apart
        window = Window(-(-given.size // count), dilation=given.dilation)
        return cls(count, apart, window, given.before % count, window.reach - 1 - given.before // count)

    def places(self, size: Expr) -> Expr:
        """Runs in which there are ``size`` results."""
        return dims.ceildiv(dims.add(size, self.shift), self.count)


def _infer_transpose(rank: int, inputs: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
    data, weights = inputs
    channels, filters, *sizes = _check(rank, data, weights, attrs["groups"])
    if not dims.same(data.shape[1], channels):
        raise InvalidModule(f"weights {described(weights)} are for {channels} channels; the data is {described(data)}")
    more = each("output_padding", attrs["output_padding"], rank)
    if min(more) < 0:
        raise InvalidModule(f"output_padding {more} is negative")
    places = [
        dims.add(dims.mul(dims.sub(n, 1), w.stride), w.reach - w.before - w.after + m)
        for w, n, m in zip(windows(attrs, sizes), data.shape[2:], more)
    ]
    check_places(data, places)
    return [TensorType((data.shape[0], dims.dim(filters * attrs["groups"]), *places), attrs["out_dtype"] or data.dtype)]


def _transpose(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
    data, weights = inputs
    given = windows(attrs, [_constant(d) for d in weights.shape[2:]])
    phases = [_Phases.of(w) for w in given]
    places = [p.places(s) for p, s in zip(phases, out[0].shape[2:])]
    spread = _spread(data, phases, places)
    filters = _filters(weights, given, phases, attrs["groups"])
    found = [p.window for p in phases]
    runs = [p if (c := dims.constant(p)) is None else c for p in places]
    result = _convolved(spread, filters, found, attrs["groups"], (data.shape[0], filters.shape[0], *runs), out[0].dtype)
    count = math.prod(p.count for p in phases)
    if count == 1:
        return [result]

    def element(n: Any, f: Any, *at: Any) -> Any:
        phase: Any = 0
        for p, place in zip(phases, at):
            phase = phase * p.count + (place + p.shift) % p.count if p.count > 1 else phase
        runs = [(place + p.shift) // p.count if p.count > 1 else place for p, place in zip(phases, at)]
        return result[(n, f * count + phase, *runs)]

    return [te.compute(shape_of(out[0]), element, name="interleaved")]


def _spread(data: Tensor, phases: Sequence[_Phases], places: Sequence[Expr]) -> Tensor:
    """The data with zeros around, and between elements where they are put apart."""
    sizes = [dims.add(n, p.window.reach - 1) for p, n in zip(phases, places)]
    if any(p.apart > 1 for p in phases):
        lengths = [dims.add(dims.mul(dims.sub(n, 1), p.apart), 1) for p, n in zip(phases, data.shape[2:])]

        def element(*i: Any) -> Any:
            at = i[2:]
            whole = [place % p.apart == 0 for p, place in zip(phases, at) if p.apart > 1]
            there = [place // p.apart if p.apart > 1 else place for p, place in zip(phases, at)]
            return te.if_then_else(te.all(*whole), data[(*i[:2], *there)], te.const(0, data.dtype))

        data = te.compute((*data.shape[:2], *lengths), element, name="apart")
    return padded(data, [p.lead for p in phases], sizes, 0)


def _filters(weights: Tensor, given: Sequence[Window], phases: Sequence[_Phases], groups: int) -> Tensor:
    """The plain convolution's weights O I …: turned round, those of all phases one after the other for each filter."""
    channels, filters = (_constant(d) for d in weights.shape[:2])
    inputs, count = channels // groups, math.prod(p.count for p in phases)

    def element(f: Any, c: Any, *steps: Any) -> Any:
        phase, taps = f % count if count > 1 else 0, list[Any]()
        for p, step in reversed(list(zip(phases, steps))):
            tap = p.window.size - 1 - step
            if p.count > 1:
                tap = tap * p.count + phase % p.count
                phase = phase // p.count
            taps.insert(0, tap)
        f = f // count if count > 1 else f
        source, own = (c, f) if groups == 1 else (f // filters * inputs + c, f % filters)
        there = [tap < w.size for tap, w, p in zip(taps, given, phases) if w.size % p.count]
        value = weights[(source, own, *taps)]
        return te.if_then_else(te.all(*there), value, te.const(0, weights.dtype)) if there else value

    return te.compute((groups * filters * count, inputs, *(p.window.size for p in phases)), element, name="filters")


def _reference_transpose(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    data, weights = inputs
    dtype = attrs["out_dtype"] or dt.from_numpy(data.dtype)
    sums = dt.to_numpy(wide(dtype))
    rank, groups = data.ndim - 2, attrs["groups"]
    found = windows(attrs, weights.shape[2:])
    more = each("output_padding", attrs["output_padding"], rank)
    lengths = [(n - 1) * w.stride + w.reach for w, n in zip(found, data.shape[2:])]
    # what is behind the last window's end is zero: output_padding, more than the padding takes away
    beyond = [max(m - w.after, 0) for w, m in zip(found, more)]
    result: Array = np.zeros((data.shape[0], weights.shape[1] * groups, *map(sum, zip(lengths, beyond))), sums)
    for step in np.ndindex(*weights.shape[2:]):
        parts = [
            np.tensordot(x.astype(sums), w[(..., *step)].astype(sums), ([1], [0]))
            for x, w in zip(np.split(data, groups, axis=1), np.split(weights, groups))
        ]
        starts = [s * w.dilation for s, w in zip(step, found)]
        ends = [s + (n - 1) * w.stride + 1 for s, n, w in zip(starts, data.shape[2:], found)]
        there: tuple[Any, ...] = (..., *(slice(s, e, w.stride) for s, e, w in zip(starts, ends, found)))
        result[there] += np.moveaxis(np.concatenate(parts, axis=-1), -1, 1)
    kept: tuple[Any, ...] = (..., *(slice(w.before, n + m - w.after) for w, n, m in zip(found, lengths, more)))
    return [result[kept].astype(dt.to_numpy(dtype))]


def _constant(dimension: Expr) -> int:
    number = dims.constant(dimension)
    assert number is not None  # infer refused anything else
    return number


def _row(rank: int) -> Operator:
    name = f"nn.conv{rank}d"
    return Operator(
        name, 200 + rank, ("data", "weight"),
        named(name, lambda inputs, attrs: _infer(rank, inputs, attrs)), _compute, _reference, "contraction",
        (STRIDES, PADDING, DILATION, Attribute("groups", "int", 1), Attribute("out_dtype", "optional dtype", None)),
    )  # fmt: skip


def _transposed_row(rank: int) -> Operator:
    name = f"nn.conv{rank}d_transpose"
    return Operator(
        name, 203 + rank, ("data", "weight"),
        named(name, lambda inputs, attrs: _infer_transpose(rank, inputs, attrs)), _transpose, _reference_transpose,
        "contraction",
        (
            STRIDES, PADDING, Attribute("output_padding", "ints", (0,)), DILATION, Attribute("groups", "int", 1),
            Attribute("out_dtype", "optional dtype", None),
        ),
    )  # fmt: skip


OPERATORS = (*(_row(rank) for rank in (1, 2, 3)), *(_transposed_row(rank) for rank in (1, 2, 3)))
