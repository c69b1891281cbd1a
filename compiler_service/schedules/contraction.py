"""Recognizes sums of products of two tensors, and says which axis plays which part.

``C[b, i, j] += A[b, i, k] * B[b, k, j]``, whatever the order of the dimensions: matmul and its transposed, batched and
broadcast kin.
"""

from __future__ import annotations

from dataclasses import dataclass

from compiler_service.schedules.nests import nest_of
from crossfarm.ir.arith import const_int
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Binary, BufferLoad, Cast, Expr, FloatImm, IntImm, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.regions import key
from crossfarm.ir.schedule.references import BlockRef, LoopRef
from crossfarm.ir.schedule.schedule import Schedule
from crossfarm.ir.schedule.tree import find_block
from crossfarm.ir.stmt import Block, BufferStore


@dataclass(frozen=True)
class Operand:
    """One factor.

    Attributes:
        buffer: what is loaded.
        read: its position among the block's reads.
        axes: the block's axis that indexes each dimension.
    """

    buffer: Buffer
    read: int
    axes: tuple[Var, ...]


@dataclass(frozen=True)
class Contraction:
    """A block that sums products; its axes by the tensors that have them.

    Attributes:
        left, right: the factors, so that ``columns`` are the right one's.
        out: the axis of each dimension of the result.
        batch: axes of both factors and the result.
        rows: axes of ``left`` and the result alone.
        columns: axes of ``right`` and the result alone.
        sums: reduce axes, of both factors.
        extents: of every axis.
    """

    block: Block
    left: Operand
    right: Operand
    out: tuple[Var, ...]
    batch: tuple[Var, ...]
    rows: tuple[Var, ...]
    columns: tuple[Var, ...]
    sums: tuple[Var, ...]
    extents: dict[Var, Expr]

    @property
    def result(self) -> Buffer:
        return self.block.writes[0].buffer

    def size(self, axes: tuple[Var, ...]) -> int | None:
        """How many iterations ``axes`` have together; None where that is symbolic."""
        product = 1
        for axis in axes:
            extent = const_int(self.extents[axis])
            if extent is None:
                return None
            product *= extent
        return product


def contraction_of(func: PrimFunc, name: str) -> Contraction | str:
    """The contraction that the block ``name`` computes under plain loops, or why it computes none."""
    nest = nest_of(func, name)
    if isinstance(nest, str):
        return nest
    block, store = nest.block, nest.block.body
    if not isinstance(store, BufferStore) or not isinstance(block.init, BufferStore):
        return "it is not one store with an initial value"
    start = _converted(block.init.value)
    if not isinstance(start, (IntImm, FloatImm)) or start.value != 0:
        return "its sum does not start at 0"
    product = _added(store)
    if product is None:
        return "it does not add to what it stores"
    first, second = _converted(product.a), _converted(product.b)
    if product.op != "mul" or not isinstance(first, BufferLoad) or not isinstance(second, BufferLoad):
        return "what it adds is not the product of two elements"
    if first.buffer is second.buffer:
        return "both factors are of one tensor"
    kinds = {axis.var: axis.kind for axis in block.iter_vars}
    dimensions = [_axes(load.indices, kinds) for load in (first, second)]
    out = _axes(store.indices, kinds)
    if out is None or None in dimensions:
        return "its indices are not bare axes, each used once"
    reads = [region.buffer for region in block.reads]
    left, right = (
        Operand(load.buffer, reads.index(load.buffer), axes or ()) for load, axes in zip((first, second), dimensions)
    )
    if out and out[-1] in left.axes and out[-1] not in right.axes:
        left, right = right, left
    used = {*left.axes, *right.axes}
    if used != set(kinds) or {a for a in kinds if kinds[a] == "spatial"} != set(out):
        return "an axis is not of the factors, or a spatial one is not of the result"
    sums = tuple(a for a in kinds if kinds[a] == "reduce")
    if not all(a in left.axes and a in right.axes for a in sums):
        return "it sums over an axis of one factor alone"
    spatial = [a for a in kinds if kinds[a] == "spatial"]
    return Contraction(
        block=block,
        left=left,
        right=right,
        out=out,
        batch=tuple(a for a in spatial if a in left.axes and a in right.axes),
        rows=tuple(a for a in spatial if a not in right.axes),
        columns=tuple(a for a in spatial if a not in left.axes),
        sums=sums,
        extents={axis.var: axis.dom.extent for axis in block.iter_vars},
    )


def loops_of_axes(schedule: Schedule, block: BlockRef) -> list[LoopRef]:
    """The loop of each axis of a block under plain loops, in the order of the axes: a program nests them in any."""
    realize = find_block(schedule.module.prim_func(block.func), block.name)
    by_var: dict[Expr, LoopRef] = {loop.var: loop for loop in schedule.get_loops(block)}
    return [by_var[value] for value in realize.iter_values]


def _added(store: BufferStore) -> Binary | None:
    """``product`` of ``C[…] = C[…] + product``, either way round; its conversion to the result's dtype left out."""
    value = store.value
    if not isinstance(value, Binary) or value.op != "add":
        return None
    for total, term in ((value.a, value.b), (value.b, value.a)):
        if isinstance(total, BufferLoad) and total.buffer is store.buffer and key(total.indices) == key(store.indices):
            product = _converted(term)
            return product if isinstance(product, Binary) else None
    return None


def _converted(value: Expr) -> Expr:
    """What conversions are of."""
    while isinstance(value, Cast):
        value = value.value
    return value


def _axes(indices: tuple[Expr, ...], kinds: dict[Var, str]) -> tuple[Var, ...] | None:
    axes = tuple(i for i in indices if isinstance(i, Var) and i in kinds)
    return axes if len(axes) == len(indices) == len(set(axes)) else None
