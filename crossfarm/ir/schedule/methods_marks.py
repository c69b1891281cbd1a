"""The schedule's methods that say how loops run, note things, and place buffers."""

from __future__ import annotations

from crossfarm.ir.schedule import marks
from crossfarm.ir.schedule.base import ScheduleBase
from crossfarm.ir.schedule.references import BlockRef, LoopRef
from crossfarm.ir.stmt import AttrValue


class MarkMethods(ScheduleBase):
    """Loop kinds, annotations, memory scopes and alignment."""

    def parallel(self, loop: LoopRef) -> None:
        """Runs the loop's iterations on several threads.

        Raises:
            ScheduleError: two iterations may touch one element, as where the loop drives a reduce axis.
        """
        self._apply(marks.parallel, loop)

    def vectorize(self, loop: LoopRef) -> None:
        """Runs the loop's iterations as lanes of vectors; its extent is a constant.

        Raises:
            ScheduleError: the extent is symbolic, or two iterations may touch one element.
        """
        self._apply(marks.vectorize, loop)

    def unroll(self, loop: LoopRef) -> None:
        """Writes the loop's iterations out one after the other."""
        self._apply(marks.unroll, loop)

    def bind(self, loop: LoopRef, thread_axis: str) -> None:
        """Runs the loop's iterations on an axis of a device's thread grid, such as ``"threadIdx.x"``.

        Inside a loop that is bound to ``threadIdx`` a loop of the same extent may be bound to it once more, if it fills
        ``shared`` memory and does not depend on the outer one: the threads make together what all of them use.

        Raises:
            ScheduleError: no such axis, one that a loop of the same nest has otherwise, or two iterations may touch one
                element (a reduction of one block across ``threadIdx`` is accepted).
        """
        self._apply(marks.bind, loop, thread_axis)

    def annotate(self, block_or_loop: BlockRef | LoopRef, ann_key: str, ann_val: AttrValue) -> None:
        """Notes a value on a block or loop, replacing an older one of that key."""
        self._apply(marks.annotate, block_or_loop, ann_key, ann_val)

    def unannotate(self, block_or_loop: BlockRef | LoopRef, ann_key: str) -> None:
        """Removes a note. Raises ScheduleError listing the notes there are."""
        self._apply(marks.unannotate, block_or_loop, ann_key)

    def set_scope(self, block: BlockRef, buffer_index: int, scope: str) -> None:
        """Moves the temporary of the block's ``buffer_index``-th write to the memory scope ``global``, ``shared`` or
        ``local``."""
        self._apply(marks.set_scope, block, buffer_index, scope)

    def storage_align(self, block: BlockRef, buffer_index: int, axis: int, factor: int, offset: int) -> None:
        """Spaces the rows of the temporary of the block's ``buffer_index``-th write.

        Args:
            axis: a dimension but the last; negative counts from the end.
            factor, offset: its stride in elements becomes the next number that is ``offset`` modulo ``factor``.
        """
        self._apply(marks.storage_align, block, buffer_index, axis, factor, offset)
