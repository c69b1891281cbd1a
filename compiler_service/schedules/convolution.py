"""Recognizes convolutions, and says which axis plays which part.

``Y[n, f, y, x] += X[n, c, y * s + ky, x * s + kx] * W[f, c, ky, kx]``: any stride and dilation, with groups
(``X[n, f // g * C + c, …]``) or one filter a channel (``X[n, f, …]``), and any number of axes before the channels. What
makes it one is that the last axes of the result, the pixels, are those of a factor that the other does not have.
"""

from __future__ import annotations

from dataclasses import dataclass

from crossfarm.ir.arith import const_int
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Binary, BufferLoad, Cast, Expr, FloatImm, IntImm, Var
from crossfarm.ir.regions import key
from crossfarm.ir.stmt import Block, BufferStore
from crossfarm.ir.visitor import walk


@dataclass(frozen=True)
class Convolution:
    """A block that convolves.

    Attributes:
        data, weights: the factors.
        outer: axes of the data and the result before the pixels, as the batch.
        channel: the axis of the filters.
        group: how many filters see the same channels of the data: 1 for one filter a channel, None for all.
        rows: the axis of the result's rows; None for one-dimensional ones.
        columns: the axis of a row's pixels.
        sums: reduce axes: the data's channels, then the window, in the block's order.
    """

    block: Block
    data: BufferLoad
    weights: BufferLoad
    outer: tuple[Var, ...]
    channel: Var
    group: int | None
    rows: Var | None
    columns: Var
    sums: tuple[Var, ...]

    @property
    def result(self) -> Buffer:
        return self.block.writes[0].buffer

    def extent(self, axis: Var) -> int | None:
        """The extent of an axis; None where that is symbolic."""
        return next(const_int(a.dom.extent) for a in self.block.iter_vars if a.var is axis)


def convolution_of(block: Block) -> Convolution | str:
    """The convolution that ``block`` computes, or why it computes none."""
    store = block.body
    if not isinstance(store, BufferStore) or not isinstance(block.init, BufferStore):
        return "it is not one store with an initial value"
    if not isinstance(block.init.value, (IntImm, FloatImm)) or block.init.value.value != 0:
        return "its sum does not start at 0"
    factors = _factors(store)
    if factors is None or factors[0].buffer is factors[1].buffer:
        return "it does not add products of elements of two tensors"
    first, second = factors
    kinds = {axis.var: axis.kind for axis in block.iter_vars}
    out = tuple(i for i in store.indices if isinstance(i, Var) and kinds.get(i) == "spatial")
    if len(out) < 2 or len(out) != len(store.indices) or set(out) != {a for a in kinds if kinds[a] == "spatial"}:
        return "the result's indices are not its spatial axes"
    data, weights = (first, second) if out[-1] in _axes(first) else (second, first)
    if out[-1] not in _axes(data) or out[-1] in _axes(weights):
        return "its last axis is not one of pixels, which one factor has and the other has not"
    return _with_parts(block, data, weights, out, {a for a in kinds if kinds[a] == "reduce"})


def _factors(store: BufferStore) -> tuple[BufferLoad, BufferLoad] | None:
    """The two elements of ``Y[…] = Y[…] + a * b``, conversions left out."""
    total = store.value
    if not isinstance(total, Binary) or total.op != "add":
        return None
    for before, term in ((total.a, total.b), (total.b, total.a)):
        if not isinstance(before, BufferLoad) or before.buffer is not store.buffer:
            continue
        product = _converted(term)
        if key(before.indices) == key(store.indices) and isinstance(product, Binary) and product.op == "mul":
            a, b = _converted(product.a), _converted(product.b)
            return (a, b) if isinstance(a, BufferLoad) and isinstance(b, BufferLoad) else None
    return None


def _converted(value: Expr) -> Expr:
    while isinstance(value, Cast):
        value = value.value
    return value


def _with_parts(
    block: Block, data: BufferLoad, weights: BufferLoad, out: tuple[Var, ...], reduced: set[Var]
) -> Convolution | str:
    chosen = [i for i in weights.indices if not isinstance(i, IntImm)]
    if not all(isinstance(i, Var) for i in chosen) or len(set(chosen)) != len(chosen):
        return "the weights' indices are not bare axes, each used once"
    filters = [a for a in out if a in _axes(weights)]
    if len(filters) != 1:
        return f"{len(filters)} axes of the result choose weights, not one"
    channel, columns = filters[0], out[-1]
    rows = out[-2] if out[-2] is not channel else None
    bare = all(isinstance(i, Var) for i in data.indices)
    if rows is None and bare:
        return "nothing slides over the data"
    steps = {a.var for a in block.iter_vars if a.var in reduced and const_int(a.dom.extent) != 1}
    if not reduced or not all(a in _axes(data) and a in _axes(weights) for a in steps):
        return "it sums over an axis of one factor alone, or over none"
    group = _group(data, channel)
    if group == 0:
        return "the filters' axis is in the data's indices in a way that makes no groups"
    pixels = {channel, columns, rows}
    return Convolution(
        block=block,
        data=data,
        weights=weights,
        outer=tuple(a for a in out if a not in pixels),
        channel=channel,
        group=group,
        rows=rows,
        columns=columns,
        sums=tuple(a.var for a in block.iter_vars if a.var in reduced),
    )


def _group(data: BufferLoad, channel: Var) -> int | None:
    """How many filters share channels of the data; None for all of them, 0 where that cannot be told."""
    using = [i for i in data.indices if any(n is channel for n in walk(i))]
    if not using:
        return None
    if len(using) > 1:
        return 0
    if using[0] is channel:
        return 1
    found = [n for n in walk(using[0]) if isinstance(n, Binary) and n.op == "floordiv" and n.a is channel]
    uses = sum(1 for n in walk(using[0]) if n is channel)
    return (const_int(found[0].b) or 0) if len(found) == uses == 1 else 0


def _axes(load: BufferLoad) -> set[Expr]:
    return {n for i in load.indices for n in walk(i) if isinstance(n, Var)}
