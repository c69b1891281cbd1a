"""Matmuls with few rows: every element of the large factor is used a few times only, so that memory sets the pace.

Packing would read and write the large factor once more. Instead it is read where it lies, in its order: by whole rows
where its columns lie side by side, by dot products where it is transposed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from compiler_service.schedules.base import Fit, Refusal, Site
from compiler_service.schedules.contraction import Contraction, contraction_of, loops_of_axes
from compiler_service.schedules.epilogue import epilogue_of, fused_epilogue
from compiler_service.schedules.machines import USUAL_THREADS
from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import const_int
from crossfarm.ir.expr import Var
from crossfarm.ir.schedule.references import BlockRef, LoopRef

#: More rows than that are worth packing for.
MOST_ROWS = 8
#: Accumulators, or elements of the result that are held, at a time: half of the fewest registers that vectors have.
_HELD = 16
#: Places of memory to read at the same time: more than prefetchers follow gain nothing.
_MOST_STREAMS = 8


@dataclass(frozen=True)
class SkinnyMatmul:
    """Few rows times a matrix whose columns lie side by side: a part of the result that the first level cache holds is
    added to, some rows of the matrix at a time."""

    name: ClassVar[str] = "skinny_matmul"

    def match(self, site: Site) -> Fit | Refusal:
        found = _few_rows(site)
        if isinstance(found, str):
            return Refusal(found)
        if found.right.axes[-1] not in found.columns:
            return Refusal(f"columns of {found.right.buffer.name} do not lie side by side")
        shape = _Stream.of(site, found)
        if isinstance(shape, str):
            return Refusal(shape)
        blocks = (site.block, *(epilogue_of(site.func, site.block, site.open_blocks) if shape.whole else ()))
        rows = found.size(found.rows)
        return Fit(
            blocks,
            f"{rows} rows use each element of {found.right.buffer.name} {rows} times, so it is read in its order, "
            f"{shape.steps} rows of {shape.chunk} at a time",
        )

    def apply(self, site: Site, fit: Fit) -> None:
        found = _few_rows(site)
        assert isinstance(found, Contraction)
        shape = _Stream.of(site, found)
        assert isinstance(shape, _Stream)
        sch = site.schedule
        block = sch.get_block(site.block, func=site.function)
        last = fused_epilogue(sch, site.function, fit.blocks[1:])
        if last is None and shape.whole:
            last = sch.cache_write(block, 0, "global")
        loops = _loops_by_axis(site, found, block)
        column, step = loops.pop(found.right.axes[-1]), loops.pop(found.sums[0])
        rows = [loops.pop(a) for a in found.rows]
        others = list(loops.values())
        chunk, tile, vector, lane = sch.split(
            column, [None, shape.chunk // (shape.vectors * shape.lanes), shape.vectors, shape.lanes]
        )
        sch.reorder(*others, chunk, step, tile, *rows, vector, lane)
        if last is not None:
            sch.reverse_compute_at(last, chunk)
            sch.vectorize(sch.split(sch.get_loops(last)[-1], [None, shape.lanes])[1])
        init = sch.decompose_reduction(block, step)
        steps, inner = sch.split(step, [None, shape.steps])
        sch.reorder(steps, tile, inner)
        for loop in (inner, *rows, vector):
            sch.unroll(loop)
        sch.vectorize(lane)
        sch.vectorize(sch.get_loops(init)[-1])
        sch.parallel(sch.fuse(*others, chunk) if others else chunk)


@dataclass(frozen=True)
class DotProducts:
    """Few rows times a matrix whose rows are to be multiplied with: each vector lane sums every so many products, and
    the lanes are added up at the end."""

    name: ClassVar[str] = "dot_products"

    def match(self, site: Site) -> Fit | Refusal:
        found = _few_rows(site)
        if isinstance(found, str):
            return Refusal(found)
        if found.right.axes[-1] is not found.sums[0]:
            return Refusal(f"what is summed does not lie side by side in {found.right.buffer.name}")
        sums, lanes = found.size(found.sums), site.cpu.lanes(found.result.dtype)
        if sums is None or sums < 2 * lanes or sums % lanes:
            return Refusal(f"sums of {sums or 'a symbolic number of'} products are not dealt to {lanes} lanes")
        at_once = self._columns_at_once(found)
        return Fit(
            (site.block,),
            f"{found.right.buffer.name} is read in its order: {at_once} columns at a time, each dot product summed in "
            f"{lanes} lanes",
        )

    def apply(self, site: Site, fit: Fit) -> None:
        found = _few_rows(site)
        assert isinstance(found, Contraction)
        sch, lanes = site.schedule, site.cpu.lanes(found.result.dtype)
        block = sch.get_block(site.block, func=site.function)
        if found.left.axes[-1] is not found.sums[0]:
            self._turn_left(site, found, block)
        loops = _loops_by_axis(site, found, block)
        partial = sch.rfactor(sch.split(loops[found.sums[0]], [None, lanes])[1], len(found.out))
        lane_loops = list(sch.get_loops(partial))
        step, lane = (lane_loops.pop(list(loops).index(found.sums[0])) for _ in range(2))
        by_axis = dict(zip((axis for axis in loops if axis is not found.sums[0]), lane_loops))
        column = by_axis.pop(found.columns[-1])
        rows = [by_axis.pop(axis) for axis in found.rows]
        others = list(by_axis.values())
        chunk, column = sch.split(column, [None, self._columns_at_once(found)])
        sch.reorder(*others, chunk, step, *rows, column, lane)
        written = sch.cache_write(partial, 0, "global")
        for following in (written, block):
            sch.reverse_compute_at(following, chunk)
        init = sch.decompose_reduction(partial, step)
        for part in (init, partial, written):
            *_, lane = sch.get_loops(part)
            sch.vectorize(lane)
        cleared = sch.get_loops(init)
        for loop in (*rows, column, *cleared[cleared.index(chunk) + 1 : -1]):
            sch.unroll(loop)
        sch.parallel(sch.fuse(*others, chunk) if others else chunk)

    def _columns_at_once(self, found: Contraction) -> int:
        """As many as give enough sums under way, of which nothing is left over."""
        columns = const_int(found.extents[found.columns[-1]]) or 1
        wanted = max(_HELD // (found.size(found.rows) or 1), 1)
        return max(n for n in range(1, min(wanted, _MOST_STREAMS) + 1) if columns % n == 0)

    def _turn_left(self, site: Site, found: Contraction, block: BlockRef) -> None:
        """A copy of the small factor in which what is summed lies side by side."""
        position = found.left.axes.index(found.sums[0])
        copy = site.schedule.cache_read(block, found.left.read, "global")
        site.schedule.transform_layout(
            copy, ("write", 0), lambda *d: [*(x for i, x in enumerate(d) if i != position), d[position]]
        )


@dataclass(frozen=True)
class _Stream:
    """How SkinnyMatmul cuts its loops.

    Attributes:
        chunk: columns of the result that are held; vectors, lanes: of a tile in it; steps: rows of the matrix at a
            time.
        whole: whether chunks divide the columns.
    """

    chunk: int
    vectors: int
    lanes: int
    steps: int
    whole: bool

    @classmethod
    def of(cls, site: Site, found: Contraction) -> _Stream | str:
        rows = found.size(found.rows) or 1
        lanes = site.cpu.lanes(found.result.dtype)
        columns = const_int(found.extents[found.right.axes[-1]])
        if columns is not None and columns < lanes:
            return f"{columns} columns do not fill a vector of {lanes}"
        held = site.cpu.l1_bytes // 2 // (rows * dt.itemsize(found.result.dtype))
        if columns is not None:
            held = min(held, -(-columns // (site.cpu.threads or USUAL_THREADS)))
        vectors = 1 if rows == 1 else 2
        if columns is not None and columns % lanes == 0:
            units = columns // lanes
            best = max(n for n in range(1, units + 1) if units % n == 0 and (n * lanes <= held or n == 1))
            if best * lanes * 2 >= min(held, columns):
                vectors = max(v for v in range(1, vectors + 1) if best % v == 0)
                return cls(best * lanes, vectors, lanes, _MOST_STREAMS, whole=True)
        # conditions on the last chunk's lanes are copied with what they guard: that is kept small
        return cls(max(held // lanes, 1) * lanes, 1, lanes, 1, whole=False)


def _few_rows(site: Site) -> Contraction | str:
    """The contraction, turned so that few rows are on the left; or why it is none."""
    found = contraction_of(site.func, site.block)
    if isinstance(found, str):
        return found
    if len(found.sums) != 1:
        return "it sums over several axes, or none"
    if not found.columns or (found.size(found.columns) == 1 and found.rows):
        found = replace(found, left=found.right, right=found.left, rows=found.columns, columns=found.rows)
    rows = found.size(found.rows)
    if rows is None or rows > MOST_ROWS:
        return f"{'a symbolic number of' if rows is None else rows} rows are not few"
    if not found.columns:
        return "it has no columns"
    return found


def _loops_by_axis(site: Site, found: Contraction, block: BlockRef) -> dict[Var, LoopRef]:
    return dict(zip((axis.var for axis in found.block.iter_vars), loops_of_axes(site.schedule, block)))
