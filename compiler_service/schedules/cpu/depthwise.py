"""Depthwise convolutions: one small filter a channel.

There is too little arithmetic for panels: a channel's padded image is made where it is used, small enough for the
nearest cache, and rows of pixels are vectors, with the window written out. Several rows of the result at a time share
the rows of the data that they read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from compiler_service.schedules.base import Fit, Refusal, Site
from compiler_service.schedules.convolution import Convolution, convolution_of
from compiler_service.schedules.cpu.conv_tiles import divisors
from compiler_service.schedules.epilogue import epilogue_of
from compiler_service.schedules.padding import padding_before
from crossfarm.ir import dtype as dt
from crossfarm.ir.expr import Var
from crossfarm.ir.schedule.dependencies import consumers
from crossfarm.ir.schedule.references import LoopRef
from crossfarm.ir.schedule.tree import find_block

#: Steps of a window and rows of pixels that are written out, at most.
_MOST_STEPS = 64
_MOST_WRITTEN = 96
_MOST_LANES = 64


@dataclass(frozen=True)
class Depthwise:
    """Depthwise convolution by rows of pixels."""

    name: ClassVar[str] = "depthwise"

    def match(self, site: Site) -> Fit | Refusal:
        found = convolution_of(find_block(site.func, site.block).block)
        if isinstance(found, str):
            return Refusal(found)
        if found.group != 1:
            return Refusal("several filters see one channel, or one filter several")
        if not dt.is_float(found.result.dtype) and not dt.is_int(found.result.dtype):
            return Refusal(f"sums of {found.result.dtype} are not vectors")
        steps = [found.extent(axis) for axis in found.sums]
        if None in steps or math.prod(s or 0 for s in steps) > _MOST_STEPS:
            return Refusal(f"its window is of symbolic size, or larger than {_MOST_STEPS}")
        epilogue = epilogue_of(site.func, site.block, site.open_blocks)
        rows, lanes = _tile(site, found)
        along = f", with {', '.join(epilogue)} on each tile" if epilogue else ""
        reason = f"one filter a channel: {rows} rows of {lanes} pixels at a time{along}"
        return Fit((site.block, *epilogue, *padding_before(site, found.data.buffer)), reason)

    def apply(self, site: Site, fit: Fit) -> None:
        sch, func = site.schedule, site.function
        found = convolution_of(find_block(site.func, site.block).block)
        assert isinstance(found, Convolution)
        rows, lanes = _tile(site, found)
        conv = sch.get_block(site.block, func=func)
        names = epilogue_of(site.func, site.block, site.open_blocks)
        pads = [sch.get_block(pad, func=func) for pad in padding_before(site, found.data.buffer)]
        for name in names[:-1]:
            sch.compute_inline(sch.get_block(name, func=func))
        last = sch.get_block(names[-1], func=func) if names else sch.cache_write(conv, 0, "global")
        loops = dict(zip((axis.var for axis in found.block.iter_vars), sch.get_loops(conv)))
        tiles, row, vectors, pixels = self._tiles(site, found, loops, rows, lanes)
        channels = [*(loops[axis] for axis in found.outer), loops[found.channel]]
        steps = [loops[axis] for axis in found.sums]
        sch.reorder(*channels, *tiles, *vectors, *steps, *row, pixels)
        for pad in pads:
            if consumers(site.func, find_block(site.func, pad.name)) == (find_block(site.func, site.block),):
                sch.compute_at(pad, channels[-1])
        sch.reverse_compute_at(last, (*channels, *tiles, *vectors)[-1])
        sch.vectorize(sch.get_loops(last)[-1])
        for loop in row:
            sch.unroll(loop)
        sch.vectorize(pixels)
        sch.decompose_reduction(conv, steps[0])
        for loop in steps:
            sch.unroll(loop)
        sch.parallel(sch.fuse(*channels) if len(channels) > 1 else channels[0])

    def _tiles(
        self, site: Site, found: Convolution, loops: dict[Var, LoopRef], rows: int, lanes: int
    ) -> tuple[list[LoopRef], list[LoopRef], list[LoopRef], LoopRef]:
        """Loops of tiles of rows, of a tile's rows, of vectors in a row, and of a vector's pixels."""
        sch, tiles, row, vectors = site.schedule, [], [], []
        if found.rows is not None:
            outer, inner = sch.split(loops[found.rows], [None, rows])
            tiles, row = [outer], [inner]
        pixels = loops[found.columns]
        if found.extent(found.columns) != lanes:
            outer, pixels = sch.split(pixels, [None, lanes])
            vectors = [outer]
        return tiles, row, vectors, pixels


def _tile(site: Site, found: Convolution) -> tuple[int, int]:
    """Rows of the result that are computed together, and pixels of a vector: a row where that is short."""
    wide = site.cpu.lanes(found.result.dtype)
    width = found.extent(found.columns)
    longest = min(_MOST_LANES, 4 * wide)
    lanes = width if width is not None and width <= longest else longest
    if width is not None and width > longest:
        lanes = max((d for d in divisors(width) if 2 * wide <= d <= longest), default=longest)
    height = None if found.rows is None else found.extent(found.rows)
    steps = math.prod(found.extent(axis) or 1 for axis in found.sums)
    registers = -(-lanes // wide)
    most = max(min(_MOST_WRITTEN // steps, site.cpu.vector_registers // (2 * registers)), 1)
    return (1 if height is None else max(d for d in divisors(height) if d <= most)), lanes
