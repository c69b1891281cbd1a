"""The schedule's methods of the layout family: copies, reindexing, layouts and padding."""

from __future__ import annotations

from collections.abc import Sequence

from crossfarm.errors import InvalidModule
from crossfarm.ir.schedule import cache, layout
from crossfarm.ir.schedule import padding as padding_
from crossfarm.ir.schedule import reindex as reindex_
from crossfarm.ir.schedule.base import ScheduleBase
from crossfarm.ir.schedule.index_map import IndexMap, IndexMapLike
from crossfarm.ir.schedule.references import BlockRef
from crossfarm.ir.schedule.tree import refuse
from crossfarm.ir.stmt import Block


class LayoutMethods(ScheduleBase):
    """cache_read, cache_write, reindex, transform_layout, transform_block_layout, pad_einsum."""

    def cache_read(
        self, block: BlockRef, read_index: int, scope: str, consumer_blocks: Sequence[BlockRef] | None = None
    ) -> BlockRef:
        """Lets blocks read a copy of a buffer, made before the first of them; the block that copies.

        The copy has the buffer's shape; what is copied is the box that the blocks read, all of a dimension where that
        cannot be told. It is made as far out in the scope of ``block`` as the buffer's producers allow.

        Args:
            read_index: which of the reads of ``block``.
            scope: the copy's memory: ``global``, ``shared`` or ``local``.
            consumer_blocks: blocks of the scope that read the copy; None for all that read the buffer.

        Raises:
            ScheduleError: a consumer writes the buffer too, or no place is after all producers and before all
                consumers.
        """
        return self._apply(cache.cache_read, block, read_index, scope, consumer_blocks)

    def cache_write(
        self, block: BlockRef, write_index: int, scope: str, consumer_blocks: Sequence[BlockRef] | None = None
    ) -> BlockRef:
        """Lets a block compute into a copy, which is written to the buffer right after; the block that copies.

        Args:
            write_index: which of the writes of ``block``.
            scope: the copy's memory: ``global``, ``shared`` or ``local``.
            consumer_blocks: blocks of the scope that read the copy and not the buffer; None for none.

        Raises:
            ScheduleError: another block writes the buffer too, or some element that would be copied may not be written.
        """
        return self._apply(cache.cache_write, block, write_index, scope, consumer_blocks)

    def reindex(self, block: BlockRef, buffer: tuple[str, int]) -> BlockRef:
        """Lets a block access a copy indexed by those of its axes that the access uses; the block that copies.

        ``A[n, h * 2 + r, w * 2 + s]`` becomes ``A_reindex[n, h, w, r, s]``, as packing operands and im2col begin.

        Args:
            buffer: ``("read", i)`` or ``("write", i)``: the ``i``-th read or write of the block.

        Raises:
            ScheduleError: the block accesses the buffer at several indices or through more than its axes; for a write
                also where two instances write one element or some instances may not run.
        """
        return self._apply(reindex_.reindex, block, tuple(buffer))

    def transform_layout(
        self,
        block: BlockRef,
        buffer: tuple[str, int],
        index_map: IndexMapLike,
        pad_value: bool | int | float | None = None,
    ) -> None:
        """Stores the elements of a temporary at other indices, everywhere in the function.

        ::

            sch.transform_layout(packed, ("write", 0), lambda m, k: [m // 8, k, m % 8], pad_value=0)

        Args:
            buffer: ``("read", i)`` or ``("write", i)``: the buffer of the block's ``i``-th read or write.
            index_map: of the old indices; no two elements may go to one place.
            pad_value: what elements hold that have none in the old layout; None for anything. A producer that gives
                each element its value in plain loops is rewritten to run over the new layout, padding included.

        Raises:
            ScheduleError: the buffer is a parameter (``cache_read`` it first) or has views, or the map may take two
                elements to one place.
        """
        node = self._block(block, "transform_layout")
        regions = node.reads if buffer[0] == "read" else node.writes
        dims = regions[buffer[1]].buffer.shape if 0 <= buffer[1] < len(regions) else ()
        mapped = _index_map("transform_layout", node, index_map, [e.dtype for e in dims]) if dims else index_map
        return self._apply(layout.transform_layout, block, tuple(buffer), mapped, pad_value)

    def transform_block_layout(self, block: BlockRef, index_map: IndexMapLike) -> None:
        """Runs a block's instances in another order: one new loop for each output of a map of its axes.

        Args:
            index_map: of the axes; where it leaves gaps the block gets a predicate.

        Raises:
            ScheduleError: the block is neither complete nor a reduction, its loops are not plain, or the map mixes
                spatial and reduce axes.
        """
        node = self._block(block, "transform_block_layout")
        mapped = _index_map("transform_block_layout", node, index_map, [a.var.dtype for a in node.iter_vars])
        return self._apply(layout.transform_block_layout, block, mapped)

    def pad_einsum(self, block: BlockRef, padding: Sequence[int]) -> None:
        """Runs a sum of products over axes whose extents are multiples of ``padding``, on copies padded with zeros.

        The copies are made by blocks named after their buffers, as ``A_pad`` and ``B_pad`` before and ``C_pad`` after.

        Args:
            padding: for each of the block's axes what its extent becomes a multiple of; 1 leaves it as it is.

        Raises:
            ScheduleError: the block is not one store indexed by its axes, its loops are not plain, or steps of a padded
                reduce axis may add something.
        """
        return self._apply(padding_.pad_einsum, block, tuple(padding))


def _index_map(primitive: str, node: Block, source: IndexMapLike, dtypes: list[str]) -> IndexMap:
    try:
        return IndexMap.of(source, len(dtypes), dtypes[0] if dtypes else "int32")
    except InvalidModule as unfit:
        refuse(primitive, unfit.message, at=node, hint=unfit.hint)
