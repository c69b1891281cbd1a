"""Rule for reductions along the last axis, and for chains of them and of maps over the same rows.

All that is computed of a row is one kernel: a group of threads has one row, or a few short ones. What is one number a
row stays in registers; maps between reductions are computed again for each use rather than stored, as a GPU computes
faster than it loads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from compiler_service.schedules.base import Fit, Refusal, Site
from compiler_service.schedules.gpu.groups import fused, product_of, write_out
from compiler_service.schedules.gpu.reduction import Sharing, reduce_together
from compiler_service.schedules.nests import Nest, nest_of
from compiler_service.schedules.row_groups import first_reduction, row_group
from crossfarm.ir import dtype as dt


@dataclass(frozen=True)
class Rows:
    """All that is computed of a row by one group of threads."""

    name: ClassVar[str] = "rows"

    def match(self, site: Site) -> Fit | Refusal:
        group = row_group(site, linked=False)
        if isinstance(group, str):
            return Refusal(group)
        sharing = _sharing(site, group)
        if sharing.shared_bytes(_width(group)) > site.gpu.shared_bytes:
            return Refusal(
                f"{site.gpu.shared_bytes} bytes of shared memory do not hold what {sharing.lanes} threads add"
            )
        reductions = sum(1 for n in group if n.reduced)
        what = f"{reductions} reduction{'s' if reductions > 1 else ''} along the last axis"
        if len(group) > 1:
            what += f", {len(group)} blocks in one kernel"
        who = "a thread for each row" if sharing.lanes == 1 else f"{sharing.lanes} threads for each row"
        return Fit(tuple(n.name for n in group), f"{what}; {who}, {sharing.results} rows a group")

    def apply(self, site: Site, fit: Fit) -> None:
        sch = site.schedule
        group = [_nest(site, name) for name in fit.blocks]
        depth, sharing = len(first_reduction(group).spatial), _sharing(site, group)
        group = _inline_maps(site, group)
        anchor = sch.get_block(group[-1].name, site.function)
        by_var = {ref.var: ref for ref in sch.get_loops(anchor)}
        ordered = [by_var[loop.var] for loop in group[-1].loops]
        if ordered != list(sch.get_loops(anchor)):
            sch.reorder(*ordered)
        for nest in reversed(group[:-1]):
            sch.compute_at(sch.get_block(nest.name, site.function), ordered[depth - 1], preserve_unit_loops=True)
        for nest in group:
            block = sch.get_block(nest.name, site.function)
            if nest.reduced:
                reduce_together(sch, block, depth, sharing)
            elif sharing.lanes > 1:
                steps, lane = sch.split(fused(sch, sch.get_loops(block)[depth:]), [None, sharing.lanes])
                write_out(sch, site.function, [steps])
                sch.bind(lane, sharing.axis)
        groups, row = sch.split(fused(sch, sch.get_loops(anchor)[:depth]), [None, sharing.results])
        sch.bind(groups, "blockIdx.x")
        if sharing.results > 1 or sharing.lanes == 1:
            sch.bind(row, sharing.other if sharing.lanes > 1 else sharing.axis)


def _sharing(site: Site, group: Sequence[Nest]) -> Sharing:
    first = first_reduction(group)
    steps, results = (product_of([a.dom.extent for a in axes]) for axes in (first.reduced, first.spatial))
    return Sharing.along(site.gpu, steps, results)


def _width(group: Sequence[Nest]) -> int:
    """Bytes of all reductions' values of one row."""
    return sum(dt.itemsize(s.buffer.dtype) for n in group if n.reduced for s in n.stores)


def _inline_maps(site: Site, group: Sequence[Nest]) -> list[Nest]:
    """Without the maps that only others of the group use."""
    kept = []
    for nest in group:
        if nest.reduced or nest is group[-1] or len(nest.stores) > 1:
            kept.append(nest.name)
        else:
            site.schedule.compute_inline(site.schedule.get_block(nest.name, site.function))
    return [_nest(site, name) for name in kept]


def _nest(site: Site, name: str) -> Nest:
    nest = nest_of(site.func, name)
    assert isinstance(nest, Nest), nest
    return nest
