"""Rule for convolutions: sums of products of the filters with what each pixel's window sees.

Filters are the rows of a product, pixels its columns, channels and places in the window what is summed over. Tiles of
the data are laid out for that as they are loaded into shared memory, padding included; nothing is laid out in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from compiler_service.schedules.base import Fit, Refusal, Site
from compiler_service.schedules.convolution import Convolution, convolution_of
from compiler_service.schedules.epilogue import epilogue_of
from compiler_service.schedules.gpu.products import Parts, TiledProduct, grid_problem, result_apart
from compiler_service.schedules.gpu.tiles import GroupTile, best_group_tile
from compiler_service.schedules.nests import Access, nest_of
from compiler_service.schedules.padding import private_padding
from crossfarm.errors import ScheduleError
from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import const_int
from crossfarm.ir.expr import BufferLoad, Var
from crossfarm.ir.schedule.references import BlockRef
from crossfarm.ir.schedule.tree import find_block
from crossfarm.ir.stmt import Block, BufferStore
from crossfarm.ir.te.value import Value
from crossfarm.ir.visitor import walk

#: Filters, and steps of the sum, below which there is too little to share.
_FEWEST_FILTERS, _FEWEST_STEPS = 4, 8
#: Pixels of an image below which those of all images are columns together.
_SMALL_IMAGE = 256
#: Pixels that a core computes at once: in a vector of one thread's, and by threads that are lanes of vectors.
_VECTOR, _LANES = 8, 32


@dataclass(frozen=True)
class Conv2d:
    """Convolution as a product that is laid out while it is loaded."""

    name: ClassVar[str] = "conv2d"

    def match(self, site: Site) -> Fit | Refusal:
        nest = nest_of(site.func, site.block)
        if isinstance(nest, str):
            return Refusal(nest)
        found = convolution_of(nest.block)
        if isinstance(found, str):
            return Refusal(found)
        filters = found.group if found.group is not None else found.extent(found.channel)
        if filters is None or filters < _FEWEST_FILTERS:
            return Refusal(f"{'a symbolic number of' if filters is None else filters} filters a channel are too few")
        if found.group is not None and (found.extent(found.channel) or 1) % found.group:
            return Refusal(f"its filters are not groups of {found.group}")
        parts = _parts(site, found, found.block, found.channel, ())
        steps = parts.size(parts.sums)
        if steps is not None and steps < _FEWEST_STEPS:
            return Refusal(f"sums of {steps} products are too short to share")
        tile = self._tile(site, found, parts)
        if tile is None:
            return Refusal(f"no tile divides its filters and fits {site.gpu.shared_bytes} bytes of shared memory")
        if problem := grid_problem(parts, tile):
            return Refusal(problem)
        epilogue = epilogue_of(site.func, site.block, site.open_blocks)
        along = f", with {', '.join(epilogue)} on each result" if epilogue else ""
        reason = (
            f"a convolution of {found.data.buffer.name} with {found.weights.buffer.name}, filters by pixels: "
            f"{tile}{along}"
        )
        return Fit((site.block, *epilogue, *private_padding(site, found.data.buffer)), reason)

    def apply(self, site: Site, fit: Fit) -> None:
        sch, function = site.schedule, site.function
        nest = nest_of(site.func, site.block)
        assert not isinstance(nest, str), nest
        found = convolution_of(nest.block)
        assert isinstance(found, Convolution)
        padding = private_padding(site, found.data.buffer)
        tile = self._tile(site, found, _parts(site, found, found.block, found.channel, ()))
        assert tile is not None
        last = result_apart(sch, function, site.block, fit.blocks[1 : len(fit.blocks) - len(padding)])
        block = sch.get_block(site.block, func=function)
        place = [axis.var for axis in found.block.iter_vars].index(found.channel)
        if found.group is not None:
            self._split_groups(site, found, block, last, place)
        node = find_block(site.func, site.block).block
        axes = dict(zip((a.var for a in found.block.iter_vars), (a.var for a in node.iter_vars)))
        groups: tuple[Var, ...] = ()
        if found.group is not None:
            after = [a.var for a in node.iter_vars]
            groups, filters = (after[place],), after[place + 1]
            kept = [a.var for a in found.block.iter_vars if a.var is not found.channel]
            axes = dict(zip(kept, [*after[:place], *after[place + 2 :]])) | {found.channel: filters}
        found = _renamed(found, axes, node)
        TiledProduct(site, _parts(site, found, node, found.channel, groups), tile, last, padding).run()

    def _tile(self, site: Site, found: Convolution, parts: Parts) -> GroupTile | None:
        filters = found.group if found.group is not None else parts.size(parts.rows)
        left, right = (dt.itemsize(load.buffer.dtype) for load in (found.weights, found.data))
        sizes = parts.size(parts.columns), parts.size(parts.sums), parts.size(parts.batch)
        return best_group_tile(site.gpu, filters, *sizes, left, right, whole_rows=found.group is not None)

    def _split_groups(self, site: Site, found: Convolution, block: BlockRef, last: BlockRef, place: int) -> None:
        """The axis of the filters becomes two, of the groups and of the filters of one, everywhere."""
        sch, group = site.schedule, found.group
        assert group is not None
        node = found.block.body
        assert isinstance(node, BufferStore)
        dimension = next(i for i, index in enumerate(node.indices) if index is found.channel)

        def split_at(position: int, values: tuple[Value, ...]) -> list[Value]:
            value = values[position]
            return [*values[:position], value // group, value % group, *values[position + 1 :]]

        read = find_block(site.func, last.name).block
        made = find_block(site.func, block.name).block.writes[0].buffer
        load = next(n for n in walk(read.body) if isinstance(n, BufferLoad) and n.buffer is made)
        index = load.indices[dimension]
        of_last = next((i for i, axis in enumerate(read.iter_vars) if axis.var is index), None)
        if of_last is None:
            reason = f"block {last.name} reads the filters of {made.name} at an index that is none of its axes"
            raise ScheduleError(reason, primitive="transform_block_layout", reason=reason)
        sch.transform_block_layout(block, lambda *axes: split_at(place, axes))
        sch.transform_block_layout(last, lambda *axes: split_at(of_last, axes))
        sch.transform_layout(block, ("write", 0), lambda *dims: split_at(dimension, dims))


def _renamed(found: Convolution, axes: dict[Var, Var], node: Block) -> Convolution:
    """What is the same after the block's axes were made anew."""
    return Convolution(
        block=node,
        data=found.data,
        weights=found.weights,
        outer=tuple(axes[a] for a in found.outer),
        channel=axes[found.channel],
        group=found.group,
        rows=None if found.rows is None else axes[found.rows],
        columns=axes[found.columns],
        sums=tuple(axes[a] for a in found.sums),
    )


