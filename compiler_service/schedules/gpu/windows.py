"""Rule for small windows that slide: depthwise convolutions and pooling.

There is too little arithmetic to share loads: a thread computes a few results under one another, which have rows of
the data in common, with the window written out; padding is computed as it is loaded, and what follows element by
element is done in the same pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from compiler_service.schedules.base import Fit, Refusal, Site
from compiler_service.schedules.epilogue import epilogue_of, fused_epilogue
from compiler_service.schedules.gpu.groups import bind_flat, fused, product_of, usual_group
from compiler_service.schedules.nests import Nest, nest_of
from compiler_service.schedules.padding import private_padding
from crossfarm.ir.arith import const_int
from crossfarm.ir.expr import Var
from crossfarm.ir.visitor import walk

#: Steps of a window, and of those of all results of a thread, that are written out.
_MOST_STEPS, _MOST_WRITTEN = 64, 96
#: Results under one another.
_MOST_ROWS = 4


@dataclass(frozen=True)
class Windows:
    """A thread for a few results."""

    name: ClassVar[str] = "windows"

    def match(self, site: Site) -> Fit | Refusal:
        nest = nest_of(site.func, site.block)
        if isinstance(nest, str):
            return Refusal(nest)
        if not nest.reduced or nest.block.init is None or not nest.spatial:
            return Refusal("it does not reduce to several results")
        steps = product_of([a.dom.extent for a in nest.reduced])
        if steps is None or steps > _MOST_STEPS:
            return Refusal(f"it has a symbolic number of steps, or more than {_MOST_STEPS}")
        if not _slides(nest):
            return Refusal("no window slides over what it reads")
        epilogue = epilogue_of(site.func, site.block, site.open_blocks)
        rows = _rows(site, nest)
        along = f", with {', '.join(epilogue)}" if epilogue else ""
        pads = tuple(p for load in nest.loads for p in private_padding(site, load.buffer))
        who = f"{rows} results under one another" if rows > 1 else "each result"
        return Fit(
            (site.block, *epilogue, *dict.fromkeys(pads)), f"windows of {steps} elements: a thread for {who}{along}"
        )

    def apply(self, site: Site, fit: Fit) -> None:
        sch, func = site.schedule, site.function
        nest = nest_of(site.func, site.block)
        assert isinstance(nest, Nest), nest
        names = epilogue_of(site.func, site.block, site.open_blocks)
        block = sch.get_block(site.block, func=func)
        for pad in fit.blocks[1 + len(names) :]:
            sch.compute_inline(sch.get_block(pad, func=func))
        last = fused_epilogue(sch, func, names)
        if last is None:
            for number in range(len(nest.block.writes)):
                last = sch.cache_write(block, number, "local")
        else:
            sch.set_scope(block, 0, "local")
        writers = sch.get_consumers(block)
        by_var = {ref.var: ref for ref in sch.get_loops(block)}
        pairs = list(zip(nest.block.iter_vars, (by_var[loop.var] for loop in nest.loops)))
        spatial = [loop for axis, loop in pairs if axis.kind == "spatial"]
        steps = [loop for axis, loop in pairs if axis.kind != "spatial"]
        rows, count = _rows(site, nest), product_of([a.dom.extent for a in nest.spatial])
        inner = []
        if rows > 1:
            spatial[-2], row = sch.split(spatial[-2], [None, rows])
            inner = [row]
        sch.reorder(*spatial, *steps, *inner)
        for writer in writers:
            sch.reverse_compute_at(writer, spatial[-1])
        sch.decompose_reduction(block, steps[0])
        for loop in (*steps, *inner):
            sch.unroll(loop)
        threads = None if count is None else count // rows
        bind_flat(sch, fused(sch, spatial), threads, usual_group(site.gpu, threads))


def _slides(nest: Nest) -> bool:
    """Whether a spatial and a reduced axis are added up in an index."""
    spatial, reduced = ({a.var for a in axes} for axes in (nest.spatial, nest.reduced))
    for load in nest.loads:
        for index in load.indices:
            used = {n for n in walk(index) if isinstance(n, Var)}
            if used & spatial and used & reduced:
                return True
    return False


def _rows(site: Site, nest: Nest) -> int:
    """Results under one another for each thread: as many as divide them, where there are enough for all threads."""
    steps = product_of([a.dom.extent for a in nest.reduced]) or 1
    height = const_int(nest.spatial[-2].dom.extent) if len(nest.spatial) > 1 else None
    count = product_of([a.dom.extent for a in nest.spatial])
    rows = _MOST_ROWS
    while rows > 1 and (
        height is None
        or height % rows
        or rows * steps > _MOST_WRITTEN
        or (count or 0) < rows * site.gpu.units * site.gpu.warp * 8
    ):
        rows //= 2
    return rows
