"""Rule for maps that read along another axis than they write: transposes, and permutations of dimensions.

Element by element, either the reads or the writes touch a line of the cache for each element. Square tiles of as many
rows as a vector has lanes are read and written by whole vectors, and transposed in registers.

Tiles that are written side by side come one after the other, so that few lines are open at a time. Where results go
around the caches, tiles make blocks, and while one block is transposed the next one is fetched, along memory: read
column by column, lines would come in an order that memory is slow in, and that the CPU's own prefetcher does not see.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from compiler_service.schedules.base import Fit, Refusal, Site
from compiler_service.schedules.cpu.vectors import FETCHED_INTO, parallelize, should_stream
from compiler_service.schedules.maps import transposed_axes
from compiler_service.schedules.nests import Nest, nest_of
from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import const_int
from crossfarm.ir.expr import IntImm
from crossfarm.ir.schedule.transposes import transpose_name
from crossfarm.ir.stmt import IterVar

#: Tiles of a block, along what is read and along what is written; the second of them follow one another.
_CACHED = (16, 4)
#: Bytes of a block along what is read and along what is written, where results go around the caches: more rows would
#: meet in the same sets of a cache where they are a power of two apart.
_STREAMED = (2048, 128)


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
        high, wide = (-(-bytes_ // (side * dt.itemsize(nest.dtype))) for bytes_ in _STREAMED) if stream else _CACHED
        high, wide = _divisor(_tiles(read, side), high), _divisor(_tiles(written, side), wide)
        far, down, row = sch.split(ordered[read.var], [None, high, side])
        bands, along, column = sch.split(ordered[written.var], [None, wide, side])
        outer = [ordered[a.var] for a in others]
        # a block's turn, and the next one's where a band ends, is a step of one loop
        shared = [*outer, bands, far] if stream else [*outer, far]
        sch.reorder(*shared, *([] if stream else [bands]), down, along, row, column)
        if stream:
            shared = [sch.fuse(*shared)]
            sch.annotate(down, "stream_stores", 1)
            sch.annotate(down, "fetch_next", {load.buffer.name: FETCHED_INTO})
        sch.tensorize(row, transpose_name(side, nest.dtype))
        extents = [a.dom.extent for a in others]
        extents.append(IntImm(_tiles(read, side) // high, "int64"))
        work = nest.work * side * high * nest.instances((written,))
        if stream:
            extents.append(IntImm(_tiles(written, side) // wide, "int64"))
            work = nest.work * side * high * side * wide
        parallelize(sch, site.cpu, tuple(shared), tuple(extents), work)


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
