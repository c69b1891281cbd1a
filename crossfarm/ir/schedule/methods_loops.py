"""The schedule's methods that find blocks and loops, and reshape loop nests."""

from __future__ import annotations

from crossfarm.ir.schedule import loops
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
        return self._apply(loops.get_block, name, name_of, func=name_of)

    def get_loops(self, block: BlockRef) -> tuple[LoopRef, ...]:
        """The loops around ``block`` inside its scope, outer to inner."""
        return self._apply(loops.get_loops, block)

    def get_child_blocks(self, block: BlockRef) -> tuple[BlockRef, ...]:
        """The blocks directly inside ``block``, in execution order."""
        return self._apply(loops.get_child_blocks, block)

    def get_producers(self, block: BlockRef) -> tuple[BlockRef, ...]:
        """The blocks before ``block`` in its scope that write a buffer it reads."""
        return self._apply(loops.get_producers, block)

    def get_consumers(self, block: BlockRef) -> tuple[BlockRef, ...]:
        """The blocks after ``block`` in its scope that read a buffer it writes."""
        return self._apply(loops.get_consumers, block)

    def get_output_blocks(self, scope: BlockRef) -> tuple[BlockRef, ...]:
        """The blocks directly inside ``scope`` that write a buffer which ``scope`` does not allocate."""
        return self._apply(loops.get_output_blocks, scope)
