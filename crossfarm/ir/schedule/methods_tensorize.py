"""The schedule's methods of the tensorize family: blockize and tensorize."""

from __future__ import annotations

from crossfarm.ir.schedule import blockize, tensorize
from crossfarm.ir.schedule.base import ScheduleBase
from crossfarm.ir.schedule.references import BlockRef, LoopRef


class TensorizeMethods(ScheduleBase):
    """Primitives of the tensorize family."""

    def blockize(self, loop: LoopRef, preserve_unit_iters: bool = True) -> BlockRef:
        """Makes the subtree under ``loop``, a straight nest around one block, a block of its own.

        The new block, named after the old one with ``_o`` appended, has the loops above as its axes; the old one is
        inside it with the loops below. An ``init`` moves to the new block and initializes all that one instance of it
        computes. Axis values must divide into ``outer * size + inner`` between the loops above and below.

        Args:
            preserve_unit_iters: keep an axis in the new block where the loops below run all of it.

        Raises:
            ScheduleError: the subtree is not such a nest, an axis does not divide, or, with an ``init``, the block is
                not a reduction block.
        """
        return self._apply(blockize.blockize, loop, preserve_unit_iters)

    def tensorize(
        self, block_or_loop: BlockRef | LoopRef, tensor_intrin: str, preserve_unit_iters: bool = True
    ) -> BlockRef:
        """Replaces what a block, or the subtree under a loop, does by an intrinsic's implementation; the block.

        The content must be what the intrinsic describes: the same loops and statements, each buffer indexed by the
        loops as there. A subtree under a loop is made a block first, as by ``blockize``; take a reduction's ``init``
        out by ``decompose_reduction`` before, or leave it to that block.

        Args:
            tensor_intrin: a name of ``crossfarm.ir.schedule.intrinsics``, built in or registered.
            preserve_unit_iters: as for ``blockize``.

        Raises:
            ScheduleError: no such intrinsic, or the content differs; the message says in what.
        """
        return self._apply(tensorize.tensorize, block_or_loop, tensor_intrin, preserve_unit_iters)
