"""Rule for maps that read along another axis than they write: transposes, and permutations of dimensions.

Element by element, either the reads or the writes touch a line of the cache for each element. In square tiles of as
many rows as a vector has lanes, both are whole vectors: a tile is loaded by rows into registers, and stored by columns.
Tiles follow one another along the rows that are read, so that the CPU's prefetcher sees long runs; what is stored are
whole lines wherever they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from compiler_service.schedules.base import Fit, Refusal, Site
from compiler_service.schedules.nests import Access, Nest, nest_of
from compiler_service.schedules.vectors import parallelize, should_stream
from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import const_int
from crossfarm.ir.expr import IntImm
from crossfarm.ir.stmt import IterVar

if TYPE_CHECKING:
    from crossfarm.ir.schedule.references import LoopRef

#: Tiles that follow one another along the rows that are read.
_RUN = 16


@dataclass(frozen=True)
class Transpose:
    """Square tiles of vectors."""

    name: ClassVar[str] = "transpose"

    def match(self, site: Site) -> Fit | Refusal:
        nest = nest_of(site.func, site.block)
        if isinstance(nest, str):
            return Refusal(nest)
        found = _axes(nest)
        if isinstance(found, str):
            return Refusal(found)
        _, read = found
        side = _side(site, nest, read)
        if side < 2:
            return Refusal(f"an extent is below two vectors, or no multiple of a vector of {nest.dtype}")
        what = f"what is read along axis {read.var.name} is written along {nest.spatial[-1].var.name}"
        return Fit((nest.name,), f"{what}; tiles of {side} by {side}")

    def apply(self, site: Site, fit: Fit) -> None:
        sch = site.schedule
        nest = nest_of(site.func, fit.blocks[0])
        assert isinstance(nest, Nest), nest
        found = _axes(nest)
        assert not isinstance(found, str), found
        load, read = found
        side = _side(site, nest, read)
        block = sch.get_block(nest.name, site.function)
        loops = {ref.var: ref for ref in sch.get_loops(block)}
        ordered = dict(zip((a.var for a in nest.block.iter_vars), (loops[loop.var] for loop in nest.loops)))
        written = nest.spatial[-1]
        others = [a for a in nest.spatial if a is not read and a is not written]
        count = const_int(read.dom.extent)
        assert count is not None
        run = max(d for d in range(1, _RUN + 1) if count // side % d == 0)
        far, near, row = sch.split(ordered[read.var], [None, run, side])
        tiles, column = sch.split(ordered[written.var], [None, side])
        outer: list[LoopRef] = [ordered[a.var] for a in others]
        sch.reorder(*outer, far, tiles, near, row, column)
        position = next(k for k, r in enumerate(nest.block.reads) if r.buffer is load.buffer)
        copy = sch.cache_read(block, position, "local")
        sch.compute_at(copy, near)
        *_, line, lane = sch.get_loops(copy)
        sch.vectorize(lane)
        sch.unroll(line)
        sch.vectorize(column)
        sch.unroll(row)
        if should_stream(site.cpu, tuple(s.buffer for s in nest.stores)):
            sch.annotate(near, "stream_stores", 1)
        extents = tuple(a.dom.extent for a in others)
        work = nest.work * side * run * nest.instances((written,))
        parallelize(sch, site.cpu, (*outer, far), (*extents, IntImm(count // side // run, "int64")), work)


def _axes(nest: Nest) -> tuple[Access, IterVar] | str:
    """What is read across the grain, and the axis along which it is contiguous."""
    if nest.reduced or nest.block.init is not None:
        return "it reduces"
    spatial = [a.var for a in nest.spatial]
    if len(spatial) < 2 or len(nest.stores) != 1 or len(nest.loads) != 1:
        return "it is not one result of one operand with two axes"
    (store,), (load,) = nest.stores, nest.loads
    if [i for i in store.indices if const_int(i) is None] != spatial:
        return "its axes are not the dimensions of its result, in order"
    if load.buffer.dtype != store.buffer.dtype:
        return "it reads another dtype than it writes"
    along = [a for a in nest.spatial if load.step(a.var) == 1]
    last = load.step(spatial[-1])
    if not along or along[-1].var is spatial[-1] or last in (0, 1, None):
        return "it reads along the axis that it writes along, or along none"
    used = [i for i in load.indices if const_int(i) is None]
    if sorted(map(id, used)) != sorted(map(id, spatial)):
        return "it does not read each element once"
    return load, along[-1]


def _side(site: Site, nest: Nest, read: IterVar) -> int:
    """Rows and columns of a tile; 0 where the extents do not have whole tiles."""
    lanes = min(site.cpu.lanes(nest.dtype), 16)
    for axis in (read, nest.spatial[-1]):
        count = const_int(axis.dom.extent)
        if count is None or count < 2 * lanes or count % lanes:
            return 0
    return lanes if dt.itemsize(nest.dtype) >= 2 else 0
