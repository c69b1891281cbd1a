"""Rule for maps: each element of the result from elements of the operands, broadcast, cast, gathered or shifted.

Chains of maps become one: what one computes is put where the next one reads it. Then the elements run in vectors along
the last axis, and outer axes, or parts of a long one, are shared among threads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from compiler_service.schedules.base import Fit, Refusal, Site
from compiler_service.schedules.cpu.vectors import (
    is_worth_threads,
    parallelize,
    row_lanes,
    should_stream,
    vectorize_map,
)
from compiler_service.schedules.maps import chain_from, is_flat, map_refusal, widest
from compiler_service.schedules.nests import UNKNOWN_EXTENT, Nest, nest_of
from crossfarm.ir.arith import const_int
from crossfarm.ir.expr import Expr, IntImm

#: How many parts each thread gets of one long axis: so many that threads that wait for one another are short of one.
_PARTS_PER_THREAD = 4
_USUAL_THREADS = 8
#: Rows of fewer vectors than this are one flat range, where that is possible.
_SHORT = 8


@dataclass(frozen=True)
class Elementwise:
    """Vectors along the last axis, threads along the others."""

    name: ClassVar[str] = "elementwise"

    def match(self, site: Site) -> Fit | Refusal:
        nest = nest_of(site.func, site.block)
        if isinstance(nest, str):
            return Refusal(nest)
        reason = map_refusal(nest)
        if reason:
            return Refusal(reason)
        chain = chain_from(site, nest)
        what = "a map" if len(chain) == 1 else f"{len(chain)} maps in one pass"
        flat = " of one flat range" if is_flat(chain[-1]) else ""
        return Fit(tuple(n.name for n in chain), f"{what}{flat}; vectors along the last axis")

    def apply(self, site: Site, fit: Fit) -> None:
        sch, cpu = site.schedule, site.cpu
        for name in fit.blocks[:-1]:
            sch.compute_inline(sch.get_block(name, site.function))
        nest = nest_of(site.func, fit.blocks[-1])
        assert isinstance(nest, Nest), nest
        block = sch.get_block(nest.name, site.function)
        axes = nest.block.iter_vars
        if not axes:
            return
        loops = {ref.var: ref for ref in sch.get_loops(block)}
        ordered = [loops[loop.var] for loop in nest.loops]
        if list(sch.get_loops(block)) != ordered:
            sch.reorder(*ordered)
        lanes = cpu.lanes(widest(nest))
        stream = should_stream(cpu, tuple(s.buffer for s in nest.stores))
        extents = [a.dom.extent for a in axes]
        work = nest.instances() * nest.work
        short = row_lanes(extents[-1], lanes) if nest.calls and nest.instances(axes[-1:]) % lanes else 1
        if short == 1 and len(axes) > 1 and is_flat(nest) and nest.instances(axes[-1:]) < _SHORT * lanes:
            ordered, extents = [sch.fuse(*ordered)], [IntImm(nest.instances(), "int64")]
        rows = math.prod(_count(e) for e in extents[:-1])
        last = const_int(extents[-1])
        wanted = (cpu.threads or _USUAL_THREADS) * _PARTS_PER_THREAD
        if last is not None and rows < wanted and is_worth_threads(cpu, work):
            parts = _parts(last, short if short > 1 else lanes, -(-wanted // rows))
            if parts > 1:
                part, rest = sch.split(ordered[-1], [parts, None])
                ordered[-1:] = [part, rest]
                extents[-1:] = [IntImm(parts, "int64"), IntImm(last // parts, "int64")]
        vectorize_map(sch, ordered[-1], extents[-1], short if short > 1 else lanes, stream=stream)
        if len(ordered) > 1:
            each = _count(extents[-1]) * nest.work
            parallelize(sch, cpu, tuple(ordered[:-1]), tuple(extents[:-1]), each)


def _count(extent: Expr) -> int:
    known = const_int(extent)
    return UNKNOWN_EXTENT if known is None else known


def _parts(total: int, lanes: int, wanted: int) -> int:
    """A number of equal parts of whole vectors, near what is wanted; 1 where there is none."""
    for parts in range(wanted, 1, -1):
        if total % (parts * lanes) == 0:
            return parts
    return next((p for p in range(2, wanted) if total % p == 0), 1)
