"""The same elements in another shape or order: each of the result's is one of the input's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from crossfarm.errors import InvalidModule
from crossfarm.ir import te
from crossfarm.ir.arith import affine
from crossfarm.ir.expr import Expr
from crossfarm.ir.graph import dims
from crossfarm.ir.graph.operator import Array, Attribute, AttributeKind, Attrs, Operator
from crossfarm.ir.graph.operators.rows import block_name, named, shape_of
from crossfarm.ir.graph.types import TensorType
from crossfarm.ir.te import Tensor, Value

Index = Sequence[Value]


def gathered(
    name: str,
    number: int,
    infer: Callable[[TensorType, Attrs], Sequence[Expr]],
    source: Callable[[Index, Tensor, Attrs, TensorType], Sequence[Any]],
    numpy: Callable[[Array, Attrs], Any],
    *attributes: Attribute,
) -> Operator:
    """A row of one input, each of whose result's elements is one of the input's.

    Args:
        infer: the result's shape.
        source: from an index of the result that of the input.
    """

    def types(inputs: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
        (x,) = inputs
        return [TensorType(tuple(infer(x, attrs)), x.dtype)]

    def compute(inputs: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
        (x,) = inputs
        # of an input without elements none is read, and an index into it would be refused
        empty = any(dims.constant(d) == 0 for d in x.shape)
        nothing = te.const(0, x.dtype)
        return [
            te.compute(
                shape_of(out[0]),
                lambda *i: nothing if empty else x[tuple(source(i, x, attrs, out[0]))],
                name=block_name(name),
            )
        ]

    def reference(inputs: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
        return [np.asarray(numpy(inputs[0], attrs))]

    return Operator(name, number, ("x",), named(name, types), compute, reference, "injective", attributes)


def required(name: str, kind: AttributeKind) -> Attribute:
    """An attribute without a default."""
    return Attribute(name, kind)


# reshape


def regrouped(i: Index, source: Sequence[Expr], target: Sequence[Expr]) -> tuple[Any, ...]:
    """The index into ``source`` of the element that is at ``i`` of ``target``, a shape of as many elements.

    Dimensions that are there before and after keep their index; only what was split or joined is worked out, from the
    position in as few dimensions as can be.
    """
    found: list[Any] = [0] * len(source)
    before = [a for a, d in enumerate(source) if dims.constant(d) != 1]
    after = [a for a, d in enumerate(target) if dims.constant(d) != 1]
    front = _groups([source[a] for a in before], [target[a] for a in after])
    s, t = sum(n for n, _ in front), sum(n for _, n in front)
    back = _groups([source[a] for a in before[s:][::-1]], [target[a] for a in after[t:][::-1]])[::-1]
    middle = (len(before) - s - sum(n for n, _ in back), len(after) - t - sum(n for _, n in back))
    s = t = 0
    for n, m in (*front, middle, *back):
        own, theirs = before[s : s + n], after[t : t + m]
        for a, value in zip(own, _split(_joined(i, target, theirs), [source[a] for a in own])):
            found[a] = value
        s, t = s + n, t + m
    return tuple(found)


def _groups(source: Sequence[Expr], target: Sequence[Expr]) -> list[tuple[int, int]]:
    """From the first dimension on, how many of either shape have the same product, as far as that is known."""
    groups: list[tuple[int, int]] = []
    s = t = 0
    while s < len(source) and t < len(target):
        n = m = 1
        if not dims.same(source[s], target[t]):
            a, b = dims.constant(source[s]), dims.constant(target[t])
            while a is not None and b is not None and a != b:
                shape, end = (source, s + n) if a < b else (target, t + m)
                factor = dims.constant(shape[end]) if end < len(shape) else None
                if factor is None:
                    return groups
                a, n, b, m = (a * factor, n + 1, b, m) if a < b else (a, n, b * factor, m + 1)
            if a is None or b is None:
                return groups
        groups.append((n, m))
        s, t = s + n, t + m
    return groups


def _joined(i: Index, shape: Sequence[Expr], axes: Sequence[int]) -> Any:
    """The position among the elements along ``axes``."""
    position: Any = te.const(0, "int64")
    for k, a in enumerate(axes):
        position = i[a] if k == 0 else position * shape[a] + i[a]
    return position


def _split(position: Any, shape: Sequence[Expr]) -> list[Any]:
    """The index along dimensions ``shape`` of an element at that position among them."""
    found = []
    for k in range(len(shape)):
        inner = dims.product(shape[k + 1 :])
        value = position if dims.constant(inner) == 1 else position // inner
        found.append(value if k == 0 else value % shape[k])
    return found


def _infer_reshape(x: TensorType, attrs: Attrs) -> Sequence[Expr]:
    shape = dims.dims(attrs["shape"])
    for d in shape:
        if (size := dims.constant(d)) is not None and size < 0:
            raise InvalidModule(f"shape {dims.text(shape)} has the dimension {size}")
    have, want = dims.product(x.shape), dims.product(shape)
    if not dims.same(have, want) and _surely_differ(have, want):
        raise InvalidModule(f"{dims.text(x.shape)} has {_text(have)} elements, {dims.text(shape)} has {_text(want)}")
    return shape


def _surely_differ(a: Expr, b: Expr) -> bool:
    """True where no sizes, but for those of empty tensors, make both the same."""
    x, y = affine(a), affine(b)
    if not x.terms and not y.terms:
        return x.constant != y.constant
    if x.constant or y.constant:
        return False
    return len(x.terms) == 1 and x.terms.keys() == y.terms.keys() and x.terms != y.terms


def _text(size: Expr) -> str:
    return dims.text([size])[1:-1]


def _infer_squeeze(x: TensorType, attrs: Attrs) -> Sequence[Expr]:
    gone = _squeezed(x.shape, attrs)
    for a in gone:
        if dims.constant(x.shape[a]) != 1:
            raise InvalidModule(f"dimension {a} of {dims.text(x.shape)} is not known to be 1")
    return [d for a, d in enumerate(x.shape) if a not in gone]


def _squeezed(shape: Sequence[Expr], attrs: Attrs) -> tuple[int, ...]:
    if attrs["axis"] is None:
        return tuple(a for a, d in enumerate(shape) if dims.constant(d) == 1)
    return dims.axes(attrs["axis"], len(shape), "axis")


def _squeeze_source(i: Index, x: Tensor, attrs: Attrs, out: TensorType) -> Sequence[Any]:
    rest, gone = iter(i), _squeezed(x.shape, attrs)
    return [0 if a in gone else next(rest) for a in range(x.ndim)]


def _infer_expand(x: TensorType, attrs: Attrs) -> Sequence[Expr]:
    rest, new = iter(x.shape), dims.axes(attrs["axis"], x.ndim + len(attrs["axis"]), "axis")
    return [dims.dim(1) if a in new else next(rest) for a in range(x.ndim + len(new))]


def _expand_source(i: Index, x: Tensor, attrs: Attrs, out: TensorType) -> Sequence[Any]:
    new = dims.axes(attrs["axis"], out.ndim, "axis")
    return [v for a, v in enumerate(i) if a not in new]


def _order(attrs: Attrs, rank: int) -> tuple[int, ...]:
    if attrs["axes"] is None:
        return tuple(reversed(range(rank)))
    axes = dims.axes(attrs["axes"], rank)
    if len(axes) != rank:
        raise InvalidModule(f"axes {axes} do not name each of {rank} dimensions")
    return axes


def _permuted(i: Index, x: Tensor, attrs: Attrs, out: TensorType) -> Sequence[Any]:
    found: list[Any] = [0] * x.ndim
    for value, a in zip(i, _order(attrs, x.ndim)):
        found[a] = value
    return found


def _infer_broadcast(x: TensorType, attrs: Attrs) -> Sequence[Expr]:
    shape = dims.dims(attrs["shape"])
    if not dims.same_shape(dims.broadcast(x.shape, shape), shape):
        raise InvalidModule(f"{dims.text(x.shape)} does not stretch to {dims.text(shape)}")
    return shape


def _stretched(i: Index, x: Tensor, attrs: Attrs, out: TensorType) -> Sequence[Any]:
    return [0 if dims.constant(d) == 1 else v for v, d in zip(i[out.ndim - x.ndim :], x.shape)]


# slices, repetitions, reversals


def _slice_steps(attrs: Attrs) -> tuple[int, ...]:
    steps: tuple[int, ...] = attrs["strides"] if attrs["strides"] is not None else (1,) * len(attrs["axes"])
    return steps


def _infer_slice(x: TensorType, attrs: Attrs) -> Sequence[Expr]:
    axes, steps = dims.axes(attrs["axes"], x.ndim), _slice_steps(attrs)
    begins, ends = dims.dims(attrs["begin"]), dims.dims(attrs["end"])
    if not len(axes) == len(begins) == len(ends) == len(steps):
        raise InvalidModule(f"{len(axes)} axes, {len(begins)} begins, {len(ends)} ends and {len(steps)} strides")
    shape = list(x.shape)
    for a, begin, end, step in zip(axes, begins, ends, steps):
        if step == 0:
            raise InvalidModule(f"the stride along dimension {a} is 0")
        shape[a] = dims.ceildiv(dims.sub(end, begin), step) if step > 0 else dims.ceildiv(dims.sub(begin, end), -step)
        count, size, first, last = (dims.constant(v) for v in (shape[a], x.shape[a], begin, end))
        if count is not None and count <= 0:
            shape[a] = dims.dim(0)
            continue
        low, high = (first, last) if step > 0 else (last, first)
        least, most = (0, size) if step > 0 else (-1, None if size is None else size - 1)
        if (low is not None and low < least) or (high is not None and most is not None and high > most):
            raise InvalidModule(
                f"slice {_text(begin)}:{_text(end)}:{step} leaves dimension {a} of {dims.text(x.shape)}",
                hint="begin and end count from the front; one before the front is -1, with a negative stride",
            )
    return shape


def _slice_source(i: Index, x: Tensor, attrs: Attrs, out: TensorType) -> Sequence[Any]:
    found: list[Any] = list(i)
    for a, begin, step in zip(dims.axes(attrs["axes"], x.ndim), dims.dims(attrs["begin"]), _slice_steps(attrs)):
        scaled = i[a] if step == 1 else i[a] * step
        found[a] = scaled if dims.constant(begin) == 0 else scaled + begin
    return found


def _sliced(x: Array, attrs: Attrs) -> Array:
    picks = [slice(None)] * x.ndim
    for a, begin, end, step in zip(attrs["axes"], attrs["begin"], attrs["end"], _slice_steps(attrs)):
        picks[a] = slice(begin, None if end < 0 else end, step)
    return x[tuple(picks)]


def _infer_tile(x: TensorType, attrs: Attrs) -> Sequence[Expr]:
    repeats: tuple[int, ...] = attrs["repeats"]
    if any(r < 0 for r in repeats):
        raise InvalidModule(f"repeats {repeats} has a negative number")
    rank = max(x.ndim, len(repeats))
    shape = (*(dims.dim(1) for _ in range(rank - x.ndim)), *x.shape)
    return [dims.mul(d, r) for d, r in zip(shape, (*(1,) * (rank - len(repeats)), *repeats))]


def _tile_source(i: Index, x: Tensor, attrs: Attrs, out: TensorType) -> Sequence[Any]:
    inner = i[out.ndim - x.ndim :]
    return [
        0 if dims.constant(d) == 1 else v if dims.same(d, whole) else v % d
        for v, d, whole in zip(inner, x.shape, out.shape[out.ndim - x.ndim :])
    ]


def _infer_repeat(x: TensorType, attrs: Attrs) -> Sequence[Expr]:
    repeats, axis = attrs["repeats"], attrs["axis"]
    if repeats < 0:
        raise InvalidModule(f"repeats is {repeats}")
    if axis is None:
        return [dims.mul(dims.product(x.shape), repeats)]
    axis = dims.axis(axis, x.ndim)
    return [dims.mul(d, repeats) if a == axis else d for a, d in enumerate(x.shape)]


def _repeat_source(i: Index, x: Tensor, attrs: Attrs, out: TensorType) -> Sequence[Any]:
    repeats = max(attrs["repeats"], 1)
    if attrs["axis"] is None:
        whole = dims.product(x.shape)
        return regrouped([i[0] // repeats], x.shape, [whole])
    axis = dims.axis(attrs["axis"], x.ndim)
    return [v // repeats if a == axis else v for a, v in enumerate(i)]


def _infer_flip(x: TensorType, attrs: Attrs) -> Sequence[Expr]:
    dims.axis(attrs["axis"], x.ndim)
    return x.shape


def _flip_source(i: Index, x: Tensor, attrs: Attrs, out: TensorType) -> Sequence[Any]:
    axis = dims.axis(attrs["axis"], x.ndim)
    return [Value(dims.sub(x.shape[a], 1)) - v if a == axis else v for a, v in enumerate(i)]


# blocks of channels


def _infer_blocks(x: TensorType, attrs: Attrs) -> tuple[Expr, ...]:
    if x.ndim != 4 or attrs["block"] < 1:
        raise InvalidModule(f"it takes (batch, channels, rows, columns), not {dims.text(x.shape)}, and a block of 1 on")
    return x.shape


def _divided(size: Expr, by: int, what: str) -> Expr:
    if (number := dims.constant(size)) is not None and number % by:
        raise InvalidModule(f"{number} {what} are no multiple of {by}")
    return dims.floordiv(size, by)


def _infer_to_space(x: TensorType, attrs: Attrs) -> Sequence[Expr]:
    n, c, h, w = _infer_blocks(x, attrs)
    if attrs["mode"] not in ("DCR", "CRD"):
        raise InvalidModule(f"mode is DCR or CRD, not {attrs['mode']!r}")
    block = attrs["block"]
    return [n, _divided(c, block * block, "channels"), dims.mul(h, block), dims.mul(w, block)]


def _to_space_source(i: Index, x: Tensor, attrs: Attrs, out: TensorType) -> Sequence[Any]:
    (n, c, h, w), b = i, attrs["block"]
    inside = h % b * b + w % b
    channel = inside * out.shape[1] + c if attrs["mode"] == "DCR" else c * (b * b) + inside
    return [n, channel, h // b, w // b]


def _to_space(x: Array, attrs: Attrs) -> Array:
    (n, c, h, w), b = x.shape, attrs["block"]
    if attrs["mode"] == "DCR":
        parts = x.reshape(n, b, b, c // (b * b), h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        parts = x.reshape(n, c // (b * b), b, b, h, w).transpose(0, 1, 4, 2, 5, 3)
    return parts.reshape(n, c // (b * b), h * b, w * b)


def _infer_to_depth(x: TensorType, attrs: Attrs) -> Sequence[Expr]:
    n, c, h, w = _infer_blocks(x, attrs)
    block = attrs["block"]
    return [n, dims.mul(c, block * block), _divided(h, block, "rows"), _divided(w, block, "columns")]


def _to_depth_source(i: Index, x: Tensor, attrs: Attrs, out: TensorType) -> Sequence[Any]:
    (n, c, h, w), b = i, attrs["block"]
    inside = c // x.shape[1]
    return [n, c % x.shape[1], h * b + inside // b, w * b + inside % b]


def _to_depth(x: Array, attrs: Attrs) -> Array:
    (n, c, h, w), b = x.shape, attrs["block"]
    return x.reshape(n, c, h // b, b, w // b, b).transpose(0, 3, 5, 1, 2, 4).reshape(n, c * b * b, h // b, w // b)


OPERATORS = (
    gathered("reshape", 130, _infer_reshape, lambda i, x, attrs, out: regrouped(i, x.shape, out.shape),
             lambda x, attrs: x.reshape(attrs["shape"]), required("shape", "dims")),
    gathered("permute_dims", 131, lambda x, attrs: [x.shape[a] for a in _order(attrs, x.ndim)], _permuted,
             lambda x, attrs: np.transpose(x, attrs["axes"]), Attribute("axes", "optional ints", None)),
    gathered("expand_dims", 132, _infer_expand, _expand_source, lambda x, attrs: np.expand_dims(x, attrs["axis"]),
             required("axis", "ints")),
    gathered("squeeze", 133, _infer_squeeze, _squeeze_source, lambda x, attrs: np.squeeze(x, attrs["axis"]),
             Attribute("axis", "optional ints", None)),
    replace(
        gathered("broadcast_to", 134, _infer_broadcast, _stretched,
                 lambda x, attrs: np.broadcast_to(x, attrs["shape"]), required("shape", "dims")),
        kind="broadcast",
    ),
    gathered("strided_slice", 137, _infer_slice, _slice_source, _sliced, required("axes", "ints"),
             required("begin", "dims"), required("end", "dims"), Attribute("strides", "optional ints", None)),
    gathered("tile", 138, _infer_tile, _tile_source, lambda x, attrs: np.tile(x, attrs["repeats"]),
             required("repeats", "ints")),
    gathered("repeat", 139, _infer_repeat, _repeat_source,
             lambda x, attrs: np.repeat(x, attrs["repeats"], attrs["axis"]),
             required("repeats", "int"), Attribute("axis", "optional int", None)),
    gathered("flip", 140, _infer_flip, _flip_source, lambda x, attrs: np.flip(x, attrs["axis"]),
             required("axis", "int")),
    gathered("depth_to_space", 150, _infer_to_space, _to_space_source, _to_space, required("block", "int"),
             Attribute("mode", "text", "DCR")),
    gathered("space_to_depth", 151, _infer_to_depth, _to_depth_source, _to_depth, required("block", "int")),
    gathered("flatten", 154, lambda x, attrs: [dims.product(x.shape)],
             lambda i, x, attrs, out: regrouped(i, x.shape, out.shape), lambda x, attrs: x.reshape(-1)),
)  # fmt: skip
