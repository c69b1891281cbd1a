"""Rule for reductions along the last axis, and for chains of them and of maps over the same rows.

Softmax is two reductions and two maps of each row, layer norm two of each: run block by block, each reads and writes
the whole tensor. Here all run for one row before the next, so that between them the row is in the cache; rows are
shared among threads. Along a row, maps run in vectors, and a reduction keeps a vector of partial results, which are
reduced when the row is through.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from compiler_service.schedules.base import Fit, Refusal, Site
from compiler_service.schedules.cpu.vectors import (
    parallelize,
    reduce_in_lanes,
    reduction_lanes,
    should_stream,
    vectorize_map,
)
from compiler_service.schedules.nests import Access, Nest, nest_of, temporaries
from compiler_service.schedules.row_groups import first_reduction, row_group
from crossfarm.ir.stmt import IterVar

if TYPE_CHECKING:
    from crossfarm.ir.schedule.references import LoopRef

#: Maps with at most so much work are computed again for each use rather than stored.
_CHEAP_WORK = 4


@dataclass(frozen=True)
class Rows:
    """All that is computed of a row, row by row."""

    name: ClassVar[str] = "rows"

    def match(self, site: Site) -> Fit | Refusal:
        group = row_group(site)
        if isinstance(group, str):
            return Refusal(group)
        depth = len(first_reduction(group).spatial)
        reductions = sum(1 for n in group if n.reduced)
        what = f"{reductions} reduction{'s' if reductions > 1 else ''} along the last axis"
        if len(group) > 1:
            what += f", {len(group)} blocks fused at their {depth} common row axes"
        return Fit(tuple(n.name for n in group), f"{what}; vectors along the row, rows over threads")

    def apply(self, site: Site, fit: Fit) -> None:
        sch, cpu = site.schedule, site.cpu
        group = [_nest(site, name) for name in fit.blocks]
        depth = len(first_reduction(group).spatial)
        group = _inline_cheap(site, group)
        anchor = group[-1]
        block = sch.get_block(anchor.name, site.function)
        rows, _ = _ordered(site, anchor, depth)
        for nest in reversed(group[:-1]):
            sch.compute_at(sch.get_block(nest.name, site.function), rows[-1])
        row_work = sum(n.instances(n.block.iter_vars[depth:]) * n.work for n in group)
        own = temporaries(site.func)
        reading = [n for n in group if not n.reduced and any(a.buffer not in own for a in _along_rows(n, depth))]
        last_map = reading[-1] if reading else None
        for nest in group:
            block = sch.get_block(nest.name, site.function)
            inner = sch.get_loops(block)[depth:]
            along = _along(nest, depth)
            if not inner or len(inner) != len(along):
                continue
            if nest.reduced:
                lanes = reduction_lanes(cpu, nest.dtype, along[-1].dom.extent)
                if lanes > 1 and len(nest.stores) == 1:
                    reduce_in_lanes(sch, block, depth, lanes, cpu.lanes(nest.dtype))
            else:
                stream = nest is anchor and should_stream(cpu, tuple(s.buffer for s in nest.stores))
                ahead = _read_by_rows(nest, depth) if nest is last_map else ()
                lanes = cpu.lanes(nest.dtype)
                vectorize_map(sch, inner[-1], along[-1].dom.extent, lanes, stream=stream, ahead=ahead)
        if rows:
            rows = sch.get_loops(sch.get_block(anchor.name, site.function))[:depth]
            extents = tuple(axis.dom.extent for axis in anchor.spatial[:depth])
            parallelize(sch, cpu, rows, extents, row_work)


def _read_by_rows(nest: Nest, depth: int) -> tuple[str, ...]:
    """The operands that a map reads along rows.

    The next row is fetched while this one is computed with: at the start of a row there is nothing to compute yet, and
    the CPU's own prefetcher begins anew.
    """
    if depth == 0 or len(nest.spatial) != depth + 1:
        return ()
    row, last = nest.spatial[depth - 1].var, nest.spatial[depth].var
    return tuple(dict.fromkeys(a.buffer.name for a in nest.loads if a.step(last) == 1 and a.step(row)))


def _inline_cheap(site: Site, group: list[Nest]) -> list[Nest]:
    """Without the maps that cost less to compute again than to store."""
    kept = []
    for nest in group:
        uses = sum(1 for n in group for load in n.loads if load.buffer is nest.stores[0].buffer)
        if nest.reduced or nest is group[-1] or len(nest.stores) > 1 or (uses > 1 and nest.work > _CHEAP_WORK):
            kept.append(nest.name)
        else:
            site.schedule.compute_inline(site.schedule.get_block(nest.name, site.function))
    return [_nest(site, name) for name in kept]


def _ordered(site: Site, nest: Nest, depth: int) -> tuple[tuple[LoopRef, ...], tuple[LoopRef, ...]]:
    """The loops over rows and those along them, put in that order."""
    sch = site.schedule
    loops: tuple[LoopRef, ...] = sch.get_loops(sch.get_block(nest.name, site.function))
    by_var = {ref.var: ref for ref in loops}
    wanted = [by_var[loop.var] for loop in nest.loops]
    if list(loops) != wanted:
        sch.reorder(*wanted)
    return tuple(wanted[:depth]), tuple(wanted[depth:])


def _along_rows(nest: Nest, depth: int) -> list[Access]:
    return [load for load in nest.loads if len(load.indices) > depth]


def _along(nest: Nest, depth: int) -> tuple[IterVar, ...]:
    return nest.block.iter_vars[depth:]


def _nest(site: Site, name: str) -> Nest:
    nest = nest_of(site.func, name)
    assert isinstance(nest, Nest), nest
    return nest
