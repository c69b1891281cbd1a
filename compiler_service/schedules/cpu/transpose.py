"""Rule for maps that read along another axis than they write: transposes, and permutations of dimensions.

Element by element, either the reads or the writes touch a line of the cache for each element. Square tiles of as many
rows as a vector has lanes are read and written by whole vectors, and transposed in registers.

Which tile follows which depends on where the results go. In the caches, tiles that are written side by side come one
after the other, so that few lines are open at a time. Results that go around the caches are whole lines anyway: there
tiles follow one another along the rows that are read, and the rows of the next but one tile are fetched meanwhile, for
the CPU's own prefetcher does not see them coming.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from compiler_service.schedules.base import Fit, Refusal, Site
from compiler_service.schedules.cpu.vectors import parallelize, should_stream
from compiler_service.schedules.maps import transposed_axes
from compiler_service.schedules.nests import Nest, nest_of
from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import const_int
from crossfarm.ir.expr import IntImm
from crossfarm.ir.schedule.transposes import transpose_name
from crossfarm.ir.stmt import IterVar

if TYPE_CHECKING:
    from crossfarm.ir.schedule.references import LoopRef

#: Tiles of a block, along what is read and along what is written; the second of them follow one another.
_CACHED = (16, 4)
#: Tiles that follow one another along what is read, where results go around the caches.
_STREAMED = 4
#: Tiles ahead of which rows are fetched then.
_AHEAD = 2


@dataclass(frozen=True)
class Transpose:
    """Square tiles of vectors."""

    name: ClassVar[str] = "transpose"

    def match(self, site: Site) -> Fit | Refusal:
        nest = nest_of(site.func, site.block)
        if isinstance(nest, str):
            return Refusal(nest)
        found = transposed_axes(nest)
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
        found = transposed_axes(nest)
        assert not isinstance(found, str), found
        load, read = found
        side = _side(site, nest, read)
        block = sch.get_block(nest.name, site.function)
        loops = {ref.var: ref for ref in sch.get_loops(block)}
        ordered = dict(zip((a.var for a in nest.block.iter_vars), (loops[loop.var] for loop in nest.loops)))
        written = nest.spatial[-1]
        others = [a for a in nest.spatial if a is not read and a is not written]
        stream = should_stream(site.cpu, tuple(s.buffer for s in nest.stores))
        high, wide = (_STREAMED, 1) if stream else _CACHED
        tiles = _tiles(read, side)
        high, wide = _divisor(tiles, high), _divisor(_tiles(written, side), wide)
        far, down, row = sch.split(ordered[read.var], [None, high, side])
        blocks, along, column = sch.split(ordered[written.var], [None, wide, side])
        outer: list[LoopRef] = [ordered[a.var] for a in others]
        inner = (along, down) if stream else (down, along)
        sch.reorder(*outer, far, blocks, *inner, row, column)
        if stream:
            sch.annotate(down, "stream_stores", 1)
            step = load.step(written.var)
            if step is not None:
                sch.annotate(down, "prefetch", {load.buffer.name: _AHEAD * side * step})
        sch.tensorize(row, transpose_name(side, nest.dtype))
        extents = tuple(a.dom.extent for a in others)
        work = nest.work * side * high * nest.instances((written,))
        parallelize(sch, site.cpu, (*outer, far), (*extents, IntImm(tiles // high, "int64")), work)


def _tiles(axis: IterVar, side: int) -> int:
    count = const_int(axis.dom.extent)
    assert count is not None
    return count // side


def _divisor(number: int, most: int) -> int:
    return max(d for d in range(1, most + 1) if number % d == 0)


def _side(site: Site, nest: Nest, read: IterVar) -> int:
    """Rows and columns of a tile; 0 where the extents do not have whole tiles."""
    lanes = min(site.cpu.lanes(nest.dtype), 16)
    for axis in (read, nest.spatial[-1]):
        count = const_int(axis.dom.extent)
        if count is None or count < 2 * lanes or count % lanes:
            return 0
    return lanes if dt.itemsize(nest.dtype) >= 2 else 0
