"""Rules for what no other fits: a thread for each result, or for each iteration of outer loops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from compiler_service.schedules.base import Fit, Refusal, Site
from compiler_service.schedules.gpu.groups import (
    bind_flat,
    fused,
    keep_results,
    loops_in_order,
    product_of,
    usual_group,
)
from compiler_service.schedules.nests import Nest, nest_of
from crossfarm.errors import ScheduleError
from crossfarm.ir.arith import const_int
from crossfarm.ir.schedule.schedule import Schedule
from crossfarm.ir.schedule.tree import find_loop

#: Neighbouring results of one thread on a CPU: whole vectors.
_TOGETHER = (32, 16, 8)


@dataclass(frozen=True)
class PerResult:
    """Reductions of any kind, one thread for each result, which it keeps in registers."""

    name: ClassVar[str] = "per_result"

    def match(self, site: Site) -> Fit | Refusal:
        nest = nest_of(site.func, site.block)
        if isinstance(nest, str):
            return Refusal(nest)
        if not nest.reduced or nest.block.init is None:
            return Refusal("it does not reduce")
        if not nest.spatial:
            return Refusal("it has one result")
        together = _together(site, nest)
        who = f"{together} results that follow one another" if together > 1 else "each result"
        return Fit((nest.name,), f"a reduction of any kind: a thread for {who}")

    def apply(self, site: Site, fit: Fit) -> None:
        sch = site.schedule
        nest = nest_of(site.func, fit.blocks[0])
        assert isinstance(nest, Nest), nest
        together = _together(site, nest)
        spatial, reduced = loops_in_order(sch, nest)
        if together > 1:
            spatial[-1], inner = sch.split(spatial[-1], [None, together])
            sch.reorder(*reduced, inner)
        keep_results(sch, sch.get_block(nest.name, site.function), spatial[-1], reduced[0])
        results = product_of([a.dom.extent for a in nest.spatial])
        count = None if results is None else results // together
        bind_flat(sch, fused(sch, spatial), count, usual_group(site.gpu, count))


@dataclass(frozen=True)
class Fallback:
    """A thread for each iteration of as many outer loops as are independent; the rest as it is written."""

    name: ClassVar[str] = "fallback"

    def match(self, site: Site) -> Fit | Refusal:
        count = _independent(site)
        if not count:
            return Refusal("iterations of its outermost loop are not known to be independent: one thread runs it")
        return Fit((site.block,), f"loops as written, a thread for each iteration of the outermost {count}")

    def apply(self, site: Site, fit: Fit) -> None:
        _bind_outer(site.schedule, site, _independent(site))


def _together(site: Site, nest: Nest) -> int:
    """Results of one thread: several where one core runs a group thread after thread, and they are read in a row."""
    last = nest.spatial[-1]
    length = const_int(last.dom.extent)
    if not site.gpu.is_cpu or length is None or 1 not in [load.step(last.var) for load in nest.loads]:
        return 1
    return max(n for n in (*_TOGETHER, 1) if length % n == 0)


def _independent(site: Site) -> int:
    """How many outer loops of the block, fused, may run at once: not those over steps of a reduction, which bound to
    threads would be shared by them."""
    for count in range(len(site.schedule.get_loops(site.schedule.get_block(site.block, site.function))), 0, -1):
        sch = site.schedule.copy()
        try:
            sch.parallel(fused(sch, sch.get_loops(sch.get_block(site.block, site.function))[:count]))
            _bind_outer(site.schedule.copy(), site, count)
        except ScheduleError:
            continue
        return count
    return 0


def _bind_outer(sch: Schedule, site: Site, count: int) -> None:
    loops = sch.get_loops(sch.get_block(site.block, site.function))[:count]
    func = sch.module.prim_func(site.function)
    total = product_of([find_loop(func, loop.var).extent for loop in loops])
    bind_flat(sch, fused(sch, loops), total, usual_group(site.gpu, total))
