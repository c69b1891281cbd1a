"""The steps that rules for small windows share: rows of pixels as vectors, the window written out.

There is too little arithmetic for panels: a channel's padded image is made where it is used, small enough for the
nearest cache. Several rows of the result at a time share the rows of the data that they read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from compiler_service.schedules.base import Site
from compiler_service.schedules.cpu.conv_tiles import divisors
from crossfarm.ir.arith import const_int
from crossfarm.ir.expr import Var
from crossfarm.ir.schedule.references import LoopRef
from crossfarm.ir.schedule.tree import find_block
from crossfarm.ir.stmt import Block

#: Steps of a window and rows of pixels that are written out, at most.
MOST_STEPS = 64
_MOST_WRITTEN = 96
_MOST_LANES = 64


@dataclass(frozen=True)
class Windows:
    """A block whose windows slide over the pixels of each channel.

    Attributes:
        channels: axes along which nothing slides, from the batch to the channel.
        planes: axes along which the window slides, before the rows.
        rows: the axis of a plane's rows; None where there is none.
        columns: the axis of a row's pixels.
        sums: the window's axes, which are reduced.
    """

    block: Block
    channels: tuple[Var, ...]
    planes: tuple[Var, ...]
    rows: Var | None
    columns: Var
    sums: tuple[Var, ...]

    def extent(self, axis: Var) -> int | None:
        """The extent of an axis; None where that is symbolic."""
        return next(const_int(a.dom.extent) for a in self.block.iter_vars if a.var is axis)

    @property
    def steps(self) -> int | None:
        """Elements of the window; None where that is symbolic."""
        extents = [self.extent(axis) for axis in self.sums]
        return None if None in extents else math.prod(e or 0 for e in extents)

    def tile(self, site: Site) -> tuple[int, int]:
        """Rows of the result that are computed together, and pixels of a vector: a row where that is short."""
        wide = site.cpu.lanes(self.block.writes[0].buffer.dtype)
        width = self.extent(self.columns)
        longest = min(_MOST_LANES, 4 * wide)
        lanes = width if width is not None and width <= longest else longest
        if width is not None and width > longest:
            lanes = max((d for d in divisors(width) if 2 * wide <= d <= longest), default=longest)
        height = None if self.rows is None else self.extent(self.rows)
        registers = -(-lanes // wide)
        most = max(min(_MOST_WRITTEN // (self.steps or 1), site.cpu.vector_registers // (2 * registers)), 1)
        return (1 if height is None else max(d for d in divisors(height) if d <= most)), lanes


def slide(site: Site, windows: Windows, pads: tuple[str, ...], epilogue: tuple[str, ...]) -> list[LoopRef]:
    """Tiles of rows of pixels, each with its window; the loops over channels, outermost, are left to be shared.

    Args:
        pads: blocks that make the data for this block alone, which is done channel by channel then.
        epilogue: blocks that map the result, which is done tile by tile then.
    """
    sch, func = site.schedule, site.function
    rows, lanes = windows.tile(site)
    block = sch.get_block(site.block, func=func)
    for name in epilogue[:-1]:
        sch.compute_inline(sch.get_block(name, func=func))
    last = sch.get_block(epilogue[-1], func=func) if epilogue else sch.cache_write(block, 0, "global")
    order = [axis.var for axis in windows.block.iter_vars]
    values = find_block(site.func, site.block).iter_values
    by_var = {ref.var: ref for ref in sch.get_loops(block)}
    loops = {axis: by_var[value] for axis, value in zip(order, values) if isinstance(value, Var)}
    tiles, row, vectors = [loops[axis] for axis in windows.planes], [], []
    if windows.rows is not None:
        outer, inner = sch.split(loops[windows.rows], [None, rows])
        tiles, row = [*tiles, outer], [inner]
    pixels = loops[windows.columns]
    if windows.extent(windows.columns) != lanes:
        outer, pixels = sch.split(pixels, [None, lanes])
        vectors = [outer]
    channels = [loops[axis] for axis in windows.channels]
    steps = [loops[axis] for axis in windows.sums]
    sch.reorder(*channels, *tiles, *vectors, *steps, *row, pixels)
    for pad in pads:
        sch.compute_at(sch.get_block(pad, func=func), channels[-1])
    sch.reverse_compute_at(last, (*channels, *tiles, *vectors)[-1])
    sch.vectorize(sch.get_loops(last)[-1])
    for loop in row:
        sch.unroll(loop)
    sch.vectorize(pixels)
    sch.decompose_reduction(block, steps[0])
    for loop in steps:
        sch.unroll(loop)
    return channels
