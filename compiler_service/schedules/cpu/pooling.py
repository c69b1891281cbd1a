"""Rule for pooling: the largest, the sum or another reduction of each small window that slides over a channel.

Windows that reach over a whole row leave nothing to put side by side: those are reductions like any other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from compiler_service.schedules.base import Fit, Refusal, Site
from compiler_service.schedules.cpu.sliding import MOST_STEPS, Windows, slide
from compiler_service.schedules.cpu.vectors import parallelize
from compiler_service.schedules.epilogue import epilogue_of
from compiler_service.schedules.nests import Nest, nest_of
from compiler_service.schedules.padding import private_padding
from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import const_int
from crossfarm.ir.expr import Var
from crossfarm.ir.regions import key
from crossfarm.ir.visitor import walk


@dataclass(frozen=True)
class Pooling:
    """Windows by rows of pixels."""

    name: ClassVar[str] = "pooling"

    def match(self, site: Site) -> Fit | Refusal:
        nest = nest_of(site.func, site.block)
        if isinstance(nest, str):
            return Refusal(nest)
        windows = _windows(nest)
        if isinstance(windows, str):
            return Refusal(windows)
        rows, lanes = windows.tile(site)
        epilogue = epilogue_of(site.func, site.block, site.open_blocks)
        pads = private_padding(site, nest.loads[0].buffer)
        along = f", with {', '.join(epilogue)} on each tile" if epilogue else ""
        reason = f"windows of {windows.steps} elements: {rows} rows of {lanes} pixels at a time{along}"
        return Fit((site.block, *epilogue, *pads), reason)

    def apply(self, site: Site, fit: Fit) -> None:
        nest = nest_of(site.func, site.block)
        assert isinstance(nest, Nest), nest
        windows = _windows(nest)
        assert isinstance(windows, Windows), windows
        pads = private_padding(site, nest.loads[0].buffer)
        channels = slide(site, windows, pads, epilogue_of(site.func, site.block, site.open_blocks))
        extents = tuple(axis.dom.extent for axis in nest.spatial if axis.var in windows.channels)
        each = math.prod(windows.extent(axis) or 1 for axis in (*windows.planes, windows.columns, *windows.sums))
        rows = 1 if windows.rows is None else windows.extent(windows.rows) or 1
        parallelize(site.schedule, site.cpu, tuple(channels), extents, each * rows * nest.work)


def _windows(nest: Nest) -> Windows | str:
    """The parts of the block's axes, or why these are no windows."""
    if not nest.reduced or nest.block.init is None:
        return "it does not reduce"
    if len(nest.stores) != 1 or len({(load.buffer, key(load.indices)) for load in nest.loads}) != 1:
        return "it does not reduce elements of one tensor to one value each"
    spatial, reduced = [a.var for a in nest.spatial], {a.var for a in nest.reduced}
    if list(nest.stores[0].indices) != spatial:
        return "its spatial axes are not the dimensions of its result, in order"
    if not dt.is_float(nest.dtype) and not dt.is_int(nest.dtype):
        return f"values of {nest.dtype} are not vectors"
    used = [{n for n in walk(index) if isinstance(n, Var)} for index in nest.loads[0].indices]
    sliding = [axis for axis in spatial if any(axis in axes and axes & reduced for axes in used)]
    count = len(sliding)
    if not sliding or spatial[-count:] != sliding:
        return "no window slides over the last axes of what it reads"
    if count == len(spatial):
        return "it has no channels to share among threads"
    if nest.loads[0].step(sliding[-1]) is None:
        return "its pixels do not follow one another"
    sizes = [const_int(a.dom.extent) for a in nest.block.iter_vars if a.var in reduced or a.var in sliding]
    if None in sizes:
        return "its pixels or its window are of symbolic number"
    rows = sliding[-2] if count > 1 else None
    found = Windows(
        nest.block, tuple(spatial[:-count]), tuple(sliding[:-2]), rows, sliding[-1], tuple(a.var for a in nest.reduced)
    )
    if found.steps is None or found.steps > MOST_STEPS:
        return f"its window is larger than {MOST_STEPS}"
    if found.extent(found.columns) == 1:
        return "a row is one pixel"
    return found
