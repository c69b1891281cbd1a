"""Matmul of 8-bit integers with 32-bit sums: the packed matmul, whose kernel adds four products at once.

The panels of both factors hold four steps of the sum side by side for each row and column, so that the kernel is a
``dot4`` of four bytes, repeated, and a vector of the other factor. That is one instruction where the target has one
(VNNI, aarch64's dot product), and exact everywhere: sums are padded with zeros to whole steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from compiler_service.codegen.llvm_dot import DotProducts
from compiler_service.schedules.base import Fit, Refusal, Site
from compiler_service.schedules.contraction import Contraction, Operand, contraction_of, loops_of_axes
from compiler_service.schedules.cpu.matmul import FEWEST_PRODUCTS, FEWEST_ROWS, PackedMatmul, Plan
from compiler_service.schedules.cpu.tiles import Tile, best_tile
from compiler_service.schedules.epilogue import epilogue_of
from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import const_int
from crossfarm.ir.expr import Var
from crossfarm.ir.schedule.dot_products import dot_name
from crossfarm.ir.schedule.intrinsics import names
from crossfarm.ir.schedule.references import BlockRef, LoopRef
from crossfarm.ir.te.value import Value

_FACTORS = ("int8", "uint8")
#: Registers besides those of the tile: for changing signs, and for products composed of others.
_FOR_SIGNS, _FOR_PAIRS = 4, 6


@dataclass(frozen=True)
class MatmulInt8:
    """Packed matmul of 8-bit integers."""

    name: ClassVar[str] = "matmul_int8"

    def match(self, site: Site) -> Fit | Refusal:
        found = contraction_of(site.func, site.block)
        if isinstance(found, str):
            return Refusal(found)
        dtypes = (found.left.buffer.dtype, found.right.buffer.dtype)
        if found.result.dtype != "int32" or not set(dtypes) <= set(_FACTORS):
            return Refusal(f"it is {dtypes[0]} by {dtypes[1]} in {found.result.dtype}, not 8-bit integers in int32")
        plan = Plan.of(found)
        if isinstance(plan, str):
            return Refusal(plan)
        rows, columns, sums = (const_int(found.extents[a]) for a in (plan.row, plan.column, plan.sum))
        if rows is not None and rows < FEWEST_ROWS:
            return Refusal(f"{rows} rows are too few for tiles")
        if None not in (rows, columns, sums) and (rows or 0) * (columns or 0) * (sums or 0) < FEWEST_PRODUCTS:
            return Refusal(f"{rows} x {columns} x {sums} products are too few to pack the factors for")
        tile, how = _tile(site, found, plan)
        if dot_name(tile.lanes, *dtypes) not in names():
            return Refusal(f"there is no dot product of {tile.lanes} sums")
        taken = (site.block, *epilogue_of(site.func, site.block, site.open_blocks))
        along = f", with {', '.join(taken[1:])} on each tile" if taken[1:] else ""
        reason = (
            f"a sum of products of {dtypes[0]} {found.left.buffer.name} and {dtypes[1]} {found.right.buffer.name}: "
            f"four products at once {how}, in tiles of {tile.rows} rows by {tile.vectors} vectors of {tile.lanes} "
            f"sums{along}"
        )
        return Fit(taken, reason)

    def apply(self, site: Site, fit: Fit) -> None:
        found = contraction_of(site.func, site.block)
        assert isinstance(found, Contraction)
        plan = Plan.of(found)
        assert isinstance(plan, Plan)
        _PackedBytes(site, fit, found, plan, _tile(site, found, plan)[0]).run()


def _tile(site: Site, found: Contraction, plan: Plan) -> tuple[Tile, str]:
    """The register tile, and how the target multiplies, in words."""
    cpu = site.cpu
    signs = dt.is_signed(found.left.buffer.dtype), dt.is_signed(found.right.buffer.dtype)
    lanes = cpu.lanes("int32")
    instructions = {one.signs for one in DotProducts.of(cpu.arch, cpu.features).instructions if one.lanes == lanes}
    if not instructions:
        spare, how = _FOR_PAIRS, "in pairs of 16-bit products"
    elif signs in instructions or signs[::-1] in instructions:
        spare, how = 0, "by one instruction"
    else:
        spare, how = _FOR_SIGNS, "by one instruction for other signs, and what that adds taken off"
    rows, columns = const_int(found.extents[plan.row]), const_int(found.extents[plan.column])
    return best_tile(replace(cpu, vector_registers=cpu.vector_registers - spare), "int32", rows, columns), how


class _PackedBytes(PackedMatmul):
    """One matmul of 8-bit integers on its way through the schedule."""

    step: ClassVar[int] = 4

    def _pack(self, block: BlockRef, operand: Operand, copy: BlockRef | None, axis: Var, size: int) -> None:
        """The factor as panels: batch axes, panel, step of the sum, element of the panel with its four bytes."""
        sch, step = self.sch, self.step
        if copy is None:
            copy = sch.cache_read(block, operand.read, "global")
        position, along = operand.axes.index(axis), operand.axes.index(self.plan.sum)

        def panels(*dims: Value) -> list[Value]:
            rest = [d for i, d in enumerate(dims) if i not in (position, along)]
            return [
                *rest,
                dims[position] // size,
                dims[along] // step,
                dims[position] % size * step + dims[along] % step,
            ]

        sch.transform_layout(copy, ("write", 0), panels)
        loops = list(sch.get_loops(copy))
        panel, element = sch.split(loops[position], [None, size])
        steps, byte = sch.split(loops[along], [None, step])
        rest = [loop for i, loop in enumerate(loops) if i not in (position, along)]
        sch.reorder(*rest, panel, steps, element, byte)
        # bytes that lie side by side in the factor too move as a word
        (sch.vectorize if operand.axes[-1] is self.plan.sum else sch.unroll)(byte)
        sch.parallel(sch.fuse(*rest, panel) if rest else panel)

    def _tile_loops(self, block: BlockRef) -> tuple[list[LoopRef], LoopRef]:
        sch, tile = self.sch, self.tile
        loops = dict(zip((axis.var for axis in self.found.block.iter_vars), loops_of_axes(sch, block)))
        row, column, total = (loops.pop(a) for a in (self.plan.row, self.plan.column, self.plan.sum))
        row_tiles, in_row = sch.split(row, [None, tile.rows])
        column_tiles, vector, lane = sch.split(column, [None, tile.vectors, tile.lanes])
        step, byte = sch.split(total, [None, self.step])
        others = list(loops.values())
        sch.reorder(*others, row_tiles, column_tiles, step, in_row, vector, lane, byte)
        return [*others, row_tiles, column_tiles], step

    def _kernel(self, block: BlockRef) -> None:
        sch = self.sch
        rows, vectors, lanes, _ = sch.get_loops(block)[-4:]
        sch.unroll(rows)
        sch.unroll(vectors)
        left, right = self.found.left.buffer.dtype, self.found.right.buffer.dtype
        sch.tensorize(lanes, dot_name(self.tile.lanes, left, right))