def _parts(site: Site, found: Convolution, node: Block, channel: Var, groups: tuple[Var, ...]) -> Parts:
    extents = {axis.var: axis.dom.extent for axis in node.iter_vars}
    pixels = (*((found.rows,) if found.rows is not None else ()), found.columns)
    count = 1
    for axis in pixels:
        count *= const_int(extents[axis]) or _SMALL_IMAGE
    reads = [region.buffer for region in node.reads]
    images_known = all(const_int(extents[axis]) is not None for axis in found.outer)
    together = count < _SMALL_IMAGE and images_known and found.group is None
    batch, columns = ((), (*found.outer, *pixels)) if together else ((*found.outer, *groups), pixels)
    if found.rows is not None and _is_by_rows(site, found, const_int(extents[found.columns])):
        batch, columns = (*found.outer, *groups, found.rows), (found.columns,)
    return Parts(
        block=node,
        left=reads.index(found.weights.buffer),
        right=reads.index(found.data.buffer),
        batch=batch,
        rows=(channel,),
        columns=columns,
        sums=found.sums,
        extents=extents,
    )


def _is_by_rows(site: Site, found: Convolution, width: int | None) -> bool:
    """Whether columns of the product are pixels of one row: a core's vectors load what follows one another then,
    without a division for each. Only where that leaves little of the last vector of a row empty."""
    if width is None or not site.gpu.is_cpu or Access(found.data.buffer, found.data.indices).step(found.columns) != 1:
        return False
    vector = _VECTOR if site.gpu.loops_over_threads else _LANES
    return -(-width // vector) * vector * 4 <= width * 5
