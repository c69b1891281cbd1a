"""Rule for transposes: tiles that are read by rows and written by columns, through shared memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from compiler_service.schedules.base import Fit, Refusal, Site
from compiler_service.schedules.maps import transposed_axes
from compiler_service.schedules.nests import Nest, nest_of
from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import const_int
from crossfarm.ir.stmt import IterVar
from crossfarm.ir.te.value import Value

#: Rows and columns of a tile, at most, and threads that share one.
_SIDE, _THREADS = 32, 256


@dataclass(frozen=True)
class Transpose:
    """Square tiles; neighbouring threads read, and then write, what follows one another."""

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
        if side < 4:
            return Refusal("an extent is too small for tiles, or shared memory holds none")
        what = f"what is read along axis {read.var.name} is written along {nest.spatial[-1].var.name}"
        return Fit((nest.name,), f"{what}; tiles of {side} by {side} in shared memory")

    def apply(self, site: Site, fit: Fit) -> None:
        sch = site.schedule
        nest = nest_of(site.func, fit.blocks[0])
        assert isinstance(nest, Nest), nest
        found = transposed_axes(nest)
        assert not isinstance(found, str), found
        load, read = found
        side = _side(site, nest, read)
        down = min(max(site.gpu.group(_THREADS) // side, 1), side)
        block = sch.get_block(nest.name, site.function)
        by_var = {ref.var: ref for ref in sch.get_loops(block)}
        loops = dict(zip((a.var for a in nest.block.iter_vars), (by_var[loop.var] for loop in nest.loops)))
        written = nest.spatial[-1].var
        far, row = sch.split(loops[read.var], [None, side])
        wide, column = sch.split(loops[written], [None, side])
        others = [loops[a.var] for a in nest.spatial if a.var not in (read.var, written)]
        sch.reorder(*others, far, wide, row, column)
        copy = sch.cache_read(block, 0, "shared")
        # a dimension of the call's size, cut in tiles, would be an array of a size that nobody knows
        if all(const_int(a.dom.extent) is not None for a in (read, nest.spatial[-1])):
            self._pad_rows(site, copy.name, load.indices.index(written), load.indices.index(read.var), side)
        sch.compute_at(copy, wide, preserve_unit_loops=True)
        inside = sch.get_loops(copy)[len(others) + 2 :]
        across = inside[load.indices.index(read.var)]
        along = inside[load.indices.index(written)]
        sch.reorder(along, across)
        for rows, threads in ((along, across), (row, column)):
            _, thread = sch.split(rows, [None, down])
            sch.bind(thread, "threadIdx.y")
            sch.bind(threads, "threadIdx.x")
        sch.bind(sch.fuse(*others, far, wide), "blockIdx.x")

    def _pad_rows(self, site: Site, copy: str, row: int, column: int, side: int) -> None:
        """Rows of the tile are one element longer than they need be: a column is in all banks of the memory then."""
        sch = site.schedule

        def padded(*dims: Value) -> list[Value]:
            rest = [d for place, d in enumerate(dims) if place not in (row, column)]
            place = dims[row] % side * (side + 1) + dims[column] % side
            return [*rest, dims[row] // side, dims[column] // side, place]

        sch.transform_layout(sch.get_block(copy, site.function), ("write", 0), padded)


def _side(site: Site, nest: Nest, read: IterVar) -> int:
    """Rows and columns of a tile: a power of two that the group's limits allow."""
    side = min(_SIDE, site.gpu.group(_THREADS))
    for axis in (read, nest.spatial[-1]):
        count = const_int(axis.dom.extent)
        while count is not None and side > 4 and count <= side // 2:
            side //= 2
        if count is not None and count < 4:
            return 0
    while side and side * (side + 1) * dt.itemsize(nest.dtype) > site.gpu.shared_bytes:
        side //= 2
    return side
