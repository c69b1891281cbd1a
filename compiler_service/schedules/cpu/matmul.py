"""Matmul in all its layouts, batched or not: packed panels, register tiles, blocks for the caches.

The result is cut into tiles whose accumulators stay in registers over the whole sum. Both factors are copied into
panels first: for each tile's rows (or columns) the elements that one step of the sum needs lie side by side, padded
with zeros to whole tiles, so that the kernel reads memory in order and has no conditions. What is done with each
element of the result afterwards (bias, activation) is done to the tile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from compiler_service.schedules.base import Fit, Refusal, Site
from compiler_service.schedules.contraction import Contraction, Operand, contraction_of, loops_of_axes
from compiler_service.schedules.cpu.tiles import Tile, best_tile
from compiler_service.schedules.epilogue import epilogue_of, fused_epilogue
from compiler_service.schedules.machines import USUAL_THREADS
from crossfarm.errors import BuildFailed
from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import const_int
from crossfarm.ir.expr import Var
from crossfarm.ir.schedule.references import BlockRef, LoopRef
from crossfarm.ir.schedule.schedule import Schedule
from crossfarm.ir.te.value import Value

#: Products below which copying the factors costs more than the panels give.
FEWEST_PRODUCTS = 16**3
FEWEST_ROWS = 4
#: Parallel chunks for each thread, so that the last ones to finish have little left to wait for.
_CHUNKS_PER_THREAD = 4


@dataclass(frozen=True)
class Matmul:
    """Packed matmul.

    Args:
        rows, vectors: the register tile; None for the best.
    """

    name: ClassVar[str] = "matmul"
    rows: int | None = None
    vectors: int | None = None

    def match(self, site: Site) -> Fit | Refusal:
        found = contraction_of(site.func, site.block)
        if isinstance(found, str):
            return Refusal(found)
        plan = Plan.of(found)
        if isinstance(plan, str):
            return Refusal(plan)
        rows, columns, sums = (const_int(found.extents[a]) for a in (plan.row, plan.column, plan.sum))
        if rows is not None and rows < FEWEST_ROWS:
            return Refusal(f"{rows} rows are too few for tiles")
        if None not in (rows, columns, sums) and (rows or 0) * (columns or 0) * (sums or 0) < FEWEST_PRODUCTS:
            return Refusal(f"{rows} x {columns} x {sums} products are too few to pack the factors for")
        tile = self._tile(site, found, plan)
        taken = (site.block, *epilogue_of(site.func, site.block, site.open_blocks))
        along = f", with {', '.join(taken[1:])} on each tile" if taken[1:] else ""
        reason = (
            f"a sum of products of {found.left.buffer.name} and {found.right.buffer.name}: tiles of {tile.rows} rows "
            f"by {tile.vectors} vectors of {tile.lanes} {found.result.dtype} use {tile.registers} of "
            f"{site.cpu.vector_registers} registers{along}"
        )
        return Fit(taken, reason)

    def apply(self, site: Site, fit: Fit) -> None:
        found = contraction_of(site.func, site.block)
        assert isinstance(found, Contraction)
        plan = Plan.of(found)
        assert isinstance(plan, Plan)
        PackedMatmul(site, fit, found, plan, self._tile(site, found, plan)).run()

    def _tile(self, site: Site, found: Contraction, plan: Plan) -> Tile:
        dtype = found.result.dtype
        best = best_tile(site.cpu, dtype, const_int(found.extents[plan.row]), const_int(found.extents[plan.column]))
        tile = Tile(self.rows or best.rows, self.vectors or best.vectors, best.lanes)
        if tile.registers > site.cpu.vector_registers:
            raise BuildFailed(
                f"rule {self.name!r}: a tile of {tile.rows} rows by {tile.vectors} vectors needs {tile.registers} "
                f"registers; {site.target.label} has {site.cpu.vector_registers}",
                hint=f"{best.rows} rows by {best.vectors} vectors is the best that fits",
            )
        return tile


@dataclass(frozen=True)
class Plan:
    """Which axes are tiled; all others but the sums are run one by one."""

    row: Var
    column: Var
    sum: Var

    @classmethod
    def of(cls, found: Contraction) -> Plan | str:
        """The plan, or why there is none."""
        if not found.rows or not found.columns or not found.sums:
            return "a factor has no axis of its own, or nothing is summed"
        if len(found.sums) > 1:
            return "it sums over several axes"
        if not dt.is_float(found.result.dtype) and not dt.is_int(found.result.dtype):
            return f"sums of {found.result.dtype} are not vectors"
        column = max(found.columns, key=lambda a: (found.out[-1] is a, const_int(found.extents[a]) or 1 << 30))
        row = max(found.rows, key=lambda a: const_int(found.extents[a]) or 1 << 30)
        return cls(row, column, found.sums[0])


class PackedMatmul:
    """One matmul on its way through the schedule.

    Attributes:
        step: products of one element that the kernel adds at once.
    """

    step: ClassVar[int] = 1

    def __init__(self, site: Site, fit: Fit, found: Contraction, plan: Plan, tile: Tile) -> None:
        self.sch: Schedule = site.schedule
        self.site, self.fit, self.found, self.plan, self.tile = site, fit, found, plan, tile

    def run(self) -> None:
        sch, tile = self.sch, self.tile
        block = sch.get_block(self.site.block, func=self.site.function)
        last = fused_epilogue(sch, self.site.function, self.fit.blocks[1:])
        left, right, result = self._pad(block)
        self._pack(block, self.found.left, left, self.plan.row, tile.rows)
        self._pack(block, self.found.right, right, self.plan.column, tile.columns)
        if last is not None and result is not None:
            sch.reverse_compute_inline(last)
            last = result
        last = last or result or sch.cache_write(block, 0, "global")
        tiles, step = self._tile_loops(block)
        sch.reverse_compute_at(last, tiles[-1])
        sch.vectorize(sch.split(sch.get_loops(last)[-1], [None, tile.lanes])[1])
        self._in_registers(sch.decompose_reduction(block, step))
        self._kernel(block)
        self._block_for_caches(tiles)

    def _kernel(self, block: BlockRef) -> None:
        """One step of the sum for a whole tile."""
        self._in_registers(block)

    def _in_registers(self, block: BlockRef) -> None:
        rows, vectors, lanes = self.sch.get_loops(block)[-3:]
        self.sch.unroll(rows)
        self.sch.unroll(vectors)
        self.sch.vectorize(lanes)

    def _pad(self, block: BlockRef) -> tuple[BlockRef | None, BlockRef | None, BlockRef | None]:
        """Axes become multiples of the tile; the blocks that copy the factors and the result for that, if any."""
        wanted = {self.plan.row: self.tile.rows, self.plan.column: self.tile.columns, self.plan.sum: self.step}
        padding = [wanted.get(axis.var, 1) for axis in self.found.block.iter_vars]
        extents = [const_int(axis.dom.extent) for axis in self.found.block.iter_vars]
        if all(e is not None and e % p == 0 for e, p in zip(extents, padding)):
            return None, None, None
        self.sch.pad_einsum(block, padding)
        producers = self.sch.get_producers(block)
        consumers = self.sch.get_consumers(block)
        left, right = (
            next((p for p in producers if p.name.startswith(f"{operand.buffer.name}_pad")), None)
            for operand in (self.found.left, self.found.right)
        )
        return left, right, consumers[0] if consumers else None

    def _pack(self, block: BlockRef, operand: Operand, copy: BlockRef | None, axis: Var, size: int) -> None:
        """The factor as panels: batch axes, panel, step of the sum, element of the panel."""
        if copy is None and self._is_read_in_place(operand, axis):
            return
        if copy is None:
            copy = self.sch.cache_read(block, operand.read, "global")
        position, step = operand.axes.index(axis), operand.axes.index(self.plan.sum)

        def panels(*dims: Value) -> list[Value]:
            rest = [d for i, d in enumerate(dims) if i not in (position, step)]
            return [*rest, dims[position] // size, dims[step], dims[position] % size]

        self.sch.transform_layout(copy, ("write", 0), panels)
        loops = list(self.sch.get_loops(copy))
        panel, element = self.sch.split(loops[position], [None, size])
        rest = [loop for i, loop in enumerate(loops) if i not in (position, step)]
        self.sch.reorder(*rest, panel, loops[step], element)
        self.sch.parallel(self.sch.fuse(*rest, panel) if rest else panel)

    def _is_read_in_place(self, operand: Operand, axis: Var) -> bool:
        """True where the second level cache holds the factor and the kernel's loads of it are vectors already, or of
        one element for all lanes: panels would only cost their copies."""
        if self.step > 1 or (operand is self.found.right and operand.axes[-1] is not axis):
            return False
        sizes = [const_int(self.found.extents[a]) for a in (axis, self.plan.sum)]
        bytes_ = dt.itemsize(operand.buffer.dtype) * (sizes[0] or 0) * (sizes[1] or 0)
        return 0 < bytes_ <= self.site.cpu.l2_bytes

    def _tile_loops(self, block: BlockRef) -> tuple[list[LoopRef], LoopRef]:
        """Loops of tiles outside (those of other axes, of rows, of columns), a step of the sum inside; both."""
        sch, tile = self.sch, self.tile
        loops = dict(zip((axis.var for axis in self.found.block.iter_vars), loops_of_axes(sch, block)))
        row, column, step = (loops.pop(a) for a in (self.plan.row, self.plan.column, self.plan.sum))
        row_tiles, in_row = sch.split(row, [None, tile.rows])
        column_tiles, vector, lane = sch.split(column, [None, tile.vectors, tile.lanes])
        others = list(loops.values())
        sch.reorder(*others, row_tiles, column_tiles, step, in_row, vector, lane)
        return [*others, row_tiles, column_tiles], step

    def _block_for_caches(self, tiles: list[LoopRef]) -> None:
        """Blocks of rows in parallel; all columns pass by a block's panels while these stay in the cache."""
        *others, rows, columns = tiles
        blocks, row = self.sch.split(rows, [None, self._tiles_per_block()])
        self.sch.reorder(blocks, columns, row)
        self.sch.parallel(self.sch.fuse(*others, blocks) if others else blocks)

    def _tiles_per_block(self) -> int:
        """Row tiles whose panels stay in half the second level cache while the columns pass by."""
        extents, size = self.found.extents, dt.itemsize(self.found.left.buffer.dtype)
        sums, rows = const_int(extents[self.plan.sum]) or 512, const_int(extents[self.plan.row])
        fitting = max(self.site.cpu.l2_bytes // 2 // (sums * self.tile.rows * size), 1)
        if rows is None:
            return min(fitting, 4)
        tiles = -(-rows // self.tile.rows)
        threads = self.site.cpu.threads or USUAL_THREADS
        return max(min(fitting, tiles // (_CHUNKS_PER_THREAD * threads)), 1)
