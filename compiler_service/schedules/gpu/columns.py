"""Rules for reductions along other axes than the last, and for those of everything to one element.

Where results follow one another in memory, neighbouring threads have neighbouring results; where these are too few to
fill a device, several rows of threads share the steps. A reduction to one element is two kernels: groups reduce parts,
one group the parts' results.
"""

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
)
from compiler_service.schedules.gpu.reduction import Sharing, reduce_together
from compiler_service.schedules.nests import Nest, nest_of
from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import const_int
from crossfarm.ir.schedule.references import LoopRef
from crossfarm.ir.te.value import Value

#: Steps below which threads do not share a reduction.
_FEWEST_STEPS = 64
#: Elements of a reduction to one element that pay for a group each, and groups for each multiprocessor at most.
_ALONE = 1 << 13
_PARTS_PER_UNIT = 4


@dataclass(frozen=True)
class Columns:
    """Reductions to few results that follow one another: threads along the results, and along the steps."""

    name: ClassVar[str] = "columns"

    def match(self, site: Site) -> Fit | Refusal:
        nest = _reduction(site)
        if isinstance(nest, str):
            return Refusal(nest)
        if not nest.spatial:
            return Refusal("it reduces everything to one element")
        last = nest.spatial[-1].var
        for store in nest.stores:
            if [i for i in store.indices if const_int(i) is None] != [a.var for a in nest.spatial]:
                return Refusal("its spatial axes are not the dimensions of its result, in order")
        if 1 not in [load.step(last) for load in nest.loads]:
            return Refusal("nothing that it reads follows one another as its results do")
        if any(const_int(axis.dom.extent) is None for axis in nest.spatial[1:-1]):
            return Refusal("an axis between its first and its last is of symbolic size, as a group's share would be")
        sharing = _sharing(site, nest)
        if sharing.lanes < 2:
            return Refusal("it has results enough for a thread each, or few steps")
        return Fit((nest.name,), f"{sharing.results} neighbouring results a group, {sharing.lanes} threads for each")

    def apply(self, site: Site, fit: Fit) -> None:
        sch = site.schedule
        nest = _reduction(site)
        assert isinstance(nest, Nest), nest
        sharing = _sharing(site, nest)
        spatial, _ = loops_in_order(sch, nest)
        block = sch.get_block(nest.name, site.function)
        reduce_together(sch, block, len(spatial), sharing)
        loops = sch.get_loops(block)[: len(spatial)]
        groups, result = sch.split(fused(sch, loops), [None, sharing.results])
        sch.bind(groups, "blockIdx.x")
        sch.bind(result, sharing.other)


