"""Sums of products as tiles: a group of threads shares tiles of both factors, each thread keeps results in registers.

The block's axes play four parts: those of both factors and the result (batch), of the left factor (rows), of the right
one (columns), and those that are summed over. Axes of one part are made one. Sizes that the tile does not divide are
padded, with zeros in shared memory and without a store outside of the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from compiler_service.schedules.base import Site
from compiler_service.schedules.contraction import loops_of_axes
from compiler_service.schedules.epilogue import fused_epilogue
from compiler_service.schedules.gpu.groups import MOST_GROUPS, fused, write_out
from compiler_service.schedules.gpu.tiles import GroupTile
from compiler_service.schedules.nests import Access
from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import const_int
from crossfarm.ir.expr import BufferLoad, Expr, Var
from crossfarm.ir.regions import simplify
from crossfarm.ir.schedule.references import BlockRef, LoopRef
from crossfarm.ir.schedule.schedule import Schedule
from crossfarm.ir.schedule.tree import find_block, find_loop
from crossfarm.ir.stmt import Block, BufferStore
from crossfarm.ir.te.value import Value
from crossfarm.ir.visitor import walk


@dataclass(frozen=True)
class Parts:
    """A sum of products; which of the block's axes plays which part, in the order in which they become one.

    Attributes:
        left, right: positions of the factors among the block's reads.
        extents: of every axis.
    """

    block: Block
    left: int
    right: int
    batch: tuple[Var, ...]
    rows: tuple[Var, ...]
    columns: tuple[Var, ...]
    sums: tuple[Var, ...]
    extents: dict[Var, Expr]

    @property
    def groups(self) -> tuple[tuple[Var, ...], ...]:
        """The parts in the order of the loops, without an empty batch."""
        return tuple(g for g in (self.batch, self.rows, self.columns, self.sums) if g)

    @property
    def is_plain(self) -> bool:
        """Whether each part is one axis already."""
        return all(len(g) == 1 for g in self.groups)

    def size(self, axes: Sequence[Var]) -> int | None:
        """How many iterations ``axes`` have together; None where that is symbolic."""
        product = 1
        for axis in axes:
            extent = const_int(self.extents[axis])
            if extent is None:
                return None
            product *= extent
        return product


def grid_problem(parts: Parts, tile: GroupTile) -> str:
    """Why a device may not start all groups, or ``""``: batches are along z, rows along y."""
    rows, batch = parts.size(parts.rows), parts.size(parts.batch)
    if max(batch or 1, (rows or 1) // tile.rows) > MOST_GROUPS:
        return f"{batch} products of {rows} rows are more groups than a device starts along y or z"
    return ""


@dataclass(frozen=True)
class Factor:
    """What is loaded of one factor: a copy in shared memory, by steps of the sum and rows or columns.

    Attributes:
        copy: the block that makes it.
        along_sum: whether what follows one another in memory are steps of the sum.
        lanes: elements that a thread may load at once.
        in_place: whether there is nothing to gain from a copy.
    """

    copy: BlockRef
    along_sum: bool
    lanes: int
    in_place: bool


class TiledProduct:
    """One sum of products on its way through the schedule.

    Args:
        last: the one block that reads the result, a temporary, element by element.
        padding: names of blocks that make a factor element by element, to be computed as it is loaded.
    """

    def __init__(self, site: Site, parts: Parts, tile: GroupTile, last: BlockRef, padding: Sequence[str] = ()) -> None:
        self.sch, self.site, self.parts, self.tile = site.schedule, site, parts, tile
        self.last, self.padding = last, padding
        self.block = self.sch.get_block(site.block, func=site.function)

    def run(self) -> None:
        sch, last = self.sch, self.last
        left = self._copied(self.parts.left, self.parts.rows)
        right = self._copied(self.parts.right, self.parts.columns)
        left, right = self._reindexed(left, self.parts.left), self._reindexed(right, self.parts.right)
        for name in self.padding:
            sch.compute_inline(sch.get_block(name, func=self.site.function))
        self._one_axis_a_part((left, right), last)
        factors = self._padded((left, right), last)
        sch.set_scope(self.block, 0, "local")
        across, steps = self._tile_loops()
        sch.reverse_compute_at(last, across)
        # a thread's results are registers only where each is named: no loop chooses among them
        write_out(sch, self.site.function, _loops_below(sch, last, across))
        for factor in factors:
            if factor.in_place:
                sch.compute_inline(factor.copy)
                continue
            sch.set_scope(factor.copy, 0, "shared" if self.tile.shared else "local")
            sch.compute_at(factor.copy, steps, preserve_unit_loops=True)
            loops = self._loading_loops(factor)
            if self.tile.shared:
                self._load_together(factor, loops)
            elif not self.site.gpu.loops_over_threads:  # a core's compiler makes vectors of loops, and soon ends
                write_out(sch, self.site.function, loops)
        sch.decompose_reduction(self.block, steps)

    def _copied(self, read: int, own: Sequence[Var]) -> Factor:
        """How a factor is loaded; its copy is not made yet."""
        node = self._node(self.block)
        buffer = node.reads[read].buffer
        load = next(
            Access(n.buffer, n.indices) for n in walk(node.body) if isinstance(n, BufferLoad) and n.buffer is buffer
        )
        along = next((a for a in (*own, *self.parts.extents) if load.step(a) == 1), None)
        single = load.indices[-1] is along and any(g == (along,) for g in self.parts.groups)
        length = const_int(buffer.shape[-1])
        lanes = 4 if single and length is not None and length % 4 == 0 and dt.itemsize(buffer.dtype) <= 4 else 1
        # one thread's vectors are rows of results: a left element goes into all lanes, right ones are side by side
        in_place = self.site.gpu.loops_over_threads and (read == self.parts.left or (single and (along,) == tuple(own)))
        return Factor(self.block, along in self.parts.sums, lanes, in_place)

    def _reindexed(self, factor: Factor, read: int) -> Factor:
        return replace(factor, copy=self.sch.reindex(self.block, ("read", read)))

    def _one_axis_a_part(self, factors: Sequence[Factor], last: BlockRef) -> None:
        """The block runs over one axis of each part, in order; copies and the result are laid out by them."""
        sch, parts = self.sch, self.parts
        for factor, own in zip(factors, (parts.rows, parts.columns)):
            order = self._axes_of(factor.copy)
            layout = (parts.batch, parts.sums, own)
            sch.transform_layout(factor.copy, ("write", 0), self._joining(order, layout))
            if len(order) > len(_present(order, layout)):
                sch.transform_block_layout(factor.copy, self._joining(order, layout))
        if parts.is_plain:
            return
        node = self._node(self.block)
        assert isinstance(node.body, BufferStore)
        stored = [index if isinstance(index, Var) else None for index in node.body.indices]  # None: of one iteration
        following = self._node(last)
        load = next(n for n in walk(following.body) if isinstance(n, BufferLoad) and n.buffer is node.body.buffer)
        of_axis: dict[Expr, Var | None] = dict(zip(load.indices, stored))
        joined = self._joining([of_axis.get(axis.var) for axis in following.iter_vars], parts.groups[:-1])
        sch.transform_layout(self.block, ("write", 0), self._joining(stored, parts.groups[:-1]))
        sch.transform_block_layout(last, joined)
        sch.transform_block_layout(self.block, self._joining([a.var for a in node.iter_vars], parts.groups))

    def _axes_of(self, copy: BlockRef) -> list[Var]:
        """The block's axes that index what ``copy`` makes, in its order."""
        made = self._node(copy).writes[0].buffer
        load = next(n for n in walk(self._node(self.block).body) if isinstance(n, BufferLoad) and n.buffer is made)
        return [index for index in load.indices if isinstance(index, Var)]

    def _joining(self, axes: Sequence[Var | None], groups: Sequence[tuple[Var, ...]]) -> Callable[..., list[Value]]:
        """The map from one index an axis to one index a group of axes."""
        extents, present = self.parts.extents, _present(axes, groups)

        def joined(*values: Value) -> list[Value]:
            at = {axis: value for axis, value in zip(axes, values) if axis is not None}
            found = []
            for group in present:
                first, *others = [a for a in group if a in at]
                index = at[first]
                for axis in others:
                    index = index * Value(simplify(extents[axis])) + at[axis]
                found.append(index)
            return found

        return joined

    def _padded(self, factors: Sequence[Factor], last: BlockRef) -> list[Factor]:
        """Axes become multiples of the tile: the copies and the result with what is beyond their ends."""
        sch, tile, parts = self.sch, self.tile, self.parts
        wanted = dict(zip(reversed(parts.groups), (tile.steps, tile.columns, tile.rows)))
        padding = [wanted.get(g, 1) for g in parts.groups]
        if parts.is_plain:
            padding = [wanted.get((axis.var,), 1) for axis in self._node(self.block).iter_vars]
        before = {self._node(f.copy).writes[0].buffer: f for f in factors}
        sch.pad_einsum(self.block, padding)
        for result in sch.get_consumers(self.block):
            if result != last:
                sch.compute_inline(result)
        made = []
        for producer in sch.get_producers(self.block):
            node = self._node(producer)
            factor = before.get(node.writes[0].buffer)
            if factor is None:
                factor = before[node.reads[0].buffer]
                sch.compute_inline(factor.copy)
                factor = replace(factor, copy=producer, lanes=1, in_place=False)
            made.append(factor)
        return made

    def _tile_loops(self) -> tuple[LoopRef, LoopRef]:
        """The block's loops: groups, threads, steps of the sum at a time, a step, a thread's results.

        Gives that over threads along columns and that over steps at a time.
        """
        sch, tile = self.sch, self.tile
        *batch, rows, columns, sums = self._loops_of_parts()
        row_groups, down, row = sch.split(rows, [None, tile.down, tile.thread_rows])
        column_groups, across, column = sch.split(columns, [None, tile.across, tile.thread_columns])
        steps, step = sch.split(sums, [None, tile.steps])
        sch.reorder(*batch, row_groups, column_groups, down, across, steps, step, row, column)
        for loop in batch:
            sch.bind(loop, "blockIdx.z")
        sch.bind(row_groups, "blockIdx.y")
        sch.bind(column_groups, "blockIdx.x")
        sch.bind(down, "threadIdx.y")
        sch.bind(across, "threadIdx.x")
        sch.unroll(row)
        if not self.site.gpu.loops_over_threads:
            sch.unroll(step)
        sch.unroll(column)
        return across, steps

    def _loops_of_parts(self) -> list[LoopRef]:
        """The block's loops in the order of its parts."""
        loops = loops_of_axes(self.sch, self.block)
        if not self.parts.is_plain:
            return loops
        at = dict(zip((axis.var for axis in self.parts.block.iter_vars), loops))
        return [at[g[0]] for g in self.parts.groups]

    def _loading_loops(self, factor: Factor) -> tuple[LoopRef, LoopRef]:
        """The loops over a tile, the inner one along memory."""
        sch = self.sch
        node = self._node(factor.copy)
        assert isinstance(node.body, BufferStore)
        loops = dict(zip((axis.var for axis in node.iter_vars), sch.get_loops(factor.copy)[-len(node.iter_vars) :]))
        *_, step, own = [loops[index] for index in node.body.indices if isinstance(index, Var)]
        order = (own, step) if factor.along_sum else (step, own)
        sch.reorder(*order)
        return order

    def _load_together(self, factor: Factor, loops: Sequence[LoopRef]) -> None:
        """The threads of a group load a tile, neighbours what follows one another in memory."""
        sch, tile = self.sch, self.tile
        size = math.prod(const_int(find_loop(self.site.func, loop.var).extent) or 1 for loop in loops)
        lanes = factor.lanes if not factor.along_sum and size % (tile.threads * factor.lanes) == 0 else 1
        _, down, across, lane = sch.split(fused(sch, loops), [None, tile.down, tile.across, lanes])
        sch.bind(down, "threadIdx.y")
        sch.bind(across, "threadIdx.x")
        if lanes > 1:
            sch.vectorize(lane)

    def _node(self, block: BlockRef) -> Block:
        return find_block(self.sch.module.prim_func(block.func), block.name).block


def result_apart(sch: Schedule, function: str, block: str, epilogue: Sequence[str]) -> BlockRef:
    """The block that reads the result of ``block``, a temporary then: its epilogue as one, or a copy."""
    last = fused_epilogue(sch, function, tuple(epilogue))
    return last if last is not None else sch.cache_write(sch.get_block(block, func=function), 0, "local")


def _loops_below(sch: Schedule, block: BlockRef, loop: LoopRef) -> list[LoopRef]:
    loops = list(sch.get_loops(block))
    return loops[loops.index(loop) + 1 :]


def _present(axes: Sequence[Var | None], groups: Sequence[tuple[Var, ...]]) -> list[tuple[Var, ...]]:
    """The groups that have one of the axes."""
    return [g for g in groups if any(a in axes for a in g)]
