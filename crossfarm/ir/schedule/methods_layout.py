"""The schedule's methods of the layout family: copies, reindexing, layouts and padding."""

from __future__ import annotations

from collections.abc import Sequence

from crossfarm.ir.schedule import cache
from crossfarm.ir.schedule.base import ScheduleBase
from crossfarm.ir.schedule.references import BlockRef


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
        return self._apply(cache.cache_read, block, read_index, scope, tuple(consumer_blocks or ()))

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
        return self._apply(cache.cache_write, block, write_index, scope, tuple(consumer_blocks or ()))