@dataclass(frozen=True)
class Whole:
    """Reductions to one element, by all groups and then by one."""

    name: ClassVar[str] = "whole"

    def match(self, site: Site) -> Fit | Refusal:
        nest = _reduction(site)
        if isinstance(nest, str):
            return Refusal(nest)
        if any(const_int(a.dom.extent) != 1 for a in nest.spatial):
            return Refusal("it has more than one result")
        parts, sharing = self._parts(site, nest), self._sharing(site, nest)
        if sharing.lanes < 2:
            return Refusal("it has few steps, or a group one thread")
        how = f"{parts} groups reduce parts, then one group what they give" if parts > 1 else "one group"
        return Fit((nest.name,), f"a reduction to one element: {how}; {sharing.lanes} threads a group")

    def apply(self, site: Site, fit: Fit) -> None:
        sch = site.schedule
        nest = _reduction(site)
        assert isinstance(nest, Nest), nest
        sharing, parts = self._sharing(site, nest), self._parts(site, nest)
        block = sch.get_block(nest.name, site.function)
        if len(nest.reduced) > 1 and product_of([a.dom.extent for a in nest.reduced]) is not None:
            nest = _with_one_reduced_axis(site, nest)
        spatial, reduced = loops_in_order(sch, nest)
        outer = len(spatial)
        if parts > 1:
            self._reduce_parts(site, nest, fused(sch, reduced), parts, sharing.lanes)
        loops = sch.get_loops(block)
        if not outer:
            sch.add_unit_loop(loops[0])
        reduce_together(sch, block, max(outer, 1), sharing)
        sch.bind(sch.get_loops(block)[0], "blockIdx.x")

    def _reduce_parts(self, site: Site, nest: Nest, steps: LoopRef, parts: int, lanes: int) -> None:
        """The first kernel: so many groups of threads reduce every so many elements each, so that neighbours load
        neighbours. On a CPU a thread reduces what follows one another instead, in lanes of vectors."""
        sch, rank = site.schedule, len(nest.stores[0].buffer.shape)
        if not site.gpu.is_cpu:
            _, part = sch.split(steps, [None, parts * lanes])
            partial = sch.rfactor(part, rank)
            *_, step, part = sch.get_loops(partial)
            sch.reorder(part, step)
            keep_results(sch, partial, part, step)
            bind_flat(sch, part, parts * lanes, lanes)
            return
        part, step, lane = sch.split(steps, [parts, None, lanes])
        sch.reorder(part, lane, step)
        partial = sch.rfactor(sch.fuse(part, lane), rank)
        *_, part, step = sch.get_loops(partial)
        part, lane = sch.split(part, [parts, lanes])
        sch.reorder(part, step, lane)
        keep_results(sch, partial, part, step)
        bind_flat(sch, part, parts, 1)

    def _sharing(self, site: Site, nest: Nest) -> Sharing:
        return Sharing.along(site.gpu, product_of([a.dom.extent for a in nest.reduced]), 1)

    def _parts(self, site: Site, nest: Nest) -> int:
        steps = product_of([a.dom.extent for a in nest.reduced])
        most = 1 << (site.gpu.units * _PARTS_PER_UNIT - 1).bit_length()
        if steps is None:
            return most
        while most > 1 and steps < _ALONE * most:
            most //= 2
        return most


def _with_one_reduced_axis(site: Site, nest: Nest) -> Nest:
    """All steps are of one axis, which may be cut anywhere: parts of several would not be a box of them."""
    reduced = {axis.var: axis.dom.extent for axis in nest.reduced}

    def joined(*values: Value) -> list[Value]:
        steps = None
        kept = []
        for axis, value in zip(nest.block.iter_vars, values):
            if axis.var not in reduced:
                kept.append(value)
            else:
                steps = value if steps is None else steps * Value(reduced[axis.var]) + value
        return [*kept, *(() if steps is None else (steps,))]

    site.schedule.transform_block_layout(site.schedule.get_block(nest.name, site.function), joined)
    changed = _reduction(site)
    assert isinstance(changed, Nest), changed
    return changed


def _reduction(site: Site) -> Nest | str:
    nest = nest_of(site.func, site.block)
    if isinstance(nest, str):
        return nest
    if not nest.reduced or nest.block.init is None:
        return "it does not reduce"
    return nest


def _sharing(site: Site, nest: Nest) -> Sharing:
    """Threads along neighbouring results, and along the steps where there are too few results to fill the device."""
    gpu = site.gpu
    steps, results = (product_of([a.dom.extent for a in axes]) for axes in (nest.reduced, nest.spatial))
    across = gpu.group(min(max(gpu.warp, 16), max(gpu.threads // 4, 1)))
    lanes = 1
    width = sum(dt.itemsize(s.buffer.dtype) for s in nest.stores)
    while (
        lanes < 16
        and 2 * lanes * across <= gpu.threads
        and (steps is None or steps >= 2 * lanes * _FEWEST_STEPS // 4)
        and (results is None or results * lanes < gpu.units * 1024)
        and Sharing(2 * lanes, across).shared_bytes(width) <= gpu.shared_bytes
    ):
        lanes *= 2
    return Sharing(lanes, across, "threadIdx.y")
