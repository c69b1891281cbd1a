"""Rules for reductions along other axes than the last, and for those of everything to one element.

Where results follow one another in memory, as in a sum over the first axis, they are the lanes: a part of the results
as long as a fraction of the first cache is kept there while the reduced axes are walked, and all that is read is read
in order. A reduction to few results is cut into parts for the threads first, whose results are reduced at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from compiler_service.schedules.base import Fit, Refusal, Site
from compiler_service.schedules.cpu.vectors import (
    PARALLEL_WORK,
    is_worth_threads,
    parallelize,
    reduce_in_lanes,
    reduction_lanes,
    row_lanes,
)
from compiler_service.schedules.nests import Nest, nest_of
from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import const_int
from crossfarm.ir.expr import Expr, IntImm

if TYPE_CHECKING:
    from crossfarm.ir.schedule.references import LoopRef

#: Most parts that a reduction to one element is cut into.
_MOST_PARTS = 64
_USUAL_THREADS = 8
#: Bytes that are read one after another of each row at least.
_SHORTEST_RUN = 2048
#: Steps along the reduced axis between a load of the results so far and their store.
_ROWS_TOGETHER = 4


@dataclass(frozen=True)
class Columns:
    """Reductions whose results are the lanes."""

    name: ClassVar[str] = "columns"

    def match(self, site: Site) -> Fit | Refusal:
        nest = nest_of(site.func, site.block)
        if isinstance(nest, str):
            return Refusal(nest)
        if not nest.reduced or nest.block.init is None:
            return Refusal("it does not reduce")
        if not nest.spatial:
            return Refusal("it reduces everything to one element")
        last = nest.spatial[-1].var
        for store in nest.stores:
            if [i for i in store.indices if const_int(i) is None] != [a.var for a in nest.spatial]:
                return Refusal("its spatial axes are not the dimensions of its result, in order")
        steps = [load.step(last) for load in nest.loads]
        if 1 not in steps:
            return Refusal("nothing that it reads follows one another as its results do")
        return Fit((nest.name,), "a reduction whose results are the lanes; vectors along the last axis of the result")

    def apply(self, site: Site, fit: Fit) -> None:
        sch, cpu = site.schedule, site.cpu
        nest = nest_of(site.func, fit.blocks[0])
        assert isinstance(nest, Nest), nest
        block = sch.get_block(nest.name, site.function)
        loops = {ref.var: ref for ref in sch.get_loops(block)}
        ordered = [loops[loop.var] for loop in nest.loops]
        count = len(nest.spatial)
        rows, last, reduced = ordered[: count - 1], ordered[count - 1], ordered[count:]
        extent = nest.spatial[-1].dom.extent
        width = max(dt.itemsize(a.buffer.dtype) for a in (*nest.stores, *nest.loads))
        lanes = max(cpu.vector_bytes // width, 1)
        known = const_int(extent)
        outer, extents = list(rows), [a.dom.extent for a in nest.spatial[:-1]]
        inner: list[LoopRef] = [last]
        rest = known or 0
        if known is not None and lanes > 1 and known % lanes == 0:
            # long runs of what is read, yet a part for each thread; what is added to stays in the first cache
            longest = max(known // (cpu.threads or _USUAL_THREADS), _SHORTEST_RUN // width) if not rows else known
            part = _part(known, lanes, min(longest, cpu.l1_bytes // 3 // width))
            pieces = list(sch.split(last, [known // part, part // lanes, lanes]))
            outer.append(pieces[0])
            extents.append(IntImm(known // part, "int64"))
            inner, rest = pieces[1:], part
        elif (short := row_lanes(extent, lanes)) > 1 and known is not None:
            inner, rest = list(sch.split(last, [known // short, short])), known
        deepest = const_int(nest.reduced[-1].dom.extent)
        together: list[LoopRef] = []
        if len(inner) == 2 and deepest is not None and deepest % _ROWS_TOGETHER == 0:
            reduced[-1], few = sch.split(reduced[-1], [None, _ROWS_TOGETHER])
            together = [few]
        sch.reorder(*outer, *reduced, *inner[:-1], *together, inner[-1])
        start = sch.decompose_reduction(block, reduced[0])
        for loop in together:
            sch.unroll(loop)
        if len(inner) == 2:
            sch.vectorize(inner[-1])
            sch.vectorize(sch.get_loops(start)[-1])
        row_work = nest.work * nest.instances(nest.reduced) * (rest or nest.instances(nest.spatial[-1:]))
        if outer:
            parallelize(sch, cpu, tuple(outer), tuple(extents), row_work)


@dataclass(frozen=True)
class Whole:
    """Reductions to one element, in parts."""

    name: ClassVar[str] = "whole"

    def match(self, site: Site) -> Fit | Refusal:
        nest = nest_of(site.func, site.block)
        if isinstance(nest, str):
            return Refusal(nest)
        if not nest.reduced or nest.block.init is None:
            return Refusal("it does not reduce")
        if any(const_int(a.dom.extent) != 1 for a in nest.spatial):
            return Refusal("it has more than one result")
        if len(nest.stores) != 1:
            return Refusal("it has several values for each result")
        if not all(load.step(nest.reduced[-1].var) in (0, 1) for load in nest.loads):
            return Refusal("what it reads is not along its last axis")
        return Fit((nest.name,), "a reduction to one element: parts over threads, vectors within a part")

    def apply(self, site: Site, fit: Fit) -> None:
        sch, cpu = site.schedule, site.cpu
        nest = nest_of(site.func, fit.blocks[0])
        assert isinstance(nest, Nest), nest
        block = sch.get_block(nest.name, site.function)
        loops = {ref.var: ref for ref in sch.get_loops(block)}
        reduced = [loops[loop.var] for loop, a in zip(nest.loops, nest.block.iter_vars) if a.kind == "reduce"]
        work = nest.instances() * nest.work
        first = const_int(nest.reduced[0].dom.extent)
        inner: Expr = nest.reduced[-1].dom.extent
        outer = len(nest.spatial)
        if first is not None and is_worth_threads(cpu, work):
            parts = _divisor(first, min(_MOST_PARTS, max(2, work // PARALLEL_WORK)))
            if parts > 1:
                part, _ = sch.split(reduced[0], [parts, None])
                block = sch.rfactor(part, len(nest.stores[0].buffer.shape))
                if len(reduced) == 1:
                    inner = IntImm(first // parts, "int64")
                sch.parallel(sch.get_loops(block)[outer])  # inside loops of one iteration
                outer += 1
        lanes = reduction_lanes(cpu, nest.dtype, inner)
        if lanes > 1:
            reduce_in_lanes(sch, block, outer, lanes, cpu.lanes(nest.dtype))


def _part(extent: int, lanes: int, most: int) -> int:
    """The largest divisor of ``extent`` of whole vectors and at most ``most`` elements; one vector at least."""
    vectors = extent // lanes
    return lanes * max(d for d in range(1, max(most // lanes, 1) + 1) if vectors % d == 0)


def _divisor(extent: int, most: int) -> int:
    """The largest divisor of ``extent`` up to ``most``."""
    return max(d for d in range(1, most + 1) if extent % d == 0)
