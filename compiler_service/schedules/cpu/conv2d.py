"""Convolutions as sums of products over panels of pixels.

The pixels of some rows of the result, with what the window sees around each, are laid side by side in a panel (im2col),
so that a step of the sum is a vector of pixels times one weight. Weights are read where they are: a row of them is in
the order of the sum already, and packing them would cost more than small images have arithmetic. Accumulators, filters
by vectors of pixels, stay in registers over the sum. What follows element by element is done to each tile.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from compiler_service.schedules.base import Fit, Refusal, Site
from compiler_service.schedules.convolution import Convolution, convolution_of
from compiler_service.schedules.cpu.conv_tiles import ConvTile, Sizes, best_tile
from compiler_service.schedules.cpu.vectors import parallel_copy
from compiler_service.schedules.epilogue import epilogue_of
from compiler_service.schedules.padding import padding_before
from crossfarm.ir import dtype as dt
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Var
from crossfarm.ir.schedule.references import BlockRef, LoopRef
from crossfarm.ir.schedule.tree import find_block
from crossfarm.ir.stmt import Block, BufferStore
from crossfarm.ir.te.value import Value
from crossfarm.ir.visitor import walk

#: Products below which laying out panels costs more than it gives.
_FEWEST_PRODUCTS = 1 << 12
#: Most steps of a window that are written out.
_UNROLLED = 9


@dataclass(frozen=True)
class Conv2d:
    """Convolution by panels of pixels."""

    name: ClassVar[str] = "conv2d"

    def match(self, site: Site) -> Fit | Refusal:
        found = convolution_of(find_block(site.func, site.block).block)
        if isinstance(found, str):
            return Refusal(found)
        sizes = sizes_of(found)
        if isinstance(sizes, str):
            return Refusal(sizes)
        tile = best_tile(site.cpu, found.result.dtype, found.data.buffer.dtype, sizes)
        if tile is None:
            return Refusal(f"a panel of {sizes.width} pixels and {sizes.channels} channels does not fit the cache")
        epilogue = epilogue_of(site.func, site.block, site.open_blocks)
        pad = padding_before(site, found.data.buffer)
        how = "each thread makes its panels" if not tile.chunk else f"filters go to threads by {tile.chunk} tiles"
        along = f", with {', '.join(epilogue)} on each tile" if epilogue else ""
        reason = (
            f"a convolution of {found.data.buffer.name} with {found.weights.buffer.name}: panels of {tile.image_rows} "
            f"rows, tiles of {tile.filters} filters by {tile.vectors} vectors of {tile.lanes} pixels; {how}{along}"
        )
        return Fit((site.block, *epilogue, *pad), reason)

    def apply(self, site: Site, fit: Fit) -> None:
        found = convolution_of(find_block(site.func, site.block).block)
        assert isinstance(found, Convolution)
        sizes = sizes_of(found)
        assert isinstance(sizes, Sizes)
        tile = best_tile(site.cpu, found.result.dtype, found.data.buffer.dtype, sizes)
        assert tile is not None
        _Panels(site, found, sizes, tile).run()


def sizes_of(found: Convolution) -> Sizes | str:
    """The convolution in numbers, or why its kernel needs more to be known."""
    if found.group == 1:
        return "each channel has a filter of its own"
    if not dt.is_float(found.result.dtype) and not dt.is_int(found.result.dtype):
        return f"sums of {found.result.dtype} are not vectors"
    filters, width = found.extent(found.channel), found.extent(found.columns)
    height = 1 if found.rows is None else found.extent(found.rows)
    sums = [found.extent(axis) for axis in found.sums]
    if filters is None or width is None or height is None or None in sums:
        return "its filters, window or pixels are of symbolic number"
    steps = math.prod(s or 0 for s in sums)
    if width * height == 1:
        return "one pixel makes no panel"
    if filters * width * height * steps < _FEWEST_PRODUCTS:
        return f"{filters * width * height * steps} products are too few to lay out panels for"
    outer = [found.extent(axis) for axis in found.outer]
    images: int | None = None if None in outer else math.prod(e or 0 for e in outer)
    if found.group is not None:
        if filters % found.group:
            return f"{filters} filters are not groups of {found.group}"
        images = None if images is None else images * (filters // found.group)
        filters = found.group
    channels = sums[0] or 1
    return Sizes(images, filters, height, width, channels, steps // channels)


class _Panels:
    """One convolution on its way through the schedule.

    Axes and dimensions are called by their parts: ``o0``, ``o1``, … the outer ones, ``g`` the groups, ``f`` the
    filters, ``y`` and ``x`` the pixels, ``s0``, ``s1``, … what is summed over.
    """

    def __init__(self, site: Site, found: Convolution, sizes: Sizes, tile: ConvTile) -> None:
        self.sch, self.site, self.found, self.sizes, self.tile = site.schedule, site, found, sizes, tile
        self.conv = self.sch.get_block(site.block, func=site.function)
        parts: dict[Var, str] = {axis: f"o{n}" for n, axis in enumerate(found.outer)}
        parts |= {axis: f"s{n}" for n, axis in enumerate(found.sums)}
        parts |= {found.channel: "f", found.columns: "x"} | ({found.rows: "y"} if found.rows is not None else {})
        self.axes = [parts[axis.var] for axis in found.block.iter_vars]
        assert isinstance(found.block.body, BufferStore)
        self.dims = [parts[index] for index in found.block.body.indices if isinstance(index, Var)]
        self.outer = [f"o{n}" for n in range(len(found.outer))] + (["g"] if found.group is not None else [])
        self.tall = ["y"] if found.rows is not None else []
        self.sums = [f"s{n}" for n in range(len(found.sums))]
        self.filled = self.sums  # those that a panel has: an axis of one iteration may be missing

    def run(self) -> None:
        sch = self.sch
        names = epilogue_of(self.site.func, self.site.block, self.site.open_blocks)
        for pad in padding_before(self.site, self.found.data.buffer):
            parallel_copy(sch, self._block(pad))
        for name in names[:-1]:
            sch.compute_inline(self._block(name))
        if self.found.group is not None:
            self._split_groups(self.found.group)
        panel = self._lay_out()
        last = self._block(names[-1]) if names else sch.cache_write(self.conv, 0, "global")
        if self.found.group is not None:
            self._split_result(last, self.found.group)
        self._flatten_result(self.found.group)
        panel = self._pad(panel)
        self._tile_loops(panel, last)

    def _block(self, name: str) -> BlockRef:
        return self.sch.get_block(name, func=self.site.function)

    def _split_groups(self, group: int) -> None:
        """The filters' axis becomes two, the groups and the filters of one; the weights get an index for each."""
        place = self.axes.index("f")

        def split(*axes: Value) -> list[Value]:
            return [*axes[:place], axes[place] // group, axes[place] % group, *axes[place + 1 :]]

        self.sch.transform_block_layout(self.conv, split)
        self.axes[place : place + 1] = ["g", "f"]
        parallel_copy(self.sch, self.sch.reindex(self.conv, ("read", self._read(self.found.weights.buffer))))

    def _split_result(self, last: BlockRef, group: int) -> None:
        """What writes the result runs over groups and filters too: of it, too, a tile is a part of one group."""
        store = self._block_of(last).body
        assert isinstance(store, BufferStore)
        channel = store.indices[self.dims.index("f")]
        (place,) = (n for n, axis in enumerate(self._block_of(last).iter_vars) if axis.var is channel)
        self.sch.transform_block_layout(
            last, lambda *axes: [*axes[:place], axes[place] // group, axes[place] % group, *axes[place + 1 :]]
        )

    def _lay_out(self) -> BlockRef:
        """The block that fills the panels, a copy of the data as the kernel reads it: outer axes, panel, step of the
        sum, pixel. The convolution runs over these axes and the filters from then on."""
        sch = self.sch
        read = self._read(self.found.data.buffer)
        used = self._axes_of(read)
        data = [part for part, axis in zip(self.axes, self._block_of(self.conv).iter_vars) if axis.var in used]
        panel = sch.reindex(self.conv, ("read", read))
        self.filled = [s for s in self.sums if s in data]

        def of_data(*axes: Value) -> list[Value]:
            at = dict(zip(data, axes))
            tiles, pixel = self._pixels(at)
            return [*(at[o] for o in self.outer if o in at), *tiles, *(at[s] for s in self.filled), pixel]

        def of_block(*axes: Value) -> list[Value]:
            at = dict(zip(self.axes, axes))
            tiles, pixel = self._pixels(at)
            return [*(at[o] for o in self.outer), at["f"], *tiles, pixel, *(at[s] for s in self.sums)]

        sch.transform_layout(panel, ("write", 0), of_data)
        sch.transform_block_layout(self.conv, of_block)
        sch.transform_block_layout(panel, of_data)
        return panel

    def _flatten_result(self, group: int | None) -> None:
        """The result, a temporary by now, in the order of the kernel's axes."""

        def flat(*dims: Value) -> list[Value]:
            at = dict(zip(self.dims, dims))
            if group is not None:
                at["g"], at["f"] = at["f"] // group, at["f"] % group
            tiles, pixel = self._pixels(at)
            return [*(at[o] for o in self.outer), at["f"], *tiles, pixel]

        self.sch.transform_layout(self.conv, ("write", 0), flat)

    def _pixels(self, at: dict[str, Value]) -> tuple[list[Value], Value]:
        """Which panel a pixel is in, and where. An axis of one iteration may be missing."""
        if "y" not in at:
            return [], at["x"]
        rows = self.tile.image_rows
        tiles, row = [at["y"] // rows], at["y"] % rows
        return tiles, (row * self.sizes.width + at["x"] if "x" in at else row)

    def _pad(self, panel: BlockRef) -> BlockRef:
        """Filters and pixels become multiples of the tile; the block that fills the panels then."""
        sch, tile, sizes = self.sch, self.tile, self.sizes
        filters = 1 if sizes.filters % tile.filters == 0 else tile.filters
        pixels = 1 if tile.panel(sizes) == tile.image_rows * sizes.width else tile.vectors * tile.lanes
        if filters == pixels == 1:
            return panel
        before = set(sch.get_producers(self.conv))
        sch.pad_einsum(
            self.conv, [*[1 for _ in self.outer], filters, *[1 for _ in self.tall], pixels, *[1 for _ in self.sums]]
        )
        result = sch.get_consumers(self.conv)[0]
        for copy in sch.get_producers(self.conv):
            if copy in before:
                continue
            if panel in sch.get_producers(copy):
                sch.compute_inline(panel)
                panel = copy
            else:
                parallel_copy(sch, copy)
        sch.compute_inline(result)
        return panel

    def _tile_loops(self, panel: BlockRef, last: BlockRef) -> None:
        sch, tile = self.sch, self.tile
        loops = sch.get_loops(self.conv)
        count = len(self.outer)
        panels, filters, pixel = (
            [*loops[:count], *loops[count + 1 : -len(self.sums) - 1]],
            loops[count],
            loops[-len(self.sums) - 1],
        )
        steps = list(loops[-len(self.sums) :])
        groups, in_filters = sch.split(filters, [None, tile.filters])
        pixels, vectors, lanes = sch.split(pixel, [None, tile.vectors, tile.lanes])
        blocks: list[LoopRef] = []
        if tile.channels != self.sizes.channels:
            block, steps[0] = sch.split(steps[0], [None, tile.channels])
            blocks = [block]
        if tile.chunk:
            chunks, groups = sch.split(groups, [None, tile.chunk])
            panels.append(chunks)
        if not panels:
            panels = [sch.add_unit_loop(groups)]
        inner = [vectors, in_filters] if tile.filters <= tile.vectors else [in_filters, vectors]
        sch.reorder(*panels, *blocks, groups, pixels, *steps, *inner, lanes)
        sch.reverse_compute_at(last, panels[-1] if blocks else groups)
        if not tile.chunk:
            sch.compute_at(panel, panels[-1])
        self._fill(panel)
        sch.vectorize(sch.get_loops(last)[-1])
        for loop in inner:
            sch.unroll(loop)
        sch.vectorize(lanes)
        sch.decompose_reduction(self.conv, (blocks or steps)[0])
        self._unroll_window(steps)
        sch.parallel(sch.fuse(*panels) if len(panels) > 1 else panels[0])

    def _fill(self, panel: BlockRef) -> None:
        """A panel is filled by rows of the image, which are contiguous in it."""
        sch = self.sch
        if self.tile.chunk:
            # of the panel's loops the window's and the pixels are left to a thread
            loops = sch.get_loops(panel)
            shared = loops[: -1 - len([s for s in self.filled if s != "s0"])] or (sch.add_unit_loop(loops[0]),)
            sch.parallel(sch.fuse(*shared) if len(shared) > 1 else shared[0])
        sch.vectorize(sch.split(sch.get_loops(panel)[-1], [None, self.sizes.width])[1])

    def _unroll_window(self, steps: list[LoopRef]) -> None:
        """The innermost axes of the window, written out as long as that is short."""
        written = 1
        for loop, axis in reversed(list(zip(steps[1:], self.found.sums[1:]))):
            written *= self.found.extent(axis) or 1
            if written > _UNROLLED:
                break
            self.sch.unroll(loop)

    def _read(self, buffer: Buffer) -> int:
        return [region.buffer for region in self._block_of(self.conv).reads].index(buffer)

    def _axes_of(self, read: int) -> set[Var]:
        """The axes that choose what the convolution reads there; those of one iteration may not."""
        ranges = self._block_of(self.conv).reads[read].region
        return {n for part in ranges for n in walk(part) if isinstance(n, Var)}

    def _block_of(self, block: BlockRef) -> Block:
        found = self.sch.get(block)
        assert isinstance(found, Block)
        return found
