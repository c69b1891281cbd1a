"""The schedule's methods that find blocks and loops, and reshape loop nests."""

from __future__ import annotations

from collections.abc import Sequence

from crossfarm.ir.expr import Expr
from crossfarm.ir.schedule import loops, queries
from crossfarm.ir.schedule.base import ScheduleBase
from crossfarm.ir.schedule.references import BlockRef, LoopRef


class LoopMethods(ScheduleBase):
    """get_block, get_loops, the relatives of a block, and primitives over loops."""

    def get_block(self, name: str, func: str | None = None) -> BlockRef:
        """The block ``name`` of function ``func`` (the only function, or ``main``, where it is left out).

        Raises:
            ScheduleError: there is no such block; the message lists those there are.
        """
        name_of = self._function_of("get_block", (), func)
        return self._apply(queries.get_block, name, name_of, func=name_of)

    def get_loops(self, block: BlockRef) -> tuple[LoopRef, ...]:
        """The loops around ``block`` inside its scope, outer to inner."""
        return self._apply(queries.get_loops, block)

    def get_child_blocks(self, block: BlockRef) -> tuple[BlockRef, ...]:
        """The blocks directly inside ``block``, in execution order."""
        return self._apply(queries.get_child_blocks, block)

    def get_producers(self, block: BlockRef) -> tuple[BlockRef, ...]:
        """The blocks before ``block`` in its scope that write a buffer it reads."""
        return self._apply(queries.get_producers, block)

    def get_consumers(self, block: BlockRef) -> tuple[BlockRef, ...]:
        """The blocks after ``block`` in its scope that read a buffer it writes."""
        return self._apply(queries.get_consumers, block)

    def get_output_blocks(self, scope: BlockRef) -> tuple[BlockRef, ...]:
        """The blocks directly inside ``scope`` that write a buffer which ``scope`` does not allocate."""
        return self._apply(queries.get_output_blocks, scope)

    def split(
        self,
        loop: LoopRef,
        factors: Sequence[int | Expr | None],
        preserve_unit_iters: bool = True,
        disable_predication: bool = False,
    ) -> tuple[LoopRef, ...]:
        """One loop as a nest of ``len(factors)`` loops, outer to inner, whose extents are the factors.

        Where the factors do not divide the extent, the blocks below run under a condition.

        Args:
            loop: a serial loop from 0 without annotations; its extent may be symbolic.
            factors: extents; at most one is None, which is what is left, rounded up.
            preserve_unit_iters: keep loops of one iteration; else they are left out of the result as well.
            disable_predication: leave the condition out: the caller vouches that the factors divide the extent.

        Raises:
            ScheduleError: the factors do not cover the loop, or the loop may not be replaced.
        """
        return self._apply(loops.split, loop, factors, preserve_unit_iters, disable_predication)

    def fuse(self, *loops_: LoopRef, preserve_unit_iters: bool = True) -> LoopRef:
        """Loops that are directly inside one another, outer to inner, as one loop over all their iterations.

        Args:
            loops_: serial loops from 0 without annotations, whose extents do not depend on one another.
            preserve_unit_iters: False leaves loops of one iteration out of the fused index.

        Raises:
            ScheduleError: they are not directly nested in this order, or may not be replaced.
        """
        return self._apply(loops.fuse, *loops_, preserve_unit_iters=preserve_unit_iters)

    def reorder(self, *loops_: LoopRef) -> None:
        """The loops in the given order, outer to inner; loops of the nest that are not named stay in their places.

        Raises:
            ScheduleError: they are not in one nest without other statements between, a range would depend on a loop
                further in, or the blocks below depend on the order.
        """
        self._apply(loops.reorder, *loops_)

    def add_unit_loop(self, at: BlockRef | LoopRef) -> LoopRef:
        """A loop of one iteration around a block or a loop."""
        return self._apply(loops.add_unit_loop, at)
